"""Overview: where the loop stands, what is running, and what comes next."""

from __future__ import annotations

import secrets
import time

import plotly.graph_objects as go
import streamlit as st
from plotly.subplots import make_subplots

from backend.errors import SynthLoopError
from backend.profiles import defaults
from backend.runs import Run, State
from backend.supervisor import start, stop
from backend.workspace import Workspace
from pages.widgets.cards import STYLE, status_html
from pages.widgets.colors import BadgeColor, icon, run_colors
from pages.widgets.criteria import Criterion, criteria, open_findings
from pages.widgets.gallery import plain, style
from pages.widgets.inputs import run_label
from pages.widgets.live import live
from pages.widgets.phases import BENCHMARKS, Phase, Standing, advice, phases, standing
from pages.widgets.run_tabs import show_finding
from pages.widgets.states import failed, switch_link
from pages.widgets.text import (
    UNKNOWN,
    ago,
    clock,
    duration,
    escape,
    gib,
    html,
    left,
    number,
    t,
    workspace,
)
from store.runs import RunRow, run_rows

_LIVE = 3
_LOOPS = ("baseline", "synthesis")
_FINDINGS = 5
_QUIET = "#808890"
_PHASE_STATES: dict[str, tuple[str, BadgeColor]] = {
    "open": ("radio_button_unchecked", "gray"),
    "running": ("progress_activity", "blue"),
    "done": ("check_circle", "green"),
    "problem": ("error", "red"),
}
_VERDICTS: dict[str, tuple[str, BadgeColor]] = {
    "passed": ("check_circle", "green"),
    "failed": ("cancel", "red"),
    "unknown": ("help", "gray"),
}
_SIZES = ("peak", "card", "spare")


def show() -> None:
    """The page."""
    style()
    st.html(STYLE)
    st.title(t("overview.title"))
    rows = run_rows(workspace())
    going = any(not row.state.ended for row in rows)
    live(_body, going, every=_LIVE if going else None)


def _body(going: bool) -> None:
    space = workspace()
    now = standing(space, run_rows(space))
    if going and all(row.state.ended for row in now.rows):
        st.rerun()
    _cards(phases(now))
    _next(now)
    _loops(space)
    with st.container(key="sides"):
        scores, going_on = st.columns([3, 2], gap="large")
    with scores:
        _scores(now)
    with going_on:
        _going_on(now, space)
    st.subheader(t("overview.criteria"), anchor=False)
    _criteria(criteria(space, now))
    _findings(space, now)


def _cards(shown: list[Phase]) -> None:
    with st.grid("auto", min_column_width=152):
        for place, phase in enumerate(shown):
            with st.container(border=True, key=f"phase-{place}", height="stretch"):
                symbol, color = _PHASE_STATES[phase.state]
                st.page_link(f"pages/{phase.page}.py", label=f"**{t(f'nav.{phase.page}')}**")
                status = status_html(t(f"phase.{phase.state}"), symbol, color)
                st.html(
                    f"<div>{status}</div>"
                    f'<div style="margin-top:8px">{html(_figure(phase)) or "&nbsp;"}</div>'
                    f'<div class="sl-label" title="{html(clock(phase.at))}">'
                    f"{html(ago(phase.at)) if phase.at else '&nbsp;'}</div>"
                )


def _figure(phase: Phase) -> str:
    if not phase.figure:
        return t(f"phase.{phase.page}.open") if phase.state == "open" else ""
    values = {
        name: gib(value) if name in _SIZES else number(value)
        for name, value in phase.values.items()
    }
    return t(phase.figure, **values)


def _next(now: Standing) -> None:
    step = advice(now)
    with st.container(border=True, horizontal=True, vertical_alignment="center", key="advice"):
        values = {name: plain(str(value)) for name, value in step.values.items()}
        st.markdown(t(f"advice.{step.code}", **values), width="stretch")
        pressed = st.button(
            t(f"advice.{step.code}.button"),
            type="primary",
            icon=icon("arrow_forward"),
            key="advice-go",
        )
        if pressed:
            st.switch_page(f"pages/{step.page}.py", query_params=step.query)


def _loops(space: Workspace) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(t("overview.loops"), width="content")
        for name in _LOOPS:
            if st.button(
                t(f"overview.loop.{name}"),
                icon=icon("play_arrow"),
                key=f"loop-{name}",
                help=t(f"overview.loop.{name}.help"),
            ):
                _start(space, name)


def _start(space: Workspace, name: str) -> None:
    key = f"loop-{name}-request"
    token = st.session_state.setdefault(key, secrets.token_hex(8))
    try:
        run = start(space, "loop", defaults(space, "loop") | {"loop": name}, request=token)
    except SynthLoopError as error:
        failed(error)
        return
    del st.session_state[key]
    st.toast(t("form.started", stage=t("stage.loop")), icon=icon("play_arrow"))
    st.switch_page(f"pages/{name}.py", query_params={"run": run.id})


