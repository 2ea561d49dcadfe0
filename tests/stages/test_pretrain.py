"""Pretraining: what it writes, what it trains, and how its runs go on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backend.files import read_json, read_lines
from backend.mgm import checkpoints
from backend.stages.pretrain import Parameters, preflight
from backend.training.sources import projector_file
from backend.workspace import Workspace
from tests.training.small import (
    EXACT,
    losses,
    make_workspace,
    new_run,
    seen,
    train,
    trained,
    weights,
)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("pretrain"))


def test_it_trains_the_projector_and_nothing_else(space: Workspace) -> None:
    run = trained(space, "pretrain", epochs=2)
    saved = weights(run.artifacts)
    assert len(saved) == 16
    assert all("projector" in name for name in saved)
    assert losses(run)[-1] < losses(run)[0]
    assert read_json(run.artifacts / "config.json")["model_type"] == "mgm_gemma"


def test_every_sample_of_every_step_is_kept_with_its_loss(space: Workspace) -> None:
    run = trained(space, "pretrain")
    rows = seen(run)
    assert len(rows) == 24
    assert len({sample for _, sample, _ in rows}) == 24
    assert [step for step, *_ in rows] == sorted(step for step, *_ in rows)
    metrics = list(read_lines(run.metrics_path))
    assert len(metrics) == 6
    expected = {
        "step", "time", "attempt", "loss", "learning_rate", "grad_norm", "epoch",
        "samples_per_second", "tokens_per_second", "memory_allocated", "memory_reserved",
        "memory_allocated_peak", "memory_reserved_peak", "host_memory",
    }  # fmt: skip
    assert set(metrics[0]) == expected
    assert metrics[0]["memory_allocated"] is None or torch.cuda.is_available()


def test_the_same_seed_gives_the_same_weights_bit_for_bit(space: Workspace) -> None:
    first, again = (weights(trained(space, "pretrain").artifacts) for _ in range(2))
    other = weights(trained(space, "pretrain", seed=7).artifacts)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("stop_at", [1, 4])
def test_a_stopped_run_resumes_to_the_curve_of_an_undisturbed_one(
    space: Workspace, stop_at: int
) -> None:
    undisturbed = trained(space, "pretrain", epochs=2)
    run = new_run(space, "pretrain", epochs=2)
    assert not train(space, run, stop_at=stop_at)
    assert (run.artifacts / f"checkpoint-{stop_at}").is_dir()
    assert train(space, run, attempt=2)
    assert losses(run) == losses(undisturbed)
    one, two = weights(run.artifacts), weights(undisturbed.artifacts)
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_only_the_newest_checkpoints_stay_and_none_once_it_has_succeeded(space: Workspace) -> None:
    run = new_run(space, "pretrain", epochs=2, save_steps=2, save_total_limit=2)
    assert not train(space, run, stop_at=11)
    names = sorted(path.name for path in run.artifacts.glob("*checkpoint-*"))
    assert names == ["checkpoint-10", "checkpoint-11"]
    assert train(space, run, attempt=2)
    assert list(run.artifacts.glob("*checkpoint-*")) == []
    assert (run.artifacts / "mm_projector.bin").is_file()


def test_an_unreadable_picture_is_named_and_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = make_workspace(tmp_path)
    (space.asset("seed_images") / "3.png").write_bytes(b"not a picture")
    (space.asset("seed_images") / "4.png").unlink()
    run = trained(space, "pretrain")
    named = list(read_lines(run.artifacts / "unreadable.jsonl"))
    assert {line["image"] for line in named} == {"3.png", "4.png"}
    unknown = {sample for _, sample, loss in seen(run) if loss is None}
    assert unknown == {"sample-3", "sample-4"}
    codes = [event["code"] for event in run.events()]
    assert "image_unreadable" in codes
    assert "images_unreadable" in codes


def test_unreadable_pictures_are_listed_once_and_counted_over_all_attempts(tmp_path: Path) -> None:
    space = make_workspace(tmp_path)
    for name in ("3.png", "4.png"):
        picture = space.asset("seed_images") / name
        picture.write_bytes(picture.read_bytes()[:40])
    run = new_run(space, "pretrain", epochs=2)
    assert not train(space, run, stop_at=6)
    assert train(space, run, attempt=2)
    named = [line["image"] for line in read_lines(run.artifacts / "unreadable.jsonl")]
    assert sorted(named) == ["3.png", "4.png"]
    told = [one for one in run.events() if "unreadable" in one["code"]]
    assert [one["code"] for one in told] == ["image_unreadable"] + 2 * ["images_unreadable"]
    assert [one["values"]["count"] for one in told[1:]] == [2, 2]
    assert sorted(told[-1]["values"]["images"].split(", ")) == ["3.png", "4.png"]


def test_of_many_unreadable_pictures_the_last_event_names_ten(tmp_path: Path) -> None:
    space = make_workspace(tmp_path, 96)
    for picture in sorted(space.asset("seed_images").glob("*.png"))[:12]:
        picture.write_bytes(b"broken")
    run = trained(space, "pretrain")
    (told,) = [one["values"] for one in run.events() if one["code"] == "images_unreadable"]
    assert told["count"] == 12
    *named, more = told["images"].split(", ")
    listed = [line["image"] for line in read_lines(run.artifacts / "unreadable.jsonl")]
    assert (named, more) == (listed[:10], "…")


def test_a_saved_projector_is_what_finetuning_starts_from(space: Workspace) -> None:
    run = trained(space, "pretrain")
    zoo = [space.asset(name) for name in ("llm", "vision_tower", "vision_tower_aux")]
    model = checkpoints.assemble(*zoo, image_size_aux=128).model
    checkpoints.load_projector(run.artifacts / "mm_projector.bin", model)
    saved = weights(run.artifacts)
    name = "model.mm_projector.0.weight"
    assert torch.equal(model.get_parameter(name), saved[name])


def test_the_projector_of_an_adapter_is_one_to_start_from(space: Workspace) -> None:
    adapter = trained(space, "finetune", method="lora")
    rest = weights(adapter.artifacts)
    zoo = [space.asset(name) for name in ("llm", "vision_tower", "vision_tower_aux")]
    model = checkpoints.assemble(*zoo, image_size_aux=128).model
    for named in (adapter.id, str(adapter.artifacts)):
        file = projector_file(space, named)
        assert file is not None
        checkpoints.load_projector(file, model)
        name = "model.mm_projector.0.weight"
        assert torch.equal(model.get_parameter(name), rest[f"base_model.model.{name}"])


def _codes(space: Workspace, **parameters: object) -> list[str]:
    values = EXACT | {"data": str(space.asset("finetune_pairs"))} | parameters
    return [problem.code for problem in preflight(space, Parameters.model_validate(values))]


def test_preflight_is_content_with_a_complete_workspace(space: Workspace) -> None:
    assert _codes(space) == []


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"global_batch_size": 5}, "batch_not_divisible"),
        ({"offload": "optimizer"}, "offload_without_zero"),
        ({"offload": "optimizer_parameters", "zero_stage": 2}, "offload_parameters_needs_zero3"),
        ({"data": "nothing"}, "training_input"),
        ({"data": "no/such.json"}, "training_file_missing"),
    ],
)
def test_preflight_names_what_would_fail(
    space: Workspace, parameters: dict[str, object], code: str
) -> None:
    assert _codes(space, **parameters) == [code]


def test_a_preset_fills_what_is_not_named_beside_it() -> None:
    parameters = Parameters(preset="fit-16gb-full", micro_batch_size=2)
    assert parameters.optimizer == "paged_adamw_8bit"
    assert parameters.micro_batch_size == 2
