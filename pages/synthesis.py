"""Synthesis: choose and change a recipe, try it, run it, and see what it did to the data."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.errors import SynthLoopError
from backend.files import read_json
from backend.runs import Run, State
from backend.supervisor import start
from backend.workspace import Workspace
from pages.widgets.check_list import check_list
from pages.widgets.forms import open_run, stage_form
from pages.widgets.gallery import style
from pages.widgets.inputs import choosable, run_label
from pages.widgets.live import live
from pages.widgets.loop_view import loop_panel
from pages.widgets.preview_view import preview_view
from pages.widgets.quality import against_seed, analysis, figures
from pages.widgets.recipe_draft import DRAFT, save
from pages.widgets.recipe_editor import (
    draft,
    operator_catalogue,
    operator_panel,
    save_form,
    step_list,
    templates,
)
from pages.widgets.run_view import run_view
from pages.widgets.score_charts import CONFIG, funnel
from pages.widgets.states import failed, switch_link
from pages.widgets.text import t, workspace
from pages.widgets.url import keep, restore
from store.datasets import dataset_row
from store.funnel import dataset_funnel, run_funnel
from store.runs import RunRow, run_rows

_PARTS = ("loop", "recipe", "runs", "analyze", "verify")
_PREVIEWED = 20
_TEMPLATE = "recipe template"


def show() -> None:
    """The page."""
    style()
    st.title(t("synthesis.title"))
    space = workspace()
    rows = [row for row in run_rows(space) if row.problem is None]
    going = any(row.parent is None and not row.state.ended for row in _full(rows))
    asked = "recipe" if "recipe" in st.query_params else "loop"
    restore("part", _PARTS, "runs" if going else asked)
    part = st.segmented_control(
        t("synthesis.part"),
        _PARTS,
        required=True,
        format_func=lambda name: t(f"synthesis.part.{name}"),
        key="part",
        on_change=keep("part", None, _forget_run),
        label_visibility="collapsed",
        wrap=True,
    )
    try:
        if part == "loop":
            loop_panel("synthesis")
        elif part == "recipe":
            recipe(space, rows)
        elif part == "runs":
            runs(space, _full(rows))
        elif part == "analyze":
            analyses(space, [row for row in rows if row.stage == "analyze"])
        else:
            verifications(space, [row for row in rows if row.stage == "verify"])
    except SynthLoopError as error:
        failed(error)


def recipe(space: Workspace, rows: list[RunRow]) -> None:
    """Templates, then the recipe, its chosen operator, and what it does to some samples."""
    st.caption(t("synthesis.intro"))
    name = templates(space, _TEMPLATE)
    catalogue = operator_catalogue(space)
    current = draft(space, name)
    first, second, third = st.container(key="sides").columns([4, 4, 4], gap="medium")
    with first:
        st.subheader(t("synthesis.operators"))
        latest = next((r for r in rows if _ran(r, name)), None)
        counted = run_funnel(Run(space.runs / latest.id)) if latest else []
        place = step_list(current, catalogue, counted)
        save_form(space, current, catalogue, _TEMPLATE)
    with second:
        st.subheader(t("synthesis.operator"))
        if current.steps:
            operator_panel(current, place, catalogue)
    with third:
        st.subheader(t("synthesis.preview"))
        preview(space, rows, name)
    st.subheader(t("synthesis.start"))
    if current.changed:
        st.info(t("synthesis.unsaved"), icon=":material/edit:")
    writers = choosable(space, ("finetune",)) if current.needs_captioner else []
    defaults = {"recipe": name, "captioner": writers[0].id} if writers else {"recipe": name}
    stage_form("synthesize", hidden=("preview",), defaults=defaults, on_start=_to_run)


def preview(space: Workspace, rows: list[RunRow], name: str) -> None:
    """Twenty samples through the recipe as it stands."""
    references = space.dataset_references() or ["seed/v1"]
    usual = "seed/v1" if "seed/v1" in references else references[0]
    needs = draft(space, name).needs_captioner
    writers = {row.id: row for row in choosable(space, ("finetune",))} if needs else {}
    if needs and not writers:
        st.info(t("synthesis.captioner.none"), icon=":material/info:")
        switch_link("pages/baseline.py", t("synthesis.captioner.to_baseline"),
                    ":material/arrow_forward:", {})  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="bottom"):
        dataset = st.selectbox(t("parameter.dataset.label"), references, width=200,
                               index=references.index(usual), key="preview-dataset")  # fmt: skip
        writer = ""
        if writers:
            writer = st.selectbox(t("parameter.captioner.label"), list(writers), width=280,
                                  format_func=lambda run_id: run_label(writers[run_id]),
                                  key="preview-captioner")  # fmt: skip
        pressed = st.button(t("synthesis.preview.button"), icon=":material/science:",
                            disabled=needs and not writers)  # fmt: skip
    if pressed:
        _start_preview(space, name, dataset, writer)
    found = [row for row in rows if _ran(row, name) and row.parameters.get("preview")]
    if not found:
        st.caption(t("synthesis.preview.none"))
        return
    if not found[0].state.ended:
        live(waiting, found[0].id, every=1, of=[found[0].id])
    elif found[0].state is State.SUCCEEDED:
        with st.container(height=640, border=False):
            preview_view(space, Run(space.runs / found[0].id))
    else:
        st.error(t("synthesis.preview.failed"), icon=":material/error:")
        switch_link("pages/runs.py", t("synthesis.preview.why"), ":material/arrow_forward:",
                    {"run": found[0].id})  # fmt: skip


def _start_preview(space: Workspace, name: str, dataset: str, captioner: str) -> None:
    current = draft(space, name)
    if current.changed:
        save(space, current, DRAFT, operator_catalogue(space))
        name = DRAFT
    parameters = {"dataset": dataset, "recipe": name, "captioner": captioner, "output": "preview",
                  "preview": _PREVIEWED}  # fmt: skip
    start(space, "synthesize", parameters, name=t("synthesis.preview"))
    st.rerun()


def waiting(run_id: str) -> None:
    """How far a preview is; when it has ended, the page anew."""
    run = Run.find(workspace(), run_id)
    if run.status().state.ended:
        st.rerun()
    progress = run.progress()
    share = progress.done / progress.total if progress and progress.total else 0.0
    st.progress(min(share, 1.0), t("synthesis.preview.running"))


def runs(space: Workspace, rows: list[RunRow]) -> None:
    """One synthesis: its funnel, growing while it runs, then what came out."""
    if not rows:
        with st.container(border=True, width=640):
            st.markdown(t("synthesis.runs.empty"))
            st.button(t("synthesis.part.recipe"), type="primary", on_click=_to_recipe)
        return
    known = {row.id: row for row in rows}
    restore("run", list(known), rows[0].id)
    run_id = st.selectbox(
        t("synthesis.run"),
        list(known),
        format_func=lambda name: _label(known[name]),
        key="run",
        on_change=keep("run", rows[0].id),
        width=480,
    )
    run = Run.find(space, run_id)
    if known[run_id].state.ended:
        finished(space, run)
        with st.expander(t("evaluation.run"), icon=":material/monitoring:"):
            run_view(run)
    else:
        live(growing, run_id, every=2, of=[run_id])
        run_view(run)


def growing(run_id: str) -> None:
    """The funnel of a run that works."""
    run = Run.find(workspace(), run_id)
    if run.status().state.ended:
        st.rerun()
    draw_funnel(run, run_id)


def draw_funnel(run: Run, key: str) -> None:
    """The funnel with its failures."""
    steps = run_funnel(run)
    if not steps:
        st.caption(t("synthesis.funnel.none"))
        return
    st.plotly_chart(funnel(steps), config=CONFIG, key=f"funnel-{key}")
    failures = [step for step in steps if step.failures]
    if failures:
        with st.expander(t("synthesis.failures", count=sum(step.failures for step in failures)),
                         icon=":material/warning:"):  # fmt: skip
            for step in failures:
                st.text(f"{step.operator}: {step.failures}")
                st.code("\n".join(step.examples), language=None, wrap_lines=True)


def finished(space: Workspace, run: Run) -> None:
    """Funnel, quality against the seed, and the way to the samples."""
    path = run.artifacts / "dataset.json"
    reference = read_json(path).get("dataset") if path.is_file() else None
    if reference not in space.dataset_references():
        draw_funnel(run, run.id)
        return
    dataset = dataset_row(space, reference)
    figures(dataset)
    switch_link("pages/samples.py", t("synthesis.to_samples"), ":material/photo_library:",
                {"dataset": reference})  # fmt: skip
    if run_funnel(run):
        draw_funnel(run, run.id)
    elif dataset.operators:
        st.plotly_chart(funnel(dataset_funnel(dataset)), config=CONFIG, key="funnel")
    against_seed(space, reference)


def analyses(space: Workspace, rows: list[RunRow]) -> None:
    """Measure a version; what it is like."""
    st.caption(t("synthesis.analyze.why"))
    with st.expander(t("synthesis.analyze.new"), icon=":material/add:", expanded=not rows):
        stage_form("analyze")
    run = _choose(space, rows)
    if run is None:
        return
    path = run.artifacts / "summary.json"
    if path.is_file():
        analysis(read_json(path))
    else:
        run_view(run)


def verifications(space: Workspace, rows: list[RunRow]) -> None:
    """Check a version against the kit's rules; what was found."""
    st.caption(t("synthesis.verify.why"))
    with st.expander(t("synthesis.verify.new"), icon=":material/add:", expanded=not rows):
        stage_form("verify")
    run = _choose(space, rows)
    if run is None:
        return
    path = run.artifacts / "verification.json"
    if path.is_file():
        found: list[dict[str, Any]] = read_json(path)
        check_list(found)
    else:
        run_view(run)


