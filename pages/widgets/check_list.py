"""Named checks with their state: what was looked at, why it matters, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import streamlit as st

from pages.widgets.gallery import icon
from pages.widgets.text import number, t
from pages.widgets.words import known_text

_ICONS = {"passed": "check_circle", "warning": "warning", "failed": "cancel", "unknown": "help"}
_COLORS = {
    "passed": "sl-right",
    "warning": "sl-partly",
    "failed": "sl-wrong",
    "unknown": "",
}
_WORST_FIRST = ("failed", "warning", "unknown", "passed")


def check_list(checks: Iterable[Mapping[str, Any]], prefix: str = "") -> None:
    """Entries of verification.json or submission.json, the worst first.

    Args:
        checks: `name`, `state`, and as far as known `count`, `total`, `examples`, `values`.
        prefix: Before the name in the message keys.
    """
    known = sorted(checks, key=lambda check: _WORST_FIRST.index(_state(check)))
    if known:
        st.html("".join(_check(check, prefix) for check in known))


def _state(check: Mapping[str, Any]) -> str:
    return str(check["state"]) if check.get("state") in _ICONS else "unknown"


def _check(check: Mapping[str, Any], prefix: str) -> str:
    state, key = _state(check), f"check.{prefix}{check['name']}"
    title = known_text(f"{key}.title", str(check["name"]))
    total, count = check.get("total"), check.get("count")
    figures = ""
    if total:
        form = "checks.figures" if count and state != "passed" else "checks.looked_at"
        figures = t(form, count=f"{count:,}", total=f"{total:,}")
    values = ", ".join(
        f"{known_text(f'checks.value.{name}', str(name))} {number(value)}"
        for name, value in (check.get("values") or {}).items()
        if isinstance(value, int | float)
    )
    more = ""
    if state != "passed":
        why, remedy = known_text(f"{key}.why", ""), known_text(f"{key}.remedy", "")
        advice = "" if state == "unknown" else f" <strong>{escape(remedy)}</strong>"
        more = f"<div>{escape(why)}{advice}</div>"
    return (
        f'<div class="sl-check"><span class="sl-mark {_COLORS[state]}">{icon(_ICONS[state])}</span>'
        f"<div><strong>{escape(title)}</strong> "
        f'<span class="sl-label">{escape(t(f"checks.{state}"))} {escape(figures)} '
        f'{escape(values)}</span><div class="sl-quiet">{more}{_examples(check)}</div></div></div>'
    )


def _examples(check: Mapping[str, Any]) -> str:
    examples = check.get("examples") or []
    if not examples:
        return ""
    lines = "".join(
        f"<tr><td>{escape(str(example.get('sample_id', '')))}</td>"
        f"<td>{escape(str(example.get('detail', '')))}</td></tr>"
        for example in examples
    )
    return (
        f"<details><summary>{escape(t('checks.examples'))}</summary>"
        f'<table class="sl-table">{lines}</table></details>'
    )
