"""Measure a few real training steps: the longest batch, at the chosen configuration, here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from backend.files import write_json
from backend.memory.parts import STATIC
from backend.memory.probes import ratio, record, usable
from backend.stages import finetune
from backend.stages.base import Problem, StageContext, parameter, stage_main
from backend.training.checks import training_problems
from backend.training.parameters import TrainingParameters
from backend.workspace import Workspace

if TYPE_CHECKING:
    from backend.memory.measuring import Measured
    from backend.memory.parts import Prediction
    from backend.memory.settings import MemorySettings

STEPS = 3
MICRO_BATCHES = 2
"""Of each step, at most."""


FINETUNE_ONLY = ("projector", "method", "lora_rank", "lora_alpha", "lora_dropout", "lora_targets")
"""Parameters that pretraining does not have."""


class Parameters(finetune.FinetuneStep):
    """A training's own as far as a single step depends on them, and which one it is."""

    trains: Literal["finetune", "pretrain"] = parameter("finetune", fold="recipe")

    @model_validator(mode="before")
    @classmethod
    def _leave_out_a_presets_method(cls, values: Any) -> Any:
        """Pretraining has none, and takes the rest of the preset."""
        if isinstance(values, dict) and values.get("trains") == "pretrain":
            return {"method": cls.model_fields["method"].default} | values
        return values


def preflight(workspace: Workspace, parameters: Parameters) -> list[Problem]:
    """What the training's preflight finds, and what a probe cannot measure."""
    found = []
    if parameters.launched:
        found.append(Problem("error", "probe_alone", {}, "zero_stage"))
    if parameters.trains == "pretrain":
        fields = Parameters.model_fields
        found += [
            Problem("error", "probe_pretrains", {"field": name}, name)
            for name in FINETUNE_ONLY
            if getattr(parameters, name) != fields[name].default
        ]
    training = _training(parameters)
    found += training_problems(workspace, training, stage=parameters.trains, saves=False)
    return found


def main(context: StageContext, parameters: Parameters) -> None:
    """Write artifacts/probe.json, and keep what it measured for later predictions."""
    from backend.memory.measuring import metered
    from backend.training.probing import ProbedTrainer

    training = _training(parameters)
    module = importlib.import_module(f"backend.stages.{parameters.trains}")
    job = module.job(context.workspace, training)
    # The second micro-batch finds the gradients of the first, as every later one does.
    few = min(MICRO_BATCHES, training.micro_batches) * training.micro_batch_size
    trainer = ProbedTrainer(context, training.model_copy(update={"global_batch_size": few}), job)
    trainer.total = STEPS
    with metered(trainer.engine, trainer.meter):
        for _ in range(STEPS):
            context.check_stop()
            trainer.probe_step()
    trainer.log.flush()
    settings, prediction = trainer.expected
    measured, device = trainer.meter.found, trainer.device_name
    write_result(context, parameters, settings, prediction, measured, device)


def write_result(
    context: StageContext,
    parameters: Parameters,
    settings: MemorySettings,
    prediction: Prediction,
    measured: Measured,
    device: str | None,
) -> None:
    """Keep a probe's figures beside its run and, of a GPU, among the workspace's probes."""
    factor = None if device is None else ratio(prediction, measured.moments)
    result: dict[str, Any] = {
        "device": device,
        "stage": parameters.trains,
        "settings": vars(settings),
        "predicted": prediction.to_dict(),
        "expected": {name: prediction.held["optimizer"][name] for name in STATIC},
        "measured": measured.to_dict(),
        "ratio": factor,
    }
    write_json(context.artifacts / "probe.json", result)
    if device is None or factor is None:
        context.event("info", "probe_host_only")
        return
    told = {"device": device, "ratio": f"{factor:.3f}"}
    if usable(factor):
        context.event("info", "probe_measured", **told)
    else:
        context.event("warning", "probe_far_off", **told)
    kept = {key: result[key] for key in ("stage", "settings", "measured", "ratio")}
    record(context.workspace, device, {"run": context.run.id, **kept})


def _training(parameters: Parameters) -> TrainingParameters:
    """The parameters of the training stage alone."""
    module = importlib.import_module(f"backend.stages.{parameters.trains}")
    kind: type[TrainingParameters] = module.Parameters
    values = parameters.model_dump()
    return kind.model_validate({k: v for k, v in values.items() if k in kind.model_fields})


if __name__ == "__main__":
    stage_main(Parameters, main)
