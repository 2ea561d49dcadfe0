"""The studio's router: which page is shown, and what surrounds it."""

from __future__ import annotations

from functools import partial

import streamlit as st

from backend.errors import SynthLoopError
from pages.widgets.shell import (
    STYLE,
    home_by_name,
    look_after_orphans,
    no_workspace,
    pages,
    settle_language,
    sidebar,
)
from pages.widgets.states import failed
from pages.widgets.text import workspace


def main() -> None:
    """Show the page that the URL names."""
    st.set_page_config(page_title="SynthLoop", page_icon=":material/all_inclusive:", layout="wide")
    st.html(STYLE)
    try:
        space = workspace()
    except SynthLoopError as error:
        settle_language("en")
        st.navigation(
            [st.Page(partial(no_workspace, error), title="SynthLoop", url_path="start")],
            position="hidden",
        ).run()
        sidebar(None, {})
        return
    settle_language(space.settings.language)
    look_after_orphans(space.root)
    known = pages()
    by_name = home_by_name(known["loop"][0])
    page = st.navigation({**known, "": [by_name]}, position="hidden")
    sidebar(space, known)
    try:
        page.run()
    except SynthLoopError as error:
        failed(error)


main()
