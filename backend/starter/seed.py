"""The seed: image-caption pairs with the faults of real ones, and what is truly in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from PIL import Image

from backend.files import write_atomic
from backend.formats.data_juicer import Pair, caption_text, write_pairs
from backend.formats.llava import Conversation, Turn, write_conversations
from backend.starter.drawing import blurred, draw
from backend.starter.language import VAGUE, caption
from backend.starter.scenes import Scene, random_scene

QUESTIONS = (
    "Tell what is seen.",
    "Say briefly what the picture shows.",
    "What is shown here?",
    "Name what is in the picture.",
    "Sum the picture up in a sentence.",
)
SHARES = {"swapped": 0.18, "vague": 0.14, "duplicate": 0.08, "tiny": 0.02, "blurred": 0.04}
"""Part of the pairs that carries each fault."""
UNREADABLE = 12
"""Pairs whose picture is a broken file."""
QUALITY = 88


@dataclass(frozen=True)
class _Draft:
    id: str
    scene: Scene
    caption: str
    fault: str


def write_seed(root: Path, truth: Path, *, count: int, seed: int) -> None:
    """Write the pairs, their originals, their pictures, and the scenes behind them.

    Args:
        root: The kit's `input/pretrain_stage_1`.
        truth: Gets `<id>` → scene and fault of every pair, one JSON object a line; no stage
            reads it.
        count: How many pairs.
        seed: Where chance starts.
    """
    random = Random(seed)
    drafts = list(_drafts(random, count))
    conversations, pairs, lines = [], [], []
    for draft in drafts:
        image = f"images/{draft.id[:3]}/{draft.id}.jpg"
        _write_picture(root / image, draft, random)
        question = f"<image>\n{random.choice(QUESTIONS)}"
        turns = (Turn("human", question), Turn("gpt", draft.caption))
        conversations.append(Conversation(draft.id, turns, (image,)).record())
        pairs.append(Pair(draft.id, caption_text(draft.caption), (image,)))
        lines.append(json.dumps({"id": draft.id, "fault": draft.fault, **draft.scene.record()}))
    write_pairs(root / "mgm_pretrain_stage_1.jsonl", pairs)
    write_conversations(root / "stage_1.json", conversations)
    write_atomic(truth, "\n".join(lines) + "\n")


def _drafts(random: Random, count: int) -> Iterator[_Draft]:
    """Every pair with its fault; a swapped caption comes from another scene."""
    names = [*SHARES, "none"]
    weights = [*SHARES.values(), 1 - sum(SHARES.values())]
    recent: list[Scene] = []
    for number in range(count):
        fault = random.choices(names, weights)[0] if recent else "none"
        scene = random_scene(random)
        if fault == "duplicate":
            # The same picture but for its texture: a near-duplicate.
            scene = replace(random.choice(recent), grain=random.randrange(1 << 30))
        told = random_scene(random) if fault == "swapped" else scene
        items = random.choice((1, 2, None))
        text = random.choice(VAGUE) if fault == "vague" else caption(told, random, items=items)
        if number >= count - UNREADABLE:
            fault = "unreadable"
        recent = [*recent[-199:], scene]
        yield _Draft(f"{number:06d}", scene, text, fault)


def _write_picture(path: Path, draft: _Draft, random: Random) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if draft.fault == "unreadable":
        path.write_bytes(b"\xff\xd8\xff\xe0" + random.randbytes(400))
        return
    picture = draw(draft.scene)
    if draft.fault == "tiny":
        picture = picture.resize((24, 24), Image.Resampling.BILINEAR)
    elif draft.fault == "blurred":
        picture = blurred(picture)
    picture.save(path, quality=QUALITY)
