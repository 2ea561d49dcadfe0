"""Runs: every run in a table, the queue, and one run in full."""

from __future__ import annotations

import time
from typing import Any

import streamlit as st

from backend.errors import SynthLoopError
from backend.files import file_sizes
from backend.runs import Run, State
from backend.stages import STAGES
from backend.supervisor import delete, queue, stop
from backend.trails import named
from backend.workspace import Workspace
from pages.widgets.cards import state_badge, state_words
from pages.widgets.colors import icon
from pages.widgets.gallery import style
from pages.widgets.inputs import run_label
from pages.widgets.judge_box import judge_box
from pages.widgets.run_tabs import sick
from pages.widgets.run_view import run_view
from pages.widgets.states import empty, failed, switch_link
from pages.widgets.tables import data_table
from pages.widgets.text import duration, escape, gib, number, t, workspace
from pages.widgets.url import keep, restore
from pages.widgets.words import known_text
from store.runs import RunRow, run_row, run_rows

_GIB = 1 << 30


def show() -> None:
    """The page."""
    style()
    space = workspace()
    st.title(t("runs.title"))
    asked = st.query_params.get("run")
    if asked:
        _one(space, asked)
        return
    rows = run_rows(space)
    if not rows:
        empty(t("runs.empty"), t("runs.empty.step"), t("runs.empty.button"), "pages/baseline.py")
    else:
        _queue(space)
        _table(space, _filtered(rows))
    judge_box()


def _one(space: Workspace, run_id: str) -> None:
    if st.button(t("runs.back"), icon=icon("arrow_back"), type="tertiary"):
        for name in ("run", "step", "view"):
            st.query_params.pop(name, None)
        st.rerun()
    try:
        run = Run.find(space, run_id)
    except SynthLoopError as error:
        failed(error)
        return
    run_view(run)


def _queue(space: Workspace) -> None:
    """What waits for the device, in its order."""
    waiting = queue(space)
    if not waiting:
        return
    st.subheader(t("runs.queue"), anchor=False)
    for place, run in enumerate(waiting, 1):
        name = escape(run_label(run_row(space, run.id)))
        with st.container(horizontal=True, vertical_alignment="center", key=f"queue-{run.id}"):
            st.markdown(f"{place}. {name}", width="stretch")
            if st.button(t("run.stop"), key=f"dequeue-{run.id}", icon=icon("stop_circle")):
                try:
                    stop(run)
                except SynthLoopError as error:
                    failed(error)
                    return
                st.rerun()


def _filtered(rows: list[RunRow]) -> list[RunRow]:
    stages = [name for name in STAGES if any(row.stage == name for row in rows)]
    states = [state.value for state in State if any(row.state is state for row in rows)]
    restore("stage", stages, [])
    restore("state", states, [])
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen_stages = st.multiselect(
            t("runs.stage"),
            stages,
            key="stage",
            format_func=lambda name: known_text(f"stage.{name}", name),
            on_change=keep("stage", []),
            placeholder=t("runs.any"),
            width=280,
            wrap=True,
        )
        chosen_states = st.multiselect(
            t("runs.state"),
            states,
            key="state",
            format_func=lambda name: t(f"state.{name}"),
            on_change=keep("state", []),
            placeholder=t("runs.any"),
            width=280,
            wrap=True,
        )
        text = st.text_input(
            t("runs.search"), key="find", bind="query-params", icon=icon("search"), width=240
        )
    wanted = (text or "").casefold()
    return [
        row
        for row in rows
        if (not chosen_stages or row.stage in chosen_stages)
        and (not chosen_states or row.state.value in chosen_states)
        and wanted in f"{row.id} {row.label} {row.dataset} {row.method}".casefold()
    ]


def _table(space: Workspace, rows: list[RunRow]) -> None:
    if not rows:
        st.info(t("runs.none_match"), icon=icon("search_off"))
        return
    event = data_table(
        _columns(space, rows),
        height="content" if len(rows) < 20 else 640,
        on_select="rerun",
        selection_mode="multi-row",
        key="runs-table",
        column_config=_column_config(),
        placeholder="–",
        alt=t("runs.title"),
    )
    chosen = [rows[number_] for number_ in event.selection.rows if number_ < len(rows)]
    _actions(space, chosen)


