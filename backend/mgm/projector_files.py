"""`mm_projector.bin`, in and out, and tensors by name into a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from backend.errors import InputError
from backend.mgm.modeling import MGMGemmaForCausalLM
from backend.mgm.projector import is_projector, is_tower
from backend.mgm.weights import read_weights, save_pickle


def save_projector(
    path: str | Path,
    model: MGMGemmaForCausalLM,
    *,
    towers: bool = True,
    dtype: torch.dtype | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write `mm_projector.bin`.

    Args:
        path: The file.
        model: Whose projector is written.
        towers: The kit's form holds the frozen towers too (747 tensors, about 1 GB at full
            size); without them 16 tensors remain, which the kit reads as well.
        dtype: Of the file; None keeps the parameters' own (the kit writes bf16).
        weights: Gathered parameters by name, when the model's own are spread over processes.
    """
    source = weights if weights is not None else model.state_dict()
    save_pickle(
        Path(path),
        {
            name: value if dtype is None else value.to(dtype)
            for name, value in source.items()
            if is_projector(name) or (towers and is_tower(name))
        },
    )


def load_projector(path: str | Path, model: MGMGemmaForCausalLM) -> None:
    """Set the projector and the mining layers from `mm_projector.bin`, either form.

    Towers in the file are read only where the configuration says that they were trained.

    Raises:
        InputError: The file is missing, broken, lacks a tensor, or belongs to other sizes.
    """
    path = Path(path)
    config = model.config

    def wanted(name: str) -> bool:
        if is_projector(name):
            return True
        aux = "vision_tower_aux." in name
        return is_tower(name) and bool(
            config.optimize_vision_tower_aux if aux else config.optimize_vision_tower
        )

    copy_parameters(model, full_names(read_weights(path, wanted)), place=path)


def full_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under their names below `model.`, whatever wrapper wrote them."""
    bare = {
        name.removeprefix("base_model.model.").removeprefix("module."): tensor
        for name, tensor in weights.items()
    }
    return {f"model.{name.removeprefix('model.')}": tensor for name, tensor in bare.items()}


def copy_parameters(
    model: MGMGemmaForCausalLM, weights: Mapping[str, Tensor], *, place: Path
) -> None:
    """Copy tensors into a model; all projector tensors must be among them.

    Raises:
        InputError: A name or shape does not fit, or a projector tensor is missing.
    """
    parameters = dict(model.named_parameters())
    for name, tensor in weights.items():
        if name not in parameters or parameters[name].shape != tensor.shape:
            raise InputError(
                f"{name} {tuple(tensor.shape)} does not fit this model.",
                place=str(place),
                remedy="The file was made for other towers or another language model.",
            )
    missing = {name for name in parameters if is_projector(name)} - weights.keys()
    if missing:
        raise InputError(
            f"the file lacks {', '.join(sorted(missing)[:3])}.",
            place=str(place),
            remedy="Pretrain again, or name a complete mm_projector.bin.",
        )
    with torch.no_grad():
        for name, tensor in weights.items():
            parameters[name].copy_(tensor)
