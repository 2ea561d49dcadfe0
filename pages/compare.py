"""Compare: what differs between runs, how sure that is, and on which questions."""

from __future__ import annotations

import json
from collections import defaultdict

import pyarrow as pa
import streamlit as st

from backend.errors import SynthLoopError
from backend.evaluation.comparison import sentence
from backend.evaluation.evidence import Evaluated, parameter_differences
from backend.evaluation.scores import Metric, category_name, contract_differences, metric_entry
from backend.memory.health import describe
from backend.runs import Run
from backend.workspace import Workspace
from pages.widgets.colors import LEVEL_ICONS, icon, run_colors
from pages.widgets.compare_charts import costs, losses
from pages.widgets.comparisons import comparison, known_metrics, metrics_table
from pages.widgets.gallery import pager, style
from pages.widgets.inputs import run_label
from pages.widgets.question_card import answer_words, pair_card
from pages.widgets.run_tabs import findings
from pages.widgets.score_charts import (
    CONFIG,
    CategoryRow,
    dumbbell,
)
from pages.widgets.states import empty, failed, switch_link
from pages.widgets.tables import data_table
from pages.widgets.text import escape, language, t, workspace
from pages.widgets.url import keep, restore
from pages.widgets.words import known_text
from store.answers import paired_answers, paired_page
from store.compared import Compared, comparable, compared, distinct
from store.datasets import dataset_row
from store.runs import RunRow, run_rows
from store.thumbnails import question_thumbnails

PAGE = "page"
_SIZE = 8


def show() -> None:
    """The page."""
    style()
    st.title(t("compare.title"))
    space = workspace()
    rows = comparable(run_rows(space))
    if len(rows) < 2:
        empty(
            t("compare.empty"),
            t("compare.empty.step"),
            t("compare.empty.button"),
            "pages/evaluation.py",
        )
        return
    try:
        compare(space, rows)
    except SynthLoopError as error:
        failed(error)


def compare(space: Workspace, rows: list[RunRow]) -> None:
    """The chosen runs beside each other."""
    chosen, first = choose(rows)
    if len(chosen) < 2:
        st.info(t("compare.choose_two"), icon=":material/info:")
        return
    found = [compared(space, run_id) for run_id in chosen]
    labels = distinct(found)
    baseline = next(one for one in found if one.row.id == first)
    others = [one for one in found if one is not baseline]
    sentences(space, others, baseline, labels)
    colors = run_colors(one.row.id for one in found)
    st.html(metrics_table(space, [baseline, *others], labels, colors, baseline))
    health(space, [baseline, *others], labels)
    scored = [one for one in others if one.evaluation and baseline.evaluation]
    if scored:
        st.subheader(t("compare.by_category"))
        one, metric = choose_pair(scored, baseline, labels)
        by_category(space, one, baseline, metric, labels, colors)
    left, right = st.container(key="sides").columns(2, gap="medium")
    with left:
        losses(space, found, labels, colors)
    with right:
        costs(found, labels, colors)
    differences(space, [baseline, *others], labels)
    if scored:
        won_and_lost(space, one, baseline, metric, labels)


def health(space: Workspace, found: list[Compared], labels: dict[str, str]) -> None:
    """What was wrong with the trainings behind the runs: a difference may come from that alone."""
    for one in found:
        for training in one.trainings:
            name = f"{labels[one.row.id]}, {known_text(f'stage.{training.stage}', training.stage)}"
            for finding in findings(Run(space.runs / training.id)):
                if finding.level == "info":
                    continue
                box = st.error if finding.level == "error" else st.warning
                words = f"**{escape(name)}**: {escape(describe(finding, language()))}"
                box(words, icon=icon(LEVEL_ICONS[finding.level]))


