"""Full checkpoints and projectors: out and in again, as the kit reads them, and broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from backend.errors import InputError, UsageError
from backend.mgm import adapters, checkpoints
from backend.mgm.checkpoints import MGM
from backend.mgm.modeling import MGMGemmaForCausalLM
from backend.mgm.processing import MGMProcessor
from tests.mgm import tiny
from tests.mgm.tiny import logits, same_model

SHARD = sum(tensor.nbytes for tensor in tiny.tensors("state_dict").values()) // 5
"""Small enough for several shards."""


def stored(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a sharded checkpoint, through its index."""
    weight_map = json.loads((path / "model.safetensors.index.json").read_text())["weight_map"]
    shards = {name: load_file(path / name) for name in set(weight_map.values())}
    assert sum(map(len, shards.values())) == len(weight_map)
    return {name: shards[file][name] for name, file in weight_map.items()}


@pytest.fixture
def saved(mgm: MGM, tmp_path: Path) -> Path:
    """A checkpoint that we wrote."""
    checkpoints.save(tmp_path / "saved", mgm.model, mgm.processor)
    return tmp_path / "saved"


def test_checkpoint_of_the_kit_opens_with_tower_directories(zoo, tmp_path: Path) -> None:
    path = tiny.write_checkpoint(tmp_path / "kit")
    model, processor = checkpoints.load(path, vision_dir=zoo[1], vision_aux_dir=zoo[2])
    assert torch.allclose(logits(model), tiny.tensors("forward")["logits"], atol=1e-5)
    assert processor.config.image_aspect_ratio == tiny.CONFIG["image_aspect_ratio"]


def test_checkpoint_of_the_kit_opens_below_its_working_folder(zoo, tmp_path: Path) -> None:
    path = tiny.write_checkpoint(tmp_path / "kit")
    for name, directory in zip(("mm_vision_tower", "mm_vision_tower_aux"), zoo[1:], strict=True):
        link = tmp_path / "toolkit" / tiny.CONFIG[name]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(directory)
    model, _ = checkpoints.load(path, roots=[tmp_path / "toolkit"])
    assert torch.allclose(logits(model), tiny.tensors("forward")["logits"], atol=1e-5)


def test_checkpoint_takes_frozen_towers_from_their_directories(zoo, tmp_path: Path) -> None:
    path = tiny.write_checkpoint(tmp_path / "kit")
    weights = {name: t for name, t in tiny.tensors("state_dict").items() if "tower" not in name}
    save_file(weights, path / "model.safetensors")
    model, _ = checkpoints.load(path, vision_dir=zoo[1], vision_aux_dir=zoo[2])
    assert torch.allclose(logits(model), tiny.tensors("forward")["logits"], atol=1e-5)


def test_checkpoint_round_trip_in_shards(mgm: MGM, tmp_path: Path) -> None:
    path = tmp_path / "mgm-2b-finetune"
    checkpoints.save(path, mgm.model, mgm.processor, shard_bytes=SHARD)
    assert len(list(path.glob("model-*.safetensors"))) > 2
    again = checkpoints.load(path)
    same_model(again.model, mgm.model)
    assert again.processor.prompt("What?", True) == mgm.processor.prompt("What?", True)


def test_checkpoint_has_the_names_and_shapes_of_the_kit(saved: Path) -> None:
    shapes = {name: list(tensor.shape) for name, tensor in stored(saved).items()}
    wanted = tiny.answers("state_dict_keys")
    assert shapes == {name: shape for name, shape in wanted.items() if name != "lm_head.weight"}
    for file in saved.glob("model-*.safetensors"):
        with safe_open(file, framework="pt") as content:
            assert content.metadata() == {"format": "pt"}


def test_checkpoint_configuration_has_the_keys_of_the_kit(saved: Path) -> None:
    values = json.loads((saved / "config.json").read_text())
    of_the_model = {
        key: value
        for key, value in tiny.CONFIG.items()
        if key in {"rope_theta", "hidden_act", "head_dim", "tie_word_embeddings"}
        or key in vars(checkpoints.MGMConfig)
    }
    of_the_model.pop("mm_vision_tower"), of_the_model.pop("mm_vision_tower_aux")
    assert {key: values[key] for key in of_the_model} == of_the_model
    assert values["torch_dtype"] == "float32"
    assert Path(values["mm_vision_tower"]).is_dir()


