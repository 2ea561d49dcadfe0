"""What is said and asked about a scene: captions, questions, right and wrong answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from backend.starter.scenes import (
    CELLS,
    COLORS,
    GROUNDS,
    SHAPES,
    Scene,
    Sign,
    Thing,
    random_texts,
)

LETTERS = "ABCD"
N_CHOICES = 4
VAGUE = (
    "an image",
    "a picture of something",
    "some things",
    "a nice view",
    "a picture of some objects",
    "various items",
    "something interesting to see",
    "a colorful picture",
    "a photo with things in it",
    "an image of a scene",
)
"""Captions that are true of every picture."""
_OPENINGS = ("{}", "a picture of {}", "there is {}", "this shows {}", "an image with {}")
_PLACES = ("at the {}", "in the {} corner")


@dataclass(frozen=True)
class Question:
    """A question about a scene, for a short answer or for a choice of letters."""

    text: str
    answer: str
    wrong: tuple[str, ...]
    """Other answers of the same kind, untrue here."""
    category: str
    """The finest category of MMBench's kind."""
    l2_category: str


def caption(scene: Scene, random: Random, *, items: int | None = None) -> str:
    """A true caption.

    Args:
        scene: What is told.
        random: Chooses order and wording.
        items: How many things and signs are named; None names all, and the ground.
    """
    chosen = list(scene.items)
    random.shuffle(chosen)
    if items is not None:
        chosen = chosen[:items]
    parts = [phrase(item, random) for item in chosen]
    text = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    if items is None:
        text += f" on {scene.ground}"
    return random.choice(_OPENINGS).format(text)


def phrase(item: Thing | Sign, random: Random) -> str:
    """One item with its place."""
    place = random.choice(_PLACES).format(item.cell)
    if isinstance(item, Sign):
        return f"a {item.color} sign that says {item.text} {place}"
    return f"a {item.size} {item.name} {place}"


def reading_questions(scene: Scene, random: Random) -> list[Question]:
    """One question for each sign, answered by what is printed on it."""
    shown = tuple(sign.text for sign in scene.signs)
    found = []
    for sign in scene.signs:
        wordings = [
            f"what does the {sign.color} sign say?",
            f"what is written on the {sign.color} sign?",
            f"what is printed at the {sign.cell}?",
        ]
        if len(scene.signs) == 1:
            kind = "number" if sign.is_number else "word"
            wordings += ["what does the sign say?", f"what {kind} is on the sign?"]
        others = tuple(text for text in shown if text != sign.text)
        wrong = (*others, *random_texts(random, N_CHOICES - 1 - len(others), shown))
        found.append(Question(random.choice(wordings), sign.text, wrong, "ocr", INSTANCE))
    return found


INSTANCE = "finegrained_perception (instance-level)"
CROSS_INSTANCE = "finegrained_perception (cross-instance)"
COARSE = "coarse_perception"


def _color(scene: Scene, random: Random) -> Iterable[Question]:
    for thing in scene.things:
        if sum(other.shape == thing.shape for other in scene.things) == 1:
            yield Question(
                f"What color is the {thing.shape}?",
                thing.color,
                _others(random, COLORS, thing.color),
                "attribute_recognition",
                INSTANCE,
            )


def _shape(scene: Scene, random: Random) -> Iterable[Question]:
    for thing in scene.things:
        yield Question(
            f"Which shape is at the {thing.cell}?",
            thing.shape,
            _others(random, SHAPES, thing.shape),
            "object_recognition",
            INSTANCE,
        )


def _place(scene: Scene, random: Random) -> Iterable[Question]:
    for thing in scene.things:
        yield Question(
            f"Where is the {thing.name}?",
            thing.cell,
            _others(random, CELLS, thing.cell),
            "object_localization",
            INSTANCE,
        )


def _relation(scene: Scene, random: Random) -> Iterable[Question]:
    words = ("left", "right", "above", "below")
    for first in scene.things:
        for second in scene.things:
            a, b = CELLS.index(first.cell), CELLS.index(second.cell)
            if a // 2 == b // 2 and a != b:
                answer = "left" if a < b else "right"
            elif a % 2 == b % 2 and a != b:
                answer = "above" if a < b else "below"
            else:
                continue
            yield Question(
                f"Where is the {first.name} seen from the {second.name}?",
                answer,
                _others(random, words, answer),
                "spatial_relationship",
                CROSS_INSTANCE,
            )


def _count(scene: Scene, random: Random) -> Iterable[Question]:
    if scene.things:
        numbers = ("1", "2", "3", "4")
        answer = str(len(scene.things))
        yield Question(
            "How many shapes are there, signs not counted?",
            answer,
            _others(random, numbers, answer),
            "counting",
            CROSS_INSTANCE,
        )


def _ground(scene: Scene, random: Random) -> Iterable[Question]:
    yield Question(
        "What is the ground?",
        scene.ground,
        _others(random, GROUNDS, scene.ground),
        "image_scene",
        COARSE,
    )


def _presence(scene: Scene, random: Random) -> Iterable[Question]:
    names = {thing.name for thing in scene.things}
    if names:
        absent: list[str] = []
        while len(absent) < N_CHOICES - 1:
            name = f"{random.choice(COLORS)} {random.choice(SHAPES)}"
            if name not in names and name not in absent:
                absent.append(name)
        answer = random.choice(sorted(names))
        yield Question(
            "Which of these is in the picture?", answer, tuple(absent), "image_topic", COARSE
        )


ASKED: tuple[Callable[[Scene, Random], Iterable[Question]], ...] = (
    _color,
    _shape,
    _place,
    _relation,
    _count,
    _ground,
    _presence,
    reading_questions,
)
"""Kinds of questions with choices."""


def any_question(scene: Scene, random: Random) -> Question:
    """A question of a kind drawn at random among those that the scene allows."""
    while True:
        found = list(random.choice(ASKED)(scene, random))
        if found:
            return random.choice(found)


def choices(question: Question, random: Random) -> tuple[dict[str, str], str]:
    """The options by letter, shuffled, and the right letter."""
    texts = [question.answer, *question.wrong]
    random.shuffle(texts)
    options = dict(zip(LETTERS, texts, strict=True))
    right = next(letter for letter, text in options.items() if text == question.answer)
    return options, right


def _others(random: Random, known: tuple[str, ...], answer: str) -> tuple[str, ...]:
    return tuple(random.sample([value for value in known if value != answer], N_CHOICES - 1))
