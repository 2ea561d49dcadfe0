"""The training form says beforehand whether it fits the card that the settings allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.messages import LANGUAGES, message
from backend.workspace import Settings, Workspace
from tests.pages.browsing import markup, sound, visit
from tests.pages.test_memory import write


def real(folder: Path, budget: float | None) -> Workspace:
    zoo = write(folder / "zoo")
    settings = Settings(name="real", profile="mgm-2b", assets=zoo, memory_budget_gib=budget)
    return Workspace.create(folder / "space", settings)


def verdicts(app) -> list[str]:
    boxes = [*app.error, *app.warning, *app.success]
    return [box.value.replace("\\", "") for box in boxes]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_full_fine_tuning_does_not_fit_12_gb(tmp_path: Path, monkeypatch, lang: str):
    app = visit("training", real(tmp_path, 12), monkeypatch, lang, stage="finetune")
    start = message("memory.verdict.no", lang).split("{")[0]
    assert any(start in text for text in verdicts(app))
    assert message("memory.part.optimizer", lang) in markup(app)


def test_the_verdict_is_on_the_preset_that_is_chosen(tmp_path: Path, monkeypatch):
    app = visit("training", real(tmp_path, 24), monkeypatch, stage="finetune")
    assert any("Fits" in text for text in verdicts(app))
    preset = next(one for one in app.selectbox if str(one.key).endswith("-preset"))
    app = sound(preset.set_value("custom").run())
    assert any("Does not fit" in text for text in verdicts(app))


def test_a_large_card_fits(tmp_path: Path, monkeypatch):
    app = visit("training", real(tmp_path, 80), monkeypatch, stage="finetune")
    assert any("Fits" in text for text in verdicts(app))


def test_without_a_card_nothing_is_said(tmp_path: Path, monkeypatch):
    app = visit("training", real(tmp_path, None), monkeypatch, stage="finetune")
    assert "sl-memory" not in markup(app)
    said = [message(f"memory.verdict.{grade}").split("{")[0] for grade in ("fits", "tight", "no")]
    assert not any(start in text for text in verdicts(app) for start in said)
