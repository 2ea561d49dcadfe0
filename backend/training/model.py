"""The model of a training run: put together from the workspace's assets, its parts set to train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.utils import is_flash_attn_2_available

from backend.bases import Checkpoint
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
    start: Checkpoint | None = None,
) -> MGM:
    """A model ready to train: placed, levers set, `requires_grad` and modes as the stage wants.

    Args:
        workspace: Holds language model and towers.
        parameters: Of the stage.
        device: Where it goes.
        projector: `mm_projector.bin` to start from; None starts it anew, from torch's seed.
        lora: Adapter to put in.
        start: Checkpoint to continue from: a full one, or an adapter like `lora`.

    Raises:
        InputError: An asset is missing or broken, or a needed package is.
    """
    size = parameters.image_size_aux or model_sizes(workspace)["image_size_aux"]
    pictures: dict[str, Any] = {
        "image_size_aux": size * (parameters.image_grid if not parameters.image_size_aux else 1),
        "image_grid": parameters.image_grid,
        "image_global": parameters.image_global,
        "image_aspect_ratio": parameters.image_mode,
    }
    options: dict[str, Any] = {
        "dtype": computing_dtype(parameters.precision, device),
        "device": device,
        "attention": chosen_attention(parameters.attention, device),
        "quantize": "nf4" if parameters.trained_part == "qlora" else None,
    }
    fresh = True
    if start is None:
        llm, vision, vision_aux = map(workspace.asset, MODEL_ASSETS)
        mgm = checkpoints.assemble(
            llm,
            vision,
            vision_aux,
            model_max_length=parameters.model_max_length,
            **pictures,
            **options,
        )
    else:
        mgm, fresh = _continued(start, adapter=lora is not None, **options)
        config = mgm.model.config
        for name, value in pictures.items():
            setattr(config, name, value)
        config.tokenizer_model_max_length = parameters.model_max_length
        checkpoints.check_sizes(config)
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
    if start is not None and start.adapter:
        adapters.read_adapter(start.folder, model, projector_needed=fresh)
    model.set_activation_checkpointing(parameters.activation_checkpointing)
    model.model.mining_checkpointing = parameters.mining_checkpointing
    model.model.tower_chunk = parameters.tower_chunk
    model.model.mlp_chunk = parameters.mlp_chunk
    model.train()
    if not parameters.drop_path:
        model.model.vision_tower_aux.set_drop_path(0.0)
    return mgm


def _continued(start: Checkpoint, *, adapter: bool, **options: Any) -> tuple[MGM, bool]:
    """The model of a checkpoint without its adapter, and whether its projector is a fresh one."""
    if start.adapter:
        places: dict[str, Any] = {
            "llm_dir": None,
            "vision_dir": None,
            "vision_aux_dir": None,
            **start.directories,
        }
        return adapters.load_base(start.folder, roots=start.roots, **places, **options)
    mgm = checkpoints.load(start.folder, roots=start.roots, **start.directories, **options)
    if adapter:
        adapters.stand_on(mgm.model, start.folder.resolve())
    return mgm, False


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters with a gradient, by name; a tied one once."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}
