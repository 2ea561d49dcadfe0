"""Real deaths by memory: a process with a limit, and what its run says afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.memory.explain import explain_run, explanation_text
from backend.memory.moments import reason_of
from backend.runs import Run, RunStatus, State
from backend.supervisor.cause import cause_of_death
from backend.workspace import Workspace
from tests.training.small import make_workspace, new_run, set_state

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("dying"))


@pytest.fixture(scope="module")
def dead(space: Workspace) -> Run:
    """A fine-tuning whose pictures are too large for the memory that it may take."""
    run = new_run(
        space, "finetune", image_size_aux=4096, micro_batch_size=8, global_batch_size=8,
        max_steps=1,
    )  # fmt: skip
    with run.log_path.open("wb") as log:
        code = subprocess.run(
            [sys.executable, "-m", "tests.memory.dying", str(run.path), "finetune", "400"],
            cwd=ROOT, stdout=log, stderr=log, timeout=120, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        ).returncode  # fmt: skip
    assert code == 1, run.log_path.read_text()[-2000:]
    return run


def test_a_stage_without_memory_says_which_allocation_failed_where(dead: Run) -> None:
    outcome = dead.outcome()
    assert (outcome.state, outcome.reason.code) == (State.FAILED, "host_memory")
    assert outcome.reason.values["module"] == "pictures"
    # A picture is prepared before the step that reads it: it is at no moment of that.
    assert "moment" not in outcome.reason.values
    assert outcome.reason.values["allocation"]["asked"] == 4096 * 4096 * 3 * 8


def test_its_explanation_names_the_place(space: Workspace, dead: Run) -> None:
    found = explain_run(space, dead)
    assert (found.code, found.place.part) == ("host_memory", "pictures")
    assert not found.allocation.on_device
    text = explanation_text(found)
    assert "preparing the pictures" in text
    assert "384 MiB were asked for at once" in text


def test_the_log_alone_tells_the_same(dead: Run) -> None:
    reason = cause_of_death(dead, RunStatus(exit_code=1), [])
    assert reason.code == "host_memory"
    assert "alloc" in reason.values["error"]


def test_a_killed_run_is_not_explained_by_an_earlier_attempt(space: Workspace, dead: Run) -> None:
    log = dead.log_path.read_text()
    try:
        dead.log_path.write_text(f"{log}=== attempt 2 ===\nresumed at step 4\n")
        killed = RunStatus(signal="SIGKILL", exit_code=-9, attempt=2)
        assert cause_of_death(dead, killed, []).code == "killed"
    finally:
        dead.log_path.write_text(log)
        set_state(dead, State.RUNNING)


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


def test_a_device_without_memory_is_recorded_as_torch_says_it() -> None:
    message = (
        "CUDA out of memory. Tried to allocate 500.00 MiB. GPU 0 has a total capacity of 23.65 GiB "
        "of which 265.56 MiB is free. Including non-PyTorch memory, this process has 23.38 GiB "
        "memory in use. Of the allocated memory 21.62 GiB is allocated by PyTorch, and 1.30 GiB is "
        "reserved by PyTorch but unallocated."
    )
    try:
        raise OutOfMemoryError(message)
    except OutOfMemoryError as error:
        reason = reason_of(error)
    assert reason.code == "device_memory"
    assert reason.values["allocation"]["asked"] == 500 * 2**20
    assert reason.values["allocation"]["shortage"] == "fragmentation"
    # This very function is no part of a training: nothing is made up.
    assert "moment" not in reason.values
    assert "largest_free" not in reason.values["allocation"]
