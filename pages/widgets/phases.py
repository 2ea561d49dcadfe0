"""Where a workspace stands: its six phases, what to do next, and the criteria of success.

Nothing here is shown; the overview asks, and says it in words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from backend.errors import SynthLoopError, UsageError
from backend.evaluation.statistics import relative_score
from backend.files import read_json
from backend.runs import Run, State
from backend.workspace import Workspace
from store.datasets import DatasetRow, dataset_rows
from store.metrics import memory
from store.runs import RunRow

PhaseState = Literal["open", "running", "done", "problem"]
BENCHMARKS = ("textvqa", "mmbench")
_TRAINING = ("pretrain", "finetune")


@dataclass(frozen=True, slots=True)
class Phase:
    """One of the six."""

    page: str
    state: PhaseState
    figure: str = ""
    """Message key of the figure that matters."""
    values: dict[str, Any] = field(default_factory=dict)
    at: float | None = None
    """When it last changed, seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the overview needs to know of a workspace."""

    rows: list[RunRow]
    datasets: list[DatasetRow]
    baseline: RunRow | None
    """The evaluation that scores are read against."""
    latest: RunRow | None
    """The newest scored evaluation that is not the baseline."""
    training: RunRow | None
    """The newest training run that wrote a step."""
    checks: dict[str, int] | None
    """Environment checks by state; None when nobody looked."""
    checked_at: float | None
    card: float | None
    """Bytes of the device that the newest training ran on."""


def standing(space: Workspace, rows: list[RunRow]) -> Standing:
    """Read what there is."""
    baseline = baseline_of(rows)
    scored = [row for row in rows if row.stage == "evaluate" and row.scores]
    training = next((r for r in rows if r.stage in _TRAINING and r.last_step is not None), None)
    checks, checked_at = _checks(space, rows)
    card = memory(Run(space.runs / training.id), 100).total if training else None
    return Standing(
        rows=rows,
        datasets=dataset_rows(space),
        baseline=baseline,
        latest=next((row for row in scored if row is not baseline), None),
        training=training,
        checks=checks,
        checked_at=checked_at,
        card=card,
    )


def baseline_of(rows: list[RunRow]) -> RunRow | None:
    """The newest evaluation of a baseline loop, else the oldest evaluation with scores."""
    loops = {row.id for row in rows if row.parameters.get("loop") == "baseline"}
    scored = [row for row in rows if row.stage == "evaluate" and row.scores]
    own = [row for row in scored if row.parent in loops]
    return own[0] if own else (scored[-1] if scored else None)


def ratio(row: RunRow, baseline: RunRow) -> float | None:
    """The challenge's score: the mean over both benchmarks of score by baseline score."""
    ours, theirs = (
        {name: score for name in BENCHMARKS if (score := one.score(name)) is not None}
        for one in (row, baseline)
    )
    try:
        return relative_score(ours, theirs)
    except UsageError:
        return None


def phases(now: Standing) -> list[Phase]:
    """The six, in order."""
    return [
        _environment(now),
        _baseline(now),
        _memory(now),
        _synthesis(now),
        _training(now),
        _evaluation(now),
    ]


def _environment(now: Standing) -> Phase:
    if now.checks is None:
        return Phase("environment", "open")
    passed, total = now.checks.get("passed", 0), sum(now.checks.values())
    state: PhaseState = "problem" if now.checks.get("failed") else "done"
    values = {"passed": passed, "total": total}
    return Phase("environment", state, "phase.checks", values, now.checked_at)


def _baseline(now: Standing) -> Phase:
    row = now.baseline
    if row is not None:
        values = {name: row.score(name) for name in BENCHMARKS}
        return Phase("baseline", "done", "phase.scores", values, row.ended_at)
    loops = [row for row in now.rows if row.parameters.get("loop") == "baseline"]
    return _by_run("baseline", loops[0] if loops else None)


def _by_run(page: str, row: RunRow | None) -> Phase:
    if row is None:
        return Phase(page, "open")
    if not row.state.ended:
        return Phase(page, "running", at=row.started_at)
    return Phase(page, "done" if row.state is State.SUCCEEDED else "problem", at=row.ended_at)


