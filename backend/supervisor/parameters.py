"""Judging a stage's parameters before anything starts, and writing them as a command."""

from __future__ import annotations

import difflib
import json
import shlex
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticUndefined

from backend.errors import InputError, UsageError
from backend.messages import message
from backend.profiles import filled
from backend.stages import stage as stage_of
from backend.stages.base import Problem, StageParameters
from backend.workspace import Workspace


def check_parameters(
    workspace: Workspace, stage: str, parameters: dict[str, Any]
) -> tuple[StageParameters, list[Problem]]:
    """The parameters as the stage's model, and what its preflight finds.

    Raises:
        UsageError: No such stage or parameter, or a value that is not allowed; names the field.
    """
    checked = validated(stage, parameters)
    return checked, stage_of(stage).preflight(workspace, checked)


def validated(stage: str, parameters: dict[str, Any]) -> StageParameters:
    """The parameters as the stage's model, names and values checked.

    Raises:
        UsageError: No such stage or parameter, or a value that is not allowed; names the field.
    """
    model = stage_of(stage).parameters
    try:
        return model.model_validate(parameters)
    except ValidationError as error:
        raise _refusal(model, error.errors(include_url=False)[0]) from error


def refuse_problems(problems: list[Problem]) -> None:
    """Raise an `InputError` for the first problem that would make the run fail."""
    for problem in problems:
        if problem.level == "error":
            raise InputError(sentence(problem), place=problem.place)


def sentence(problem: Problem) -> str:
    """The problem and its remedy in English."""
    return message(f"problem.{problem.code}", **problem.values)


def command(
    stage: str,
    parameters: dict[str, Any],
    defaults: dict[str, Any] | None = None,
    *,
    root: Path | None = None,
    name: str = "",
) -> str:
    """The shell command that runs `stage` so; what would be so without a word is left out.

    Args:
        stage: The stage's name.
        parameters: Values by name.
        defaults: Values that differ from the stage's own where a profile says so.
        root: Folder of the workspace; None leaves it to whoever runs the command.
        name: What a person calls the run.
    """
    profile = defaults or {}
    chosen = {"preset": parameters["preset"]} if "preset" in parameters else {}
    kind = stage_of(stage).parameters
    usual = filled(kind, profile, chosen) | {"preset": filled(kind, profile, {}).get("preset")}
    words = ["python", "-m", "backend"]
    words += ["-w", str(root)] if root is not None else []
    words += ["run", stage]
    for key, value in parameters.items():
        if key not in usual or _written(value) != _written(usual[key]):
            words += ["-p", f"{key}={_written(value)}"]
    words += [f"--name={name}"] if name else []
    return shlex.join(words)


def _written(value: Any) -> str:
    """A value as the command line takes it: JSON, or text that nobody could take for JSON."""
    if isinstance(value, str) and not _is_json(value):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _refusal(model: type[StageParameters], error: ErrorDetails) -> UsageError:
    place = ".".join(str(part) for part in error["loc"])
    name = str(error["loc"][0]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, model.model_fields, n=3)
        known = near or sorted(model.model_fields)
        word = "Did you mean" if near else "There are"
        end = "?" if near else "."
        return UsageError(
            "there is no such parameter.", place=place, remedy=f"{word}: {', '.join(known)}{end}"
        )
    problem = f"{error['input']!r} is not allowed: {error['msg'].rstrip('.')}."
    field = model.model_fields.get(name)
    remedy = None
    if field is not None and field.default is not PydanticUndefined:
        remedy = f"Correct the value, or leave it out for the default {field.default!r}."
    return UsageError(problem, place=place, remedy=remedy)
