"""The training log that the kit prints, as metric rows."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backend.errors import InputError

_DICT = re.compile(r"\{'[^{}]*\}")
_BAR = re.compile(r"(\d+)/(\d+) \[")
_LOGGING_STEPS = re.compile(r"--logging_steps[ =](\d+)")
_NON_FINITE = re.compile(r"(?<![\w'])(-?)(nan|inf)(?![\w'])")


def read_kit_log(path: Path) -> list[dict[str, Any]]:
    """The metric rows of a log of the kit (one Python dictionary a line among other output).

    Each row has `step` and what the log tells: `loss`, `grad_norm`, `learning_rate`, `epoch`.
    The step is the last one that the progress bar showed before the row, or follows from
    `--logging_steps` in the command line, or counts the rows. The closing summary
    (`train_runtime` …) is not a row.

    Raises:
        InputError: The file is missing or holds no row.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError as error:
        raise InputError("the file does not exist.", place=str(path)) from error
    rows = list(_rows(text))
    if not rows:
        raise InputError(
            "this log has no training step.",
            place=str(path),
            remedy="Choose the output of a training run: lines such as {'loss': 4.2, ...}.",
        )
    return rows


def summary(path: Path) -> dict[str, float]:
    """The closing summary (`train_runtime` in s, `train_loss`, …); empty when there is none."""
    for values in _dictionaries(path.read_text(encoding="utf-8", errors="replace")):
        if "train_runtime" in values:
            return values
    return {}


def _rows(text: str) -> Iterator[dict[str, Any]]:
    interval = _LOGGING_STEPS.search(text)
    every = int(interval.group(1)) if interval else 1
    end, seen, shown = 0, 0, 0
    for found in _DICT.finditer(text):
        values = _parse(found.group())
        if "loss" not in values:
            continue
        bars = _BAR.findall(text, end, found.start())
        end, seen = found.end(), seen + 1
        # Bars of loading shards come before the first step; a step's bar never goes back.
        latest = int(bars[-1][0]) if bars else 0
        shown = latest if latest > shown else max(shown + every, seen * every)
        yield {"step": shown, **values}


def _dictionaries(text: str) -> Iterator[dict[str, float]]:
    for found in _DICT.finditer(text):
        yield _parse(found.group())


def _parse(source: str) -> dict[str, float]:
    """The numbers of a printed dictionary, `nan` and `inf` included; else {}."""
    quoted = _NON_FINITE.sub(lambda match: f"'{match.group(1)}{match.group(2)}'", source)
    try:
        values = ast.literal_eval(quoted)
    except (ValueError, SyntaxError):
        return {}
    numbers: dict[str, float] = {}
    for key, value in values.items() if isinstance(values, dict) else ():
        if isinstance(value, int | float) and not isinstance(value, bool):
            numbers[str(key)] = value
        elif value in ("nan", "inf", "-inf"):
            numbers[str(key)] = math.nan if value == "nan" else float(value)
    return numbers
