"""One stacked bar of predicted memory against one card."""

from __future__ import annotations

import streamlit as st

from backend.memory.cards import usable
from backend.memory.parts import GIB, PARTS, Prediction
from backend.memory.plan import gib
from pages.widgets.colors import OKABE_ITO
from pages.widgets.text import html, t

COLORS = dict(zip(PARTS, OKABE_ITO, strict=True))
"""One color a part, everywhere."""
_HATCHED = (
    "background:repeating-linear-gradient(45deg,color-mix(in srgb,currentColor 35%,transparent) "
    "0 2px,transparent 2px 6px)"
)
_STYLE = """<style>
.sl-memory { font-size: 0.875rem; line-height: 20px; }
.sl-memory-track { position: relative; height: 56px; margin: 28px 0 12px; }
.sl-memory-thin { height: 24px; margin: 0 0 8px; }
.sl-memory-card { position: absolute; inset: 0 auto 0 0; border-radius: 6px;
  border: 2px solid color-mix(in srgb, currentColor 45%, transparent);
  background: color-mix(in srgb, currentColor 5%, transparent); }
.sl-memory-fill { position: absolute; inset: 4px auto 4px 0; display: flex; gap: 1px;
  border-radius: 4px; overflow: hidden; }
.sl-memory-fill div { min-width: 2px; }
.sl-memory-limit { position: absolute; top: -24px; font-size: 0.75rem; white-space: nowrap; }
.sl-memory-over { position: absolute; top: -24px; right: 0; font-size: 0.75rem; font-weight: 600; }
.sl-memory-end { position: absolute; top: -6px; bottom: -6px; border-left: 3px solid currentColor; }
.sl-memory-legend { display: flex; flex-wrap: wrap; gap: 4px 16px; }
.sl-memory-legend span { white-space: nowrap; }
.sl-memory-legend i { display: inline-block; width: 10px; height: 10px; border-radius: 2px;
  margin-right: 6px; }
</style>"""


def memory_bar(prediction: Prediction, total: int) -> None:
    """Show every part, the largest first, against a card of `total` bytes.

    The card's frame has the size that training can use, with the context drawn inside it as the
    first part that nobody can avoid. Gaps between torch's blocks come last, hatched: an estimate.
    """
    room = usable(total) + prediction.context
    gaps = prediction.peak_reserved - prediction.peak_allocated
    needed = prediction.device_total + gaps
    scale = max(room, needed) * 1.02
    shown = sorted(
        (name for name in PARTS if prediction.parts[name] > 0),
        key=lambda name: (name == "context", -prediction.parts[name]),
    )
    segments = "".join(
        _segment(_amount(name, prediction.parts[name]), prediction.parts[name] / needed, name)
        for name in shown
    )
    words = f"{t('memory.bar.gaps')} {gib(gaps)} GiB"
    segments += _segment(words, gaps / needed)
    legend = _legend({name: prediction.parts[name] for name in shown}, words)
    over = ""
    if needed > room:
        size = t("memory.bar.over", size=gib(needed - room))
        over = (
            f'<div class="sl-memory-end" style="left:{100 * room / scale:.2f}%"></div>'
            f'<div class="sl-memory-over">{html(size)}</div>'
        )
    limit = t("memory.bar.room", total=f"{total / GIB:.3g}", room=gib(usable(total)))
    alternative = ", ".join([*(_amount(name, prediction.parts[name]) for name in shown), words])
    st.html(
        f'{_STYLE}<div class="sl-memory"><div class="sl-memory-track" role="img" '
        f'aria-label="{html(alternative)}">'
        f'<div class="sl-memory-card" style="width:{100 * room / scale:.2f}%"></div>'
        f'<div class="sl-memory-fill" style="width:{100 * needed / scale:.2f}%">{segments}</div>'
        f'<div class="sl-memory-limit">{html(limit)}</div>{over}</div>{legend}</div>'
    )


def held_bar(held: dict[str, int]) -> None:
    """What lay in device memory at one moment, the largest first."""
    shown = sorted((name for name in PARTS if held.get(name, 0) > 0), key=lambda n: -held[n])
    total = sum(held[name] for name in shown)
    segments = "".join(
        _segment(_amount(name, held[name]), held[name] / total, name) for name in shown
    )
    alternative = ", ".join(_amount(name, held[name]) for name in shown)
    st.html(
        f'{_STYLE}<div class="sl-memory"><div class="sl-memory-track sl-memory-thin" role="img" '
        f'aria-label="{html(alternative)}"><div class="sl-memory-fill" style="width:100%">'
        f"{segments}</div></div>{_legend({name: held[name] for name in shown})}</div>"
    )


def _segment(words: str, share: float, name: str | None = None) -> str:
    look = f"background:{COLORS[name]}" if name else _HATCHED
    return f'<div title="{html(words)}" style="width:{100 * share:.2f}%;{look}"></div>'


def _legend(sizes: dict[str, int], gaps: str = "") -> str:
    entries = "".join(
        f'<span title="{html(t(f"memory.part.{name}.help"))}">'
        f'<i style="background:{COLORS[name]}"></i>{html(_amount(name, size))}</span>'
        for name, size in sizes.items()
    )
    if gaps:
        entries += f'<span><i style="{_HATCHED}"></i>{html(gaps)}</span>'
    return f'<div class="sl-memory-legend">{entries}</div>'


def _amount(name: str, size: int) -> str:
    return f"{t(f'memory.part.{name}')} {gib(size)} GiB"
