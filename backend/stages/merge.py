"""Add an adapter into the weights it stands on: a full checkpoint in the kit's layout."""

from __future__ import annotations

from typing import Literal

from backend.bases import located
from backend.errors import SynthLoopError
from backend.mgm.lora import read_adapter_config
from backend.stages.base import Problem, StageContext, StageParameters, parameter, stage_main
from backend.stages.checkpoint_input import checkpoint_problem
from backend.workspace import Workspace


class Parameters(StageParameters):
    """What to merge."""

    checkpoint: str = parameter("", fold="data", kind="run", stages=("finetune",))
    weights_dtype: Literal["bfloat16", "float16", "float32"] = parameter("bfloat16", fold="recipe")


def preflight(workspace: Workspace, parameters: Parameters) -> list[Problem]:
    """There must be an adapter, and what it stands on."""
    try:
        found = located(workspace, parameters.checkpoint)
        if found.adapter:
            read_adapter_config(found.folder)
            return []
    except SynthLoopError as error:
        return [checkpoint_problem(error, "checkpoint")]
    return [Problem("error", "merge_no_adapter", {}, str(found.folder))]


def main(context: StageContext, parameters: Parameters) -> None:
    """Write shards with their index, the configuration and the tokenizer; no GPU is needed."""
    import torch

    from backend.mgm import checkpoints

    found = located(context.workspace, parameters.checkpoint)
    found.tell(context.event)
    model, processor = checkpoints.load(
        found.folder,
        dtype=getattr(torch, parameters.weights_dtype),
        roots=found.roots,
        merge=True,
        **found.directories,
    )
    context.check_stop()
    checkpoints.save(context.artifacts, model, processor)
    context.event(
        "info", "adapter_merged", rank=str(read_adapter_config(found.folder).rank),
        dtype=parameters.weights_dtype,
    )  # fmt: skip


if __name__ == "__main__":
    stage_main(Parameters, main)
