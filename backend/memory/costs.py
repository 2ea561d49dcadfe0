"""Closed forms: bytes of weights, gradients, optimizer states, activations, logits and vision.

What a layer keeps for its backward pass is counted operation by operation from the code that
runs (Gemma of transformers 5 with sdpa, peft's LoRA, `backend.mgm.mining`); coefficients are
bytes per token or per picture. Nothing here was fitted but `Implementation`, which says how
other programs than this one do the same step, so that their measurements can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass

from backend.memory.settings import MemorySettings
from backend.memory.shapes import PATCH_CELLS, ModelShape

HALF, FULL = 2, 4
"""Bytes of a bf16 and of an fp32 value."""
QUANTIZATION_BLOCK = 64
"""NF4: one 8-bit scale for this many weights, and an fp32 scale for 256 of those."""
OPTIMIZER_BLOCK = 256
"""8-bit AdamW: one fp32 scale for this many values of each state."""
SMALL = 4096
"""bitsandbytes keeps the states of tensors with fewer values in fp32."""
BUNDLE = 1 << 25
"""Values that this studio's optimizer updates at once."""
BUCKET = 500_000_000
"""Values in one of DeepSpeed's gradient buckets (its default, and what the kit's file gets)."""
MAX_LIVE = 1_000_000_000
"""Values that ZeRO-3 gathers at once, at most (DeepSpeed's default)."""

STATE_BYTES = {"adamw": 8.0, "adamw_bf16": 4.0, "adamw_8bit": 2.0, "paged_adamw_8bit": 2.0}
"""Bytes of both AdamW states for one trained value, scales not counted."""


@dataclass(frozen=True)
class Implementation:
    """How a program computes the step, where programs differ in memory.

    Attributes:
        logit_bytes: Bytes that live for one logit at the worst point of a loss over all
            positions.
        direct_mining: The mining layers project all 64 vectors of a cell to keys and values,
            instead of the one query to theirs.
        adapter_bytes: Bytes of one LoRA weight; above 2, inputs are copied in that width.
        untied_loading: Embedding and output layer are two while the model is made.
    """

    logit_bytes: int = 8
    direct_mining: bool = False
    adapter_bytes: int = HALF
    untied_loading: bool = False


SYNTHLOOP = Implementation()
"""This studio's trainer: logits in bf16, with a copy each for their log-softmax, its gradient,
and theirs (4 times 2 bytes)."""

KIT = Implementation(logit_bytes=8, direct_mining=True)
"""The kit's own program (transformers 4.38.0)."""


def trained_parameters(shape: ModelShape, settings: MemorySettings) -> int:
    """How many values are trained."""
    if settings.method == "projector":
        return shape.projector_parameters
    if settings.adapters:
        adapter = shape.language.adapter_parameters(settings.lora_rank)
        return adapter + shape.projector_parameters
    return shape.language.parameters + shape.projector_parameters


def weight_bytes(
    shape: ModelShape, settings: MemorySettings, how: Implementation = SYNTHLOOP
) -> float:
    """All weights as they are held for the forward pass, on one device before ZeRO-3 divides."""
    language = shape.language
    total = float(HALF * shape.parameters)
    if settings.method == "qlora":
        scales = 1 / QUANTIZATION_BLOCK * (1 + FULL / 256)
        total -= language.linear_parameters * (HALF - 0.5 - scales)
    if settings.adapters:
        total += language.adapter_parameters(settings.lora_rank) * how.adapter_bytes
    if settings.precision == "fp32":
        total += trained_parameters(shape, settings) * (FULL - HALF)
    return total


def gradient_bytes(
    shape: ModelShape, settings: MemorySettings, how: Implementation = SYNTHLOOP
) -> float:
    """All gradients, in the dtype of their weights."""
    if settings.precision == "fp32":
        return float(FULL * trained_parameters(shape, settings))
    total = float(HALF * trained_parameters(shape, settings))
    if settings.adapters:
        adapter = shape.language.adapter_parameters(settings.lora_rank)
        total += adapter * (how.adapter_bytes - HALF)
    return total


def optimizer_bytes(
    shape: ModelShape, settings: MemorySettings, how: Implementation = SYNTHLOOP
) -> tuple[float, float]:
    """Optimizer states and fp32 masters: (those that must lie on the device, those that may page).

    Paged states live in unified memory, which the driver moves out when the device is full.
    """
    trained = trained_parameters(shape, settings)
    states = STATE_BYTES[settings.optimizer] * trained
    if settings.adapters and settings.optimizer == "adamw" and settings.precision == "bf16":
        # torch's AdamW holds its states in the dtype of the weights.
        projector = shape.projector_parameters
        states = 2.0 * (how.adapter_bytes * (trained - projector) + HALF * projector)
    elif settings.optimizer == "adamw" and settings.precision in ("bf16", "bf16_stochastic"):
        states = 2.0 * HALF * trained
    masters = FULL * trained if settings.precision == "fp32_master" else 0
    if settings.optimizer in ("adamw_8bit", "paged_adamw_8bit"):
        scales = 2 * FULL * trained / OPTIMIZER_BLOCK
        if settings.optimizer == "paged_adamw_8bit":
            return masters + scales, states
        return masters + scales + states, 0.0
    return masters + states, 0.0


