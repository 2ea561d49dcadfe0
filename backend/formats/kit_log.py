"""The log that a training prints, the kit's, transformers' or this studio's, as metric rows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from backend.errors import InputError

_DICT = re.compile(r"\{'[^{}]*\}")
_SUMMARY = re.compile(r"\{[^{}]*'train_runtime'[^{}]*\}")
_BAR = re.compile(r"(\d+)/(\d+) \[")
_LOGGING_STEPS = re.compile(r"--logging_steps[ =](\d+)")
_OWN = re.compile(
    r"^step (?P<step>\d+)/\d+  loss (?P<loss>\S+)  lr (?P<learning_rate>\S+)"
    r"(?:  norm (?P<grad_norm>\S+))?(?:  (?P<samples_per_second>\S+) samples/s)?",
    re.MULTILINE,
)
_ATTEMPT = re.compile(r"^=== attempt (\d+) ===$", re.MULTILINE)
_NON_FINITE = re.compile(r"(?<![\w'])(-?)(nan|inf)(?![\w'])")


def read_kit_log(path: Path) -> list[dict[str, Any]]:
    """The metric rows of a printed log: of its last training, where it holds several.

    Raises:
        InputError: The file is missing or holds no row.
    """
    return read_trainings(path)[-1]


def read_trainings(path: Path) -> list[list[dict[str, Any]]]:
    """The metric rows of each training in a printed log, in order; each ends with its summary.

    The kit and transformers print one Python dictionary a line among other output, the latter
    with its numbers as text; this studio a line `step 1/20  loss 4.2  lr …`. Each row has `step`
    and what the log tells: `loss`, `grad_norm`, `learning_rate`, `epoch`. The step of a
    dictionary is the last one that the progress bar showed before it, or follows from
    `--logging_steps` in the command line, or counts the rows. The summary (`train_runtime` …) is
    not a row.

    Raises:
        InputError: The file is missing or holds no row.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError as error:
        raise InputError("the file does not exist.", place=str(path)) from error
    ends = [found.end() for found in _SUMMARY.finditer(text)]
    parts = [text[start:end] for start, end in pairwise([0, *ends, len(text)])]
    found = [rows for part in parts if (rows := list(_rows(part)) or list(_own_rows(part)))]
    if not found:
        raise InputError(
            "this log has no training step.",
            place=str(path),
            remedy="Choose the output of a training run: lines such as {'loss': 4.2, ...}.",
        )
    return found


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


def _own_rows(text: str) -> Iterator[dict[str, Any]]:
    """What this studio's trainer prints; a resumed attempt repeats steps of the one before."""
    attempts = [(found.start(), int(found.group(1))) for found in _ATTEMPT.finditer(text)]
    for found in _OWN.finditer(text):
        attempt = max((n for start, n in attempts if start < found.start()), default=1)
        values = {name: _number(value) for name, value in found.groupdict().items() if value}
        step = values.pop("step")
        yield {"step": int(step or 0), "attempt": attempt, **values}


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
        number = None if isinstance(value, bool) else _number(value)
        if number is not None:
            numbers[str(key)] = number
    return numbers


def _number(value: Any) -> float | None:
    """A number, or what a text of one says; else None."""
    if isinstance(value, int | float):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
