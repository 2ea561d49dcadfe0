"""Recipes can be changed, checked and saved, and shipped ones stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from backend.errors import InputError, UsageError
from backend.synthesis.catalogue import Catalogue, OperatorEntry, OperatorParameter
from backend.synthesis.recipes import load_recipe, recipe_names
from backend.workspace import Settings, Workspace
from pages.widgets.recipe_draft import DRAFT, Draft, DraftStep, save


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "space", Settings(name="space"))


@pytest.fixture
def draft(workspace: Workspace) -> Draft:
    return Draft.of(load_recipe(workspace, "kit-filters"))


def catalogue() -> Catalogue:
    limit = OperatorParameter("min_num", "int", 1, required=False, help="")
    entry = OperatorEntry("words_num_filter", "filter", (), "", "", (limit,), (), "data-juicer",
                          synthesizes=False)  # fmt: skip
    return Catalogue({"words_num_filter": entry}, frozenset({"batch_size"}))


def names(draft: Draft) -> list[str]:
    return [step.name for step in draft.steps]


def test_an_unchanged_draft_says_what_the_recipe_said(workspace: Workspace, draft: Draft):
    said = yaml.safe_load(load_recipe(workspace, "kit-filters").text)["process"]
    assert yaml.safe_load(draft.text())["process"] == said
    assert not draft.changed


def test_steps_move_and_stop_at_the_ends(draft: Draft):
    before = names(draft)
    assert draft.move(0, 1) == 1
    assert names(draft)[:2] == before[1::-1]
    assert draft.move(0, -1) == 0
    assert draft.move(len(before) - 1, 1) == len(before) - 1


def test_arguments_that_equal_their_default_are_left_out(draft: Draft):
    draft.steps = [DraftStep("words_num_filter", {"min_num": 3})]
    draft.set(0, "min_num", 1, 1)
    assert draft.steps[0].arguments == {}
    # True equals 1, but is not the same choice.
    draft.set(0, "min_num", True, 1)
    assert draft.steps[0].arguments == {"min_num": True}


def test_a_saved_draft_is_a_recipe_of_the_workspace(workspace: Workspace, draft: Draft):
    draft.remove(0)
    draft.add("fix_unicode_mapper", 1)
    recipe = save(workspace, draft, "mine", None)
    assert [step.name for step in recipe.steps] == names(draft)
    assert "mine" in recipe_names(workspace)
    assert recipe.path == workspace.recipes / "mine.yaml"


@pytest.mark.parametrize("name", ["", "../up", "a b", "a/b", ".hidden", "x" * 99, "clean"])
def test_names_that_are_none_or_taken_are_refused(workspace: Workspace, draft: Draft, name: str):
    with pytest.raises(UsageError):
        save(workspace, draft, name, None)


def test_another_recipe_is_not_overwritten_but_the_own_one_is(workspace: Workspace, draft: Draft):
    save(workspace, draft, "mine", None)
    with pytest.raises(UsageError, match="another recipe"):
        save(workspace, draft, "mine", None)
    own = Draft.of(load_recipe(workspace, "mine"))
    own.remove(0)
    assert len(save(workspace, own, "mine", None).steps) == len(draft.steps) - 1
    save(workspace, draft, DRAFT, None)
    save(workspace, own, DRAFT, None)


def test_unknown_operators_and_arguments_are_refused(workspace: Workspace, draft: Draft):
    draft.steps = [DraftStep("words_num_filter", {"min_nun": 3})]
    with pytest.raises(InputError, match="min_nun") as caught:
        save(workspace, draft, "mine", catalogue())
    assert caught.value.remedy == "Did you mean: min_num?"
    assert "mine" not in recipe_names(workspace)


def test_an_empty_draft_is_no_recipe(workspace: Workspace):
    with pytest.raises(InputError, match="no operators"):
        save(workspace, Draft("x", []), "mine", None)
