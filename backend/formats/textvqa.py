"""TextVQA as the kit keeps it: question file, annotation file, answer file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.files import read_json, write_atomic, write_json
from backend.formats.fields import objects, text_field

ANSWERS_PER_QUESTION = 10
OCR_LINE = "Reference OCR token: "
SHORT_ANSWER = "Answer the question using a single word or phrase."
_QUESTION_BETWEEN = re.compile(r"Question: (.*?) Short answer:", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Question:
    """One line of the question file."""

    question_id: str
    """The image's id: several questions of an image share it."""
    image: str
    """File name below the image folder."""
    text: str
    """The prompt: question, OCR tokens, instruction, one a line."""
    category: str = "default"

    def without_ocr_tokens(self) -> str:
        """The prompt with its line of OCR tokens left out."""
        lines = self.text.split("\n")
        return "\n".join(line for line in lines if not line.startswith(OCR_LINE))


@dataclass(frozen=True, slots=True)
class Annotation:
    """What ten people answered to one question."""

    image_id: str
    question: str
    answers: tuple[str, ...]
    question_id: str | None = None
    """Unique, unlike `Question.question_id`; None when the file does not tell."""

    @property
    def key(self) -> tuple[str, str]:
        """What joins it to an answer: image and question in lower case."""
        return self.image_id, self.question.lower()


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of an answer file."""

    question_id: str
    prompt: str
    text: str
    model_id: str = ""
    answer_id: str = ""
    place: str = ""
    """Where it was read from."""

    def line(self) -> dict[str, Any]:
        """The kit's JSON object."""
        return {
            "question_id": self.question_id,
            "prompt": self.prompt,
            "text": self.text,
            "answer_id": self.answer_id,
            "model_id": self.model_id,
            "metadata": {},
        }


def question_of_prompt(prompt: str, place: str = "") -> str:
    """The question inside a prompt, in lower case.

    Raises:
        InputError: The prompt has none of the known forms.
    """
    question: str | None = None
    lines = prompt.split("\n")
    if prompt.startswith("OCR tokens: "):
        found = _QUESTION_BETWEEN.search(prompt)
        question = found.group(1) if found else None
    elif OCR_LINE in prompt and len(lines) == 3:
        question = lines[1] if prompt.startswith(OCR_LINE) else lines[0]
    elif len(lines) == 2:
        question = lines[0]
    if question is None:
        raise InputError(
            "no question can be found in this prompt.",
            place=f"{place}, field prompt" if place else prompt[:80],
            remedy="The kit's prompts have the question, the OCR tokens (optional) and the "
            "instruction on a line each.",
        )
    return question.lower()


def read_questions(path: Path) -> Iterator[Question]:
    """The questions of a question file, in its order.

    Raises:
        InputError: The file is missing or a line is malformed; names the line and field.
    """
    for place, record in objects(path):
        yield Question(
            question_id=text_field(record, "question_id", place),
            image=text_field(record, "image", place),
            text=text_field(record, "text", place),
            category=text_field(record, "category", place, default="default"),
        )


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """Write a question file."""
    lines = (json.dumps(asdict(question), ensure_ascii=False) for question in questions)
    write_atomic(path, "".join(f"{line}\n" for line in lines))


def read_annotations(path: Path) -> list[Annotation]:
    """The annotations of an annotation file (`{"data": [...]}`).

    Raises:
        InputError: The file is missing or an entry is malformed; names the entry and field.
    """
    content = read_json(path)
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, list):
        raise InputError("the annotations must be a list.", place=f"{path}, field data")
    return [_annotation(entry, f"{path}, data[{number}]") for number, entry in enumerate(data)]


def _annotation(entry: Any, place: str) -> Annotation:
    if not isinstance(entry, dict):
        raise InputError("this annotation is not a JSON object.", place=place)
    answers = entry.get("answers")
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise InputError("the answers must be a list of texts.", place=f"{place}, field answers")
    if len(answers) != ANSWERS_PER_QUESTION:
        raise InputError(
            f"there must be exactly {ANSWERS_PER_QUESTION} answers, there are {len(answers)}.",
            place=f"{place}, field answers",
        )
    question_id = entry.get("question_id")
    return Annotation(
        image_id=text_field(entry, "image_id", place),
        question=text_field(entry, "question", place),
        answers=tuple(answers),
        question_id=None if question_id is None else str(question_id),
    )


def write_annotations(path: Path, annotations: Iterable[Annotation]) -> None:
    """Write an annotation file."""
    data = [
        {
            "image_id": annotation.image_id,
            "question": annotation.question,
            "question_id": annotation.question_id,
            "answers": list(annotation.answers),
        }
        for annotation in annotations
    ]
    write_json(path, {"data": data})


def read_answers(path: Path, *, growing: bool = False) -> Iterator[Answer]:
    """The answers of an answer file; a torn last line of a growing file is left out.

    Raises:
        InputError: The file is missing or a line is malformed; names the line and field.
    """
    for place, record in objects(path, growing=growing):
        yield Answer(
            question_id=text_field(record, "question_id", place),
            prompt=text_field(record, "prompt", place),
            text=text_field(record, "text", place),
            model_id=text_field(record, "model_id", place, default=""),
            answer_id=text_field(record, "answer_id", place, default=""),
            place=place,
        )
