"""Two evaluated runs against each other, computed once for the files as they are."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import streamlit as st

from backend.errors import UsageError
from backend.evaluation.comparison import Pair, compare
from backend.evaluation.scores import METRICS, Metric, contract_text, metric_entry
from backend.evaluation.statistics import Comparison
from backend.runs import Run
from backend.workspace import Workspace
from pages.widgets.text import duration, gib, language, number, t
from store.answers import paired_answers
from store.compared import Compared
from store.connection import fingerprint


@st.cache_data(max_entries=64, show_spinner=False)
def _compared(
    _candidate: Run,
    _baseline: Run,
    metric: Metric,
    key: str,  # noqa: ARG001
) -> Comparison | None:
    """`key` stands for both files' contents."""
    rows = paired_answers(_candidate, _baseline, metric).to_pylist()
    pairs = [
        Pair(r["key"], r["category"], r["cluster"] or r["key"], r["candidate"], r["baseline"], ())
        for r in rows
    ]
    try:
        return compare(pairs, metric) if pairs else None
    except UsageError:
        return None


def comparison(candidate: Run, baseline: Run, metric: Metric) -> Comparison | None:
    """The paired comparison; None when the runs have no question in common."""
    files = [fingerprint(run.artifacts / "questions.parquet") for run in (candidate, baseline)]
    if None in files:
        return None
    return _compared(candidate, baseline, metric, repr(files))


def known_metrics(found: Sequence[Compared]) -> list[Metric]:
    """The metrics that any of the runs has."""
    return [
        metric
        for metric in METRICS
        if any(one.evaluation and metric_entry(one.evaluation.scores, metric) for one in found)
    ]


def metrics_table(
    workspace: Workspace,
    found: Sequence[Compared],
    labels: dict[str, str],
    colors: dict[str, str],
    baseline: Compared,
) -> str:
    """Metrics as rows, runs as columns; below each score the difference to the baseline."""
    heads = "".join(
        f'<th class="sl-number"><span class="sl-dot" style="background:{colors[one.row.id]}">'
        f"</span>{escape(labels[one.row.id])}"
        + (f'<div class="sl-label">{escape(t("compare.is_baseline"))}</div>'
           if one is baseline and labels[one.row.id] != t("compare.is_baseline") else "")
        + "</th>"
        for one in found
    )  # fmt: skip
    lines = [
        _line(
            t(f"evaluation.metric.{metric}"),
            [_score_cell(workspace, one, baseline, metric) for one in found],
        )
        for metric in known_metrics(found)
    ]
    lines += [
        _line(t("document.final_loss"), [number(one.last_loss) for one in found]),
        _line(t("compare.training_time"), [escape(duration(one.seconds)) for one in found]),
        _line(t("document.peak_memory"), [gib(one.peak_memory) for one in found]),
        _line(t("document.peak_host_memory"), [gib(one.peak_host_memory) for one in found]),
        _line(t("document.data"), [escape(one.row.dataset or "–") for one in found]),
        _line(t("compare.method"), [escape(one.row.method or "–") for one in found]),
    ]
    return (
        f'<div class="sl-scroll"><table class="sl-table"><tr><th></th>{heads}</tr>'
        f"{''.join(lines)}</table></div>"
    )


def _score_cell(workspace: Workspace, one: Compared, baseline: Compared, metric: Metric) -> str:
    entry = metric_entry(one.evaluation.scores, metric) if one.evaluation else None
    if entry is None or one.evaluation is None:
        return "–"
    interval = entry.get("interval")
    span = f"{interval[0]:.1f}–{interval[1]:.1f}" if interval else t("evaluation.interval.unknown")
    hover = escape(contract_of(entry))
    cell = (
        f'<span title="{hover}"><strong>{entry["score"]:.1f}</strong> '
        f'<span class="sl-label">{escape(span)}</span></span>'
    )
    if one is baseline or baseline.evaluation is None:
        return cell
    result = comparison(
        Run(workspace.runs / one.evaluation.id),
        Run(workspace.runs / baseline.evaluation.id),
        metric,
    )
    return cell if result is None else cell + _difference(result)


def _difference(result: Comparison) -> str:
    css = {"better": "sl-right", "worse": "sl-wrong"}.get(result.verdict, "")
    sign = {"better": "arrow_upward", "worse": "arrow_downward"}.get(
        result.verdict, "horizontal_rule"
    )
    low, high = result.interval
    return (
        f'<div class="{css}"><span class="sl-badge{" sl-state " + css if css else ""}">'
        f'<span class="sl-icon">{sign}</span>{result.difference:+.1f}</span> '
        f'<span class="sl-label">{low:+.1f} … {high:+.1f}</span></div>'
    )


def contract_of(entry: dict[str, Any]) -> str:
    """The entry's contract in words."""
    return contract_text(entry.get("contract") or {}, language())


def _line(name: str, cells: Sequence[str]) -> str:
    shown = "".join(f'<td class="sl-number">{cell}</td>' for cell in cells)
    return f"<tr><td>{escape(name)}</td>{shown}</tr>"
