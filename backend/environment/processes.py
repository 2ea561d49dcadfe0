"""Which processes belong to runs of a workspace."""

from __future__ import annotations

import psutil

from backend.errors import SynthLoopError
from backend.runs import Run, State
from backend.workspace import Workspace


def running(workspace: Workspace) -> list[Run]:
    """Runs that are going on, newest first; what cannot be read is no running run."""
    return [run for run in Run.all(workspace) if _runs(run)]


def _runs(run: Run) -> bool:
    try:
        return run.status().state is State.RUNNING
    except (SynthLoopError, ValueError):
        return False


def process_tree(run: Run) -> list[int]:
    """The pids of the run's child and all its descendants, as far as they live."""
    try:
        child = run.written_status().child
    except (SynthLoopError, ValueError):
        # Deleted meanwhile, or broken.
        return []
    if child is None or not child.alive():
        return []
    try:
        root = psutil.Process(child.pid)
        return [child.pid, *(process.pid for process in root.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []
