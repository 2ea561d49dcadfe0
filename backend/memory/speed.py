"""Expected speed of one configuration relative to another: a cost model of measured ratios.

Ratios are of MGM-2B at 1,024 positions on one H100 (this trainer, nine configurations, which they
give back within a third) and one H200 (a plain script). Cards that compute more slowly lose less
by small portions. Those of ZeRO and offload rest on few measurements and say so in
`Option.estimated`.
"""

from __future__ import annotations

from backend.memory.settings import MemorySettings

ACTIVATION_CHECKPOINTING = 1.25
LANGUAGE, TOWERS, HEAD = 12.3, 1.2, 3.2
"""TFLOP of a sample of 1,024 positions and one picture, forward and backward: decoder layers,
towers, and logits of every position."""
HEAD_AGAIN = 4 / 3
"""Logits in chunks are computed again in the backward pass."""
PICTURES_ONE_BY_ONE, MINING_AGAIN = 1.35, 1.15
MLP_CHUNKS, COMPILED = 1.45, 0.9
ADAPTERS = 1.12
FULL_PRECISION = 1.27
OPTIMIZER = {"adamw": 0.0, "adamw_bf16": 0.0, "adamw_8bit": 0.05, "paged_adamw_8bit": 0.135}
"""Added time of one optimizer step, as a share of one micro-batch's time."""
OVERHEAD = 0.6
"""Time of a micro-batch that does not depend on its size, in samples' worth (measured with LoRA
at 4 and 32 samples)."""
UNPACKING = 2.0
"""Time of one pass of a micro-batch over NF4 weights, which are unpacked whatever its size: QLoRA's
beyond LoRA's, in samples' worth (measured at 4 samples)."""
OFFLOAD_MICRO_BATCH, OFFLOAD_STEP = 1.1, 13.0
"""Estimated shares of a micro-batch's time: moving gradients over PCIe, and AdamW on the CPU."""
PARTITIONED_WEIGHTS = 1.3
"""Estimated: ZeRO-3 gathers each layer twice."""


def seconds_per_sample(settings: MemorySettings) -> float:
    """Time of one sample on one device, in units of a sample of 1,024 positions in bf16."""
    length = settings.positions / 1024
    head = HEAD * (HEAD_AGAIN * settings.label_fraction if settings.loss_chunk else 1.0)
    work = (LANGUAGE + head) * length + TOWERS * settings.images_per_sample
    work /= LANGUAGE + HEAD + TOWERS
    work *= (1 + OVERHEAD / settings.micro_batch_size) / (1 + OVERHEAD / 4)
    if settings.activation_checkpointing:
        work *= ACTIVATION_CHECKPOINTING
    if settings.mining_checkpointing:
        work *= MINING_AGAIN
    if 0 < settings.tower_chunk < settings.images:
        work *= PICTURES_ONE_BY_ONE
    if settings.mlp_chunk:
        work *= MLP_CHUNKS
    if settings.compile:
        work *= COMPILED
    if settings.adapters:
        work *= ADAPTERS
    if settings.precision == "fp32":
        work *= FULL_PRECISION
    if settings.zero_stage == 3:
        work *= PARTITIONED_WEIGHTS
    if settings.method == "qlora":
        # Forward, backward, and the forward pass that is computed again.
        passes = 3 if settings.activation_checkpointing else 2
        work += passes * UNPACKING / settings.micro_batch_size
    extra = OPTIMIZER[settings.optimizer] / settings.gradient_accumulation
    if settings.offload != "none":
        extra += OFFLOAD_MICRO_BATCH + OFFLOAD_STEP / settings.gradient_accumulation
    trained = 1.0 if settings.method == "full" else 0.05
    return work + extra * trained


def is_estimated(settings: MemorySettings) -> bool:
    """Whether a ratio enters that nobody measured."""
    return settings.zero_stage > 0 or settings.offload != "none" or settings.devices > 1
