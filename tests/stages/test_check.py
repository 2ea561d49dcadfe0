"""The check stage leaves a report of every check and of what each profile lacks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend.environment import checks
from backend.files import read_json
from backend.runs import Run, RunSpec, State, new_run_id
from backend.stages.base import StageContext, StopRequested
from backend.stages.check import Parameters, main, preflight
from backend.workspace import Settings, Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "space", Settings(name="checked"))


def new_run(workspace: Workspace) -> Run:
    spec = RunSpec(
        run_id=new_run_id("check"),
        stage="check",
        parameters={"thorough": True},
        argv=[],
        created_at=time.time(),
        device=None,
    )
    return Run.create(workspace, spec)


def test_the_report_holds_what_the_page_sees(workspace):
    assert preflight(workspace, Parameters()) == []
    run = new_run(workspace)
    done = subprocess.run(
        [sys.executable, "-m", "backend.stages.check", str(run.path)],
        env=os.environ | {"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert run.outcome().state is State.SUCCEEDED
    report = read_json(run.artifacts / "checks.json")
    assert report["thorough"] is True
    seen = {check.name: check.state for check in checks(workspace)}
    assert {one["name"]: one["state"] for one in report["checks"]} == seen
    assert "asset_llm" in report["readiness"]["starter"]["blocking"]
    assert not report["readiness"]["starter"]["ready"]
    assert 0 < report["ok"] < report["total"] < len(report["checks"])
    [event] = run.events()
    assert (event["code"], event["level"]) == ("checked", "warning")
    assert "missing: asset_llm" in done.stdout


def test_a_thorough_look_can_be_stopped(workspace):
    path = workspace.asset("seed_pairs")
    path.parent.mkdir(parents=True)
    path.write_text('{"id": 1}\n' * 5000)
    context = StageContext(workspace, new_run(workspace))
    context.stop_requested = True
    with pytest.raises(StopRequested):
        main(context, Parameters(thorough=True))