def _scores(now: Standing) -> None:
    st.subheader(t("overview.scores"), anchor=False)
    scored = [row for row in reversed(now.rows) if row.stage == "evaluate" and row.scores]
    if not scored:
        st.caption(t("overview.scores.none"))
        return
    titles = [t(f"parameter.benchmarks.{name}") for name in BENCHMARKS]
    figure = make_subplots(cols=len(BENCHMARKS), subplot_titles=titles, horizontal_spacing=0.14)
    for column, name in enumerate(BENCHMARKS, 1):
        _points(figure, column, name, scored)
        base = now.baseline.score(name) if now.baseline else None
        if base is not None:
            figure.add_hline(
                y=base, line={"dash": "dash", "width": 1, "color": _QUIET}, row=1, col=column
            )
    figure.update_xaxes(showgrid=False, nticks=3, tickangle=0, tickformat="%H:%M\n%b %d")
    figure.update_yaxes(nticks=5)
    figure.update_layout(
        height=280, margin={"l": 8, "r": 8, "t": 32, "b": 8}, uirevision="scores",
        showlegend=False,
    )  # fmt: skip
    st.plotly_chart(figure, key="scores", config={"displayModeBar": False})
    st.caption(t("overview.scores.help"))


def _points(figure: go.Figure, column: int, name: str, scored: list[RunRow]) -> None:
    known = [row for row in scored if row.score(name) is not None]
    colors = run_colors(row.id for row in scored)
    spans = [row.scores[name].get("interval") or [row.score(name)] * 2 for row in known]
    values = [row.score(name) or 0.0 for row in known]
    moments = [
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.ended_at or row.created_at))
        for row in known
    ]
    figure.add_trace(
        go.Scatter(
            x=moments,
            y=values,
            mode="markers",
            marker={"size": 10, "color": [colors[row.id] for row in known]},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [span[1] - value for span, value in zip(spans, values, strict=True)],
                "arrayminus": [value - span[0] for span, value in zip(spans, values, strict=True)],
                "thickness": 1,
                "width": 4,
                "color": _QUIET,
            },
            text=[html(run_label(row)) for row in known],
            hovertemplate="%{text}<br>%{y:.1f}<extra></extra>",
        ),
        row=1,
        col=column,
    )


def _going_on(now: Standing, space: Workspace) -> None:
    st.subheader(t("overview.running"), anchor=False)
    active = [row for row in now.rows if not row.state.ended]
    if not active:
        st.caption(t("overview.running.none"))
        return
    for row in sorted(active, key=lambda one: one.state is not State.RUNNING):
        with st.container(border=True, key=f"active-{row.id}"):
            _active(row, Run(space.runs / row.id))


def _active(row: RunRow, run: Run) -> None:
    st.page_link(
        "pages/runs.py",
        label=escape(run_label(row)),
        icon=icon("monitoring"),
        query_params={"run": row.id},
        width="stretch",
    )
    progress = row.progress
    if row.state is State.QUEUED:
        st.caption(t("run.waiting"))
    elif progress is not None and progress.total:
        share = progress.done / progress.total
        words = [f"{100 * share:.0f}\u00a0%", left(progress.eta_s)]
        st.progress(min(1.0, share), text=" · ".join(word for word in words if word))
    else:
        st.caption(t("run.elapsed", time=duration(row.duration_s(time.time()))))
    with st.popover(t("run.stop"), icon=icon("stop_circle"), key=f"stop-{row.id}", type="tertiary"):
        st.write(t("run.stop.ask"))
        if st.button(t("run.stop.now"), key=f"stop-now-{row.id}", icon=icon("stop")):
            _stop(run)


def _stop(run: Run) -> None:
    try:
        stop(run)
    except SynthLoopError as error:
        failed(error)
        return
    st.toast(t("run.stop.asked"))
    st.rerun()


def _criteria(found: list[Criterion]) -> None:
    lines = []
    for one in found:
        symbol, color = _VERDICTS[one.verdict]
        status = status_html(t(f"criterion.{one.verdict}"), symbol, color)
        lines.append(
            f"<tr><td>{status}</td><td>{html(t(f'criterion.{one.code}'))}</td>"
            f'<td class="sl-quiet">{html(one.evidence or UNKNOWN)}</td></tr>'
        )
    st.html(f'<div class="sl-scroll"><table class="sl-table">{"".join(lines)}</table></div>')


def _findings(space: Workspace, now: Standing) -> None:
    found = open_findings(space, now)
    if not found:
        return
    st.subheader(t("overview.findings"), anchor=False)
    for row, finding in found[:_FINDINGS]:
        show_finding(finding)
        switch_link(
            "pages/runs.py",
            escape(run_label(row)),
            icon("arrow_forward"),
            {"run": row.id, "view": "health"},
        )
    if len(found) > _FINDINGS:
        st.caption(t("overview.findings.more", n=len(found) - _FINDINGS))


show()
