"""Named checks of a dataset version against the kit's rules and against its parent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from backend.errors import InputError
from backend.formats.convert import checked_caption, is_dialogue
from backend.formats.data_juicer import LLAVA_IMAGE_TOKEN, Pair, caption_text
from backend.formats.images import ImageFacts
from backend.formats.llava import Conversation

Row = Mapping[str, Any]
EXAMPLES = 10


@dataclass(frozen=True)
class Check:
    """One check's result, an entry of `verification.json`."""

    name: str
    """Message key below `check.`: `.title`, `.why`, `.remedy`."""
    state: Literal["passed", "warning", "failed", "unknown"]
    count: int
    """Samples that fail it."""
    total: int
    """Samples looked at."""
    examples: list[dict[str, str]] = field(default_factory=list)
    """`sample_id` and `detail` of the first ones."""
    values: dict[str, Any] = field(default_factory=dict)
    """Further figures."""

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def known_ids(rows: list[Row], originals: Mapping[str, Conversation]) -> Check:
    """Every source id is in the originals: the kit looks the question up by it."""
    return _each("data_ids", rows, lambda r: "" if r["source_id"] in originals else r["source_id"])


def original_questions(rows: list[Row], originals: Mapping[str, Conversation]) -> Check:
    """Every question is the original's, word for word."""

    def fault(row: Row) -> str:
        original = originals.get(row["source_id"])
        same = original is None or original.turns[0].value == row["question"]
        return "" if same else str(row["question"])

    return _each("data_questions", rows, fault)


def one_image(rows: list[Row]) -> Check:
    """One image for the one image token."""

    def fault(row: Row) -> str:
        images = len(set(row["images"]))
        tokens = str(row["question"]).count(LLAVA_IMAGE_TOKEN)
        return "" if images == tokens == 1 else f"{images} : {tokens}"

    return _each("data_one_image", rows, fault)


def readable_images(rows: list[Row], facts: Iterable[ImageFacts]) -> Check:
    """Every image decodes."""
    faults = {
        row["sample_id"]: f"{row['images'][0]}: {fact.detail}"
        for row, fact in zip(rows, facts, strict=True)
        if fact.problem is not None
    }
    return _each("data_images", rows, lambda row: faults.get(row["sample_id"], ""))


def row_form(rows: list[Row]) -> Check:
    """Every row has the seed's form: token, caption, end token, and nothing between."""

    def fault(row: Row) -> str:
        if is_dialogue(row["text"]):
            return str(row["text"])[:80]
        try:
            checked_caption(Pair(row["source_id"], caption_text(row["text"]), tuple(row["images"])))
        except InputError as error:
            return error.problem
        return ""

    return _each("data_form", rows, fault)


def within_cap(rows: list[Row], cap: int) -> Check:
    """At most as many samples as may be trained on; more are drawn from, not refused."""
    over = max(len(rows) - cap, 0)
    return Check("data_cap", "warning" if over else "passed", over, len(rows), values={"cap": cap})


def repeated_pairs(rows: list[Row]) -> Check:
    """The same image with the same caption more than once weighs more in training."""
    seen: Counter[tuple[Any, Any]] = Counter()

    def fault(row: Row) -> str:
        key = (row["image_sha256"] or row["images"][0], row["text"])
        seen[key] += 1
        return str(row["text"]) if seen[key] > 1 else ""

    return _each("data_repeated", rows, fault, state="warning")


def synthesized_samples(rows: list[Row]) -> Check:
    """At least one sample was synthesized, as the challenge demands."""
    count = sum(row["origin"] == "synthesized" for row in rows)
    values = {"synthesized": count}
    return Check("data_synthesized", "passed" if count else "warning", 0, len(rows), values=values)


def agreement_against_parent(scores: list[float], parent_scores: list[float]) -> Check:
    """Image and text agree at least as well as in the parent, by the median of some of them."""
    if not scores or not parent_scores:
        return Check("data_agreement", "unknown", 0, 0)
    median, parent = _median(scores), _median(parent_scores)
    return Check(
        "data_agreement",
        "passed" if median >= parent else "warning",
        sum(score < parent for score in scores),
        len(scores),
        values={"median": round(median, 4), "parent_median": round(parent, 4)},
    )


def _each(
    name: str,
    rows: list[Row],
    fault: Callable[[Row], str],
    state: Literal["warning", "failed"] = "failed",
) -> Check:
    """A check that looks at each row; `fault` returns what is wrong, or nothing."""
    count = 0
    examples: list[dict[str, str]] = []
    for row in rows:
        if detail := fault(row):
            count += 1
            if len(examples) < EXAMPLES:
                examples.append({"sample_id": row["sample_id"], "detail": detail})
    return Check(name, state if count else "passed", count, len(rows), examples)


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2
