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
from pages.widgets.text import t, workspace


def main() -> None:
    """Show the page that the URL names."""
    st.set_page_config(page_title="SynthLoop", page_icon=":material/all_inclusive:", layout="wide")
    st.html(STYLE)
    # Streamlit lets everybody in who does not log in; it has this key where a login is set up.
    if not st.user.get("is_logged_in", True):
        settle_language("en")
        st.navigation(
            [st.Page(login, title="SynthLoop", url_path="login")], position="hidden"
        ).run()
        return
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


def login() -> None:
    """The only page for somebody who has not logged in."""
    st.title("SynthLoop")
    st.markdown(t("shell.login.why"))
    st.button(t("shell.login"), type="primary", icon=":material/login:", on_click=st.login)


main()