def layer_bytes_per_token(
    shape: ModelShape, settings: MemorySettings, how: Implementation = SYNTHLOOP
) -> float:
    """What one decoder layer keeps for its backward pass, for one token.

    MLP: gate, its GELU and up (3 e·ff), and their product where down is trained. Norms: their
    fp32 input (4 d each), and its normalized form where the scale is trained. Normalized hidden
    states where the layers that read them are trained. Attention: query and output (2 e·A), key
    and value before and after rotation (4 e·KV), one log-sum per head; eager keeps the scores.
    """
    language = shape.language
    hidden, mlp = language.hidden, language.intermediate
    attention = language.heads * language.head_dim
    kv = language.key_value_heads * language.head_dim
    kept = float(HALF * (3 * mlp + 2 * attention + 4 * kv) + FULL * 2 * hidden)
    if settings.attention == "eager":
        kept += language.heads * settings.positions * (HALF + FULL + HALF)
    else:
        kept += FULL * language.heads
    if settings.method == "full":
        kept += HALF * (mlp + 2 * hidden) + FULL * 2 * hidden
    if settings.adapters:
        kept += _adapter_bytes_per_token(shape, settings, how)
    return kept


def _adapter_bytes_per_token(
    shape: ModelShape, settings: MemorySettings, how: Implementation
) -> float:
    """Inputs of the seven adapters of a layer, and what comes out of their first matrices."""
    language = shape.language
    width = how.adapter_bytes
    inputs = [i for i, _ in language.linear_inputs_outputs]
    inner = len(inputs) * settings.lora_rank * width
    if settings.lora_dropout > 0:
        return float(sum(inputs) * (width + 1) + inner)
    q, _, _, o, gate, _, down = inputs
    return float((q + gate + o + down) * width + inner)


def layer_backward_temporary(
    shape: ModelShape, settings: MemorySettings, how: Implementation = SYNTHLOOP
) -> float:
    """Gradients of one layer's activations that live at once, for one token: three of the MLP's
    width (of product, gate and up); LoRA in fp32 adds one pair in its width.
    """
    mlp = shape.language.intermediate
    if settings.adapters and how.adapter_bytes > HALF:
        return float((HALF + 2 * how.adapter_bytes - 1) * mlp)
    return float(3 * HALF * mlp)


def checkpoint_bytes_per_token(shape: ModelShape) -> float:
    """The input of one decoder layer."""
    return float(HALF * shape.language.hidden)


def head_bytes_per_token(shape: ModelShape) -> float:
    """Embeddings, their insertion, and the last norm's fp32 input and output."""
    return float((2 * HALF + 2 * FULL + HALF) * shape.language.hidden)


def logits_bytes(
    shape: ModelShape, settings: MemorySettings, how: Implementation = SYNTHLOOP
) -> float:
    """Logits and everything of their size, at the worst point of the loss.

    In chunks, only labeled positions have logits, and only `loss_chunk` of them at once: bf16
    logits, their fp32 form, its log-softmax and its gradient (14 bytes).
    """
    vocabulary = shape.language.vocabulary
    if settings.loss_chunk:
        labeled = max(1.0, settings.tokens * settings.label_fraction)
        return min(settings.loss_chunk, labeled) * vocabulary * (HALF + 3 * FULL)
    return float(settings.tokens * vocabulary * how.logit_bytes)


@dataclass(frozen=True)
class VisionBytes:
    """Bytes of one picture in the vision part.

    Attributes:
        kept: Kept until the backward pass.
        recomputed: Of these, what a checkpointed mining block makes again.
        forward: Live at the worst point of its forward pass.
        backward: Gradients that live at once in its backward pass.
        pixels: The picture itself, at both resolutions.
    """

    kept: float
    recomputed: float
    forward: float
    backward: float
    pixels: float


def vision_bytes(
    shape: ModelShape, settings: MemorySettings, how: Implementation = SYNTHLOOP
) -> VisionBytes:
    """What one picture costs.

    The joined map has 2,880 values for each of 192 x 192 vectors (0.198 GiB in bf16). Folded
    mining keeps its normalized form once; direct mining keeps the map, two normalized forms,
    keys and values.
    """
    side = _map_side(shape, settings)
    vectors = side * side
    channels, low = shape.convnext.channels, shape.clip.hidden
    joined = float(HALF * vectors * channels)
    pyramid = sum(
        HALF * dim * (side // 2**stage) ** 2 for stage, dim in enumerate(shape.convnext.dims)
    )
    tokens = settings.views * shape.image_tokens
    projector = tokens * HALF * (6 * low + 3 * shape.language.hidden)
    pixels = HALF * 3 * (settings.views * shape.clip.image**2 + (4 * side) ** 2)
    if how.direct_mining:
        inner = 3 * joined + 2 * HALF * vectors * low
        backward = joined + 2 * HALF * vectors * low
    else:
        folded = 2 * HALF * tokens * channels
        inner = joined + folded + tokens * PATCH_CELLS**2 * 4 * HALF
        backward = 2 * folded
    input_kept = joined if how.direct_mining else pyramid
    mining = inner + projector
    forward = pyramid + max(3 * joined, 2 * joined + FULL * vectors * shape.convnext.dims[-1])
    if settings.mining_checkpointing:
        kept = input_kept + tokens * HALF * (low + shape.language.hidden)
        return VisionBytes(kept, mining, forward, backward, pixels)
    return VisionBytes(mining, 0.0, forward, backward, pixels)


def _map_side(shape: ModelShape, settings: MemorySettings) -> int:
    """Vectors along a side of the joined map."""
    return (settings.image_size_aux or shape.image_aux) // 4
