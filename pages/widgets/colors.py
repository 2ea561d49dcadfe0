"""One color a run, on every page; one word, icon and color a state."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Literal

from backend.runs import State

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B59F00", "#7F7F7F")
"""Colors that color-blind people tell apart (Okabe and Ito 2008); yellow darkened, black as gray,
so that each is seen on a light and on a dark ground."""

BadgeColor = Literal["red", "orange", "blue", "green", "gray"]
STATE_ICONS: dict[State, str] = {
    State.QUEUED: "hourglass_empty",
    State.RUNNING: "progress_activity",
    State.SUCCEEDED: "check_circle",
    State.FAILED: "cancel",
    State.STOPPED: "stop_circle",
    State.LOST: "help",
}
STATE_COLORS: dict[State, BadgeColor] = {
    State.QUEUED: "gray",
    State.RUNNING: "blue",
    State.SUCCEEDED: "green",
    State.FAILED: "red",
    State.STOPPED: "orange",
    State.LOST: "orange",
}
LEVEL_ICONS = {"error": "cancel", "warning": "warning", "info": "info"}
LEVEL_COLORS: dict[str, BadgeColor] = {"error": "red", "warning": "orange", "info": "blue"}


def run_color(run_id: str) -> str:
    """The run's own color, the same wherever it is drawn."""
    # The last one, gray, says "other" or "unknown".
    return OKABE_ITO[zlib.crc32(run_id.encode()) % (len(OKABE_ITO) - 1)]


def run_colors(run_ids: Iterable[str]) -> dict[str, str]:
    """A color for each of the runs that are drawn together.

    Each has its own; where an older run has that already, the next that is free.
    """
    choice = OKABE_ITO[:-1]
    found: dict[str, str] = {}
    for run_id in sorted(set(run_ids)):
        own = choice.index(run_color(run_id))
        order = choice[own:] + choice[:own]
        found[run_id] = next((one for one in order if one not in found.values()), order[0])
    return found


def icon(name: str) -> str:
    """A Material symbol for a label."""
    return f":material/{name}:"
