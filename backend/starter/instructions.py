"""The fixed fine-tuning set: clean conversations in LLaVA's format."""

from __future__ import annotations

from pathlib import Path
from random import Random

from backend.evaluation.benchmarks import LETTER_ONLY
from backend.formats.llava import Conversation, Turn, write_conversations
from backend.formats.textvqa import SHORT_ANSWER
from backend.starter.drawing import draw
from backend.starter.language import LETTERS, Question, any_question, choices, reading_questions
from backend.starter.scenes import Scene, random_scene
from backend.starter.textvqa import prompt

QUALITY = 88
READING = 0.7
"""Share of questions about what a sign says, where there is one: reading takes most practice."""


def write_instructions(file: Path, images: Path, *, count: int, seed: int) -> None:
    """Write `count` conversations of one or two questions, and their pictures.

    Args:
        file: The LLaVA file.
        images: The folder that the records' paths start at.
        count: How many conversations.
        seed: Where chance starts.
    """
    random = Random(seed)
    records = []
    for number in range(count):
        scene = random_scene(random)
        image = f"scenes/{number:06d}.jpg"
        path = images / image
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(scene).save(path, quality=QUALITY)
        turns = conversation(scene, random, random.choice((1, 2)))
        records.append(Conversation(f"scene-{number:06d}", turns, (image,)).record())
    write_conversations(file, records)


def conversation(scene: Scene, random: Random, count: int) -> tuple[Turn, ...]:
    """`count` questions with their answers, the picture in the first."""
    turns: list[Turn] = []
    for number in range(count):
        question, answer = _exchange(scene, random)
        turns.append(Turn("human", f"<image>\n{question}" if number == 0 else question))
        turns.append(Turn("gpt", answer))
    return tuple(turns)


def _exchange(scene: Scene, random: Random) -> tuple[str, str]:
    """A question as the benchmarks put it, and its answer."""
    if scene.signs and random.random() < READING:
        reading = random.choice(reading_questions(scene, random))
        return prompt(scene, reading, random), reading.answer
    question = any_question(scene, random)
    if random.random() < 0.6:
        options, right = choices(question, random)
        return lettered(question, options), right
    return f"{question.text}\n{SHORT_ANSWER}", question.answer


def lettered(question: Question, options: dict[str, str]) -> str:
    """The question with its options, one a line, and the wish for a letter."""
    lines = [f"{letter}. {options[letter]}" for letter in LETTERS]
    return "\n".join([question.text, *lines, LETTER_ONLY["en"]])
