"""The views of a run beside its curves: samples, health, log, configuration, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from backend.errors import InputError, SynthLoopError
from backend.files import confine, file_sizes, read_lines, tail_lines
from backend.memory.adapter_files import PICKLE, SAFETENSORS
from backend.memory.health import advice, describe, findings_so_far, judge_run
from backend.memory.symptoms import Finding
from backend.profiles import defaults as profile_defaults
from backend.profiles import filled
from backend.runs import Run, State
from backend.stages import STAGES
from pages.widgets.cards import STYLE, event_sentence, status_html
from pages.widgets.colors import LEVEL_COLORS, LEVEL_ICONS, icon
from pages.widgets.gallery import picture, plain
from pages.widgets.sample_card import question_text
from pages.widgets.text import clock, escape, gib, html, language, number, t, workspace
from pages.widgets.unreadable import unreadable_pictures
from pages.widgets.words import known_text
from store.batches import step_samples, worst_samples
from store.connection import Fingerprint, fingerprint
from store.runs import RunRow
from store.thumbnails import thumbnails

_LOG_TAIL = 256 << 10
_LOG_SEARCHED = 32 << 20
_LOG_HITS = 500
_FILES = 500
_DOWNLOAD = 512 << 20
_EVENTS = 50
_TEXT = frozenset({".json", ".jsonl", ".log", ".md", ".txt", ".yaml", ".toml"})


def samples(run: Run) -> None:
    """The samples of a step, or the run's hardest ones."""
    asked = st.query_params.get("step", "")
    key = f"step-{run.id}"

    def remember() -> None:
        if st.session_state[key] is None:
            st.query_params.pop("step", None)
        else:
            st.query_params["step"] = str(st.session_state[key])

    step = st.number_input(
        t("run.step"),
        min_value=0,
        value=int(asked) if asked.isdecimal() else None,
        step=1,
        key=key,
        placeholder=t("run.step.worst"),
        on_change=remember,
        width=240,
    )
    step_samples_panel(run, None if step is None else int(step))


def step_samples_panel(run: Run, step: int | None) -> None:
    """Pictures, texts and losses of the batch of a step; without a step of the hardest samples."""
    space = workspace()
    rows = worst_samples(space, run) if step is None else step_samples(space, run, step)
    title = t("run.step.worst") if step is None else t("run.step.title", step=number(step))
    st.markdown(f"**{title}**")
    if not rows:
        st.caption(t("run.step.none"))
        return
    known = [row["loss"] for row in rows if row["loss"] is not None]
    if step is not None and known:
        st.caption(
            t(
                "run.step.figures",
                count=number(len(rows)),
                mean=number(sum(known) / len(known)),
                most=number(max(known)),
            )
        )
    root = next((row["image_root"] for row in rows if row["image_root"]), None)
    wanted = [((row["images"] or [""])[0], row["image_sha256"]) for row in rows]
    shown = thumbnails(space, Path(root), wanted) if root else [None] * len(rows)
    with st.container(key=f"gallery-step-{run.id}"):
        for number_, (row, small) in enumerate(zip(rows, shown, strict=True)):
            with st.container(border=True, key=f"batch-{run.id}-{number_}"):
                image = "" if small is None else picture(small, row["text"] or "")
                _sample(row, image, of_one_step=step is not None)


def _sample(row: dict[str, Any], image: str, *, of_one_step: bool) -> None:
    at = "" if of_one_step else f" · {t('run.step.title', step=number(row['step']))}"
    st.html(
        f'<div class="sl-card">{image}<div><strong>{html(t("run.loss"))} '
        f"{html(number(row['loss']))}</strong>{html(at)}</div>"
        f'<div class="sl-label">{html(row["sample_id"])}</div>'
        f'<div class="sl-quiet sl-clip">{html(question_text(row))}</div>'
        f'<p class="sl-text sl-clip">{html(row["text"] or "")}</p></div>'
    )
    if row["dataset"]:
        st.page_link(
            "pages/samples.py",
            label=t("run.sample.open"),
            icon=icon("open_in_new"),
            query_params={"dataset": row["dataset"], "sample": row["sample_id"]},
        )


