from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from backend.cli.output import parameters_of
from backend.errors import InputError, UsageError
from backend.profiles import asked
from backend.runs import Run
from backend.stages import STAGES
from backend.stages import stage as stage_named
from backend.supervisor import check_parameters, command, start, validated
from backend.workspace import Settings, Workspace
from tests.faults.studio import STEPS


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setitem(STAGES, "steps", STEPS)
    return Workspace.create(tmp_path / "ws", Settings(name="test"))


def test_an_unknown_parameter_lists_near_names(space: Workspace):
    with pytest.raises(UsageError) as caught:
        start(space, "evaluate", {"batchsize": 3})
    assert caught.value.place == "batchsize"
    assert caught.value.remedy == "Did you mean: batch_size?"


def test_a_value_out_of_bounds_names_field_bound_and_default(space: Workspace):
    with pytest.raises(UsageError) as caught:
        start(space, "evaluate", {"batch_size": 0})
    assert caught.value.place == "batch_size"
    assert "greater than or equal to 1" in caught.value.problem
    assert "16" in (caught.value.remedy or "")


def test_a_preflight_error_starts_nothing(space: Workspace):
    with pytest.raises(InputError, match=r"^kit: gemma is missing: there\."):
        start(space, "steps", {"trouble": "error"}, request="click")
    assert Run.all(space) == []


def test_a_preflight_error_can_be_looked_at_before_the_start(space: Workspace):
    checked, problems = check_parameters(space, "steps", {"trouble": "error", "steps": "7"})
    assert checked.steps == 7
    assert [(one.level, one.code) for one in problems] == [("error", "asset_missing")]


def test_a_command_names_only_what_differs_and_survives_the_shell():
    text = command("evaluate", {"checkpoint": "a b'c", "batch_size": 16, "benchmarks": ["mmbench"]})
    assert shlex.split(text) == [
        "python",
        "-m",
        "backend",
        "run",
        "evaluate",
        "-p",
        "checkpoint=a b'c",
        "-p",
        'benchmarks=["mmbench"]',
    ]


def test_a_command_keeps_a_stage_default_that_the_profile_overrides():
    text = command("evaluate", {"batch_size": 16}, {"batch_size": 4})
    assert text.endswith("-p batch_size=16")
    assert "-p" not in command("evaluate", {"batch_size": 4}, {"batch_size": 4})


@pytest.mark.parametrize("text", ["12", "true", "null", '"x"', "[1]", "1e3", "a=b", "two words"])
def test_text_stays_text_on_its_way_through_a_command(text: str):
    words = shlex.split(command("finetune", {"image_root": text}, root=Path("a b"), name="-n"))
    assert words[3:5] == ["-w", "a b"]
    assert words[-1] == "--name=-n"
    assert parameters_of([words[-2]]) == {"image_root": text}


@pytest.mark.parametrize(
    "chosen", [{}, {"micro_batch_size": 4}, {"preset": "kit", "mlp_chunk": 7}, {"preset": "custom"}]
)
@pytest.mark.parametrize(
    "profile",
    [{}, {"preset": "fit-8gb-qlora"}, {"method": "lora", "micro_batch_size": 16, "tower_chunk": 1}],
)
@pytest.mark.parametrize("stage", ["pretrain", "finetune", "probe"])
def test_the_command_of_a_training_asks_for_that_training_again(stage, chosen, profile):
    known = stage_named(stage).parameters.model_fields
    profile = {name: value for name, value in profile.items() if name in known}
    parameters = validated(stage, asked(profile, chosen)).model_dump(mode="json")
    words = shlex.split(command(stage, parameters, profile))
    again = parameters_of([word for word in words[5:] if word != "-p"])
    assert validated(stage, asked(profile, again)).model_dump(mode="json") == parameters


def test_a_preset_stands_above_the_profile_and_below_what_is_chosen():
    profile = {"micro_batch_size": 16, "learning_rate": 1e-3, "tower_chunk": 1}
    found = validated("finetune", asked(profile, {"preset": "kit", "mlp_chunk": 7}))
    assert (found.micro_batch_size, found.tower_chunk) == (4, 0)
    assert (found.learning_rate, found.mlp_chunk) == (1e-3, 7)


def test_a_preset_that_is_none_is_refused_by_name():
    with pytest.raises(UsageError, match="preset"):
        validated("finetune", asked({}, {"preset": ["kit"]}))
