"""What a run's folder holds after a start and an end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil
import pytest

from backend.messages import message
from backend.runs import Run
from backend.supervisor import adopt_orphans, start, stop
from backend.workspace import Workspace
from tests.faults.conftest import Start, counting, ended, wait_for


def samples(run: Run) -> list[dict]:
    if not run.gpu_path.exists():
        return []
    return [json.loads(line) for line in run.gpu_path.read_text().splitlines()]


def test_the_record_tells_how_to_do_it_again(space: Workspace):
    name = "three <b>steps</b>"
    run = start(space, "steps", {"steps": "3"}, parent="loop-1", request="r", name=name)
    spec = run.spec
    assert spec.argv == [sys.executable, "-m", "tests.faults.steps_stage", str(run.path)]
    assert spec.parameters["steps"] == 3
    assert (spec.parent, spec.request, spec.name, spec.device) == ("loop-1", "r", name, "cpu")
    assert spec.versions["torch"]
    assert spec.environment["CUDA_VISIBLE_DEVICES"] == ""
    assert spec.git is None or len(spec.git) == 40
    ended(run)


def test_inputs_are_recorded_by_run_and_not_by_path(space: Workspace, begin: Start):
    first = begin(steps=1)
    ended(first)
    second = begin(steps=1, source=first.id[-4:], other="kit/some/checkpoint", several=[first.id])
    assert second.spec.inputs == {"source": first.id, "several.1": first.id}
    ended(second)


def test_warnings_of_the_preflight_become_events(begin: Start):
    run = begin(steps=1, trouble="warning")
    (event,) = run.events()
    assert (event["level"], event["values"]["place"]) == ("warning", "kit")
    assert message(f"event.{event['code']}", **event["values"]).startswith(
        "Before the start: gemma is missing: there."
    )
    ended(run)


def test_memory_of_the_whole_process_tree_is_sampled(begin: Start):
    run = begin(steps=400, seconds=0.02, ending="worker")
    child = psutil.Process(counting(run).child.pid)
    wait_for(lambda: len(samples(run)) > 4 and len(child.children()) == 1)
    alone = child.memory_info().rss
    both = alone + child.children()[0].memory_info().rss
    last = samples(run)[-1]
    assert last["devices"] is None
    assert last["process"]["rss"] == pytest.approx(both, rel=0.05)
    assert last["process"]["rss"] > alone
    assert last["process"]["cpu_percent"] >= 0
    assert last["process"]["device_memory"] is None
    assert samples(run)[0]["process"]["cpu_percent"] is None
    assert run.status().heartbeat_at > run.status().started_at


def test_a_run_whose_program_is_gone_says_so(space: Workspace, begin: Start, tmp_path: Path):
    blocker = begin(steps=400, seconds=0.02)
    counting(blocker)
    run = begin(steps=1)
    spec = json.loads((run.path / "run.json").read_text())
    assert spec["device"] == "cpu"
    spec["argv"][0] = str(tmp_path / "no-python")
    (run.path / "run.json").write_text(json.dumps(spec))
    wait_for(lambda: run.written_status().supervisor is not None)
    psutil.Process(run.written_status().supervisor.pid).kill()
    wait_for(lambda: not run.status().supervised)
    adopt_orphans(space)
    stop(blocker)
    status = ended(run)
    assert status.reason.code == "not_started"
    assert "no-python" in status.reason.values["error"]
