"""Every page in a real browser: both languages, wide and narrow, light and dark."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from backend.messages import message
from pages.widgets.shell import GROUPS
from tests.browser.conftest import Studio, opened, settled

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NAMES = [name for group in GROUPS.values() for name in group]
WIDTHS = (1440, 800)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_page_shows_without_an_error_and_without_sideways_scrolling(
    browser: Browser, studio: Studio, language: str
):
    page = opened(browser, f"{studio.url}/overview?lang={language}")
    for name in NAMES:
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 1000})
            page.goto(f"{studio.url}/{name}?lang={language}")
            settled(page)
            body = page.locator('[data-testid="stMain"]')
            wider = body.evaluate("element => element.scrollWidth - element.clientWidth")
            assert wider <= 1, f"{name} at {width} pixels is {wider} pixels too wide"
    page.close()


def test_the_language_changes_at_once(browser: Browser, studio: Studio):
    page = opened(browser, f"{studio.url}/overview")
    page.get_by_role("radio", name="中文").or_(page.get_by_role("button", name="中文")).click()
    page.get_by_role("heading", name=message("overview.title", "zh")).first.wait_for()
    page.close()


def test_a_second_studio_on_the_same_port_is_refused(studio: Studio):
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "backend", "-w", str(studio.root), "serve", "--port",
         str(studio.port)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"127.0.0.1:{studio.port}" in done.stderr
    assert "choose another port" in done.stderr
