"""Loss curves over each other, and scores against what they cost."""

from __future__ import annotations

import streamlit as st

from backend.evaluation.scores import Metric, metric_entry
from backend.workspace import Workspace
from pages.widgets.comparisons import known_metrics
from pages.widgets.score_charts import CONFIG, Cost, cost_scatter, loss_curves
from pages.widgets.text import t
from pages.widgets.url import keep, restore
from store.compared import Compared
from store.metrics import Curve, smoothed

_GIB = 1 << 30


def losses(
    space: Workspace, found: list[Compared], labels: dict[str, str], colors: dict[str, str]
) -> None:
    """Loss curves over each other, of one training stage."""
    st.subheader(t("compare.losses"))
    stages = [s for s in ("pretrain", "finetune") if _curves(space, found, s)]
    if not stages:
        st.caption(t("compare.losses.none"))
        return
    restore("curve", stages, stages[0])
    stage = st.segmented_control(
        t("compare.stage"),
        stages,
        required=True,
        format_func=lambda name: t(f"stage.{name}"),
        key="curve",
        on_change=keep("curve", stages[0]),
        label_visibility="collapsed",
        wrap=True,
    )
    curves = [
        (labels[run_id], colors[run_id], curve)
        for run_id, curve in _curves(space, found, stage).items()
    ]
    figure = loss_curves(curves, t("document.step"), t("document.loss"))
    st.plotly_chart(figure, config=CONFIG, key=f"losses-{stage}")


def costs(found: list[Compared], labels: dict[str, str], colors: dict[str, str]) -> None:
    """Score against duration or memory."""
    st.subheader(t("compare.cost"))
    metrics = known_metrics(found)
    kinds = {
        kind: points
        for kind in ("duration", "peak_memory", "peak_host_memory")
        if metrics and (points := _points(found, labels, colors, metrics[0], kind))
    }
    if not kinds:
        st.caption(t("compare.cost.none"))
        return
    first = next(iter(kinds))
    restore("cost", list(kinds), first)
    kind = st.segmented_control(
        t("compare.cost"),
        list(kinds),
        required=True,
        format_func=lambda name: t(f"document.{name}"),
        key="cost",
        on_change=keep("cost", first),
        label_visibility="collapsed",
        wrap=True,
    )
    axis = t("compare.cost.minutes") if kind == "duration" else f"{t(f'document.{kind}')} (GiB)"
    figure = cost_scatter(kinds[kind], axis, t(f"evaluation.metric.{metrics[0]}"))
    st.plotly_chart(figure, config=CONFIG, key=f"cost-{kind}")


def _points(
    found: list[Compared],
    labels: dict[str, str],
    colors: dict[str, str],
    metric: Metric,
    kind: str,
) -> list[Cost]:
    points = []
    for one in found:
        entry = metric_entry(one.evaluation.scores, metric) if one.evaluation else None
        cost = one.seconds if kind == "duration" else getattr(one, kind)
        if entry is not None and cost is not None:
            amount = cost / 60 if kind == "duration" else cost / _GIB
            interval = entry.get("interval")
            points.append(
                Cost(
                    labels[one.row.id],
                    amount,
                    entry["score"],
                    colors[one.row.id],
                    tuple(interval) if interval else None,
                )
            )
    return points


def _curves(space: Workspace, found: list[Compared], stage: str) -> dict[str, Curve]:
    """Run id to the smoothed loss of its training, where there is one."""
    known = {}
    for one in found:
        run = one.training(space, stage)
        if run is not None and len(curve := smoothed(run, "loss")):
            known[one.row.id] = curve
    return known
