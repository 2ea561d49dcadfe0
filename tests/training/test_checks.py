"""What training refuses before it starts, and where it says that the kit does otherwise."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backend.files import file_sizes
from backend.gpu import Device, DeviceReadings, visible
from backend.memory.shapes import ModelShape
from backend.mgm import checkpoints
from backend.stages import finetune, pretrain
from backend.stages import stage as stage_named
from backend.stages.base import Problem
from backend.supervisor.parameters import sentence
from backend.training import checks, room
from backend.training.longest import shape_of
from backend.training.presets import PRESETS
from backend.workspace import Settings, Workspace
from tests.training.small import EXACT, make_workspace, new_run, train

FILES = 200_000
"""Bytes of a file's own form and of the tokenizer; the tiny model's states are up to 2 MB."""


def problems(space: Workspace, stage: Any = finetune, **values: Any) -> list[Problem]:
    given = EXACT | {"data": str(space.asset("finetune_pairs"))} | values
    return stage.preflight(space, stage.Parameters.model_validate(given))


def codes(space: Workspace, stage: Any = finetune, **values: Any) -> list[tuple[str, str]]:
    return [(problem.code, problem.place) for problem in problems(space, stage, **values)]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let a package seem not to be installed."""
    real = importlib.util.find_spec

    def hide(package: str) -> None:
        def found(name: str, *rest: Any) -> Any:
            return None if name == package else real(name, *rest)

        monkeypatch.setattr(importlib.util, "find_spec", found)

    return hide


@pytest.mark.parametrize(
    ("values", "code", "place"),
    [
        ({"optimizer": "adamw_8bit"}, "zero_optimizer", "optimizer"),
        ({"precision": "bf16"}, "zero_precision", "precision"),
        ({"precision": "bf16_stochastic"}, "zero_precision", "precision"),
        ({"method": "qlora", "zero_stage": 3}, "zero3_quantized", "zero_stage"),
        ({"compile": True, "zero_stage": 3}, "zero3_compiled", "compile"),
        ({"devices": 2, "zero_stage": 3, "tower_chunk": 1}, "zero3_chunks", "tower_chunk"),
        ({"devices": 2, "zero_stage": 3, "mlp_chunk": 64}, "zero3_chunks", "mlp_chunk"),
    ],
)
def test_what_deepspeed_cannot_do_is_refused(
    space: Workspace, values: dict[str, Any], code: str, place: str
) -> None:
    assert codes(space, **{"zero_stage": 2} | values) == [(code, place)]


@pytest.mark.parametrize(
    "values",
    [
        {"zero_stage": 1},
        {"zero_stage": 2, "offload": "optimizer", "precision": "fp32_master"},
        {"zero_stage": 3, "offload": "optimizer_parameters", "tower_chunk": 1},
        {"zero_stage": 3, "devices": 2},
        {"zero_stage": 2, "devices": 2, "tower_chunk": 1, "mlp_chunk": 64, "compile": True},
        {"zero_stage": 2, "method": "qlora"},
    ],
)
def test_what_it_can_do_is_not(space: Workspace, values: dict[str, Any]) -> None:
    assert codes(space, **values) == []


@pytest.mark.parametrize(
    ("package", "values", "place"),
    [
        ("flash_attn", {"attention": "flash_attention_2"}, "attention"),
        ("bitsandbytes", {"optimizer": "adamw_8bit"}, "optimizer"),
        ("bitsandbytes", {"method": "qlora"}, "method"),
        ("deepspeed", {"zero_stage": 1}, "zero_stage"),
        ("deepspeed", {"devices": 2, "launcher": "deepspeed"}, "launcher"),
    ],
)
def test_a_missing_package_is_named_with_what_else_to_choose(
    space: Workspace, without: Any, package: str, values: dict[str, Any], place: str
) -> None:
    without(package)
    (problem,) = problems(space, **values)
    assert (problem.code, problem.place) == ("package_for_lever", place)
    assert package in sentence(problem)


