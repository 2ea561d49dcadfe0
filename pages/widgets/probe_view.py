"""The Memory page's probe: its form, and what the last one measured beside what was predicted."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.errors import InputError
from backend.files import read_json
from backend.memory.bindings import parameters_of
from backend.memory.parts import MOMENTS, STATIC
from backend.memory.settings import MemorySettings
from backend.runs import Run, State
from backend.stages import stage as stage_named
from backend.stages.probe import FINETUNE_ONLY
from backend.workspace import Workspace
from pages.widgets.cards import Figure, figures, reason_box, state_badge
from pages.widgets.colors import icon
from pages.widgets.death_view import death_view
from pages.widgets.forms import stage_form
from pages.widgets.live import live
from pages.widgets.states import switch_link
from pages.widgets.text import clock, escape, gib, html, t
from store.runs import run_row

SHOWN = ("data", "image_root", "projector")
"""Parameters that the page's own choices do not give."""
_LIVE = 2
Figures = dict[str, Any]


def probe_view(space: Workspace, stage: str, settings: MemorySettings) -> str | None:
    """Measure the chosen configuration here, and see the last measurement; its run's id."""
    st.subheader(t("probe.title"), anchor=False)
    st.caption(t("probe.intro"))
    opened = "clone" in st.query_params
    with st.expander(t("probe.form"), icon=icon("straighten"), expanded=opened):
        fields = stage_named("probe").parameters.model_fields
        shown = SHOWN if stage == "finetune" else SHOWN[:2]
        values = {**parameters_of(vars(settings)), "trains": stage}
        if stage == "pretrain":
            values = {name: value for name, value in values.items() if name not in FINETUNE_ONLY}
        stage_form(
            "probe",
            "-memory",
            hidden=[name for name in fields if name not in shown],
            defaults={name: value for name, value in values.items() if name in fields},
            primary=False,
        )
    last = next((run for run in Run.all(space) if _is_probe(run)), None)
    if last is None:
        st.caption(t("probe.none"))
        return None
    going = not run_row(space, last.id).state.ended
    live(_last, space, last, going, every=_LIVE if going else None, of=[last.id])
    return last.id


def _is_probe(run: Run) -> bool:
    return run.id.split("-")[2:3] == ["probe"]


def _last(space: Workspace, run: Run, going: bool) -> None:
    row = run_row(space, run.id)
    if going and row.state.ended:
        st.rerun()
    with st.container(border=True, key=f"probe-{run.id}"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{escape(row.name or t('stage.probe'))}**", width="content")
            state_badge(row.state)
            st.caption(clock(row.started_at), width="content")
            switch_link("pages/runs.py", t("probe.open"), icon("open_in_new"), {"run": run.id})
        if row.reason is not None and row.state in (State.FAILED, State.LOST, State.STOPPED):
            reason_box(row.state, row.reason)
            death_view(space, run)
        found = _result(run)
        if found is not None:
            _figures(found)


def _result(run: Run) -> Figures | None:
    path = run.artifacts / "probe.json"
    if not path.is_file():
        return None
    try:
        found = read_json(path)
    except InputError:
        # It is being replaced, or broken; the run itself tells.
        return None
    return found if isinstance(found, dict) else None


def _figures(found: Figures) -> None:
    measured, predicted = found.get("measured") or {}, found.get("predicted") or {}
    device = found.get("device")
    if device is None:
        st.info(t("probe.host_only"), icon=icon("info"))
        figures(
            [
                Figure(t(f"probe.{name}"), gib(measured.get(name)))
                for name in ("host_before", "host_built", "host_peak")
            ]
        )
        return
    ratio = found.get("ratio")
    factor = f"{ratio:.3g}" if isinstance(ratio, int | float) else "–"
    st.markdown(t("probe.ratio", device=escape(device), factor=factor))
    parts, moments = found.get("expected") or {}, predicted.get("moments") or {}
    known = measured.get("moments") or {}
    rows = [(t(f"memory.part.{name}"), measured.get(name), parts.get(name)) for name in STATIC]
    rows += [
        (t("probe.moment", moment=t(f"memory.moment.{name}")), known.get(name), moments.get(name))
        for name in MOMENTS
    ]
    rows += [
        (t("probe.peak"), measured.get("peak_allocated"), predicted.get("peak_allocated")),
        (t("probe.reserved"), measured.get("peak_reserved"), predicted.get("peak_reserved")),
        (t("probe.host_peak"), measured.get("host_peak"), predicted.get("host")),
    ]
    lines = "".join(
        f"<tr><td>{html(name)}</td><td class='sl-number'>{html(gib(ours))}</td>"
        f"<td class='sl-number'>{html(gib(theirs))}</td>"
        f"<td class='sl-number'>{html(_difference(ours, theirs))}</td></tr>"
        for name, ours, theirs in rows
    )
    heads = "".join(
        f"<th>{html(t(f'probe.column.{name}'))}</th>"
        for name in ("what", "measured", "predicted", "difference")
    )
    st.html(f'<div class="sl-scroll"><table class="sl-table"><tr>{heads}</tr>{lines}</table></div>')


def _difference(measured: float | None, predicted: float | None) -> str:
    if not measured or not predicted:
        return "–"
    return f"{100 * (measured / predicted - 1):+.1f} %"
