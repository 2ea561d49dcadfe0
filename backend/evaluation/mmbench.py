"""MMBench accuracy under its two contracts: the kit's string equality and VLMEvalKit's rules."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from backend.errors import InputError, UsageError
from backend.evaluation.statistics import wilson_interval
from backend.formats.mmbench import Answer, Row, read_answers, read_rows

Contract = Literal["kit", "vlmeval"]
CONTRACTS: tuple[Contract, ...] = ("kit", "vlmeval")
REFUSED = "Z"
_API_FAILURE = "Failed to obtain answer via API"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([A-D])", re.IGNORECASE)
_LAST_WORDS = 4


def extract_option(prediction: str, options: Iterable[str]) -> str | None:
    """The letter that a prediction names, by VLMEvalKit's rules; None when they do not tell.

    A refusal is `Z`. Else the only option letter that stands alone, when among the last four
    words. Else the letter after "answer is".
    """
    letters = list(options)
    if _API_FAILURE in prediction:
        return None
    if any(refusal in prediction for refusal in _REFUSALS):
        return REFUSED
    words = prediction.translate(_SEPARATORS).split()
    named = [letter for letter in letters if letter in words]
    if len(named) == 1 and words.index(named[0]) >= len(words) - _LAST_WORDS:
        return named[0]
    if not named and REFUSED in words:
        return REFUSED
    stated = _ANSWER_IS.search(prediction)
    if stated and stated.group(1).upper() in letters:
        return stated.group(1).upper()
    return None


def extract_text(prediction: str, options: dict[str, str]) -> str | None:
    """The letter of the only option whose text a short prediction contains, else None.

    Short is at most twice the length of all options together.
    """
    said = prediction.lower()
    if len(said) > 2 * sum(len(text) for text in options.values()):
        return None
    found = [letter for letter, text in options.items() if text.lower() in said]
    return found[0] if len(found) == 1 else None


def extract(prediction: str, options: dict[str, str]) -> str | None:
    """The letter that a prediction means, by VLMEvalKit's rules without a judge model."""
    return extract_option(prediction, options) or extract_text(prediction, options)


def predicted_letter(prediction: str, options: dict[str, str], contract: Contract) -> str | None:
    """The letter that counts under a contract: the whole prediction, or what it means."""
    if contract == "vlmeval":
        return extract(prediction, options)
    return prediction if prediction in options else None


@dataclass(frozen=True, slots=True)
class Group:
    """A base question with all its circular rows."""

    base: int
    category: str
    l2_category: str
    hit: bool
    """Every row right."""
    first: bool
    """The unrotated row right."""


def score_groups(
    rows: Iterable[Row], predictions: dict[int, str], contract: Contract
) -> list[Group]:
    """Each base question whose rows are all answered, in the order of the file.

    Args:
        rows: The benchmark's rows, without images.
        predictions: Row index to the model's answer.
        contract: How an answer becomes a letter.

    Raises:
        InputError: A row has no right answer to compare with (a test split).
    """
    by_base: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row.answer is None:
            raise InputError(
                "the benchmark file tells no answers.",
                place=f"question {row.index}, field answer",
                remedy="Upload the sheet to the benchmark's server to score a test split.",
            )
        by_base[row.base].append(row)
    groups = []
    for base, members in by_base.items():
        if any(row.index not in predictions for row in members):
            continue
        right = {
            row.index: predicted_letter(predictions[row.index], row.options, contract) == row.answer
            for row in members
        }
        first = min(members, key=lambda row: row.index)
        groups.append(
            Group(
                base=base,
                category=first.category or "",
                l2_category=first.l2_category or "",
                hit=all(right.values()),
                first=right[first.index],
            )
        )
    return groups


def summarize(groups: list[Group], asked: int, contract: Contract) -> dict[str, Any]:
    """Circular accuracy (0 to 100), its 95 % Wilson interval, and the accuracy by category.

    Args:
        groups: The scored base questions.
        asked: How many base questions there were.
        contract: How the answers were read.

    Returns:
        `score`, `vanilla_score` (unrotated rows only) and `interval` (None without groups), `n`,
        `hits`, `missing`, `categories` and `l2` (name to score and n), `scorer`.
    """
    n, hits = len(groups), sum(group.hit for group in groups)
    interval = [100 * bound for bound in wilson_interval(hits, n)] if n else None
    return {
        "score": 100 * hits / n if n else None,
        "vanilla_score": 100 * sum(group.first for group in groups) / n if n else None,
        "n": n,
        "hits": hits,
        "missing": asked - n,
        "interval": interval,
        "categories": _by([(group.category, group.hit) for group in groups]),
        "l2": _by([(group.l2_category, group.hit) for group in groups]),
        "scorer": f"mmbench-{contract}-circular",
    }


def _by(hits: list[tuple[str, bool]]) -> dict[str, dict[str, float]]:
    found: dict[str, list[bool]] = defaultdict(list)
    for name, hit in hits:
        if name:
            found[name].append(hit)
    return {
        name: {"score": 100 * sum(values) / len(values), "n": len(values)}
        for name, values in sorted(found.items())
    }


def predictions_of(
    answers: Iterable[Answer], indices: Iterable[int], place: str = ""
) -> dict[int, str]:
    """Row index to answer.

    Raises:
        InputError: A row is answered twice, or is not in the benchmark file.
    """
    known, found = set(indices), dict[int, str]()
    for answer in answers:
        where = f"{answer.place or place}, field question_id ({answer.index})"
        if answer.index not in known:
            raise InputError("the benchmark file has no such question.", place=where)
        if answer.index in found:
            raise InputError("this question is answered twice.", place=where)
        found[answer.index] = answer.text
    return found


def score_file(answers: Path, questions: Path, contract: Contract) -> dict[str, Any]:
    """Score an answer file against the benchmark's TSV; see `summarize`.

    A base question counts when all its rows are answered; `missing` counts the others.

    Raises:
        InputError: A file is missing or malformed, or the two do not belong together.
        UsageError: There is no such contract.
    """
    if contract not in CONTRACTS:
        raise UsageError(
            f"there is no such contract (there are: {', '.join(CONTRACTS)}).", place=contract
        )
    rows = list(read_rows(questions, images=False))
    predictions = predictions_of(read_answers(answers), (row.index for row in rows), str(answers))
    groups = score_groups(rows, predictions, contract)
    return summarize(groups, len({row.base for row in rows}), contract)
