"""Samples: find, look at, judge and take along what a dataset version holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from backend.errors import SynthLoopError
from backend.runs import Run
from backend.workspace import Workspace
from pages.widgets.gallery import SIZES, pager, style
from pages.widgets.sample_card import (
    card_html,
    detail,
    pictures,
    similar,
    statistic_name,
)
from pages.widgets.states import empty, failed, switch_link
from pages.widgets.text import escape, number, t, workspace
from pages.widgets.url import keep, restore
from store.batches import step_samples, training_dataset
from store.datasets import DatasetRow, dataset_row, dataset_rows
from store.samples import (
    FACETS,
    NONE,
    Filters,
    Range,
    Sort,
    column_limits,
    data_juicer_lines,
    facets,
    sample_ids,
    sample_page,
    samples,
    samples_like,
)
from store.statistics import spread, telling

PAGE = "page"
OPEN = "sample"
_EXPORTED = 100_000
_TABLE_COLUMNS = ("sample_id", "text", "question", "kept", "dropped_by", "operator", "origin")


def show() -> None:
    """The page."""
    style()
    st.title(t("samples.title"))
    space = workspace()
    run_id, step = st.query_params.get("run", ""), st.query_params.get("step", "")
    if run_id:
        batch(space, run_id, step)
        return
    versions = [row for row in dataset_rows(space) if row.problem is None]
    if not versions:
        empty(
            t("samples.empty"),
            t("samples.empty.step"),
            t("samples.empty.button"),
            "pages/synthesis.py",
        )
        return
    try:
        explore(space, versions)
    except SynthLoopError as error:
        failed(error)


def explore(space: Workspace, versions: list[DatasetRow]) -> None:
    """A dataset version with its facets."""
    names = [row.reference for row in versions]
    top = st.container(horizontal=True, vertical_alignment="bottom", key="samples-top")
    with top:
        reference = st.selectbox(
            t("samples.dataset"),
            names,
            key="dataset",
            bind="query-params",
            width=280,
            on_change=clear,
        )
        search = st.text_input(
            t("samples.search"),
            key="q",
            bind="query-params",
            icon=":material/search:",
            placeholder=t("samples.search.hint"),
            width=360,
            on_change=first_page,
        )
    left, right = st.container(key="sides").columns([2, 5], gap="medium")
    with left:
        filters = facet_column(space, reference, search or "")
    with right:
        results(space, dataset_row(space, reference), filters)


def facet_column(space: Workspace, reference: str, search: str) -> Filters:
    """The facets with their counts; what is chosen is in the URL."""
    known = {
        name: _options(name, values) for name, values in facets(space, reference, Filters()).items()
    }
    for name, options in known.items():
        restore(f"f_{name}", options, [])
    chosen = {name: tuple(st.session_state[f"f_{name}"]) for name in FACETS}
    ranges = _chosen_ranges(space, reference)
    filters = Filters(
        search=search,
        fate=chosen["fate"][0] if len(chosen["fate"]) == 1 else "",  # type: ignore[arg-type]
        origin=chosen["origin"],
        operator=chosen["operator"],
        dropped_by=chosen["dropped_by"],
        verdict=chosen["verdict"],
        ranges=ranges,
    )
    counted = {name: dict(values) for name, values in facets(space, reference, filters).items()}
    for name, options in known.items():
        if not options:
            continue
        st.pills(
            t(f"samples.facet.{name}"),
            options,
            selection_mode="multi",
            key=f"f_{name}",
            format_func=lambda value, name=name: _facet_label(name, value, counted[name]),
            on_change=keep(f"f_{name}", [], first_page),
        )
    range_sliders(space, reference)
    if filters.active:
        st.button(
            t("samples.clear"), icon=":material/filter_alt_off:", on_click=clear, type="tertiary"
        )
    return filters


def range_sliders(space: Workspace, reference: str) -> None:
    """One slider a statistic, folded away until one is asked for."""
    limits = {n: v for n, v in column_limits(space, reference).items() if v[0] < v[1]}
    active = bool(_chosen_ranges(space, reference))
    with st.expander(t("samples.ranges"), expanded=active):
        for name, (low, high) in limits.items():
            st.slider(
                escape(statistic_name(name)),
                low,
                high,
                key=f"r_{name}",
                value=(low, high),
                bind="query-params",
                on_change=first_page,
                format="%.3g",
                step=(high - low) / 100,
            )


def results(space: Workspace, dataset: DatasetRow, filters: Filters) -> None:
    """How many pass, then a gallery or a table of them."""
    reference = dataset.reference
    like = st.query_params.get("like", "")
    if like:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.text(t("samples.like", text=like))
            st.button(t("samples.like.clear"), on_click=lambda: st.query_params.pop("like", None))
        rows = samples_like(space, reference, like, 24)
        gallery(space, dataset, rows)
        return
    bar = st.container(
        horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"
    )
    with bar:
        restore("view", ("gallery", "table"), "gallery")
        view = st.segmented_control(
            t("samples.view"),
            ("gallery", "table"),
            required=True,
            format_func=lambda name: t(f"samples.view.{name}"),
            key="view",
            on_change=keep("view", "gallery"),
            label_visibility="collapsed",
        )
        sort = _sort(space, reference)
        size = st.selectbox(
            t("samples.size_of_page"),
            SIZES,
            key="size",
            bind="query-params",
            width=110,
            on_change=first_page,
        )
    total = sample_page(space, reference, filters, size=1).total
    with st.container(
        horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"
    ):
        st.markdown(t("samples.count", total=f"{total:,}", all=f"{dataset.samples or 0:,}"),
                    width="content")  # fmt: skip
        export(space, reference, filters, total)
    if not total:
        st.info(t("samples.nothing"), icon=":material/search_off:")
        return
    page = pager(total, size, PAGE)
    rows = sample_page(space, reference, filters, sort, page, size).rows.to_pylist()
    if view == "table":
        table(space, reference, rows)
    else:
        gallery(space, dataset, rows)


def gallery(space: Workspace, dataset: DatasetRow, rows: list[dict[str, Any]]) -> None:
    """Cards; the one that the URL names is open."""
    spreads = spread(space, dataset.reference)
    opened = st.query_params.get(OPEN, "")
    if opened and opened not in {row["sample_id"] for row in rows}:
        found = samples(space, dataset.reference, [opened])
        if found:
            open_card(space, dataset, found[0])
    shown = pictures(space, dataset.image_root, rows)
    with st.container(key="gallery"):
        for index, (row, small) in enumerate(zip(rows, shown, strict=True)):
            if row["sample_id"] == opened:
                open_card(space, dataset, row)
                continue
            with st.container(border=True, key=f"card-{index}"):
                st.html(card_html(row, small, telling(row, spreads)))
                with st.container(
                    horizontal=True,
                    horizontal_alignment="distribute",
                    vertical_alignment="center",
                ):
                    st.button(
                        t("samples.open"),
                        key=f"open-{row['sample_id']}",
                        icon=":material/open_in_full:",
                        type="tertiary",
                        on_click=open_sample,
                        args=(row["sample_id"],),
                    )
                    _select_box(dataset.reference, row["sample_id"])


def open_card(space: Workspace, dataset: DatasetRow, row: dict[str, Any]) -> None:
    """The open sample in place of its card, over the whole width."""
    with st.container(border=True, key="open-card"):
        with st.container(horizontal=True, horizontal_alignment="distribute"):
            st.button(
                t("samples.close"),
                icon=":material/close:",
                shortcut="Esc",
                type="tertiary",
                on_click=open_sample,
                args=("",),
            )
            _select_box(dataset.reference, row["sample_id"])
        detail(space, dataset.reference, row)
        others = similar(space, dataset.reference, row["sample_id"])
        if others:
            st.caption(t("samples.similar"))
            with st.container(key="gallery-similar"):
                for other, small in others:
                    with st.container(border=True):
                        st.html(card_html(other, small))
                        st.button(
                            t("samples.open"),
                            key=f"similar-{other['sample_id']}",
                            type="tertiary",
                            on_click=open_sample,
                            args=(other["sample_id"],),
                        )


def table(space: Workspace, reference: str, rows: list[dict[str, Any]]) -> None:
    """Rows; one that is clicked opens below."""
    statistics = [name for name in rows[0] if name.startswith("stat_")]
    frame = pd.DataFrame(rows)[[*_TABLE_COLUMNS, *statistics]]
    names = {name: t(f"samples.column.{name}") for name in _TABLE_COLUMNS}
    frame = frame.rename(columns={**names, **{name: statistic_name(name) for name in statistics}})
    chosen = st.dataframe(
        frame, hide_index=True, on_select="rerun", selection_mode="single-row", key="rows"
    )
    marked = chosen["selection"]["rows"]
    if marked and marked[0] < len(rows):
        open_card(space, dataset_row(space, reference), rows[marked[0]])


def export(space: Workspace, reference: str, filters: Filters, total: int) -> None:
    """The selected samples, or without any all that pass, as lines in the kit's form."""
    selected = sorted(_selection(reference))
    with st.container(horizontal=True, width="content", vertical_alignment="center"):
        if selected:
            st.button(
                t("samples.unselect", count=len(selected)),
                type="tertiary",
                on_click=_selection(reference).clear,
            )
        st.download_button(
            t("samples.export.selected", count=f"{len(selected):,}")
            if selected
            else t("samples.export.all", count=f"{min(total, _EXPORTED):,}"),
            lambda: data_juicer_lines(
                space, reference, selected or sample_ids(space, reference, filters, _EXPORTED)
            ),
            file_name=f"{reference.replace('/', '-')}.jsonl",
            mime="application/jsonl",
            icon=":material/download:",
            on_click="ignore",
            disabled=not total,
            help=t("samples.export.help"),
        )


