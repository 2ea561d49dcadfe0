"""The starter's TextVQA: signs to read, among words that are printed nowhere."""

from __future__ import annotations

from pathlib import Path
from random import Random

from backend.formats import textvqa
from backend.starter.drawing import draw
from backend.starter.language import Question, reading_questions
from backend.starter.scenes import Scene, random_scene, random_texts

N_OCR_TOKENS = 4
UNSURE = ("unanswerable", "not sure", "answering does not require reading text in the image")
QUALITY = 90


def write_textvqa(
    questions_file: Path, annotations_file: Path, images: Path, *, count: int, seed: int
) -> None:
    """Write `count` questions with the answers of ten people, and their pictures.

    Args:
        questions_file: Questions with OCR tokens, one a line.
        annotations_file: Answers, as TextVQA 0.5.1 has them.
        images: The folder of the pictures.
        count: How many questions.
        seed: Where chance starts.
    """
    random = Random(seed)
    images.mkdir(parents=True, exist_ok=True)
    questions: list[textvqa.Question] = []
    annotations: list[textvqa.Annotation] = []
    while len(questions) < count:
        scene = random_scene(random, n_signs=random.choice((1, 1, 2)))
        image_id = f"{random.getrandbits(64):016x}"
        draw(scene).save(images / f"{image_id}.jpg", quality=QUALITY)
        for asked in reading_questions(scene, random)[: count - len(questions)]:
            text = prompt(scene, asked, random)
            questions.append(textvqa.Question(image_id, f"{image_id}.jpg", text))
            number = str(34602 + len(annotations))
            people = _people(asked, random)
            annotations.append(textvqa.Annotation(image_id, asked.text, people, number))
    textvqa.write_questions(questions_file, questions)
    textvqa.write_annotations(annotations_file, annotations)


def prompt(scene: Scene, question: Question, random: Random) -> str:
    """Question, what a text reader found, and the wish for a short answer.

    The reader finds every sign, and as many words as fill its line that are not there.
    """
    shown = [sign.text for sign in scene.signs]
    found = [*shown, *random_texts(random, N_OCR_TOKENS - len(shown), tuple(shown))]
    random.shuffle(found)
    return "\n".join([question.text, textvqa.OCR_LINE + ", ".join(found), textvqa.SHORT_ANSWER])


def _people(question: Question, random: Random) -> tuple[str, ...]:
    """Ten answers: most are right, some misread or refuse."""
    answers = [question.answer.lower()] * textvqa.ANSWERS_PER_QUESTION
    for person in range(random.choice((0, 1, 1, 2, 3))):
        if random.random() < 0.5:
            answers[person] = random.choice(UNSURE)
        else:
            answers[person] = question.answer[:-1].lower()
    random.shuffle(answers)
    return tuple(answers)
