"""Taking a run away for good."""

from __future__ import annotations

import shutil

from backend.errors import UsageError
from backend.runs import Run
from backend.workspace import Workspace
from store.runs import RunRow, run_rows


def delete_run(workspace: Workspace, run_id: str) -> None:
    """Remove the folder of a run that has ended.

    Raises:
        UsageError: There is no such run, or it has not ended.
    """
    run = Run.find(workspace, run_id)
    if not run.status().state.ended:
        raise UsageError("the run has not ended.", place=run.id, remedy="Stop it first.")
    # Without run.json it is no run any more, whatever becomes of the rest.
    (run.path / "run.json").unlink()
    shutil.rmtree(run.path)


def runs_built_on(workspace: Workspace, run_id: str) -> list[RunRow]:
    """Runs that name this one among their inputs or parameters."""
    return [
        row
        for row in run_rows(workspace)
        if row.id != run_id and run_id in [*row.inputs.values(), *_texts(row.parameters.values())]
    ]


def _texts(values: object) -> list[object]:
    found: list[object] = []
    for value in values:  # type: ignore[attr-defined]
        found += value if isinstance(value, list) else [value]
    return found
