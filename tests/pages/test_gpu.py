"""The GPU page with devices of every kind, and without any."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

import backend.gpu
from backend.files import append_line
from backend.gpu import Device, DeviceProcess, DeviceReadings
from backend.runs import State
from backend.workspace import Settings, Workspace
from tests.pages.browsing import HOSTILE, live, markup, visit, words
from tests.pages.workspaces import add_run

GIB = 1 << 30


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "space", Settings(name="studio"))


def show(workspace: Workspace, monkeypatch, readings: DeviceReadings, lang: str = "en"):
    monkeypatch.setattr(backend.gpu, "read_devices", lambda: readings)
    return visit("gpu", workspace, monkeypatch, lang)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_without_a_device_it_says_so_and_shows_the_machine(workspace, monkeypatch, lang):
    app = show(workspace, monkeypatch, DeviceReadings(error="no_driver"), lang)
    [box] = app.info
    assert "NVIDIA GPU" in box.value
    assert "GiB" in markup(app)


def test_a_driver_that_does_not_answer_is_quoted(workspace, monkeypatch):
    app = show(workspace, monkeypatch, DeviceReadings(error=HOSTILE))
    [box] = app.warning
    assert "does not answer" in box.value
    assert not live(box.value)


def test_figures_of_each_device_and_whose_its_processes_are(workspace, monkeypatch):
    run = add_run(
        workspace,
        "20261124-110000-finetune-aaaa",
        State.RUNNING,
        name=HOSTILE,
        alive=os.getpid(),
    )
    own, other = DeviceProcess(os.getpid(), 17 * GIB), DeviceProcess(1, None)
    card = Device(
        0, "Card", total=24 * GIB, used=18 * GIB, utilization=97, power_w=412.0,
        power_limit_w=450.0, temperature_c=71, processes=(own, other),
    )  # fmt: skip
    app = show(workspace, monkeypatch, DeviceReadings((card, Device(1, error="lost"))))
    html = markup(app)
    for figure in ("18.0 GiB of 24.0 GiB", "97 %", "412 W of 450 W", "71 °C", "17.0 GiB"):
        assert figure in html
    assert "Not a run of this workspace" in html
    assert "&lt;script&gt;" in html
    assert not live(html + words(app))
    assert "no longer answers" in app.error[0].value
    assert run.id in str([link.proto for link in app.get("page_link")])


def test_what_the_driver_does_not_tell_is_a_dash_not_a_zero(workspace, monkeypatch):
    app = show(workspace, monkeypatch, DeviceReadings((Device(0),)))
    html = markup(app)
    assert "– of –" in html
    assert "0 %" not in html
    assert "does not tell" in words(app)


def test_the_last_minutes_are_drawn_from_what_runs_recorded(workspace, monkeypatch):
    run = add_run(workspace, "20261124-110000-finetune-aaaa", State.SUCCEEDED, name="first")
    loop = add_run(workspace, "20261124-100000-loop-aaab", State.SUCCEEDED, name="its loop")
    now = time.time()
    for age in (30, 20, 10):
        device = {"index": 0, "used": 4 * GIB, "total": 24 * GIB, "utilization": 50}
        line = {"time": now - age, "devices": [device], "process": {"rss": 2 * GIB}}
        append_line(run.gpu_path, line)
        append_line(loop.gpu_path, line)
    app = show(workspace, monkeypatch, DeviceReadings(error="no_driver"))
    [chart] = app.get("plotly_chart")
    named = [trace.get("name") for trace in json.loads(chart.proto.spec)["data"]]
    assert "GPU 0" in named
    assert "first · Fine-tune aaaa" in named
    assert not any("its loop" in str(name) for name in named), "its steps would be drawn twice"
