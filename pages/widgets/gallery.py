"""Cards with pictures that wrap as the window narrows, and what turns their pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from math import ceil
from typing import TypeVar

import streamlit as st

from pages.widgets.text import escape as plain
from pages.widgets.text import t
from store.thumbnails import Thumbnail

__all__ = ["badge", "cards", "icon", "pager", "picture", "plain", "style", "turn"]
Item = TypeVar("Item")
SIZES = (12, 24, 48)
STYLE = """<style>
.sl-card { display: flex; flex-direction: column; gap: 8px; font-size: 0.875rem; }
.sl-picture { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; border-radius: 6px;
  background: color-mix(in srgb, currentColor 6%, transparent); }
.sl-large { width: 100%; max-height: 420px; object-fit: contain; border-radius: 8px;
  background: color-mix(in srgb, currentColor 6%, transparent); }
.sl-none { display: flex; align-items: center; justify-content: center; text-align: center;
  padding: 8px; opacity: 0.7; box-sizing: border-box; }
.sl-badges { display: flex; flex-wrap: wrap; gap: 4px; }
.sl-badge { display: inline-flex; align-items: center; gap: 4px; padding: 0 8px; font-size: 0.75rem;
  line-height: 20px; border-radius: 10px; max-width: 100%; box-sizing: border-box;
  overflow-wrap: anywhere;
  background: color-mix(in srgb, currentColor 9%, transparent); }
.sl-icon { font-family: "Material Symbols Rounded"; font-size: 14px; line-height: 1;
  font-feature-settings: "liga"; flex: none; }
