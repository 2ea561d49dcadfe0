"""LoRA directories: the kit's open here, ours hold what the kit's hold, broken ones are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from safetensors.torch import save_file
from torch.testing import assert_close

from backend.errors import InputError, UsageError
from backend.mgm import adapters, checkpoints
from backend.mgm.adapters import Lora
from backend.mgm.checkpoints import MGM
from backend.mgm.lora import read_adapter_config
from backend.mgm.projector import is_tower
from tests.mgm import tiny
from tests.mgm.tiny import logits, same_model

RUN = tiny.TINY / "lora_run"


def names_and_shapes(file: Path) -> dict[str, object]:
    content = torch.load(file, weights_only=True)
    return {name: (tensor.shape, tensor.dtype) for name, tensor in content.items()}


def copy_run(path: Path) -> Path:
    """A copy of the kit's run that may be damaged."""
    path.mkdir()
    for file in RUN.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    return path


def test_saved_lora_has_the_files_and_names_of_the_kit(lora: MGM, tmp_path: Path) -> None:
    adapters.save_adapter(tmp_path, lora.model)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {path.name for path in RUN.iterdir()} - {"README.md"}
    for name in ("adapter_model.bin", "non_lora_trainables.bin"):
        assert names_and_shapes(tmp_path / name) == names_and_shapes(RUN / name)
    ours, kits = (
        json.loads((directory / "adapter_config.json").read_text()) for directory in (tmp_path, RUN)
    )
    for values in (ours, kits):
        values["target_modules"] = sorted(values["target_modules"])
    assert {**ours, "base_model_name_or_path": ""} == {**kits, "base_model_name_or_path": ""}


@pytest.mark.parametrize("safetensors", [False, True])
def test_lora_round_trip(lora: MGM, tmp_path: Path, safetensors: bool) -> None:
    adapters.save_adapter(tmp_path, lora.model, lora.processor, safetensors=safetensors)
    again = checkpoints.load(tmp_path)
    same_model(again.model, lora.model)
    assert again.processor.config.image_aspect_ratio == tiny.CONFIG["image_aspect_ratio"]


def test_lora_run_moved_elsewhere_is_found_below_roots(zoo, tmp_path: Path) -> None:
    run = copy_run(tmp_path / "lora_run")
    config = json.loads((run / "config.json").read_text())
    for name, directory in zip(
        ("_name_or_path", "mm_vision_tower", "mm_vision_tower_aux"), zoo, strict=True
    ):
        link = tmp_path / "toolkit" / config[name]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(directory)
    model = checkpoints.load(run, roots=[tmp_path / "toolkit"]).model
    assert torch.allclose(logits(model), tiny.tensors("lora_forward")["logits"], atol=1e-5)


def test_lora_stands_on_a_full_checkpoint(mgm: MGM, lora: MGM, tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "base", mgm.model, mgm.processor)
    model = checkpoints.load(RUN, llm_dir=tmp_path / "base").model
    same_model(model, lora.model)


def test_fresh_adapter_changes_nothing_and_spares_the_towers(mgm: MGM) -> None:
    before = logits(mgm.model)
    adapters.inject(mgm.model, Lora(rank=3, alpha=6))
    assert torch.equal(logits(mgm.model), before)
    layers = adapters.adapted_layers(mgm.model)
    assert len(layers) == 7 * mgm.model.config.num_hidden_layers
    assert not any(is_tower(name) for name in layers)


def test_some_targets_alone(mgm: MGM, tmp_path: Path) -> None:
    adapters.inject(mgm.model, Lora(rank=2, targets=("q_proj", "v_proj")))
    adapters.save_adapter(tmp_path, mgm.model)
    again = checkpoints.load(tmp_path).model
    assert len(adapters.adapted_layers(again)) == 2 * mgm.model.config.num_hidden_layers
    assert again.lora == mgm.model.lora


def test_adapter_drops_out_in_training_only(lora: MGM) -> None:
    assert torch.equal(logits(lora.model), logits(lora.model))
    lora.model.train()
    lora.model.model.vision_tower_aux.set_drop_path(0)
    assert not torch.equal(logits(lora.model), logits(lora.model))


def test_adapter_and_projector_of_a_half_precision_model_are_saved_in_it(
    zoo, tmp_path: Path
) -> None:
    model = tiny.load_lora(zoo, dtype=torch.bfloat16).model
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    adapters.save_adapter(tmp_path, model)
    for name in ("adapter_model.bin", "non_lora_trainables.bin"):
        dtypes = {tensor.dtype for tensor in torch.load(tmp_path / name).values()}
        assert dtypes == {torch.bfloat16}


def test_merged_adapter_becomes_a_full_checkpoint(lora: MGM, tmp_path: Path) -> None:
    with_adapter = logits(lora.model)
    adapters.merge_adapter(lora.model)
    checkpoints.save(tmp_path, lora.model, lora.processor)
    again = checkpoints.load(tmp_path).model
    assert not adapters.adapted_layers(again)
    assert torch.allclose(logits(again), with_adapter, atol=1e-5)


