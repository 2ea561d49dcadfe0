"""Recipes as files: what they may say, and that a fault is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.errors import InputError, UsageError
from backend.synthesis.captioner import captioner_path
from backend.synthesis.catalogue import (
    Catalogue,
    OperatorEntry,
    OperatorParameter,
    operator_faults,
)
from backend.synthesis.recipes import (
    SYNTHESIS_OPERATORS,
    data_juicer_yaml,
    fill,
    load_recipe,
    parse_recipe,
)
from backend.workspace import Settings, Workspace
from tests.seeds import stage_context
from tests.synthesis.recipes import write_recipe

GOOD = """\
# A comment.
np: 2
process:
  - image_readable_filter:
  - checkpoint_captioning_mapper:
      checkpoint: ${captioner}
      model: ${vision_tower}
      lowest_share: 0.5
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "ws", Settings(name="recipes"))


def test_steps_are_read_with_their_lines(workspace):
    recipe = parse_recipe(write_recipe(workspace, GOOD))
    assert [(step.name, step.line) for step in recipe.steps] == [
        ("image_readable_filter", 4),
        ("checkpoint_captioning_mapper", 5),
    ]
    assert recipe.steps[1].arguments["lowest_share"] == 0.5
    assert (recipe.workers, recipe.synthesizes) == (2, True)
    assert recipe.placeholders == {"captioner", "vision_tower"}
    assert recipe.place(recipe.steps[1]).endswith("test.yaml, line 5, checkpoint_captioning_mapper")


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("process: [", "line 1", "not YAML"),
        ("- a\n- b\n", "", "mapping with the key 'process'"),
        ("np: 2\n", "line 1", "lists no operators"),
        ("process:\n", "line 1", "lists no operators"),
        ("process:\n  - a_filter:\n  - 7\n", "line 3", "is its name, a colon"),
        ("process:\n  - a_filter:\n    b_filter:\n", "line 2", "is its name, a colon"),
        ("process:\n  - a_filter: 3\n", "line 2, a_filter", "arguments of an operator have names"),
        ("process:\n  - a_filter:\nnp: none\n", "line 3", "np must be a whole number"),
        ("process:\n  - a_filter:\ndataset_path: /x\n", "line 3", "'dataset_path' is not the"),
        ("process:\n  - a_filter:\n      x: ${tower}\n", "line 2, a_filter", "placeholder"),
        ("process: !!python/object/apply:os.system ['true']\n", "line 1", "not YAML"),
    ],
)  # fmt: skip
def test_what_is_no_recipe_is_refused_with_its_line(workspace, text, place, problem):
    path = write_recipe(workspace, text)
    with pytest.raises(InputError) as error:
        parse_recipe(path)
    assert problem in error.value.problem
    assert error.value.place == (f"{path}, {place}" if place else str(path))


def test_placeholders_become_paths_of_this_workspace(workspace, tmp_path):
    recipe = parse_recipe(write_recipe(workspace, GOOD))
    with pytest.raises(InputError, match="needs a trained checkpoint"):
        fill(recipe, workspace, None)
    with pytest.raises(InputError, match="does not exist"):
        fill(recipe, workspace, tmp_path / "gone")
    with pytest.raises(InputError, match="Environment page"):
        fill(recipe, workspace, tmp_path)
    workspace.asset("vision_tower").mkdir(parents=True)
    arguments = fill(recipe, workspace, tmp_path)[1].arguments
    assert arguments["checkpoint"] == str(tmp_path)
    assert arguments["model"] == str(workspace.asset("vision_tower"))
    assert recipe.steps[1].arguments["model"] == "${vision_tower}"


def test_it_can_be_given_to_data_juicer_itself(workspace, tmp_path):
    recipe = parse_recipe(write_recipe(workspace, GOOD))
    workspace.asset("vision_tower").mkdir(parents=True)
    files = [Path("/ours/checkpoint_captioning_mapper.py"), Path("/ours/another.py")]
    path = tmp_path / "again.yaml"
    path.write_text(data_juicer_yaml(fill(recipe, workspace, tmp_path), files))
    text = path.read_text()
    assert "custom_operator_paths:\n- /ours/checkpoint_captioning_mapper.py\nprocess:" in text


def test_a_workspaces_recipe_goes_before_the_shipped_one(workspace):
    assert len(load_recipe(workspace, "clean").steps) > 3
    write_recipe(workspace, "process:\n  - a_filter:\n", "clean")
    assert [step.name for step in load_recipe(workspace, "clean").steps] == ["a_filter"]


@pytest.mark.parametrize("name", ["none", "../clean", "a/b", "", "clean.yaml"])
def test_a_recipe_that_is_not_there_is_told_with_those_that_are(workspace, name):
    with pytest.raises(UsageError, match="clean, kit-filters, synthesis"):
        load_recipe(workspace, name)


def test_a_catalogue_knows_unknown_operators_and_arguments(workspace):
    parameter = OperatorParameter("min_num", "int", 1, False, "")
    entry = OperatorEntry(
        "words_num_filter", "filter", (), "", "", (parameter,), (), "data-juicer", False
    )
    catalogue = Catalogue({"words_num_filter": entry}, frozenset({"text_key"}))
    text = "process:\n  - words_num_filter: {min_num: 2, text_key: t}\n"
    recipe = parse_recipe(write_recipe(workspace, text))
    assert operator_faults(recipe, catalogue) == []
    text += "  - words_nm_filter:\n  - words_num_filter: {min_nums: 2}\n  - zzz:\n"
    faults = operator_faults(parse_recipe(write_recipe(workspace, text)), catalogue)
    assert [fault.place.rpartition("test.yaml, ")[2] for fault in faults] == [
        "line 3, words_nm_filter", "line 4, words_num_filter", "line 5, zzz"
    ]  # fmt: skip
    assert [fault.remedy for fault in faults] == [
        "Did you mean: words_num_filter?", "Did you mean: min_num?", "Remove the operator."
    ]  # fmt: skip


def test_a_captioner_is_a_run_or_a_folder_with_a_checkpoint(workspace, tmp_path):
    assert captioner_path(workspace, "") is None
    run = stage_context(workspace, "finetune").run
    with pytest.raises(InputError, match="no checkpoint here") as error:
        captioner_path(workspace, run.id)
    assert error.value.place == str(run.artifacts)
    run.artifacts.mkdir(exist_ok=True)
    (run.artifacts / "config.json").write_text("{}")
    assert captioner_path(workspace, run.id) == run.artifacts
    adapter = workspace.root / "adapters" / "one"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    assert captioner_path(workspace, "adapters/one") == adapter
    with pytest.raises(InputError, match="finished fine-tuning run"):
        captioner_path(workspace, "20990101-000000-finetune-none")


def test_the_captioning_operator_counts_as_synthesis():
    assert "checkpoint_captioning_mapper" in SYNTHESIS_OPERATORS
    assert "caption_vagueness_filter" not in SYNTHESIS_OPERATORS
