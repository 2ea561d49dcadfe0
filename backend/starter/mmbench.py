"""The starter's MMBench: questions with four options, each asked once for every rotation."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from random import Random

from backend.formats import mmbench
from backend.starter.drawing import draw
from backend.starter.language import ASKED, LETTERS, Question, choices
from backend.starter.scenes import random_scene

QUALITY = 90


def write_mmbench(file: Path, *, count: int, seed: int) -> None:
    """Write `count` base questions of all kinds in turn, with their circular rows.

    Args:
        file: The TSV.
        count: How many base questions.
        seed: Where chance starts.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    mmbench.write_rows(file, _rows(Random(seed), count))


def _rows(random: Random, count: int) -> Iterator[mmbench.Row]:
    for number in range(count):
        kind = ASKED[number % len(ASKED)]
        found: list[Question] = []
        while not found:
            scene = random_scene(random)
            found = list(kind(scene, random))
        question = random.choice(found)
        options, right = choices(question, random)
        buffer = io.BytesIO()
        draw(scene).save(buffer, "JPEG", quality=QUALITY)
        image = base64.b64encode(buffer.getvalue()).decode("ascii")
        texts = list(options.values())
        for turn in range(len(LETTERS)):
            rotated = texts[turn:] + texts[:turn]
            letter = LETTERS[rotated.index(options[right])]
            yield mmbench.Row(
                index=turn * mmbench.ROUND + number,
                question=question.text,
                options=dict(zip(LETTERS, rotated, strict=True)),
                answer=letter,
                image=image,
                category=question.category,
                l2_category=question.l2_category,
                source="starter",
                split="dev",
            )
