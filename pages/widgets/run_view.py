"""A run as a person watches it: where it stands, its figures, its curves, and what can be done."""

from __future__ import annotations

import time
from collections.abc import Callable

import streamlit as st

from backend.errors import SynthLoopError
from backend.files import read_json
from backend.profiles import defaults as profile_defaults
from backend.runs import Progress, Run, State
from backend.stages import STAGES
from backend.supervisor import command, resume, stop
from pages.widgets.cards import Figure, figures, reason_box, state_badge
from pages.widgets.charts import CONFIG, training_figure
from pages.widgets.colors import icon
from pages.widgets.death_view import death_view
from pages.widgets.live import live
from pages.widgets.run_tabs import (
    configuration,
    files,
    health,
    log,
    samples,
    sick,
    step_samples_panel,
)
from pages.widgets.states import failed
from pages.widgets.text import (
    UNKNOWN,
    clock,
    duration,
    escape,
    gib,
    left,
    number,
    t,
    workspace,
)
from pages.widgets.words import known_text
from store.metrics import Curve, curves
from store.runs import RunRow, run_row

_LIVE = 2
_VIEW_ICONS = {
    "charts": "show_chart",
    "samples": "photo_library",
    "health": "monitor_heart",
    "log": "terminal",
    "configuration": "tune",
    "files": "folder",
}
FORM_PAGES = {
    "prepare": "baseline",
    "pretrain": "training",
    "finetune": "training",
    "merge": "training",
    "evaluate": "evaluation",
    "analyze": "synthesis",
    "synthesize": "synthesis",
    "verify": "synthesis",
    "report": "report",
    "submit": "report",
    "probe": "memory",
    "check": "environment",
    "fetch": "environment",
    "install": "environment",
}
"""Stage to the page that has its form; a loop's page has its name."""


def run_view(run: Run) -> None:
    """The run, live while it goes on."""
    going = not run_row(workspace(), run.id).state.ended
    live(_show, run.id, going, every=_LIVE if going else None, of=[run.id])


def _show(run_id: str, going: bool) -> None:
    space = workspace()
    run = Run.find(space, run_id)
    row = run_row(space, run_id)
    if row.problem is not None:
        st.error(t("run.unreadable", problem=escape(row.problem)), icon=icon("error"))
        log(run)
        return
    if going and row.state.ended:
        st.rerun()
    _header(run, row)
    if row.reason is not None and row.state in (State.FAILED, State.LOST, State.STOPPED):
        reason_box(row.state, row.reason)
        death_view(space, run)
    if row.last_step is not None:
        _figure_row(run, row)
    _views(run, row)


def _header(run: Run, row: RunRow) -> None:
    stage = known_text(f"stage.{row.stage}", row.stage)
    title = f"{row.name} · {stage}" if row.name else stage
    with st.container(horizontal=True, vertical_alignment="center", key=f"head-{run.id}"):
        st.subheader(escape(title), anchor=False, width="content")
        state_badge(row.state, row.reason)
        if sick(run, row):
            st.badge(t("run.sick"), icon=icon("monitor_heart"), color="red")
        if row.attempt > 1:
            st.badge(t("run.attempt", n=row.attempt), icon=icon("replay"), color="gray")
        _actions(run, row)
    progress = run.progress() if row.progress is None else row.progress
    if not row.state.ended and not row.supervised:
        st.warning(t("run.unsupervised"), icon=icon("warning"))
    words = [part for part in (_done(progress), _elapsed(row), _eta(row, progress)) if part]
    if progress is not None and progress.total and not row.state.ended:
        st.progress(min(1.0, progress.done / progress.total), text=" · ".join(words))
    else:
        st.caption(" · ".join(words), help=f"{clock(row.started_at)} → {clock(row.ended_at)}")


def _done(progress: Progress | None) -> str:
    if progress is None:
        return ""
    whole = int(progress.done) if progress.done == int(progress.done) else progress.done
    unit = known_text(f"unit.{progress.unit}", progress.unit)
    total = UNKNOWN if progress.total is None else number(int(progress.total))
    note = f" ({escape(progress.note)})" if progress.note else ""
    return t("run.done", done=number(whole), total=total, unit=unit) + note


def _elapsed(row: RunRow) -> str:
    seconds = row.duration_s(time.time())
    if seconds is None:
        return t("run.waiting") if row.state is State.QUEUED else ""
    return t("run.took" if row.state.ended else "run.elapsed", time=duration(seconds))


def _eta(row: RunRow, progress: Progress | None) -> str:
    known = row.state is State.RUNNING and progress is not None
    return left(progress.eta_s) if known and progress is not None else ""


