"""The Memory page without a GPU: verdict, bar, options, and runs that died."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.messages import LANGUAGES, message
from backend.runs import Reason, State
from backend.workspace import Workspace
from tests.pages.browsing import HOSTILE, markup, sound, visit, words
from tests.pages.workspaces import add_run, empty


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return empty(tmp_path / "space")


def read(app) -> str:
    return words(app).replace("\\", "")


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_kits_recipe_does_not_fit_24_gb_and_the_page_says_how_it_would(
    space: Workspace, monkeypatch, lang: str
):
    app = visit("memory", space, monkeypatch, lang)
    assert "24" in app.selectbox(key="memory-card").value
    assert "24.8" in app.error[0].value.replace("\\", "")
    assert message("memory.lever.loss_chunk", lang) in read(app)
    assert message("memory.part.logits", lang) + " 15.6 GiB" in markup(app)
    assert app.button(key="use-0").label == message("memory.use", lang)


def test_pulling_the_lever_turns_the_verdict(space: Workspace, monkeypatch):
    app = visit("memory", space, monkeypatch)
    app = sound(app.toggle(key="memory-loss_chunk").set_value(True).run())
    assert not app.error
    assert "Fits" in app.success[0].value


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_every_method_fits_a_large_card(space: Workspace, monkeypatch, method: str):
    app = visit("memory", space, monkeypatch)
    app.button_group(key="memory-method").set_value(method)
    app.selectbox(key="memory-card").set_value("80 GB (H100, A100)")
    assert sound(app.run()).success


def test_levers_that_do_not_help_leave_nothing_to_offer(space: Workspace, monkeypatch):
    app = visit("memory", space, monkeypatch)
    app.button_group(key="memory-allowed").set_value(["mining_checkpointing"])
    app = sound(app.run())
    assert message("memory.no_option") in [box.value for box in app.info]


def test_a_death_is_listed_with_its_cause(space: Workspace, monkeypatch):
    reason = Reason(
        code="device_memory",
        values={"error": f"Tried to allocate 3.91 GiB. {HOSTILE}"},
        evidence=["GPU 0 has a total capacity of 23.65 GiB"],
    )
    add_run(space, "20261123-154500-finetune-7f3a", State.FAILED, {"method": "full"}, reason=reason)
    app = visit("memory", space, monkeypatch)
    assert "Tried to allocate 3.91 GiB" in read(app)
    assert "<script>" not in words(app)
    assert "23.65 GiB" in app.code[0].value
