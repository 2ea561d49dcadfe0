from __future__ import annotations

import zipfile

import pytest

from backend.errors import InputError, UsageError
from backend.evaluation.submission import (
    check_submission,
    members,
    recipe_texts,
    submission_of,
    write_archive,
)
from backend.files import read_json, write_json
from backend.messages import message
from tests.evaluation.samples import make_run, make_submittable

EVALUATION = "20261124-000000-evaluate-clean"


@pytest.fixture
def workspace(tmp_path):
    return make_submittable(tmp_path)


def run_folder(workspace, stage):
    return workspace.runs / f"20261124-000000-{stage}-clean"


def states(workspace, **options) -> dict[str, str]:
    checks = check_submission(submission_of(workspace, EVALUATION, **options))
    for check in checks:
        for language in ("en", "zh"):
            assert message(f"check.submission_{check.name}.title", language)
            assert message(f"problem.submission_{check.name}", language, **check.values)
    return {check.name: check.state for check in checks if check.state != "passed"}


def test_a_complete_submission_passes_every_check(workspace):
    assert states(workspace) == {}


def test_without_synthesis_it_is_invalid(workspace):
    path = workspace.datasets / "clean" / "v1" / "dataset.json"
    write_json(path, read_json(path) | {"counts": {"samples": 50, "kept": 42}})
    assert states(workspace) == {"synthesis_step": "failed"}


def test_too_many_samples_are_refused(workspace):
    assert states(workspace, sample_cap=41) == {"sample_cap": "failed"}
    (run_folder(workspace, "prepare") / "artifacts" / "prepared.json").unlink()
    assert states(workspace) == {"sample_cap": "failed"}


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_missing_or_empty_log_is_refused(workspace, stage):
    (run_folder(workspace, stage) / "output.log").write_text("")
    assert states(workspace) == {f"{stage}_log": "failed"}


def test_missing_answer_files_are_refused(workspace):
    folder = run_folder(workspace, "evaluate") / "artifacts" / "eval_results"
    for path in folder.rglob("*.xlsx"):
        path.unlink()
    assert states(workspace) == {"answers": "failed"}


@pytest.mark.parametrize("change", [{"missing": 2}, {"contract": {"limit": 5}}])
def test_an_incomplete_evaluation_is_refused(workspace, change):
    path = run_folder(workspace, "evaluate") / "artifacts" / "scores.json"
    scores = read_json(path)
    scores["textvqa"] |= change
    write_json(path, scores)
    assert states(workspace) == {"complete": "failed"}


def test_a_changed_recipe_is_a_warning_that_names_the_parameters(workspace):
    fixed = {"pretrain": {"learning_rate": 1e-3, "seed": 1024}}
    assert states(workspace, fixed=fixed) == {"fixed_recipe": "warning"}
    checks = check_submission(submission_of(workspace, EVALUATION, fixed=fixed))
    [check] = [check for check in checks if check.name == "fixed_recipe"]
    assert check.values == {"parameters": "pretrain.learning_rate"}


def test_the_final_wants_the_weights(workspace):
    assert states(workspace, final=True) == {"weights": "failed"}
    (run_folder(workspace, "pretrain") / "artifacts" / "mm_projector.bin").write_bytes(b"p")
    model = run_folder(workspace, "finetune") / "artifacts" / "model-00001-of-00001.safetensors"
    model.write_bytes(b"w")
    assert states(workspace, final=True) == {}
    names = members(submission_of(workspace, EVALUATION, final=True), None)
    assert "output/training_dirs/MGM-2B-Pretrain-clean/mm_projector.bin" in names
    assert f"output/training_dirs/MGM-2B-Finetune-clean/{model.name}" in names
    assert "output/processed_data/processed_data.json" in names


def test_recipes_go_in_as_they_were_run(workspace):
    path = workspace.datasets / "clean" / "v1" / "dataset.json"
    recipe = "# Clean.\nprocess:\n" + "  - words_num_filter: {min_num: 3}\n" * 40
    write_json(path, read_json(path) | {"recipe": recipe})
    submission = submission_of(workspace, EVALUATION)
    assert recipe_texts(submission) == {"solution/recipes/clean-v1.yaml": recipe}
    assert all(path.is_file() for path in members(submission, None).values())


def test_the_archive_is_laid_out_as_the_challenge_wants(workspace, tmp_path):
    solution = tmp_path / "solution"
    (solution / "src").mkdir(parents=True)
    (solution / "readme.md").write_text("mine")
    (solution / "src" / "ops.py").write_text("pass")
    (solution / "outside").symlink_to("/etc/hostname")
    submission = submission_of(workspace, EVALUATION, experiment="top-200k")
    seen = []
    write_archive(
        tmp_path / "submit.zip",
        members(submission, solution),
        {"solution/readme.md": "written", "output/train.sh": "#!/bin/sh\n"},
        lambda done, total: seen.append((done, total)),
    )
    with zipfile.ZipFile(tmp_path / "submit.zip") as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == {
            "solution/readme.md",
            "solution/src/ops.py",
            "solution/datasets/clean/v1/dataset.json",
            "output/train.sh",
            "output/training_dirs/MGM-2B-Pretrain-top-200k/pretrain.log",
            "output/training_dirs/MGM-2B-Finetune-top-200k/finetune.log",
            "output/eval_results/MGM-2B-Finetune-top-200k/textvqa/bm1.jsonl",
            "output/eval_results/MGM-2B-Finetune-top-200k/mmbench/answers/mmbench_dev/clean.jsonl",
            "output/eval_results/MGM-2B-Finetune-top-200k/mmbench/answers_upload/mmbench_dev/clean.xlsx",
        }
        assert archive.read("solution/readme.md") == b"mine"
    assert seen[-1][0] == seen[-1][1] == 8


def test_the_run_that_made_the_data_belongs_to_what_led_to_the_scores(workspace):
    made = make_run(workspace, "synthesize", "20261123-000000-synthesize-clean", recipe="best")
    path = workspace.datasets / "clean" / "v1" / "dataset.json"
    write_json(path, read_json(path) | {"run_id": made.id})
    trail = submission_of(workspace, EVALUATION).evaluated.trail
    assert [spec.stage for spec in trail] == [
        "synthesize", "prepare", "pretrain", "finetune", "evaluate",
    ]  # fmt: skip
    assert trail[0].parameters == {"recipe": "best"}


def test_a_file_that_vanished_leaves_no_archive(workspace, tmp_path):
    with pytest.raises(InputError, match="missing"):
        write_archive(tmp_path / "s.zip", {"a": tmp_path / "gone"}, {}, lambda done, total: None)
    assert not list(tmp_path.glob("*s.zip*"))


def test_a_missing_solution_folder_is_named(workspace, tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        members(submission_of(workspace, EVALUATION), tmp_path / "nowhere")
