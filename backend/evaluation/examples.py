"""Questions that one run wins and another loses, as cards with their pictures."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from typing import Any

from backend.evaluation.comparison import Pair
from backend.evaluation.evidence import image_bytes
from backend.messages import message
from backend.workspace import Workspace

_PICTURE_SIDE = 320


def spread_out(paired: list[Pair], most: int) -> list[Pair]:
    """At most `most` pairs, taking turns among the categories so that each is seen."""
    waiting: dict[str, list[Pair]] = {}
    for pair in paired:
        waiting.setdefault(pair.category, []).append(pair)
    chosen: list[Pair] = []
    while waiting and len(chosen) < most:
        for category in list(waiting):
            chosen.append(waiting[category].pop(0))
            if not waiting[category]:
                del waiting[category]
    return chosen[:most]


def make_cards(
    workspace: Workspace, paired: list[Pair], candidate: str, baseline: str, language: str = "en"
) -> list[dict[str, Any]]:
    """What is shown of each pair: `image` (data URI or None), `question`, `facts` (name, text).

    Args:
        workspace: Where the pictures lie.
        paired: What is shown; of a circular group, the first row that decided it.
        candidate: The candidate's label.
        baseline: The baseline's label.
        language: `en` or `zh`.
    """
    telling = [_telling_row(pair) for pair in paired]
    pictures = image_bytes(workspace, [ours["image"] for ours, _ in telling])
    cards = []
    for ours, theirs in telling:
        facts = [
            (candidate, ours["answer"]),
            (baseline, theirs["answer"]),
            (message("document.gold", language), gold_text(ours["gold"])),
        ]
        if ours["options"]:
            options = json.loads(ours["options"])
            listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
            facts.insert(0, (message("document.options", language), listed))
        picture = pictures.get(ours["image"])
        image = data_uri(picture) if picture else None
        cards.append({"image": image, "question": ours["question"], "facts": facts})
    return cards


def _telling_row(pair: Pair) -> tuple[dict[str, Any], dict[str, Any]]:
    """The row of a group whose answers differ in being right, else the first."""
    return next(
        ((ours, theirs) for ours, theirs in pair.rows if ours["score"] != theirs["score"]),
        pair.rows[0],
    )


def gold_answers(value: str) -> list[tuple[str, int]]:
    """The right letter, or what people said, the most frequent first; each with how often."""
    gold = json.loads(value)
    if not isinstance(gold, list):
        return [(str(gold), 1)]
    counts = Counter(str(said) for said in gold)
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))


def gold_text(value: str) -> str:
    """`gold_answers` in one line."""
    return ", ".join(f"{said} ×{n}" if n > 1 else said for said, n in gold_answers(value))


def data_uri(picture: bytes) -> str | None:
    """A picture as a small JPEG inside a data URI; None when it cannot be decoded."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(picture)) as image:
            small = image.convert("RGB")
    # A hostile or broken file can make a decoder raise nearly anything.
    except Exception:
        return None
    small.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
