"""What is asked of a model: the questions of both benchmarks with the kit's prompts."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from backend.errors import InputError
from backend.files import confine
from backend.formats import mmbench, textvqa

Name = Literal["textvqa", "mmbench"]
PromptLanguage = Literal["en", "cn"]
LETTER_ONLY: dict[PromptLanguage, str] = {
    "en": "Answer with the option's letter from the given choices directly.",
    "cn": "请直接回答选项字母。",
}
KIT_MAX_NEW_TOKENS: dict[Name, int] = {"textvqa": 128, "mmbench": 1024}


class Picture(Protocol):
    """Where a question's picture comes from."""

    @property
    def key(self) -> str:
        """Equal for equal pictures."""

    def read(self) -> bytes:
        """The encoded picture; raises `InputError` or `OSError` when it cannot be had."""


class Asked(Protocol):
    """A question about a picture: a benchmark's `Task`, or a caption that is wanted."""

    @property
    def key(self) -> tuple[str, str]:
        """Its id, and what else tells it from others."""

    @property
    def sent(self) -> str:
        """The words of the question, after the picture."""

    @property
    def picture(self) -> Picture:
        """What it is about."""


@dataclass(frozen=True, slots=True)
class FilePicture:
    """A picture in a file."""

    path: Path

    @property
    def key(self) -> str:
        """The path."""
        return str(self.path)

    def read(self) -> bytes:
        """The file's content."""
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """A picture inside the benchmark file."""

    content: str
    """Base64."""
    key: str
    """Hash of the content."""
    place: str

    def read(self) -> bytes:
        """The decoded content."""
        return mmbench.decode_image(self.content, self.place)


@dataclass(frozen=True, slots=True)
class Task:
    """One question to put to a model."""

    benchmark: Name
    key: tuple[str, str]
    """Question id and prompt: what an answer line is recognized by."""
    prompt: str
    """As the answer file keeps it."""
    sent: str
    """As the model reads it, after the picture."""
    picture: Picture
    record: Any
    """The benchmark's own record."""

    def line(self, text: str, model_id: str) -> dict[str, Any]:
        """The answer line of the kit's format."""
        answer_id = hashlib.sha256("\0".join((model_id, *self.key)).encode()).hexdigest()[:22]
        if isinstance(self.record, textvqa.Question):
            question_id = self.record.question_id
            return textvqa.Answer(question_id, self.prompt, text, model_id, answer_id).line()
        row: mmbench.Row = self.record
        letters = tuple(row.options)
        return mmbench.Answer(
            index=row.index,
            text=text,
            prompt=self.prompt,
            options=tuple(row.options.values()),
            option_char=letters,
            model_id=model_id,
            answer_id=answer_id,
        ).line()


def textvqa_tasks(
    questions: Path, images: Path, *, ocr_tokens: bool = True, limit: int | None = None
) -> list[Task]:
    """The first `limit` questions (None: all) of a TextVQA question file.

    Args:
        questions: The question file.
        images: The folder of its pictures.
        ocr_tokens: Whether the prompt keeps its line of OCR tokens.
        limit: How many questions.

    Raises:
        InputError: The file is missing or malformed, or a picture's path leaves the folder.
    """
    tasks: list[Task] = []
    for question in textvqa.read_questions(questions):
        if limit is not None and len(tasks) >= limit:
            break
        prompt = question.text if ocr_tokens else question.without_ocr_tokens()
        key = (question.question_id, prompt)
        picture = FilePicture(confine(images, question.image))
        tasks.append(Task("textvqa", key, prompt, prompt, picture, question))
    return tasks


def mmbench_tasks(
    questions: Path, *, language: PromptLanguage = "en", limit: int | None = None
) -> list[Task]:
    """The first `limit` base questions (None: all) of an MMBench TSV, with their circular rows.

    Equal pictures of circular rows are held once.

    Raises:
        InputError: The file is missing or malformed.
    """
    bases: set[int] = set()
    pictures: dict[str, EncodedPicture] = {}
    tasks = []
    for row in mmbench.read_rows(questions):
        if limit is not None and row.base not in bases and len(bases) >= limit:
            continue
        bases.add(row.base)
        key = hashlib.sha256(row.image.encode()).hexdigest()
        place = f"{questions}, question {row.index}, field image"
        picture = pictures.setdefault(key, EncodedPicture(row.image, key, place))
        prompt = mmbench_prompt(row)
        sent = f"{prompt}\n{LETTER_ONLY[language]}"
        bare = mmbench.Row(
            **{name: getattr(row, name) for name in row.__slots__ if name != "image"}, image=""
        )
        tasks.append(Task("mmbench", answer_key(row.index), prompt, sent, picture, bare))
    return tasks


def answer_key(index: int) -> tuple[str, str]:
    """What an MMBench answer is recognized by."""
    return str(index), ""


def mmbench_prompt(row: mmbench.Row) -> str:
    """Hint, question and lettered options, one a line."""
    hint = [row.hint] if row.hint else []
    options = [f"{letter}. {text}" for letter, text in row.options.items()]
    return "\n".join([*hint, row.question, *options])


def answered_keys(path: Path, benchmark: Name) -> Iterator[tuple[str, str]]:
    """The keys of the answers in a file that may end torn."""
    if not path.exists():
        return
    if benchmark == "textvqa":
        for answer in textvqa.read_answers(path, growing=True):
            yield answer.question_id, answer.prompt
    else:
        for row in mmbench.read_answers(path, growing=True):
            yield answer_key(row.index)


def open_picture(asked: Asked) -> Any:
    """The question's picture as an RGB `PIL.Image.Image`.

    Raises:
        InputError: It is missing or cannot be decoded; names the question.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(asked.picture.read())) as image:
            return image.convert("RGB")
    except InputError:
        raise
    # A hostile or broken file can make a decoder raise nearly anything.
    except Exception as error:
        raise InputError(
            f"the picture cannot be read: {error}.", place=f"question {asked.key[0]}"
        ) from error
