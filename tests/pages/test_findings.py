"""Findings are seen where a person looks: in the run, in its state, and in Compare."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.files import append_line
from backend.memory.health import describe, judge_run
from backend.messages import LANGUAGES, message
from backend.runs import Reason, State
from pages.widgets.text import escape
from tests.pages.browsing import sound, visit, words
from tests.pages.workspaces import add_metrics, add_run, empty

SICK, WELL = "20261124-090000-finetune-51c4", "20261124-080000-finetune-3e11"


@pytest.fixture
def space(tmp_path: Path):
    workspace = empty(tmp_path / "space")
    add_metrics(add_run(workspace, WELL, State.SUCCEEDED, {"method": "lora"}), 60)
    reason = Reason(code="did_not_learn", values={"problem": "the loss ends at 3e+11"})
    run = add_run(workspace, SICK, State.FAILED, {"method": "lora"}, reason=reason)
    for step in range(1, 61):
        loss = 3e11 if step != 40 else 9e12
        append_line(run.metrics_path, {"step": step, "loss": loss, "attempt": 1})
    return workspace


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_run_that_learned_nothing_says_so_as_its_state(space, monkeypatch, lang: str):
    app = visit("training", space, monkeypatch, lang, run=SICK)
    word = message("state.did_not_learn", lang)
    assert word in words(app)
    assert any(word in option for option in app.selectbox(key="run").options)
    app = visit("runs", space, monkeypatch, lang)
    assert word in list(app.dataframe[0].value["state"])


def test_a_finding_leads_to_the_samples_of_its_step(space, monkeypatch):
    app = visit("training", space, monkeypatch, run=SICK, view="health")
    finding = next(f for f in judge_run(_run(space)) if f.steps)
    button = app.button(key=f"step-{SICK}-{finding.code}-{finding.steps[0]}")
    app = sound(button.click().run())
    assert app.number_input(key=f"step-{SICK}").value == finding.steps[0]


def test_compare_names_what_was_wrong_with_a_training(space, monkeypatch):
    app = visit("compare", space, monkeypatch, runs=[SICK, WELL])
    expected = escape(describe(judge_run(_run(space))[0]))
    assert any(expected in box.value for box in app.error)


def _run(space):
    from backend.runs import Run

    return Run.find(space, SICK)