def choose(rows: list[RunRow]) -> tuple[list[str], str]:
    """Runs and baseline; both in the URL."""
    known = {row.id: row for row in rows}
    evaluated = [row.id for row in rows if row.stage == "evaluate"]
    usual = (evaluated if len(evaluated) > 1 else list(known))[:2]
    asked = [run_id for run_id in st.query_params.get_all("runs") if run_id in known]
    if len(asked) == 1 and "runs" not in st.session_state:
        st.session_state["runs"] = [asked[0], *[name for name in usual if name != asked[0]][:1]]
    elif not asked and "runs" not in st.session_state:
        st.session_state["runs"] = usual
    restore("runs", list(known), [])
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.multiselect(
            t("compare.runs"),
            list(known),
            format_func=lambda name: run_label(known[name]),
            key="runs",
            on_change=keep("runs", usual, _first_page),
            width=640,
            wrap=True,
        )
        # The oldest is what the others were made to beat.
        oldest = min(chosen, default="", key=lambda name: (known[name].created_at or 0, name))
        restore("baseline", chosen, oldest)
        first = st.selectbox(
            t("compare.baseline"),
            chosen,
            format_func=lambda name: run_label(known[name]),
            key="baseline",
            on_change=keep("baseline", oldest, _first_page),
            width=320,
        )
    return chosen, first or ""


def sentences(
    space: Workspace, others: list[Compared], baseline: Compared, labels: dict[str, str]
) -> None:
    """In words, what is significant; where contracts differ, that first."""
    for one in others:
        if one.evaluation is None or baseline.evaluation is None:
            continue
        for metric in known_metrics([one, baseline]):
            ours = metric_entry(one.evaluation.scores, metric)
            theirs = metric_entry(baseline.evaluation.scores, metric)
            if ours is None or theirs is None:
                continue
            fields = contract_differences(ours.get("contract") or {}, theirs.get("contract") or {})
            if fields:
                st.warning(
                    escape(
                        t(
                            "document.contracts_differ",
                            run=labels[one.row.id],
                            benchmark=t(f"evaluation.metric.{metric}"),
                            fields=", ".join(fields),
                        )
                    ),
                    icon=":material/warning:",
                )
            result = comparison(_run(space, one), _run(space, baseline), metric)
            if result is not None:
                names = labels[one.row.id], labels[baseline.row.id]
                icon = {"better": "trending_up", "worse": "trending_down"}.get(result.verdict)
                st.markdown(
                    f":material/{icon or 'trending_flat'}: "
                    + escape(sentence(result, metric, *names, language=language()))
                )


def choose_pair(
    scored: list[Compared], baseline: Compared, labels: dict[str, str]
) -> tuple[Compared, Metric]:
    """Which run against the baseline, and by which metric."""
    by_id = {one.row.id: one for one in scored}
    metrics = known_metrics([*scored, baseline])
    with st.container(horizontal=True, vertical_alignment="bottom"):
        restore("against", list(by_id), scored[0].row.id)
        run_id = scored[0].row.id
        if len(by_id) > 1:
            run_id = st.selectbox(
                t("compare.candidate"),
                list(by_id),
                format_func=labels.__getitem__,
                key="against",
                on_change=keep("against", run_id, _first_page),
                width=320,
            )
        usual = _most_telling(metrics, baseline)
        restore("metric", metrics, usual)
        metric = st.segmented_control(
            t("compare.metric"),
            metrics,
            required=True,
            format_func=lambda name: t(f"evaluation.metric.{name}"),
            key="metric",
            on_change=keep("metric", usual, _first_page),
            wrap=True,
        )
    return by_id[run_id], metric


def _most_telling(metrics: list[Metric], one: Compared) -> Metric:
    """The first metric with more than one category: a plot by category of one tells nothing."""
    scores = one.evaluation.scores if one.evaluation else {}
    for metric in metrics:
        if len((metric_entry(scores, metric) or {}).get("categories") or {}) > 1:
            return metric
    return metrics[0]


def by_category(
    space: Workspace,
    one: Compared,
    baseline: Compared,
    metric: Metric,
    labels: dict[str, str],
    colors: dict[str, str],
) -> None:
    """A dumbbell plot over the questions that both answered."""
    pairs = paired_answers(_run(space, one), _run(space, baseline), metric)
    rows = category_rows(pairs)
    if not rows:
        st.info(t("compare.nothing_in_common"), icon=":material/info:")
        return
    figure = dumbbell(
        rows,
        (labels[baseline.row.id], labels[one.row.id]),
        (colors[baseline.row.id], colors[one.row.id]),
        t("evaluation.score_axis"),
    )
    st.plotly_chart(figure, config=CONFIG, key=f"dumbbell-{metric}")


