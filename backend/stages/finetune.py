"""Teach the model to follow instructions: the language model or adapters, and the projector."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from backend.bases import located
from backend.errors import SynthLoopError
from backend.mgm.lora import Lora, read_adapter_config
from backend.stages.base import Problem, StageContext, parameter, stage_main
from backend.stages.checkpoint_input import checkpoint_problem
from backend.training.checks import training_problems
from backend.training.launching import train
from backend.training.parameters import ImageMode, StepParameters, TrainingParameters
from backend.training.sources import projector_file, training_source
from backend.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from backend.mgm.checkpoints import MGM
    from backend.training.trainer import Job

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGETS: list[Target] = [
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
]  # fmt: skip

ADAPTERS = {"method": ("lora", "qlora")}
"""With which parameters those of the adapters matter."""


class FinetuneStep(StepParameters):
    """What a step of the kit's second stage depends on."""

    data: str = parameter("", fold="data", kind="path")
    projector: str = parameter("", fold="data", kind="run", stages=("pretrain",))
    method: Literal["full", "lora", "qlora"] = parameter("full", fold="recipe")
    image_mode: ImageMode = parameter("pad", fold="data")
    learning_rate: float = parameter(2e-5, fold="recipe", gt=0)
    global_batch_size: int = parameter(128, fold="recipe", ge=1)
    lora_rank: int = parameter(64, fold="recipe", only=ADAPTERS, ge=1, le=1024)
    lora_alpha: float = parameter(16.0, fold="recipe", only=ADAPTERS, gt=0)
    lora_dropout: float = parameter(0.05, fold="recipe", only=ADAPTERS, ge=0, lt=1)
    lora_targets: list[Target] = parameter(TARGETS, fold="recipe", only=ADAPTERS, min_length=1)


class Parameters(FinetuneStep, TrainingParameters):
    """The kit's second stage."""

    continue_from: str = parameter("", fold="data", kind="run", stages=("finetune", "merge"))
    group_by_modality_length: bool = parameter(True, fold="recipe")


def preflight(workspace: Workspace, parameters: Parameters) -> list[Problem]:
    """Data, projector, towers, disk and the challenge's rules."""
    return [
        *training_problems(workspace, parameters, stage="finetune"),
        *_start_problems(workspace, parameters),
    ]


def _start_problems(workspace: Workspace, parameters: Parameters) -> list[Problem]:
    """What contradicts the checkpoint to continue from."""
    if not parameters.continue_from:
        return []
    problems = []
    if parameters.projector:
        problems.append(Problem("error", "continue_projector", {}, "projector"))
    try:
        start = located(workspace, parameters.continue_from)
        if not start.adapter:
            return problems
        lora = read_adapter_config(start.folder)
    except SynthLoopError as error:
        return [*problems, checkpoint_problem(error, "continue_from")]
    if parameters.method not in ADAPTERS["method"]:
        told = {"method": parameters.method}
        return [*problems, Problem("error", "continue_method", told, "method")]
    for field, value, wanted in (
        ("lora_rank", parameters.lora_rank, lora.rank),
        ("lora_alpha", parameters.lora_alpha, lora.alpha),
        ("lora_targets", sorted(parameters.lora_targets), sorted(lora.targets)),
    ):
        if value != wanted:
            values = {"field": field, "value": _told(value), "wanted": _told(wanted)}
            problems.append(Problem("error", "continue_mismatch", values, field))
    return problems


def _told(value: Any) -> str:
    """As `-p field=value` takes it."""
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def main(context: StageContext, parameters: Parameters) -> None:
    """Write a full checkpoint, or an adapter with its projector, in the kit's layout."""
    train(context, parameters, job)


def job(workspace: Workspace, parameters: Any) -> Job:
    """What the training loop is asked for."""
    from backend.training.trainer import Job

    return Job(
        training_source(workspace, parameters.data, parameters.image_root, asset="finetune"),
        save,
        projector=projector_file(workspace, parameters.projector),
        lora=_lora(parameters),
        start=located(workspace, parameters.continue_from) if parameters.continue_from else None,
        group=parameters.group_by_modality_length,
    )


def _lora(parameters: Parameters) -> Lora | None:
    if parameters.method == "full":
        return None
    return Lora(
        parameters.lora_rank,
        parameters.lora_alpha,
        parameters.lora_dropout,
        tuple(parameters.lora_targets),
    )


def save(folder: Path, mgm: MGM, weights: dict[str, Tensor] | None) -> None:
    """The stage's result, as the kit writes it."""
    from backend.mgm import adapters, checkpoints

    adapted = adapters.adapted_layers(mgm.model)
    write = adapters.save_adapter if adapted else checkpoints.save
    write(folder, mgm.model, mgm.processor, weights=weights)


if __name__ == "__main__":
    stage_main(Parameters, main)