.sl-kept { --c: #009E73; } .sl-dropped { --c: #D55E00; } .sl-rewritten { --c: #0072B2; }
.sl-created { --c: #CC79A7; } .sl-right { --c: #009E73; } .sl-partly { --c: #E69F00; }
.sl-wrong { --c: #D55E00; }
.sl-badge.sl-state { background: color-mix(in srgb, var(--c) 22%, transparent); }
.sl-quiet { opacity: 0.75; font-size: 0.8125rem; }
.sl-label { opacity: 0.75; font-size: 0.75rem; }
.sl-text { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
.sl-clip { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 4;
  overflow: hidden; }
.sl-text del { background: color-mix(in srgb, #D55E00 28%, transparent);
  text-decoration: line-through; border-radius: 2px; }
.sl-text ins { background: color-mix(in srgb, #009E73 30%, transparent);
  text-decoration: underline; border-radius: 2px; }
.sl-pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 16px; }
.sl-line { list-style: none; margin: 0; padding: 0 0 0 4px; }
.sl-line li { position: relative; margin: 0; padding: 0 0 16px 24px;
  border-left: 2px solid color-mix(in srgb, currentColor 18%, transparent); }
.sl-line li:last-child { border-color: transparent; padding-bottom: 0; }
.sl-line strong { overflow-wrap: anywhere; }
.sl-badges > * { min-width: 0; }
.sl-line li::before { content: ""; position: absolute; left: -7px; top: 5px; width: 12px;
  height: 12px; border-radius: 50%; background: var(--c, gray); }
.sl-table { border-collapse: collapse; width: 100%; font-size: 0.8125rem; }
.sl-table th { text-align: left; font-weight: 600; }
.sl-table tr:first-child th { overflow-wrap: normal; white-space: nowrap; }
.sl-table td, .sl-table th { padding: 4px 8px 4px 0; border: 0; overflow-wrap: anywhere;
  border-bottom: 1px solid color-mix(in srgb, currentColor 12%, transparent); }
.sl-dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%;
  margin-right: 6px; }
.sl-check { display: flex; gap: 12px; padding: 8px 0; font-size: 0.9rem;
  border-bottom: 1px solid color-mix(in srgb, currentColor 10%, transparent); }
.sl-check .sl-icon { font-size: 20px; }
.sl-mark { color: var(--c, inherit); }
.sl-preview { display: grid; grid-template-columns: 96px 1fr; gap: 12px; padding: 8px 0;
  font-size: 0.875rem;
  border-bottom: 1px solid color-mix(in srgb, currentColor 10%, transparent); }
.sl-scroll { overflow-x: auto; }
.sl-number { text-align: right !important; font-variant-numeric: tabular-nums; }
[class*="st-key-gallery"] { display: grid !important; gap: 16px; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(184px, 100%), 1fr)); }
.st-key-gallery-histograms {
  grid-template-columns: repeat(auto-fill, minmax(min(280px, 100%), 1fr)); }
[class*="st-key-step-"] button, [class*="st-key-step-"] button > div {
  justify-content: flex-start; text-align: left; width: 100%; }
[class*="st-key-gallery"] > * { width: 100% !important; min-width: 0; }
[class*="st-key-gallery"] > :has(> .st-key-open-card), .st-key-open-card { grid-column: 1 / -1; }
@media (max-width: 1000px) {
  [class*="st-key-sides"] > [data-testid="stLayoutWrapper"] > [data-testid="stHorizontalBlock"],
  [class*="st-key-sides"] > [data-testid="stHorizontalBlock"] { flex-wrap: wrap; }
  [class*="st-key-sides"] > [data-testid="stLayoutWrapper"] > [data-testid="stHorizontalBlock"] > *,
  [class*="st-key-sides"] > [data-testid="stHorizontalBlock"] > * { min-width: 100%; }
}
</style>"""


def style() -> None:
    """The rules that the markup of this file and its neighbors needs; once a page."""
    st.html(STYLE)


def picture(thumbnail: Thumbnail, alt: str = "", css: str = "sl-picture") -> str:
    """The picture as HTML, or a box that says why there is none."""
    if thumbnail.uri is None:
        problem = escape(t(f"problem.{thumbnail.problem}"))
        return f'<div class="{css} sl-none">{problem}</div>'
    return f'<img class="{css}" src="{thumbnail.uri}" alt="{escape(alt)}">'


def icon(name: str) -> str:
    """A Material symbol as HTML."""
    return f'<span class="sl-icon" aria-hidden="true">{escape(name)}</span>'


def badge(label: str, symbol: str = "", css: str = "") -> str:
    """A small label as HTML; `css` names a state."""
    state = f" sl-state {css}" if css else ""
    sign = icon(symbol) if symbol else ""
    # A long name of an operator breaks between its words.
    words = escape(label).replace("_", "_<wbr>")
    return (
        f'<span class="sl-badge{state}" title="{escape(label)}">{sign}<span>{words}</span></span>'
    )


def cards(items: Sequence[Item], show: Callable[[Item], None], key: str) -> None:
    """One bordered card an item, as many in a row as fit."""
    with st.container(key=f"gallery-{key}"):
        for number, item in enumerate(items):
            with st.container(border=True, key=f"{key}-card-{number}"):
                show(item)


def pager(total: int, size: int, key: str) -> int:
    """Buttons that turn pages; the page is in the URL under `key`.

    Returns:
        The page to show, from 1.
    """
    last = max(1, ceil(total / size))
    asked = st.query_params.get(key, "1")
    page = min(max(int(asked) if asked.isdecimal() else 1, 1), last)
    if last > 1:
        row = st.container(horizontal=True, vertical_alignment="center", key=f"{key}-pager")
        for symbol, target, label in (
            ("first_page", 1, "gallery.first"),
            ("chevron_left", page - 1, "gallery.previous"),
            ("chevron_right", page + 1, "gallery.next"),
            ("last_page", last, "gallery.last"),
        ):
            if symbol == "chevron_right":
                row.caption(t("gallery.page", page=f"{page:,}", last=f"{last:,}"), width="content")
            row.button(
                t(label),
                icon=f":material/{symbol}:",
                key=f"{key}-{symbol}",
                type="tertiary",
                disabled=not 1 <= target <= last or target == page,
                on_click=turn,
                args=(key, target),
            )
    return page


def turn(key: str, page: int) -> None:
    """Put a page into the URL; the first one needs no mention."""
    if page == 1:
        st.query_params.pop(key, None)
    else:
        st.query_params[key] = str(page)
