"""Judging a stage's parameters before anything starts, and writing them as a command."""

from __future__ import annotations

import difflib
import json
import shlex
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticUndefined

from backend.errors import InputError, UsageError
from backend.messages import message
from backend.stages import stage as stage_of
from backend.stages.base import Problem, StageParameters
from backend.training.presets import PRESETS
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


def command(stage: str, parameters: dict[str, Any], defaults: dict[str, Any] | None = None) -> str:
    """The shell command that runs `stage` so; what would be so without a word is left out.

    Args:
        stage: The stage's name.
        parameters: Values by name.
        defaults: Values that differ from the stage's own where a profile says so.
    """
    own = {
        name: field.get_default(call_default_factory=True)
        for name, field in stage_of(stage).parameters.model_fields.items()
    }
    chosen = {**own, **(defaults or {}), **parameters}.get("preset")
    preset = {name: value for name, value in PRESETS.get(str(chosen), {}).items() if name in own}
    usual = own | preset | (defaults or {})
    words = ["python", "-m", "backend", "run", stage]
    for name, value in parameters.items():
        if name not in usual or _written(value) != _written(usual[name]):
            words += ["-p", f"{name}={_written(value)}"]
    return shlex.join(words)


def _written(value: Any) -> str:
    """A value as the command line takes it: text as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


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