def _columns(space: Workspace, rows: list[RunRow]) -> dict[str, list[Any]]:
    now = time.time()
    return {
        "state": [_state(space, row) for row in rows],
        "name": [_name(row) for row in rows],
        "stage": [known_text(f"stage.{row.stage}", row.stage) for row in rows],
        "data": [row.dataset for row in rows],
        "method": [row.method for row in rows],
        "loss": [row.last_loss for row in rows],
        "textvqa": [row.score("textvqa") for row in rows],
        "mmbench": [row.score("mmbench") for row in rows],
        "peak": [
            None if (peak := row.peak_memory or row.peak_host_memory) is None else peak / _GIB
            for row in rows
        ],
        "took": [None if (took := row.duration_s(now)) is None else duration(took) for row in rows],
        "created": [None if row.created_at is None else row.created_at * 1000 for row in rows],
    }


def _state(space: Workspace, row: RunRow) -> str:
    """The state; of a run that goes on also whether something is wrong with it."""
    words = state_words(row.state, row.reason)
    return f"{words} · {t('run.sick')}" if sick(Run(space.runs / row.id), row) else words


def _name(row: RunRow) -> str:
    return row.name or row.name_behind or str(row.parameters.get("loop") or row.id[-4:])


def _column_config() -> dict[str, Any]:
    column = st.column_config
    return {
        "state": column.TextColumn(t("runs.state"), width=84),
        "name": column.TextColumn(t("runs.name"), width=146),
        "stage": column.TextColumn(t("runs.stage"), width=112),
        "data": column.TextColumn(t("runs.data"), width=94),
        "method": column.TextColumn(t("runs.method"), width=60),
        "loss": column.NumberColumn(t("run.loss"), format="%.3f", width=60),
        "textvqa": column.NumberColumn(
            "TextVQA", format="%.1f", width=72, help=t("runs.score.help")
        ),
        "mmbench": column.NumberColumn(
            "MMBench", format="%.1f", width=76, help=t("runs.score.help")
        ),
        "peak": column.NumberColumn(
            t("runs.peak"), format="%.2f", width=76, help=t("runs.peak.help")
        ),
        "took": column.TextColumn(t("runs.took"), width=86),
        "created": column.DatetimeColumn(t("runs.created"), format="MM-DD HH:mm", width=96),
    }


def _actions(space: Workspace, chosen: list[RunRow]) -> None:
    if not chosen:
        st.caption(t("runs.choose"))
        return
    ids = [row.id for row in chosen]
    with st.container(horizontal=True, vertical_alignment="center"):
        for row in chosen[:1]:
            state_badge(row.state, row.reason)
        st.caption(t("runs.chosen", n=len(chosen)), width="content")
        if len(chosen) == 1 and st.button(t("runs.open"), icon=icon("open_in_full"), key="open"):
            st.query_params["run"] = ids[0]
            st.rerun()
        if len(chosen) > 1:
            switch_link(
                "pages/compare.py", t("runs.compare"), icon("compare_arrows"), {"runs": ids}
            )
        if len(chosen) == 1 and chosen[0].state.ended:
            if st.button(t("runs.delete"), icon=icon("delete"), key="delete"):
                _confirm(space, chosen[0])
        elif len(chosen) == 1:
            st.caption(t("runs.delete.running"), width="content")


def _confirm(space: Workspace, row: RunRow) -> None:
    st.dialog(t("runs.delete.title"), icon=icon("delete"))(_ask)(space, row)


def _ask(space: Workspace, row: RunRow) -> None:
    run = Run.find(space, row.id)
    size = sum(file_sizes(run.path).values())
    st.write(t("runs.delete.text", run=escape(row.label), size=gib(size)))
    built = [one for one in run_rows(space) if row.id in named(one)]
    if built:
        names = ", ".join(escape(one.label) for one in built[:5])
        st.warning(t("runs.delete.used", n=number(len(built)), names=names), icon=icon("warning"))
    st.code(row.id, language=None)
    typed = st.text_input(t("runs.delete.type"), key="delete-name")
    if st.button(
        t("runs.delete.now"), icon=icon("delete_forever"), disabled=typed.strip() != row.id
    ):
        try:
            delete(run)
        except SynthLoopError as error:
            failed(error)
            return
        st.rerun()


show()
