"""What happened to one sample, from its seed to the version that it is in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from glob import escape

from backend.workspace import Workspace
from store.connection import rows
from store.datasets import dataset_row

_MADE_FROM = re.compile(r"from (\S+)")
_DEEPEST = 64


@dataclass(frozen=True, slots=True)
class LineageStep:
    """What one operator did to a sample."""

    dataset: str
    """The version that the operator made."""
    sample_id: str
    """The sample, or the one that it was made from."""
    step: int
    operator: str
    action: str
    """kept, dropped, rewritten or created."""
    before: str | None
    after: str | None
    reason: str
    """The statistic against its limit, or the sample that it resembles."""


def lineage(workspace: Workspace, reference: str, sample_id: str) -> list[LineageStep]:
    """Every operator's word on the sample, oldest first, through all parent versions.

    A sample that was created goes on with the one that it was made from.

    Raises:
        UsageError: There is no such version.
    """
    steps: list[LineageStep] = []
    known: set[tuple[str, str]] = set()
    current: str | None = reference
    while current is not None and len(known) < _DEEPEST:
        own, sample_id = _in_version(workspace, current, sample_id, known)
        steps = own + steps
        parent = dataset_row(workspace, current).parent
        current = parent if parent in workspace.dataset_references() else None
        if (current or "", sample_id) in known:
            break
    return steps


def _in_version(
    workspace: Workspace, reference: str, sample_id: str, known: set[tuple[str, str]]
) -> tuple[list[LineageStep], str]:
    """The steps in one version, and the id that the sample had before its first operator."""
    steps: list[LineageStep] = []
    until = 1 << 30
    while (reference, sample_id) not in known:
        known.add((reference, sample_id))
        own = [step for step in _events(workspace, reference, sample_id) if step.step < until]
        steps = own + steps
        made = _MADE_FROM.fullmatch(own[0].reason) if own and own[0].action == "created" else None
        if made is None:
            break
        until, sample_id = own[0].step, made.group(1)
    return steps, sample_id


def _events(workspace: Workspace, reference: str, sample_id: str) -> list[LineageStep]:
    path = workspace.dataset(reference) / "lineage.parquet"
    if not path.is_file():
        return []
    found = rows(
        "SELECT step, operator, action, before, after, coalesce(reason, '') AS reason "
        "FROM read_parquet($path) WHERE sample_id = $id ORDER BY step",
        {"path": escape(str(path)), "id": sample_id},
    )
    return [LineageStep(reference, sample_id, **row) for row in found]
