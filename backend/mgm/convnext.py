"""OpenCLIP's ConvNeXt image trunk in plain torch: the high-resolution tower of MGM.

Parameter names are those of OpenCLIP's files below `visual.trunk.` (stem and stages only), so
their weights load without renaming, and without timm, open_clip or torchvision.

Architecture: Liu et al., "A ConvNet for the 2020s" (arXiv 2201.03545), with layer scale; drop
path: Huang et al., "Deep Networks with Stochastic Depth" (arXiv 1603.09382).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from backend.errors import InputError
from backend.mgm.settings import read_settings
from backend.mgm.weights import read_weights

NORM_EPSILON = 1e-6
LAYER_SCALE = 1e-6
DROP_PATH = 0.1  # of OpenCLIP's ConvNeXt-L configurations
WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)


@dataclass(frozen=True)
class ConvNextConfig:
    """Sizes of a ConvNeXt trunk.

    Attributes:
        depths: Blocks in each of the stages.
        dims: Channels of each stage; stage s halves the resolution of stage s - 1.
        drop_path: Probability that the last block is skipped in training; earlier blocks get
            a linear share of it, from 0 at the first.
    """

    depths: tuple[int, ...] = (3, 3, 27, 3)
    dims: tuple[int, ...] = (192, 384, 768, 1536)
    drop_path: float = DROP_PATH

    @property
    def channels(self) -> int:
        """Channels of all stage maps together: what the mining layers read."""
        return sum(self.dims)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file; `ConvNextConfig.from_dict` reads them."""
        return {
            "depths": list(self.depths),
            "dims": list(self.dims),
            "drop_path": self.drop_path,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ConvNextConfig:
        """The configuration that `to_dict` wrote."""
        return cls(
            depths=tuple(int(n) for n in values["depths"]),
            dims=tuple(int(n) for n in values["dims"]),
            drop_path=float(values.get("drop_path", DROP_PATH)),
        )

    @classmethod
    def from_weights(
        cls, weights: Mapping[str, Tensor], drop_path: float = DROP_PATH
    ) -> ConvNextConfig:
        """Depths and channels read from the names and shapes of `weights` (`stages.0.blocks…`).

        Raises:
            InputError: There is no ConvNeXt trunk in the weights.
        """
        pattern = re.compile(r"^(?:vision_)?stages\.(\d+)\.blocks\.(\d+)\.gamma$")
        depths: dict[int, int] = {}
        dims: dict[int, int] = {}
        for name, tensor in weights.items():
            if match := pattern.match(name):
                stage, block = int(match[1]), int(match[2])
                depths[stage] = max(depths.get(stage, 0), block + 1)
                dims[stage] = tensor.numel()
        if not depths or sorted(depths) != list(range(len(depths))):
            raise InputError(
                "these weights hold no ConvNeXt trunk (no stages.0.blocks.0.gamma).",
                remedy="Name the OpenCLIP ConvNeXt directory.",
            )
        order = range(len(depths))
        return cls(tuple(depths[i] for i in order), tuple(dims[i] for i in order), drop_path)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of an image map (B, C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """The normalized map, same shape and dtype."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Mlp(nn.Module):
    """Two linear layers around an exact GELU, hidden size four times the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, C) to (…, C)."""
        output: Tensor = self.fc2(functional.gelu(self.fc1(hidden)))
        return output


class Block(nn.Module):
    """Depthwise 7x7 convolution, LayerNorm, MLP, layer scale and residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(channels, channels, kernel_size=7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=NORM_EPSILON)
        self.mlp = Mlp(channels)
        self.gamma = nn.Parameter(torch.full((channels,), LAYER_SCALE))
        self.drop_path = 0.0

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape; in training a row skips the block at random."""
        hidden = self.conv_dw(image).permute(0, 2, 3, 1)
        hidden = self.mlp(self.norm(hidden)) * self.gamma
        hidden = hidden.permute(0, 3, 1, 2)
        if self.training and self.drop_path > 0.0:
            keep = 1.0 - self.drop_path
            mask = hidden.new_empty((len(hidden), 1, 1, 1)).bernoulli_(keep).div_(keep)
            hidden = hidden * mask
        return image + hidden


class Stage(nn.Module):
    """Halves the resolution (unless it is the first stage) and applies its blocks."""

    def __init__(self, in_channels: int, channels: int, depth: int, *, downsample: bool) -> None:
        super().__init__()
        self.downsample = (
            nn.Sequential(
                ChannelNorm(in_channels, eps=NORM_EPSILON),
                nn.Conv2d(in_channels, channels, kernel_size=2, stride=2),
            )
            if downsample
            else nn.Identity()
        )
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(depth)))

    def forward(self, image: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C, H/2, W/2), or (B, C, H, W) in the first stage."""
        output: Tensor = self.blocks(self.downsample(image))
        return output


def convnext_stem(dims: tuple[int, ...]) -> nn.Sequential:
    """The 4x4 patch embedding before the first stage."""
    return nn.Sequential(
        nn.Conv2d(3, dims[0], kernel_size=4, stride=4), ChannelNorm(dims[0], eps=NORM_EPSILON)
    )


def convnext_stages(config: ConvNextConfig) -> nn.Sequential:
    """The stages; drop path is set by `set_drop_path`."""
    dims = (config.dims[0], *config.dims)
    return nn.Sequential(
        *(
            Stage(dims[i], dims[i + 1], depth, downsample=i > 0)
            for i, depth in enumerate(config.depths)
        )
    )


class ConvNextTower(nn.Module):
    """The trunk as MGM names it: `vision_stem.*` and `vision_stages.*`.

    Calling it gives the map of every stage, finest first. `set_drop_path(0)` makes training
    mode deterministic; the kit leaves drop path on even though the tower is frozen.

    Attributes:
        channels_last: Keep maps with their channels innermost, which suits some devices better;
            values and shapes are the same.
    """

    def __init__(self, config: ConvNextConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_stem = convnext_stem(config.dims)
        self.vision_stages = convnext_stages(config)
        self.set_drop_path(config.drop_path)
        self.channels_last = False

    def set_drop_path(self, rate: float) -> None:
        """Give block i of n the skip probability `rate * i / (n - 1)`, used in training mode."""
        blocks = [module for module in self.modules() if isinstance(module, Block)]
        for index, block in enumerate(blocks):
            block.drop_path = rate * index / max(1, len(blocks) - 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalized pixels to maps (B, dims[s], H/4/2^s, W/4/2^s)."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        hidden: Tensor = self.vision_stem(images.to(self.dtype, memory_format=layout))
        maps = []
        for stage in self.vision_stages:
            hidden = stage(hidden)
            maps.append(hidden)
        return maps

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its weights."""
        return next(self.parameters()).dtype

    def load_trunk(self, weights: Mapping[str, Tensor]) -> None:
        """Copy weights named `stem.*` and `stages.*`; other names are left alone.

        Raises:
            InputError: A tensor is missing or has another shape.
        """
        wanted = {
            f"vision_{name}": tensor
            for name, tensor in weights.items()
            if name.startswith(("stem.", "stages."))
        }
        try:
            self.load_state_dict(wanted)
        except RuntimeError as error:
            raise InputError(f"the ConvNeXt weights do not fit: {error}") from error

    def trunk_weights(self) -> dict[str, Tensor]:
        """Its weights under OpenCLIP's names (`visual.trunk.stem.*`, `visual.trunk.stages.*`)."""
        return {
            f"visual.trunk.{name.removeprefix('vision_')}": tensor
            for name, tensor in self.state_dict().items()
        }


def read_trunk(directory: Path) -> tuple[ConvNextConfig, dict[str, Tensor]]:
    """Sizes and weights (`stem.*`, `stages.*`) of an OpenCLIP ConvNeXt directory.

    Depths and channels come from the weights themselves, drop path from
    `open_clip_config.json` where it is there, else it is 0.1.

    Raises:
        InputError: There is no weight file, or it holds no ConvNeXt trunk.
    """
    file = next((directory / name for name in WEIGHT_FILES if (directory / name).is_file()), None)
    if file is None:
        raise InputError(
            "no ConvNeXt weights here.",
            place=str(directory),
            remedy=f"One of these files must be there: {', '.join(WEIGHT_FILES)}.",
        )
    weights = {
        name.removeprefix("visual.trunk."): tensor
        for name, tensor in read_weights(
            file, lambda name: name.startswith("visual.trunk.")
        ).items()
    }
    drop_path = read_vision_settings(directory).get("timm_drop_path", DROP_PATH)
    try:
        config = ConvNextConfig.from_weights(weights, drop_path=float(drop_path))
    except InputError as error:
        raise InputError(error.problem, place=str(file), remedy=error.remedy) from error
    return config, weights


def read_vision_settings(directory: Path) -> dict[str, Any]:
    """`model_cfg.vision_cfg` of `open_clip_config.json`; empty when there is no such file."""
    file = directory / "open_clip_config.json"
    if not file.is_file():
        return {}
    settings: dict[str, Any] = read_settings(file).get("model_cfg", {}).get("vision_cfg", {})
    return settings
