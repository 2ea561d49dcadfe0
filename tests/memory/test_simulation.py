"""Predictions against the real training code, whose every tensor is counted without a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backend.memory.parts import STATIC
from backend.memory.predict import predict
from backend.memory.settings import MemorySettings
from backend.memory.shapes import MGM_2B
from tests.memory.simulation import simulate

SHAPE = replace(
    MGM_2B,
    language=replace(MGM_2B.language, layers=5),
    clip=replace(MGM_2B.clip, layers=2),
    convnext=replace(MGM_2B.convnext, depths=(1, 1, 1, 1)),
)
"""Every width of the real model; fewer layers, because they only repeat."""
LEAN = MemorySettings(
    positions=1024,
    label_fraction=200 / 1024,
    loss_chunk=256,
    gradient_accumulation=2,
    precision="bf16_stochastic",
    optimizer="adamw_8bit",
    mining_checkpointing=True,
    tower_chunk=1,
)
PLAIN: dict[str, Any] = {"loss_chunk": 0, "mining_checkpointing": False, "tower_chunk": 0}
HD: dict[str, Any] = {
    "micro_batch_size": 1,
    "image_grid": 2,
    "image_global": True,
    "image_size_aux": 1536,
    "positions": 3200,
    "label_fraction": 200 / 3200,
}
NO_RECOMPUTING: dict[str, Any] = {"activation_checkpointing": False, "micro_batch_size": 2}
FEW = ("q_proj", "v_proj")
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "full, one micro-batch a step": {"gradient_accumulation": 1},
    "full, plain": PLAIN,
    "full, plain, one micro-batch a step": {**PLAIN, "gradient_accumulation": 1},
    "full, mining kept": {"mining_checkpointing": False},
    "full, towers together": {"tower_chunk": 0},
    "full, nothing recomputed": NO_RECOMPUTING,
    "full, 8 x 2,048": {"micro_batch_size": 8, "positions": 2048},
    "full, larger chunks": {"loss_chunk": 1024, "positions": 1536, "label_fraction": 0.4},
    "full, MLP in portions": {"mlp_chunk": 512},
    "full, MLP in portions, rest kept": {**NO_RECOMPUTING, "mlp_chunk": 512},
    "full, eager": {"attention": "eager"},
    "full, HD": {**HD, "mining_checkpointing": False},
    "LoRA": {"method": "lora"},
    "LoRA, plain": {**PLAIN, "method": "lora"},
    "LoRA, nothing recomputed": {**NO_RECOMPUTING, "method": "lora"},
    "LoRA, no dropout": {**NO_RECOMPUTING, "method": "lora", "lora_dropout": 0.0},
    "LoRA, micro-batch 8": {"method": "lora", "micro_batch_size": 8},
    "LoRA, MLP in portions": {"method": "lora", "mlp_chunk": 512},
    "LoRA on few layers": {"method": "lora", "lora_rank": 16, "lora_targets": FEW},
    "LoRA on few layers, kept": {**NO_RECOMPUTING, "method": "lora", "lora_targets": FEW},
    "LoRA, HD": {**HD, "method": "lora"},
    "projector": {"method": "projector"},
    "projector, plain": {**PLAIN, "method": "projector"},
}


@pytest.mark.parametrize("name", CASES)
def test_the_peak_of_the_real_code_is_predicted(name: str):
    settings = replace(LEAN, **CASES[name])
    counted = simulate(SHAPE, settings)
    prediction = predict(SHAPE, settings)
    # Optimizers are not simulated: their states are taken off what is predicted.
    predicted = max(
        size - prediction.held[moment]["optimizer"]
        for moment, size in prediction.moments.items()
        if moment not in ("loading", "optimizer")
    )
    peak = max(size for moment, size in counted.items() if moment != "weights")
    assert counted["weights"] == pytest.approx(prediction.held["vision"]["weights"], rel=0.005)
    gradients = prediction.held["optimizer"]["gradients"]
    assert counted["end"] - counted["weights"] == pytest.approx(gradients, rel=0.01, abs=1 << 28)
    assert -0.015 < predicted / peak - 1 < 0.035, (predicted / 2**30, peak / 2**30)
    assert set(prediction.parts) > set(STATIC)
