"""Training: align the projector or teach the model, and watch it learn."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.runs import Run, State
from backend.workspace import Workspace
from pages.widgets.cards import state_words
from pages.widgets.colors import icon
from pages.widgets.forecast import forecast
from pages.widgets.forms import stage_form
from pages.widgets.gallery import style
from pages.widgets.inputs import newest, run_label
from pages.widgets.run_view import run_view
from pages.widgets.states import empty
from pages.widgets.text import t, workspace
from pages.widgets.url import keep, restore
from store.runs import RunRow, run_rows

STAGES = ("pretrain", "finetune", "merge")
MADE_BY = {
    "pretrain": ("data", "prepare"),
    "finetune": ("projector", "pretrain"),
    "merge": ("checkpoint", "finetune"),
}
"""Stage to the parameter that names what it builds on, and the stage that makes that."""


def show() -> None:
    """The page."""
    style()
    st.title(t("training.title"))
    space = workspace()
    every = run_rows(space)
    rows = [row for row in every if row.stage in STAGES]
    prepared = any(row.stage == "prepare" and row.state is State.SUCCEEDED for row in every)
    if not rows and not prepared:
        empty(
            t("training.empty"),
            t("training.empty.step"),
            t("training.empty.button"),
            "pages/baseline.py",
        )
    opened = (not rows and prepared) or "clone" in st.query_params
    opened = opened or bool(st.session_state.get("training_defaults"))
    with st.expander(t("training.new"), icon=icon("add"), expanded=opened):
        _form(space)
    if rows:
        _chosen(space, rows)


def _form(space: Workspace) -> None:
    default = STAGES[0]
    if "clone" in st.query_params:
        stage = Run.find(space, st.query_params["clone"]).spec.stage
        default = stage if stage in STAGES else default
        st.session_state["stage"] = default
    restore("stage", STAGES, default)
    stage = st.segmented_control(
        t("training.stage"),
        STAGES,
        required=True,
        key="stage",
        format_func=lambda name: t(f"stage.{name}"),
        on_change=keep("stage", STAGES[0]),
        wrap=True,
    )
    st.caption(t(f"training.{stage}"))
    kept = _from_memory(stage)
    values = stage_form(
        stage,
        defaults=kept or newest(space, *MADE_BY[stage]),
    )
    if stage != "merge":
        forecast(space, stage, values)


def _from_memory(stage: str) -> dict[str, Any] | None:
    """Values that the Memory page, or a dead run's way out, put in; a person may undo them."""
    kept: dict[str, Any] = st.session_state.get("training_defaults", {})
    if stage not in kept or "clone" in st.query_params:
        return None
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(t("training.from_memory"))
        if st.button(t("training.from_memory.undo"), type="tertiary", key=f"undo-{stage}"):
            del kept[stage]
            st.rerun()
    return dict(kept[stage])


def _chosen(space: Workspace, rows: list[RunRow]) -> None:
    known = {row.id: row for row in rows}
    restore("run", list(known), rows[0].id)
    run_id = st.selectbox(
        t("training.choose"),
        list(known),
        format_func=lambda name: f"{run_label(known[name])} · {_state(known[name])}",
        key="run",
        on_change=keep("run", rows[0].id, _forget_step),
        width=520,
    )
    run_view(Run.find(space, run_id))


def _state(row: RunRow) -> str:
    return state_words(row.state, row.reason)


def _forget_step() -> None:
    st.query_params.pop("step", None)


show()
