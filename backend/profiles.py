"""What a profile starts a stage with, where that differs from the stage's own defaults."""

from __future__ import annotations

from typing import Any

from backend.workspace import Profile, Workspace

_NANO: dict[str, Any] = {
    "precision": "fp32",
    "micro_batch_size": 16,
    "activation_checkpointing": False,
    "model_max_length": 512,
    "drop_path": False,
    "max_grad_norm": 1.0,
    "save_steps": 50,
}
"""Training of the nano model on a CPU: fp32 throughout, and memory is no concern."""
_DEFAULTS: dict[Profile, dict[str, dict[str, Any]]] = {
    "starter": {
        "prepare": {"sample_cap": 2000},
        "pretrain": _NANO | {"global_batch_size": 16, "learning_rate": 2e-3, "epochs": 2.0},
        "finetune": _NANO
        | {
            "method": "lora",
            "lora_rank": 16,
            "lora_alpha": 32.0,
            "lora_dropout": 0.0,
            "global_batch_size": 8,
            "micro_batch_size": 8,
            "learning_rate": 1e-3,
            "epochs": 2.0,
        },
        "evaluate": {"batch_size": 64},
        "loop": {"method": "lora", "sample_cap": 2000},
    },
    "mgm-2b": {
        "pretrain": {"mining_checkpointing": True, "tower_chunk": 1},
        "finetune": {"preset": "fit-24gb-full"},
    },
}


def defaults(workspace: Workspace, stage: str) -> dict[str, Any]:
    """Parameters of `stage` that this workspace's profile sets otherwise; may be empty.

    The profile `mgm-2b` keeps the kit's recipe and changes only what makes it fit a 24 GB card.
    """
    return dict(_DEFAULTS[workspace.settings.profile].get(stage, {}))
