"""The configuration of a training of the kit, from the command line that its log shows."""

from __future__ import annotations

import base64
import binascii
import json
import re
import shlex
from typing import Any

from backend.errors import SynthLoopError
from backend.memory.bindings import settings_of
from backend.memory.settings import MemorySettings

_COMMAND = re.compile(r"^.*--model_name_or_path .*$", re.MULTILINE)
_WORLD = re.compile(r"--world_info[= ](\S+)")
_PROCESSES = re.compile(r"--(?:num_gpus|nproc_per_node|num_processes)[= ](\d+)")


def kit_configuration(text: str) -> tuple[str, MemorySettings] | None:
    """Stage and settings that the log's first command line asks for.

    Args:
        text: The log; only its first command line is read.

    Returns:
        None when no command of the kit is shown, or when it is not understood.
    """
    found = _COMMAND.search(text)
    if found is None:
        return None
    try:
        options = _options(found.group())
        stage = "pretrain" if _yes(options, "tune_mm_mlp_adapter") else "finetune"
        return stage, settings_of(stage, _parameters(stage, options, found.group()))
    except (ValueError, SynthLoopError):
        return None


def _options(command: str) -> dict[str, str]:
    words = shlex.split(command)
    options: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            options[name] = value or ("True" if following.startswith("--") else following)
    return options


def _yes(options: dict[str, str], name: str) -> bool:
    return options.get(name, "False").lower() == "true"


def _parameters(stage: str, options: dict[str, str], command: str) -> dict[str, Any]:
    micro = int(options.get("per_device_train_batch_size", 8))
    devices = _devices(command)
    grid = int(options.get("image_grid", 1))
    values: dict[str, Any] = {
        "micro_batch_size": micro,
        "devices": devices,
        "global_batch_size": micro * devices * int(options.get("gradient_accumulation_steps", 1)),
        "model_max_length": int(options.get("model_max_length", 512)),
        "activation_checkpointing": _yes(options, "gradient_checkpointing"),
        "attention": "flash_attention_2" if "train_mem.py" in command else "sdpa",
        "image_grid": grid,
        "image_global": _yes(options, "image_global"),
        "image_size_aux": int(options.get("image_size_aux", 0)),
        **_zero(options.get("deepspeed", "")),
    }
    if stage == "finetune":
        lora = _yes(options, "lora_enable")
        values["method"] = ("qlora" if options.get("bits") == "4" else "lora") if lora else "full"
        values["lora_rank"] = int(options.get("lora_r", 64))
        values["lora_dropout"] = float(options.get("lora_dropout", 0.05))
    return values


def _zero(config: str) -> dict[str, Any]:
    """ZeRO stage and offload, from the name of DeepSpeed's file: its text is not in the log."""
    found = re.search(r"zero([0-3])(\w*offload)?", config)
    if found is None:
        return {"zero_stage": 0, "offload": "none", "precision": "bf16"}
    stage = int(found[1])
    offload = "none" if not found[2] else "optimizer_parameters" if stage == 3 else "optimizer"
    return {"zero_stage": stage, "offload": offload}


def _devices(command: str) -> int:
    if found := _WORLD.search(command):
        try:
            world = json.loads(base64.urlsafe_b64decode(found[1]))
        except (binascii.Error, ValueError):
            return 1
        return max(1, sum(len(places) for places in world.values()))
    return int(found[1]) if (found := _PROCESSES.search(command)) else 1
