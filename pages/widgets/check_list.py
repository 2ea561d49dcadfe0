"""Named checks with their state: what was looked at, why it matters, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import streamlit as st

from backend.messages import catalogue
from pages.widgets.gallery import icon
from pages.widgets.text import language, t

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
    st.html("".join(_check(check, prefix) for check in known))


def _state(check: Mapping[str, Any]) -> str:
    return str(check["state"]) if check.get("state") in _ICONS else "unknown"


def _check(check: Mapping[str, Any], prefix: str) -> str:
    state, key = _state(check), f"check.{prefix}{check['name']}"
    if f"{key}.title" not in catalogue(language()):
        key = ""
    title = t(f"{key}.title") if key else str(check["name"])
    total, count = check.get("total"), check.get("count")
    figures = t("checks.figures", count=f"{count:,}", total=f"{total:,}") if total else ""
    values = ", ".join(f"{name} {value}" for name, value in (check.get("values") or {}).items())
    more = ""
    if key and state != "passed":
        more = f'<div>{escape(t(f"{key}.why"))} <strong>{escape(t(f"{key}.remedy"))}</strong></div>'
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
