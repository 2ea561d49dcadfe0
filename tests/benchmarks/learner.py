"""The model of the learning comparison: a Gemma of 104 million parameters, starter's towers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import GemmaConfig, GemmaForCausalLM

from backend.mgm.projector import is_projector, is_tower
from backend.mgm.weights import iterate_weights, save_pickle
from tests.benchmarks.model_files import draw_weights, shapes_of, write_language


def write_learner(folder: Path, sizes: dict[str, int]) -> None:
    """A language model with random weights."""
    shapes = shapes_of(lambda: GemmaForCausalLM(GemmaConfig(**sizes)))
    shapes.pop("lm_head.weight", None)
    write_language(folder, sizes, draw_weights(shapes))


def split_checkpoint(checkpoint: Path, language: Path, target: Path) -> None:
    """A full checkpoint as a language model's folder and `mm_projector.bin`, in bf16.

    Args:
        checkpoint: What fine-tuning wrote.
        language: Folder of the language model that it started from; gives sizes and tokenizer.
        target: Where both go.
    """
    sizes = json.loads((language / "config.json").read_text())
    weights = {name: value.to(torch.bfloat16) for name, value in iterate_weights(checkpoint)}
    text = {
        name: value
        for name, value in weights.items()
        if not is_projector(name) and not is_tower(name) and name != "lm_head.weight"
    }
    write_language(target, sizes, text)
    save_pickle(
        target / "mm_projector.bin",
        {name: value for name, value in weights.items() if is_projector(name)},
    )
