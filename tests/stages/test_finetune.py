"""Fine-tuning: full, LoRA and QLoRA leave checkpoints that load and that have learned."""

from __future__ import annotations

import pytest
import torch

from backend.mgm import checkpoints
from backend.mgm.multimodal import IMAGE_TOKEN
from backend.workspace import Workspace
from tests.training.small import losses, make_workspace, new_run, train, trained, weights


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