@pytest.fixture
def four_bits(zoo) -> MGM:
    """The kit's adapter on a quantized language model."""
    return tiny.load_lora(zoo, quantize="nf4")


def test_four_bits_have_the_gradients_of_the_weights_they_stand_for(four_bits: MGM, zoo) -> None:
    exact = tiny.load_lora(zoo).model
    for name, layer in adapters.adapted_layers(four_bits.model).items():
        weight = layer.get_base_layer().weight
        assert weight.dtype == torch.uint8
        values = dequantize_4bit(weight.data, weight.quant_state)
        exact.get_submodule(name).get_base_layer().weight.data.copy_(values)
    assert torch.allclose(logits(four_bits.model), logits(exact), atol=1e-4)
    for model in (four_bits.model, exact):
        model.select_trainable("adapter")
        model(**tiny.forward_inputs()).loss.backward()
    trained = [name for name, p in exact.named_parameters() if p.grad is not None]
    assert len(trained) == len(tiny.answers("lora_keys")["trainable"])
    for name in trained:
        found, wanted = (m.get_parameter(name).grad for m in (four_bits.model, exact))
        assert_close(found, wanted, rtol=1e-3, atol=1e-5)


def test_four_bits_answer_alike(four_bits: MGM) -> None:
    exact = tiny.tensors("lora_forward")["logits"]
    error = (logits(four_bits.model) - exact).abs().mean() / exact.abs().mean()
    assert 0 < error < 0.5


def test_adapter_on_four_bits_saves_itself_alone(four_bits: MGM, lora: MGM, tmp_path: Path) -> None:
    adapters.save_adapter(tmp_path, four_bits.model, four_bits.processor)
    same_model(checkpoints.load(tmp_path).model, lora.model)
    with pytest.raises(UsageError, match="four-bit"):
        adapters.merge_adapter(four_bits.model)
    with pytest.raises(UsageError, match="full checkpoint"):
        checkpoints.save(tmp_path / "full", four_bits.model)


def test_adapter_is_injected_once_and_merged_once(lora: MGM, mgm: MGM, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="already"):
        adapters.inject(lora.model, Lora())
    with pytest.raises(UsageError, match="no adapter"):
        adapters.merge_adapter(mgm.model)
    with pytest.raises(UsageError, match="no adapter"):
        adapters.save_adapter(tmp_path, mgm.model)
    with pytest.raises(UsageError, match="targets"):
        adapters.inject(mgm.model, Lora(targets=("lm_head",)))


DAMAGES = {
    "gone": lambda run: (run / "adapter_model.bin").unlink(),
    "cut": lambda run: (run / "adapter_model.bin").write_bytes(b"PK\x03\x04half"),
    "rest cut": lambda run: (run / "non_lora_trainables.bin").write_bytes(b"PK"),
    "rest gone": lambda run: (run / "non_lora_trainables.bin").unlink(),
    "rank": lambda run: edit(run, r=1 + read_adapter_config(RUN).rank),
    "zero rank": lambda run: edit(run, r=0),
    "no rank": lambda run: edit(run, r=None),
    "fewer targets": lambda run: edit(run, target_modules=["q_proj"]),
    "other targets": lambda run: edit(run, target_modules=["lm_head"]),
    "no targets": lambda run: edit(run, target_modules=3),
    "dora": lambda run: edit(run, use_dora=True),
    "bias": lambda run: edit(run, bias="all"),
    "kind": lambda run: edit(run, peft_type="IA3"),
    "list": lambda run: (run / "adapter_config.json").write_text("[]"),
    "config": lambda run: (run / "config.json").write_text('{"model_type": "gemma"}'),
    "truncated safetensors": lambda run: (run / "adapter_model.safetensors").write_bytes(b"\0" * 9),
}


def edit(run: Path, **values: object) -> None:
    file = run / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_broken_lora_run_is_refused(zoo, tmp_path: Path, damage: str) -> None:
    run = copy_run(tmp_path / "run")
    DAMAGES[damage](run)
    with pytest.raises(InputError) as caught:
        checkpoints.load(run, llm_dir=zoo[0], vision_dir=zoo[1], vision_aux_dir=zoo[2])
    assert str(run) in str(caught.value.place)
    assert caught.value.remedy


def test_adapter_of_another_base_is_refused(zoo, tmp_path: Path) -> None:
    run = copy_run(tmp_path / "run")
    content = torch.load(run / "adapter_model.bin", weights_only=True)
    wider = {name: torch.cat([tensor, tensor], -1) for name, tensor in content.items()}
    (run / "adapter_model.bin").unlink()
    save_file(wider, run / "adapter_model.safetensors")
    with pytest.raises(InputError, match="another base model"):
        checkpoints.load(run, llm_dir=zoo[0], vision_dir=zoo[1], vision_aux_dir=zoo[2])


def test_lora_run_without_its_base_says_what_is_missing(tmp_path: Path) -> None:
    run = copy_run(tmp_path / "run")
    with pytest.raises(InputError, match="base model"):
        checkpoints.load(run)
