"""The stages by name. Importing this, or a stage's module, imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from backend.errors import UsageError
from backend.stages.base import Problem, StageParameters
from backend.workspace import Workspace


@dataclass(frozen=True)
class Stage:
    """One program of the studio, `backend/stages/<name>.py`."""

    name: str
    phase: int
    """0 environment … 5 evaluation."""
    uses_device: bool
    """Whether it waits for its turn on the device."""
    resumable: bool
    """Whether a stopped or failed run continues from where it was."""

    @property
    def module(self) -> str:
        """The module that `python -m` runs."""
        return f"backend.stages.{self.name}"

    @property
    def parameters(self) -> type[StageParameters]:
        """The stage's parameters."""
        kind: type[StageParameters] = import_module(self.module).Parameters
        return kind

    def preflight(self, workspace: Workspace, parameters: StageParameters) -> list[Problem]:
        """What would go wrong, found in seconds and without a device; empty when nothing."""
        check: Callable[[Workspace, Any], list[Problem]] = import_module(self.module).preflight
        return check(workspace, parameters)


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("check", 0, uses_device=False, resumable=False),
        Stage("fetch", 0, uses_device=False, resumable=True),
        Stage("install", 0, uses_device=False, resumable=False),
        Stage("prepare", 1, uses_device=False, resumable=False),
        Stage("probe", 2, uses_device=True, resumable=False),
        Stage("analyze", 3, uses_device=False, resumable=False),
        Stage("synthesize", 3, uses_device=True, resumable=True),
        Stage("verify", 3, uses_device=False, resumable=False),
        Stage("pretrain", 4, uses_device=True, resumable=True),
        Stage("finetune", 4, uses_device=True, resumable=True),
        Stage("merge", 4, uses_device=False, resumable=False),
        Stage("evaluate", 5, uses_device=True, resumable=True),
        Stage("report", 5, uses_device=False, resumable=False),
        Stage("submit", 5, uses_device=False, resumable=False),
        Stage("loop", 1, uses_device=False, resumable=True),
    )
}


def stage(name: str) -> Stage:
    """The stage `name`.

    Raises:
        UsageError: There is none; lists those that exist.
    """
    try:
        return STAGES[name]
    except KeyError as error:
        known = ", ".join(STAGES)
        raise UsageError(f"there is no such stage (there are: {known}).", place=name) from error
