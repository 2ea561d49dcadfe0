from __future__ import annotations

import pytest

from backend.stages.report import Parameters, preflight
from tests.evaluation.samples import make_benchmarks, make_evaluated, make_run, make_workspace


@pytest.fixture
def workspace(tmp_path):
    workspace = make_workspace(tmp_path / "w", make_benchmarks(tmp_path / "b"))
    for name in ("seed", "clean"):
        make_evaluated(workspace, name, lambda task: "red", lambda task: "A")
    return workspace


def codes(workspace, **values) -> list[str]:
    return [problem.code for problem in preflight(workspace, Parameters(**values))]


def test_what_cannot_be_reported_is_said_before_the_start(workspace):
    seed, clean = (f"20261124-000000-evaluate-{name}" for name in ("seed", "clean"))
    assert codes(workspace, runs=[seed, clean], baseline=seed) == []
    assert codes(workspace) == ["no_runs_chosen"]
    assert codes(workspace, runs=["gone"], baseline=seed) == ["run_unknown"]
    make_run(workspace, "evaluate", "20261124-000000-evaluate-none")
    assert codes(workspace, runs=["evaluate-none"]) == ["run_without_scores"]
