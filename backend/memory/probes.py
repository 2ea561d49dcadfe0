"""What probes measured on each device, and how far it corrects later predictions."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.files import append_line, read_lines
from backend.memory.parts import STATIC, Prediction
from backend.workspace import Workspace

FILE = "probes.jsonl"
LIMITS = (0.5, 2.0)
"""A larger correction would hide a mistake instead of a difference between devices."""


@dataclass(frozen=True)
class Correction:
    """How much more than predicted grows with the batch on a device.

    Attributes:
        factor: For `predict`; 1.0 when nothing was measured.
        count: Probes behind it.
        device: The device's name; None when there is none.
    """

    factor: float = 1.0
    count: int = 0
    device: str | None = None


def probes_path(workspace: Workspace) -> Path:
    """Where probes of all devices are kept."""
    return workspace.root / FILE


def record(workspace: Workspace, device: str, probe: dict[str, Any]) -> None:
    """Keep what a probe measured; `probe` has at least `ratio`."""
    append_line(probes_path(workspace), {"device": device, **probe})


def correction(workspace: Workspace, device: str | None) -> Correction:
    """The median ratio of this device's probes.

    Args:
        workspace: Whose probes.
        device: Name as the driver tells it; None has no correction.
    """
    path = probes_path(workspace)
    if device is None or not path.exists():
        return Correction(device=device)
    ratios = [
        float(probe["ratio"])
        for probe in read_lines(path)
        if probe.get("device") == device and isinstance(probe.get("ratio"), int | float)
    ]
    if not ratios:
        return Correction(device=device)
    low, high = LIMITS
    return Correction(min(high, max(low, statistics.median(ratios))), len(ratios), device)


def ratio(prediction: Prediction, measured_peak: int) -> float | None:
    """Measured over predicted, of what grows with the batch; None when nothing grows."""
    static = sum(prediction.parts[name] for name in STATIC)
    moving = prediction.peak_allocated - static
    return (measured_peak - static) / moving if moving > 0 else None
