"""Figures of the report as inline SVG: no script, readable in light and dark."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from backend.memory.curves import Series
from backend.reducing import reduce_curve

COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999933", "#882255")
"""Okabe–Ito, without its yellow and black, which vanish on a light or a dark ground."""
WIDTH = 760
_MOST = 480
"""Points of a curve."""


@dataclass(frozen=True, slots=True)
class Line:
    """One curve."""

    label: str
    color: str
    series: Series


@dataclass(frozen=True, slots=True)
class Dot:
    """One score with its interval, 0 to 100."""

    color: str
    value: float
    low: float | None = None
    high: float | None = None


def line_chart(lines: list[Line], x_label: str, y_label: str, height: int = 280) -> Markup:
    """Curves over the steps, on axes from the lowest to the highest value."""
    drawn = [
        Line(line.label, line.color, Series(*reduce_curve(known.steps, known.values, _MOST)))
        for line in lines
        if len(known := line.series.finite())
    ]
    if not drawn:
        return Markup("")
    left, right, top, bottom = 56.0, 12.0, 12.0, 40.0
    last = max(float(line.series.steps.max()) for line in drawn)
    first = min(float(line.series.steps.min()) for line in drawn)
    low = min(float(line.series.values.min()) for line in drawn)
    high = max(float(line.series.values.max()) for line in drawn)
    margin = 0.05 * (high - low) or 0.5
    low, high = low - margin, high + margin

    def x(step: float) -> float:
        return left + (step - first) / (last - first or 1) * (WIDTH - left - right)

    def y(value: float) -> float:
        return top + (high - value) / (high - low) * (height - top - bottom)

    parts = []
    for tick in _ticks(low, high):
        parts.append(_grid_line(left, WIDTH - right, y(tick)))
        parts.append(_text(left - 6, y(tick) + 4, f"{tick:.4g}", "end"))
    below = height - bottom + 18
    parts += [_text(x(tick), below, f"{tick:,.6g}", "middle") for tick in _ticks(first, last)]
    for line in drawn:
        series = line.series
        points = " ".join(
            f"{x(float(step)):.1f},{y(float(value)):.1f}"
            for step, value in zip(series.steps, series.values, strict=True)
        )
        parts.append(
            Markup(
                '<polyline points="{}" fill="none" stroke="{}" stroke-width="1.8" '
                'stroke-linejoin="round"><title>{}</title></polyline>'
            ).format(points, line.color, line.label)
        )
    parts.append(_text((left + WIDTH - right) / 2, height - 6, x_label, "middle"))
    parts.append(_text(left, top - 1, y_label, "start"))
    return _svg(parts, height, f"{y_label}: {', '.join(line.label for line in drawn)}")


def dot_chart(rows: list[tuple[str, list[Dot]]], description: str) -> Markup:
    """Scores from 0 to 100, one line a row, with intervals where known."""
    if not rows:
        return Markup("")
    left, right, step = 230.0, 24.0, 26.0
    height = int(step * len(rows) + 34)
    highest = max((dot.high or dot.value for _, dots in rows for dot in dots), default=100)
    top = min(100.0, max(10.0, 10.0 * math.ceil(highest / 10)))

    def x(value: float) -> float:
        return left + value / top * (WIDTH - left - right)

    parts = []
    for tick in _ticks(0, top):
        parts.append(_upright(x(tick), 4, height - 24))
        parts.append(_text(x(tick), height - 8, f"{tick:g}", "middle"))
    for number, (label, dots) in enumerate(rows):
        middle = step * number + 18
        parts.append(_text(left - 12, middle + 4, _shorten(label), "end"))
        values = [dot.value for dot in dots]
        parts.append(_grid_line(x(min(values)), x(max(values)), middle, strong=True))
        for place, dot in enumerate(dots):
            # Runs lie a little apart so that equal scores are both seen.
            height_of = middle + (place - (len(dots) - 1) / 2) * 4
            if dot.low is not None and dot.high is not None:
                parts.append(
                    Markup('<path d="M{:.1f} {:.1f}H{:.1f}" stroke="{}" stroke-width="2"/>').format(
                        x(dot.low), height_of, x(dot.high), dot.color
                    )
                )
            parts.append(
                Markup(
                    '<circle cx="{:.1f}" cy="{:.1f}" r="4.5" fill="{}"><title>{:.1f}</title>'
                    "</circle>"
                ).format(x(dot.value), height_of, dot.color, dot.value)
            )
    return _svg(parts, height, description)


def bar_chart(rows: list[tuple[str, float]], description: str) -> Markup:
    """Counts as bars, one line a row: the funnel of a recipe."""
    if not rows:
        return Markup("")
    left, right, step = 230.0, 90.0, 26.0
    height = int(step * len(rows) + 8)
    most = max(value for _, value in rows) or 1
    parts = []
    for number, (label, value) in enumerate(rows):
        top = step * number + 6
        width = value / most * (WIDTH - left - right)
        parts.append(_text(left - 12, top + 13, _shorten(label), "end"))
        parts.append(
            Markup(
                '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="16" rx="3" fill="{}"/>'
            ).format(left, top, width, COLORS[0])
        )
        parts.append(_text(left + width + 8, top + 13, f"{value:,.0f}", "start"))
    return _svg(parts, height, description)


def _svg(parts: list[Markup], height: int, description: str) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, description, Markup("").join(parts)
    )


def _text(x: float, y: float, content: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        x, y, anchor, content
    )


def _grid_line(x1: float, x2: float, y: float, *, strong: bool = False) -> Markup:
    name = "strong" if strong else "grid"
    return Markup('<path class="{}" d="M{:.1f} {:.1f}H{:.1f}"/>').format(name, x1, y, x2)


def _upright(x: float, y1: float, y2: float) -> Markup:
    return Markup('<path class="grid" d="M{:.1f} {:.1f}V{:.1f}"/>').format(x, y1, y2)


def _shorten(label: str, limit: int = 34) -> str:
    return label if len(label) <= limit else f"{label[: limit - 1]}…"


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two bounds."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / about
    power = 10 ** np.floor(np.log10(raw))
    step = float(next(power * factor for factor in (1, 2, 5, 10) if raw <= power * factor))
    first = np.ceil(low / step) * step
    return [float(round(tick, 10)) for tick in np.arange(first, high + step / 1e6, step)]


def swatch(color: str, label: str) -> Markup:
    """A legend's entry."""
    return Markup('<span class="swatch" style="background:{}"></span>{}').format(
        color, escape(label)
    )
