from __future__ import annotations

import pytest

from backend.bases import checkpoint_folder
from backend.errors import UsageError
from backend.formats import textvqa
from backend.stages.evaluate import Parameters, preflight
from tests.evaluation.samples import make_benchmarks, make_run, make_workspace


@pytest.fixture
def workspace(tmp_path):
    workspace = make_workspace(tmp_path / "w", make_benchmarks(tmp_path / "b"))
    run = make_run(workspace, "finetune", "20261124-000000-finetune-aaaa")
    (run.artifacts / "config.json").write_text("{}")
    return workspace


CHECKPOINT = "20261124-000000-finetune-aaaa"


def codes(workspace, **changes) -> list[tuple[str, str]]:
    parameters = Parameters(**({"checkpoint": CHECKPOINT} | changes))
    return [(problem.level, problem.code) for problem in preflight(workspace, parameters)]


def test_a_ready_evaluation_has_no_problems(workspace):
    assert codes(workspace) == []


def test_a_checkpoint_is_a_run_or_a_folder(workspace, tmp_path):
    artifacts = workspace.runs / CHECKPOINT / "artifacts"
    assert checkpoint_folder(workspace, CHECKPOINT) == artifacts
    assert checkpoint_folder(workspace, "finetune-aaaa") == artifacts
    assert checkpoint_folder(workspace, str(artifacts)) == artifacts
    assert checkpoint_folder(workspace, f"runs/{CHECKPOINT}/artifacts") == artifacts
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    assert checkpoint_folder(workspace, str(tmp_path / "lora")) == tmp_path / "lora"
    for wrong in ("", "nothing", str(tmp_path)):
        with pytest.raises(UsageError):
            checkpoint_folder(workspace, wrong)


def test_a_checkpoint_of_a_run_that_did_not_succeed_is_refused(workspace):
    from backend.files import write_json
    from backend.runs import Run

    run = Run.find(workspace, CHECKPOINT)
    write_json(run.status_path, {"state": "failed"})
    assert codes(workspace) == [("error", "checkpoint_missing")]


def test_missing_assets_are_named(workspace):
    workspace.asset("mmbench_questions").unlink()
    workspace.asset("textvqa_annotations").unlink()
    assert codes(workspace) == [("error", "asset_missing")] * 2
    assert codes(workspace, benchmarks=["textvqa"]) == [("error", "asset_missing")]


def test_a_malformed_benchmark_is_named_with_its_line(workspace):
    with workspace.asset("textvqa_questions").open("a") as file:
        file.write('{"image": 3}\n')
    [problem] = preflight(workspace, Parameters(checkpoint=CHECKPOINT))
    assert problem.code == "benchmark_malformed"
    assert problem.place.endswith("line 7, field question_id")


def test_missing_pictures_are_a_warning_with_their_number(workspace):
    images = sorted(workspace.asset("textvqa_images").iterdir())
    images[0].unlink()
    [problem] = preflight(workspace, Parameters(checkpoint=CHECKPOINT))
    assert (problem.level, problem.values["count"]) == ("warning", 1)


def test_a_picture_outside_the_folder_is_an_error(workspace):
    path = workspace.asset("textvqa_questions")
    textvqa.write_questions(path, [textvqa.Question("a", "../b.jpg", "q?\nshort")])
    assert codes(workspace) == [("error", "benchmark_malformed")]
