"""What stages that read a dataset version check before they start."""

from __future__ import annotations

from pathlib import Path

from backend.errors import SynthLoopError
from backend.stages.base import Problem
from backend.synthesis.captioner import captioner_path
from backend.synthesis.catalogue import load_catalogue, operator_faults
from backend.synthesis.datasets import check_name
from backend.synthesis.importing import SEED_REFERENCE
from backend.synthesis.recipes import CAPTIONER, load_recipe
from backend.workspace import Workspace


def dataset_problems(workspace: Workspace, reference: str) -> list[Problem]:
    """An error when the version neither exists nor can be imported from the profile's seed."""
    known = workspace.dataset_references()
    if reference in known:
        return []
    if reference == SEED_REFERENCE:
        return [
            Problem("error", "asset_missing", {"asset": name, "path": str(path)}, str(path))
            for name in ("seed_pairs", "seed_originals", "seed_images")
            if not (path := workspace.asset(name)).exists()
        ]
    try:
        workspace.dataset(reference)
    except SynthLoopError:
        values = {"dataset": reference, "known": ", ".join(known) or "–"}
        return [Problem("error", "dataset_missing", values, reference)]
    return []


def recipe_problems(
    workspace: Workspace, recipe_name: str, captioner: str, output: str
) -> list[Problem]:
    """What is wrong with a recipe, with what it needs, or with the name of its result."""
    problems: list[Problem] = []
    checkpoint: Path | None = None
    try:
        check_name(output)
        checkpoint = captioner_path(workspace, captioner)
        recipe = load_recipe(workspace, recipe_name)
    except SynthLoopError as error:
        return [_invalid(error)]
    if not recipe.synthesizes:
        values = {"recipe": recipe.name}
        problems.append(Problem("warning", "recipe_without_synthesis", values, str(recipe.path)))
    for name in sorted(recipe.placeholders):
        if name == CAPTIONER and checkpoint is None:
            values = {"recipe": recipe.name}
            problems.append(Problem("error", "captioner_missing", values, "captioner"))
        elif name != CAPTIONER and not (path := workspace.asset(name)).exists():
            values = {"asset": name, "path": str(path)}
            problems.append(Problem("error", "asset_missing", values, str(path)))
    # Without a catalogue the stage itself checks them, before the first operator runs.
    catalogue = load_catalogue(workspace)
    if catalogue is not None:
        problems += [_invalid(fault) for fault in operator_faults(recipe, catalogue)]
    return problems


def _invalid(error: SynthLoopError) -> Problem:
    values = {"problem": error.problem, "remedy": error.remedy or ""}
    return Problem("error", "recipe_invalid", values, error.place or "")
