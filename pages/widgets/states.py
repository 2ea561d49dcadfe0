"""What a page shows when there is nothing, or when something is wrong."""

from __future__ import annotations

import streamlit as st

from backend.errors import SynthLoopError
from pages.widgets.text import escape, t


def empty(what: str, step: str, button: str, page: str) -> None:
    """What this page will show, the one step that fills it, and the button for that step."""
    with st.container(border=True, width=640, key="empty"):
        st.markdown(what)
        st.caption(step)
        if st.button(button, type="primary", key="empty-step"):
            st.switch_page(page)


def failed(error: SynthLoopError) -> None:
    """The sentence and the remedy first, the place folded."""
    st.error(escape(error.problem) + "\n\n" + escape(error.remedy or ""), icon=":material/error:")
    if error.place:
        with st.expander(t("states.details")):
            st.code(error.place, language=None, wrap_lines=True)


def switch_link(page: str, label: str, icon: str, query: dict[str, str] | None = None) -> None:
    """A link to a page with this state in its URL."""
    st.page_link(page, label=label, icon=icon, query_params=query or {})
