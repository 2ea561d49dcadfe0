"""The studio as its user has it: served by the command line, driven through Chromium."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Studio:
    """A server of one workspace."""

    root: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(root: Path, port: int, log: Path) -> Studio:
    """Start the studio as `make run` does and wait until it answers."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "backend", "-w", str(root), "serve", "--port", str(port)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2).read()
            return Studio(root, port, process)
        time.sleep(0.2)
    raise AssertionError(f"the studio does not answer: {log.read_text()}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path, "Chromium is missing; tests/install_browser.sh installs it"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where workspace, device queue and logs of a module's tests lie; nothing outlives them."""
    folder = tmp_path_factory.mktemp("browser")
    before = dict(os.environ)
    os.environ["SYNTHLOOP_STATE_DIR"] = str(folder / "state")
    yield folder
    os.environ.clear()
    os.environ.update(before)
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in word for word in process.info["cmdline"] or ()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture(scope="module")
def studio(home: Path) -> Iterator[Studio]:
    served = serve(home / "workspace", free_port(), home / "studio.log")
    yield served
    served.kill()


def opened(browser: Browser, url: str, width: int = 1440) -> Page:
    """A page whose errors fail the test that looks at it."""
    page = browser.new_page(viewport={"width": width, "height": 1000})
    page.set_default_timeout(60_000)
    page.goto(url)
    settled(page)
    return page


def settled(page: Page) -> None:
    """Wait until Streamlit has run the script, and make sure that nothing raised."""
    page.wait_for_selector('[data-testid="stAppViewContainer"] h1', timeout=60_000)
    page.wait_for_selector('[data-testid="stStatusWidget"]', state="detached", timeout=60_000)
    assert page.locator('[data-testid="stException"]').count() == 0