def test_checkpoint_in_half_precision(mgm: MGM, tmp_path: Path) -> None:
    checkpoints.save(tmp_path, mgm.model, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in stored(tmp_path).values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert mgm.model.dtype == torch.float32


def test_saving_again_leaves_one_checkpoint(mgm: MGM, tmp_path: Path) -> None:
    checkpoints.save(tmp_path, mgm.model, mgm.processor, shard_bytes=SHARD)
    checkpoints.save(tmp_path, mgm.model, mgm.processor)
    files = {path.name for path in tmp_path.glob("*.safetensors")}
    assert files == {"model-00001-of-00001.safetensors"}


def test_checkpoint_opens_with_transformers_own_loader(mgm: MGM, saved: Path) -> None:
    model = MGMGemmaForCausalLM.from_pretrained(saved)
    same_model(model, mgm.model)
    processor = MGMProcessor.from_pretrained(saved)
    assert processor.prompt("What?", True) == mgm.processor.prompt("What?", True)


def test_fresh_projector_follows_the_seed(zoo) -> None:
    options = {"image_size_aux": tiny.CONFIG["image_size_aux"]}
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = checkpoints.assemble(*zoo, **options).model
        found.append(model.model.mm_projector[0].weight.detach())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("towers", [True, False])
def test_projector_round_trip(mgm: MGM, zoo, tmp_path: Path, towers: bool) -> None:
    file = tmp_path / "mm_projector.bin"
    checkpoints.save_projector(file, mgm.model, towers=towers, dtype=torch.bfloat16)
    content = torch.load(file, weights_only=True)
    reference = torch.load(tiny.TINY / "mm_projector.bin", weights_only=True)
    wanted = reference if towers else tiny.tensors("grads_stage1")
    assert {n: t.shape for n, t in content.items()} == {n: t.shape for n, t in wanted.items()}
    assert {tensor.dtype for tensor in content.values()} == {torch.bfloat16}
    fresh = checkpoints.assemble(*zoo, image_size_aux=tiny.CONFIG["image_size_aux"]).model
    checkpoints.load_projector(file, fresh)
    weights = fresh.state_dict()
    for name in tiny.tensors("grads_stage1"):
        assert torch.equal(weights[name], mgm.model.state_dict()[name].bfloat16().float())


def test_projector_brings_no_towers_that_were_frozen(mgm: MGM, tmp_path: Path) -> None:
    name = "model.vision_tower_aux.vision_stem.0.weight"
    content = torch.load(tiny.TINY / "mm_projector.bin", weights_only=True)
    content[name] = torch.zeros_like(content[name])
    torch.save(content, tmp_path / "mm_projector.bin")
    checkpoints.load_projector(tmp_path / "mm_projector.bin", mgm.model)
    assert mgm.model.state_dict()[name].abs().sum() > 0
    mgm.model.config.optimize_vision_tower_aux = True
    checkpoints.load_projector(tmp_path / "mm_projector.bin", mgm.model)
    assert mgm.model.state_dict()[name].abs().sum() == 0


def refused(call, *words: str) -> None:
    """The call fails with one sentence that names the words, a place and a remedy."""
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.place and caught.value.remedy
    for word in words:
        assert word in str(caught.value)


def test_truncated_shard_is_refused(saved: Path) -> None:
    shard = next(saved.glob("model-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-100])
    refused(lambda: checkpoints.load(saved), shard.name)


def test_missing_shard_is_refused(saved: Path) -> None:
    shard = next(saved.glob("model-*.safetensors"))
    shard.unlink()
    refused(lambda: checkpoints.load(saved), shard.name, "index")


def test_shard_outside_the_checkpoint_is_refused(saved: Path) -> None:
    index = saved / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "../../etc/passwd"}}))
    refused(lambda: checkpoints.load(saved), "outside")


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}'])
def test_malformed_index_is_refused(saved: Path, content: str) -> None:
    (saved / "model.safetensors.index.json").write_text(content)
    refused(lambda: checkpoints.load(saved), "index.json")


