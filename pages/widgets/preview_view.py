"""What a recipe does to a handful of samples: kept, dropped and rewritten text marked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st

from backend.errors import SynthLoopError
from backend.files import read_json
from backend.runs import Run
from backend.workspace import Workspace
from pages.widgets.diff import marked
from pages.widgets.gallery import badge, picture
from pages.widgets.lineage_view import ACTION_ICONS, action_badge
from pages.widgets.states import failed
from pages.widgets.text import t
from store.thumbnails import Thumbnail, thumbnails

_SIDE = 160
_STATES = ("dropped", "rewritten", "created", "kept")


def preview_view(workspace: Workspace, run: Run) -> None:
    """The samples of a finished preview, what changed first."""
    path = run.artifacts / "preview.json"
    try:
        found = read_json(path)
    except SynthLoopError as error:
        failed(error)
        return
    entries: list[dict[str, Any]] = found["samples"]
    if not entries:
        st.caption(t("synthesis.preview.empty"))
        return
    counts = Counter(str(entry["state"]) for entry in entries)
    st.html(
        '<div class="sl-badges">'
        + "".join(
            badge(f"{t(f'lineage.{state}')} {counts[state]}", ACTION_ICONS[state], f"sl-{state}")
            for state in _STATES
            if counts[state]
        )
        + "</div>"
    )
    entries.sort(key=lambda entry: _STATES.index(entry["state"]))
    wanted = [((entry["images"] or [""])[0], None) for entry in entries]
    shown = thumbnails(workspace, Path(found["image_root"]), wanted, _SIDE)
    st.html("".join(_entry(e, small) for e, small in zip(entries, shown, strict=True)))


def _entry(entry: Mapping[str, Any], small: Thumbnail) -> str:
    state = str(entry["state"])
    before, after = entry["before"] or "", entry["after"] or ""
    if state == "rewritten":
        old, new = marked(before, after)
        texts = f'<p class="sl-text">{old}</p><p class="sl-text">{new}</p>'
    elif state == "dropped":
        texts = f'<p class="sl-text"><del>{escape(before or after)}</del></p>'
    elif state == "created":
        texts = f'<p class="sl-text"><ins>{escape(after)}</ins></p>'
    else:
        texts = f'<p class="sl-text">{escape(after)}</p>'
    operator = badge(str(entry["operator"])) if entry["operator"] else ""
    reason = f'<span class="sl-label">{escape(entry["reason"] or "")}</span>'
    return (
        f'<div class="sl-preview"><div>{picture(small, after)}</div><div>'
        f'<div class="sl-badges">{action_badge(state)}{operator}</div>{texts}{reason}</div></div>'
    )
