"""Finding and reading the two vision towers: directories of CLIP and of OpenCLIP's ConvNeXt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPVisionConfig

from backend.bases import existing_directory
from backend.errors import InputError
from backend.mgm.configuration import MGMConfig
from backend.mgm.convnext import ConvNextConfig, read_trunk
from backend.mgm.projector import is_tower
from backend.mgm.settings import read_settings
from backend.mgm.weights import iterate_weights

CLIP_PREFIX = "model.vision_tower.vision_tower.vision_model."
CONVNEXT_PREFIX = "model.vision_tower_aux."
CLIP_HEAD_DIM = 64  # of every CLIP that OpenAI released
_VISION_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
)


def find_directory(path: str | Path | None, roots: Sequence[Path], *, what: str) -> Path:
    """The directory that a configuration names.

    Args:
        path: Absolute, or relative to the working directory or one of `roots`.
        roots: Tried in order; the kit's relative paths start at its training folder.
        what: Named in the error, e.g. `CLIP tower`.

    Raises:
        InputError: It is nowhere.
    """
    found = existing_directory(path, roots)
    if found is not None:
        return found
    tried = ", ".join(str(root.resolve()) for root in (Path(), *roots))
    raise InputError(
        f"the {what} is not there (looked in {tried})." if path else f"no {what} is named.",
        place=str(path or "config.json"),
        remedy=f"Fetch it, or name the directory of the {what}.",
    )


def read_clip_config(directory: Path) -> CLIPVisionConfig:
    """Sizes in the `config.json` of a CLIP directory, whole model or vision part alone.

    Raises:
        InputError: There is no such file.
    """
    values: dict[str, Any] = read_settings(directory / "config.json")
    vision = values.get("vision_config") or values
    return CLIPVisionConfig(**{key: vision[key] for key in _VISION_KEYS if key in vision})


def read_clip(directory: Path) -> tuple[CLIPVisionConfig, dict[str, Tensor]]:
    """Sizes and weights of CLIP's vision transformer, named as below `vision_model.`.

    Raises:
        InputError: The configuration or the weights are missing or hold no vision transformer.
    """
    config = read_clip_config(directory)
    weights: dict[str, Tensor] = {}
    for name, tensor in iterate_weights(directory, lambda name: "text_model." not in name):
        bare = name.removeprefix("vision_model.")
        if bare.startswith(("embeddings.", "pre_layrnorm.", "encoder.", "post_layernorm.")):
            weights[bare] = tensor
    weights.pop("embeddings.position_ids", None)  # a buffer that old files keep
    if "embeddings.class_embedding" not in weights:
        raise InputError(
            "these weights hold no CLIP vision transformer.",
            place=str(directory),
            remedy="Name the directory of clip-vit-large-patch14-336.",
        )
    return config, weights


def clip_config_from_weights(
    weights: Mapping[str, Tensor], heads: int | None = None
) -> CLIPVisionConfig:
    """Sizes from weights alone, for checkpoints whose tower directory is gone.

    Neither the number of heads nor the activation is in the weights: they are hidden / 64 and
    quick_gelu, as in every CLIP that OpenAI released.

    Args:
        weights: Named as below `vision_model.`.
        heads: Where it is known.

    Raises:
        InputError: The hidden size is no multiple of 64, so this is none of OpenAI's.
    """
    patch = weights["embeddings.patch_embedding.weight"]
    positions = len(weights["embeddings.position_embedding.weight"])
    hidden = patch.shape[0]
    if heads is None and hidden % CLIP_HEAD_DIM:
        raise InputError(
            f"the number of attention heads of this CLIP tower (hidden size {hidden}) is unknown.",
            place="mm_vision_tower",
            remedy="Name the CLIP directory: its config.json has it.",
        )
    return CLIPVisionConfig(
        hidden_size=hidden,
        intermediate_size=len(weights["encoder.layers.0.mlp.fc1.bias"]),
        num_hidden_layers=_count_layers(weights),
        num_attention_heads=heads or hidden // CLIP_HEAD_DIM,
        patch_size=patch.shape[-1],
        image_size=patch.shape[-1] * round((positions - 1) ** 0.5),
        hidden_act="quick_gelu",
    )


def _count_layers(names: Iterable[str]) -> int:
    numbers = [match[1] for name in names if (match := re.match(r"encoder\.layers\.(\d+)\.", name))]
    return 1 + max(map(int, numbers))


def complete_config(
    config: MGMConfig,
    checkpoint: Path,
    *,
    roots: Sequence[Path] = (),
    vision_dir: str | Path | None = None,
    vision_aux_dir: str | Path | None = None,
) -> MGMConfig:
    """Fill in the towers' sizes that the kit's `config.json` lacks.

    They come from the tower directories (given, else named by the configuration), and where
    these are gone from the checkpoint's own tower weights.

    Args:
        config: Changed in place.
        checkpoint: The checkpoint's directory.
        roots: Where relative tower paths start, beside the working directory.
        vision_dir: CLIP's directory, instead of the configuration's `mm_vision_tower`.
        vision_aux_dir: ConvNeXt's, instead of `mm_vision_tower_aux`.

    Raises:
        InputError: The sizes are in none of these places.
    """
    if config.mm_vision_config and config.mm_vision_aux_config:
        return config
    try:
        clip_dir = find_directory(vision_dir or config.mm_vision_tower, roots, what="CLIP tower")
        aux_dir = find_directory(
            vision_aux_dir or config.mm_vision_tower_aux, roots, what="ConvNeXt tower"
        )
        config.set_towers(read_clip_config(clip_dir), read_trunk(aux_dir)[0])
    except InputError as missing:
        clip, convnext = tower_weights(checkpoint)
        if not clip or not convnext:
            raise missing
        config.set_towers(clip_config_from_weights(clip), ConvNextConfig.from_weights(convnext))
    return config


def tower_weights(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """CLIP's and ConvNeXt's weights inside a full checkpoint; empty where it holds none."""
    clip: dict[str, Tensor] = {}
    convnext: dict[str, Tensor] = {}
    for name, tensor in iterate_weights(checkpoint, is_tower):
        if name.startswith(CLIP_PREFIX):
            clip[name.removeprefix(CLIP_PREFIX)] = tensor
        elif name.startswith(CONVNEXT_PREFIX):
            convnext[name.removeprefix(CONVNEXT_PREFIX)] = tensor
    return clip, convnext
