"""Report: what was found, in a page that needs nothing beside itself; and the submission."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import streamlit as st

from backend.errors import SynthLoopError
from backend.files import read_json
from backend.runs import Run, State
from backend.workspace import Workspace
from pages.widgets.check_list import check_list
from pages.widgets.forms import stage_form
from pages.widgets.gallery import style
from pages.widgets.inputs import newest
from pages.widgets.run_view import run_view
from pages.widgets.states import empty, failed
from pages.widgets.text import t, workspace
from pages.widgets.url import keep, restore
from store.runs import RunRow, run_rows

# Pixels of the preview.
_HEIGHT = 900


def show() -> None:
    """The page."""
    style()
    st.title(t("report.title"))
    space = workspace()
    rows = [row for row in run_rows(space) if row.problem is None]
    if not any(row.stage == "evaluate" and row.scores for row in rows):
        empty(
            t("report.empty"),
            t("report.empty.step"),
            t("compare.empty.button"),
            "pages/evaluation.py",
        )
        return
    parts = ("report", "submit")
    restore("tab", parts, "report")
    part = st.segmented_control(
        t("report.title"),
        parts,
        required=True,
        format_func=lambda name: t(f"stage.{name}"),
        key="tab",
        on_change=keep("tab", "report"),
        label_visibility="collapsed",
        wrap=True,
    )
    try:
        if part == "report":
            reports(space, [row for row in rows if row.stage == "report"])
        else:
            submissions(space, [row for row in rows if row.stage == "submit"])
    except SynthLoopError as error:
        failed(error)


def reports(space: Workspace, rows: list[RunRow]) -> None:
    """Make a report; look at those that were made."""
    with st.expander(t("report.new"), icon=":material/add:", expanded=not rows):
        stage_form("report", on_start=lambda run: _open(run, "report"))
    run = _choose(space, rows, "report")
    if run is None:
        st.caption(t("report.none"))
        return
    page, text = run.artifacts / "report.html", run.artifacts / "report.md"
    if not page.is_file():
        run_view(run)
        return
    with st.container(horizontal=True):
        download(page, "HTML", "text/html")
        if text.is_file():
            download(text, "Markdown", "text/markdown")
    preview(page)


def preview(page: Path) -> None:
    """The page in a frame that runs no scripts and belongs to no origin."""
    content = escape(page.read_text(encoding="utf-8"), quote=True)
    st.iframe(
        '<body style="margin:0"><iframe sandbox="" referrerpolicy="no-referrer" '
        f'style="border:0;width:100%;height:{_HEIGHT - 8}px;background:white" '
        f'title="report" srcdoc="{content}"></iframe></body>',
        height=_HEIGHT,
    )


def submissions(space: Workspace, rows: list[RunRow]) -> None:
    """Pack a submission; see what its checks found."""
    st.caption(t("report.submit.why"))
    with st.expander(t("report.submit.new"), icon=":material/add:", expanded=not rows):
        defaults = newest(space, "evaluation", "evaluate")
        stage_form("submit", defaults=defaults, on_start=lambda run: _open(run, "submit"))
    run = _choose(space, rows, "submit")
    if run is None:
        return
    archive, checks = run.artifacts / "submit.zip", run.artifacts / "submission.json"
    if archive.is_file():
        download(archive, "submit.zip", "application/zip")
    if checks.is_file():
        found: list[dict[str, Any]] = read_json(checks)
        check_list(found, "submission_")
    if not archive.is_file():
        run_view(run)


def download(path: Path, label: str, mime: str) -> None:
    """A button that hands out a file; it is read when asked for."""
    st.download_button(
        label,
        path.read_bytes,
        file_name=path.name,
        mime=mime,
        icon=":material/download:",
        on_click="ignore",
        key=f"download-{path.name}",
    )


def _choose(space: Workspace, rows: list[RunRow], key: str) -> Run | None:
    """One of the runs, the newest at first."""
    if not rows:
        return None
    known = {row.id: row for row in rows}
    restore(key, list(known), rows[0].id)
    run_id = st.selectbox(
        t(f"report.choose.{key}"),
        list(known),
        format_func=lambda name: _label(known[name]),
        key=key,
        on_change=keep(key, rows[0].id),
        width=480,
    )
    return Run.find(space, run_id)


def _open(run: Run, key: str) -> None:
    """Show the run that was just started."""
    st.session_state.pop(key, None)
    st.query_params[key] = run.id


def _label(row: RunRow) -> str:
    state = "" if row.state is State.SUCCEEDED else f" · {t(f'state.{row.state}')}"
    return f"{row.parameters.get('title') or row.name or row.id}{state}"


show()
