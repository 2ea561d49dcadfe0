"""What probes measured on each device, and how far it corrects later predictions."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.files import append_line, read_lines
from backend.memory.parts import GROWING, STATIC, Moment, Prediction
from backend.workspace import Workspace

FILE = "probes.jsonl"
LIMITS = (0.5, 2.0)
"""A probe beyond them corrects nothing: that would hide a mistake, not a difference of devices."""


@dataclass(frozen=True)
class Correction:
    """How much more than predicted grows with the batch on a device.

    Attributes:
        factor: For `predict`; 1.0 when nothing was measured.
        count: Probes behind it; those beyond `LIMITS` are not.
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
        if probe.get("device") == device
        and isinstance(probe.get("ratio"), int | float)
        and usable(probe["ratio"])
    ]
    if not ratios:
        return Correction(device=device)
    return Correction(statistics.median(ratios), len(ratios), device)


def usable(ratio: float) -> bool:
    """Whether a probe's ratio corrects later predictions."""
    low, high = LIMITS
    return low <= ratio <= high


def ratio(prediction: Prediction, measured: Mapping[Moment, int]) -> float | None:
    """Measured over predicted, of what grows with the batch, as if nothing corrected it yet.

    It is taken at the moment that needed most of those in which activations live: loading and the
    optimizer's step do not grow, though the peak of a small batch may be theirs.

    Args:
        prediction: Of the probe's configuration.
        measured: Highest allocated bytes of each moment.

    Returns:
        None when no such moment was measured, or nothing grows in it.
    """
    growing = {name: peak for name, peak in measured.items() if name in GROWING}
    if not growing:
        return None
    moment = max(growing, key=lambda name: growing[name])
    static = sum(prediction.held[moment][name] for name in STATIC)
    moving = (prediction.moments[moment] - static) / prediction.factor
    return (growing[moment] - static) / moving if moving > 0 else None
