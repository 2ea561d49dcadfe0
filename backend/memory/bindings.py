"""Between a stage's parameters and `MemorySettings`: which parameter is which lever."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from backend.errors import UsageError
from backend.memory.settings import MemorySettings
from backend.training.presets import PRESETS

GLOBAL_BATCH = {"pretrain": 256, "finetune": 128}
"""The kit's, per stage."""
KIT: dict[str, Any] = {**PRESETS["kit"], "model_max_length": 2048}
"""The kit's recipe, as far as memory depends on it: what a parameter is that nobody names."""
RENAMED = {"positions": "model_max_length"}
"""Settings whose parameter has another name."""
DERIVED = ("gradient_accumulation", "label_fraction", "images_per_sample", "views")
"""Settings that no parameter names: they follow from the data and the batch sizes."""


def settings_of(stage: str, parameters: dict[str, Any]) -> MemorySettings:
    """The settings that a stage's parameters ask for.

    Args:
        stage: `pretrain` or `finetune`.
        parameters: Of the stage; those that are missing have their preset's values, or the kit's.

    Raises:
        UsageError: The stage does not train, or the parameters contradict each other.
    """
    if stage not in GLOBAL_BATCH:
        raise UsageError("only pretrain and finetune are planned.", place=stage)
    chosen = PRESETS.get(str(parameters.get("preset", "custom")), {})
    given = {key: value for key, value in parameters.items() if value is not None}
    values = {**KIT, **chosen, **given}
    if stage == "pretrain":
        values["method"] = "projector"
    known = {
        field.name: values[RENAMED.get(field.name, field.name)]
        for field in fields(MemorySettings)
        if RENAMED.get(field.name, field.name) in values
    }
    if "lora_targets" in known:
        known["lora_targets"] = tuple(known["lora_targets"])
    devices = int(known.get("devices", 1))
    micro = int(known["micro_batch_size"])
    batch = int(values.get("global_batch_size", GLOBAL_BATCH[stage]))
    known["gradient_accumulation"] = max(1, batch // (micro * devices))
    return MemorySettings(**known)


def parameters_of(changes: dict[str, Any]) -> dict[str, Any]:
    """Changed settings as parameters of the stage; derived ones are left out."""
    return {
        RENAMED.get(name, name): list(value) if isinstance(value, tuple) else value
        for name, value in changes.items()
        if name not in DERIVED
    }
