"""The checks of the environment as rows: what was found, what is needed, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import streamlit as st

from backend.environment import GROUPS, Check, concerns
from backend.workspace import Profile
from pages.widgets.colors import icon
from pages.widgets.text import html, t

_LOOK = {
    "ok": ("check_circle", "#009E73"),
    "warning": ("warning", "#C77F00"),
    "missing": ("do_not_disturb_on", "#D55E00"),
    "failed": ("cancel", "#D55E00"),
    "unknown": ("help", "#7F7F7F"),
}
_WORST_FIRST = ("failed", "missing", "warning", "unknown", "ok")
STYLE = """<style>
.sl-row { display: grid; grid-template-columns: 24px minmax(0, 1fr); gap: 0 8px; padding: 4px 0;
  font-size: 0.875rem; line-height: 24px; }
.sl-row .sl-sign { font-family: "Material Symbols Rounded"; font-size: 20px; line-height: 24px;
  color: var(--c); font-feature-settings: "liga"; }
.sl-row .sl-head { display: flex; flex-wrap: wrap; gap: 0 12px; align-items: baseline; }
.sl-row .sl-fact { opacity: 0.75; overflow-wrap: anywhere; min-width: 0; }
.sl-row .sl-advice { line-height: 20px; max-width: 720px; overflow-wrap: anywhere; }
.sl-row .sl-state { font-size: 0.75rem; line-height: 20px; padding: 0 8px; border-radius: 10px;
  background: color-mix(in srgb, var(--c) 20%, transparent); white-space: nowrap; }
</style>"""


def check_groups(found: Iterable[Check], profile: Profile, act: Callable[[Check], None]) -> None:
    """All checks under their groups; a group with nothing to do is folded.

    Args:
        found: The checks.
        profile: The workspace's; what concerns only the other one is shown as such.
        act: Shows the button of a check that has a remedy to start.
    """
    st.html(STYLE)
    listed = list(found)
    for group in GROUPS:
        members = [check for check in listed if check.group == group]
        counted = [check for check in members if concerns(check, profile)]
        good = sum(check.state == "ok" for check in counted)
        title = t(f"environment.group.{group}")
        figures = t("environment.group.none")
        if counted:
            figures = t("environment.group.figures", good=good, total=len(counted))
        symbol = "check_circle" if good == len(counted) else "error"
        with st.expander(
            f"**{title}** · {figures}",
            expanded=good < len(counted),
            icon=icon(symbol),
            key=f"group-{group}",
        ):
            if group == "assets" and good < len(counted):
                st.caption(t("environment.group.assets.help"))
            _rows(sorted(members, key=lambda check: _order(check, profile)), profile, act)


def _order(check: Check, profile: Profile) -> tuple[bool, int]:
    return not concerns(check, profile), _WORST_FIRST.index(check.state)


def _rows(members: list[Check], profile: Profile, act: Callable[[Check], None]) -> None:
    """Rows in one block as far as no button or command stands between them."""
    waiting = ""
    for check in members:
        row, remedy = row_html(check, profile), check.remedy
        if remedy is None or check.state == "ok":
            waiting += row
            continue
        if remedy.kind == "command":
            st.html(waiting + row)
            st.code(remedy.value, language="bash", wrap_lines=True)
        else:
            if waiting:
                st.html(waiting)
            with st.container(
                horizontal=True, vertical_alignment="center", key=f"row-{check.name}"
            ):
                st.html(row, width="stretch")
                act(check)
        waiting = ""
    if waiting:
        st.html(waiting)


def row_html(check: Check, profile: Profile) -> str:
    """One check: why it matters on hover when all is well, in full with its remedy otherwise."""
    symbol, color = _LOOK[check.state]
    why = t(f"check.{check.name}.why")
    state = t(f"environment.state.{check.state}")
    if check.state != "ok" and not concerns(check, profile):
        symbol, color = "radio_button_unchecked", "#7F7F7F"
        state = t("environment.state.optional" if check.optional else "environment.state.foreign")
    facts = []
    if check.found:
        facts.append(check.found)
    if check.needed and check.state != "ok":
        facts.append(t("environment.needed", needed=check.needed))
    advice = ""
    if check.state != "ok":
        # A button says it; of what nobody could look at, nobody knows a remedy.
        said = check.state == "unknown" or (check.remedy and check.remedy.kind == "fetch")
        remedy = "" if said else t(f"check.{check.name}.remedy")
        advice = f'<div class="sl-advice">{html(why)} <strong>{html(remedy)}</strong></div>'
    return (
        f'<div class="sl-row" style="--c:{color}" title="{html(why)}">'
        f'<span class="sl-sign" aria-hidden="true">{symbol}</span><div><div class="sl-head">'
        f"<strong>{html(t(f'check.{check.name}.title'))}</strong>"
        f'<span class="sl-state">{html(state)}</span>'
        f'<span class="sl-fact">{html(" · ".join(facts))}</span></div>{advice}</div></div>'
    )
