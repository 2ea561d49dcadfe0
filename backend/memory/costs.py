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
MAX_LIVE, PREFETCH = 1_000_000_000, 50_000_000
"""Values that ZeRO-3 gathers at once (DeepSpeed's default), and how many of them ahead of need; it
stops to gather when there are that many, so one layer comes on top."""
SUB_GROUP = 1_000_000_000
"""Values that ZeRO-3 updates at once (DeepSpeed's default)."""

STATE_BYTES = {"adamw": 8.0, "adamw_bf16": 4.0, "adamw_8bit": 2.0, "paged_adamw_8bit": 2.0}
"""Bytes of both AdamW states for one trained value, scales not counted."""


@dataclass(frozen=True)
class Implementation:
    """How a program computes the step, where programs differ in memory.

    Attributes:
        logit_bytes: Bytes that live for one logit at the worst point of a loss over all
            positions.
        chunk_bytes: The same of a loss in chunks.
        direct_mining: The mining layers project all 64 vectors of a cell to keys and values,
            instead of the one query to theirs.
        in_place: Gradients of the embedding matrix are added where they belong, without a second
            matrix of its size.
        adapter_bytes: Bytes of one LoRA weight; above 2, inputs are copied in that width.
        untied_loading: Embedding and output layer are two while the model is made.
    """

    logit_bytes: int = 6
    chunk_bytes: int = 8
    direct_mining: bool = False
    in_place: bool = True
    adapter_bytes: int = HALF
    untied_loading: bool = False


SYNTHLOOP = Implementation()
"""This studio's trainer: logits in bf16, their log-softmax and its gradient (3 times 2 bytes); in
chunks bf16 logits, their fp32 form, and its gradient in bf16."""
KIT = Implementation(logit_bytes=8, chunk_bytes=14, direct_mining=True, in_place=False)
"""The kit's own program (transformers 4.38.0)."""


def trained_parameters(shape: ModelShape, settings: MemorySettings) -> int:
    """How many values are trained."""
    if settings.method == "projector":
        return shape.projector_parameters
    if settings.adapters:
        adapter = shape.language.adapter_parameters(settings.lora_rank, settings.lora_targets)
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
        total += (
            language.adapter_parameters(settings.lora_rank, settings.lora_targets)
            * how.adapter_bytes
        )
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
        adapter = shape.language.adapter_parameters(settings.lora_rank, settings.lora_targets)
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


def attention_bytes_per_token(
    shape: ModelShape, settings: MemorySettings, how: Implementation = SYNTHLOOP
) -> float:
    """What the first half of a decoder layer keeps for its backward pass, for one token.

    Norm: its fp32 input (4 d), and its normalized form where the scale is trained. Normalized
    hidden states where the layers that read them are trained. Query and output (2 e·A), key and
    value before and after rotation (4 e·KV), one log-sum per head; eager keeps the scores.
    Compiled, whatever is no product of matrices is computed again from the layer's input.
    """
    language = shape.language
    attention = language.heads * language.head_dim
    kv = language.key_value_heads * language.head_dim
    kept = float(HALF * (2 * attention + 4 * kv) + FULL * language.hidden)
    if settings.compile:
        kept = float(HALF * (2 * attention + 2 * kv + language.hidden) + FULL)
    if settings.attention == "eager":
        kept += language.heads * settings.positions * (HALF + FULL + HALF)
    else:
        kept += FULL * language.heads
    if settings.method == "full":
        kept += (HALF if settings.compile else HALF + FULL) * language.hidden
    if settings.adapters:
        kept += _adapter_bytes(settings, how, language.hidden, "q_proj", "k_proj", "v_proj")
        kept += _adapter_bytes(settings, how, attention, "o_proj", kept_anyway=True)
    return kept


