"""A training run's figures as arrays, with what is unknown kept apart from what is not a number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Series:
    """One figure over the steps at which it is known."""

    steps: Array
    values: Array

    def __len__(self) -> int:
        return len(self.values)

    def finite(self) -> Series:
        """Without the steps whose value is NaN or infinite."""
        keep = np.isfinite(self.values)
        return Series(self.steps[keep], self.values[keep])

    def last(self, share: float = 0.1, least: int = 3) -> Array:
        """The values of the last `share` of the steps, at least `least` of them."""
        return self.values[-max(least, int(len(self) * share)) :]

    def first(self, share: float = 0.1, least: int = 3) -> Array:
        """The values of the first `share` of the steps, at least `least` of them."""
        return self.values[: max(least, int(len(self) * share))]


class Curves:
    """The figures of a run, one row a step; a repeated step counts as its last attempt told it."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]):
        latest: dict[int, Mapping[str, Any]] = {}
        for row in rows:
            step = int(row["step"])
            known = latest.get(step)
            if known is None or (row.get("attempt") or 0) >= (known.get("attempt") or 0):
                latest[step] = row
        self._rows = [latest[step] for step in sorted(latest)]

    def __len__(self) -> int:
        return len(self._rows)

    def series(self, name: str) -> Series:
        """The figure `name` where it is known (not None)."""
        known = [row for row in self._rows if row.get(name) is not None]
        steps = np.array([float(row["step"]) for row in known])
        return Series(steps, np.array([float(row[name]) for row in known]))


def rolling_median(values: Array, width: int) -> Array:
    """Median over a centered window of `width` values (odd), shorter at the ends."""
    half = width // 2
    padded = np.pad(values, half, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    medians: Array = np.nanmedian(windows, axis=1)
    return medians


def spread(values: Array) -> float:
    """A standard deviation that outliers do not move (1.4826 x median absolute deviation)."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
