"""Figures about scores and data: bars, dumbbells, histograms, funnels. Colors are the caller's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from pages.widgets.text import number, t
from store.funnel import FunnelStep
from store.metrics import Curve
from store.statistics import Histogram

CONFIG = {"displaylogo": False, "displayModeBar": False}
QUIET = "#8A8F98"
_FEWEST_BINS = 9
"""Bins drawn of a histogram, so that a statistic that never varies is a line and not a block."""
_ROW = 28
"""Pixels of one horizontal bar."""


@dataclass(frozen=True, slots=True)
class CategoryRow:
    """One category of a benchmark in two runs."""

    name: str
    candidate: float
    baseline: float
    n: int


@dataclass(frozen=True, slots=True)
class Cost:
    """One run as a point: what it cost and what it reached."""

    label: str
    cost: float
    score: float
    color: str
    interval: tuple[float, float] | None = None


def category_bars(
    categories: dict[str, dict[str, Any]], overall: float, color: str, label: str
) -> go.Figure:
    """Score by category, the best on top, with the whole score as a line."""
    order = sorted(categories, key=lambda name: (categories[name]["score"], name))
    scores = [categories[name]["score"] for name in order]
    figure = go.Figure(
        go.Bar(
            x=scores,
            y=[_shown(name) for name in order],
            orientation="h",
            marker={"color": color},
            customdata=[[name, categories[name]["n"]] for name in order],
            hovertemplate="%{customdata[0]}: %{x:.1f} (n = %{customdata[1]:,})<extra></extra>",
            text=[f"{score:.1f}" for score in scores],
            textposition="outside",
            cliponaxis=False,
        )
    )
    figure.add_vline(overall, line={"color": QUIET, "dash": "dash", "width": 1})
    return _laid_out(figure, len(order), label, (0, 112))


def dumbbell(
    rows: Sequence[CategoryRow], names: tuple[str, str], colors: tuple[str, str], label: str
) -> go.Figure:
    """Category by category, both runs' scores joined by a line; the largest gain on top."""
    rows = sorted(rows, key=lambda row: row.candidate - row.baseline)
    shown = [_shown(row.name) for row in rows]
    figure = go.Figure()
    for y, row in zip(shown, rows, strict=True):
        line = {"color": QUIET, "width": 2}
        figure.add_scatter(
            x=[row.baseline, row.candidate], y=[y, y], mode="lines", line=line,
            showlegend=False, hoverinfo="skip",
        )  # fmt: skip
    for which, name, color in zip(("baseline", "candidate"), names, colors, strict=True):
        figure.add_scatter(
            x=[getattr(row, which) for row in rows],
            y=shown,
            mode="markers",
            name=_shown(name),
            marker={"color": color, "size": 11,
                    "symbol": "circle-open" if which == "baseline" else "circle",
                    "line": {"width": 2, "color": color}},
            customdata=[[row.name, row.n] for row in rows],
            hovertemplate="%{customdata[0]}: %{x:.1f} (n = %{customdata[1]:,})",
        )  # fmt: skip
    return _laid_out(figure, len(rows), label, (-3, 103), legend=True)


def cost_scatter(points: Sequence[Cost], cost: str, score: str) -> go.Figure:
    """Score against what it cost, one point a run."""
    figure = go.Figure()
    middle = max((point.cost for point in points), default=0) / 2
    for point in points:
        figure.add_scatter(
            x=[point.cost],
            y=[point.score],
            mode="markers+text",
            name=_shown(point.label),
            text=[f"  {_shown(point.label)}  "],
            # Where there is room: beside its interval, towards the middle.
            textposition="middle left" if point.cost > middle else "middle right",
            marker={"color": point.color, "size": 12},
            error_y=_error(point),
            hovertemplate="%{fullData.name}: %{y:.1f}, %{x:.3g}<extra></extra>",
            showlegend=False,
        )
    figure.update_xaxes(title=cost, rangemode="tozero")
    figure.update_yaxes(title=score)
    return figure.update_layout(height=320, margin={"l": 8, "r": 8, "t": 16, "b": 8})


def loss_curves(curves: Sequence[tuple[str, str, Curve]], step: str, loss: str) -> go.Figure:
    """Loss by step of several runs: (label, color, curve)."""
    figure = go.Figure()
    for label, color, curve in curves:
        figure.add_scatter(
            x=curve.x, y=curve.y, mode="lines", name=_shown(label),
            line={"color": color, "width": 2},
        )  # fmt: skip
    figure.update_xaxes(title=step)
    figure.update_yaxes(title=loss)
    return figure.update_layout(
        height=320,
        margin={"l": 8, "r": 8, "t": 16, "b": 8},
        hovermode="x unified",
        legend={"orientation": "h", "y": 1.1},
        uirevision="loss",
    )


