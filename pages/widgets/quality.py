"""What a dataset version is like: figures, histograms against the seed, an analysis."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from backend.workspace import Workspace
from pages.widgets.sample_card import figure, statistic_name
from pages.widgets.score_charts import CONFIG, quality
from pages.widgets.text import t
from store.datasets import DatasetRow, seed_of
from store.statistics import Histogram, histograms

_FIGURES = ("samples", "distinct_captions", "duplicate_images", "unreadable_images",
            "vague_captions")  # fmt: skip


def figures(dataset: DatasetRow) -> None:
    """How many samples, and what became of them."""
    with st.container(horizontal=True):
        for name in ("samples", "kept", "dropped", "synthesized"):
            value = getattr(dataset, name)
            shown = "–" if value is None else f"{value:,}"
            st.metric(t(f"document.count.{name}"), shown, border=True, width=160)


def against_seed(workspace: Workspace, reference: str) -> None:
    """Six small histograms of what changed most."""
    seed = seed_of(workspace, reference)
    st.subheader(t("synthesis.quality"))
    found = histograms(workspace, reference, seed)
    if not found:
        st.caption(t("synthesis.quality.none"))
        return
    st.caption(
        t("synthesis.quality.legend", ours=reference, theirs=seed or t("document.data.start"))
    )
    _grid(found, reference)


def analysis(summary: dict[str, Any]) -> None:
    """A summary.json: figures, then a histogram a statistic."""
    with st.container(horizontal=True):
        for name in _FIGURES:
            value = summary.get(name)
            shown = "–" if value is None else f"{value:,}"
            st.metric(t(f"synthesis.figure.{name}"), shown, border=True, width=180)
    found = []
    for name, statistic in (summary.get("statistics") or {}).items():
        counts = np.asarray(statistic["histogram"]["counts"], dtype=float)
        if counts.sum():
            edges = np.asarray(statistic["histogram"]["edges"], dtype=float)
            found.append(
                Histogram(name, edges, counts / counts.sum(), np.zeros(len(counts)),
                          statistic.get("p50"), None, None)
            )  # fmt: skip
    _grid(found, str(summary.get("dataset") or ""))


def _grid(found: list[Histogram], reference: str) -> None:
    with st.container(key="gallery-histograms"):
        for histogram in found:
            with st.container(border=True, key=f"histogram-{histogram.name}"):
                name = statistic_name(histogram.name)
                theirs = histogram.compared_with or ""
                if theirs == reference:
                    theirs = t("synthesis.before_dropping")
                chart = quality(histogram, name, reference, theirs)
                st.plotly_chart(chart, config=CONFIG, key=f"figure-{histogram.name}")
                st.caption(_medians(histogram, reference))


def _medians(histogram: Histogram, reference: str) -> str:
    if histogram.our_median is None:
        return ""
    ours = figure(histogram.our_median)
    if histogram.their_median is None:
        return t("synthesis.median", ours=ours)
    key = "synthesis.medians"
    if histogram.compared_with == reference:
        key = "synthesis.medians.before"
    return t(key, ours=ours, theirs=figure(histogram.their_median))
