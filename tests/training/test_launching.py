"""Stages that start processes of their own: either launcher, stops, resumes, and deaths."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from backend.files import read_lines
from backend.runs import Run, RunFailed, State
from backend.stages.base import StageContext, StopRequested
from backend.stages.finetune import Parameters, main
from backend.supervisor import resume, start, stop
from backend.training import launching
from backend.training.launching import ROOT, WORKER, command, environment
from backend.workspace import Workspace
from tests.training.small import EXACT, losses, new_run, seen, set_state, trained

SETTINGS: dict[str, Any] = {
    "method": "lora",
    "lora_rank": 4,
    "micro_batch_size": 1,
    "epochs": 3,
    "lora_dropout": 0.0,
    "drop_path": False,
}


class _Stopping(StageContext):
    """Is asked to stop once a number of steps is on record."""

    def __init__(self, workspace: Workspace, run: Run, stop_after: int | None = None):
        self.stop_after = stop_after
        super().__init__(workspace, run)

    @property
    def stop_requested(self) -> bool:
        return self.stop_after is not None and _steps(self.run) >= self.stop_after

    @stop_requested.setter
    def stop_requested(self, value: bool) -> None:
        assert not value


def _steps(run: Run) -> int:
    return len(list(read_lines(run.metrics_path)))


def attempt(space: Workspace, run: Run, number: int, *, stop_after: int | None = None) -> None:
    """Run the stage in this process, as its n-th attempt."""
    set_state(run, State.RUNNING, number)
    main(_Stopping(space, run, stop_after), Parameters.model_validate(run.spec.parameters))


def workers() -> list[psutil.Process]:
    """Living processes that train for this one."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.cmdline()[1:4] == ["-u", "-m", WORKER]]


def same_curve(run: Run, base: Run) -> None:
    assert losses(run) == pytest.approx(losses(base), rel=1e-5)
    assert {row[:2] for row in seen(run)} == {row[:2] for row in seen(base)}


@pytest.fixture(scope="module")
def alone(space: Workspace) -> Run:
    return trained(space, "finetune", **SETTINGS)


def test_torchrun_stops_all_processes_and_says_why_one_failed(space: Workspace, alone: Run) -> None:
    run = new_run(space, "finetune", devices=2, zero_stage=2, **SETTINGS)
    with pytest.raises(StopRequested):
        attempt(space, run, 1, stop_after=2)
    (checkpoint,) = run.artifacts.glob("checkpoint-*")
    assert 2 <= int(checkpoint.name.removeprefix("checkpoint-")) < 18

    needed = checkpoint / "random-1.pt"
    needed.rename(needed.with_suffix(".away"))
    with pytest.raises(RunFailed) as failed:
        attempt(space, run, 2)
    assert "random-1.pt" in str(failed.value.reason.values)

    needed.with_suffix(".away").rename(needed)
    attempt(space, run, 3)
    assert workers() == []
    same_curve(run, alone)


def test_deepspeed_starts_them_and_a_killed_process_ends_all(space: Workspace, alone: Run) -> None:
    run = new_run(space, "finetune", devices=2, launcher="deepspeed", save_steps=2, **SETTINGS)
    killer = threading.Thread(target=_kill_one_after, args=(run, 3))
    killer.start()
    with pytest.raises(RunFailed) as failed:
        attempt(space, run, 1)
    killer.join()
    assert failed.value.reason.code in ("killed", "process_lost")
    assert workers() == []

    attempt(space, run, 2)
    same_curve(run, alone)


def test_the_studio_stops_them_all_and_nothing_outlives_a_killed_stage(
    space: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTHLOOP_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    values = EXACT | SETTINGS | {"devices": 2, "epochs": 1000}
    run = start(space, "finetune", values)
    _wait_for(lambda: _steps(run) > 2)
    stop(run)
    _wait_for(lambda: run.status().state.ended)
    assert run.status().state is State.STOPPED
    (checkpoint,) = run.artifacts.glob("checkpoint-*")
    assert checkpoint.name == f"checkpoint-{_steps(run)}"

    before = _steps(run)
    resume(run)
    _wait_for(lambda: _steps(run) > before)
    stage = psutil.Process(run.written_status().child.pid)
    trainers = stage.children(recursive=True)
    assert len(trainers) == 3
    stage.kill()
    _wait_for(lambda: run.status().state.ended)
    assert run.status().reason.code == "killed"
    _, alive = psutil.wait_procs(trainers, timeout=10)
    assert alive == []


def _wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _kill_one_after(run: Run, steps: int) -> None:
    _wait_for(lambda: _steps(run) >= steps)
    os.kill(workers()[1].pid, signal.SIGKILL)


@pytest.mark.parametrize("launcher", ["torchrun", "deepspeed"])
def test_workers_see_the_cards_of_their_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: Any
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    monkeypatch.setattr(launching, "WORKER", "tests.training.cards")
    line = command(Parameters(devices=2, launcher=launcher), tmp_path / "seen")
    subprocess.run(line, cwd=ROOT, env=environment(), check=True, timeout=120)
    assert (tmp_path / "seen").read_text().split() == ["5,3", "5,3"]


def test_commands_are_lists_without_a_shell(tmp_path: Path) -> None:
    run = tmp_path / "run; touch here"
    for launcher in ("torchrun", "deepspeed"):
        parameters = Parameters(devices=3, launcher=launcher)
        line = command(parameters, run)
        assert line[-2:] == [WORKER, str(run)]
        assert "3" in line
