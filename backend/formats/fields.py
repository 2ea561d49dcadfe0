"""Reading records strictly: every fault names the file, the line and the field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backend.errors import InputError

_REMEDY = "Correct the line or delete it."
_MISSING = "Add the field, or delete the record."


def objects(path: Path, *, growing: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON objects of a JSON-lines file, each with its place (`file, line n`).

    Args:
        path: The file; blank lines are skipped.
        growing: Somebody may still be appending, so a torn last line is left out.

    Raises:
        InputError: The file is missing, or a line is not a JSON object.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise InputError("the file does not exist.", place=str(path)) from error
    with file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if growing and not line.endswith(b"\n"):
                return
            place = f"{path}, line {number}"
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(
                    f"this is not JSON: {error.msg}.", place=place, remedy=_REMEDY
                ) from error
            except UnicodeDecodeError as error:
                raise InputError("this is not UTF-8 text.", place=place, remedy=_REMEDY) from error
            if not isinstance(value, dict):
                raise InputError("this line is not a JSON object.", place=place, remedy=_REMEDY)
            yield place, value


def text_field(
    record: dict[str, Any], field: str, place: str, *, default: str | None = None
) -> str:
    """The text in `field`; a missing field takes the default, when there is one.

    Raises:
        InputError: The field is missing or is not text.
    """
    value = record.get(field, default)
    if value is None:
        raise InputError("the field is missing.", place=f"{place}, field {field}", remedy=_MISSING)
    if not isinstance(value, str):
        raise InputError("the field must be text.", place=f"{place}, field {field}")
    return value


def integer_field(record: dict[str, Any], field: str, place: str) -> int:
    """The whole number in `field`; digits as text count as well.

    Raises:
        InputError: The field is missing or is not a whole number.
    """
    value = record.get(field)
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InputError("the field must be a whole number.", place=f"{place}, field {field}")
