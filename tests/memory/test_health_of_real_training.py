"""Faults made by really training a tiny model, and what its findings say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from backend.memory.health import judge

VOCABULARY = 50


def train(*, rate=3e-3, steps=80, frozen=False, masked=False, poison_at=None, adapter=None):
    """Metric rows of a tiny language model that learns to say the token after the last."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    head = nn.Linear(32, VOCABULARY)
    model = nn.Sequential(nn.Embedding(VOCABULARY, 32), nn.Linear(32, 32), nn.Tanh(), head)
    side = nn.Linear(32, 32)
    trained = list(side.parameters()) if adapter == "disconnected" else list(model.parameters())
    optimizer = torch.optim.AdamW(trained, lr=rate)
    if frozen:
        model.requires_grad_(False)
    rows = []
    for step in range(1, steps + 1):
        ids = torch.randint(VOCABULARY, (64,))
        labels = torch.full((64,), -100) if masked else (ids + 1) % VOCABULARY
        if step == poison_at:
            head.weight.data[0, 0] = math.nan
        loss = nn.functional.cross_entropy(model(ids), labels, ignore_index=-100)
        optimizer.zero_grad()
        if loss.requires_grad:
            loss.backward()
        norm = float(nn.utils.clip_grad_norm_(trained, math.inf))
        optimizer.step()
        rows.append({"step": step, "loss": loss.item(), "grad_norm": norm, "learning_rate": rate})
    return rows


def errors(rows) -> list[str]:
    return [f.code for f in judge(rows, vocabulary_size=VOCABULARY) if f.level == "error"]


@pytest.mark.parametrize("rate", [1e-3, 3e-3, 1e-2])
def test_learning_is_healthy(rate):
    found = judge(train(rate=rate), vocabulary_size=VOCABULARY)
    assert [f.code for f in found if f.level != "info"] == []


def test_a_learning_rate_a_thousand_times_too_high():
    assert set(errors(train(rate=3.0))) & {"loss_above_chance", "loss_exploded"}


def test_a_nan_in_the_weights():
    assert errors(train(poison_at=40))[0] == "loss_not_finite"


def test_all_labels_masked():
    assert "loss_not_finite" in errors(train(masked=True))


def test_nothing_trainable():
    assert "gradients_zero" in errors(train(frozen=True))


def test_an_adapter_that_is_not_connected_to_the_loss():
    assert "gradients_zero" in errors(train(adapter="disconnected"))


def test_an_adapter_file_that_never_changed(tmp_path):
    from safetensors.torch import save_file

    from backend.memory.health import adapter_unchanged

    tensors = {
        "base.q_proj.lora_A.weight": torch.randn(4, 8, dtype=torch.bfloat16),
        "base.q_proj.lora_B.weight": torch.zeros(8, 4, dtype=torch.bfloat16),
    }
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    finding = adapter_unchanged(tmp_path)
    assert (finding.code, finding.values) == ("adapter_unchanged", {"count": 1})
    tensors["base.q_proj.lora_B.weight"][3, 1] = 1e-3
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    assert adapter_unchanged(tmp_path) is None
    assert adapter_unchanged(tmp_path / "elsewhere") is None


def test_the_kits_adapter_file_is_read_without_running_its_pickle(tmp_path):
    from backend.errors import InputError
    from backend.memory.health import adapter_unchanged

    file = tmp_path / "adapter_model.bin"
    tensors = {
        "base.q_proj.lora_A.weight": torch.randn(4, 8),
        "base.q_proj.lora_B.weight": torch.zeros(8, 4, dtype=torch.bfloat16),
        "base.v_proj.lora_B.weight": torch.zeros(2, 4, dtype=torch.bfloat16),
    }
    torch.save(tensors, file)
    assert adapter_unchanged(tmp_path).values == {"count": 2}
    tensors["base.v_proj.lora_B.weight"][1, 3] = 1e-4
    torch.save(tensors, file)
    assert adapter_unchanged(tmp_path) is None
    torch.save({"base.q_proj.lora_B.weight": Planted()}, file)
    with pytest.raises(InputError, match="not allowed"):
        adapter_unchanged(tmp_path)
    file.write_bytes(b"no zip")
    with pytest.raises(InputError, match="file of torch"):
        adapter_unchanged(tmp_path)


class Planted:
    def __reduce__(self):
        import os

        return os.system, ("true",)
