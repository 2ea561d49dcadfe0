"""Forms made from a stage's parameters."""

from __future__ import annotations

from pathlib import Path

from backend.messages import message
from backend.runs import State
from tests.pages.browsing import sound, visit
from tests.pages.workspaces import add_run, empty


def test_a_training_form_asks_for_adapters_only_where_there_are_some(tmp_path: Path, monkeypatch):
    space = empty(tmp_path)
    add_run(space, "20261124-080001-prepare-aaab", State.SUCCEEDED, {"dataset": "seed/v1"})
    app = visit("training", space, monkeypatch, stage="finetune")
    labels = [one.label for one in app.number_input]
    assert message("parameter.lora_rank.label") not in labels
    app = sound(app.button_group(key="finetune-preset").set_value("lora").run())
    assert message("parameter.lora_rank.label") in [one.label for one in app.number_input]
