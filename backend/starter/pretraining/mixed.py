"""Pictures made of words: what a nano language model learns to read before it sees any picture.

A projector's image token is no word but a mixture: the features of a patch, mapped by a nearly
linear layer, give the sum of several words' embeddings. A model that has read such mixtures can be
aligned with few captions; one that has read clean words only cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from backend.starter.scenes import CELLS, Scene, Sign

SIDE = 4
PATCHES = SIDE * SIDE
WORDS_PER_PATCH = 8
Patch = list[tuple[int, float]]
"""Token ids and their shares; at most `WORDS_PER_PATCH`."""


def mixed_patches(
    scene: Scene, tokenize: Callable[[str], list[int]], random: Random
) -> list[Patch]:
    """The scene as `PATCHES` mixtures, row by row: each patch of a quarter tells some of its item.

    Args:
        scene: What is shown.
        tokenize: Words to token ids.
        random: Which words a patch tells, and how loud.
    """
    told = {cell: [scene.ground] for cell in CELLS}
    for item in scene.items:
        if isinstance(item, Sign):
            told[item.cell] = [item.color, "sign", item.text]
        else:
            told[item.cell] = [item.color, item.shape, item.size]
    half = SIDE // 2
    patches = []
    for row in range(SIDE):
        for column in range(SIDE):
            cell = CELLS[2 * (row // half) + column // half]
            patches.append(_patch(told[cell], scene.ground, tokenize, random))
    return patches


def _patch(
    words: list[str], ground: str, tokenize: Callable[[str], list[int]], random: Random
) -> Patch:
    heard = [word for word in words if random.random() < 0.8] or words[:1]
    pieces = [(piece, random.uniform(0.3, 1.2)) for word in heard for piece in tokenize(f" {word}")]
    if random.random() < 0.3:
        pieces += [(piece, random.uniform(0.1, 0.6)) for piece in tokenize(f" {ground}")]
    return pieces[:WORDS_PER_PATCH]
