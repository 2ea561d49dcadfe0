from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from backend.runs import Run, RunStatus, State
from backend.stages import STAGES
from backend.supervisor import start
from backend.workspace import Settings, Workspace
from tests.faults.studio import STEPS

Start = Callable[..., Run]


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace, a device queue and a stage of the test's own; nothing outlives the test."""
    monkeypatch.setenv("SYNTHLOOP_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SYNTHLOOP_POLL_S", "0.1")
    monkeypatch.setenv("SYNTHLOOP_GRACE_S", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setitem(STAGES, "steps", STEPS)
    workspace = Workspace.create(tmp_path / "ws", Settings(name="test"))
    yield workspace
    for process in psutil.process_iter(["cmdline"]):
        if any(str(tmp_path) in word for word in process.info["cmdline"] or ()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture
def begin(space: Workspace) -> Start:
    """Start a run of the steps stage with these parameters."""
    return lambda **parameters: start(space, "steps", parameters)


def wait_for(what: Callable[[], object], seconds: float = 8.0) -> None:
    """Wait until `what` holds."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def ended(run: Run, seconds: float = 8.0) -> RunStatus:
    """The status at the run's end."""
    wait_for(lambda: run.status().state.ended, seconds)
    return run.status()


def counting(run: Run) -> RunStatus:
    """The status once the child has counted a step or two."""
    wait_for(lambda: run.status().state.ended or steps(run)[1:])
    status = run.status()
    assert status.state is State.RUNNING, status
    return status


def steps(run: Run) -> list[int]:
    """The steps in the run's metrics."""
    if not run.metrics_path.exists():
        return []
    return [
        int(line.split('"step":')[1].split(",")[0])
        for line in run.metrics_path.read_text().splitlines()
    ]


def kill(pid: int) -> None:
    """SIGKILL, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not _lives(pid))


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