def quality(histogram: Histogram, name: str, ours: str, theirs: str) -> go.Figure:
    """One statistic: bars of this version, a stepped line of what it is compared with."""
    seen = np.flatnonzero((histogram.ours > 0) | (histogram.theirs > 0))
    first, last = (int(seen[0]), int(seen[-1])) if len(seen) else (0, 0)
    room = max(0, _FEWEST_BINS - (last - first + 1) + 1) // 2
    first, last = max(0, first - room), min(len(histogram.ours) - 1, last + room)
    # Bins of equal width, whatever their edges: some statistics span powers of ten.
    bins, edges = np.arange(first, last + 1), histogram.edges
    spans = [f"{_edge(edges[i])} – {_edge(edges[i + 1])}" for i in bins]
    figure = go.Figure()
    figure.add_bar(
        x=bins, y=100 * histogram.ours[bins], name=_shown(ours), marker={"color": "#0072B2"},
        opacity=0.75, customdata=spans, hovertemplate="%{customdata}: %{y:.1f} %",
    )  # fmt: skip
    if histogram.theirs.any():
        figure.add_scatter(
            x=bins, y=100 * histogram.theirs[bins], name=_shown(theirs), mode="lines",
            line={"color": "#E69F00", "shape": "hvh", "width": 2},
            customdata=spans, hovertemplate="%{customdata}: %{y:.1f} %",
        )  # fmt: skip
    ticks = np.arange(first, last + 2, -(-len(bins) // 4))
    figure.update_yaxes(ticksuffix=" %", nticks=4, rangemode="tozero")
    figure.update_xaxes(
        tickvals=ticks - 0.5,
        ticktext=[_edge(edges[i]) for i in ticks],
        showgrid=False,
        range=(first - 0.6, last + 0.6),
    )
    return figure.update_layout(
        height=210,
        bargap=0.05,
        title={"text": _shown(name), "font": {"size": 14}},
        showlegend=False,
        margin={"l": 8, "r": 8, "t": 36, "b": 8},
    )


def _edge(value: float) -> str:
    return number(int(value) if float(value).is_integer() else float(value))


def funnel(steps: Sequence[FunnelStep]) -> go.Figure:
    """How many samples each operator left; the one at work is pale, those that wait are empty."""
    names = [f"{number}  {_shown(step.operator)}" for number, step in enumerate(steps, 1)]
    counts = [step.after if step.after is not None else step.before or 0 for step in steps]
    start = steps[0].before if steps else None
    colors = ["#0072B2" if step.state == "finished" else "#9CC9E3" for step in steps]
    figure = go.Figure(
        go.Bar(
            x=counts,
            y=names,
            orientation="h",
            marker={"color": colors},
            text=[_funnel_text(step) for step in steps],
            textposition="auto",
            cliponaxis=False,
            customdata=[
                [step.before if step.before is not None else "–", _seconds(step.seconds)]
                for step in steps
            ],
            hovertemplate="%{y}: %{customdata[0]} → %{text}, %{customdata[1]}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    most = max([*counts, start or 1, 1])
    return _laid_out(figure, len(steps), t("synthesis.funnel"), (0, 1.15 * most))


def _funnel_text(step: FunnelStep) -> str:
    if step.state != "finished" or step.after is None:
        return t(f"synthesis.funnel.{step.state}")
    gone = 0 if step.before is None else step.before + (step.created or 0) - step.after
    changes = [f"-{gone:,}"] if gone else []
    changes += [f"+{step.created:,}"] if step.created else []
    changes += (
        [t("synthesis.funnel.rewritten", count=f"{step.rewritten:,}")] if step.rewritten else []
    )
    return f"{step.after:,}" + (f"  ({', '.join(changes)})" if changes else "")


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.3g} s"


def _error(point: Cost) -> dict[str, Any] | None:
    if point.interval is None:
        return None
    low, high = point.interval
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - point.score],
        "arrayminus": [point.score - low],
        "color": point.color,
        "thickness": 1,
    }


def _laid_out(
    figure: go.Figure, rows: int, label: str, limits: tuple[float, float], *, legend: bool = False
) -> go.Figure:
    figure.update_xaxes(range=limits, title=label)
    figure.update_yaxes(automargin=True, ticksuffix="  ")
    return figure.update_layout(
        height=_ROW * rows + (120 if legend else 80),
        margin={"l": 8, "r": 16, "t": 40 if legend else 8, "b": 8},
        legend={"orientation": "h", "y": 1, "yanchor": "bottom"},
        bargap=0.3,
    )


def _shown(text: str) -> str:
    """Text for a figure, which takes some HTML: angle brackets made harmless, and shortened."""
    short = text if len(text) <= 40 else f"{text[:39]}…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
