"""The environment page: what is missing, what sets it right, what is under way."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from backend.environment import checks
from backend.files import write_json
from backend.runs import Progress, Reason, Run, State
from backend.supervisor import stop
from backend.workspace import Settings, Workspace
from tests.pages.browsing import HOSTILE, live, markup, sound, visit, words
from tests.pages.workspaces import add_run


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "space", Settings(name="studio"))


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_one_sentence_says_what_is_missing_and_each_check_is_there(workspace, monkeypatch, lang):
    app = visit("environment", workspace, monkeypatch, lang)
    [sentence] = [box.value for box in app.warning]
    assert ("语言模型" if lang == "zh" else "Language model") in sentence
    html = markup(app)
    assert html.count('class="sl-row"') == len(checks(workspace))
    actions = {button.key for button in app.button}
    assert "act-asset_llm" in actions


def test_a_remedys_button_opens_its_form_filled_in(workspace, monkeypatch):
    app = visit("environment", workspace, monkeypatch)
    sound(app.button(key="act-asset_seed_pairs").click().run())
    [asset] = [one for one in app.selectbox if one.label == "Asset"]
    assert asset.value == "seed_pairs"
    [start] = [one for one in app.button if one.label == "Start: Fetch"]
    assert start.disabled
    assert "mgm_pretrain_stage_1.jsonl" in words(app).replace("\\", "")
    sound(app.button(key="close").click().run())
    assert not any(one.label == "Start: Fetch" for one in app.button)


def test_checking_again_records_a_run(workspace, monkeypatch):
    app = visit("environment", workspace, monkeypatch)
    [again] = [one for one in app.button if one.label == "Check again"]
    sound(again.click().run())
    [run] = Run.all(workspace)
    assert run.spec.stage == "check"
    until = time.monotonic() + 30
    while not run.status().state.ended:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert run.status().state is State.SUCCEEDED
    assert (run.artifacts / "checks.json").is_file()
    assert any("Last recorded" in one.value for one in sound(app.run()).caption)


def test_a_download_shows_how_far_it_is_and_can_be_stopped(workspace, monkeypatch):
    run = add_run(
        workspace,
        "20261124-110000-fetch-aaaa",
        State.RUNNING,
        {"asset": "llm", "url": "http://somewhere/x"},
        progress=Progress(done=2**30, total=4 * 2**30, unit="bytes", eta_s=60, note=HOSTILE),
        alive=os.getpid(),
    )
    app = visit("environment", workspace, monkeypatch)
    assert "Fetch: Language model Gemma 2B" in words(app)
    [bar] = app.get("progress")
    assert bar.proto.value == 25
    assert "1.00 GiB of 4.00 GiB" in bar.proto.text
    assert not live(bar.proto.text)
    app.button(key=f"stop-{run.id}").click().run()
    assert (run.path / "stop").exists()
    stop(run)


def test_a_failed_install_says_why(workspace, monkeypatch):
    values = {"package": "flash-attn", "version": "1", "error": HOSTILE}
    add_run(
        workspace,
        "20261124-110000-install-aaaa",
        State.FAILED,
        {"package": HOSTILE},
        reason=Reason(code="install_failed", values=values),
    )
    app = visit("environment", workspace, monkeypatch)
    [box] = app.error
    assert "flash\\-attn 1 could not be installed" in box.value
    assert not live(box.value + words(app))


def test_faults_that_only_a_thorough_look_saw_are_shown(workspace, monkeypatch):
    path = workspace.asset("seed_pairs")
    path.parent.mkdir(parents=True)
    path.write_text('{"id": 1}\n{"id": 2}\n')
    run = add_run(workspace, "20261124-110000-check-aaaa", State.SUCCEEDED, {"thorough": True})
    fault = {"name": "asset_seed_pairs", "group": "assets", "state": "failed", "found": HOSTILE}
    write_json(run.artifacts / "checks.json", {"checks": [fault]})
    html = markup(visit("environment", workspace, monkeypatch))
    assert "seen when everything was read" in html
    assert not live(html)


def test_a_report_of_another_form_is_left_alone(workspace, monkeypatch):
    run = add_run(workspace, "20261124-110000-check-aaaa", State.SUCCEEDED, {"thorough": True})
    write_json(run.artifacts / "checks.json", [1, 2])
    visit("environment", workspace, monkeypatch)
