"""Building a model without touching memory twice: empty first, then filled file by file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from backend.errors import InputError
from backend.mgm.configuration import MGMConfig
from backend.mgm.convnext import read_trunk
from backend.mgm.modeling import MGMGemmaForCausalLM
from backend.mgm.projector import PROJECTOR_MODULES
from backend.mgm.towers import CLIP_PREFIX, CONVNEXT_PREFIX, read_clip


def empty_model(config: MGMConfig, *, attention: str | None = None) -> MGMGemmaForCausalLM:
    """A model whose parameters hold no memory yet.

    Args:
        config: With the towers' sizes.
        attention: `sdpa`, `flash_attention_2` or `eager` in the language model; None lets
            transformers choose.

    Raises:
        InputError: The attention implementation is not installed.
    """
    config._attn_implementation = attention
    with init_empty_weights(include_buffers=False):
        try:
            model = MGMGemmaForCausalLM(config)
        except ImportError as error:
            raise InputError(
                f"the attention implementation {attention!r} cannot be used: {error}",
                place="attention",
                remedy="Choose sdpa, which needs no extra package.",
            ) from error
        except (ZeroDivisionError, ValueError, RuntimeError) as error:
            raise InputError(
                f"no model can be built from these sizes: {error}.",
                place="config.json",
                remedy="Copy config.json again from where it was made.",
            ) from error
    model.eval()
    return model


class Filler:
    """Puts tensors into a model one by one, checking names and shapes.

    Args:
        model: From `empty_model`.
        dtype: Of every floating parameter.
        device: Where parameters go.
    """

    def __init__(
        self, model: MGMGemmaForCausalLM, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        self.model = model
        self.dtype = dtype
        self.device = torch.device(device)

    def fill(self, weights: Iterable[tuple[str, Tensor]], *, place: Path) -> None:
        """Set parameters by their full name; names that the model lacks are an error.

        Raises:
            InputError: A name or a shape does not fit; names the tensor and the file.
        """
        for name, tensor in weights:
            if name == "lm_head.weight" and self.model.config.tie_word_embeddings:
                continue
            owner, leaf = self._find(name, place)
            current = owner._parameters[leaf]
            if current is None or current.shape != tensor.shape:
                found, wanted = (
                    tuple(tensor.shape),
                    tuple(current.shape) if current is not None else (),
                )
                raise InputError(
                    f"{name} has shape {found} where the configuration wants {wanted}.",
                    place=str(place),
                    remedy="Weights and config.json belong to different models.",
                )
            value = tensor.to(device=self.device, dtype=self.dtype)
            owner._parameters[leaf] = nn.Parameter(value, current.requires_grad)

    def _find(self, name: str, place: Path) -> tuple[nn.Module, str]:
        path, _, leaf = name.rpartition(".")
        try:
            owner = self.model.get_submodule(path)
        except AttributeError:
            owner = None
        if owner is None or leaf not in owner._parameters:
            raise InputError(
                f"the weights hold {name}, which this model does not have.",
                place=str(place),
                remedy="Weights and config.json belong to different models.",
            )
        return owner, leaf

    def fill_towers(self, vision_dir: Path, vision_aux_dir: Path) -> None:
        """Set both towers from their own directories.

        Raises:
            InputError: See `read_clip` and `read_trunk`.
        """
        _, clip = read_clip(vision_dir)
        self.fill(_prefixed(clip, CLIP_PREFIX), place=vision_dir)
        _, trunk = read_trunk(vision_aux_dir)
        trunk = {
            name: value for name, value in trunk.items() if name.startswith(("stem", "stages"))
        }
        self.fill(_prefixed(trunk, f"{CONVNEXT_PREFIX}vision_"), place=vision_aux_dir)

    def start_projector(self) -> None:
        """Give the projector and the mining layers PyTorch's initial values (caller's seed)."""
        for name in PROJECTOR_MODULES:
            part = self.model.model.get_submodule(name)
            part.to_empty(device="cpu")
            for module in part.modules():
                if isinstance(module, nn.Linear | nn.LayerNorm):
                    module.reset_parameters()
            part.to(device=self.device, dtype=self.dtype)

    def missing(self) -> list[str]:
        """Names of parameters that nothing has filled yet."""
        tied = {"lm_head.weight"} if self.model.config.tie_word_embeddings else set()
        return [
            name
            for name, parameter in self.model.named_parameters(remove_duplicate=False)
            if parameter.is_meta and name not in tied
        ]

    def finish(self, *, place: Path) -> MGMGemmaForCausalLM:
        """Tie the head, move the buffers, and hand the model over.

        Raises:
            InputError: Parameters are missing.
        """
        missing = self.missing()
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise InputError(
                f"the weights lack {', '.join(missing[:3])}{more}.",
                place=str(place),
                remedy="Copy the whole checkpoint directory again.",
            )
        self.model.tie_weights()
        self.model.config.dtype = self.dtype
        self.model.to(self.device)
        return self.model


def _prefixed(weights: Mapping[str, Tensor], prefix: str) -> Iterator[tuple[str, Tensor]]:
    return ((prefix + name, tensor) for name, tensor in weights.items())