def mlp_bytes_per_token(
    shape: ModelShape, settings: MemorySettings, how: Implementation = SYNTHLOOP
) -> float:
    """What the second half of a decoder layer keeps, for one token.

    Gate, its GELU and up (3 e·ff), and what its last matrix reads; the norm as in the first half.
    Compiled, the GELU is computed again.
    """
    language = shape.language
    kept = float(HALF * 3 * language.intermediate + FULL * language.hidden)
    if settings.compile:
        kept = float(HALF * (2 * language.intermediate + language.hidden) + FULL)
    if settings.method == "full":
        kept += (HALF if settings.compile else HALF + FULL) * language.hidden
    if settings.adapters:
        kept += _adapter_bytes(settings, how, language.hidden, "gate_proj", "up_proj")
    return kept + product_bytes_per_token(shape, settings, how)


def product_bytes_per_token(
    shape: ModelShape, settings: MemorySettings, how: Implementation = SYNTHLOOP
) -> float:
    """Of these, what the last matrix of the MLP keeps of its input: free before the others."""
    if settings.method == "full":
        return float(HALF * shape.language.intermediate)
    if settings.adapters:
        return _adapter_bytes(settings, how, shape.language.intermediate, "down_proj")
    return 0.0


def update_bytes(shape: ModelShape, settings: MemorySettings) -> float:
    """What the optimizer's step needs for a bundle of weights, beside weights and states.

    A gradient in fp32; without a master the weights in fp32 as well; rounding at random takes
    four bytes of noise and the result; bf16 states are widened, and rounded again one by one.
    """
    trained = trained_parameters(shape, settings)
    values = min(BUNDLE, trained)
    if settings.zero_stage == 3:
        return float(FULL * min(SUB_GROUP, trained / settings.devices))
    if settings.zero_stage:
        # DeepSpeed updates its whole flat part at once: its gradients flat, and those in fp32.
        return (HALF + FULL) * trained / settings.devices
    if settings.precision == "fp32":
        each = 0
    elif settings.precision == "fp32_master":
        each = FULL
    else:
        each = 2 * FULL
    if settings.optimizer == "adamw_bf16":
        each += 2 * HALF + FULL + HALF
    elif settings.precision == "bf16_stochastic":
        each = max(each, FULL + FULL + HALF)
    return float(values * each)


def layer_bytes_per_token(
    shape: ModelShape, settings: MemorySettings, how: Implementation = SYNTHLOOP
) -> float:
    """What one decoder layer keeps for its backward pass, for one token."""
    first = attention_bytes_per_token(shape, settings, how)
    return first + mlp_bytes_per_token(shape, settings, how)


def _adapter_bytes(
    settings: MemorySettings,
    how: Implementation,
    inputs: int,
    *names: str,
    kept_anyway: bool = False,
) -> float:
    """Inputs of the adapters on layers that read the same, and what their first matrices give.

    With dropout each has a copy of its own and a mask of one byte a value.
    """
    count = sum(name in settings.lora_targets for name in names)
    width = how.adapter_bytes
    inner = count * settings.lora_rank * width
    if settings.lora_dropout > 0:
        return float(count * inputs * (width + 1) + inner)
    shared = bool(count) and not (kept_anyway and width == HALF)
    return float(shared * inputs * width + inner)


def layer_backward_temporary(
    shape: ModelShape, settings: MemorySettings, how: Implementation = SYNTHLOOP
) -> float:
    """Gradients of one layer's activations that live at once, for one token, when they are most:
    three of the MLP's width (of product, gate and up), after the product itself is free; LoRA in
    fp32 adds one pair in its width.
    """
    mlp = shape.language.intermediate
    if settings.adapters and how.adapter_bytes > HALF:
        return float((HALF + 2 * how.adapter_bytes - 1) * mlp)
    return 3 * HALF * mlp - min(HALF * mlp, product_bytes_per_token(shape, settings, how))


def layer_forward_temporary(shape: ModelShape) -> float:
    """What a checkpointed layer holds at its worst point, for one token: GELU, up and product."""
    language = shape.language
    return float(HALF * (3 * language.intermediate + 2 * language.hidden))


