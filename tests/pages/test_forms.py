"""Forms made from a stage's parameters, and the command that stands for each."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from backend.cli import commands
from backend.cli import runs as runs_cli
from backend.errors import UsageError
from backend.messages import message
from backend.runs import State
from backend.supervisor import validated
from backend.training.presets import PRESETS
from backend.workspace import Profile, Settings, Workspace
from pages.widgets import forms
from tests.pages.browsing import sound, visit
from tests.pages.workspaces import add_run, empty

PREPARED = "20261124-080001-prepare-aaab"


class Desk:
    """A training form, and what it and its command would start."""

    def __init__(self, space: Workspace, monkeypatch: pytest.MonkeyPatch, **query: str) -> None:
        self.started: list[tuple[str, dict[str, Any], str]] = []
        monkeypatch.setattr(forms, "_preflight", lambda *_: [])
        monkeypatch.setattr(forms, "start", self._note)
        monkeypatch.setattr(runs_cli, "start", self._note)
        self.app: AppTest = visit("training", space, monkeypatch, **{"stage": "finetune"} | query)

    def _note(self, space: Workspace, stage: str, values: dict[str, Any], **more: Any) -> None:
        given = validated(stage, values).model_dump(mode="json")
        self.started.append((stage, given, more.get("name", "")))
        raise UsageError("nothing is started in this test.")

    def field(self, name: str) -> Any:
        """The widget of a parameter."""
        label = message(f"parameter.{name}.label")
        kinds = (self.app.selectbox, self.app.number_input, self.app.toggle, self.app.multiselect)
        return next(one for kind in kinds for one in kind if one.label == label)

    def put(self, name: str, value: Any) -> None:
        """Change a field."""
        self.app = sound(self.field(name).set_value(value).run())

    def shown(self) -> list[str]:
        """The words of the command shown; below the form a run may show its own."""
        code, *_ = [one.value for one in self.app.code if " run " in one.value]
        return shlex.split(code)

    def named(self) -> list[str]:
        """`key=value` words of the command, without those that say what is built upon."""
        words = self.shown()
        found = [after for word, after in itertools.pairwise(words) if word == "-p"]
        return [word for word in found if not word.startswith(("data=", "projector="))]

    def starts(self) -> dict[str, Any]:
        """What the form starts, after making sure that its command starts the same."""
        self.started.clear()
        label = message("form.start", stage=message("stage.finetune"))
        (button,) = [one for one in self.app.button if one.label == label]
        sound(button.click().run())
        words = self.shown()
        assert words[:3] == ["python", "-m", "backend"]
        assert commands.main(words[3:]) == 2
        of_form, of_command = self.started
        assert of_form == of_command
        return of_form[1]


def space_of(root: Path, profile: Profile) -> Workspace:
    """A workspace with data to train on."""
    made = Settings(name="studio", profile=profile)
    space = empty(root) if profile == "starter" else Workspace.create(root, made)
    add_run(space, PREPARED, State.SUCCEEDED, {"dataset": "seed/v1"})
    return space


def agrees(values: dict[str, Any], preset: str, *but: str) -> bool:
    wanted = {name: value for name, value in PRESETS[preset].items() if name not in but}
    return values["preset"] == preset and wanted == {name: values[name] for name in wanted}


def test_a_training_form_asks_for_adapters_only_where_there_are_some(tmp_path: Path, monkeypatch):
    desk = Desk(space_of(tmp_path, "mgm-2b"), monkeypatch)
    labels = [one.label for one in desk.app.number_input]
    assert message("parameter.lora_rank.label") not in labels
    desk.put("preset", "fit-12gb-lora")
    assert desk.field("lora_rank").value == 64


def test_the_form_of_the_real_profile_begins_with_its_preset(tmp_path: Path, monkeypatch):
    desk = Desk(space_of(tmp_path, "mgm-2b"), monkeypatch)
    assert desk.field("precision").value == "bf16_stochastic"
    assert desk.named() == []
    assert agrees(desk.starts(), "fit-24gb-full")


@pytest.mark.parametrize("profile", ["starter", "mgm-2b"])
@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "custom"])
def test_a_chosen_preset_fills_its_fields(tmp_path: Path, monkeypatch, profile, preset):
    desk = Desk(space_of(tmp_path, profile), monkeypatch)
    desk.put("preset", preset)
    assert desk.field("micro_batch_size").value == PRESETS[preset]["micro_batch_size"]
    usual = profile == "mgm-2b" and preset == "fit-24gb-full"
    assert desk.named() == ([] if usual else [f"preset={preset}"])
    assert agrees(desk.starts(), preset)


def test_changes_outlast_another_preset_that_does_not_name_them(tmp_path: Path, monkeypatch):
    desk = Desk(space_of(tmp_path, "mgm-2b"), monkeypatch)
    desk.put("seed", 7)
    desk.put("mlp_chunk", 99)
    assert desk.named() == ["seed=7", "mlp_chunk=99"]
    desk.put("preset", "fit-16gb-full")
    assert desk.named() == ["preset=fit-16gb-full", "seed=7"]
    assert agrees(desk.starts(), "fit-16gb-full")
    desk.put("micro_batch_size", 2)
    assert desk.named() == ["preset=fit-16gb-full", "seed=7", "micro_batch_size=2"]
    values = desk.starts()
    assert agrees(values, "fit-16gb-full", "micro_batch_size")
    assert (values["seed"], values["micro_batch_size"]) == (7, 2)
    desk.put("preset", "fit-24gb-full")
    assert desk.named() == ["seed=7"]
    desk.put("preset", "custom")
    assert desk.named() == ["preset=custom", "seed=7"]
    assert desk.starts()["precision"] == "fp32_master"


def test_an_adapter_of_another_method_is_not_kept(tmp_path: Path, monkeypatch):
    desk = Desk(space_of(tmp_path, "mgm-2b"), monkeypatch)
    desk.put("preset", "fit-12gb-lora")
    assert desk.field("learning_rate").value == 2e-4
    desk.put("lora_rank", 8)
    assert desk.named() == ["preset=fit-12gb-lora", "lora_rank=8"]
    desk.put("preset", "fit-8gb-qlora")
    values = desk.starts()
    assert (values["method"], values["lora_rank"]) == ("qlora", 8)
    desk.put("method", "full")
    values = desk.starts()
    assert (values["method"], values["lora_rank"]) == ("full", 64)


@pytest.mark.parametrize("profile", ["starter", "mgm-2b"])
def test_what_the_memory_page_found_stands_above_the_preset(tmp_path: Path, monkeypatch, profile):
    desk = Desk(space_of(tmp_path, profile), monkeypatch)
    found = {"method": "lora", "precision": "bf16", "mlp_chunk": 512, "lora_rank": 32}
    desk.app.session_state["training_defaults"] = {"finetune": found}
    desk.app = sound(desk.app.run())
    assert {name: desk.starts()[name] for name in found} == found
    desk.put("preset", "fit-8gb-qlora")
    values = desk.starts()
    assert agrees(values, "fit-8gb-qlora")
    assert values["lora_rank"] == 32


def test_a_clone_begins_with_what_its_run_was_given(tmp_path: Path, monkeypatch):
    space = space_of(tmp_path, "mgm-2b")
    given = {"preset": "fastest", "mlp_chunk": 7, "seed": 3, "image_root": "12"}
    parameters = validated("finetune", given).model_dump(mode="json")
    add_run(space, "20261124-090000-finetune-aaac", State.SUCCEEDED, parameters)
    desk = Desk(space, monkeypatch, clone="20261124-090000-finetune-aaac")
    assert desk.starts() == parameters
    assert desk.named() == ["preset=fastest", 'image_root="12"', "seed=3", "mlp_chunk=7"]
    desk.put("preset", "kit")
    values = desk.starts()
    assert agrees(values, "kit")
    assert (values["seed"], values["image_workers"]) == (3, 2)


def test_the_command_names_workspace_and_run(tmp_path: Path, monkeypatch):
    space = space_of(tmp_path, "mgm-2b")
    desk = Desk(space, monkeypatch)
    (name,) = [one for one in desk.app.text_input if one.label == message("form.name")]
    desk.app = sound(name.set_value("-it's mine").run())
    assert desk.shown()[3:5] == ["-w", str(space.root)]
    desk.starts()
    assert [name for _, _, name in desk.started] == ["-it's mine", "-it's mine"]
