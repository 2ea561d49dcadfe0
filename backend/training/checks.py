"""What would make a training run fail or disappoint, found before it starts and without torch."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

from backend.errors import SynthLoopError
from backend.formats.json_array import array_objects
from backend.gpu import visible_cards
from backend.memory.settings import MemorySettings
from backend.memory.shapes import ModelShape
from backend.profiles import defaults
from backend.stages.base import Problem
from backend.training.parameters import TrainingParameters
from backend.training.presets import PRESETS
from backend.training.room import room
from backend.training.sources import MODEL_ASSETS, projector_file, training_source
from backend.workspace import Workspace

_KIT: dict[str, Any] = {
    "seed": 1024,
    "scheduler": "cosine",
    "warmup_ratio": 0.03,
    "weight_decay": 0.0,
    "max_grad_norm": 0.0,
    "epochs": 1.0,
    "max_steps": None,
    "model_max_length": 2048,
    "drop_path": True,
    "image_size_aux": 0,
    "image_grid": 1,
    "image_global": False,
}
KIT_RULES: dict[str, dict[str, Any]] = {
    "pretrain": {
        **_KIT,
        "global_batch_size": 256,
        "learning_rate": 1e-3,
        "image_mode": "square",
    },
    "finetune": {
        **_KIT,
        "global_batch_size": 128,
        "learning_rate": 2e-5,
        "image_mode": "pad",
        "method": "full",
        "group_by_modality_length": True,
    },
}
"""What the challenge fixes for the profile mgm-2b: the recipe of its training script.

Micro-batch, devices, workers and intervals are free there; how memory is saved is this studio's.
"""
KIT_PICTURE = 768
"""Side of the high-resolution picture, which is also what 0 means for the kit's towers."""
SAMPLE_LIMIT = 200_000
"""Samples that may enter pretraining."""
VISIBLE_RATE = 2e-4
"""AdamW moves a weight by about the learning rate; half a step of bf16 is 2^-9 of a weight, and
weights are about 0.02 to 0.1. Measured at 2e-5: `tests/benchmarks/README.md`."""
ZERO_PRECISIONS = ("fp32", "fp32_master")
ADAPTERS = ("lora", "qlora")
EIGHT_BIT = ("adamw_8bit", "paged_adamw_8bit")


def training_problems(
    workspace: Workspace,
    parameters: TrainingParameters,
    *,
    stage: Literal["pretrain", "finetune"],
    saves: bool = True,
) -> list[Problem]:
    """Everything that the files and the parameters tell beforehand.

    Args:
        workspace: Whose files.
        parameters: Of the stage.
        stage: Which one.
        saves: Whether it leaves checkpoints and a result.
    """
    return [
        *configuration_problems(workspace, parameters, stage),
        *machine_problems(parameters),
        *_asset_problems(workspace),
        *(_disk_problems(workspace, parameters) if saves else []),
        *_input_problems(workspace, parameters, stage),
        *_rule_problems(workspace, parameters, stage),
    ]


def configuration_problems(
    workspace: Workspace, parameters: TrainingParameters, stage: str
) -> list[Problem]:
    """What does not fit together on any machine, has no effect, or teaches next to nothing."""
    return [
        *_batch_problems(parameters),
        *_zero_problems(parameters),
        *_room_problems(workspace, parameters),
        *_rounding_problems(parameters),
        *_idle_problems(workspace, parameters, stage),
        *_rate_problems(parameters),
    ]


def machine_problems(parameters: TrainingParameters) -> list[Problem]:
    """Levers that need a package, or more cards than this machine has."""
    return [*_package_problems(parameters), *_card_problems(parameters)]


def _batch_problems(parameters: TrainingParameters) -> list[Problem]:
    together = parameters.micro_batch_size * parameters.devices
    if parameters.global_batch_size % together == 0:
        return []
    values = {
        "batch": parameters.global_batch_size,
        "micro": parameters.micro_batch_size,
        "devices": parameters.devices,
    }
    return [Problem("error", "batch_not_divisible", values, "global_batch_size")]


