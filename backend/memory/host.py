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
    if settings.zero_stage == 3:
        # An fp32 master, two fp32 states and an fp32 gradient of each trained value.
        total += 16.0 * costs.trained_parameters(shape, settings)
    else:
        total += settings.devices * _offloaded(shape, settings)
    if settings.offload == "optimizer_parameters":
        total += costs.weight_bytes(shape, settings)
    return total


def _offloaded(shape: ModelShape, settings: MemorySettings) -> float:
    """What one process of ZeRO 1 or 2 keeps, as DeepSpeed's `stage_1_and_2` allocates it.

    Pinned: an fp32 master and an fp32 gradient, the half-precision copy that goes back to the
    device, room for the largest gradient, and while micro-batches are accumulated one buffer for
    each parameter. torch rounds a pinned block up to a power of two: for 2.52 billion values this
    is 6 GiB more for each of the two in fp32. Pageable: two fp32 states.
    """
    trained = costs.trained_parameters(shape, settings) / settings.devices
    pinned = 2 * _block(costs.FULL * trained) + _block(costs.HALF * trained)
    if settings.method == "full":
        pinned += _block(costs.HALF * shape.language.embedding_parameters)
    if settings.gradient_accumulation > 1:
        pinned += costs.HALF * trained
    return pinned + 2 * costs.FULL * trained


def _block(size: float) -> float:
    """What torch's allocator of pinned memory takes for this many bytes."""
    return float(1 << (max(1, round(size)) - 1).bit_length())
