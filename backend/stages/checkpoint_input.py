"""What every stage says of a checkpoint that it cannot open."""

from __future__ import annotations

from backend.errors import SynthLoopError, UsageError
from backend.stages.base import Problem


def checkpoint_problem(error: SynthLoopError, field: str) -> Problem:
    """A preflight's problem from what `backend.bases.located` raised for a field."""
    place = error.place or field
    if isinstance(error, UsageError) or not error.remedy:
        return Problem("error", "checkpoint_missing", {"problem": error.problem}, place)
    values = {"problem": error.problem, "remedy": error.remedy}
    return Problem("error", "checkpoint_base", values, place)