def test_missing_tensor_is_refused(saved: Path) -> None:
    weights = {n: t for n, t in stored(saved).items() if n != "model.norm.weight"}
    save_file(weights, saved / "model-00001-of-00001.safetensors")
    refused(lambda: checkpoints.load(saved), "model.norm.weight")


def test_unknown_tensor_is_refused(saved: Path) -> None:
    weights = {**stored(saved), "model.extra.weight": torch.zeros(1)}
    save_file(weights, saved / "model-00001-of-00001.safetensors")
    refused(lambda: checkpoints.load(saved), "model.extra.weight")


def test_other_sizes_are_refused(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(
        json.dumps({**config, "intermediate_size": 2 * config["intermediate_size"]})
    )
    refused(lambda: checkpoints.load(saved), "mlp.", "shape")


@pytest.mark.parametrize("content", ["[]", '{"model_type": "llama"}', "{", '{"model_type": 3}'])
def test_other_configuration_is_refused(saved: Path, content: str) -> None:
    (saved / "config.json").write_text(content)
    refused(lambda: checkpoints.load(saved), "config.json")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", "many"),
        ("mm_projector_type", "resampler"),
        ("mm_use_im_start_end", True),
        ("image_size_aux", 100),
        ("mm_vision_select_layer", 50),
        ("num_attention_heads", 0),
    ],
)
def test_configuration_field_that_does_not_fit_is_refused(saved: Path, field: str, value) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, field: value}))
    refused(lambda: checkpoints.load(saved))


def test_missing_directories_are_refused(zoo, tmp_path: Path) -> None:
    llm, clip, convnext = zoo
    refused(lambda: checkpoints.load(tmp_path / "nothing"), "nothing")
    refused(lambda: checkpoints.assemble(tmp_path, clip, convnext), "config.json")
    refused(lambda: checkpoints.assemble(llm, tmp_path, convnext), "config.json")
    refused(lambda: checkpoints.assemble(llm, clip, tmp_path), "ConvNeXt")
    kit = tiny.write_checkpoint(tmp_path / "kit")
    (kit / "tokenizer.json").unlink()
    refused(lambda: checkpoints.load(kit, vision_dir=clip, vision_aux_dir=convnext), "tokenizer")


def test_other_model_is_no_language_model(zoo) -> None:
    refused(lambda: checkpoints.assemble(zoo[1], zoo[1], zoo[2]), "'clip'", "gemma")


def test_broken_tokenizer_is_refused(saved: Path) -> None:
    (saved / "tokenizer.json").write_text('{"version": "1.0"}')
    refused(lambda: checkpoints.load(saved), "tokenizer.json")


def test_pickle_that_runs_code_is_refused(mgm: MGM, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"model.mm_projector.0.weight": Evil()}, tmp_path / "mm_projector.bin")
    refused(lambda: checkpoints.load_projector(tmp_path / "mm_projector.bin", mgm.model), "code")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "missing tensor", "shape", "gone", "list"])
def test_broken_projector_is_refused(mgm: MGM, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "mm_projector.bin"
    checkpoints.save_projector(file, mgm.model, towers=False)
    content = torch.load(file, weights_only=True)
    name = "model.mm_projector.0.weight"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:2000])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "missing tensor":
        torch.save({key: value for key, value in content.items() if key != name}, file)
    elif damage == "shape":
        torch.save({**content, name: torch.zeros(3, 3)}, file)
    elif damage == "list":
        torch.save([1, 2], file)
    else:
        file.unlink()
    before = mgm.model.state_dict()[name].clone()
    refused(lambda: checkpoints.load_projector(file, mgm.model), "mm_projector.bin")
    assert torch.equal(mgm.model.state_dict()[name], before)


def test_model_with_an_adapter_is_no_full_checkpoint(lora: MGM, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="adapter"):
        checkpoints.save(tmp_path / "full", lora.model)
    assert not (tmp_path / "full").exists()
    adapters.merge_adapter(lora.model)
    checkpoints.save(tmp_path / "full", lora.model, lora.processor)
    again = checkpoints.load(tmp_path / "full").model
    same_model(again, lora.model)
