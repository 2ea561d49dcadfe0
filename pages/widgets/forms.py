"""The form of a stage: its parameters, what is wrong with them, its command, and the start."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import streamlit as st
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from backend.errors import SynthLoopError
from backend.profiles import defaults as profile_defaults
from backend.profiles import filled, preset_values
from backend.runs import Run, RunSpec
from backend.stages import Stage, stage
from backend.stages.base import Problem, StageParameters
from backend.supervisor import command, start
from backend.workspace import Workspace
from pages.widgets.colors import LEVEL_ICONS, icon
from pages.widgets.inputs import parameter_input
from pages.widgets.states import failed
from pages.widgets.text import escape as plain
from pages.widgets.text import t, workspace
from pages.widgets.words import known_text

_FOLDS = ("data", "recipe", "memory", "advanced")
_FOLD_ICONS = {"data": "database", "recipe": "tune", "memory": "memory", "advanced": "settings"}
_SHOWN_PROBLEMS = 6
Values = dict[str, Any]


def stage_form(
    stage_name: str,
    key: str = "",
    *,
    hidden: Sequence[str] = (),
    defaults: Values | None = None,
    primary: bool = True,
    title: str = "",
    on_start: Callable[[Run], None] | None = None,
) -> Values:
    """Show the form of a stage and start it when asked.

    Args:
        stage_name: A name in `backend.stages.STAGES`.
        key: Tells several forms of one stage apart.
        hidden: Parameters that keep their default.
        defaults: Parameters that differ from the profile's, e.g. from the page's URL.
        primary: Whether the start is the page's primary action.
        title: What is started, in words; the stage's name when empty.
        on_start: What to do with the new run; otherwise the URL's `run` names it.

    Returns:
        The parameters as they stand in the form, valid or not.
    """
    space, known = workspace(), stage(stage_name)
    usual = profile_defaults(space, stage_name)
    clone = _cloned(space, stage_name)
    form = f"{stage_name}{key}-{clone.run_id if clone else ''}-{_mark(defaults)}"
    given = clone.parameters if clone else defaults or {}
    if "preset" in known.parameters.model_fields and "preset" not in hidden:
        seeds = _seeds(space, known, usual, given, form)
        hidden = (*hidden, "preset")
    else:
        seeds = Seeds(form, filled(known.parameters, usual, {}), given)
    prefix = seeds.prefix
    problems = st.session_state.get(f"{prefix}-invalid", {})
    values = _fields(space, known, seeds, hidden, problems)
    _remember(form, seeds, values)
    parameters = _checked(known, values, f"{prefix}-invalid", problems)
    name = st.text_input(
        t("form.name"), key=f"{prefix}-name", help=t("form.name.help"), persist_state="session"
    )
    findings = _findings(space, known, parameters)
    _show(findings)
    st.caption(t("form.command"))
    shown = command(stage_name, values, usual, root=space.root, name=name or "")
    st.code(shown, language="bash", wrap_lines=True)
    pressed = st.button(
        t("form.start", stage=title or t(f"stage.{stage_name}")),
        type="primary" if primary else "secondary",
        icon=icon("play_arrow"),
        key=f"{prefix}-start",
        disabled=parameters is None or any(one.level == "error" for one in findings),
    )
    if pressed and parameters is not None:
        _start(space, stage_name, parameters, name or "", f"{prefix}-request", on_start)
    return values


def open_run(run: Run) -> None:
    """Let the page show this run."""
    st.session_state.pop("run", None)
    st.query_params["run"] = run.id


def _mark(defaults: Values | None) -> str:
    """Widgets of other defaults are other widgets, else they would keep their old value."""
    return str(sorted(defaults.items())) if defaults else ""


def _cloned(space: Workspace, stage_name: str) -> RunSpec | None:
    asked = st.query_params.get("clone")
    if not asked:
        return None
    spec = Run.find(space, asked).spec
    if spec.stage != stage_name:
        return None
    known = stage(stage_name).parameters.model_fields
    kept = {name: value for name, value in spec.parameters.items() if name in known}
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(t("form.cloned", run=plain(spec.name or spec.run_id)))
        if st.button(t("form.cloned.undo"), type="tertiary", key=f"{stage_name}-unclone"):
            st.query_params.pop("clone", None)
            st.rerun()
    return spec.model_copy(update={"parameters": kept})


class Seeds(NamedTuple):
    """What the widgets of a form begin with."""

    prefix: str
    """Of the widgets' keys: other seeds are other widgets, else they would keep their value."""
    usual: Values
    """What stage, profile and preset make of every parameter."""
    chosen: Values
    """What a person, a page or a cloned run put in its place."""


def _seeds(space: Workspace, known: Stage, usual: Values, given: Values, form: str) -> Seeds:
    """Let a preset be chosen. Another one fills in its fields, and leaves the others alone."""
    first = filled(known.parameters, usual, given)
    field = known.parameters.model_fields["preset"]
    preset = parameter_input(space, "preset", field, first["preset"], f"{form}-preset")
    state = st.session_state.setdefault(
        f"{form}-seeds", {"preset": first["preset"], "turn": 0, "chosen": given, "now": {}}
    )
    if preset != state["preset"]:
        named = preset_values(known.parameters, preset)
        kept = {name: value for name, value in state["now"].items() if name not in named}
        state |= {"preset": preset, "turn": state["turn"] + 1, "chosen": kept}
    seeded = filled(known.parameters, usual, {"preset": preset})
    return Seeds(f"{form}-{state['turn']}", seeded, state["chosen"] | {"preset": preset})


