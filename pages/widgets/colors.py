"""One color a run, on every page; one word, icon and color a state."""

from __future__ import annotations

import zlib
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


def icon(name: str) -> str:
    """A Material symbol for a label."""
    return f":material/{name}:"
