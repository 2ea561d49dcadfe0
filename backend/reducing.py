"""Curves made small enough to draw, with every spike still in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def reduce_curve(x: Floats, y: Floats, max_points: int) -> tuple[Floats, Floats]:
    """The lowest and the highest point of each bucket, in order, so that no spike is lost.

    Args:
        x: Positions, rising.
        y: Finite values.
        max_points: How many points remain at most, at least 4; the first and the last do.
    """
    if len(x) <= max_points:
        return x, y
    # Two of the budget are for the ends.
    edges = np.linspace(0, len(x), (max_points - 2) // 2 + 1).astype(np.int64)
    starts = edges[:-1]
    lowest = _first_where(y, np.minimum.reduceat(y, starts), edges)
    highest = _first_where(y, np.maximum.reduceat(y, starts), edges)
    chosen = np.unique(np.concatenate([[0, len(x) - 1], lowest, highest]))
    return x[chosen], y[chosen]


def _first_where(y: Floats, wanted: Floats, edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the first point of each bucket that has the bucket's wanted value."""
    hits = np.flatnonzero(y == np.repeat(wanted, np.diff(edges)))
    return hits[np.searchsorted(hits, edges[:-1])]
