"""A loop as its steps, live, and the run of the step that is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from backend.errors import SynthLoopError
from backend.evaluation.comparison import Metric
from backend.files import read_json
from backend.runs import Run, State
from backend.workspace import Workspace
from pages.widgets.cards import STYLE, state_html
from pages.widgets.colors import icon
from pages.widgets.forms import stage_form
from pages.widgets.run_view import run_view
from pages.widgets.scores import metric_entry, score_metric
from pages.widgets.states import switch_link
from pages.widgets.text import clock, duration, html, left, t, workspace
from pages.widgets.url import keep, restore
from pages.widgets.words import known_text
from store.runs import RunRow, run_row, run_rows

_LIVE = "2s"
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
    with st.expander(t(f"{name}.loop"), icon=icon("all_inclusive"), expanded=not rows or cloned):
        stage_form("loop", name, hidden=("loop", *hidden), defaults={"loop": name})
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
    live = not run.status().state.ended
    st.fragment(_steps, run_every=_LIVE if live else None)(run.id, live)
    if not live:
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
    active = [run_id for run_id, step in steps.items() if step.get("state") == State.RUNNING]
    return Run.find(space, active[-1]) if active else None


def _steps(run_id: str, live: bool) -> None:
    space = workspace()
    run = Run.find(space, run_id)
    if live and run.status().state.ended:
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
    with st.container(border=True, key=f"step-{place}-{child or name}"):
        label = known_text(f"loop.step.{name}", known_text(f"stage.{name}", name))
        status = state_html(state) if state else html(t("loop.waiting"))
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
