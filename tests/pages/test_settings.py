"""The settings page: what is written, and what is refused."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from backend.workspace import Settings, Workspace
from tests.pages.browsing import HOSTILE, live, sound, visit, words


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "space", Settings(name="studio"))


def written(workspace: Workspace) -> dict:
    return tomllib.loads((workspace.root / "workspace.toml").read_text())


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_nothing_changed_is_nothing_to_save(workspace, monkeypatch, lang):
    app = visit("settings", workspace, monkeypatch, lang)
    assert app.button(key="save").disabled


def test_what_is_saved_is_what_was_typed_and_the_rest_stays(workspace, monkeypatch):
    workspace.settings.assets["llm"] = "models/gemma"
    workspace.save()
    app = visit("settings", workspace, monkeypatch)
    app.text_input(key="settings-name").set_value("Second studio")
    app.toggle(key="whole-card").set_value(False).run()
    app.number_input(key="settings-budget").set_value(11.5)
    app.number_input(key="settings-retention").set_value(4)
    sound(app.run())
    sound(app.button(key="save").click().run())
    assert written(workspace) == {
        "name": "Second studio",
        "profile": "starter",
        "language": "en",
        "kit": "kit",
        "memory_budget_gib": 11.5,
        "retention_checkpoints": 4,
        "assets": {"llm": "models/gemma"},
    }
    assert app.button(key="save").disabled


def test_without_a_budget_it_is_the_whole_card(workspace, monkeypatch):
    workspace.settings.memory_budget_gib = 8.0
    workspace.save()
    app = visit("settings", workspace, monkeypatch)
    assert app.number_input(key="settings-budget").value == 8.0
    sound(app.toggle(key="whole-card").set_value(True).run())
    sound(app.button(key="save").click().run())
    assert "memory_budget_gib" not in written(workspace)


@pytest.mark.parametrize("key", ["settings-name", "settings-kit"])
def test_what_must_not_be_empty_is_refused(workspace, monkeypatch, key):
    app = visit("settings", workspace, monkeypatch)
    sound(app.text_input(key=key).set_value("   ").run())
    [box] = app.error
    assert "must not be empty" in box.value
    assert app.button(key="save").disabled


def test_a_place_where_the_asset_is_not_is_said_and_may_be_saved(workspace, monkeypatch):
    app = visit("settings", workspace, monkeypatch)
    sound(app.text_input(key="settings-asset-llm").set_value(HOSTILE).run())
    warnings = "\n".join(box.value for box in app.warning)
    assert "Missing" in warnings
    assert not live(warnings + words(app))
    sound(app.button(key="save").click().run())
    assert written(workspace)["assets"] == {"llm": HOSTILE}


def test_clearing_a_place_puts_the_asset_back_into_the_kit(workspace, monkeypatch):
    workspace.settings.assets["llm"] = "models/gemma"
    workspace.save()
    app = visit("settings", workspace, monkeypatch)
    sound(app.text_input(key="settings-asset-llm").set_value("").run())
    sound(app.button(key="save").click().run())
    assert written(workspace)["assets"] == {}
