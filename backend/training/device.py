"""The device of a training process: chosen, capped, and read."""

from __future__ import annotations

import os
import time

import psutil
import torch
from torch import Tensor

from backend.mgm.convnext import ConvNextTower

MEMORY = ("memory_allocated", "memory_reserved", "memory_allocated_peak", "memory_reserved_peak")


def training_device(rank: int, budget_gib: float | None) -> torch.device:
    """This process's device: the first card, or of several that of its rank; else the processor.

    Args:
        rank: Of the process on this machine.
        budget_gib: What the workspace lets a run use of a card; torch refuses to go beyond it.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    # Pictures have one size, so the fastest convolution is worth looking for.
    torch.backends.cudnn.benchmark = True
    if budget_gib is not None:
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget_gib * 2**30 / whole), device)
    return device


def memory(device: torch.device) -> dict[str, int | None]:
    """Bytes now and at the peak since `forget_peaks`; the device's are None on a processor."""
    host = psutil.Process(os.getpid()).memory_info().rss
    values: list[int | None] = [None] * len(MEMORY)
    if device.type == "cuda":
        values = [
            torch.cuda.memory_allocated(device),
            torch.cuda.memory_reserved(device),
            torch.cuda.max_memory_allocated(device),
            torch.cuda.max_memory_reserved(device),
        ]
    return {**dict(zip(MEMORY, values, strict=True)), "host_memory": host}


def forget_peaks(device: torch.device) -> None:
    """Start the peaks of `memory` anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def choose_layout(tower: ConvNextTower, device: torch.device, size: int) -> dict[str, float]:
    """Let the ConvNeXt tower keep pictures in the layout that this device computes faster.

    Both are timed on one picture; which wins depends on card and library, mostly for the
    depthwise convolutions. On a processor nothing changes.

    Args:
        tower: Placed on the device.
        device: Where it is.
        size: Side of the picture in pixels.

    Returns:
        Seconds of a picture by layout; empty on a processor.
    """
    if device.type != "cuda":
        return {}
    picture = torch.zeros(1, 3, size, size, device=device)
    seconds = {}
    for layout in ("contiguous", "channels_last"):
        tower.channels_last = layout == "channels_last"
        seconds[layout] = _seconds(tower, picture)
    tower.channels_last = seconds["channels_last"] < seconds["contiguous"]
    torch.cuda.empty_cache()
    return seconds


def _seconds(tower: ConvNextTower, picture: Tensor) -> float:
    with torch.no_grad():
        for _ in range(2):
            tower(picture)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(3):
            tower(picture)
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / 3
