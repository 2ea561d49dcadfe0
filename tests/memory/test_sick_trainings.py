"""Trainings of the tiny model that are made sick on purpose, through the real stage, and healthy
ones beside them: the finding names the true cause, and the healthy raise no alarm."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from backend.files import read_json, read_lines
from backend.formats.kit_log import read_kit_log
from backend.memory.health import adapter_unchanged, judge_run, trained_samples
from backend.memory.verdicts import verdict
from backend.messages import LANGUAGES, message
from backend.runs import Run, RunFailed
from backend.training import trainer as training
from backend.workspace import Workspace
from store.batches import sample_steps, step_samples
from tests.training.small import make_workspace, new_run, train, trained


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    torch.set_num_threads(1)
    return make_workspace(tmp_path_factory.mktemp("sick"))


def failed(space: Workspace, stage: str, **parameters: Any) -> tuple[Run, list[str]]:
    """A run that trains to its end and fails, and its findings of the worst grade."""
    run = new_run(space, stage, **parameters)
    with pytest.raises(RunFailed) as failure:
        train(space, run)
    assert failure.value.reason.code == "did_not_learn"
    findings = read_json(run.artifacts / "findings.json")
    return run, [one["code"] for one in findings if one["level"] == "error"]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Functions that change the model between its making and its training."""
    changes: list[Any] = []
    original = training.build

    def build(*arguments: Any, **options: Any) -> Any:
        mgm = original(*arguments, **options)
        for change in changes:
            change(mgm.model)
        return mgm

    monkeypatch.setattr(training, "build", build)
    yield changes


def test_a_nan_in_the_weights(space: Workspace, built: list[Any]) -> None:
    def poison(model: Any) -> None:
        with torch.no_grad():
            model.model.layers[0].mlp.up_proj.weight[0, 0] = math.nan

    built.append(poison)
    _, codes = failed(space, "finetune", max_steps=4)
    assert codes[0] == "loss_not_finite"


def test_a_learning_rate_a_thousand_times_too_high(space: Workspace) -> None:
    _, codes = failed(space, "finetune", learning_rate=1.0, epochs=4, scheduler="constant")
    assert set(codes) & {"loss_above_chance", "loss_exploded", "loss_not_finite"}


def test_all_labels_cut_off(space: Workspace) -> None:
    # The picture takes 16 positions, and the question the rest.
    run, codes = failed(space, "finetune", model_max_length=20, epochs=1)
    assert codes[0] == "labels_masked"
    [finding] = [one for one in judge_run(run) if one.code == "labels_masked"]
    assert finding.values["share"] > 80
    # The steps that it names show which samples they are.
    seen = step_samples(space, run, finding.steps[0])
    assert any(row["loss"] is None and row["text"] for row in seen)


def test_all_labels_cut_off_is_the_headline_where_it_is_stopped_early(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SICK_EVERY", 3)
    run = new_run(space, "finetune", model_max_length=18, max_steps=8, save_steps=2)
    with pytest.raises(RunFailed) as failure:
        train(space, run)
    reason = failure.value.reason
    assert (reason.code, reason.values["finding"]) == ("stopped_sick", "labels_masked")
    assert (reason.values["step"], reason.values["checkpoints"]) == (3, "1 (checkpoint-2)")
    kept = [path.name for path in run.artifacts.glob("checkpoint-*")]
    assert kept == ["checkpoint-2"]
    assert read_json(run.artifacts / "findings.json")[0]["code"] == "labels_masked"
    for language in LANGUAGES:
        for key in ("reason.stopped_sick", "reason.stopped_sick.remedy"):
            said = message(key, language, **reason.values)
            assert "{" not in said
        assert "checkpoint-2" in said


def test_an_adapter_that_does_not_reach_the_loss(space: Workspace, built: list[Any]) -> None:
    def disconnect(model: Any) -> None:
        from backend.mgm.adapters import adapted_layers

        for layer in adapted_layers(model).values():
            layer.scaling["default"] = 0.0

    built.append(disconnect)
    run, codes = failed(space, "finetune", method="lora", lora_rank=4, epochs=1)
    assert codes == ["adapter_unchanged"]
    assert adapter_unchanged(run.artifacts).values == {"count": 3 * 7}
    assert (run.artifacts / "adapter_model.bin").is_file()


def test_a_frozen_model(space: Workspace, built: list[Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("backend.training.engine.PlainEngine.step", lambda self, rate: 0.0 * rate)
    run = new_run(space, "finetune", method="lora", lora_rank=4, epochs=1)
    with pytest.raises(RunFailed):
        train(space, run)
    codes = [one.code for one in judge_run(run)]
    assert {"gradients_zero", "adapter_unchanged"} <= set(codes)


def test_what_a_training_prints_is_judged_as_its_figures_are(
    space: Workspace, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    run = trained(space, "pretrain", epochs=2)
    path = tmp_path / "output.log"
    path.write_text(capsys.readouterr().out)
    told = [(row["step"], round(row["loss"], 4)) for row in read_lines(run.metrics_path)]
    assert [(row["step"], row["loss"]) for row in read_kit_log(path)] == told
    assert verdict(path, vocabulary_size=320).healthy


def test_a_file_that_repeats_its_ids_is_no_repetition(space: Workspace) -> None:
    records = json.loads(space.asset("finetune_pairs").read_text())[:24]
    for record in records:
        record["sample_id"] = "one" if record is records[0] else record["sample_id"]
    four = [dict(record, sample_id="one") if n < 2 else record for n, record in enumerate(records)]
    # The same 24 records four times, as a recipe does that samples with replacement.
    (space.root / "four.json").write_text(json.dumps([*records, *four, *records, *records]))
    run = trained(
        space, "finetune", epochs=1, data="four.json",
        image_root=str(space.asset("finetune_images")),
    )  # fmt: skip
    assert "data_order_repeats" not in [one.code for one in judge_run(run)]
    ids = trained_samples(run.path / "batches").order
    assert len(set(ids)) == len(ids)
    # Each leads to its own record.
    second = records[1]["conversations"][1]["value"]
    step = next(row for row in sample_steps(run, "one#3"))["step"]
    [row] = [row for row in step_samples(space, run, step) if row["sample_id"] == "one#3"]
    assert row["text"] == second


@pytest.mark.parametrize("seed", range(20))
def test_healthy_trainings_raise_no_alarm(space: Workspace, seed: int) -> None:
    stage, method = [
        ("pretrain", {}),
        ("finetune", {"method": "full"}),
        ("finetune", {"method": "lora", "lora_rank": 4}),
    ][seed % 3]
    run = trained(space, stage, seed=seed, epochs=1 + seed % 4, warmup_ratio=0.1, **method)
    assert [one.code for one in judge_run(run) if one.level != "info"] == []
