"""Memory presets by name: values of training parameters that belong together."""

from __future__ import annotations

from typing import Any, Literal

PresetName = Literal[
    "custom",
    "kit",
    "fit-24gb-full",
    "fit-16gb-full",
    "fit-12gb-lora",
    "fit-8gb-qlora",
    "fastest",
]

_LEAN: dict[str, Any] = {
    "activation_checkpointing": True,
    "mining_checkpointing": True,
    "tower_chunk": 1,
    "loss_chunk": 256,
    "mlp_chunk": 0,
    "attention": "auto",
    "compile": False,
    "zero_stage": 0,
    "offload": "none",
}
_LEANEST = {**_LEAN, "mlp_chunk": 1024, "loss_chunk": 128}
_ADAPTER: dict[str, Any] = {"learning_rate": 2e-4}

PRESETS: dict[str, dict[str, Any]] = {
    "custom": {},
    "kit": {
        "method": "full",
        "micro_batch_size": 4,
        "precision": "fp32_master",
        "optimizer": "adamw",
        "activation_checkpointing": True,
        "mining_checkpointing": False,
        "tower_chunk": 0,
        "loss_chunk": 0,
        "mlp_chunk": 0,
        "attention": "auto",
        "compile": False,
        "zero_stage": 2,
        "offload": "optimizer",
    },
    "fit-24gb-full": {
        **_LEAN,
        "method": "full",
        "micro_batch_size": 4,
        "precision": "bf16_stochastic",
        "optimizer": "adamw_8bit",
    },
    "fit-16gb-full": {
        **_LEANEST,
        "method": "full",
        "micro_batch_size": 4,
        "precision": "bf16_stochastic",
        "optimizer": "paged_adamw_8bit",
    },
    "fit-12gb-lora": {
        **_LEANEST,
        **_ADAPTER,
        "method": "lora",
        "micro_batch_size": 4,
        "precision": "fp32_master",
        "optimizer": "adamw",
    },
    "fit-8gb-qlora": {
        **_LEANEST,
        **_ADAPTER,
        "method": "qlora",
        "micro_batch_size": 4,
        "precision": "fp32_master",
        "optimizer": "adamw",
    },
    "fastest": {
        "method": "full",
        "micro_batch_size": 4,
        "precision": "fp32_master",
        "optimizer": "adamw",
        "activation_checkpointing": False,
        "mining_checkpointing": False,
        "tower_chunk": 0,
        "loss_chunk": 1024,
        "mlp_chunk": 0,
        "attention": "auto",
        "compile": True,
        "image_workers": 8,
        "zero_stage": 0,
        "offload": "none",
    },
}
"""Parameters that a stage does not have (pretraining has no method) are left out there."""
