"""The way of one sample as a vertical line of operators."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pages.widgets.diff import marked
from pages.widgets.gallery import badge
from pages.widgets.text import t
from store.lineage import LineageStep

ACTION_ICONS = {"kept": "check", "dropped": "block", "rewritten": "edit", "created": "add"}


def lineage_html(steps: Sequence[LineageStep]) -> str:
    """Each operator's word on the sample, with the statistic that decided."""
    return f'<ol class="sl-line">{"".join(_step(step) for step in steps)}</ol>'


def action_badge(action: str) -> str:
    """What happened, with icon and word."""
    return badge(t(f"lineage.{action}"), ACTION_ICONS[action], f"sl-{action}")


def _step(step: LineageStep) -> str:
    texts = ""
    if step.action == "rewritten":
        old, new = marked(step.before or "", step.after or "")
        texts = f'<p class="sl-text">{old}</p><p class="sl-text">{new}</p>'
    elif step.action == "created" and step.after:
        texts = f'<p class="sl-text">{escape(step.after)}</p>'
    reason = f'<div class="sl-quiet">{escape(step.reason)}</div>' if step.reason else ""
    return (
        f'<li class="sl-{escape(step.action)}"><div class="sl-badges">'
        f"<strong>{escape(step.operator)}</strong> {action_badge(step.action)}</div>"
        f'{reason}{texts}<div class="sl-label">{escape(step.dataset)}</div></li>'
    )
