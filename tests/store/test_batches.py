"""From a step to its samples and back."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backend.files import write_json
from backend.runs import Run
from backend.workspace import Workspace
from store.batches import sample_steps, step_samples, training_dataset, worst_samples
from tests.evaluation.samples import make_run
from tests.explored import add_seed, sample_id
from tests.seeds import caption
from tests.seeds import make_workspace as make_seeded


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = make_seeded(tmp_path, 0)
    add_seed(workspace)
    return workspace


def add_batches(run: Run, *rows: tuple[int, str, float | None, int]) -> None:
    names = ("step", "sample_id", "loss", "attempt")
    schema = pa.schema([("step", pa.int64()), ("sample_id", pa.string()),
                        ("loss", pa.float32()), ("attempt", pa.int32())])  # fmt: skip
    folder = run.path / "batches"
    folder.mkdir(exist_ok=True)
    part = folder / f"part-{len(list(folder.iterdir())):05d}.parquet"
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema)
    pq.write_table(table, part)


@pytest.fixture
def trained(workspace: Workspace) -> Run:
    prepared = make_run(workspace, "prepare", "1-prepare", dataset="seed/v1")
    write_json(
        prepared.artifacts / "prepared.json",
        {"dataset": "seed/v1", "image_root": str(workspace.asset("seed_images"))},
    )
    run = make_run(workspace, "pretrain", "2-pretrain", data="1-prepare")
    add_batches(run, (1, sample_id(0), 1.0, 1), (1, sample_id(1), 3.0, 1), (2, "gone", None, 1))
    return run


def test_a_step_shows_its_samples_the_highest_loss_first(workspace: Workspace, trained: Run):
    found = step_samples(workspace, trained, 1)
    assert [(row["sample_id"], row["loss"]) for row in found] == [
        (sample_id(1), 3.0),
        (sample_id(0), 1.0),
    ]
    assert found[0]["text"] == caption(1)
    assert found[0]["dataset"] == training_dataset(workspace, trained) == "seed/v1"


def test_a_sample_that_is_no_longer_there_still_has_its_loss(workspace: Workspace, trained: Run):
    [row] = step_samples(workspace, trained, 2)
    assert (row["sample_id"], row["loss"], row["text"]) == ("gone", None, None)


def test_a_step_done_twice_counts_as_it_was_done_last(workspace: Workspace, trained: Run):
    add_batches(trained, (1, sample_id(4), 0.5, 2))
    assert [row["sample_id"] for row in step_samples(workspace, trained, 1)] == [sample_id(4)]


def test_the_worst_samples_come_once_with_their_worst_step(workspace: Workspace, trained: Run):
    add_batches(trained, (3, sample_id(0), 9.0, 1), (4, sample_id(2), float("nan"), 1))
    found = worst_samples(workspace, trained, 2)
    assert [(row["sample_id"], row["step"]) for row in found] == [
        (sample_id(0), 3),
        (sample_id(1), 1),
    ]
    assert [row["step"] for row in sample_steps(trained, sample_id(0))] == [1, 3]


def test_a_run_without_batches_has_no_samples(workspace: Workspace):
    run = make_run(workspace, "pretrain", "3-pretrain", data="")
    assert step_samples(workspace, run, 1) == []


def test_conversations_are_read_from_their_file(workspace: Workspace):
    record = {"id": "x", "image": "a.png", "conversations": [
        {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]}  # fmt: skip
    (workspace.root / "pairs.json").write_text(json.dumps([record]))
    run = make_run(workspace, "finetune", "4-finetune", data="pairs.json")
    add_batches(run, (1, "x", 1.5, 1))
    [row] = step_samples(workspace, run, 1)
    assert (row["question"], row["text"], row["images"]) == ("Why?", "Because.", ["a.png"])


def test_every_turn_of_a_long_conversation_is_shown(workspace: Workspace):
    said = (("human", "Why?"), ("gpt", "Because."), ("human", "Why?"), ("gpt", "No {}."))
    turns = [{"from": who, "value": words} for who, words in said]
    record = {"id": "x", "image": "a.png", "conversations": turns}
    (workspace.root / "pairs.json").write_text(json.dumps([record]))
    run = make_run(workspace, "finetune", "4-finetune", data="pairs.json")
    add_batches(run, (1, "x", 1.5, 1))
    [row] = step_samples(workspace, run, 1)
    assert row["text"].splitlines() == [f"[[{who}]]: {words}" for who, words in said]
