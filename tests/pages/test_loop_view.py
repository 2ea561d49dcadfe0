"""A loop on its page: started with one click, watched step by step, ended with its scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import streamlit as st

from backend.files import write_json
from backend.messages import message
from backend.runs import Progress, Run, State
from backend.workspace import Workspace
from pages.widgets.url import keep, restore
from tests.pages.browsing import markup, visit
from tests.pages.workspaces import add_metrics, add_run, add_scores, empty, half_finished

LOOP, STEP = "20261124-130000-loop-5555", "20261124-130010-pretrain-5556"


def add_loop(space: Workspace, state: State, stage: str = "pretrain", step: str = STEP) -> Run:
    """A synthesis loop that has come to this step."""
    loop = add_run(space, LOOP, state, {"loop": "synthesis"}, age_s=300, took_s=200)
    listed = [{"name": stage, "stage": stage, "run_id": step, "state": str(state)}]
    write_json(loop.artifacts / "loop.json", {"steps": listed})
    return loop


def test_the_synthesis_loop_is_one_click_once_there_is_a_baseline(tmp_path: Path, monkeypatch):
    app = visit("synthesis", half_finished(tmp_path / "half"), monkeypatch)
    labels = [button.label for button in app.button]
    assert "Start: Synthesis loop" in labels
    assert "loop=synthesis" in "\n".join(code.value for code in app.code)


def test_without_a_baseline_the_synthesis_page_leads_to_it(tmp_path: Path, monkeypatch):
    app = visit("synthesis", empty(tmp_path / "new"), monkeypatch)
    start = next(button for button in app.button if button.label == "Start: Synthesis loop")
    assert start.disabled
    assert message("synthesis.captioner.to_baseline") in [
        link.proto.label for link in app.main.get("page_link")
    ]


def test_a_running_loop_shows_the_curves_of_its_step(tmp_path: Path, monkeypatch):
    space = half_finished(tmp_path / "half")
    add_loop(space, State.RUNNING)
    step = add_run(space, STEP, State.RUNNING, parent=LOOP, name="synthesis", age_s=250,
                   progress=Progress(done=30, total=90, unit="steps", eta_s=60))  # fmt: skip
    add_metrics(step, 30)
    app = visit("synthesis", space, monkeypatch, run=LOOP)
    assert "synthesis · Pretrain" in [one.value.replace("\\", "") for one in app.subheader]
    assert len(app.get("plotly_chart")) == 1
    assert "33" in markup(app)


def test_a_loop_that_succeeded_shows_its_scores(tmp_path: Path, monkeypatch):
    space = half_finished(tmp_path / "half")
    evaluation = "20261124-130020-evaluate-5557"
    add_loop(space, State.SUCCEEDED, "evaluate", evaluation)
    add_scores(add_run(space, evaluation, State.SUCCEEDED, parent=LOOP), 50.2, 55.0)
    app = visit("synthesis", space, monkeypatch, run=LOOP)
    assert [metric.value for metric in app.metric] == ["50.2", "55.0"]


@pytest.mark.parametrize("value", ["its old label", ["b", "its old label"]])
def test_what_is_no_option_is_never_written_into_the_url(value, monkeypatch):
    state: dict = {"run": value}
    query: dict = {}
    monkeypatch.setattr(st, "session_state", state)
    monkeypatch.setattr(st, "query_params", _Query(query))
    state.pop("run")
    restore("run", ["a", "b"], [] if isinstance(value, list) else "a")
    state["run"] = value
    keep("run", "a")()
    assert query == {}
    assert "run" not in state
    state["run"] = "b"
    keep("run", "a")()
    assert query == {"run": "b"}


class _Query(dict):
    """A URL's query."""

    def __init__(self, values: dict):
        super().__init__()
        self.values_ = values

    def get_all(self, key: str) -> list[str]:
        return [self.values_[key]] if key in self.values_ else []

    def __setitem__(self, key: str, value: str) -> None:
        self.values_[key] = value
