"""Conversations in LLaVA's form: a JSON list of `{"id", "image", "conversations"}`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.files import write_stream
from backend.formats.data_juicer import LLAVA_IMAGE_TOKEN, check_image_path, record_id
from backend.formats.json_array import array_objects

HUMAN = "human"
ASSISTANT = "gpt"


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says."""

    speaker: str
    """`human` or `gpt`."""
    value: str

    def record(self) -> dict[str, str]:
        """As the file has it."""
        return {"from": self.speaker, "value": self.value}


@dataclass(frozen=True, slots=True)
class Conversation:
    """One record; questions and answers take turns."""

    id: str
    turns: tuple[Turn, ...]
    images: tuple[str, ...] = ()
    """Paths below the image folder; empty for a text-only conversation."""
    place: str = ""
    """Where it was read: `file, line n`."""

    def record(self) -> dict[str, Any]:
        """As the file has it: one image as text, several as a list, none left out."""
        turns = [turn.record() for turn in self.turns]
        record: dict[str, Any] = {"id": self.id, "conversations": turns}
        if self.images:
            record["image"] = self.images[0] if len(self.images) == 1 else list(self.images)
        return record


def read_conversations(path: Path) -> Iterator[Conversation]:
    """The conversations of a LLaVA file, each checked; the file is never held as a whole.

    Raises:
        InputError: The file is missing or a record is malformed; names file, line, field, remedy.
    """
    for place, record in array_objects(path):
        yield parse_conversation(record, place)


def parse_conversation(record: dict[str, Any], place: str) -> Conversation:
    """A checked conversation from a record of a LLaVA file.

    Raises:
        InputError: A field is missing or of the wrong kind, the turns do not alternate, an image
            lies outside the image folder, or the image tokens do not match the images.
    """
    conversation = Conversation(
        id=record_id(record, place),
        turns=_turns(record.get("conversations"), f"{place}, field conversations"),
        images=_images(record.get("image"), f"{place}, field image"),
        place=place,
    )
    _check_tokens(conversation)
    return conversation


def write_conversations(path: Path, records: Iterable[dict[str, Any]]) -> int:
    """Replace `path` by a JSON list of these records, one a line; returns their number."""
    count = 0

    def chunks() -> Iterator[str]:
        nonlocal count
        yield "["
        for record in records:
            yield ",\n" if count else "\n"
            yield json.dumps(record, ensure_ascii=False)
            count += 1
        yield "\n]\n"

    write_stream(path, chunks())
    return count


def _turns(value: Any, place: str) -> tuple[Turn, ...]:
    if not isinstance(value, list) or not value:
        raise InputError(
            "the conversation is missing or empty.",
            place=place,
            remedy="Give a question and an answer.",
        )
    turns = []
    for number, item in enumerate(value):
        expected = (HUMAN, ASSISTANT)[number % 2]
        where = f"{place}[{number}]"
        if not isinstance(item, dict) or not isinstance(item.get("value"), str):
            raise InputError('a turn needs "from" and "value".', place=where)
        if item.get("from") != expected:
            raise InputError(
                f"the turn is from {item.get('from')!r} where {expected!r} is due.",
                place=where,
                remedy="Questions (human) and answers (gpt) must take turns.",
            )
        turns.append(Turn(expected, item["value"]))
    if len(turns) % 2:
        raise InputError(
            "the last question has no answer.",
            place=place,
            remedy="Add the answer or drop the question.",
        )
    return tuple(turns)


def _images(value: Any, place: str) -> tuple[str, ...]:
    if value is None:
        return ()
    images = [value] if isinstance(value, str) else value
    if not isinstance(images, list) or not all(isinstance(item, str) and item for item in images):
        raise InputError("the image must be a path or a list of paths.", place=place)
    for item in images:
        check_image_path(item, place)
    return tuple(images)


def _check_tokens(conversation: Conversation) -> None:
    tokens = sum(turn.value.count(LLAVA_IMAGE_TOKEN) for turn in conversation.turns)
    if tokens == len(conversation.images):
        return
    place = f"{conversation.place}, field conversations"
    if not tokens:
        raise InputError(
            "the record has an image, but no turn has an image token.",
            place=place,
            remedy=f"Begin the first question with {LLAVA_IMAGE_TOKEN} and a line break.",
        )
    raise InputError(
        f"{len(conversation.images)} image(s) for {tokens} image token(s).",
        place=place,
        remedy="Give one image for each token.",
    )
