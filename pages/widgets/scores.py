"""A score as a person should read it: with its interval, and its contract one hover away."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.widgets.text import escape, t
from store.answers import Score


def score_metric(score: Score) -> None:
    """One figure with interval and contract."""
    st.metric(
        t(f"parameter.benchmarks.{score.benchmark}"),
        f"{score.score:.1f}",
        help=escape(contract_text(score.contract)),
        border=True,
        width=280,
        delta=interval_text(score.interval) + ("" if score.n is None else f", n = {score.n:,}"),
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
