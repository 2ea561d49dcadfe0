"""A run as one column of a comparison: its evaluation, its training, what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from backend.runs import Run, RunSpec
from backend.workspace import Workspace
from store.runs import RunRow, run_row, run_rows, trail

STAGES = ("evaluate", "finetune", "pretrain", "loop")
"""What may be compared."""
_TRAINING = ("pretrain", "finetune")


@dataclass(frozen=True, slots=True)
class Compared:
    """A run with what led to it. What is not known is None."""

    row: RunRow
    label: str
    """The person's name for it, or for what it was made from."""
    evaluation: RunRow | None
    """Itself or, of a loop, its latest evaluation with scores."""
    trail: list[RunSpec] = field(default_factory=list)
    """Everything it builds on and itself, the oldest first."""
    trainings: list[RunRow] = field(default_factory=list)
    """Pretraining and fine-tuning, in that order."""

    @property
    def seconds(self) -> float | None:
        """How long its trainings took together."""
        known = [row.duration_s(row.ended_at) for row in self.trainings if row.ended_at]
        return sum(s for s in known if s is not None) if known else None

    @property
    def peak_memory(self) -> float | None:
        """Bytes of device memory that its trainings needed at most."""
        return max((r.peak_memory for r in self.trainings if r.peak_memory), default=None)

    @property
    def peak_host_memory(self) -> float | None:
        """Bytes of host memory that its trainings needed at most."""
        return max((r.peak_host_memory for r in self.trainings if r.peak_host_memory), default=None)

    @property
    def last_loss(self) -> float | None:
        """The last loss of its last training that wrote one."""
        known = [row.last_loss for row in self.trainings if row.last_loss is not None]
        return known[-1] if known else None

    def training(self, workspace: Workspace, stage: str) -> Run | None:
        """Its run of a training stage."""
        found = [row.id for row in self.trainings if row.stage == stage]
        return Run(workspace.runs / found[-1]) if found else None


def comparable(rows: list[RunRow]) -> list[RunRow]:
    """The runs that may be compared: evaluations with scores first, then trainings and loops."""
    fit = [
        row
        for row in rows
        if row.problem is None
        and row.stage in STAGES
        and (row.stage != "evaluate" or row.scores)
        and (row.stage not in _TRAINING or row.last_loss is not None)
    ]
    return sorted(fit, key=lambda row: STAGES.index(row.stage))


def compared(workspace: Workspace, run_id: str) -> Compared:
    """The run as a column.

    Raises:
        UsageError: There is no such run.
    """
    row = run_row(workspace, run_id)
    evaluation = row if row.stage == "evaluate" else None
    specs = trail(workspace, row.id)
    if row.stage == "loop":
        children = [child for child in run_rows(workspace) if child.parent == row.id]
        scored = [child for child in children if child.stage == "evaluate" and child.scores]
        evaluation = scored[0] if scored else None
        last = evaluation or next((c for c in children if c.stage in _TRAINING), None)
        specs = [*specs, *(trail(workspace, last.id) if last else [])]
    behind = list(reversed(specs))
    trainings = [run_row(workspace, s.run_id) for s in behind if s.stage in _TRAINING]
    trainings.sort(key=lambda training: _TRAINING.index(training.stage))
    return Compared(row, row.label, evaluation, behind, trainings)


def distinct(found: list[Compared]) -> dict[str, str]:
    """Run id to label; equal labels get the stage and the end of the id."""
    labels = [one.label for one in found]
    return {
        one.row.id: f"{one.label} ({one.row.stage} {one.row.id[-4:]})"
        if labels.count(one.label) > 1
        else one.label
        for one in found
    }