def category_rows(pairs: pa.Table) -> list[CategoryRow]:
    """Mean scores (0 to 100) of both runs by category."""
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in pairs.select(["category", "candidate", "baseline"]).to_pylist():
        groups[row["category"]].append((row["candidate"], row["baseline"]))
    return [
        CategoryRow(
            category_name(name, language()),
            100 * sum(ours for ours, _ in scores) / len(scores),
            100 * sum(theirs for _, theirs in scores) / len(scores),
            len(scores),
        )
        for name, scores in groups.items()
    ]


def differences(space: Workspace, found: list[Compared], labels: dict[str, str]) -> None:
    """What differs in configuration and in data."""
    st.subheader(t("document.configuration"))
    names = [labels[one.row.id] for one in found]
    evaluated = [Evaluated(one.row.id, one.label, {}, [], one.trail) for one in found]
    differing = parameter_differences(evaluated)
    lines = [
        [
            known_text(f"stage.{stage}", stage),
            known_text(f"parameter.{name}.label", name),
            *map(_value, values),
        ]
        for stage, name, values in differing
    ]
    for reference_count in ("samples", "kept", "synthesized"):
        counts = [_count(space, one, reference_count) for one in found]
        if len(set(counts)) > 1:
            lines.append([t("document.data"), t(f"document.count.{reference_count}"), *counts])
    if not lines:
        st.caption(t("compare.same_configuration"))
        return
    heads = [t("document.stage"), t("document.parameter"), *names]
    columns = dict(zip(heads, zip(*lines, strict=True), strict=True))
    data_table(columns, key="differences")


def won_and_lost(
    space: Workspace, one: Compared, baseline: Compared, metric: Metric, labels: dict[str, str]
) -> None:
    """Questions on which the runs differ, with both answers."""
    st.subheader(t("document.examples"))
    pairs = paired_answers(_run(space, one), _run(space, baseline), metric)
    counts = {name: paired_page(pairs, name, size=1).total for name in ("won", "lost")}
    restore("which", list(counts), "won")
    which = st.segmented_control(
        t("compare.which"),
        list(counts),
        required=True,
        format_func=lambda name: f"{t(f'compare.{name}')} {counts[name]:,}",
        key="which",
        on_change=keep("which", "won", _first_page),
        label_visibility="collapsed",
        wrap=True,
    )
    if not counts[which]:
        st.caption(t(f"compare.{which}.none"))
        return
    page = pager(counts[which], _SIZE, PAGE)
    rows = paired_page(pairs, which, page=page, size=_SIZE).rows
    shown = question_thumbnails(space, [row["image"] for row in rows])
    names = (labels[one.row.id], labels[baseline.row.id])
    dataset = one.row.dataset if one.row.dataset in space.dataset_references() else None
    with st.container(key="gallery-pairs"):
        for number, row in enumerate(rows):
            with st.container(border=True, key=f"pair-{number}"):
                st.html(pair_card(row, shown[row["image"]], names))
                if dataset:
                    words = f"{row['question']} {answer_words(row)}"[:300]
                    switch_link(
                        "pages/samples.py",
                        t("compare.samples_like_it"),
                        ":material/image_search:",
                        {"dataset": dataset, "like": words},
                    )


def _run(space: Workspace, one: Compared) -> Run:
    return Run(space.runs / (one.evaluation or one.row).id)


def _count(space: Workspace, one: Compared, name: str) -> str:
    if one.row.dataset not in space.dataset_references():
        return "–"
    value = getattr(dataset_row(space, one.row.dataset), name)
    return "–" if value is None else f"{value:,}"


def _value(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or "–"
    return json.dumps(value, ensure_ascii=False)


def _first_page() -> None:
    st.query_params.pop(PAGE, None)


show()
