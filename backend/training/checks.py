"""What would make a training run fail or disappoint, found before it starts and without torch."""

from __future__ import annotations

from typing import Any, Literal

from backend.errors import SynthLoopError
from backend.stages.base import Problem
from backend.training.parameters import TrainingParameters
from backend.training.sources import MODEL_ASSETS, projector_file, training_source
from backend.workspace import Workspace

KIT_RULES: dict[str, dict[str, Any]] = {
    "pretrain": {"global_batch_size": 256, "seed": 1024},
    "finetune": {"global_batch_size": 128, "seed": 1024},
}
"""What the challenge fixes for the profile mgm-2b."""


def training_problems(
    workspace: Workspace, parameters: TrainingParameters, *, stage: Literal["pretrain", "finetune"]
) -> list[Problem]:
    """Everything that the files and the parameters tell beforehand."""
    return [
        *_batch_problems(parameters),
        *_lever_problems(parameters),
        *_asset_problems(workspace),
        *_input_problems(workspace, parameters, stage),
        *_rule_problems(workspace, parameters, stage),
    ]


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


def _lever_problems(parameters: TrainingParameters) -> list[Problem]:
    problems = []
    if parameters.offload != "none" and parameters.zero_stage == 0:
        problems.append(Problem("error", "offload_without_zero", {}, "offload"))
    if parameters.offload == "optimizer_parameters" and parameters.zero_stage != 3:
        problems.append(Problem("error", "offload_parameters_needs_zero3", {}, "offload"))
    return problems


def _asset_problems(workspace: Workspace) -> list[Problem]:
    return [
        Problem("error", "asset_missing", {"asset": name, "path": str(path)}, str(path))
        for name in MODEL_ASSETS
        if not (path := workspace.asset(name)).is_dir()
    ]


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
    return [
        Problem("warning", "kit_rule", {"field": field, "value": value, "rule": rule}, field)
        for field, rule in KIT_RULES[stage].items()
        if (value := getattr(parameters, field)) != rule
    ]
