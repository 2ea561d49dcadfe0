"""What a training run writes to disk, told beforehand from the sizes of its model."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from backend.memory import costs
from backend.memory.bindings import settings_of
from backend.memory.shapes import ModelShape
from backend.training.parameters import TrainingParameters
from backend.workspace import Workspace


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
    stage = "pretrain" if parameters.trained_part == "projector" else "finetune"
    settings = settings_of(stage, parameters.model_dump())
    trained = costs.trained_parameters(shape, settings)
    weights = trained * (costs.FULL if parameters.precision == "fp32" else costs.HALF)
    checkpoint = weights + round(sum(costs.optimizer_bytes(shape, settings)))
    frozen = shape.parameters - trained if parameters.trained_part == "full" else 0
    result = weights + costs.HALF * frozen
    kept = parameters.save_total_limit or workspace.settings.retention_checkpoints
    # Without intervals only a stop saves one.
    kept = kept if parameters.save_steps else 0
    most = kept * checkpoint + max(checkpoint, result)
    return Room(checkpoint, result, most, shutil.disk_usage(workspace.root).free)