def _choose(space: Workspace, rows: list[RunRow]) -> Run | None:
    if not rows:
        return None
    known = {row.id: row for row in rows}
    restore("run", list(known), rows[0].id)
    run_id = st.selectbox(
        t("synthesis.result"),
        list(known),
        format_func=lambda name: _label(known[name]),
        key="run",
        on_change=keep("run", rows[0].id),
        width=480,
    )
    return Run.find(space, run_id)


def _ran(row: RunRow, name: str) -> bool:
    """Whether a run is of this recipe or of changes to one."""
    return row.stage == "synthesize" and row.parameters.get("recipe") in (name, DRAFT)


def _full(rows: list[RunRow]) -> list[RunRow]:
    """The syntheses that write a version: previews do not."""
    return [r for r in rows if r.stage == "synthesize" and not r.parameters.get("preview")]


def _label(row: RunRow) -> str:
    source = row.parameters.get("recipe") or row.parameters.get("dataset") or ""
    return f"{row.name or source} · {t(f'state.{row.state}')} · {row.id[:15]}"


def _to_run(run: Run) -> None:
    """Show the run that was just started."""
    st.session_state.pop("part", None)
    st.query_params["part"] = "runs"
    open_run(run)


def _forget_run() -> None:
    """A run of one part is none of another."""
    st.session_state.pop("run", None)
    for name in ("run", "child"):
        st.query_params.pop(name, None)


def _to_recipe() -> None:
    st.session_state["part"] = "recipe"


show()
