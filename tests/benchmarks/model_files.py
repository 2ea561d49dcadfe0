"""A kit with random weights: the directories and files of a real one, in any size."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig

from backend.mgm.configuration import MGMConfig
from backend.mgm.convnext import ConvNextConfig
from backend.mgm.modeling import MGMGemmaForCausalLM
from backend.mgm.towers import CLIP_PREFIX, CONVNEXT_PREFIX
from backend.mgm.weights import save_sharded
from backend.workspace import ASSET_PATHS, Settings, Workspace

STARTER = Path(__file__).parents[2] / "backend" / "starter" / "zoo"
_WITHOUT_VALUES = threading.Lock()
SPREAD = 0.02
"""Standard deviation of matrices, as Gemma starts."""


QUIET = 0.2
"""Scale of the last norm: an untrained model with a tied head would insist on its last word."""


@dataclass(frozen=True)
class Sizes:
    """Of the three models of a kit."""

    language: dict[str, int]
    clip: dict[str, int]
    convnext: ConvNextConfig = field(default_factory=ConvNextConfig)

    @property
    def tokens_per_image(self) -> int:
        """Positions that one picture takes."""
        return int((self.clip["image_size"] // self.clip["patch_size"]) ** 2)


MGM_2B = Sizes(
    language={
        "vocab_size": 256_000, "hidden_size": 2048, "num_hidden_layers": 18,
        "intermediate_size": 16_384, "num_attention_heads": 8, "num_key_value_heads": 1,
        "head_dim": 256, "max_position_embeddings": 8192,
    },
    clip={
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
    },
)  # fmt: skip
"""Gemma-2B-it, CLIP ViT-L/14-336 and OpenCLIP's ConvNeXt-L."""
TINY = Sizes(
    language={
        "vocab_size": 1280, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16,
        "max_position_embeddings": 2048,
    },
    clip={
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 4, "image_size": 56, "patch_size": 14,
    },
    convnext=ConvNextConfig(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32)),
)  # fmt: skip
"""The same script on a CPU in seconds."""
LEARNER = {
    "vocab_size": 1279, "hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072,
    "num_attention_heads": 6, "num_key_value_heads": 1, "head_dim": 128,
    "max_position_embeddings": 2048,
}  # fmt: skip
"""A language model of 104 million parameters for the starter's tokenizer and towers."""
LEARNER_TINY = {**TINY.language, "vocab_size": 1279}


def write_workspace(root: Path, sizes: Sizes) -> Workspace:
    """A workspace of the profile mgm-2b whose kit has random weights of these sizes."""
    kit = root / "kit"
    write_kit(kit, sizes)
    settings = Settings(name="benchmark", profile="mgm-2b", kit=str(kit))
    return Workspace.create(root / "workspace", settings)


def write_kit(kit: Path, sizes: Sizes) -> None:
    """The model zoo of a kit: Gemma in shards, CLIP, and OpenCLIP's ConvNeXt, in bf16."""
    clip, trunk = CLIPVisionConfig(**sizes.clip, hidden_act="quick_gelu"), sizes.convnext
    config = MGMConfig(**sizes.language, hidden_act="gelu")
    config.set_towers(clip, trunk)
    shapes = shapes_of(lambda: MGMGemmaForCausalLM(config))
    shapes.pop("lm_head.weight", None)
    weights: dict[str, dict[str, Tensor]] = {"llm": {}, "clip": {}, "trunk": {}}
    for name, tensor in draw_weights(shapes).items():
        if name.startswith(CLIP_PREFIX):
            weights["clip"][f"vision_model.{name.removeprefix(CLIP_PREFIX)}"] = tensor
        elif name.startswith(f"{CONVNEXT_PREFIX}vision_"):
            bare = name.removeprefix(f"{CONVNEXT_PREFIX}vision_")
            weights["trunk"][f"visual.trunk.{bare}"] = tensor
        elif name.startswith(("model.embed_tokens", "model.layers", "model.norm")):
            weights["llm"][name] = tensor
    write_language(kit / ASSET_PATHS["llm"], sizes.language, weights["llm"])
    folder = _new(kit / ASSET_PATHS["vision_tower"])
    save_file(weights["clip"], folder / "model.safetensors", metadata={"format": "pt"})
    vision = {**sizes.clip, "hidden_act": "quick_gelu", "model_type": "clip_vision_model"}
    _write(folder / "config.json", {"model_type": "clip", "vision_config": vision})
    folder = _new(kit / ASSET_PATHS["vision_tower_aux"])
    torch.save(weights["trunk"], folder / "open_clip_pytorch_model.bin")
    shape = {"dims": list(trunk.dims), "depths": list(trunk.depths)}
    tower = {"timm_model_name": "convnext_large", "timm_model_kwargs": shape}
    tower |= {"timm_drop_path": trunk.drop_path, "image_size": 320}
    _write(folder / "open_clip_config.json", {"model_cfg": {"vision_cfg": tower}})


def shapes_of(make: Callable[[], nn.Module]) -> dict[str, torch.Size]:
    """Of a model's parameters by name, without making their values."""
    # It replaces a method of every module: two threads would put back each other's.
    with _WITHOUT_VALUES, init_empty_weights():
        return {name: value.shape for name, value in make().named_parameters()}


def write_language(folder: Path, sizes: dict[str, int], weights: dict[str, Tensor]) -> None:
    """A Gemma directory with the starter's tokenizer."""
    save_sharded(_new(folder), weights)
    settings: dict[str, Any] = {
        **sizes, "model_type": "gemma", "hidden_act": "gelu", "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "attention_bias": False, "attention_dropout": 0.0,
        "tie_word_embeddings": True, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
        "architectures": ["GemmaForCausalLM"], "torch_dtype": "bfloat16",
    }  # fmt: skip
    _write(folder / "config.json", settings)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(STARTER / "llm" / name, folder / name)


def draw_weights(shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Random bf16 values by parameter name: matrices normal, norms and biases as they start."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator(device).manual_seed(1024)
    drawn = {}
    for name, shape in shapes.items():
        if len(shape) > 1 or name.endswith("class_embedding"):
            values = torch.empty(shape, dtype=torch.bfloat16, device=device)
            drawn[name] = values.normal_(0, SPREAD, generator=generator).cpu()
            continue
        # Gemma's norms multiply by 1 + weight.
        zero = name.endswith(".bias") or name.startswith("model.layers")
        value = 0.1 if name.endswith("gamma") else 0.0 if zero else 1.0
        if name == "model.norm.weight":
            value = QUIET - 1
        drawn[name] = torch.full(shape, value, dtype=torch.bfloat16)
    return drawn


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2))