def health(run: Run, row: RunRow) -> None:
    """Findings on a training run, and every warning that a stage gave."""
    if run.metrics_path.is_file():
        found = findings(run)
        if not found:
            st.success(t("run.health.fine", step=number(row.last_step)), icon=icon("check_circle"))
        for one in found:
            show_finding(one, steps=False)
            _step_buttons(run, one)
    unreadable_pictures(run)
    _events(run)


def _step_buttons(run: Run, finding: Finding) -> None:
    """The steps of a finding, each a click away from the samples of its batch."""
    if not finding.steps:
        return

    def open_step(step: int) -> None:
        st.session_state[f"view-{run.id}"] = "samples"
        st.session_state.pop(f"step-{run.id}", None)
        st.query_params["view"] = "samples"
        st.query_params["step"] = str(step)

    with st.container(horizontal=True, key=f"steps-{run.id}-{finding.code}"):
        for step in finding.steps[:5]:
            st.button(
                t("run.health.samples_of", step=number(step)),
                icon=icon("photo_library"),
                key=f"step-{run.id}-{finding.code}-{step}",
                on_click=open_step,
                args=(step,),
            )


@st.cache_data(max_entries=32, show_spinner=False)
def _findings(_run: Run, key: tuple[Fingerprint, ...]) -> list[Finding]:
    """`key` stands for what is judged as it is."""
    del key
    return judge_run(_run)


def findings(run: Run) -> list[Finding]:
    """What is wrong with a training run; nothing for a run without metrics."""
    source = fingerprint(run.metrics_path)
    if source is None:
        return []
    read = (
        *sorted((run.path / "batches").glob("part-*.parquet")),
        *(run.artifacts / name for name in (SAFETENSORS, PICKLE, "config.json")),
    )
    return _findings(run, (source, *filter(None, map(fingerprint, read))))


@st.cache_data(max_entries=32, show_spinner=False)
def _sick(_run: Run, key: Fingerprint) -> bool:
    """From its figures alone, which are read at each step anyway; `key` stands for them."""
    del key
    return any(one.level == "error" for one in findings_so_far(_run))


def sick(run: Run, row: RunRow) -> bool:
    """Whether a run that goes on has a finding of the worst grade."""
    if row.state is not State.RUNNING or row.last_step is None:
        return False
    try:
        source = fingerprint(run.metrics_path)
        return source is not None and _sick(run, source)
    except SynthLoopError:
        # Its figures are broken, which its own page tells.
        return False


def show_finding(finding: Finding, *, steps: bool = True) -> None:
    """A finding's sentence, its advice, and, unless buttons say it, where to look."""
    box = {"error": st.error, "warning": st.warning}.get(finding.level, st.info)
    listed = ", ".join(number(step) for step in finding.steps[:5])
    where = f"\n\n{plain(t('run.health.steps', steps=listed))}" if steps and listed else ""
    text = plain(describe(finding, language())) + f"\n\n{plain(advice(finding, language()))}"
    box(text + where, icon=icon(LEVEL_ICONS[finding.level]))


def _events(run: Run) -> None:
    try:
        events = [event for event in read_lines(run.events_path) if event.get("code") != "finding"]
    except InputError as error:
        st.warning(escape(error), icon=icon("warning"))
        return
    if not events:
        st.caption(t("run.events.none"))
        return
    st.markdown(f"**{t('run.events')}**")
    lines = []
    for event in reversed(events[-_EVENTS:]):
        level = event.get("level") if event.get("level") in LEVEL_ICONS else "info"
        sign = status_html(t(f"level.{level}"), LEVEL_ICONS[level], LEVEL_COLORS[level])
        said = html(event_sentence(str(event.get("code")), event.get("values") or {}))
        when = html(clock(event.get("time")))
        lines.append(f"<div>{sign}<span>{said}</span><span class='sl-label'>{when}</span></div>")
    st.html(f'{STYLE}<div class="sl-events">{"".join(lines)}</div>')


