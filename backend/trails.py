"""What a run builds on: the runs that its inputs and parameters name, and theirs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from backend.runs import RunSpec

_RUN_ID = re.compile(r"\w[\w.-]{0,127}")


class Asked(Protocol):
    """What a run was asked for."""

    @property
    def inputs(self) -> Mapping[str, str]:
        """Name to run or dataset version."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Name to value."""


def named(asked: Asked) -> list[str]:
    """Every text that may name a run or a dataset version: inputs first, then parameters."""
    values: list[Any] = [*asked.inputs.values()]
    for value in asked.parameters.values():
        values += value if isinstance(value, list) else [value]
    return [value for value in dict.fromkeys(v for v in values if isinstance(v, str)) if value]


def trail(run_id: str, spec_of: Callable[[str], RunSpec | None]) -> list[RunSpec]:
    """The run and all that it builds on, itself first, then nearest first.

    Args:
        run_id: The run.
        spec_of: What the run of a name was asked for; None where the name is no run's.
    """
    found: dict[str, RunSpec] = {}
    waiting = [run_id]
    while waiting:
        current = waiting.pop(0)
        spec = None if current in found else spec_of(current)
        if spec is not None:
            found[current] = spec
            waiting += named(spec)
    return list(found.values())


def may_name_a_run(text: str) -> bool:
    """Whether a text from parameters is safe to look for among the runs' folders."""
    return _RUN_ID.fullmatch(text) is not None
