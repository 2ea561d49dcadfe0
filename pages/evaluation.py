"""Evaluation: put the benchmarks to a checkpoint, watch it answer, see what it got right."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.evaluation.scores import METRICS, category_name, contract_text, metric_entry
from backend.runs import Run, State
from backend.workspace import Workspace
from pages.widgets.colors import run_color
from pages.widgets.forms import stage_form
from pages.widgets.gallery import pager, style
from pages.widgets.live import live
from pages.widgets.question_card import live_card, question_card
from pages.widgets.run_view import run_view
from pages.widgets.score_charts import CONFIG, category_bars
from pages.widgets.scores import score_metric
from pages.widgets.states import empty, switch_link
from pages.widgets.text import duration, escape, language, t, workspace
from pages.widgets.url import keep, restore
from store.answers import Score, latest_answers, question_page, run_scores
from store.runs import RunRow, run_row, run_rows
from store.thumbnails import question_thumbnails

PAGE = "page"
_SIZE = 12
_LIVE = 6
_OUTCOMES = ("", "wrong", "partly", "right")


def show() -> None:
    """The page."""
    style()
    st.title(t("evaluation.title"))
    space = workspace()
    every = run_rows(space)
    rows = [row for row in every if row.stage == "evaluate" and row.problem is None]
    ready = any(row.stage == "finetune" and row.state is State.SUCCEEDED for row in every)
    if not rows and not ready:
        empty(
            t("evaluation.empty"),
            t("evaluation.empty.step"),
            t("evaluation.empty.button"),
            "pages/training.py",
        )
        with st.expander(t("evaluation.new")):
            stage_form("evaluate")
        return
    with st.expander(t("evaluation.new"), icon=":material/add:", expanded=not rows):
        limit = stage_form("evaluate").get("limit")
        if about := predicted(rows, limit if isinstance(limit, int) else None):
            st.caption(about)
    if rows:
        chosen(space, rows)


def predicted(rows: list[RunRow], limit: int | None) -> str:
    """How long an evaluation will about take, by the latest one that has succeeded."""
    for row in rows:
        seconds = row.duration_s(0) if row.state is State.SUCCEEDED and row.ended_at else None
        counts = [entry["n"] for entry in row.scores.values() if entry.get("n")]
        if seconds is None or not counts:
            continue
        asked = [min(count, limit) if limit else count for count in counts]
        time = duration(seconds * sum(asked) / sum(counts))
        return t("evaluation.about", time=time, n=f"{sum(asked):,}", run=escape(row.label))
    return ""


def chosen(space: Workspace, rows: list[RunRow]) -> None:
    """One evaluation: how it goes, or what came out."""
    labels = {row.id: row for row in rows}
    restore("run", list(labels), rows[0].id)
    run_id = st.selectbox(
        t("evaluation.choose"),
        list(labels),
        format_func=lambda name: _label(labels[name]),
        key="run",
        on_change=keep("run", rows[0].id, _first_page),
        width=520,
    )
    row = run_row(space, run_id)
    run = Run.find(space, run_id)
    if not row.state.ended:
        live(answers_so_far, run_id, every=2, of=[run_id])
        run_view(run)
        return
    scores = run_scores(row)
    if not scores:
        st.info(t("evaluation.no_scores"), icon=":material/info:")
        run_view(run)
        return
    results(space, run, scores)
    with st.expander(t("evaluation.run"), icon=":material/monitoring:"):
        run_view(run)


def answers_so_far(run_id: str) -> None:
    """The answers that came last; when the run has ended, the whole page anew."""
    space = workspace()
    run = Run.find(space, run_id)
    if run.status().state.ended:
        st.rerun()
    answers = latest_answers(run, _LIVE)
    st.subheader(t("evaluation.live"))
    if not answers:
        st.caption(t("evaluation.live.none"))
        return
    names = [_live_image(line) for line in answers]
    shown = question_thumbnails(space, names)
    with st.container(key="gallery-live"):
        for number, (line, name) in enumerate(zip(answers, names, strict=True)):
            with st.container(border=True, key=f"live-{number}"):
                st.html(live_card(line, shown[name]))


def results(space: Workspace, run: Run, scores: list[Score]) -> None:
    """Scores with their intervals, then one benchmark in detail."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        for metric in METRICS:
            if entry := metric_entry(scores[0].run.scores, metric):
                score_metric(metric, entry)
        switch_link("pages/compare.py", t("evaluation.compare"), ":material/compare_arrows:",
                    {"runs": run.id})  # fmt: skip
    by_name = {score.benchmark: score for score in scores}
    restore("benchmark", list(by_name), scores[0].benchmark)
    name = st.segmented_control(
        t("evaluation.benchmark"),
        list(by_name),
        required=True,
        format_func=lambda benchmark: t(f"parameter.benchmarks.{benchmark}"),
        key="benchmark",
        on_change=keep("benchmark", scores[0].benchmark, _first_page),
        label_visibility="collapsed",
        wrap=True,
    )
    score = by_name[name]
    st.caption(escape(contract_text(score.contract, language())))
    categories(run, score)
    questions(space, run, score)


