"""Where a login is set up, nothing is shown to anybody who has not logged in."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from pages.widgets.shell import GROUPS
from tests.pages.browsing import ROOT, markup, sound, through_the_router
from tests.pages.workspaces import empty


def opened(space, monkeypatch, page: str, user: dict[str, object]) -> AppTest:
    monkeypatch.setenv("SYNTHLOOP_WORKSPACE", str(space.root))
    through_the_router(monkeypatch)
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
    app.switch_page(f"pages/{page}.py")
    app.user = user
    return sound(app.run())


@pytest.mark.parametrize("page", [name for group in GROUPS.values() for name in group])
def test_without_a_login_no_page_is_shown(page, tmp_path, monkeypatch):
    space = empty(tmp_path / "space")
    app = opened(space, monkeypatch, page, {"is_logged_in": False})
    assert [one.label for one in app.button] == ["Log in"]
    assert [one.value for one in app.title] == ["SynthLoop"]
    assert str(space.root) not in markup(app)


def test_with_a_login_the_page_is_shown(tmp_path, monkeypatch):
    space = empty(tmp_path / "space")
    app = opened(space, monkeypatch, "runs", {"is_logged_in": True, "email": "a@example.com"})
    assert [one.value for one in app.title] == ["Runs"]
    assert str(space.root) in markup(app)
