"""Align pictures with the language model: train the projector and the mining layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backend.stages.base import Problem, StageContext, parameter, stage_main
from backend.training.checks import training_problems
from backend.training.launching import train
from backend.training.parameters import TrainingParameters
from backend.training.sources import training_source
from backend.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from backend.mgm.checkpoints import MGM
    from backend.training.trainer import Job


class Parameters(TrainingParameters):
    """The kit's first stage."""

    data: str = parameter("", fold="data", kind="run", stages=("prepare",))


def preflight(workspace: Workspace, parameters: Parameters) -> list[Problem]:
    """Data, towers, disk and the challenge's rules."""
    return training_problems(workspace, parameters, stage="pretrain")


def main(context: StageContext, parameters: Parameters) -> None:
    """Write `mm_projector.bin` and `config.json`."""
    train(context, parameters, job)


def job(workspace: Workspace, parameters: Any) -> Job:
    """What the training loop is asked for."""
    from backend.training.trainer import Job

    return Job(
        training_source(workspace, parameters.data, parameters.image_root, asset="seed"), save
    )


def save(folder: Path, mgm: MGM, weights: dict[str, Tensor] | None) -> None:
    """The stage's result, as the kit writes it."""
    from backend.mgm import checkpoints

    checkpoints.save_projector(
        folder / "mm_projector.bin", mgm.model, towers=False, weights=weights
    )
    checkpoints.save_config(folder, mgm.model.config)


if __name__ == "__main__":
    stage_main(Parameters, main)
