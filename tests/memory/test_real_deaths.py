"""Trainings of MGM-2B's shapes that a GPU's memory ended for real, recorded with their logs.

Made by `python -m tests.benchmarks gpu --only death`: each was given less memory than it needs at
one moment of its step (`tests/benchmarks/configurations.py`), one shared the card with a process
that held the rest.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from backend.files import write_json
from backend.memory.cards import usable
from backend.memory.explain import Explanation, explain_log, explain_run, explanation_text
from backend.runs import Run
from backend.workspace import Settings, Workspace

DEATHS = Path(__file__).parents[1] / "data" / "deaths"
CAUSES = {
    "loading": ("loading", None, "need", "linear"),
    "vision": ("vision", "mining", "need", None),
    "forward": ("forward", "decoder", "need", "hidden"),
    "loss": ("backward", "logits", "need", "logits"),
    "backward": ("forward", "adapter", "need", "mlp"),
    "optimizer": ("optimizer", "states", "need", "bundle"),
    "kit": ("loss", "logits", "need", "logits"),
    "beside": ("vision", "convnext", "others", None),
}
"""By recording: moment, part, why there was no room, and the tensor that was asked for."""


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("deaths") / "space"
    space = Workspace.create(root, Settings(name="deaths", profile="mgm-2b", kit="kit"))
    for folder in DEATHS.iterdir():
        shutil.copytree(folder, space.runs / folder.name)
    return space


def explained(space: Workspace, name: str) -> Explanation:
    found = explain_run(space, Run(space.runs / name))
    assert found is not None
    assert found.code == "device_memory"
    return found


def test_every_recording_has_its_cause():
    assert {folder.name for folder in DEATHS.iterdir()} == CAUSES.keys()


@pytest.mark.parametrize("name", CAUSES)
def test_the_true_cause_is_named(space: Workspace, name: str):
    found = explained(space, name)
    moment, part, shortage, tensor = CAUSES[name]
    assert (found.place.moment, found.place.part) == (moment, part)
    assert found.shortage == shortage
    assert (found.tensor.code if found.tensor else None) == tensor


@pytest.mark.parametrize("name", CAUSES)
def test_the_log_alone_tells_the_same(space: Workspace, name: str):
    kept, read = explained(space, name), explain_log(DEATHS / name / "output.log")
    assert read is not None
    assert read.code == "device_memory"
    # The log of a launcher's process is cut where the traceback began.
    if name != "kit":
        assert read.place.moment == kept.place.moment
    assert read.allocation is not None and kept.allocation is not None
    assert read.allocation.asked == kept.allocation.asked


@pytest.mark.parametrize("name", CAUSES)
def test_ways_out_fit_into_what_there_was(space: Workspace, name: str):
    found = explained(space, name)
    assert found.allocation is not None and found.allocation.total is not None
    room = found.allocation.limit or usable(found.allocation.total - found.allocation.by_others)
    assert all(way.prediction.peak_reserved <= room for way in found.ways)
    assert bool(found.ways) == (name != "loading")


@pytest.mark.parametrize("name", CAUSES)
def test_what_torch_held_is_what_was_predicted_for_that_moment(space: Workspace, name: str):
    found = explained(space, name)
    assert found.held is not None and found.allocation is not None
    held = found.allocation.allocated or 0
    assert held <= 1.03 * sum(found.held.values())


@pytest.mark.parametrize("name", CAUSES)
def test_what_is_said_to_have_been_held_is_no_more_than_torch_says(space: Workspace, name: str):
    found = explained(space, name)
    assert found.held is not None and found.until_then is not None and found.allocation is not None
    held = found.allocation.allocated or 0
    assert 0.97 * held <= sum(found.until_then.values()) <= held
    assert all(0 <= size <= found.held[part] for part, size in found.until_then.items())


def test_the_kits_recipe_dies_of_its_logits_and_they_are_cut_first(space: Workspace):
    found = explained(space, "kit")
    assert found.held is not None
    assert max(found.held, key=found.held.__getitem__) == "logits"
    assert "loss_chunk" in found.ways[0].levers
    text = explanation_text(found)
    assert "the logits of 4,096 positions" in text
    assert "other process" not in text


def test_a_card_that_somebody_else_filled_is_not_called_too_small(space: Workspace):
    text = explanation_text(explained(space, "beside"))
    assert "2 other process(es) held 72.2 GiB of the card" in text
    assert "needs more than" not in text


def test_gaps_are_no_excuse_for_what_would_never_have_fitted(space: Workspace):
    found = explained(space, "backward")
    assert found.allocation is not None and found.allocation.shortage == "fragmentation"
    assert found.shortage == "need"
    assert "fragmentation, not a true need" not in explanation_text(found)


def test_gaps_are_to_blame_where_the_prediction_says_that_it_fits(space: Workspace):
    run = Run(space.runs / "backward")
    spec = run.spec.model_dump(mode="json")
    spec["parameters"] |= {"micro_batch_size": 4, "tower_chunk": 1, "mlp_chunk": 1024}
    other = shutil.copytree(run.path, space.runs / "gaps")
    try:
        write_json(other / "run.json", spec)
        (other / "artifacts" / "memory.json").unlink()
        assert explained(space, "gaps").shortage == "fragmentation"
    finally:
        shutil.rmtree(other)
