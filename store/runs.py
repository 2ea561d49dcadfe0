"""Every run as one row: what it was asked, where it stands, what came out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from glob import escape
from typing import Any

from backend import trails
from backend.errors import SynthLoopError
from backend.files import read_json
from backend.runs import Progress, Reason, Run, RunSpec, RunStatus, State
from backend.trails import may_name_a_run
from backend.workspace import Workspace
from store.connection import JSON_LINES, Fingerprint, fingerprint, rows

_FIGURES = {
    "step": "BIGINT",
    "attempt": "INTEGER",
    "loss": "DOUBLE",
    "memory_reserved_peak": "DOUBLE",
    "host_memory": "DOUBLE",
}


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run. What is not known is None."""

    id: str
    stage: str
    state: State
    name: str = ""
    """What a person called it."""
    name_behind: str = ""
    """What a person called the nearest run that it builds on; of a loop, which one it is."""
    created_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    attempt: int = 1
    supervised: bool = True
    reason: Reason | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    parent: str | None = None
    """The loop that started it."""
    dataset: str | None = None
    """`<name>/<version>` that it reads, itself or through the runs it builds on."""
    method: str | None = None
    """full, lora or qlora; of an evaluation, its checkpoint's."""
    last_step: int | None = None
    last_loss: float | None = None
    """The latest step's; NaN and infinity stay what they are."""
    scores: dict[str, Any] = field(default_factory=dict)
    """scores.json of an evaluation, by benchmark."""
    peak_memory: float | None = None
    """Bytes that torch reserved on the device at most."""
    peak_host_memory: float | None = None
    """Bytes of host memory at most."""
    progress: Progress | None = None
    problem: str | None = None
    """Why the run's own files cannot be read."""

    @property
    def label(self) -> str:
        """The person's name for it or for what it builds on, or the stage with the id's end."""
        return self.name or self.name_behind or f"{self.stage} {self.id[-4:]}"

    def duration_s(self, now: float) -> float | None:
        """Seconds from start to end, or until `now`; None before it started."""
        if self.started_at is None:
            return None
        return (self.ended_at or now) - self.started_at

    def score(self, benchmark: str) -> float | None:
        """The benchmark's score, 0 to 100."""
        entry = self.scores.get(benchmark)
        found = entry.get("score") if isinstance(entry, dict) else None
        return float(found) if found is not None else None


def run_rows(workspace: Workspace) -> list[RunRow]:
    """Every run, newest first; one whose files are broken says so in `problem`."""
    runs = {run.id: run for run in Run.all(workspace)}
    specs = {run_id: spec for run_id, run in runs.items() if (spec := _spec(run)) is not None}
    return [_row(run, specs) for run in runs.values()]


def run_row(workspace: Workspace, run_id: str) -> RunRow:
    """One run.

    Raises:
        UsageError: There is no such run.
    """
    run = Run.find(workspace, run_id)
    specs = {spec.run_id: spec for spec in trail(workspace, run.id)}
    return _row(run, specs)


def at_work(found: list[RunRow]) -> list[RunRow]:
    """Those that run, without the loops that only wait for another of them; in the same order."""
    active = [row for row in found if row.state is State.RUNNING]
    parents = {row.parent for row in active}
    return [row for row in active if row.id not in parents]


def trail(workspace: Workspace, run_id: str) -> list[RunSpec]:
    """The run and all that it builds on, itself first, then nearest first."""

    def spec_of(name: str) -> RunSpec | None:
        return _spec(Run(workspace.runs / name)) if may_name_a_run(name) else None

    return trails.trail(run_id, spec_of)


def _row(run: Run, specs: dict[str, RunSpec]) -> RunRow:
    spec = specs.get(run.id)
    if spec is None:
        return RunRow(run.id, "", State.LOST, problem=_problem(run))
    try:
        status = run.status()
        progress = None if status.state.ended else run.progress()
        scores = _scores(run)
    except (SynthLoopError, ValueError) as error:
        return RunRow(run.id, spec.stage, State.LOST, name=spec.name, problem=str(error))
    return _complete(run, spec, status, progress, scores, trails.trail(spec.run_id, specs.get))


def _complete(
    run: Run,
    spec: RunSpec,
    status: RunStatus,
    progress: Progress | None,
    scores: dict[str, Any],
    behind: list[RunSpec],
) -> RunRow:
    source = fingerprint(run.metrics_path)
    step, loss, peak, host = _figures(source) if source else (None, None, None, None)
    return RunRow(
        id=run.id,
        stage=spec.stage,
        state=status.state,
        name=spec.name,
        name_behind=next((s.name for s in behind if s.name), str(spec.parameters.get("loop", ""))),
        created_at=spec.created_at,
        started_at=status.started_at,
        ended_at=status.ended_at,
        attempt=status.attempt,
        supervised=status.supervised,
        reason=status.reason,
        parameters=spec.parameters,
        inputs=spec.inputs,
        parent=spec.parent,
        dataset=_first(behind, "dataset"),
        method=_first([s for s in behind if s.stage == "finetune"], "method"),
        last_step=step,
        last_loss=loss,
        scores=scores,
        peak_memory=peak,
        peak_host_memory=host,
        progress=progress,
    )


def _first(specs: list[RunSpec], parameter: str) -> str | None:
    found = [value for spec in specs if (value := spec.parameters.get(parameter))]
    return str(found[0]) if found else None


def _spec(run: Run) -> RunSpec | None:
    source = fingerprint(run.path / "run.json")
    if source is None:
        return None
    try:
        return _spec_of(source)
    except (SynthLoopError, ValueError):
        return None


@lru_cache(maxsize=4096)
def _spec_of(source: Fingerprint) -> RunSpec:
    return RunSpec.model_validate(read_json(source.file))


def _problem(run: Run) -> str:
    try:
        RunSpec.model_validate(read_json(run.path / "run.json"))
    except (SynthLoopError, ValueError) as error:
        return str(error)
    return ""


def _scores(run: Run) -> dict[str, Any]:
    source = fingerprint(run.artifacts / "scores.json")
    return {} if source is None else _scores_of(source)


@lru_cache(maxsize=4096)
def _scores_of(source: Fingerprint) -> dict[str, Any]:
    found = read_json(source.file)
    return found if isinstance(found, dict) else {}


@lru_cache(maxsize=4096)
def _figures(
    source: Fingerprint,
) -> tuple[int | None, float | None, float | None, float | None]:
    """Last step, its loss, and both peaks, of a file that may end torn."""
    at = "struct_pack(attempt := coalesce(attempt, 0), step := step)"
    found = rows(
        f"SELECT arg_max(step, {at}) AS step, "  # noqa: S608
        f"arg_max(loss, {at}) FILTER (loss IS NOT NULL) AS loss, "
        "max(memory_reserved_peak) AS peak, max(host_memory) AS host "
        f"FROM {JSON_LINES} WHERE step IS NOT NULL",
        {"path": escape(source.path), "columns": _FIGURES},
    )[0]
    return found["step"], found["loss"], _finite(found["peak"]), _finite(found["host"])


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