def checkpoint_bytes_per_token(shape: ModelShape, settings: MemorySettings) -> float:
    """The input of one decoder layer, or of half of one; fp32 weights make it fp32."""
    wide = settings.precision == "fp32" and settings.method == "full"
    return float((FULL if wide else HALF) * shape.language.hidden)


def head_bytes_per_token(shape: ModelShape) -> float:
    """Embeddings, their insertion, and the last norm's fp32 input and output."""
    return float((2 * HALF + 2 * FULL + HALF) * shape.language.hidden)


def logits_bytes(
    shape: ModelShape, settings: MemorySettings, how: Implementation = SYNTHLOOP
) -> float:
    """Logits and everything of their size, at the worst point of the loss.

    In chunks, only labeled positions have logits, and only `loss_chunk` of them at once.
    """
    vocabulary = shape.language.vocabulary
    if settings.loss_chunk:
        labeled = max(1.0, settings.tokens * settings.label_fraction)
        return min(settings.loss_chunk, labeled) * vocabulary * how.chunk_bytes
    return float(settings.tokens * vocabulary * how.logit_bytes)


@dataclass(frozen=True)
class VisionBytes:
    """Bytes of one picture in the vision part.

    Attributes:
        kept: Kept until the backward pass.
        forward: Live at the worst point of its forward pass.
        backward: Live at the worst point of its backward pass, beside what is kept.
        pixels: The picture itself, at both resolutions.
    """

    kept: float
    forward: float
    backward: float
    pixels: float


def picture_side(shape: ModelShape, settings: MemorySettings) -> int:
    """Side of the high-resolution picture, pixels: as asked for, or the model's for each cell."""
    return settings.image_size_aux or shape.image_aux * settings.image_grid


def vision_bytes(
    shape: ModelShape, settings: MemorySettings, how: Implementation = SYNTHLOOP
) -> VisionBytes:
    """What one picture costs.

    The joined map has 2,880 values for each of 192 x 192 vectors (0.198 GiB in bf16). Folded
    mining keeps its normalized form once; direct mining keeps the map, two normalized forms,
    keys and values.
    """
    side = picture_side(shape, settings) // 4
    vectors = side * side
    channels, low = shape.convnext.channels, shape.clip.hidden
    joined = float(HALF * vectors * channels)
    pyramid = sum(
        HALF * dim * (side // 2**stage) ** 2 for stage, dim in enumerate(shape.convnext.dims)
    )
    tokens = settings.views * shape.image_tokens
    projector = tokens * HALF * (6 * low + 3 * shape.language.hidden)
    pixels = FULL * 3 * (settings.views * shape.clip.image**2 + (4 * side) ** 2)
    # Vectors of all cells of all views; the plain model has one view of the whole map.
    cells = float(HALF * tokens * PATCH_CELLS**2 * channels)
    folded = 2 * HALF * tokens * channels
    if how.direct_mining:
        keys = 2 * HALF * vectors * low
        kept = 3 * joined + keys + projector
        again = 3 * joined + keys + joined
    else:
        kept = cells + folded + projector + tokens * PATCH_CELLS**2 * 4 * HALF
        again = joined + (1 if settings.views == 1 else 2 / settings.views) * cells + cells
    # Upsampled in fp32, one stage after the other, then joined, cut into cells, normalized.
    joining = 2 * joined + FULL * vectors * shape.convnext.dims[-1]
    whole_view = 3.5 * joined if settings.views > settings.image_grid**2 else 0.0
    forward = pyramid + max(3 * joined, joining, whole_view)
    backward = (joined + 2 * HALF * vectors * low) if how.direct_mining else 2 * folded
    if settings.mining_checkpointing:
        lasting = (joined if how.direct_mining else pyramid) + tokens * HALF * (
            low + shape.language.hidden
        )
        return VisionBytes(lasting, forward, max(forward - pyramid, again), pixels)
    return VisionBytes(kept, forward, backward, pixels)
