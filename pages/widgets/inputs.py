"""A stage's parameter as the widget that suits it: what may be chosen is what exists."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import streamlit as st
from pydantic.fields import FieldInfo

from backend.runs import State
from backend.synthesis.recipes import recipe_names
from backend.workspace import Workspace
from pages.widgets.text import escape as plain
from pages.widgets.text import t
from pages.widgets.words import known_text
from store.runs import RunRow, run_rows


def parameter_input(
    space: Workspace, name: str, field: FieldInfo, value: Any, key: str, problem: str = ""
) -> Any:
    """The widget of one parameter.

    Args:
        space: Where datasets, recipes and runs are.
        name: The parameter's.
        field: Its type, limits and kind.
        value: What it holds at first.
        key: Of the widget.
        problem: What was wrong with the last value; shown below.

    Returns:
        The value as it stands.
    """
    label = known_text(f"parameter.{name}.label", name)
    help_text = known_text(f"parameter.{name}.help", "") or None
    given = {"label": label, "help": help_text, "key": key, "persist_state": "session"}
    kind, optional = _bare(field.annotation)
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    found = (
        _named(space, name, given, extra, value)
        if kind is str or get_origin(kind) is list
        else None
    )
    if found is None:
        found = (_by_type(name, kind, optional, field, value, given),)
    if problem:
        st.caption(f":red[{plain(problem)}]")
    return found[0]


def _bare(annotation: Any) -> tuple[Any, bool]:
    """The type without None, and whether None is allowed."""
    if get_origin(annotation) in (Union, UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
        return kinds[0], len(kinds) < len(get_args(annotation))
    return annotation, False


def _named(
    space: Workspace, name: str, given: dict[str, Any], extra: dict[str, Any], value: Any
) -> tuple[Any] | None:
    """The widget of a parameter that names something in the workspace; None for other kinds."""
    kind = extra.get("kind", "text")
    if kind == "dataset":
        return (_choose(given, space.dataset_references(), value),)
    if kind == "recipe":
        return (_choose(given, recipe_names(space), value),)
    if kind not in ("run", "runs"):
        return None
    rows = {row.id: row for row in choosable(space, extra.get("stages") or [])}

    def label(run_id: str) -> str:
        if not run_id:
            return known_text(f"parameter.{name}.none", t("form.none"))
        return run_label(rows[run_id]) if run_id in rows else run_id

    if kind == "runs":
        chosen = [run_id for run_id in value if run_id in rows]
        return (
            st.multiselect(
                **given,
                options=list(rows),
                default=chosen,
                format_func=label,
                wrap=True,
            ),
        )
    options = list(dict.fromkeys(["", *rows, *([value] if value else [])]))
    found = st.selectbox(
        **given,
        options=options,
        index=options.index(value or ""),
        format_func=label,
        accept_new_options=True,
        placeholder=t("form.run_or_path"),
    )
    return (found or "",)


def choosable(space: Workspace, stages: Sequence[str]) -> list[RunRow]:
    """Runs of these stages that have succeeded, newest first."""
    return [row for row in run_rows(space) if row.state is State.SUCCEEDED and row.stage in stages]


def newest(space: Workspace, parameter: str, maker: str) -> dict[str, str]:
    """The newest run of a stage as a form's default for what is built on it; empty without one."""
    found = choosable(space, [maker])
    return {parameter: found[0].id} if found else {}


def run_label(row: RunRow) -> str:
    """A run in one line: what it is called, its stage, the end of its id."""
    stage = known_text(f"stage.{row.stage}", row.stage)
    name = row.name or row.name_behind
    return f"{name} · {stage} {row.id[-4:]}" if name else f"{stage} {row.id[-4:]}"


def _choose(given: dict[str, Any], options: list[str], value: str) -> str:
    known = list(dict.fromkeys([*options, value]))
    return str(st.selectbox(**given, options=known, index=known.index(value)))


def _by_type(
    name: str, kind: Any, optional: bool, field: FieldInfo, value: Any, given: dict[str, Any]
) -> Any:
    if kind is bool:
        return st.toggle(**given, value=bool(value))
    if get_origin(kind) is Literal:
        return _choice(name, list(get_args(kind)), optional, value, given)
    if get_origin(kind) is list and get_origin(get_args(kind)[0]) is Literal:
        options = list(get_args(get_args(kind)[0]))
        return st.multiselect(
            **given,
            options=options,
            default=[one for one in value if one in options],
            format_func=lambda one: known_text(f"parameter.{name}.{one}", str(one)),
            wrap=True,
        )
    if get_origin(kind) is list:
        return st.multiselect(
            **given,
            options=value,
            default=value,
            accept_new_options=True,
            wrap=True,
        )
    if kind in (int, float):
        return _figure(kind, optional, field, value, given)
    return st.text_input(**given, value=value or "") or (None if optional else "")


def _choice(
    name: str, choices: list[Any], optional: bool, value: Any, given: dict[str, Any]
) -> Any:
    options = [None, *choices] if optional else choices

    def label(one: Any) -> str:
        return (
            t("form.automatic") if one is None else known_text(f"parameter.{name}.{one}", str(one))
        )

    return st.selectbox(
        **given,
        options=options,
        index=options.index(value) if value in options else 0,
        format_func=label,
    )


def _figure(
    kind: type, optional: bool, field: FieldInfo, value: Any, given: dict[str, Any]
) -> float | int | None:
    low, high = _limits(field, kind)
    own: dict[str, Any] = {"min_value": low, "max_value": high, "step": 1}
    if kind is float:
        size = abs(value) if value else 1.0
        own |= {"step": 10.0 ** math.floor(math.log10(size) - 1), "format": "%g"}
        value = None if value is None else float(value)
    if optional:
        own["placeholder"] = t("form.automatic")
    return st.number_input(**given, **own, value=value)


def _limits(field: FieldInfo, kind: type) -> tuple[Any, Any]:
    """Lowest and highest value that a widget may hold; an open limit is left to the check."""
    low = high = None
    for limit in field.metadata:
        if isinstance(limit, annotated_types.Ge | annotated_types.Gt):
            low = kind(limit.ge if isinstance(limit, annotated_types.Ge) else limit.gt)
        elif isinstance(limit, annotated_types.Le | annotated_types.Lt):
            high = kind(limit.le if isinstance(limit, annotated_types.Le) else limit.lt)
    return low, high
