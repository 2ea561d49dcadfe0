"""Where a workspace stands and what comes next."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.files import write_json
from backend.runs import Reason, State
from pages.widgets.criteria import criteria, open_findings
from pages.widgets.phases import advice, baseline_of, phases, ratio, standing
from store.runs import run_rows
from tests.pages.workspaces import add_run, add_scores, empty, half_finished


def test_an_empty_workspace_is_told_to_measure_the_baseline(tmp_path: Path):
    now = standing(empty(tmp_path / "new"), [])
    assert {phase.state for phase in phases(now)} == {"open"}
    assert advice(now).code == "baseline"


def test_failed_checks_come_before_everything(tmp_path: Path):
    space = half_finished(tmp_path / "half")
    check = add_run(space, "20261124-130000-check-0001", State.SUCCEEDED)
    readiness = {"starter": {"blocking": ["asset_llm"]}}
    report = {"ok": 2, "total": 4, "readiness": readiness}
    write_json(check.artifacts / "checks.json", report)
    now = standing(space, run_rows(space))
    assert (advice(now).code, advice(now).values) == ("environment", {"n": 1})
    assert phases(now)[0].values == {"passed": 2, "total": 4}


def test_the_running_run_is_what_to_watch(tmp_path: Path):
    space = half_finished(tmp_path / "half")
    step = advice(standing(space, run_rows(space)))
    assert (step.page, step.query) == ("runs", {"run": "20261124-110000-finetune-1111"})


def test_a_step_of_a_loop_is_watched_on_the_loops_page(tmp_path: Path):
    space = empty(tmp_path / "one")
    loop = "20261124-080000-loop-0001"
    add_run(space, loop, State.RUNNING, {"loop": "synthesis"})
    add_run(space, "20261124-080001-analyze-0001", State.RUNNING, parent=loop)
    step = advice(standing(space, run_rows(space)))
    assert (step.page, step.query) == ("synthesis", {"run": loop})


def test_a_failure_is_to_be_understood_first(tmp_path: Path):
    space = empty(tmp_path / "one")
    reason = Reason(code="did_not_learn", values={"problem": ""})
    add_run(space, "20261124-080000-pretrain-0001", State.FAILED, reason=reason)
    assert advice(standing(space, run_rows(space))).code == "failed"


def test_the_score_is_the_mean_ratio_to_the_baseline_of_the_loop(tmp_path: Path):
    space = half_finished(tmp_path / "half")
    older = add_run(space, "20261101-080000-evaluate-0001", State.SUCCEEDED)
    add_scores(older, 1.0, 1.0)
    now = standing(space, run_rows(space))
    assert now.baseline is not None and now.latest is not None
    assert now.baseline.id == "20261124-080030-evaluate-aaae"
    expected = (36.0 / 31.4 + 45.5 / 42.0) / 2
    assert ratio(now.latest, now.baseline) == pytest.approx(expected)


def test_without_a_loop_the_oldest_evaluation_is_the_baseline(tmp_path: Path):
    space = empty(tmp_path / "one")
    for number in (1, 2):
        run = add_run(space, f"20261124-08000{number}-evaluate-000{number}", State.SUCCEEDED)
        add_scores(run, 30.0, 40.0)
    found = baseline_of(run_rows(space))
    assert found is not None and found.id.endswith("0001")


def test_a_baseline_score_of_zero_gives_no_ratio(tmp_path: Path):
    space = empty(tmp_path / "one")
    add_scores(add_run(space, "20261124-080001-evaluate-0001", State.SUCCEEDED), 0.0, 40.0)
    [row] = run_rows(space)
    assert ratio(row, row) is None


def test_criteria_are_unknown_rather_than_met_without_evidence(tmp_path: Path):
    space = empty(tmp_path / "new")
    assert {one.verdict for one in criteria(space, standing(space, []))} == {"unknown"}


def test_findings_of_recent_trainings_come_worst_first(tmp_path: Path):
    space = half_finished(tmp_path / "half")
    found = open_findings(space, standing(space, run_rows(space)))
    assert found[0][1].code == "loss_not_finite"
    assert found[0][0].id == "20261124-090000-pretrain-baad"
