"""The reference's tiny model as directories: a zoo, a full checkpoint, and its LoRA run.

Sizes come from the oracle's files. Only CLIP's number of heads is in none of them: it is the one
with which CLIP gives the oracle's features.
"""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPVisionConfig

from backend.mgm import checkpoints
from backend.mgm.checkpoints import MGM
from backend.mgm.configuration import MGMConfig
from backend.mgm.modeling import MGMGemmaForCausalLM
from backend.mgm.towers import CLIP_PREFIX, CONVNEXT_PREFIX, clip_config_from_weights
from backend.mgm.vision import ClipTower
from tests.oracles import oracle

TINY = oracle("mgm_tiny")
CONFIG: dict[str, Any] = json.loads((TINY / "config.json").read_text())


def tensors(name: str) -> dict[str, Tensor]:
    """The tensors of the oracle file `name`, e.g. `forward`."""
    return load_file(TINY / f"{name}.safetensors")


def answers(name: str) -> Any:
    """The content of the oracle file `name`.json."""
    return json.loads((TINY / f"{name}.json").read_text())


def below(prefix: str) -> dict[str, Tensor]:
    """The reference weights whose names start with `prefix`, named without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors("state_dict").items()
        if name.startswith(prefix)
    }


@cache
def clip_config() -> CLIPVisionConfig:
    """CLIP's sizes."""
    weights, forward = below(CLIP_PREFIX), tensors("forward")
    hidden = weights["embeddings.class_embedding"].numel()
    best, nearest = None, float("inf")
    for heads in (n for n in range(1, hidden + 1) if hidden % n == 0):
        config = clip_config_from_weights(weights, heads=heads)
        tower = ClipTower(config, CONFIG["mm_vision_select_layer"]).eval()
        tower.vision_tower.vision_model.load_state_dict(weights, strict=False)
        with torch.no_grad():
            error = (tower(forward["images"]) - forward["clip_feat"]).abs().max().item()
        if error < nearest:
            best, nearest = config, error
    assert best is not None
    return best


def write_zoo(root: Path) -> tuple[Path, Path, Path]:
    """Directories of Gemma, CLIP and ConvNeXt with the reference's weights, as they are sold."""
    llm, clip, convnext = root / "llm", root / "clip", root / "convnext"
    for directory in (llm, clip, convnext):
        directory.mkdir(parents=True)
    language = {
        name: tensor
        for name, tensor in tensors("state_dict").items()
        if name.startswith(("model.embed_tokens", "model.layers", "model.norm"))
    }
    save_file(language, llm / "model.safetensors", metadata={"format": "pt"})
    values = {key: value for key, value in CONFIG.items() if key not in vars(MGMConfig)}
    (llm / "config.json").write_text(json.dumps({**values, "model_type": "gemma"}))
    shutil.copy(TINY / "char_tokenizer.json", llm / "tokenizer.json")
    torch.save(
        {f"vision_model.{name}": tensor for name, tensor in below(CLIP_PREFIX).items()},
        clip / "pytorch_model.bin",
    )
    (clip / "config.json").write_text(
        json.dumps({"model_type": "clip", "vision_config": clip_config().to_dict()})
    )
    trunk = below(f"{CONVNEXT_PREFIX}vision_")
    torch.save(
        {f"visual.trunk.{name}": tensor for name, tensor in trunk.items()},
        convnext / "open_clip_pytorch_model.bin",
    )
    return llm, clip, convnext


def assemble(zoo: tuple[Path, Path, Path], **options: Any) -> MGM:
    """The model from its zoo, with the kit's stage-1 projector."""
    mgm = checkpoints.assemble(
        *zoo,
        **{
            "image_size_aux": CONFIG["image_size_aux"],
            "image_aspect_ratio": CONFIG["image_aspect_ratio"],
            "model_max_length": CONFIG["tokenizer_model_max_length"],
            **options,
        },
    )
    checkpoints.load_projector(TINY / "mm_projector.bin", mgm.model)
    return mgm


def load_lora(zoo: tuple[Path, Path, Path], **options: Any) -> MGM:
    """The kit's LoRA run on the models of the zoo."""
    llm, clip, convnext = zoo
    return checkpoints.load(
        TINY / "lora_run", llm_dir=llm, vision_dir=clip, vision_aux_dir=convnext, **options
    )


def write_checkpoint(path: Path) -> Path:
    """A full checkpoint as the kit writes it: one file, `lm_head.weight` in it."""
    path.mkdir(parents=True)
    save_file(tensors("state_dict"), path / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(TINY / "config.json", path)
    shutil.copy(TINY / "char_tokenizer.json", path / "tokenizer.json")
    return path


def forward_inputs() -> dict[str, Tensor]:
    """What the reference's forward pass read."""
    names = ("input_ids", "attention_mask", "labels", "images", "images_aux")
    return {name: tensor for name, tensor in tensors("forward").items() if name in names}


def liven(model: MGMGemmaForCausalLM) -> None:
    """Let layers speak louder: an untrained model with a tied head repeats its last word."""
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data *= 30
        layer.mlp.down_proj.weight.data *= 30


def logits(model: MGMGemmaForCausalLM) -> Tensor:
    """What a model answers to the reference's inputs."""
    with torch.no_grad():
        answer: Tensor = model(**forward_inputs()).logits
    return answer


def same_model(one: MGMGemmaForCausalLM, other: MGMGemmaForCausalLM) -> None:
    """Both hold the same parameters to the bit, and answer alike up to rounding."""
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert torch.allclose(logits(one), logits(other), rtol=0, atol=1e-5)
