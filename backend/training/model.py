"""The model of a training run: put together from the workspace's assets, its parts set to train."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers.utils import is_flash_attn_2_available

from backend.mgm import adapters, checkpoints
from backend.mgm.checkpoints import MGM
from backend.training.parameters import TrainingParameters
from backend.training.sources import MODEL_ASSETS, model_sizes
from backend.workspace import Workspace

STAGE_OF_METHOD = {
    "projector": "pretrain",
    "full": "finetune",
    "lora": "adapter",
    "qlora": "adapter",
}


def chosen_attention(asked: str, device: torch.device) -> str:
    """The attention implementation: FlashAttention where it is installed, else torch's own."""
    if asked != "auto":
        return asked
    flash = device.type == "cuda" and is_flash_attn_2_available()
    return "flash_attention_2" if flash else "sdpa"


def computing_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype that frozen weights have and matrices are multiplied in.

    `fp32` computes in bf16 on a GPU, from fp32 weights, and in fp32 on a CPU.
    """
    exact = precision == "fp32" and device.type == "cpu"
    return torch.float32 if exact else torch.bfloat16


def build(
    workspace: Workspace,
    parameters: TrainingParameters,
    device: torch.device,
    *,
    projector: Path | None = None,
    lora: adapters.Lora | None = None,
) -> MGM:
    """A model ready to train: placed, levers set, `requires_grad` and modes as the stage wants.

    Args:
        workspace: Holds language model and towers.
        parameters: Of the stage.
        device: Where it goes.
        projector: `mm_projector.bin` to start from; None starts it anew, from torch's seed.
        lora: Adapter to put in.

    Raises:
        InputError: An asset is missing or broken, or a needed package is.
    """
    size = parameters.image_size_aux or model_sizes(workspace)["image_size_aux"]
    mgm = checkpoints.assemble(
        *(workspace.asset(name) for name in MODEL_ASSETS),
        image_size_aux=size * (parameters.image_grid if not parameters.image_size_aux else 1),
        image_grid=parameters.image_grid,
        image_global=parameters.image_global,
        image_aspect_ratio=parameters.image_mode,
        model_max_length=parameters.model_max_length,
        dtype=computing_dtype(parameters.precision, device),
        device=device,
        attention=chosen_attention(parameters.attention, device),
        quantize="nf4" if parameters.trained_part == "qlora" else None,
    )
    model = mgm.model
    if projector is not None:
        checkpoints.load_projector(projector, model)
    if lora is not None:
        adapters.inject(model, lora)
        model.to(device)
    model.select_trainable(STAGE_OF_METHOD[parameters.trained_part])
    if parameters.precision == "fp32":
        for parameter in trainable(model).values():
            parameter.data = parameter.data.float()
    model.set_activation_checkpointing(parameters.activation_checkpointing)
    model.model.mining_checkpointing = parameters.mining_checkpointing
    model.model.tower_chunk = parameters.tower_chunk
    model.model.mlp_chunk = parameters.mlp_chunk
    model.train()
    if not parameters.drop_path:
        model.model.vision_tower_aux.set_drop_path(0.0)
    return mgm


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters with a gradient, by name; a tied one once."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}
