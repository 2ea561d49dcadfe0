"""Runs wait for each other, stop, and go on; a click counts once."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading

import psutil
import pytest

from backend.errors import InputError, UsageError
from backend.runs import Run, State
from backend.supervisor import adopt_orphans, delete, queue, resume, start, stop
from backend.workspace import Workspace
from tests.faults.conftest import Start, counting, ended, kill, steps, wait_for

LONG = {"steps": 400, "seconds": 0.02}


def times(run: Run) -> tuple[float, float]:
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    return lines[0]["time"], lines[-1]["time"]


def test_runs_on_one_device_follow_each_other_in_order(begin: Start):
    runs = [begin(steps=3, seconds=0.02) for _ in range(5)]
    assert all(ended(run, 20).state is State.SUCCEEDED for run in runs)
    spans = [times(run) for run in runs]
    assert all(last < first for (_, last), (first, _) in itertools.pairwise(spans))


def test_a_run_of_several_cards_has_them_all_to_itself(
    space: Workspace, begin: Start, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    both = begin(steps=20, seconds=0.05, devices=2)
    assert both.spec.devices == ["0", "1"]
    counting(both)
    alone = {}
    for card in ("0", "1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", card)
        alone[card] = begin(steps=20, seconds=0.05)
    assert all(ended(run).state is State.SUCCEEDED for run in (both, *alone.values()))
    spans = {card: times(run) for card, run in alone.items()}
    assert all(times(both)[1] < first for first, _ in spans.values())
    assert spans["0"][0] < spans["1"][1]
    assert spans["1"][0] < spans["0"][1]


def test_a_run_that_waits_for_several_cards_is_passed_by_nobody(
    space: Workspace, begin: Start, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    first = begin(steps=15, seconds=0.05)
    counting(first)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    both = begin(steps=2, devices=2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    last = begin(steps=2)
    assert all(ended(run).state is State.SUCCEEDED for run in (first, both, last))
    assert times(first)[1] < times(both)[0]
    assert times(both)[1] < times(last)[0]


def test_a_resumed_run_sees_the_cards_that_it_saw_before(
    space: Workspace, begin: Start, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    run = begin(steps=40, seconds=0.05)
    counting(run)
    stop(run)
    ended(run)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    resume(run)
    wait_for(lambda: run.written_status().state is State.RUNNING)
    child = psutil.Process(run.written_status().child.pid)
    assert "CUDA_VISIBLE_DEVICES" not in child.environ()
    stop(run)
    ended(run)


def test_the_device_stays_taken_while_the_child_lives(space: Workspace, begin: Start):
    first = begin(steps=50, seconds=0.05)
    kill(counting(first).supervisor.pid)
    second = begin(steps=2)
    assert ended(second).state is State.SUCCEEDED
    assert times(second)[0] > times(first)[1]
    assert steps(first)[-1] == 50


def test_a_waiting_run_keeps_its_place_when_its_supervisor_dies(space: Workspace, begin: Start):
    first = begin(**LONG)
    counting(first)
    second, third = begin(steps=1), begin(steps=1)
    wait_for(lambda: all(run.written_status().supervisor for run in (second, third)))
    assert [run.id for run in queue(space)] == [second.id, third.id]
    kill(second.status().supervisor.pid)
    assert [run.id for run in adopt_orphans(space)] == [second.id]
    wait_for(lambda: second.status().supervised)
    stop(first)
    assert ended(third).state is ended(second).state is State.SUCCEEDED
    assert times(second)[1] < times(third)[0]


def test_a_waiting_run_leaves_the_queue_when_it_is_stopped(space: Workspace, begin: Start):
    first = begin(**LONG)
    counting(first)
    second = begin(steps=1)
    stop(second)
    assert ended(second).reason.code == "stopped_by_person"
    assert queue(space) == []
    assert steps(second) == []


def test_a_stopped_run_continues_its_curve(begin: Start):
    run = begin(steps=40, seconds=0.05)
    counting(run)
    with pytest.raises(UsageError, match="only a stopped, failed or lost run"):
        resume(run)
    stop(run)
    status = ended(run)
    assert status.state is State.STOPPED
    reached = steps(run)[-1]
    assert reached < 40
    resume(run)
    assert run.status().attempt == 2
    assert ended(run).state is State.SUCCEEDED
    assert steps(run) == list(range(1, 41))
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    assert [line["attempt"] for line in lines] == [1] * reached + [2] * (40 - reached)
    with pytest.raises(UsageError):
        resume(run)


def test_an_ignored_stop_becomes_a_kill(begin: Start):
    run = begin(**LONG, ending="stubborn")
    counting(run)
    stop(run)
    status = ended(run)
    assert (status.state, status.reason.code) == (State.STOPPED, "stopped_by_force")
    assert status.signal == "SIGKILL"


def test_a_stop_waits_for_the_end_of_a_long_step(begin: Start):
    run = begin(steps=400, seconds=1.4)
    counting(run)
    stop(run)
    status = ended(run)
    assert (status.reason.code, status.signal) == ("stopped_by_person", None)


def test_a_stop_waits_for_a_checkpoint_as_long_as_it_grows(begin: Start):
    run = begin(**LONG, ending="saving")
    counting(run)
    stop(run)
    assert ended(run).reason.code == "stopped_by_person"
    assert len(list((run.artifacts / "checkpoint-1").iterdir())) == 25


def test_a_checkpoint_that_does_not_grow_is_waited_for_once(begin: Start):
    run = begin(**LONG, ending="hung")
    counting(run)
    stop(run)
    status = ended(run)
    assert status.reason.code == "stopped_by_force"
    assert status.reason.values == {"seconds": "2"}


def test_a_stop_waits_for_the_runs_that_a_run_started(space: Workspace, begin: Start):
    loop = begin(steps=400, seconds=2.5)
    wait_for(lambda: steps(loop))
    # The one in front leaves the device to nobody, so the other can only wait.
    child = start(space, "steps", {"steps": 1}, parent=loop.id)
    stop(loop)
    assert ended(loop, 12).reason.code == "stopped_by_person"
    assert ended(child).state is State.SUCCEEDED


def test_two_clicks_in_one_studio_start_one_run(space: Workspace):
    found: list[Run] = []
    gate = threading.Barrier(4)

    def click():
        gate.wait()
        found.append(start(space, "steps", {"steps": 1}, request="click"))

    threads = [threading.Thread(target=click) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({run.id for run in found}) == 1
    assert len(Run.all(space)) == 1
    ended(found[0])
    assert start(space, "steps", {"steps": 1}, request="another").id != found[0].id


def test_two_clicks_in_two_studios_start_one_run(space: Workspace):
    argv = [sys.executable, "-m", "tests.faults.studio", str(space.root), "same", "steps=1"]
    pages = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    ids = {page.stdout.readline() for page in pages if page.stdout is not None}
    for page in pages:
        page.kill()
        page.wait()
    assert len(ids) == len(Run.all(space)) == 1


def test_a_run_is_deleted_only_after_its_end(space: Workspace, begin: Start):
    run = begin(**LONG)
    counting(run)
    with pytest.raises(InputError, match="running"):
        delete(run)
    stop(run)
    ended(run)
    delete(run)
    assert Run.all(space) == []
    assert not run.path.exists()
