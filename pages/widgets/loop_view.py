"""A loop as its steps, live, and the run of the step that is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from backend.errors import SynthLoopError
from backend.evaluation.scores import Metric, metric_entry
from backend.files import read_json
from backend.runs import Run, State
from backend.workspace import Workspace
from pages.widgets.cards import STYLE, state_html, status_html
from pages.widgets.colors import icon
from pages.widgets.forms import stage_form
from pages.widgets.live import live
from pages.widgets.run_view import run_view
from pages.widgets.scores import score_metric
from pages.widgets.states import switch_link
from pages.widgets.text import clock, duration, html, left, t, workspace
from pages.widgets.url import keep, restore
from pages.widgets.words import known_text
from store.runs import RunRow, run_row, run_rows

_LIVE = 2
_METRICS: tuple[Metric, ...] = ("textvqa", "mmbench")


def loop_panel(name: str, hidden: Sequence[str] = ()) -> None:
    """Start this loop with one click, and watch those that were started.

    Args:
        name: One of `backend.stages.loop.LOOPS`; its words are at `<name>.loop`, `.empty`
            and `.choose`.
        hidden: Parameters of the loop that do not concern this one.
    """
    space = workspace()
    rows = loop_rows(space, name)
    cloned = st.query_params.get("clone", "") in {row.id for row in rows}
    if not rows:
        st.markdown(t(f"{name}.empty"))
    if name != "baseline" and not any(
        row.state is State.SUCCEEDED for row in loop_rows(space, "baseline")
    ):
        words = t("synthesis.captioner.to_baseline")
        switch_link("pages/baseline.py", words, icon("arrow_forward"), {})
    with st.expander(t(f"{name}.loop"), icon=icon("all_inclusive"), expanded=not rows or cloned):
        stage_form(
            "loop",
            name,
            hidden=("loop", *hidden),
            defaults={"loop": name},
            title=t(f"overview.loop.{name}"),
        )
    if not rows:
        return
    known = {row.id: row for row in rows}
    restore("run", list(known), rows[0].id)
    run_id = st.selectbox(
        t(f"{name}.choose"),
        list(known),
        format_func=lambda one: _label(known[one]),
        key="run",
        on_change=keep("run", rows[0].id, _forget),
        width=520,
    )
    loop_view(Run.find(space, run_id))


def loop_rows(space: Workspace, name: str) -> list[RunRow]:
    """The runs of this loop, newest first."""
    return [
        row for row in run_rows(space) if row.stage == "loop" and row.parameters.get("loop") == name
    ]


def _label(row: RunRow) -> str:
    name = row.name or known_text(f"overview.loop.{row.parameters['loop']}", row.label)
    return f"{name} · {t(f'state.{row.state}')} · {clock(row.created_at)}"


def loop_view(run: Run) -> None:
    """The steps of a loop, and below them the loop's own run or the step chosen."""
    state = run.status().state
    going = _going(run)
    every = None if state.ended else _LIVE
    live(_steps, run.id, state, going, every=every, of=[run.id])
    if state.ended:
        _scores(run)
    child = _child(workspace(), run)
    run_view(child or run)


def _scores(run: Run) -> None:
    """What the loop reached, and where its answers are."""
    evaluations = [step for step in loop_steps(run) if step.get("stage") == "evaluate"]
    row = _row(workspace(), str(evaluations[-1].get("run_id") or "")) if evaluations else None
    if row is None or not row.scores:
        return
    with st.container(horizontal=True, vertical_alignment="bottom", key=f"scores-{run.id}"):
        for metric in _METRICS:
            if entry := metric_entry(row.scores, metric):
                score_metric(metric, entry)
        switch_link("pages/evaluation.py", t("loop.answers"), icon("quiz"), {"run": row.id})
        if any(one.scores and one.id != row.id for one in run_rows(workspace())):
            switch_link(
                "pages/compare.py", t("evaluation.compare"), icon("compare_arrows"),
                {"runs": row.id},
            )  # fmt: skip


def loop_steps(run: Run) -> list[dict[str, Any]]:
    """The steps of artifacts/loop.json; none before the loop wrote it."""
    path: Path = run.artifacts / "loop.json"
    try:
        found = read_json(path) if path.is_file() else {}
    except SynthLoopError:
        return []
    steps = found.get("steps") if isinstance(found, dict) else None
    return [step for step in steps or [] if isinstance(step, dict)]


def _child(space: Workspace, run: Run) -> Run | None:
    """The step's run that the URL names; else the one going on; None for the loop itself."""
    steps = {step["run_id"]: step for step in loop_steps(run) if step.get("run_id")}
    asked = st.query_params.get("child")
    if asked in steps:
        return Run.find(space, asked)
    going = _going(run)
    return Run.find(space, going) if going else None


def _going(run: Run) -> str | None:
    """The id of the step's run that is going on."""
    going = [step for step in loop_steps(run) if step.get("state") == State.RUNNING]
    return str(going[-1]["run_id"]) if going else None


def _steps(run_id: str, state: State, going: str | None) -> None:
    """The steps; once the loop is at another one, the page shows that one's run."""
    space = workspace()
    run = Run.find(space, run_id)
    if not state.ended and (run.status().state, _going(run)) != (state, going):
        st.rerun()
    steps = loop_steps(run)
    if not steps:
        st.caption(t("loop.no_steps"))
        return
    st.html(STYLE)
    chosen = st.query_params.get("child")
    with st.grid("auto", min_column_width=168):
        for place, step in enumerate(steps, 1):
            _step(space, place, step, chosen)
    if chosen:
        st.button(
            t("loop.whole"), type="tertiary", icon=icon("arrow_back"), on_click=_forget,
            key=f"whole-{run_id}",
        )  # fmt: skip


def _step(space: Workspace, place: int, step: dict[str, Any], chosen: str | None) -> None:
    name = str(step.get("name") or step.get("stage"))
    child = str(step.get("run_id") or "")
    row = _row(space, child)
    state = row.state if row else _state(step.get("state"))
    with st.container(border=True, height="stretch", key=f"step-{place}-{child or name}"):
        label = known_text(f"loop.step.{name}", known_text(f"stage.{name}", name))
        status = state_html(state) if state else status_html(t("loop.waiting"), "schedule", "gray")
        st.html(
            f"<div><strong>{place}. {html(label)}</strong></div><div>{status}</div>"
            f'<div class="sl-label">{html(_time(row))}</div>'
        )
        if child and st.button(
            t("loop.open"),
            key=f"open-{child}",
            type="tertiary",
            icon=icon("visibility"),
            disabled=child == chosen,
        ):
            st.query_params["child"] = child
            st.rerun()


def _row(space: Workspace, run_id: str) -> RunRow | None:
    if not run_id:
        return None
    try:
        return run_row(space, run_id)
    except SynthLoopError:
        return None


def _state(value: object) -> State | None:
    known = {state.value: state for state in State}
    return known.get(str(value))


def _time(row: RunRow | None) -> str:
    if row is None:
        return ""
    progress = row.progress
    if progress is not None and progress.total and not row.state.ended:
        share = f"{100 * progress.done / progress.total:.0f}\u00a0%"
        return " · ".join(part for part in (share, left(progress.eta_s)) if part)
    took = row.duration_s(row.ended_at) if row.ended_at else None
    return duration(took) if took is not None else ""


def _forget() -> None:
    st.query_params.pop("child", None)
