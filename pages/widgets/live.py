"""Parts of a page that draw themselves again while what they show goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import streamlit as st

from backend.errors import SynthLoopError
from pages.widgets.colors import icon
from pages.widgets.states import failed
from pages.widgets.text import t, workspace


def live(
    draw: Callable[..., None],
    *arguments: Any,
    every: float | None,
    of: Sequence[str] = (),
) -> None:
    """`draw` these arguments now and again every so many seconds.

    The router's care for errors does not reach a fragment that draws itself again: an error is
    shown here, and a run that was deleted meanwhile, in another tab, is told as what it is.

    Args:
        draw: Draws the part.
        arguments: What it takes.
        every: Seconds; None draws it once, and again when something in it is used. A number, not
            "2s": of a text Streamlit makes seconds with pandas.
        of: Ids of the runs that it shows.
    """

    @wraps(draw)
    def guarded() -> None:
        try:
            draw(*arguments)
        # A file that is deleted while it is read fails in the reader's own way.
        except Exception as error:
            space = workspace()
            if any(not (space.runs / run_id).is_dir() for run_id in of):
                st.info(t("states.deleted"), icon=icon("delete"))
                if st.button(t("states.reload"), icon=icon("refresh"), key=f"gone-{of[0]}"):
                    st.rerun()
            elif isinstance(error, SynthLoopError):
                failed(error)
            else:
                raise

    st.fragment(guarded, run_every=every)()
