"""The recipe as an ordered list, and the chosen operator with its documentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st
import yaml

from backend.errors import SynthLoopError
from backend.synthesis.catalogue import (
    Catalogue,
    OperatorEntry,
    OperatorParameter,
    build_catalogue,
    load_catalogue,
)
from backend.synthesis.recipes import load_recipe, recipe_names
from backend.workspace import Workspace
from pages.widgets.recipe_draft import DRAFT, Draft, save
from pages.widgets.states import failed
from pages.widgets.text import escape, number, t
from pages.widgets.words import known_text
from store.funnel import FunnelStep

_USUAL = "synthesis"
_DRAFT = "recipe draft"
_CHOSEN = "recipe step"
_LARGEST = 1 << 53
_NUMBER = {"int": int, "float": float, "PositiveInt": int, "PositiveFloat": float}


def operator_catalogue(workspace: Workspace) -> Catalogue | None:
    """The operators, asked for once; None when Data-Juicer could not be asked."""
    found = load_catalogue(workspace)
    if found is not None:
        return found
    with st.spinner(t("synthesis.catalogue")):
        try:
            return build_catalogue(workspace)
        except SynthLoopError as error:
            failed(error)
            return None


def draft(workspace: Workspace, name: str) -> Draft:
    """The draft of this recipe in this session; another recipe begins a new one."""
    current: Draft | None = st.session_state.get(_DRAFT)
    if current is None or current.origin != name:
        current = Draft.of(load_recipe(workspace, name))
        st.session_state[_DRAFT] = current
        st.session_state[_CHOSEN] = 0
    return current


def templates(workspace: Workspace, key: str) -> str:
    """The recipes with one line of what each is good for."""
    names = sorted(recipe_names(workspace), key=lambda name: (name != _USUAL, name))
    usual = _USUAL if _USUAL in names else names[0]
    asked = st.query_params.get("recipe", usual)
    if (saved := st.session_state.pop(f"{key} next", None)) in names:
        st.session_state[key] = asked = saved
    if st.session_state.get(key) not in names:
        st.session_state[key] = asked if asked in names else usual
    return str(
        st.radio(
            t("synthesis.templates"),
            names,
            captions=[escape(template_line(name)) for name in names],
            format_func=escape,
            key=key,
            on_change=lambda: st.query_params.update(recipe=st.session_state[key]),
            label_visibility="collapsed",
        )
    )


def template_line(name: str) -> str:
    """What a recipe is good for."""
    if name == DRAFT:
        return t("synthesis.draft")
    return known_text(f"recipe.{name}.help", t("synthesis.own_recipe"))


def step_list(
    current: Draft, catalogue: Catalogue | None, counted: Sequence[FunnelStep] = ()
) -> int:
    """The operators in their order; the chosen one can be moved and removed, others be added.

    Args:
        current: The draft.
        catalogue: What may be added.
        counted: What the latest run of this recipe counted, shown where the operator is the same.

    Returns:
        The chosen step's place.
    """
    chosen = min(st.session_state.get(_CHOSEN, 0), max(len(current.steps) - 1, 0))
    with st.container(gap="xxsmall"):
        for place, step in enumerate(current.steps):
            st.button(
                f"{place + 1}\\. {escape(step.name)}{_counts(step.name, place, counted)}",
                key=f"step-{place}",
                type="secondary" if place == chosen else "tertiary",
                on_click=_choose,
                args=(place,),
            )
    with st.container(horizontal=True, gap="small"):
        last = len(current.steps) - 1
        _tool("arrow_upward", "synthesis.up", chosen, chosen > 0, _move, current, -1)
        _tool("arrow_downward", "synthesis.down", chosen, chosen < last, _move, current, 1)
        _tool("close", "synthesis.remove", chosen, last > 0, _remove, current)
    _add(current, catalogue, chosen)
    return chosen


def operator_panel(current: Draft, place: int, catalogue: Catalogue | None) -> None:
    """The chosen operator: what it does, and its parameters."""
    step = current.steps[place]
    entry = catalogue.operators.get(step.name) if catalogue else None
    st.markdown(f"**{escape(step.name)}**")
    if entry is None:
        st.caption(t("synthesis.unknown_operator"))
        return
    st.text(known_text(f"operator.{step.name}.help", entry.summary))
    _badges(entry)
    used = [p for p in entry.parameters if p.name in step.arguments or p.required]
    limits = [p for p in entry.parameters if p.name.startswith(("min_", "max_")) and p not in used]
    shown = used + limits
    for parameter in shown:
        _parameter(current, place, parameter)
    rest = [p for p in entry.parameters if p not in shown]
    if rest:
        with st.expander(t("synthesis.more_parameters", count=len(rest))):
            for parameter in rest:
                _parameter(current, place, parameter)
    if entry.documentation:
        with st.expander(t("synthesis.documentation")):
            st.text(entry.documentation)


def save_form(workspace: Workspace, current: Draft, catalogue: Catalogue | None, key: str) -> None:
    """Save the draft under a name; the YAML is there to read."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input(
            t("synthesis.save_as"),
            key="recipe-name",
            placeholder=f"{current.origin}-2",
            width=240,
        )
        pressed = st.button(
            t("synthesis.save"), icon=":material/save:", disabled=not (name and current.steps)
        )
    if pressed:
        try:
            recipe = save(workspace, current, name.strip(), catalogue)
        except SynthLoopError as error:
            failed(error)
            return
        st.session_state.pop(_DRAFT, None)
        st.session_state[f"{key} next"] = recipe.name
        st.toast(t("synthesis.saved", name=escape(recipe.name)), icon=":material/check:")
        st.rerun()
    with st.expander("YAML", icon=":material/code:"):
        st.code(current.text(), language="yaml")