def batch(space: Workspace, run_id: str, step: str) -> None:
    """The samples that one training step saw, the highest loss first."""
    try:
        run = Run.find(space, run_id)
        if not step.isdecimal():
            found: list[dict[str, Any]] = []
        else:
            found = step_samples(space, run, int(step))
    except SynthLoopError as error:
        failed(error)
        return
    label = run.spec.name or run.id
    st.subheader(t("samples.batch", step=step, run=escape(label)))
    switch_link("pages/samples.py", t("samples.batch.leave"), ":material/arrow_back:")
    if not found:
        st.info(t("samples.batch.none"), icon=":material/search_off:")
        return
    known = [row["loss"] for row in found if row["loss"] is not None]
    if known:
        st.caption(
            t(
                "samples.batch.figures",
                count=len(found),
                mean=number(sum(known) / len(known)),
                most=number(max(known)),
            )
        )
    dataset = training_dataset(space, run)
    roots = {row["image_root"] for row in found if row["image_root"]}
    root = Path(next(iter(roots))) if len(roots) == 1 else None
    shown = pictures(space, root, found)
    with st.container(key="gallery-batch"):
        for index, (row, small) in enumerate(zip(found, shown, strict=True)):
            with st.container(border=True, key=f"batch-card-{index}"):
                figures = [] if row["loss"] is None else [(t("samples.loss"), row["loss"])]
                st.html(card_html(row, small, figures))
                if dataset:
                    switch_link(
                        "pages/samples.py",
                        t("samples.open"),
                        ":material/open_in_full:",
                        {"dataset": dataset, OPEN: row["sample_id"]},
                    )