def _actions(run: Run, row: RunRow) -> None:
    stage = STAGES.get(row.stage)
    if not row.state.ended:
        with st.popover(t("run.stop"), icon=icon("stop_circle"), key=f"stop-{run.id}"):
            st.write(t("run.stop.ask"))
            if st.button(t("run.stop.now"), key=f"stop-now-{run.id}", icon=icon("stop")):
                _do(lambda: stop(run), t("run.stop.asked"))
    elif (
        stage is not None
        and stage.resumable
        and row.state is not State.SUCCEEDED
        and st.button(t("run.resume"), icon=icon("resume"), key=f"resume-{run.id}")
    ):
        _do(lambda: resume(run), t("run.resumed"))
    if stage is None:
        return
    page = str(row.parameters["loop"]) if row.stage == "loop" else FORM_PAGES[row.stage]
    if st.button(
        t("run.clone"), icon=icon("content_copy"), key=f"clone-{run.id}", help=t("run.clone.help")
    ):
        st.switch_page(f"pages/{page}.py", query_params={"clone": run.id})
    with st.popover(t("run.command"), icon=icon("terminal"), key=f"command-{run.id}"):
        space = workspace()
        usual = profile_defaults(space, row.stage)
        shown = command(row.stage, row.parameters, usual, root=space.root, name=row.name)
        st.code(shown, language="bash", wrap_lines=True)


def _do(action: Callable[[], object], done: str) -> None:
    try:
        action()
    except SynthLoopError as error:
        failed(error)
        return
    st.toast(done)
    st.rerun()


def _figure_row(run: Run, row: RunRow) -> None:
    names = ("loss", "learning_rate", "samples_per_second", "tokens_per_second", "grad_norm")
    found = curves(run, names)
    peak = row.peak_memory if row.peak_memory is not None else row.peak_host_memory
    memory_name = "run.peak_memory" if row.peak_memory is not None else "run.peak_host_memory"
    figures(
        [
            Figure(t("run.loss"), number(row.last_loss), _trend(found["loss"]), t("run.loss.help")),
            Figure(t("run.learning_rate"), number(found["learning_rate"].last)),
            Figure(t("run.samples_per_second"), number(found["samples_per_second"].last)),
            Figure(t("run.tokens_per_second"), number(found["tokens_per_second"].last)),
            Figure(t("run.grad_norm"), number(found["grad_norm"].last)),
            Figure(t(memory_name), gib(peak)),
        ]
    )


def _trend(loss: Curve) -> str:
    """The mean of the last tenth against the tenth before."""
    tenth = len(loss) // 10
    if tenth < 2:
        return ""
    change = float(loss.y[-tenth:].mean() - loss.y[-2 * tenth : -tenth].mean())
    arrow = "↓" if change < 0 else "↑"
    return t("run.trend", arrow=arrow, change=number(abs(change)))


def _views(run: Run, row: RunRow) -> None:
    names = list(_VIEW_ICONS)
    if row.last_step is None:
        names = names[2:]
    key = f"view-{run.id}"
    asked = st.query_params.get("view")
    if st.session_state.get(key) not in names:
        st.session_state[key] = asked if asked in names else names[0]

    def remember() -> None:
        st.query_params["view"] = st.session_state[key]

    view = st.segmented_control(
        t("run.view"),
        names,
        required=True,
        key=key,
        format_func=lambda name: f"{icon(_VIEW_ICONS[name])} {t(f'run.view.{name}')}",
        label_visibility="collapsed",
        on_change=remember,
    )
    if view == "charts":
        _charts(run)
    elif view == "samples":
        samples(run)
    elif view == "health":
        health(run, row)
    elif view == "log":
        log(run)
    elif view == "configuration":
        configuration(run, row)
    else:
        files(run)


def _charts(run: Run) -> None:
    key = f"chart-{run.id}"

    def choose() -> None:
        points = st.session_state[key].selection.points
        if points:
            st.query_params["step"] = str(int(points[0]["x"]))

    st.plotly_chart(
        training_figure(run, _predicted(run)),
        key=key,
        config=CONFIG,
        on_select=choose,
        selection_mode="points",
        alt=t("run.chart.alt"),
    )
    step = st.query_params.get("step", "")
    if step.isdecimal():
        step_samples_panel(run, int(step))
    else:
        st.caption(t("run.chart.click"))


def _predicted(run: Run) -> float | None:
    """The peak that the trainer predicted for itself before it began, in bytes."""
    path = run.artifacts / "memory.json"
    if not path.is_file():
        return None
    try:
        found = read_json(path)
    except SynthLoopError:
        return None
    value = found.get("predicted_peak") if isinstance(found, dict) else None
    return float(value) if isinstance(value, int | float) else None
