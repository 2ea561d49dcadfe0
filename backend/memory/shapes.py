"""The sizes of a model's parts, read from its configuration files without loading a weight."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.files import read_json
from backend.memory.settings import LINEARS
from backend.workspace import Workspace

PATCH_CELLS = 8
"""Side, in high-resolution vectors, of the cell that one visual token mines (M in the paper)."""


@dataclass(frozen=True)
class LanguageShape:
    """Gemma: tied embeddings, grouped-query attention, gated MLP, no biases."""

    vocabulary: int
    hidden: int
    layers: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_dim: int

    @property
    def linear_inputs_outputs(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of q, k, v, o, gate, up and down projection of one layer."""
        attention, kv = self.heads * self.head_dim, self.key_value_heads * self.head_dim
        hidden, mlp = self.hidden, self.intermediate
        return (
            (hidden, attention),
            (hidden, kv),
            (hidden, kv),
            (attention, hidden),
            (hidden, mlp),
            (hidden, mlp),
            (mlp, hidden),
        )

    @property
    def linear_parameters(self) -> int:
        """Parameters of the linear layers, embeddings not counted."""
        return self.layers * sum(i * o for i, o in self.linear_inputs_outputs)

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the embeddings, which are the output layer as well."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters: linear layers, embeddings and norms."""
        norms = (2 * self.layers + 1) * self.hidden
        return self.linear_parameters + self.embedding_parameters + norms

    def adapter_parameters(self, rank: int, targets: Collection[str] = LINEARS) -> int:
        """Parameters of LoRA of this rank on these linear layers of every decoder layer."""
        return self.layers * rank * sum(i + o for i, o in self.adapted(targets))

    def adapted(self, targets: Collection[str]) -> list[tuple[int, int]]:
        """(inputs, outputs) of the linear layers that are named."""
        sizes = zip(LINEARS, self.linear_inputs_outputs, strict=True)
        return [size for name, size in sizes if name in targets]


@dataclass(frozen=True)
class ClipShape:
    """CLIP's vision transformer, with biases and both outer norms."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    image: int
    patch: int

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.image // self.patch

    @property
    def parameters(self) -> int:
        """All parameters of the vision model."""
        hidden, mlp = self.hidden, self.intermediate
        attention = 4 * (hidden * hidden + hidden)
        feed_forward = 2 * hidden * mlp + mlp + hidden
        layer = attention + feed_forward + 4 * hidden
        embeddings = 3 * self.patch**2 * hidden + hidden + (self.grid**2 + 1) * hidden
        return self.layers * layer + embeddings + 4 * hidden


@dataclass(frozen=True)
class ConvNextShape:
    """OpenCLIP's ConvNeXt trunk: a 4x4 stem and four stages."""

    dims: tuple[int, ...]
    depths: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Channels of all stages together."""
        return sum(self.dims)

    @property
    def parameters(self) -> int:
        """All parameters of stem and stages."""
        stem = 3 * 16 * self.dims[0] + 3 * self.dims[0]
        blocks = sum(
            depth * (49 * dim + dim + 2 * dim + 8 * dim * dim + 4 * dim + dim + dim)
            for dim, depth in zip(self.dims, self.depths, strict=True)
        )
        downsampling = sum(
            2 * before + 4 * before * after + after
            for before, after in zip(self.dims, self.dims[1:], strict=False)
        )
        return stem + blocks + downsampling


@dataclass(frozen=True)
class ModelShape:
    """An MGM: language model, both towers, and what lies between them."""

    language: LanguageShape
    clip: ClipShape
    convnext: ConvNextShape
    image_aux: int
    """Side of the high-resolution image, pixels."""

    @cached_property
    def projector_parameters(self) -> int:
        """What pretraining trains: the two-layer projector and the three mining layers."""
        low, high, hidden = self.clip.hidden, self.convnext.channels, self.language.hidden
        projector = low * hidden + hidden + hidden * hidden + hidden
        query = 2 * low + low * low + low
        key = 2 * high + high * low + low
        return projector + query + 2 * key

    @cached_property
    def parameters(self) -> int:
        """Everything."""
        towers = self.clip.parameters + self.convnext.parameters
        return self.language.parameters + towers + self.projector_parameters

    @property
    def image_tokens(self) -> int:
        """Positions that one picture takes in the language model."""
        return self.clip.grid**2

    @classmethod
    def of_workspace(cls, workspace: Workspace) -> ModelShape:
        """The sizes of the workspace's own model zoo; the kit's where it is not fetched yet.

        Raises:
            InputError: A configuration file is missing or lacks a field; names it.
        """
        llm = workspace.asset("llm") / "config.json"
        clip = workspace.asset("vision_tower") / "config.json"
        aux = workspace.asset("vision_tower_aux") / "open_clip_config.json"
        known = workspace.settings.profile == "mgm-2b"
        if known and not any(path.exists() for path in (llm, clip, aux)):
            return MGM_2B
        return read_shape(llm, clip, aux)


MGM_2B = ModelShape(
    language=LanguageShape(256_000, 2048, 18, 16_384, 8, 1, 256),
    clip=ClipShape(1024, 4096, 24, 16, 336, 14),
    convnext=ConvNextShape((192, 384, 768, 1536), (3, 3, 27, 3)),
    image_aux=768,
)
"""Gemma-2B-it, CLIP ViT-L/14-336 and OpenCLIP ConvNeXt-L: the kit's model."""

_CONVNEXT_DIMS = {
    "convnext_large_d_320": ((192, 384, 768, 1536), (3, 3, 27, 3)),
    "convnext_large": ((192, 384, 768, 1536), (3, 3, 27, 3)),
}


def read_shape(llm_config: Path, clip_config: Path, convnext_config: Path) -> ModelShape:
    """The sizes that three configuration files tell."""
    llm, clip = read_json(llm_config), read_json(clip_config)
    clip = clip.get("vision_config", clip)
    language = LanguageShape(
        *(
            _field(llm, llm_config, key)
            for key in (
                "vocab_size",
                "hidden_size",
                "num_hidden_layers",
                "intermediate_size",
                "num_attention_heads",
                "num_key_value_heads",
                "head_dim",
            )
        )
    )
    vision = ClipShape(
        *(
            _field(clip, clip_config, key)
            for key in (
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "image_size",
                "patch_size",
            )
        )
    )
    return ModelShape(
        language=language,
        clip=vision,
        convnext=_convnext(convnext_config),
        image_aux=4 * PATCH_CELLS * vision.grid,
    )


def _convnext(path: Path) -> ConvNextShape:
    vision = read_json(path).get("model_cfg", {}).get("vision_cfg", {})
    kwargs = vision.get("timm_model_kwargs") or {}
    if "dims" in kwargs and "depths" in kwargs:
        return ConvNextShape(tuple(kwargs["dims"]), tuple(kwargs["depths"]))
    name = str(vision.get("timm_model_name", ""))
    if name not in _CONVNEXT_DIMS:
        raise InputError(
            f"the size of the ConvNeXt {name!r} is not known.",
            place=f"{path}, field model_cfg.vision_cfg.timm_model_name",
            remedy="Use convnext_large_d_320, or add timm_model_kwargs with dims and depths.",
        )
    return ConvNextShape(*_CONVNEXT_DIMS[name])


def _field(values: dict[str, Any], path: Path, key: str) -> int:
    value = values.get(key)
    if not isinstance(value, int):
        raise InputError("the number is missing.", place=f"{path}, field {key}")
    return value
