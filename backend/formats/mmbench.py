"""MMBench as the kit keeps it: a TSV with base64 images, answer files, the upload sheet."""

from __future__ import annotations

import base64
import csv
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.formats.fields import integer_field, objects, text_field

ROUND = 1_000_000
"""Circular row r of base question b has the index `r * ROUND + b`."""
LETTERS = "ABCD"
COLUMNS = (
    "index", "question", "hint", *LETTERS, "answer", "category", "image", "source",
    "l2-category", "comment", "split",
)  # fmt: skip
UPLOAD_COLUMNS = ("index", "question", *LETTERS, "prediction", "answer", "split")
_REQUIRED = ("index", "question", "A", "B", "image")
_MISSING = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
     "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null")
)  # fmt: skip
"""Cells that pandas, with which the kit reads the TSV, takes for nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the TSV: a base question or one of its circular rotations."""

    index: int
    question: str
    options: dict[str, str]
    """Letter to text, from A on without a gap."""
    answer: str | None
    """The right letter; None in a test split."""
    image: str
    """The picture in base64; empty when it was not asked for."""
    hint: str | None = None
    category: str | None = None
    l2_category: str | None = None
    source: str | None = None
    comment: str | None = None
    split: str | None = None

    @property
    def base(self) -> int:
        """The index of the question that it rotates."""
        return self.index % ROUND

    def image_bytes(self) -> bytes:
        """The encoded picture (JPEG or PNG).

        Raises:
            InputError: The image is not base64.
        """
        return decode_image(self.image, f"question {self.index}, field image")


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of an answer file."""

    index: int
    text: str
    prompt: str = ""
    options: tuple[str, ...] = ()
    option_char: tuple[str, ...] = ()
    round_id: int = 0
    model_id: str = ""
    answer_id: str = ""
    place: str = ""
    """Where it was read from."""

    def line(self) -> dict[str, Any]:
        """The kit's JSON object."""
        return {
            "question_id": self.index,
            "round_id": self.round_id,
            "prompt": self.prompt,
            "text": self.text,
            "options": list(self.options),
            "option_char": list(self.option_char),
            "answer_id": self.answer_id,
            "model_id": self.model_id,
            "metadata": {},
        }


def decode_image(content: str, place: str) -> bytes:
    """The bytes of a base64 image.

    Raises:
        InputError: It is empty or not base64.
    """
    try:
        data = base64.b64decode(content, validate=True)
    except ValueError as error:
        raise InputError("the image is not base64.", place=place) from error
    if not data:
        raise InputError("the image is empty.", place=place)
    return data


def read_rows(path: Path, *, images: bool = True) -> Iterator[Row]:
    """The rows of the TSV in its order, one at a time.

    Args:
        path: The TSV.
        images: Whether rows carry their picture; without it they are small.

    Raises:
        InputError: The file is missing, a column is missing or a row is malformed; names the
            line and field.
    """
    csv.field_size_limit(sys.maxsize)
    try:
        file = path.open(encoding="utf-8", newline="")
    except FileNotFoundError as error:
        raise InputError("the file does not exist.", place=str(path)) from error
    with file:
        reader = csv.DictReader(file, delimiter="\t", strict=True)
        absent = [column for column in _REQUIRED if column not in (reader.fieldnames or [])]
        if absent:
            raise InputError(
                f"the columns {', '.join(absent)} are missing.",
                place=f"{path}, line 1",
                remedy="The kit's TSV has: " + ", ".join(COLUMNS) + ".",
            )
        try:
            for record in reader:
                yield _row(record, f"{path}, line {reader.line_num}", images=images)
        except csv.Error as error:
            raise InputError(
                f"this is not a TSV row: {error}.", place=f"{path}, line {reader.line_num + 1}"
            ) from error


def _row(record: dict[str, Any], place: str, *, images: bool) -> Row:
    if None in record or None in record.values():
        raise InputError("the row has more or fewer cells than the header.", place=place)

    def cell(column: str) -> str | None:
        value = record.get(column, "")
        return None if value in _MISSING else str(value)

    index = integer_field(record, "index", place)
    options: dict[str, str] = {}
    for letter in LETTERS:
        text = cell(letter)
        if text is None or text.lower() in ("nan", "none"):
            break
        options[letter] = text
    if not options:
        raise InputError("the question has no options.", place=f"{place}, field A")
    answer = cell("answer")
    if answer is not None and answer not in options:
        raise InputError(
            f"the answer is none of the options {', '.join(options)}.",
            place=f"{place}, field answer",
        )
    return Row(
        index=index,
        question=record["question"],
        options=options,
        answer=answer,
        image=record["image"] if images else "",
        hint=cell("hint"),
        category=cell("category"),
        l2_category=cell("l2-category"),
        source=cell("source"),
        comment=cell("comment"),
        split=cell("split"),
    )


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a TSV with the kit's columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            options = [row.options.get(letter, "") for letter in LETTERS]
            writer.writerow(
                [row.index, row.question, row.hint or "", *options, row.answer or "",
                 row.category or "", row.image, row.source or "", row.l2_category or "",
                 row.comment or "", row.split or ""]
            )  # fmt: skip


def read_answers(path: Path, *, growing: bool = False) -> Iterator[Answer]:
    """The answers of an answer file; a torn last line of a growing file is left out.

    Raises:
        InputError: The file is missing or a line is malformed; names the line and field.
    """
    for place, record in objects(path, growing=growing):
        yield Answer(
            index=integer_field(record, "question_id", place),
            text=text_field(record, "text", place),
            prompt=text_field(record, "prompt", place, default=""),
            options=tuple(record.get("options") or ()),
            option_char=tuple(record.get("option_char") or ()),
            round_id=int(record.get("round_id") or 0),
            model_id=text_field(record, "model_id", place, default=""),
            answer_id=text_field(record, "answer_id", place, default=""),
            place=place,
        )


def write_upload(path: Path, rows: Iterable[Row], predictions: dict[int, str]) -> None:
    """Write the sheet (.xlsx) that the benchmark's server takes.

    Args:
        path: The sheet.
        rows: The questions, with or without images.
        predictions: Row index to answer; a row without one is left out.
    """
    from openpyxl import Workbook
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = Workbook()
    sheet = book.worksheets[0]
    sheet.append(list(UPLOAD_COLUMNS))
    for number, row in enumerate((row for row in rows if row.index in predictions), 2):
        options = [row.options.get(letter) for letter in LETTERS]
        values = [row.question, *options, predictions[row.index], row.answer, row.split]
        sheet.cell(number, 1, row.index)
        for column, value in enumerate(values, 2):
            if value is not None:
                cell = sheet.cell(number, column, ILLEGAL_CHARACTERS_RE.sub("", value))
                # A text that begins with "=" must not become a formula.
                cell.data_type = "s"
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
