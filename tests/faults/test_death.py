"""Processes of a run die; what is left goes on, is found again, and says why."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import psutil
import pytest

from backend.files import write_json
from backend.runs import ProcessIdentity, Run, State
from backend.supervisor import PAGE_ONLY, adopt_orphans, resume, stop
from backend.workspace import Workspace
from tests.faults.conftest import Start, counting, ended, kill, steps, wait_for

LONG = {"steps": 400, "seconds": 0.02}


def studio(space: Workspace, request: str = "one", **popen) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "tests.faults.studio", str(space.root), request]
    pairs = [f"{name}={value}" for name, value in LONG.items()]
    return subprocess.Popen([*argv, *pairs], stdout=subprocess.PIPE, text=True, **popen)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_run_survives_the_studio_and_another_one_stops_it(space: Workspace):
    page = studio(space)
    run = Run.find(space, first_line(page))
    counting(run)
    page.kill()
    page.wait()
    seen = len(steps(run))
    wait_for(lambda: len(steps(run)) > seen + 5)
    assert run.status().supervised
    stop(run)
    status = ended(run)
    assert (status.state, status.reason.code) == (State.STOPPED, "stopped_by_person")


def test_a_run_survives_the_terminal_that_it_was_started_from(space: Workspace):
    ours, theirs = pty.openpty()
    page = studio(space, stdin=theirs, stderr=theirs, start_new_session=True)
    run = Run.find(space, first_line(page))
    counting(run)
    os.close(theirs)
    os.close(ours)
    page.kill()
    page.wait()
    seen = len(steps(run))
    wait_for(lambda: len(steps(run)) > seen + 5)
    assert run.status().supervised
    child = psutil.Process(run.status().child.pid)
    assert child.terminal() is None


def test_a_killed_child_is_noticed_long_before_the_next_sample(
    begin: Start, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SYNTHLOOP_POLL_S", "30")
    run = begin(**LONG)
    kill(counting(run).child.pid)
    status = ended(run, 2)
    assert (status.state, status.reason.code) == (State.FAILED, "killed")
    assert (status.signal, status.exit_code) == ("SIGKILL", -9)


def test_a_child_goes_on_without_its_supervisor_and_is_adopted(space: Workspace, begin: Start):
    run = begin(steps=60, seconds=0.05)
    before = counting(run)
    kill(before.supervisor.pid)
    status = run.status()
    assert (status.state, status.supervised) == (State.RUNNING, False)
    assert [one.id for one in adopt_orphans(space)] == [run.id]
    wait_for(lambda: run.status().supervised)
    after = run.status()
    assert after.child == before.child
    assert after.supervisor != before.supervisor
    assert adopt_orphans(space) == []
    status = ended(run)
    assert (status.state, status.reason.code) == (State.SUCCEEDED, "completed")
    assert run.written_status().state is State.SUCCEEDED
    assert steps(run) == list(range(1, 61))


def test_a_child_that_ends_without_a_supervisor_still_ends_right(begin: Start):
    run = begin(steps=20, seconds=0.05, ending="failed", text="flat")
    kill(counting(run).supervisor.pid)
    status = ended(run)
    assert (status.state, status.reason.code) == (State.FAILED, "did_not_learn")


def test_a_run_without_supervisor_can_be_stopped(begin: Start):
    run = begin(**LONG)
    kill(counting(run).supervisor.pid)
    stop(run)
    assert ended(run).reason.code == "stopped_by_person"
    assert len(steps(run)) < LONG["steps"]


def test_of_many_adopting_supervisors_one_wins(space: Workspace, begin: Start):
    run = begin(steps=100, seconds=0.05)
    kill(counting(run).supervisor.pid)
    argv = [sys.executable, "-m", "backend.supervisor", str(run.path)]
    rivals = [subprocess.Popen(argv) for _ in range(3)]
    wait_for(lambda: sum(one.poll() is None for one in rivals) == 1)
    assert run.status().supervisor.pid == next(one.pid for one in rivals if one.poll() is None)
    stop(run)
    ended(run)
    for one in rivals:
        one.wait(5)


def test_a_supervisor_killed_before_it_wrote_the_child_down_starts_no_second(
    space: Workspace, begin: Start
):
    run = begin(steps=60, seconds=0.05)
    before = counting(run)
    kill(before.supervisor.pid)
    forgotten = before.model_copy(update={"state": State.QUEUED, "child": None})
    write_json(run.status_path, forgotten.model_dump(mode="json", exclude={"supervised"}))
    adopt_orphans(space)
    wait_for(lambda: run.status().state is State.RUNNING)
    assert run.status().child == before.child
    assert ended(run).state is State.SUCCEEDED
    assert steps(run) == list(range(1, 61))


def test_both_killed_is_lost_and_can_be_resumed(space: Workspace, begin: Start):
    run = begin(steps=30, seconds=0.05)
    status = counting(run)
    kill(status.supervisor.pid)
    kill(status.child.pid)
    assert run.status().state is State.LOST
    assert adopt_orphans(space) == []
    resume(run)
    status = ended(run)
    assert (status.state, status.attempt) == (State.SUCCEEDED, 2)
    assert set(steps(run)) == set(range(1, 31))


def test_a_recycled_pid_is_not_taken_for_living(begin: Start):
    run = begin(**LONG)
    status = counting(run)
    kill(status.supervisor.pid)
    kill(status.child.pid)
    stranger = ProcessIdentity.of(os.getpid())
    impostor = stranger.model_copy(update={"create_time": stranger.create_time - 100})
    false = status.model_copy(update={"child": impostor, "supervisor": impostor})
    write_json(run.status_path, false.model_dump(mode="json", exclude={"supervised"}))
    assert run.status().state is State.LOST


def test_workers_do_not_outlive_a_killed_stage(begin: Start):
    run = begin(**LONG, ending="worker")
    child = counting(run).child
    worker = psutil.Process(int((run.artifacts / "worker.json").read_text()))
    kill(child.pid)
    ended(run)
    wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"ending": "memory"}, "host_memory"),
        ({"ending": "disk"}, "disk_full"),
        (
            {"ending": "log", "text": "CUDA out of memory. Tried to allocate 2.00 GiB"},
            "device_memory",
        ),
        ({"ending": "log", "text": "OSError: [Errno 28] No space left on device"}, "disk_full"),
        ({"ending": "log", "text": "terminate called: std::bad_alloc"}, "host_memory"),
        ({"ending": "log", "text": "something else"}, "unknown"),
        ({"ending": "sigkill"}, "killed"),
    ],
)
def test_a_death_is_named(begin: Start, parameters: dict[str, str], code: str):
    run = begin(steps=1, **parameters)
    status = ended(run)
    assert (status.state, status.reason.code) == (State.FAILED, code)
    if text := parameters.get("text"):
        assert text in status.reason.values["error"]
        assert text in status.reason.evidence


def test_what_keeps_the_page_process_small_does_not_reach_a_run(
    space: Workspace, begin: Start, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(PAGE_ONLY, "MALLOC_ARENA_MAX")
    run = begin(**LONG)
    environment = psutil.Process(counting(run).child.pid).environ()
    assert PAGE_ONLY not in environment
    assert "MALLOC_ARENA_MAX" not in environment
    assert environment["OMP_NUM_THREADS"] == "1"
    stop(run)
    ended(run)
