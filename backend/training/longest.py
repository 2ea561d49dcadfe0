"""The longest samples of a training, and the memory that they are expected to need."""

from __future__ import annotations

import torch

from backend.memory.expectation import Length, Longest, expect, longest_micro_batch
from backend.memory.parts import Prediction
from backend.memory.settings import MemorySettings
from backend.memory.shapes import ClipShape, ConvNextShape, LanguageShape, ModelShape
from backend.mgm.configuration import MGMConfig
from backend.mgm.multimodal import IGNORE
from backend.training.data import Collator
from backend.training.parameters import TrainingParameters
from backend.workspace import Workspace


def find_longest(collator: Collator, size: int) -> Longest:
    """The micro-batch of `size` samples that needs most, pictures not opened."""
    config = collator.processor.config
    pictured: int = config.tokens_per_image
    most: int = config.tokenizer_model_max_length

    def measure(index: int) -> Length:
        conversation = collator.samples[index].conversation
        turns = [turn.record() for turn in conversation.turns]
        encoded = collator.processor.encode(turns, bool(conversation.images))
        images = sum(1 for token in encoded.input_ids if token < 0)
        positions = min(most, len(encoded.input_ids) + images * (pictured - 1))
        labels = sum(1 for label in encoded.labels if label != IGNORE)
        return Length(positions, min(labels, positions), images)

    return longest_micro_batch(collator.samples, size, pictured, measure)


def expectation(
    workspace: Workspace, parameters: TrainingParameters, collator: Collator, device: torch.device
) -> tuple[MemorySettings, Prediction]:
    """What a training of these samples needs on this device."""
    stage = "pretrain" if parameters.trained_part == "projector" else "finetune"
    longest = find_longest(collator, parameters.micro_batch_size)
    shape = shape_of(collator.processor.config)
    values = parameters.model_dump()
    return expect(workspace, shape, stage, values, longest, device_name(device))


def shape_of(config: MGMConfig) -> ModelShape:
    """The sizes of a model."""
    clip, convnext = config.clip, config.convnext
    language = LanguageShape(
        config.vocab_size,
        config.hidden_size,
        config.num_hidden_layers,
        config.intermediate_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
    )
    tower = ClipShape(
        clip.hidden_size,
        clip.intermediate_size,
        clip.num_hidden_layers,
        clip.num_attention_heads,
        clip.image_size,
        clip.patch_size,
    )
    trunk = ConvNextShape(tuple(convnext.dims), tuple(convnext.depths))
    return ModelShape(language, tower, trunk, config.image_size_aux)


def device_name(device: torch.device) -> str | None:
    """The GPU's name; None for a processor, whose memory is not a device's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None
