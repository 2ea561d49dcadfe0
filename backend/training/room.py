"""What a training run writes to disk, told beforehand from the sizes of its model."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from backend.memory.shapes import ModelShape
from backend.training.parameters import TrainingParameters
from backend.workspace import Workspace

_STATES = {"adamw": 8, "adamw_bf16": 4, "adamw_8bit": 2, "paged_adamw_8bit": 2}
"""Bytes of the optimizer's two states for each trained value."""


@dataclass(frozen=True)
class Room:
    """Bytes on disk.

    Attributes:
        checkpoint: One checkpoint to resume from: trained weights, their fp32 master where there
            is one, and the optimizer's states.
        result: What the run leaves in the end.
        most: At the fullest moment, when a further checkpoint, or the result, is being written
            beside those that are kept.
        free: Where the workspace lies.
    """

    checkpoint: int
    result: int
    most: int
    free: int


def room(workspace: Workspace, parameters: TrainingParameters) -> Room:
    """The room that a run of these parameters takes.

    Raises:
        InputError: A configuration of the model zoo is missing or broken.
    """
    shape = ModelShape.of_workspace(workspace)
    full = parameters.trained_part == "full"
    trained = shape.projector_parameters
    if full:
        trained += shape.language.parameters
    elif parameters.trained_part != "projector":
        rank, targets = getattr(parameters, "lora_rank"), getattr(parameters, "lora_targets")  # noqa: B009
        trained += shape.language.adapter_parameters(rank, targets)
    weight = 4 if parameters.precision == "fp32" else 2
    master = 4 if parameters.precision == "fp32_master" else 0
    checkpoint = trained * (weight + master + _STATES[parameters.optimizer])
    frozen = shape.parameters - trained if full else 0
    result = trained * weight + 2 * frozen
    kept = parameters.save_total_limit or workspace.settings.retention_checkpoints
    # Without intervals only a stop saves one.
    kept = kept if parameters.save_steps else 0
    most = kept * checkpoint + max(checkpoint, result)
    return Room(checkpoint, result, most, shutil.disk_usage(workspace.root).free)
