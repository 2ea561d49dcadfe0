"""What commands share: parameters from words, results as text or JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from backend.errors import UsageError
from backend.memory.health import advice, describe
from backend.memory.symptoms import Finding
from backend.stages.base import Problem
from backend.supervisor.parameters import sentence
from backend.workspace import Workspace


def opened(arguments: argparse.Namespace) -> Workspace:
    """The workspace that the command names."""
    return Workspace.open(arguments.workspace)


def add_parameters(command: argparse.ArgumentParser) -> None:
    """`-p key=value`, as often as needed."""
    command.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of the stage; the value is JSON, or text as it stands",
    )


def add_json(command: argparse.ArgumentParser) -> None:
    """`--json`."""
    command.add_argument("--json", action="store_true", help="print the result as JSON")


def parameters_of(words: list[str]) -> dict[str, Any]:
    """`key=value` words as parameters.

    Raises:
        UsageError: A word has no `=`, or names a key twice.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key:
            raise UsageError(
                "a parameter is written key=value.", place=word, remedy="For example: -p seed=1"
            )
        if key in found:
            raise UsageError("the parameter is given twice.", place=key)
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    """JSON where it is JSON of a number, truth value, list or null; else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def positive(text: str) -> float:
    """An argument above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0, for example 24")
    return value


def positive_whole(text: str) -> int:
    """An argument that is a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0, for example 2048")
    return int(text)


def print_json(value: Any) -> None:
    """A result for a program."""
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def say(text: str) -> None:
    """A message for the person who watches."""
    print(text, file=sys.stderr, flush=True)


def say_problem(problem: Problem) -> None:
    """A preflight's finding, its remedy included."""
    say(f"{problem.level}: {problem.place}: {sentence(problem)}")


def print_findings(findings: Sequence[Finding]) -> None:
    """What is wrong with a training, the worst first, each with its advice."""
    for finding in findings:
        print(f"{finding.level}: {describe(finding)}\n  {advice(finding)}")


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Rows in columns as wide as they need to be."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
