"""Small pieces of markup that several pages share: state badges, figures in a row, facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from backend.runs import Reason, State
from pages.widgets.colors import STATE_COLORS, STATE_ICONS, icon
from pages.widgets.text import escape as plain
from pages.widgets.text import html, t
from pages.widgets.words import known_text

_HTML_COLORS = {
    "blue": "#0072B2",
    "green": "#009E73",
    "orange": "#E69F00",
    "red": "#D55E00",
    "gray": "#7F7F7F",
}
_NAMED = {"stage", "state"}
"""Values of sentences that have words of their own."""
_UNLEARNED = ("did_not_learn", "stopped_sick")
STYLE = """<style>
.sl-figures { display: grid; gap: 16px 24px; margin: 0;
  grid-template-columns: repeat(auto-fit, minmax(136px, 1fr)); }
.sl-figures > div { min-width: 0; }
.sl-figures .sl-name { font-size: 0.8125rem; opacity: 0.75; line-height: 20px; }
.sl-figures .sl-value { font-size: 1.25rem; font-weight: 600; line-height: 28px;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.sl-figures .sl-note { font-size: 0.75rem; opacity: 0.75; line-height: 16px; }
.sl-status { display: inline-flex; align-items: center; gap: 4px; font-size: 0.8125rem;
  line-height: 20px; padding: 0 8px; border-radius: 10px; white-space: nowrap;
  background: color-mix(in srgb, var(--c) 20%, transparent); }
.sl-events > div { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 12px;
  padding: 6px 0; font-size: 0.9rem; }
.sl-events > div > span:nth-child(2) { flex: 1 1 240px; overflow-wrap: anywhere; }
.sl-status .sl-sign, .sl-sign { font-family: "Material Symbols Rounded"; font-size: 16px;
  line-height: 1; font-feature-settings: "liga"; }
</style>"""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its name; `note` explains it in a few words, `hover` in full."""

    name: str
    value: str
    note: str = ""
    hover: str = ""


def state_words(state: State, reason: Reason | None = None) -> str:
    """The state in words; a training that did not learn says so."""
    if reason is not None and reason.code in _UNLEARNED and state is State.FAILED:
        return t(f"state.{reason.code}")
    return t(f"state.{state}")


def state_badge(state: State, reason: Reason | None = None) -> None:
    """The state as word, icon and color."""
    st.badge(state_words(state, reason), icon=icon(STATE_ICONS[state]), color=STATE_COLORS[state])


def status_html(label: str, symbol: str, color: str) -> str:
    """A state for HTML; `color` is a badge color's name."""
    return (
        f'<span class="sl-status" style="--c:{_HTML_COLORS[color]}">'
        f'<span class="sl-sign" aria-hidden="true">{symbol}</span>{html(label)}</span>'
    )


def state_html(state: State) -> str:
    """The state as word, icon and color, for HTML."""
    return status_html(t(f"state.{state}"), STATE_ICONS[state], STATE_COLORS[state])


def figures(shown: Sequence[Figure]) -> None:
    """Figures side by side, as many in a row as fit."""
    cells = "".join(
        f'<div title="{html(one.hover)}"><div class="sl-name">{html(one.name)}</div>'
        f'<div class="sl-value">{html(one.value)}</div>'
        f'<div class="sl-note">{html(one.note)}</div></div>'
        for one in shown
    )
    st.html(f'{STYLE}<div class="sl-figures">{cells}</div>')


def reason_sentences(reason: Reason) -> tuple[str, str]:
    """Why a run ended and what to do, each in the language of this session; "" when unsaid."""
    values = {name: str(value) for name, value in reason.values.items()}
    key = f"reason.{reason.code}"
    return _filled(key, values, reason.code), _filled(f"{key}.remedy", values, "")


def _filled(key: str, values: dict[str, str], otherwise: str) -> str:
    template = known_text(key, otherwise)
    for name in _NAMED & {*values}:
        values = values | {name: known_text(f"{name}.{values[name]}", values[name])}
    try:
        return template.format(**values)
    except (KeyError, IndexError):
        # Written by another version, or by another tool's run.
        return " ".join([template, *values.values()])


def reason_box(state: State, reason: Reason) -> None:
    """Why a run ended badly: sentence and remedy first, evidence folded."""
    sentence, remedy = reason_sentences(reason)
    # Of memory, torch's own words are long: they are folded below.
    sentence = known_text(f"death.title.{reason.code}", sentence)
    text = plain(sentence) + (f"\n\n{plain(remedy)}" if remedy else "")
    if state is State.FAILED:
        st.error(text, icon=icon(STATE_ICONS[state]))
    else:
        st.warning(text, icon=icon(STATE_ICONS[state]))
    error = reason.values.get("error")
    evidence = reason.evidence or ([str(error)] if error else [])
    if evidence:
        with st.expander(t("run.evidence")):
            st.code("\n".join(evidence), language=None, wrap_lines=True)


def event_sentence(code: str, values: dict[str, object]) -> str:
    """A run's event in the language of this session."""
    return _filled(f"event.{code}", {name: str(value) for name, value in values.items()}, code)
