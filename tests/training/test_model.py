"""How the model of a training is put together: attention, widths, and what is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from backend.mgm.adapters import Lora
from backend.mgm.projector import is_projector, is_tower
from backend.stages.finetune import Parameters
from backend.training import model as building
from backend.training.model import build, chosen_attention, trainable
from backend.workspace import Workspace
from tests.training.small import EXACT

CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize("installed", [False, True])
def test_flash_attention_is_taken_where_it_is_and_sdpa_elsewhere(
    monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    monkeypatch.setattr(building, "is_flash_attn_2_available", lambda: installed)
    assert chosen_attention("auto", CARD) == ("flash_attention_2" if installed else "sdpa")
    assert chosen_attention("auto", CPU) == "sdpa"
    assert chosen_attention("eager", CARD) == "eager"


def made(space: Workspace, lora: Lora | None = None, **values: Any) -> torch.nn.Module:
    parameters = Parameters.model_validate(EXACT | values)
    return build(space, parameters, CPU, lora=lora).model


@pytest.mark.parametrize(
    ("precision", "frozen", "trained"),
    [
        ("fp32", torch.float32, torch.float32),
        ("fp32_master", torch.bfloat16, torch.bfloat16),
        ("bf16", torch.bfloat16, torch.bfloat16),
        ("bf16_stochastic", torch.bfloat16, torch.bfloat16),
    ],
)
def test_weights_have_the_width_that_the_precision_names(
    space: Workspace, precision: str, frozen: torch.dtype, trained: torch.dtype
) -> None:
    model = made(space, precision=precision)
    for name, value in model.named_parameters():
        assert value.requires_grad is not is_tower(name)
        assert value.dtype == (trained if value.requires_grad else frozen)


def test_lora_trains_adapters_and_projector(space: Workspace) -> None:
    model = made(space, Lora(4, 16, 0.0), method="lora")
    for name, value in model.named_parameters():
        assert value.requires_grad is ("lora_" in name or is_projector(name))
    assert sum("lora_" in name for name in trainable(model)) == 2 * 3 * 7


@pytest.mark.parametrize("drop_path", [False, True])
def test_the_frozen_tower_drops_paths_as_the_kits_does_unless_told_not_to(
    space: Workspace, drop_path: bool
) -> None:
    model = made(space, drop_path=drop_path)
    blocks = [m.drop_path for m in model.modules() if hasattr(m, "drop_path")]
    assert any(blocks) is drop_path
    assert model.training