def _rounding_problems(parameters: TrainingParameters) -> list[Problem]:
    """All weights in bf16 alone: an update below half a step of a weight rounds away."""
    rate = parameters.learning_rate
    if parameters.precision != "bf16" or parameters.trained_part != "full" or rate >= VISIBLE_RATE:
        return []
    return [Problem("warning", "updates_vanish", {"rate": f"{rate:g}"}, "precision")]


def _rate_problems(parameters: TrainingParameters) -> list[Problem]:
    """An adapter at the rate of full fine-tuning."""
    rate, full = parameters.learning_rate, KIT_RULES["finetune"]["learning_rate"]
    if parameters.trained_part not in ADAPTERS or rate > full:
        return []
    values = {"rate": f"{rate:g}", "usual": f"{PRESETS['fit-12gb-lora']['learning_rate']:g}"}
    return [Problem("warning", "adapter_rate", values, "learning_rate")]


def _room_problems(workspace: Workspace, parameters: TrainingParameters) -> list[Problem]:
    """A picture that fills the row, so that every label would be cut off."""
    hd = MemorySettings(image_grid=parameters.image_grid, image_global=parameters.image_global)
    try:
        positions = hd.views * ModelShape.of_workspace(workspace).image_tokens
    except SynthLoopError:
        # A tower that is missing or broken is told of elsewhere.
        return []
    if positions < parameters.model_max_length:
        return []
    values = {"positions": f"{positions:,}", "length": f"{parameters.model_max_length:,}"}
    return [Problem("error", "no_room_for_text", values, "model_max_length")]


def _idle_problems(
    workspace: Workspace, parameters: TrainingParameters, stage: str
) -> list[Problem]:
    """Parameters that somebody set and that nothing reads."""
    because: dict[str, str] = {}
    if not parameters.launched:
        because["launcher"] = "devices=1, zero_stage=0"
    if parameters.image_grid == 1:
        because["image_global"] = "image_grid=1"
    if parameters.trained_part not in ADAPTERS:
        adapter = [name for name in type(parameters).model_fields if name.startswith("lora_")]
        because |= dict.fromkeys(adapter, f"method={parameters.trained_part}")
    profile = defaults(workspace, stage)
    found = []
    for field, condition in because.items():
        value, own = getattr(parameters, field), type(parameters).model_fields[field].default
        if value not in (own, profile.get(field, own)):
            values = {"field": field, "value": value, "condition": condition}
            found.append(Problem("warning", "no_effect", values, field))
    return found


def _zero_problems(parameters: TrainingParameters) -> list[Problem]:
    problems = []
    stage = parameters.zero_stage
    if parameters.offload != "none" and stage == 0:
        problems.append(Problem("error", "offload_without_zero", {}, "offload"))
    if parameters.offload == "optimizer_parameters" and stage != 3:
        problems.append(Problem("error", "offload_parameters_needs_zero3", {}, "offload"))
    if stage and parameters.optimizer != "adamw":
        chosen: dict[str, Any] = {"optimizer": parameters.optimizer}
        problems.append(Problem("error", "zero_optimizer", chosen, "optimizer"))
    if stage and parameters.precision not in ZERO_PRECISIONS:
        chosen = {"precision": parameters.precision}
        problems.append(Problem("error", "zero_precision", chosen, "precision"))
    if stage == 3 and parameters.trained_part == "qlora":
        problems.append(Problem("error", "zero3_quantized", {}, "zero_stage"))
    if stage == 3 and parameters.devices > 1:
        # Processes gather each layer together, so all must pass it equally often.
        problems += [
            Problem("error", "zero3_chunks", {"field": field}, field)
            for field in ("tower_chunk", "mlp_chunk")
            if getattr(parameters, field)
        ]
    if stage == 3 and parameters.compile:
        problems.append(Problem("error", "zero3_compiled", {}, "compile"))
    return problems


