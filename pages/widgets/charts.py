"""A training run's curves on one step axis, drawn from at most 2,000 points each."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from backend.runs import Run
from pages.widgets.colors import OKABE_ITO, run_color
from pages.widgets.text import t
from store.metrics import Curve, MemoryLayers, curves, memory, smoothed

CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}
MAX_POINTS = 2000
_GIB = 1 << 30
_NAMES = ("loss", "learning_rate", "grad_norm", "samples_per_second")
_BROKEN = "#D55E00"
_GRID = "rgba(128,128,128,0.2)"


@dataclass(frozen=True, slots=True)
class Panel:
    """One row of the figure."""

    title: str
    height: float


def training_figure(run: Run, predicted_peak: float | None = None) -> go.Figure:
    """Loss, memory, learning rate, gradient norm and throughput over steps.

    Args:
        run: Whose.
        predicted_peak: Bytes of device memory that were predicted; None when nothing was.
    """
    found = curves(run, _NAMES, MAX_POINTS)
    layers = memory(run, MAX_POINTS // 2)
    panels = [
        Panel(t("run.chart.loss"), 3.2),
        Panel(_memory_title(layers), 1.5),
        Panel(t("run.chart.learning_rate"), 1),
        Panel(t("run.chart.grad_norm"), 1),
        Panel(t("run.chart.samples_per_second"), 1),
    ]
    figure = make_subplots(
        rows=len(panels),
        shared_xaxes=True,
        row_heights=[panel.height for panel in panels],
        vertical_spacing=0.055,
    )
    color = run_color(run.id)
    _loss(figure, found["loss"], smoothed(run, "loss"), color)
    _memory(figure, layers, predicted_peak)
    for row, name in enumerate(_NAMES[1:], 3):
        figure.add_trace(_line(found[name], panels[row - 1].title, color), row=row, col=1)
    _layout(figure, panels, run.id)
    return figure


def _line(curve: Curve, name: str, color: str) -> go.Scatter:
    return go.Scatter(
        x=curve.x,
        y=curve.y,
        name=name,
        mode="lines",
        line={"color": color, "width": 1.5},
        showlegend=False,
    )


def _loss(figure: go.Figure, raw: Curve, smooth: Curve, color: str) -> None:
    # A line without markers cannot be clicked.
    figure.add_trace(
        go.Scatter(
            x=raw.x,
            y=raw.y,
            name=t("run.chart.raw"),
            mode="lines+markers",
            line={"color": color, "width": 1},
            marker={"size": 5, "color": color},
            opacity=0.45,
        ),
        row=1,
        col=1,
    )
    figure.add_trace(
        go.Scatter(
            x=smooth.x,
            y=smooth.y,
            name=t("run.chart.smoothed"),
            mode="lines",
            line={"color": color, "width": 3},
            # A click selects what is hovered over first, and of a line nothing can be selected.
            hoverinfo="skip",
        ),
        row=1,
        col=1,
    )
    if len(raw.not_finite):
        top = float(raw.y.max()) if len(raw) else 1.0
        figure.add_trace(
            go.Scatter(
                x=raw.not_finite,
                y=[top] * len(raw.not_finite),
                name=t("run.chart.not_finite"),
                mode="markers",
                marker={"symbol": "x", "size": 9, "color": _BROKEN},
                hovertemplate=t("run.chart.not_finite"),
            ),
            row=1,
            col=1,
        )


def _memory_title(layers: MemoryLayers) -> str:
    on_device = len(layers.reserved) or len(layers.device)
    return t("run.chart.memory" if on_device else "run.chart.host_memory")


def _memory(figure: go.Figure, layers: MemoryLayers, predicted_peak: float | None) -> None:
    shown = [
        ("run.chart.device", layers.device, OKABE_ITO[7]),
        ("run.chart.reserved", layers.reserved, OKABE_ITO[4]),
        ("run.chart.allocated", layers.allocated, OKABE_ITO[0]),
    ]
    on_device = any(len(curve) for _, curve, _ in shown)
    if not on_device:
        host = layers.host if len(layers.host) else layers.process_tree
        shown = [("run.chart.host", host, OKABE_ITO[0])]
    for key, curve, color in shown:
        if len(curve):
            figure.add_trace(
                go.Scatter(
                    x=curve.x,
                    y=curve.y / _GIB,
                    name=t(key),
                    legend="legend2",
                    mode="lines",
                    line={"color": color, "width": 1.5},
                    fill="tozeroy",
                    hovertemplate="%{y:.3g} GiB",
                ),
                row=2,
                col=1,
            )
    for key, level, dash in (
        ("run.chart.card", layers.total, "solid"),
        # What was predicted is memory of the device; beside main memory it would mislead.
        ("run.chart.predicted", predicted_peak if on_device else None, "dash"),
    ):
        if level is not None:
            figure.add_hline(
                y=level / _GIB,
                row=2,
                col=1,
                line={"dash": dash, "width": 1, "color": _BROKEN},
                annotation_text=t(key),
                annotation_font_size=11,
            )


def _layout(figure: go.Figure, panels: list[Panel], revision: str) -> None:
    last = len(panels)
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_xaxes(title_text=t("run.chart.step"), row=last, col=1)
    figure.update_yaxes(gridcolor=_GRID, zeroline=False, nticks=4, automargin=True)
    figure.update_yaxes(rangemode="tozero", row=2, col=1)
    figure.update_yaxes(rangemode="tozero", row=last, col=1)
    for row, panel in enumerate(panels, 1):
        top = figure.get_subplot(row, 1).yaxis.domain[1]
        figure.add_annotation(
            text=panel.title,
            x=0,
            y=top,
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
            font={"size": 13},
        )
    legend = {
        "orientation": "h",
        "x": 1,
        "xanchor": "right",
        "yanchor": "bottom",
        "font": {"size": 11},
    }
    figure.update_layout(
        height=860,
        margin={"l": 8, "r": 8, "t": 28, "b": 8},
        hovermode="x unified",
        uirevision=revision,
        clickmode="event+select",
        legend=legend | {"y": 1},
        legend2=legend | {"y": figure.get_subplot(2, 1).yaxis.domain[1]},
    )