def _badges(entry: OperatorEntry) -> None:
    with st.container(horizontal=True, gap="xsmall"):
        st.badge(known_text(f"synthesis.type.{entry.type}", entry.type), color="gray")
        if entry.synthesizes:
            st.badge(t("synthesis.makes_new"), icon=":material/auto_awesome:", color="violet")
        for tag in entry.tags:
            st.badge(escape(tag), color="gray")
    if entry.missing:
        st.warning(
            t("synthesis.missing_packages", packages=escape(", ".join(entry.missing))),
            icon=":material/warning:",
        )


def _parameter(current: Draft, place: int, parameter: OperatorParameter) -> None:
    value = current.steps[place].arguments.get(parameter.name, parameter.default)
    key = f"argument {current.origin} {place} {current.steps[place].name} {parameter.name}"
    label, help_text = escape(parameter.name), escape(parameter.help) or None
    if parameter.type == "bool" and isinstance(value, bool):
        new: Any = st.toggle(label, value, key=key, help=help_text)
    elif parameter.type in _NUMBER and _is_number(value):
        kind = _NUMBER[parameter.type]
        step = 1 if kind is int else None
        new = st.number_input(label, value=kind(value), key=key, help=help_text, step=step,
                              format=None if kind is int else "%.6g")  # fmt: skip
    else:
        new = _yaml_input(label, value, key, help_text)
    if new != value:
        current.set(place, parameter.name, new, parameter.default)
        st.rerun()


def _is_number(value: Any) -> bool:
    """Whether a browser can hold it exactly; Data-Juicer's `no limit` is beyond that."""
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    return fits and abs(value) < _LARGEST


def _yaml_input(label: str, value: Any, key: str, help_text: str | None) -> Any:
    """A value of any kind as one line of YAML; what is none leaves it as it was."""
    shown = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    shown = shown.removesuffix("...\n").strip()
    typed = st.text_input(label, shown, key=key, help=help_text) or ""
    if typed == shown:
        return value
    try:
        return yaml.safe_load(typed)
    except yaml.YAMLError:
        st.error(t("synthesis.not_yaml"), icon=":material/error:")
        return value


def _tool(
    symbol: str, label: str, place: int, enabled: bool, action: Any, current: Draft, *more: int
) -> None:
    st.button(
        t(label),
        key=f"{symbol}-{place}",
        icon=f":material/{symbol}:",
        type="tertiary",
        disabled=not enabled,
        on_click=action,
        args=(current, place, *more),
    )


def _add(current: Draft, catalogue: Catalogue | None, chosen: int) -> None:
    if catalogue is None:
        return
    names = sorted(catalogue.operators, key=lambda n: (catalogue.operators[n].type, n))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox(
            t("synthesis.add"),
            names,
            index=None,
            format_func=lambda n: (
                f"{n} · {known_text('synthesis.type.' + catalogue.operators[n].type, '')}"
            ),
            placeholder=t("synthesis.add.hint"),
            key="operator-to-add",
        )
        st.button(
            t("synthesis.add.button"),
            icon=":material/add:",
            disabled=name is None,
            on_click=_insert,
            args=(current, name, chosen + 1),
        )


def _counts(name: str, place: int, counted: Sequence[FunnelStep]) -> str:
    """How many samples came and went on, where that is known of this very operator."""
    if place >= len(counted) or counted[place].operator != name or counted[place].after is None:
        return ""
    return f" :gray[{number(counted[place].before)} → {number(counted[place].after)}]"


def _choose(place: int) -> None:
    st.session_state[_CHOSEN] = place


def _move(current: Draft, place: int, by: int) -> None:
    st.session_state[_CHOSEN] = current.move(place, by)


def _remove(current: Draft, place: int) -> None:
    current.remove(place)
    st.session_state[_CHOSEN] = max(place - 1, 0)


def _insert(current: Draft, name: str, place: int) -> None:
    current.add(name, place)
    st.session_state[_CHOSEN] = place
