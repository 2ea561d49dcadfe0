"""Why an operator kept or dropped a sample: its statistics against its limits, in few signs."""

from __future__ import annotations

import inspect
from typing import Any

from backend.synthesis.samples import number

_UNLIMITED = 1e15
"""Defaults beyond it mean that there is no limit."""


def limits_of(kind: type[Any], arguments: dict[str, Any]) -> dict[str, float]:
    """An operator's arguments that are limits (`min_…`, `max_…`), defaults included."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(kind.__init__).parameters.items()
    }
    found = {}
    for name, value in {**defaults, **arguments}.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name.startswith(("min_", "max_")) and is_number and abs(value) < _UNLIMITED:
            found[name] = float(value)
    return found


def filter_reason(stats: dict[str, Any], limits: dict[str, float], *, kept: bool) -> str:
    """For instance `num_words 1 < 3` or `image_width 402 in [336, 2048]`.

    Args:
        stats: What the operator found.
        limits: What it allows, from `limits_of`.
        kept: What it decided.
    """
    numbers = {name: value for name, item in stats.items() if (value := number(item)) is not None}
    parts = []
    for name, value in numbers.items():
        low, high = _range(name, limits, alone=len(numbers) == 1)
        if kept or len(numbers) > 1:
            parts.append(f"{name} {value:.4g}{_inside(low, high) if kept else ''}")
        if not kept and low is not None and value < low:
            parts = [f"{name} {value:.4g} < {low:.4g}"]
            break
        if not kept and high is not None and value > high:
            parts = [f"{name} {value:.4g} > {high:.4g}"]
            break
    return "; ".join(parts) or "; ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def _range(
    statistic: str, limits: dict[str, float], *, alone: bool
) -> tuple[float | None, float | None]:
    low = high = None
    for name, value in limits.items():
        side, _, what = name.partition("_")
        if alone or what in statistic:
            low, high = (value, high) if side == "min" else (low, value)
    return low, high


def _inside(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    if low is None:
        return f" <= {high:.4g}"
    return f" >= {low:.4g}" if high is None else f" in [{low:.4g}, {high:.4g}]"