def _package_problems(parameters: TrainingParameters) -> list[Problem]:
    wanted = []
    if parameters.attention == "flash_attention_2":
        wanted.append(("flash_attn", "attention", "flash_attention_2", "sdpa"))
    if parameters.optimizer in EIGHT_BIT:
        wanted.append(("bitsandbytes", "optimizer", parameters.optimizer, "adamw"))
    if parameters.trained_part == "qlora":
        wanted.append(("bitsandbytes", "method", "qlora", "lora"))
    if parameters.zero_stage:
        wanted.append(("deepspeed", "zero_stage", str(parameters.zero_stage), "0"))
    if parameters.launched and parameters.launcher == "deepspeed":
        wanted.append(("deepspeed", "launcher", "deepspeed", "torchrun"))
    return [
        Problem(
            "error",
            "package_for_lever",
            {"package": package, "field": field, "value": value, "other": other},
            field,
        )
        for package, field, value, other in wanted
        if importlib.util.find_spec(package) is None
    ]


def _card_problems(parameters: TrainingParameters) -> list[Problem]:
    """Processes beyond the visible cards; without a card they share the processor."""
    if parameters.devices == 1:
        return []
    cards = len(visible_cards())
    if not cards or parameters.devices <= cards:
        return []
    values = {"devices": parameters.devices, "cards": cards}
    return [Problem("error", "devices_beyond_cards", values, "devices")]


def _asset_problems(workspace: Workspace) -> list[Problem]:
    return [
        Problem("error", "asset_missing", {"asset": name, "path": str(path)}, str(path))
        for name in MODEL_ASSETS
        if not (path := workspace.asset(name)).is_dir()
    ]


def _disk_problems(workspace: Workspace, parameters: TrainingParameters) -> list[Problem]:
    """Too little room: an error when not even the result fits, else a warning."""
    try:
        needed = room(workspace, parameters)
    except SynthLoopError:
        # A model zoo that is missing or broken is told of elsewhere.
        return []
    if needed.free >= needed.most:
        return []
    values = {
        name: f"{getattr(needed, name) / (1 << 30):,.1f} GiB"
        for name in ("most", "checkpoint", "result", "free")
    }
    level: Literal["error", "warning"] = "error" if needed.free < needed.result else "warning"
    return [Problem(level, "disk_room", values, str(workspace.root))]


def _input_problems(
    workspace: Workspace, parameters: TrainingParameters, stage: str
) -> list[Problem]:
    asset = "seed" if stage == "pretrain" else "finetune"
    values: Any = parameters
    try:
        source = training_source(workspace, values.data, parameters.image_root, asset=asset)
        if stage == "finetune":
            projector_file(workspace, values.projector)
    except SynthLoopError as error:
        place = error.place or "data"
        return [Problem("error", "training_input", {"problem": error.problem}, place)]
    return [
        Problem("error", "training_file_missing", {"path": str(path)}, str(path))
        for path in source
        if not path.exists()
    ]


def _rule_problems(
    workspace: Workspace, parameters: TrainingParameters, stage: str
) -> list[Problem]:
    if workspace.settings.profile != "mgm-2b":
        return []
    problems = [
        Problem("warning", "kit_rule", {"field": field, "value": value, "rule": rule}, field)
        for field, rule in KIT_RULES[stage].items()
        if (value := getattr(parameters, field)) != rule
        and not (field == "image_size_aux" and value == KIT_PICTURE)
    ]
    given = parameters.model_dump()
    if stage == "finetune" and given.get("continue_from"):
        problems.append(Problem("warning", "kit_continued", {}, "continue_from"))
    elif stage == "finetune" and not given.get("projector"):
        problems.append(Problem("warning", "kit_projector", {}, "projector"))
    count = _samples(workspace, parameters) if stage == "pretrain" else None
    if count is not None and count > SAMPLE_LIMIT:
        values = {"count": f"{count:,}", "limit": f"{SAMPLE_LIMIT:,}"}
        problems.append(Problem("warning", "kit_samples", values, "data"))
    return problems


def _samples(workspace: Workspace, parameters: Any) -> int | None:
    """How many samples pretraining would read; None where that is another problem's matter."""
    try:
        file, _ = training_source(workspace, parameters.data, parameters.image_root, asset="seed")
        return sum(1 for _ in array_objects(file))
    except SynthLoopError:
        return None
