"""Words and figures as a person reads them, in the language of this session."""

from __future__ import annotations

import math
import os
import re
import time
from datetime import datetime
from html import escape as escape_html
from pathlib import Path

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

from backend.errors import UsageError
from backend.messages import LANGUAGES, message
from backend.workspace import Workspace

if PagesManager.uses_pages_directory:
    # Until `st.navigation` ran once, Streamlit takes the folder `pages/` for its old kind of
    # pages: a server whose first visitor follows a link to a page would never run `app.py`.
    PagesManager.uses_pages_directory = False
    st.rerun()

UNKNOWN = "–"
"""What stands for a value that nobody knows."""
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~<>:$&])")
_GIB = 1 << 30


def workspace() -> Workspace:
    """The workspace that this server serves.

    Raises:
        UsageError: None was named, or there is none at that place.
    """
    root = os.environ.get("SYNTHLOOP_WORKSPACE")
    if not root:
        raise UsageError(
            "no workspace was named.", remedy="Start with: python -m backend -w DIR serve"
        )
    return Workspace.open(Path(root))


def language() -> str:
    """The language of this session: as chosen, else as the URL says, else English."""
    chosen = st.session_state.get("language") or st.query_params.get("lang")
    return chosen if chosen in LANGUAGES else LANGUAGES[0]


def t(key: str, **values: object) -> str:
    """The sentence `key` in the language of this session."""
    return message(key, language(), **values)


def escape(text: object) -> str:
    """Text from data for a place that reads Markdown: every sign of it made harmless."""
    return _MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))


def html(text: object) -> str:
    """Text from data for a place that reads HTML."""
    return escape_html(str(text))


def number(value: float | None, unit: str = "") -> str:
    """A figure with three significant digits; whole numbers exactly, thousands separated."""
    if value is None:
        return UNKNOWN
    if isinstance(value, float) and not math.isfinite(value):
        shown = "NaN" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    elif isinstance(value, int):
        shown = f"{value:,}"
    elif value == 0:
        shown = "0"
    elif abs(value) < 1e-3:
        shown = f"{value:.3g}"
    else:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        shown = f"{value:,.{digits}f}"
    return f"{shown} {unit}" if unit else shown


def gib(value: float | None) -> str:
    """Bytes as GiB, or in the largest unit of which there is at least a tenth."""
    if value is None:
        return UNKNOWN
    for unit, size in (("GiB", _GIB), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if not value or abs(value) >= size / 10:
            return number(value / size, unit)
    return number(int(value), "B")


def duration(seconds: float | None) -> str:
    """A time span in its two largest units: 42 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    whole = max(0, round(seconds))
    for size, outer, inner, inner_size in (
        (86400, "time.d", "time.h", 3600),
        (3600, "time.h", "time.min", 60),
        (60, "time.min", "time.s", 1),
    ):
        if whole >= size:
            rest = whole % size // inner_size
            first = t(outer, n=whole // size)
            return f"{first} {t(inner, n=rest)}" if rest and whole // size < 10 else first
    return t("time.s", n=whole)


def left(seconds: float | None) -> str:
    """`4 min left`, or nothing while nobody knows."""
    return "" if seconds is None else t("time.left", time=duration(seconds))


def ago(moment: float | None) -> str:
    """How long ago a moment (seconds since the epoch) was."""
    if moment is None:
        return UNKNOWN
    return t("time.ago", time=duration(time.time() - moment))


def clock(moment: float | None) -> str:
    """Date and time of a moment (seconds since the epoch), of this machine."""
    if moment is None:
        return UNKNOWN
    return datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")