def test_more_processes_than_visible_cards_are_refused(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def cards(count: int) -> None:
        readings = DeviceReadings(tuple(Device(index) for index in range(count)))
        monkeypatch.setattr(visible, "read_devices", lambda: readings)

    cards(1)
    assert codes(space, devices=2) == [("devices_beyond_cards", "devices")]
    assert codes(space, devices=1) == []
    cards(2)
    assert codes(space, devices=2) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert codes(space, devices=2) == [("devices_beyond_cards", "devices")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # processes share the processor
    assert codes(space, devices=2) == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    cards(0)
    assert codes(space, devices=2) == []


@pytest.fixture(scope="module")
def kit_space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The tiny workspace under the rules of the challenge."""
    space = make_workspace(tmp_path_factory.mktemp("kit"))
    settings = space.settings.model_copy(update={"profile": "mgm-2b"})
    (space.root / "mm_projector.bin").touch()
    return Workspace(space.root, settings)


def deviations(space: Workspace, stage: Any, **values: Any) -> dict[str, Any]:
    usual = {"data": str(space.asset("finetune_pairs"))}
    usual |= {"projector": "mm_projector.bin"} if stage is finetune else {}
    found = stage.preflight(space, stage.Parameters.model_validate(usual | values))
    assert {problem.level for problem in found} <= {"warning"}
    return {problem.place: problem.values.get("value") for problem in found}


@pytest.mark.parametrize("stage", [pretrain, finetune])
def test_the_defaults_are_the_kits_recipe(kit_space: Workspace, stage: Any) -> None:
    assert deviations(kit_space, stage) == {}
    assert deviations(kit_space, stage, preset="kit", micro_batch_size=8) == {}
    assert deviations(kit_space, stage, image_size_aux=768) == {}


@pytest.mark.parametrize(
    ("stage", "values"),
    [
        (pretrain, {"global_batch_size": 128}),
        (pretrain, {"image_mode": "pad"}),
        (pretrain, {"learning_rate": 2e-3}),
        (finetune, {"global_batch_size": 256}),
        (finetune, {"image_mode": "square"}),
        (finetune, {"method": "lora", "learning_rate": 2e-4}),
        (finetune, {"group_by_modality_length": False}),
        (finetune, {"seed": 1}),
        (finetune, {"scheduler": "linear"}),
        (finetune, {"warmup_ratio": 0.1}),
        (finetune, {"weight_decay": 0.1}),
        (finetune, {"max_grad_norm": 1.0}),
        (finetune, {"epochs": 2.0}),
        (finetune, {"max_steps": 10}),
        (finetune, {"model_max_length": 1024}),
        (finetune, {"drop_path": False}),
        (finetune, {"image_size_aux": 336}),
        (finetune, {"image_grid": 2}),
    ],
)
def test_every_deviation_from_it_is_a_warning_that_names_it(
    kit_space: Workspace, stage: Any, values: dict[str, Any]
) -> None:
    assert deviations(kit_space, stage, **values) == values


def test_a_projector_that_was_not_pretrained_is_a_deviation_too(kit_space: Workspace) -> None:
    assert list(deviations(kit_space, finetune, projector="")) == ["projector"]
    given = {"projector": "", "continue_from": "earlier"}
    found = problems(kit_space, **given)
    assert [one.place for one in found if one.code.startswith("kit_") and one.place in given] == [
        "continue_from"
    ]


def test_the_projector_beside_an_adapter_is_one(space: Workspace, tmp_path: Path) -> None:
    def found(folder: Path) -> list[tuple[str, str]]:
        return codes(space, projector=str(folder))

    assert found(tmp_path) == [("training_input", str(tmp_path / "mm_projector.bin"))]
    (tmp_path / "non_lora_trainables.bin").touch()
    assert found(tmp_path) == []


def test_a_picture_that_fills_the_row_is_refused_before_it_cuts_every_label_off(
    tmp_path: Path,
) -> None:
    """576 positions a view; the HD variant has four and one of the whole."""
    space = Workspace.create(tmp_path / "empty", Settings(name="kit", profile="mgm-2b"))

    def refused(**values: Any) -> list[str]:
        given = finetune.Parameters.model_validate(values)
        found = finetune.preflight(space, given)
        return [sentence(one) for one in found if one.code == "no_room_for_text"]

    hd = {"image_grid": 2, "image_global": True}
    (said,) = refused(**hd)
    assert "2,880" in said
    assert "2,048" in said
    assert refused(**hd, model_max_length=2880)
    assert not refused(**hd, model_max_length=4096)
    assert refused(image_grid=2)
    assert not refused()
    assert refused(model_max_length=576)


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({}, []),
        ({"launcher": "deepspeed"}, ["launcher"]),
        ({"launcher": "deepspeed", "devices": 2}, []),
        ({"launcher": "deepspeed", "zero_stage": 1}, []),
        ({"image_global": True}, ["image_global"]),
        ({"image_global": True, "image_grid": 2}, []),
        ({"lora_rank": 8, "lora_dropout": 0.5}, ["lora_rank", "lora_dropout"]),
        ({"lora_targets": ["q_proj"]}, ["lora_targets"]),
        ({"lora_rank": 8, "method": "lora"}, []),
    ],
)
def test_what_nothing_reads_is_told(
    space: Workspace, values: dict[str, Any], fields: list[str]
) -> None:
    given = {"model_max_length": 2048, **values}
    assert codes(space, **given) == [("no_effect", field) for field in fields]
    of_profile = {"lora_rank": 16, "lora_alpha": 32.0, "lora_dropout": 0.0}
    assert codes(space, method="full", **of_profile) == []
    assert codes(space, pretrain) == []


def test_an_adapter_as_slow_as_full_training_is_warned_of(space: Workspace) -> None:
    assert codes(space, method="lora", learning_rate=2e-5) == [("adapter_rate", "learning_rate")]
    assert codes(space, method="lora", learning_rate=2e-4) == []
    assert codes(space, method="full", learning_rate=2e-5) == []


@pytest.mark.parametrize(
    ("free_gib", "values", "level"),
    [
        (29, {}, None),
        (28, {}, "warning"),
        (19, {"save_total_limit": 1}, None),
        (18, {"save_total_limit": 1}, "warning"),
        (10, {"save_steps": 0}, None),
        (9, {"save_steps": 0}, "warning"),
        (5, {"save_steps": 0}, "error"),
        (98, {"preset": "kit"}, "warning"),
        (4, {"preset": "fit-12gb-lora"}, None),
    ],
)
def test_a_disk_too_small_for_the_checkpoints_is_told_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gib: int, values: dict, level: str | None
) -> None:
    space = Workspace.create(tmp_path / "empty", Settings(name="kit", profile="mgm-2b"))
    usage = SimpleNamespace(free=free_gib << 30)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: usage)
    given = {"preset": "fit-24gb-full"} | values
    found = finetune.preflight(space, finetune.Parameters.model_validate(given))
    told = [one for one in found if one.code == "disk_room"]
    assert [one.level for one in told] == ([level] if level else [])
    assert all(f"{free_gib}.0 GiB" in sentence(one) for one in told)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
@pytest.mark.parametrize(
    "values",
    [
        {"precision": "fp32"},
        {"precision": "fp32_master"},
        {"precision": "bf16_stochastic", "optimizer": "adamw_8bit"},
        {"method": "lora", "lora_rank": 8, "precision": "bf16", "optimizer": "adamw_bf16"},
    ],
)
def test_the_room_told_is_the_room_taken(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, stage: str, values: dict[str, Any]
) -> None:
    zoo = [space.asset(name) for name in ("llm", "vision_tower", "vision_tower_aux")]
    shape = shape_of(checkpoints.assemble(*zoo, image_size_aux=128).model.config)
    monkeypatch.setattr(ModelShape, "of_workspace", lambda workspace: shape)
    if stage == "pretrain":
        known = pretrain.Parameters.model_fields
        values = {name: value for name, value in values.items() if name in known}
    run = new_run(space, stage, **values)
    assert not train(space, run, stop_at=1)
    told = room.room(space, stage_named(stage).parameters.model_validate(run.spec.parameters))
    (checkpoint,) = run.artifacts.glob("checkpoint-*")
    assert 0 <= sum(file_sizes(checkpoint).values()) - told.checkpoint < FILES
    assert train(space, run, attempt=2)
    left = {path: size for path, size in file_sizes(run.artifacts).items() if path.suffix != ".json"
            and "checkpoint-" not in str(path)}  # fmt: skip
    assert 0 <= sum(left.values()) - told.result < FILES


def test_a_starter_may_do_as_it_likes(space: Workspace) -> None:
    assert codes(space, seed=1, global_batch_size=8) == []


def test_too_many_samples_are_counted(
    kit_space: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = str(kit_space.asset("finetune_pairs"))
    count = len(json.loads(Path(data).read_text()))
    monkeypatch.setattr(checks, "SAMPLE_LIMIT", count - 1)
    assert list(deviations(kit_space, pretrain)) == ["data"]
    assert list(deviations(kit_space, finetune)) == []
    monkeypatch.setattr(checks, "SAMPLE_LIMIT", count)
    assert list(deviations(kit_space, pretrain)) == []


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "custom"])
def test_every_preset_passes_its_own_checks(space: Workspace, preset: str) -> None:
    for stage in (pretrain, finetune):
        given = {"preset": preset, "data": str(space.asset("finetune_pairs"))}
        found = stage.preflight(space, stage.Parameters.model_validate(given))
        assert [problem for problem in found if problem.level == "error"] == []


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "custom"])
def test_a_preset_names_parameters_that_exist(preset: str) -> None:
    fields = finetune.Parameters.model_fields
    assert set(PRESETS[preset]) <= set(fields)
    chosen = finetune.Parameters.model_validate({"preset": preset})
    assert {name: getattr(chosen, name) for name in PRESETS[preset]} == PRESETS[preset]


def test_updates_that_round_away_are_warned_of(space: Workspace) -> None:
    def warned(**values: Any) -> bool:
        return ("updates_vanish", "precision") in codes(space, **values)

    assert warned(precision="bf16", learning_rate=2e-5)
    assert not warned(precision="bf16", learning_rate=1e-3)
    assert not warned(precision="bf16", learning_rate=2e-5, method="lora")
    assert all(PRESETS[name]["precision"] != "bf16" for name in PRESETS.keys() - {"custom"})
