"""The JSON files beside weights. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.files import read_json


def read_settings(path: Path) -> dict[str, Any]:
    """The JSON object in a file beside the weights.

    Raises:
        InputError: The file is missing or holds something else.
    """
    remedy = "Fetch or copy the whole directory again, or name another one."
    try:
        values = read_json(path)
    except InputError as error:
        raise InputError(error.problem, place=error.place, remedy=remedy) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"it cannot be read: {error}.", place=str(path), remedy=remedy) from error
    if not isinstance(values, dict):
        raise InputError("this is no JSON object.", place=str(path), remedy=remedy)
    return values
