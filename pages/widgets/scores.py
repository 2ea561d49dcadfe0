"""A score as a person should read it: with its interval, and its contract one hover away."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.evaluation.scores import Metric, contract_text
from pages.widgets.text import escape, language, t


def score_metric(metric: Metric, entry: dict[str, Any]) -> None:
    """One figure with interval and contract."""
    known = interval_text(entry.get("interval"))
    count = entry.get("n")
    st.metric(
        t(f"evaluation.metric.{metric}"),
        f"{entry['score']:.1f}",
        help=escape(contract_text(entry.get("contract") or {}, language())),
        border=True,
        width=280,
        delta=known if count is None else t("evaluation.of_n", interval=known, n=f"{count:,}"),
        delta_color="off",
        delta_arrow="off",
    )


def interval_text(interval: tuple[float, float] | None) -> str:
    """The 95 % interval."""
    if interval is None:
        return t("evaluation.interval.unknown")
    return t("evaluation.interval", low=f"{interval[0]:.1f}", high=f"{interval[1]:.1f}")
