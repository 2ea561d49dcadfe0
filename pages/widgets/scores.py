"""A score as a person should read it: with its interval, and its contract one hover away."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.evaluation.comparison import Metric
from pages.widgets.text import escape, t


def metric_entry(scores: dict[str, Any], metric: Metric) -> dict[str, Any] | None:
    """The part of scores.json that holds a metric, with score, interval, n and contract."""
    entry = scores.get("mmbench" if metric == "mmbench_vlmeval" else metric)
    if not isinstance(entry, dict) or entry.get("score") is None:
        return None
    if metric != "mmbench_vlmeval":
        return entry
    if entry.get("vlmeval_score") is None:
        return None
    return {
        **entry,
        "score": entry["vlmeval_score"],
        "interval": entry.get("vlmeval_interval"),
        "categories": entry.get("vlmeval_categories") or {},
        "contract": {**(entry.get("contract") or {}), "scorer": "mmbench-vlmeval-circular"},
    }


def score_metric(metric: Metric, entry: dict[str, Any]) -> None:
    """One figure with interval and contract."""
    known = interval_text(entry.get("interval"))
    count = entry.get("n")
    st.metric(
        t(f"evaluation.metric.{metric}"),
        f"{entry['score']:.1f}",
        help=escape(contract_text(entry.get("contract") or {})),
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


def contract_text(contract: dict[str, Any]) -> str:
    """Under which conditions the score was measured; what is not known is a dash."""
    limit = contract.get("limit")
    known = {
        name: "–" if contract.get(name) is None else str(contract[name])
        for name in ("scorer", "file", "sha256", "prompt", "dtype", "max_new_tokens")
    }
    known["sha256"] = known["sha256"][:12]
    return t(
        "document.contract.text",
        **known,
        ocr_tokens=t("document.yes" if contract.get("ocr_tokens") else "document.no"),
        limit=t("document.all") if limit is None else f"{limit:,}",
    )
