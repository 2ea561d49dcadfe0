"""The studio's server: Streamlit, told beforehand that the router knows the pages.

It would take the folder `pages/` for its older kind of pages until the first `st.navigation`, and
send a server's first visitors there.
"""

from __future__ import annotations

from streamlit.runtime.pages_manager import PagesManager
from streamlit.web import cli

if __name__ == "__main__":
    PagesManager.uses_pages_directory = False
    cli.main(prog_name="streamlit")
