"""Fine-tuning: full, LoRA and QLoRA leave checkpoints that load and that have learned."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from backend.files import read_json
from backend.mgm import checkpoints
from backend.mgm.multimodal import IMAGE_TOKEN
from backend.training.presets import PRESETS
from backend.workspace import Workspace
from tests.mgm import tiny
from tests.training.small import losses, make_workspace, new_run, train, trained, weights

KITS_RUN = tiny.TINY / "lora_run"
RANK = read_json(KITS_RUN / "adapter_config.json")["r"]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("finetune"))


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_the_result_loads_and_holds_what_was_trained(space: Workspace, method: str) -> None:
    run = trained(space, "finetune", method=method, epochs=2, lora_rank=4)
    assert losses(run)[-1] < losses(run)[0]
    mgm = checkpoints.load(run.artifacts)
    saved = weights(run.artifacts)
    prefix = "" if method == "full" else "base_model.model."
    name = "model.mm_projector.0.weight"
    assert torch.equal(mgm.model.get_parameter(name), saved[prefix + name])
    ids = torch.tensor([[2, IMAGE_TOKEN, 40, 41]])
    pictures = {"images": torch.zeros(1, 3, 56, 56), "images_aux": torch.zeros(1, 3, 128, 128)}
    assert mgm.model.generate(ids, max_new_tokens=2, **pictures).shape[1] <= 2


@pytest.mark.parametrize("preset", ["fit-24gb-full", "fit-12gb-lora", "fit-8gb-qlora"])
def test_the_result_has_the_files_names_shapes_and_dtypes_of_the_kit(
    space: Workspace, preset: str
) -> None:
    sizes = {"lora_rank": RANK} if "lora" in preset else {}
    levers = PRESETS[preset]
    run = trained(space, "finetune", **levers, **sizes)
    if levers["method"] == "full":
        index = read_json(run.artifacts / "model.safetensors.index.json")
        assert set(index["weight_map"].values()) == {"model-00001-of-00001.safetensors"}
        found = load_file(run.artifacts / "model-00001-of-00001.safetensors")
        assert index["weight_map"].keys() == found.keys()
        assert index["metadata"]["total_size"] == sum(one.nbytes for one in found.values())
        wanted = dict(tiny.answers("state_dict_keys"))
        del wanted["lm_head.weight"]
        assert {name: list(one.shape) for name, one in found.items()} == wanted
        assert {one.dtype for one in found.values()} == {torch.bfloat16}
        return
    for name in ("adapter_model.bin", "non_lora_trainables.bin"):
        found = torch.load(run.artifacts / name, weights_only=True)
        wanted = torch.load(KITS_RUN / name, weights_only=True)
        assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in wanted.items()}
        assert {one.dtype for one in found.values()} == {torch.bfloat16}
    ours, kits = (read_json(folder / "adapter_config.json") for folder in (run.artifacts, KITS_RUN))
    assert ours.keys() == kits.keys()
    assert (ours["r"], sorted(ours["target_modules"])) == (RANK, sorted(kits["target_modules"]))


def test_the_projector_has_the_names_shapes_and_dtype_of_the_kit(space: Workspace) -> None:
    run = trained(space, "pretrain", precision="fp32_master")
    found = torch.load(run.artifacts / "mm_projector.bin", weights_only=True)
    wanted = tiny.tensors("grads_stage1")
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in wanted.items()}
    assert {one.dtype for one in found.values()} == {torch.bfloat16}


def test_lora_leaves_the_language_model_alone(space: Workspace) -> None:
    run = trained(space, "finetune", method="lora", lora_rank=4)
    names = weights(run.artifacts)
    assert sum("lora_B" in name for name in names) == 3 * 7
    assert sum("projector" in name for name in names) == 16
    assert len(names) == 2 * 3 * 7 + 16


def test_it_starts_from_the_projector_of_a_pretraining_run(space: Workspace) -> None:
    pretrained = trained(space, "pretrain", epochs=2)
    run = trained(space, "finetune", projector=pretrained.id, learning_rate=1e-9, max_steps=1)
    start, end = weights(pretrained.artifacts), weights(run.artifacts)
    assert all(torch.allclose(start[name], end[name], atol=1e-6) for name in start)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_dropout_and_drop_path_go_on_from_where_they_were(space: Workspace, method: str) -> None:
    settings = {"method": method, "lora_rank": 4, "lora_dropout": 0.3, "epochs": 2}
    undisturbed = trained(space, "finetune", **settings)
    run = new_run(space, "finetune", **settings)
    assert not train(space, run, stop_at=5)
    assert train(space, run, attempt=2)
    assert losses(run) == losses(undisturbed)
    one, two = weights(run.artifacts), weights(undisturbed.artifacts)
    assert all(torch.equal(one[name], two[name]) for name in two)