def categories(run: Run, score: Score) -> None:
    """Bars by category."""
    if len(score.categories) < 2:
        return
    st.subheader(t("evaluation.categories"))
    named = {category_name(name, language()): one for name, one in score.categories.items()}
    figure = category_bars(named, score.score, run_color(run.id), t("evaluation.score_axis"))
    st.plotly_chart(figure, config=CONFIG, key=f"categories-{score.benchmark}")


def questions(space: Workspace, run: Run, score: Score) -> None:
    """Right and wrong answers as pictures."""
    st.subheader(t("evaluation.questions"))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        restore("outcome", _OUTCOMES, "")
        outcome = st.segmented_control(
            t("evaluation.outcome"),
            _OUTCOMES,
            required=True,
            format_func=lambda name: t(f"evaluation.outcome.{name}" if name else "evaluation.all"),
            key="outcome",
            on_change=keep("outcome", "", _first_page),
            wrap=True,
        )
        category = _category(score) if len(score.categories) > 1 else ""
        search = st.text_input(
            t("evaluation.search"),
            key="find",
            bind="query-params",
            icon=":material/search:",
            on_change=_first_page,
            width=240,
        )
    total = question_page(run, score.benchmark, outcome, category, search or "", size=1).total
    st.caption(t("evaluation.count", count=f"{total:,}"))
    if not total:
        st.info(t("evaluation.nothing"), icon=":material/search_off:")
        return
    page = pager(total, _SIZE, PAGE)
    rows = question_page(run, score.benchmark, outcome, category, search or "", page, _SIZE).rows
    shown = question_thumbnails(space, [row["image"] for row in rows])
    with st.container(key="gallery-questions"):
        for number, row in enumerate(rows):
            with st.container(border=True, key=f"question-{number}"):
                st.html(question_card(row, shown[row["image"]]))


def _category(score: Score) -> str:
    names = ["", *score.categories]
    restore("category", names, "")
    return st.selectbox(
        t("evaluation.category"),
        names,
        format_func=lambda name: category_name(name, language()) if name else t("evaluation.all"),
        key="category",
        on_change=keep("category", "", _first_page),
        width=240,
    )


def _label(row: RunRow) -> str:
    found = [f"{t(f'parameter.benchmarks.{s.benchmark}')} {s.score:.1f}" for s in run_scores(row)]
    return " · ".join([row.label, t(f"state.{row.state}"), *found])


def _live_image(line: dict[str, Any]) -> str:
    """What `questions.parquet` will call the picture of an answer line."""
    key = str(line.get("question_id") or "0")
    return f"tsv:{key}" if line["benchmark"] == "mmbench" else f"{key}.jpg"


def _first_page() -> None:
    st.query_params.pop(PAGE, None)


show()
