"""Pages run as Streamlit runs them, without a browser."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from streamlit.runtime.scriptrunner import script_runner
from streamlit.testing.v1 import AppTest

from backend.workspace import Workspace

ROOT = Path(__file__).parents[2]
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)> **bold** [link](javascript:x)"


def through_the_router(monkeypatch) -> None:
    """Let AppTest run `app.py`.

    Before each run it forgets that a router has spoken, and takes the folder `pages/` for
    Streamlit's old kind of pages.
    """
    monkeypatch.setattr(
        script_runner, "_mpa_v1", lambda path: runpy.run_path(path, run_name="__main__")
    )


def visit(name: str, workspace: Workspace, monkeypatch, lang: str = "en", **query) -> AppTest:
    """The page `name` of a workspace, at a URL with this query."""
    monkeypatch.setenv("SYNTHLOOP_WORKSPACE", str(workspace.root))
    through_the_router(monkeypatch)
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
    app.switch_page(f"pages/{name}.py")
    app.query_params["lang"] = lang
    for key, value in query.items():
        app.query_params[key] = value
    return sound(app.run())


def sound(app: AppTest) -> AppTest:
    """The page as it is, after making sure that nothing raised."""
    assert [error.value for error in app.exception] == []
    return app


def markup(app: AppTest) -> str:
    """All HTML of the page."""
    return "\n".join(str(block.value) for block in app.get("html"))


def words(app: AppTest) -> str:
    """All Markdown, captions and headings of the page."""
    blocks = [*app.markdown, *app.caption, *app.title, *app.subheader, *app.info, *app.error]
    return "\n".join(str(block.value) for block in blocks)


def live(text: str) -> bool:
    """Whether the hostile script stands in it as markup; a backslash makes it text for Markdown."""
    return re.search(r"(?<!\\)<script", text) is not None
