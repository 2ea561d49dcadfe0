"""Runs as rows: derived states, what they build on, broken folders."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from backend.files import write_json
from backend.runs import Run, RunSpec, RunStatus, State
from backend.workspace import Settings, Workspace
from store.runs import run_row, run_rows, trail


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "space", Settings(name="space"))


def add_run(workspace: Workspace, run_id: str, stage: str, parameters: dict, **status) -> Run:
    spec = RunSpec(
        run_id=run_id,
        stage=stage,
        parameters=parameters,
        argv=[],
        created_at=1.0,
        device=None,
    )
    run = Run.create(workspace, spec)
    if status:
        value = RunStatus(**status).model_dump(mode="json", exclude={"supervised"})
        write_json(run.status_path, value)
    return run


def chain(workspace: Workspace) -> list[Run]:
    return [
        add_run(workspace, "1-prepare-a", "prepare", {"dataset": "clean/v2"}),
        add_run(workspace, "2-pretrain-b", "pretrain", {"data": "1-prepare-a"}),
        add_run(
            workspace,
            "3-finetune-c",
            "finetune",
            {"data": "", "projector": "2-pretrain-b", "method": "lora"},
        ),
        add_run(workspace, "4-evaluate-d", "evaluate", {"checkpoint": "3-finetune-c"}),
    ]


def test_an_empty_workspace_has_no_runs(workspace: Workspace):
    assert run_rows(workspace) == []


def test_runs_come_newest_first_and_know_what_they_build_on(workspace: Workspace):
    chain(workspace)
    found = run_rows(workspace)
    assert [row.stage for row in found] == ["evaluate", "finetune", "pretrain", "prepare"]
    assert {row.dataset for row in found} == {"clean/v2"}
    assert [row.method for row in found] == ["lora", "lora", None, None]


def test_the_trail_leads_from_an_evaluation_to_its_data(workspace: Workspace):
    chain(workspace)
    stages = [spec.stage for spec in trail(workspace, "4-evaluate-d")]
    assert stages == ["evaluate", "finetune", "pretrain", "prepare"]


def test_a_running_run_whose_processes_are_gone_is_lost(workspace: Workspace):
    dead = {"pid": 2**22 - 1, "create_time": 5.0}
    add_run(workspace, "1-x", "prepare", {}, state=State.RUNNING, child=dead, supervisor=dead)
    assert run_rows(workspace)[0].state is State.LOST


def test_figures_are_those_of_the_last_attempt(workspace: Workspace):
    run = add_run(workspace, "1-finetune-x", "finetune", {})
    lines = [
        {"step": 9, "attempt": 1, "loss": 9.0, "memory_reserved_peak": 80, "host_memory": 5},
        {"step": 7, "attempt": 2, "loss": 2.5, "memory_reserved_peak": 70, "host_memory": 6},
    ]
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"ste')
    row = run_row(workspace, run.id)
    assert (row.last_step, row.last_loss, row.peak_memory, row.peak_host_memory) == (7, 2.5, 80, 6)


def test_a_loss_that_is_not_a_number_is_shown_as_it_is(workspace: Workspace):
    run = add_run(workspace, "1-finetune-x", "finetune", {})
    run.metrics_path.write_text('{"step": 1, "attempt": 1, "loss": NaN}\n')
    assert math.isnan(run_row(workspace, run.id).last_loss)


def test_what_nobody_wrote_is_unknown(workspace: Workspace):
    add_run(workspace, "1-finetune-x", "finetune", {})
    row = run_rows(workspace)[0]
    unknown = (row.last_loss, row.peak_memory, row.dataset, row.progress, row.duration_s(5.0))
    assert unknown == (None,) * 5
    assert row.score("textvqa") is None


def test_scores_are_read(workspace: Workspace):
    run = add_run(workspace, "1-evaluate-x", "evaluate", {})
    write_json(run.artifacts / "scores.json", {"textvqa": {"score": 31.4, "n": 5}})
    assert run_rows(workspace)[0].score("textvqa") == 31.4


def test_a_broken_run_is_named_and_the_others_are_still_there(workspace: Workspace):
    add_run(workspace, "1-prepare-a", "prepare", {})
    broken = workspace.runs / "2-broken"
    broken.mkdir()
    (broken / "run.json").write_text("{torn")
    rows = run_rows(workspace)
    assert [row.id for row in rows] == ["2-broken", "1-prepare-a"]
    assert "run.json, line 1" in rows[0].problem


def test_a_parameter_cannot_lead_out_of_the_runs_folder(workspace: Workspace):
    add_run(
        workspace, "1-finetune-x", "finetune", {"data": "../../etc", "projector": "/etc/passwd"}
    )
    assert len(trail(workspace, "1-finetune-x")) == 1


def test_duration_counts_from_the_start_to_the_end(workspace: Workspace):
    add_run(workspace, "1-a", "prepare", {}, state="succeeded", started_at=10.0, ended_at=25.0)
    assert run_rows(workspace)[0].duration_s(99.0) == 15.0