def _remember(form: str, seeds: Seeds, values: Values) -> None:
    """Keep what differs from the preset, for the case that another one is chosen."""
    if f"{form}-seeds" in st.session_state:
        now = {name: value for name, value in values.items() if value != seeds.usual[name]}
        st.session_state[f"{form}-seeds"]["now"] = now


def _fields(
    space: Workspace,
    known: Stage,
    seeds: Seeds,
    hidden: Sequence[str],
    problems: Mapping[str, str],
) -> Values:
    values = seeds.usual | seeds.chosen
    by_fold: dict[str, list[str]] = {fold: [] for fold in _FOLDS}
    fields = known.parameters.model_fields
    for name, field in fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        if name not in hidden:
            by_fold[str(extra.get("fold", "advanced"))].append(name)
    first = next((fold for fold in _FOLDS if by_fold[fold]), None)
    for fold, names in by_fold.items():
        if not names:
            continue
        opened = fold == first or any(name in problems for name in names)
        with (
            st.expander(t(f"form.fold.{fold}"), expanded=opened, icon=icon(_FOLD_ICONS[fold])),
            st.grid("auto", min_column_width=220),
        ):
            for name in names:
                if not _matters(fields[name], values) and name not in problems:
                    values[name] = seeds.usual[name]
                    continue
                with st.container():
                    values[name] = parameter_input(
                        space,
                        name,
                        fields[name],
                        values[name],
                        f"{seeds.prefix}-{name}",
                        problems.get(name, ""),
                    )
    return values


def _matters(field: FieldInfo, values: Values) -> bool:
    """Whether a parameter has an effect beside those chosen before it."""
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    only = extra.get("only")
    known = only if isinstance(only, dict) else {}
    return all(values.get(name) in allowed for name, allowed in known.items())


def _checked(
    known: Stage, values: Values, key: str, shown: Mapping[str, str]
) -> StageParameters | None:
    """The parameters, or None; what is wrong is shown at its field in a second pass."""
    found: dict[str, str] = {}
    parameters = None
    try:
        parameters = known.parameters.model_validate(values)
    except ValidationError as error:
        for one in error.errors():
            found[str(one["loc"][0]) if one["loc"] else ""] = one["msg"]
    if found != dict(shown):
        st.session_state[key] = found
        st.rerun()
    if "" in found:
        st.error(plain(found[""]), icon=icon("error"))
    return parameters


def _findings(space: Workspace, known: Stage, parameters: StageParameters | None) -> list[Problem]:
    if parameters is None:
        return []
    with st.spinner(t("form.checking"), show_time=False):
        return _preflight(space.root, known.name, parameters.model_dump_json())


@st.cache_data(ttl=10, max_entries=64, show_spinner=False)
def _preflight(root: Path, stage_name: str, as_json: str) -> list[Problem]:
    """Ten seconds old is new enough."""
    known = stage(stage_name)
    try:
        return known.preflight(Workspace.open(root), known.parameters.model_validate_json(as_json))
    except SynthLoopError as error:
        text = {"problem": error.problem, "remedy": error.remedy or ""}
        return [Problem("error", "", text, error.place or "")]


def _show(findings: list[Problem]) -> None:
    """Errors first; more than a handful are folded."""
    ordered = sorted(findings, key=lambda one: one.level != "error")
    for one in ordered[:_SHOWN_PROBLEMS]:
        _show_one(one)
    if len(ordered) > _SHOWN_PROBLEMS:
        with st.expander(t("form.more_problems", n=len(ordered) - _SHOWN_PROBLEMS)):
            for one in ordered[_SHOWN_PROBLEMS:]:
                _show_one(one)


def _show_one(problem: Problem) -> None:
    box = st.error if problem.level == "error" else st.warning
    box(plain(problem_sentence(problem)), icon=icon(LEVEL_ICONS[problem.level]))


def problem_sentence(problem: Problem) -> str:
    """A preflight's finding in words, its remedy included."""
    if not problem.code:
        return f"{problem.values['problem']} {problem.values['remedy']}".strip()
    values = dict(problem.values)
    if "asset" in values:
        values["asset"] = known_text(f"asset.{values['asset']}", str(values["asset"]))
    return t(f"problem.{problem.code}", **values)


def _start(
    space: Workspace,
    stage_name: str,
    parameters: StageParameters,
    name: str,
    token_key: str,
    on_start: Callable[[Run], None] | None,
) -> None:
    """Start the run; a second click before the first has ended finds the same run."""
    token = st.session_state.setdefault(token_key, secrets.token_hex(8))
    try:
        run = start(space, stage_name, parameters.model_dump(mode="json"), request=token, name=name)
    except SynthLoopError as error:
        failed(error)
        return
    del st.session_state[token_key]
    st.query_params.pop("clone", None)
    st.toast(t("form.started", stage=t(f"stage.{stage_name}")), icon=icon("play_arrow"))
    (on_start or open_run)(run)
    st.rerun()
