"""How many samples each operator left: of a run that works, or of a finished version."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from backend.errors import SynthLoopError
from backend.files import read_json
from backend.runs import Run
from store.datasets import DatasetRow


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """One operator. What is not known yet is None."""

    operator: str
    state: str
    """waiting, running or finished."""
    before: int | None = None
    after: int | None = None
    dropped: int | None = None
    rewritten: int | None = None
    created: int | None = None
    seconds: float | None = None
    failures: int = 0
    """Samples on which the operator failed and that it passed on unchanged or left out."""
    examples: list[str] = field(default_factory=list)
    """What the first failures said."""


def run_funnel(run: Run) -> list[FunnelStep]:
    """The operators of a synthesis in their order; empty before it has begun."""
    path = run.artifacts / "funnel.json"
    if not path.exists():
        return []
    try:
        entries = read_json(path)
    except SynthLoopError:
        return []
    return [_step(entry) for entry in entries if isinstance(entry, dict)]


def dataset_funnel(dataset: DatasetRow) -> list[FunnelStep]:
    """The operators that made a version, in their order; empty for one that was imported."""
    return [
        FunnelStep(
            operator=str(entry["name"]),
            state="finished",
            before=entry["before"],
            after=entry["after"],
            seconds=entry["seconds"],
        )
        for entry in dataset.operators
    ]


def _step(entry: dict[str, Any]) -> FunnelStep:
    finished = entry.get("state") == "finished"
    return FunnelStep(
        operator=str(entry.get("operator", "")),
        state=str(entry.get("state", "waiting")),
        before=entry.get("before"),
        after=entry.get("after"),
        dropped=entry.get("dropped") if finished else None,
        rewritten=entry.get("rewritten") if finished else None,
        created=entry.get("created") if finished else None,
        seconds=entry.get("seconds"),
        failures=int(entry.get("failures") or 0),
        examples=[str(text) for text in entry.get("examples") or []],
    )
