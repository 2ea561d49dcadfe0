"""Baseline: the loop once with the data as they are, so that every later score has a measure."""

from __future__ import annotations

import streamlit as st

from backend.runs import Run
from pages.widgets.colors import icon
from pages.widgets.forms import stage_form
from pages.widgets.gallery import style
from pages.widgets.loop_view import loop_panel
from pages.widgets.text import t, workspace
from pages.widgets.url import keep, restore

STEPS = ("prepare", "pretrain", "finetune", "evaluate")


def show() -> None:
    """The page."""
    style()
    st.title(t("baseline.title"))
    asked = st.query_params.get("clone", "")
    cloned = Run.find(workspace(), asked).spec.stage if asked else ""
    loop_panel("baseline", hidden=("recipe", "baseline_loop"))
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
        wrap=True,
    )
    st.caption(t(f"baseline.{stage}"))
    stage_form(stage, key="single", primary=False, on_start=_to_run)


def _to_run(run: Run) -> None:
    st.switch_page("pages/runs.py", query_params={"run": run.id})


show()