def log(run: Run) -> None:
    """The end of what was printed, or the lines that hold a text."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = st.text_input(
            t("run.log.search"), key=f"log-{run.id}", icon=icon("search"), width=320
        )
        follow = st.toggle(t("run.log.follow"), value=True, key=f"follow-{run.id}")
    if not run.log_path.is_file():
        st.caption(t("run.log.none"))
        return
    if wanted:
        lines = tail_lines(run.log_path, _LOG_SEARCHED)
        hits = [line for line in lines if wanted.casefold() in line.casefold()]
        st.caption(t("run.log.hits", n=number(len(hits))))
        lines = hits[-_LOG_HITS:]
    else:
        lines = [line for line in tail_lines(run.log_path, _LOG_TAIL) if line]
    with st.container(height=440, autoscroll=follow and not wanted, key=f"log-box-{run.id}"):
        st.code("\n".join(lines), language=None, wrap_lines=True)


def configuration(run: Run, row: RunRow) -> None:
    """Every parameter, those first that differ from what is usual in this workspace."""
    spec = run.spec
    usual = _usual(row.stage, spec.parameters.get("preset"))
    changed = {name for name, value in spec.parameters.items() if value != usual.get(name)}
    ordered = sorted(spec.parameters, key=lambda name: (name not in changed, name))
    lines = "".join(
        f"<tr><td>{html(known_text(f'parameter.{name}.label', name))}</td>"
        f"<td>{_strong(_value(spec.parameters[name]), name in changed)}</td>"
        f"<td>{html(_value(usual.get(name))) if name in changed else ''}</td></tr>"
        for name in ordered
    )
    st.caption(t("run.configuration.changed", n=len(changed)))
    st.html(
        f'<div class="sl-scroll"><table class="sl-table"><tr><th>{html(t("run.parameter"))}</th>'
        f"<th>{html(t('run.value'))}</th><th>{html(t('run.usual'))}</th></tr>{lines}</table></div>"
    )
    with st.expander(t("run.environment")):
        st.json(
            {
                "run": spec.run_id,
                "inputs": spec.inputs,
                "device": spec.device,
                "git": spec.git,
                "versions": spec.versions,
                "environment": spec.environment,
                "argv": spec.argv,
            }
        )


def _usual(stage_name: str, preset: Any) -> dict[str, Any]:
    """What stage, profile and this preset make of every parameter, the preset by itself too."""
    if stage_name not in STAGES:
        return {}
    kind, profile = STAGES[stage_name].parameters, profile_defaults(workspace(), stage_name)
    chosen = {} if preset is None else {"preset": preset}
    return filled(kind, profile, chosen) | {"preset": filled(kind, profile, {}).get("preset")}


def _value(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    return str(value)


def _strong(text: str, strong: bool) -> str:
    return f"<strong>{html(text)}</strong>" if strong else html(text)


def files(run: Run) -> None:
    """What lies in the run's folder; one file can be looked at or taken away."""
    sizes = file_sizes(run.path)
    found, total = sorted(sizes), sum(sizes.values())
    st.caption(t("run.files.total", n=number(len(found)), size=gib(total), place=escape(run.path)))
    names = [str(path.relative_to(run.path)) for path in found[:_FILES]]
    lines = "".join(
        f"<tr><td>{html(name)}</td><td class='sl-number'>{html(gib(sizes[path]))}</td>"
        f"<td class='sl-number'>{clock(path.stat().st_mtime)}</td></tr>"
        for name, path in zip(names, found, strict=False)
    )
    st.html(f'<div class="sl-scroll"><table class="sl-table">{lines}</table></div>')
    chosen = st.selectbox(t("run.files.choose"), names, index=None, key=f"file-{run.id}", width=520)
    if chosen:
        _file(run, chosen)


def _file(run: Run, name: str) -> None:
    try:
        path = confine(run.path, name)
        size = path.stat().st_size
    except (SynthLoopError, OSError) as error:
        st.error(escape(error), icon=icon("error"))
        return
    if size <= _DOWNLOAD:
        st.download_button(
            t("run.files.download"),
            path.read_bytes,
            file_name=path.name,
            icon=icon("download"),
            key=f"download-{run.id}",
        )
    if path.suffix in _TEXT:
        st.code("\n".join(tail_lines(path, 64 << 10)), language=None, height=320)
