"""Samples: find, look at, judge and take along what a dataset version holds."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.errors import SynthLoopError
from backend.workspace import Workspace
from pages.widgets.gallery import SIZES, pager, style
from pages.widgets.sample_card import (
    card_html,
    detail,
    pictures,
    question_text,
    similar,
    statistic_name,
)
from pages.widgets.sample_filters import OPEN, PAGE, clear, facet_column, first_page, open_sample
from pages.widgets.states import empty, failed
from pages.widgets.tables import data_table
from pages.widgets.text import t, workspace
from pages.widgets.url import keep, restore
from store.datasets import DatasetRow, dataset_row, dataset_rows
from store.samples import (
    Filters,
    Sort,
    column_limits,
    data_juicer_lines,
    sample_ids,
    sample_page,
    samples,
    samples_like,
)
from store.statistics import spread, telling

_EXPORTED = 100_000
_TABLE_COLUMNS = ("sample_id", "text", "question", "kept", "dropped_by", "operator", "origin")


def show() -> None:
    """The page."""
    style()
    st.title(t("samples.title"))
    space = workspace()
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
            wrap=True,
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
    heads = {name: t(f"samples.column.{name}") for name in _TABLE_COLUMNS}
    heads |= {name: statistic_name(name) for name in statistics}
    shown = [{**row, "question": question_text(row)} for row in rows]
    columns = {head: [row[name] for row in shown] for name, head in heads.items()}
    chosen = data_table(columns, on_select="rerun", selection_mode="single-row", key="rows")
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
