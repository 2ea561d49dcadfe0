"""The projector from mined image tokens to the language model, and the layers it is made of."""

from __future__ import annotations

import re

from torch import nn

from backend.errors import InputError

PROJECTOR_MODULES = (
    "mm_projector",
    "vlm_uni_query_projector",
    "vlm_uni_aux_projector",
    "vlm_uni_val_projector",
)
"""What pretraining trains, below `model.`."""


class NewLinear(nn.Linear):
    """A linear layer that MGM adds: it starts as PyTorch starts it, not as Gemma does."""


class NewLayerNorm(nn.LayerNorm):
    """A layer norm that MGM adds."""


def mm_projector(kind: str, inputs: int, outputs: int) -> nn.Sequential:
    """Linear layers with exact GELUs between them; `kind` is the kit's `mm_projector_type`.

    Raises:
        InputError: The type is not `linear` or `mlp<depth>x_gelu`.
    """
    match = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    if match is None and kind != "linear":
        raise InputError(
            f"the projector type {kind!r} is not supported.",
            place="config.json, field mm_projector_type",
            remedy="The kit uses mlp2x_gelu.",
        )
    layers: list[nn.Module] = [NewLinear(inputs, outputs)]
    for _ in range(int(match[1]) - 1 if match else 0):
        layers += [nn.GELU(), NewLinear(outputs, outputs)]
    return nn.Sequential(*layers)


def is_projector(name: str) -> bool:
    """Whether a parameter name belongs to the projector or the mining layers."""
    return any(part in PROJECTOR_MODULES for part in name.split("."))


def is_tower(name: str) -> bool:
    """Whether a parameter name belongs to one of the vision towers."""
    return any(part in ("vision_tower", "vision_tower_aux") for part in name.split("."))
