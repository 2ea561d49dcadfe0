"""Text for the nano language model: descriptions of scenes with questions about them."""

from __future__ import annotations

from random import Random

from backend.starter.instructions import conversation, lettered
from backend.starter.language import any_question, caption, choices
from backend.starter.scenes import CELLS, NUMBERS, WORDS, Scene, Sign, random_scene
from backend.starter.seed import QUESTIONS

Turns = list[dict[str, str]]


Mixture = tuple[float, float, float, float]
LETTERS_FIRST: Mixture = (0.7, 0.05, 0.25, 0.0)
"""The way from answers to letters is what such a small model learns last."""
EVERYTHING: Mixture = (0.1, 0.05, 0.2, 0.65)


def told_scene(random: Random, mixture: Mixture = EVERYTHING) -> tuple[Turns, Scene | None]:
    """A conversation in which words take the picture's place.

    Half of the descriptions are captions, half name what lies where in the order in which image
    tokens come, so that the model reads either.

    Args:
        random: Where chance comes from.
        mixture: Shares of conversations whose questions are given the answer, of captions of a
            description, of questions about one, and of questions about a picture.

    Returns:
        The turns, and the scene where they are about a picture.
    """
    kind = random.choices(("given", "caption", "asked", "shown"), mixture)[0]
    scene = random_scene(random, texts=(*WORDS, *NUMBERS))
    if kind == "given":
        return _given(scene, random), None
    if kind == "shown":
        return _shown(scene, random), scene
    description = caption(scene, random) if random.random() < 0.5 else in_patches(scene)
    if kind == "caption":
        return _exchange(f"{description}\n{random.choice(QUESTIONS)}", caption(scene, random)), None
    turns = _asked(scene, random)
    first = turns[0]["value"].removeprefix("<image>\n")
    turns[0]["value"] = f"{description}\n{first}"
    return turns, None


def _asked(scene: Scene, random: Random) -> Turns:
    return [turn.record() for turn in conversation(scene, random, random.randint(2, 5))]


def _shown(scene: Scene, random: Random) -> Turns:
    """Questions about a picture, or the wish for a caption as the seed has it."""
    if random.random() < 0.7:
        return _asked(scene, random)
    told = caption(scene, random, items=random.choice((1, 2, None)))
    return _exchange(f"<image>\n{random.choice(QUESTIONS)}", told)


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
