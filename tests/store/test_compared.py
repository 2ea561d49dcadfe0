"""Runs as columns of a comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.runs import Run, RunSpec
from backend.workspace import Workspace
from store.compared import comparable, compared, distinct
from store.runs import run_rows
from tests.evaluation.samples import make_run
from tests.explored import BASELINE, CANDIDATE, explored
from tests.store.conftest import among_patterns


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return explored(among_patterns(tmp_path_factory.mktemp("compared")))


def test_an_evaluation_knows_its_training_and_what_it_cost(workspace: Workspace):
    found = compared(workspace, CANDIDATE)
    assert found.label == "better"
    assert [row.stage for row in found.trainings] == ["pretrain", "finetune"]
    assert (found.seconds, found.peak_memory, found.peak_host_memory) == (150, None, 2**30)
    assert [spec.stage for spec in found.trail][-1] == "evaluate"
    assert found.training(workspace, "pretrain").id == "20261124-000000-pretrain-better"


def test_runs_without_figures_are_not_offered(workspace: Workspace):
    make_run(workspace, "evaluate", "20261124-000009-evaluate-empty")
    stages = [(row.stage, row.id[-4:]) for row in comparable(run_rows(workspace))]
    assert stages == [
        ("evaluate", "tter"),
        ("evaluate", "base"),
        ("pretrain", "tter"),
        ("pretrain", "base"),
    ]


def test_a_loop_stands_for_its_evaluation(tmp_path: Path):
    workspace = explored(tmp_path)
    make_run(workspace, "loop", "20261124-000000-loop-x", "my loop")
    path = workspace.runs / CANDIDATE / "run.json"
    spec = RunSpec.model_validate_json(path.read_text())
    path.write_text(spec.model_copy(update={"parent": "20261124-000000-loop-x"}).model_dump_json())
    found = compared(workspace, "20261124-000000-loop-x")
    assert (found.label, found.evaluation.id) == ("my loop", CANDIDATE)
    assert [row.stage for row in found.trainings] == ["pretrain", "finetune"]


def test_equal_labels_are_told_apart(workspace: Workspace):
    one, other = compared(workspace, BASELINE), compared(workspace, CANDIDATE)
    assert set(distinct([one, other]).values()) == {"base", "better"}
    twice = distinct([one, compared(workspace, "20261124-000000-finetune-base")])
    assert list(twice.values()) == ["base (evaluate base)", "base (finetune base)"]


def test_a_run_of_nothing_has_no_cost(workspace: Workspace):
    found = compared(workspace, make_run(workspace, "loop", "20261124-000008-loop-y").id)
    assert (found.evaluation, found.seconds, found.last_loss) == (None, None, None)
    assert Run(workspace.runs / found.row.id).spec.stage == "loop"
