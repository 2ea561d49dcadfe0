"""Baseline: the loop once with the data as they are, so that every later score has a measure."""

from __future__ import annotations

import streamlit as st

from backend.runs import Run
from pages.widgets.colors import icon
from pages.widgets.forms import stage_form
from pages.widgets.gallery import style
from pages.widgets.inputs import run_label
from pages.widgets.loop_view import loop_view
from pages.widgets.text import t, workspace
from pages.widgets.url import keep, restore
from store.runs import run_rows

STEPS = ("prepare", "pretrain", "finetune", "evaluate")


def show() -> None:
    """The page."""
    style()
    st.title(t("baseline.title"))
    space = workspace()
    rows = [
        row
        for row in run_rows(space)
        if row.stage == "loop" and row.parameters.get("loop") == "baseline"
    ]
    if not rows:
        st.markdown(t("baseline.empty"))
    asked = st.query_params.get("clone", "")
    cloned = Run.find(space, asked).spec.stage if asked else ""
    with st.expander(
        t("baseline.loop"), icon=icon("all_inclusive"), expanded=not rows or cloned == "loop"
    ):
        stage_form("loop", hidden=("loop", "recipe"), defaults={"loop": "baseline"})
    if rows:
        known = {row.id: row for row in rows}
        restore("run", list(known), rows[0].id)
        run_id = st.selectbox(
            t("baseline.choose"),
            list(known),
            format_func=lambda name: (
                f"{run_label(known[name])} · {t(f'state.{known[name].state}')}"
            ),
            key="run",
            on_change=keep("run", rows[0].id, _forget_child),
            width=520,
        )
        loop_view(Run.find(space, run_id))
    with st.expander(
        t("baseline.single"), icon=icon("format_list_numbered"), expanded=cloned in STEPS
    ):
        _single(cloned)


def _single(cloned: str) -> None:
    """One step by itself."""
    if cloned in STEPS:
        st.session_state["step-form"] = cloned
    restore("step-form", STEPS, STEPS[0])
    stage = st.segmented_control(
        t("baseline.step"),
        STEPS,
        required=True,
        key="step-form",
        format_func=lambda name: t(f"stage.{name}"),
        on_change=keep("step-form", STEPS[0]),
    )
    st.caption(t(f"baseline.{stage}"))
    stage_form(stage, key="single", primary=False, on_start=_to_run)


def _to_run(run: Run) -> None:
    st.switch_page("pages/runs.py", query_params={"run": run.id})


def _forget_child() -> None:
    st.query_params.pop("child", None)


show()
