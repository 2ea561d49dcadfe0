"""Reading a long JSON list of objects piece by piece, so that a fault has a line number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from backend.errors import InputError

BLOCK = 1 << 20
LONGEST_RECORD = 1 << 24
"""Characters; a longer record is taken for a broken one."""
_BLANK = " \t\r\n"
_decoder = json.JSONDecoder()


def array_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON list, each with its place (`file, line n`, where it begins).

    Raises:
        InputError: The file is missing, is not UTF-8, is not a list, or an element is not an
            object; names file and line.
    """
    try:
        with path.open(encoding="utf-8") as file:
            yield from _Reader(path, file).objects()
    except FileNotFoundError as error:
        raise InputError("the file does not exist.", place=str(path)) from error
    except UnicodeDecodeError as error:
        raise InputError(f"this is not UTF-8: {error.reason}.", place=str(path)) from error


class _Reader:
    """A window over the file that slides by whole elements."""

    def __init__(self, path: Path, file: IO[str]):
        self.path = path
        self.file = file
        self.buffer = ""
        self.at = 0
        self.line = 1

    def objects(self) -> Iterator[tuple[str, dict[str, Any]]]:
        self._expect("[", "the file must be a JSON list")
        if self._peek() == "]":
            self._advance(1)
        else:
            yield self._place(), self._object()
            while self._expect(",]", "the list must go on with a comma or end") == ",":
                self._peek()
                yield self._place(), self._object()
        if self._peek():
            raise self._fault("something follows the end of the list")

    def _object(self) -> dict[str, Any]:
        if self._peek() != "{":
            raise self._fault("an element of the list must be an object")
        while True:
            try:
                value, end = _decoder.raw_decode(self.buffer, self.at)
            except json.JSONDecodeError as error:
                room = len(self.buffer) - self.at < LONGEST_RECORD
                if room and self._more():
                    continue
                self._advance(error.pos - self.at)
                raise self._fault(f"this is not JSON: {error.msg}") from error
            self._advance(end - self.at)
            record: dict[str, Any] = value
            return record

    def _expect(self, wanted: str, otherwise: str) -> str:
        found = self._peek()
        if not found or found not in wanted:
            raise self._fault(otherwise)
        self._advance(1)
        return found

    def _peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            while self.at < len(self.buffer):
                character = self.buffer[self.at]
                if character not in _BLANK:
                    return character
                self._advance(1)
            if not self._more():
                return ""

    def _more(self) -> bool:
        block = self.file.read(BLOCK)
        self.buffer = self.buffer[self.at :] + block
        self.at = 0
        return bool(block)

    def _advance(self, count: int) -> None:
        self.line += self.buffer.count("\n", self.at, self.at + count)
        self.at += count

    def _place(self) -> str:
        return f"{self.path}, line {self.line}"

    def _fault(self, problem: str) -> InputError:
        return InputError(f"{problem}.", place=self._place())
