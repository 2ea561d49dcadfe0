"""What a person does with runs that exist: stop, resume, adopt, delete, look at the queue."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator

from backend.errors import InputError, SynthLoopError, UsageError
from backend.files import write_json
from backend.runs import Run, RunStatus, State
from backend.stages import STAGES
from backend.supervisor.starting import spawn
from backend.workspace import Workspace

STOP_FILE = "stop"
"""A file of this name in the run's folder asks for an end."""
LOCK_FILE = "supervisor.lock"
"""Whoever holds its lock is the one writer of the run's status."""
PATIENCE_S = 5.0


@contextlib.contextmanager
def writing(run: Run, patience_s: float = 0.0) -> Iterator[bool]:
    """Hold the right to write the run's status; False when another process has it.

    The kernel takes the lock from a process that dies.
    """
    descriptor = os.open(run.path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield _lock(descriptor, time.monotonic() + patience_s)
    finally:
        os.close(descriptor)


def stop(run: Run) -> None:
    """Ask the run to end; it saves what it has, and is killed when it does not within the grace.

    A run that has ended stays as it is. One without a supervisor gets one, which sees to it.
    """
    status = run.status()
    if status.state.ended:
        return
    (run.path / STOP_FILE).touch()
    if not status.supervised:
        spawn(run)


def resume(run: Run) -> Run:
    """Continue a run that stopped, failed or was lost, from its last checkpoint.

    Raises:
        UsageError: It has not ended, has succeeded, or its stage cannot continue.
    """
    stage = STAGES.get(run.spec.stage)
    if stage is not None and not stage.resumable:
        raise UsageError(
            f"a run of {stage.name} cannot be continued.",
            place=run.id,
            remedy="Start it anew with the same parameters.",
        )
    with _ended(run) as state:
        if state not in (State.STOPPED, State.FAILED, State.LOST):
            raise UsageError(
                f"the run is {state}; only a stopped, failed or lost run can be continued.",
                place=run.id,
            )
        (run.path / STOP_FILE).unlink(missing_ok=True)
        attempt = run.written_status().attempt + 1
        status = RunStatus(attempt=attempt, queued_at=time.time())
        write_json(run.status_path, status.model_dump(mode="json", exclude={"supervised"}))
    spawn(run)
    return run


def adopt_orphans(workspace: Workspace) -> list[Run]:
    """Give a supervisor to every run that waits or runs without one; says which."""
    adopted = []
    for run in Run.all(workspace):
        try:
            status, _ = run.status(), run.spec
        except (SynthLoopError, ValueError):
            # Its files are broken: whoever opens it is told, and the others are looked after.
            continue
        if not status.state.ended and not status.supervised:
            spawn(run)
            adopted.append(run)
    return adopted


def queue(workspace: Workspace) -> list[Run]:
    """Runs that wait for their device, first in line first."""
    waiting = []
    for run in Run.all(workspace):
        try:
            status = run.written_status()
        except (SynthLoopError, ValueError):
            continue
        if status.state is State.QUEUED:
            waiting.append((status.queued_at or 0.0, run))
    return [run for _, run in sorted(waiting, key=lambda one: (one[0], one[1].id))]


def delete(run: Run) -> None:
    """Remove a run that has ended, with everything it left.

    Raises:
        InputError: It has not ended.
    """
    with _ended(run) as state:
        if not state.ended:
            raise InputError(
                f"the run is {state}.", place=run.id, remedy="Stop it before you delete it."
            )
        # Without it the folder is no run any more, even if the rest takes long.
        (run.path / "run.json").unlink()
        shutil.rmtree(run.path)


@contextlib.contextmanager
def _ended(run: Run) -> Iterator[State]:
    """The run's state; once it has ended, with the right to write in its folder.

    Raises:
        UsageError: It has ended, and somebody else is about to continue or delete it.
    """
    state = run.status().state
    if not state.ended:
        yield state
        return
    # The supervisor that just wrote the end is still about to leave.
    with writing(run, PATIENCE_S) as mine:
        if not mine:
            raise UsageError("another process is busy with this run.", place=run.id)
        yield run.status().state


def _lock(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
