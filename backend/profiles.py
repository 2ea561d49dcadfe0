"""What a profile starts a stage with, where that differs from the stage's own defaults."""

from __future__ import annotations

from typing import Any

from backend.stages.base import StageParameters
from backend.training.presets import PRESETS
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


def asked(profile: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """What a stage is started with: the profile's values below those chosen.

    Order: stage < profile < preset < chosen. The stage's model fills in its own defaults and the
    preset's values, so what the preset names is not taken from the profile.

    Args:
        profile: `defaults` of the stage.
        chosen: Parameters that a person or a loop names.
    """
    preset = PRESETS.get(str((profile | chosen).get("preset")), {})
    return {name: value for name, value in profile.items() if name not in preset} | chosen


def filled(
    kind: type[StageParameters], profile: dict[str, Any], chosen: dict[str, Any]
) -> dict[str, Any]:
    """`asked` with every other parameter of the stage as it comes out, none of them checked."""
    fields = kind.model_fields
    own = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    preset = (profile | chosen).get("preset", own.get("preset"))
    return own | preset_values(kind, preset) | asked(profile, chosen)


def preset_values(kind: type[StageParameters], preset: Any) -> dict[str, Any]:
    """What a preset sets of the stage's parameters; nothing for a name that is none."""
    fields = kind.model_fields
    named = PRESETS.get(str(preset), {}) if "preset" in fields else {}
    return {name: value for name, value in named.items() if name in fields}
