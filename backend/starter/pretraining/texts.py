"""Text for the nano language model: descriptions of scenes with questions about them."""

from __future__ import annotations

from random import Random

from backend.starter.instructions import conversation, lettered
from backend.starter.language import any_question, caption, choices
from backend.starter.scenes import CELLS, Scene, Sign, random_scene
from backend.starter.seed import QUESTIONS

Turns = list[dict[str, str]]


Mixture = tuple[float, float, float]
LETTERS_FIRST: Mixture = (0.7, 0.05, 0.25)
"""The way from answers to letters is what such a small model learns last."""
EVERYTHING: Mixture = (0.2, 0.1, 0.7)


def told_scene(random: Random, mixture: Mixture = EVERYTHING) -> Turns:
    """A conversation in which words take the picture's place.

    Half of the descriptions are captions, half name what lies where in the order in which image
    tokens come, so that the model reads either.

    Args:
        random: Where chance comes from.
        mixture: Shares of conversations whose questions are given the answer, of captions, and
            of questions about a description.
    """
    kind = random.choices(("given", "caption", "asked"), mixture)[0]
    scene = random_scene(random)
    if kind == "given":
        return _given(scene, random)
    description = caption(scene, random) if random.random() < 0.5 else in_patches(scene)
    if kind == "caption":
        return _exchange(f"{description}\n{random.choice(QUESTIONS)}", caption(scene, random))
    turns = [turn.record() for turn in conversation(scene, random, random.randint(2, 5))]
    first = turns[0]["value"].removeprefix("<image>\n")
    turns[0]["value"] = f"{description}\n{first}"
    return turns


def _given(scene: Scene, random: Random) -> Turns:
    """A few questions, the answer of each in its own words before it."""
    turns: Turns = []
    for _ in range(random.randint(3, 6)):
        question = any_question(scene, random)
        options, right = choices(question, random)
        turns += _exchange(f"{question.answer}\n{lettered(question, options)}", right)
    return turns


def _exchange(asked: str, answer: str) -> Turns:
    return [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]


def in_patches(scene: Scene) -> str:
    """Sixteen words, one for each cell of a 4 x 4 grid, row by row."""
    grid = [[scene.ground] * 4 for _ in range(4)]
    for item in scene.items:
        index = CELLS.index(item.cell)
        top, left = 2 * (index // 2), 2 * (index % 2)
        if isinstance(item, Sign):
            words = (item.color, "sign", item.text, "sign")
        else:
            words = (item.color, item.shape, item.size, item.shape)
        for number, word in enumerate(words):
            grid[top + number // 2][left + number % 2] = word
    return " ".join(word for row in grid for word in row)
