"""Predicted main memory of a training: libraries, paged states, and what DeepSpeed offloads."""

from __future__ import annotations

from backend.memory import costs
from backend.memory.parts import GIB
from backend.memory.settings import MemorySettings
from backend.memory.shapes import ModelShape

HOST_BASE = 3 * GIB
"""Interpreter, libraries and data workers of one process; pages of weight files are not counted,
the system can drop them."""


def host_bytes(shape: ModelShape, settings: MemorySettings) -> float:
    """Main memory of all processes: libraries, offloaded and paged states, the result as saved."""
    _, pageable = costs.optimizer_bytes(shape, settings)
    total = float(settings.devices * HOST_BASE) + settings.devices * pageable
    if settings.method == "full":
        # Saving brings the whole model over at once.
        total += costs.HALF * shape.parameters
    if settings.offload == "none":
        return total
    total += settings.devices * _offloaded(shape, settings)
    if settings.offload == "optimizer_parameters":
        total += costs.weight_bytes(shape, settings)
    return total


def _offloaded(shape: ModelShape, settings: MemorySettings) -> float:
    """What one process keeps, as DeepSpeed's `stage_1_and_2` and `stage3` allocate it.

    ZeRO 1 and 2, pinned: an fp32 master and an fp32 gradient, the half-precision copy that goes
    back to the device, room for the largest gradient, and while micro-batches are accumulated one
    buffer for each parameter. Pageable: two fp32 states.
    ZeRO 3, pinned: an fp32 gradient, half-precision gradients, and offloaded weights. Pageable: an
    fp32 master and two fp32 states.
    torch rounds a pinned block up to a power of two: for 2.52 billion values in fp32 this is 6 GiB.
    """
    trained = costs.trained_parameters(shape, settings) / settings.devices
    if settings.zero_stage == 3:
        weights = 2 if settings.offload == "optimizer_parameters" else 1
        pinned = _block(costs.FULL * trained) + weights * _block(costs.HALF * trained)
        return pinned + 3 * costs.FULL * trained
    pinned = 2 * _block(costs.FULL * trained) + _block(costs.HALF * trained)
    if settings.method == "full":
        pinned += _block(costs.HALF * shape.language.embedding_parameters)
    if settings.gradient_accumulation > 1:
        pinned += costs.HALF * trained
    return pinned + 2 * costs.FULL * trained


def _block(size: float) -> float:
    """What torch's allocator of pinned memory takes for this many bytes."""
    return float(1 << (max(1, round(size)) - 1).bit_length())