def open_sample(sample_id: str) -> None:
    """Open one card; without an id, none."""
    if sample_id:
        st.query_params[OPEN] = sample_id
    else:
        st.query_params.pop(OPEN, None)


def first_page() -> None:
    """Filters changed: what was on page 7 is not there any more."""
    st.query_params.pop(PAGE, None)


def clear() -> None:
    """Forget every filter and the open sample."""
    for key in list(st.session_state):
        if str(key).startswith(("f_", "r_")):
            del st.session_state[key]
    for key in [key for key in st.query_params if key.startswith("f_")]:
        del st.query_params[key]
    st.session_state["q"] = ""
    first_page()
    open_sample("")


def _sort(space: Workspace, reference: str) -> Sort:
    columns = ["", *column_limits(space, reference)]
    with st.container(horizontal=True, vertical_alignment="bottom", width="content"):
        restore("sort", columns, "")
        column = st.selectbox(
            t("samples.sort"),
            columns,
            format_func=lambda name: statistic_name(name) if name else t("samples.sort.file"),
            key="sort",
            width=200,
            on_change=keep("sort", "", first_page),
        )
        descending = st.toggle(
            t("samples.sort.descending"), key="desc", bind="query-params", disabled=not column
        )
    return Sort(column, descending)


def _options(facet: str, values: list[tuple[str, int]]) -> list[str]:
    """What may be chosen of a facet; that no operator touched a sample is no choice."""
    nothing = NONE if facet in ("operator", "dropped_by") else None
    return [value for value, _ in values if value != nothing]


def _chosen_ranges(space: Workspace, reference: str) -> tuple[Range, ...]:
    found = []
    for name, limits in column_limits(space, reference).items():
        chosen = st.session_state.get(f"r_{name}")
        if chosen is None:
            asked = st.query_params.get_all(f"r_{name}")
            chosen = tuple(map(_number, asked)) if len(asked) == 2 else limits
            chosen = limits if None in chosen else chosen
        if tuple(chosen) != limits:
            found.append(Range(name, *chosen))
    return tuple(found)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _facet_label(facet: str, value: str, counts: dict[str, int]) -> str:
    known = facet in ("fate", "origin", "verdict") and value != NONE
    names = {"fate": "lineage", "origin": "samples.origin", "verdict": "samples.verdict"}
    label = t(f"{names[facet]}.{value}") if known else escape(value)
    return f"{label} {counts.get(value, 0):,}"


def _selection(reference: str) -> set[str]:
    chosen: set[str] = st.session_state.setdefault(f"selected {reference}", set())
    return chosen


def _select_box(reference: str, sample_id: str) -> None:
    key = f"select {reference} {sample_id}"
    chosen = _selection(reference)

    def change() -> None:
        (chosen.add if st.session_state[key] else chosen.discard)(sample_id)

    st.session_state[key] = sample_id in chosen
    st.checkbox(t("samples.select"), key=key, on_change=change)


show()