def _memory(now: Standing) -> Phase:
    row = now.training
    if row is None or row.peak_memory is row.peak_host_memory is None:
        return Phase("memory", "open")
    if row.peak_memory is None:
        values: dict[str, Any] = {"peak": row.peak_host_memory}
        return Phase("memory", "done", "phase.host_peak", values, row.ended_at)
    if now.card is None:
        return Phase("memory", "done", "phase.peak", {"peak": row.peak_memory}, row.ended_at)
    fits = row.peak_memory < now.card
    values = {"card": now.card, "spare": now.card - row.peak_memory}
    state: PhaseState = "done" if fits else "problem"
    return Phase("memory", state, "phase.fits", values, row.ended_at)


def _synthesis(now: Standing) -> Phase:
    made = next((row for row in now.datasets if row.parent and row.problem is None), None)
    active = next(
        (r for r in now.rows if r.stage == "synthesize" and r.state is State.RUNNING), None
    )
    if active is not None:
        return Phase("synthesis", "running", at=active.started_at)
    if made is None:
        failed = next((row for row in now.rows if row.stage == "synthesize"), None)
        return _by_run("synthesis", failed)
    source = next((row for row in now.datasets if row.reference == made.parent), None)
    values = {"before": source.kept if source else made.samples, "after": made.kept}
    return Phase("synthesis", "done", "phase.samples", values, made.created_at)


def _training(now: Standing) -> Phase:
    rows = [row for row in now.rows if row.stage in _TRAINING]
    if not rows:
        return Phase("training", "open")
    row = next((one for one in rows if one.state is State.RUNNING), rows[0])
    plain = _by_run("training", row)
    if row.last_step is None:
        return plain
    values = {"step": row.last_step, "loss": row.last_loss}
    return Phase("training", plain.state, "phase.steps", values, plain.at)


def _evaluation(now: Standing) -> Phase:
    rows = [row for row in now.rows if row.stage == "evaluate" and row is not now.baseline]
    active = next((row for row in rows if row.state is State.RUNNING), None)
    if active is not None or now.latest is None:
        return _by_run("evaluation", active or (rows[0] if rows else None))
    found = ratio(now.latest, now.baseline) if now.baseline else None
    if found is None:
        return Phase("evaluation", "done", at=now.latest.ended_at)
    return Phase("evaluation", "done", "phase.ratio", {"ratio": found}, now.latest.ended_at)


@dataclass(frozen=True, slots=True)
class Advice:
    """The next step."""

    code: str
    """Message key below `advice.`; its button is at `.button`."""
    page: str
    query: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


def advice(now: Standing) -> Advice:
    """What to do next: the first thing that is in the way, else the next phase."""
    if now.checks is not None and now.checks.get("failed"):
        return Advice("environment", "environment", values={"n": now.checks["failed"]})
    active = next((row for row in now.rows if row.state is State.RUNNING), None)
    if active is not None:
        loops = {row.id: row for row in now.rows if row.stage == "loop"}
        loop = loops.get(active.parent or active.id)
        page = "runs" if loop is None else str(loop.parameters["loop"])
        return Advice("watch", page, {"run": (loop or active).id}, {"run": active.label})
    last = next((row for row in now.rows if row.parent is None and row.state.ended), None)
    if last is not None and last.state in (State.FAILED, State.LOST):
        return Advice("failed", "runs", {"run": last.id}, {"run": last.label})
    if now.baseline is None:
        return Advice("baseline", "baseline")
    if not any(row.parent for row in now.datasets):
        return Advice("synthesis", "synthesis")
    if now.latest is None:
        return Advice("round", "synthesis")
    return Advice("compare", "compare", values={"run": now.latest.label})


def _checks(space: Workspace, rows: list[RunRow]) -> tuple[dict[str, int] | None, float | None]:
    row = next((r for r in rows if r.stage == "check" and r.state is State.SUCCEEDED), None)
    if row is None:
        return None, None
    try:
        found = read_json(space.runs / row.id / "artifacts" / "checks.json")
    except SynthLoopError:
        return None, None
    if not isinstance(found, dict) or "readiness" not in found:
        return None, None
    # Only what concerns the workspace's profile counts; what blocks it has failed.
    blocking = len(found["readiness"][space.settings.profile]["blocking"])
    warnings = found["total"] - found["ok"] - blocking
    counts = {"passed": found["ok"], "warning": warnings, "failed": blocking}
    return counts, row.ended_at
