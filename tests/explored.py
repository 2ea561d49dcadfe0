"""A workspace worth exploring: a seed, a version made from it, and evaluations of both."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa

from backend.synthesis.datasets import (
    LINEAGE_SCHEMA,
    OperatorRecord,
    count_words,
    samples_schema,
    write_dataset,
)
from backend.workspace import Workspace
from tests.seeds import QUESTION, caption, picture, write_seed

COUNT = 12
SHORT, REWRITTEN, CREATED_FROM = 3, 5, 7
"""Numbers of the samples that the recipe drops for their length, rewrites, and adds to."""
BASELINE, CANDIDATE = "20261124-000000-evaluate-base", "20261124-000000-evaluate-better"
RECIPE = "process:\n  - words_num_filter:\n      min_num: 3\n  - whitespace_normalization_mapper:\n"


def sample_id(number: int) -> str:
    return f"{number:09d}"


def _hash(workspace: Workspace, image: str) -> str:
    path = workspace.asset("seed_images") / image
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sample(workspace: Workspace, number: int, **changes: Any) -> dict[str, Any]:
    """The row of a seed sample, with changes."""
    image = f"images/{sample_id(number)}.png"
    text = changes.get("text", caption(number))
    size = picture(number).width
    return {
        "sample_id": sample_id(number),
        "source_id": sample_id(number),
        "origin": "seed",
        "operator": None,
        "images": [image],
        "text": text,
        "question": QUESTION,
        "kept": True,
        "width": size,
        "height": size,
        "n_words": count_words(text),
        "image_sha256": _hash(workspace, image),
        **changes,
    }


def add_seed(workspace: Workspace, count: int = COUNT) -> str:
    """The seed assets and the version `seed/v1`."""
    write_seed(workspace.asset("seed_images"), count)
    rows = [sample(workspace, number) for number in range(count)]
    return write_dataset(
        workspace,
        "seed",
        [pa.Table.from_pylist(rows, samples_schema())],
        image_root=workspace.asset("seed_images"),
        source="mgm_pretrain_stage_1.jsonl",
        source_hash="0" * 64,
    )


def add_clean(workspace: Workspace, count: int = COUNT, run_id: str | None = None) -> str:
    """The version `clean/v1`: one sample dropped, one rewritten, one created."""
    rows, events = [], []

    def event(number: int | str, step: int, action: str, **values: Any) -> None:
        own = number if isinstance(number, str) else sample_id(number)
        operator = ("words_num_filter", "whitespace_normalization_mapper")[step - 1]
        events.append({"sample_id": own, "step": step, "operator": operator,
                       "action": action, **values})  # fmt: skip

    for number in range(count):
        before = "a  circle" if number == SHORT else caption(number)
        words = float(count_words(before))
        row = sample(workspace, number, text=before, stat_num_words=words, stat_sharp=9.0 + number)
        if number == SHORT:
            row |= {"kept": False, "dropped_by": "words_num_filter"}
            event(number, 1, "dropped", before=before, reason="num_words 2 < 3")
        else:
            event(number, 1, "kept", reason=f"num_words {words:g} >= 3")
        if number == REWRITTEN:
            row |= {"text": before + " on white", "operator": "whitespace_normalization_mapper",
                    "origin": "synthesized"}  # fmt: skip
            event(number, 2, "rewritten", before=before, after=row["text"])
        rows.append(row)
    made = sample(workspace, CREATED_FROM, sample_id=f"{sample_id(CREATED_FROM)}~2",
                  origin="synthesized", operator="whitespace_normalization_mapper",
                  text="a tiny square and a line", stat_num_words=6.0)  # fmt: skip
    event(made["sample_id"], 2, "created", after=made["text"],
          reason=f"from {sample_id(CREATED_FROM)}")  # fmt: skip
    return write_dataset(
        workspace,
        "clean",
        [pa.Table.from_pylist([*rows, made], samples_schema(["num_words", "sharp"]))],
        image_root=workspace.asset("seed_images"),
        source="seed/v1",
        source_hash="0" * 64,
        lineage=[pa.Table.from_pylist(events, LINEAGE_SCHEMA)],
        recipe=RECIPE,
        parent="seed/v1",
        run_id=run_id,
        operators=[
            OperatorRecord(name="words_num_filter", before=count, after=count - 1, seconds=0.5),
            OperatorRecord(
                name="whitespace_normalization_mapper", before=count - 1, after=count, seconds=0.2
            ),
        ],
    )


def explored(root: Path) -> Workspace:
    """Benchmarks, `seed/v1`, `clean/v1` and the evaluations of a baseline and of a better run."""
    from tests.evaluation.samples import make_benchmarks, make_evaluated, make_workspace

    workspace = make_workspace(root / "workspace", make_benchmarks(root / "benchmarks"))
    evaluate_both(workspace, make_evaluated)
    add_seed(workspace)
    add_clean(workspace)
    return workspace


def evaluate_both(workspace: Workspace, make_evaluated: Any) -> None:
    """A baseline that knows half the answers and a candidate that knows them all."""

    def right(task: Any) -> str:
        return str(task.record.answer)

    colors = ("red", "blue", "green")
    losses = [3.0 - 0.2 * step for step in range(10)]
    make_evaluated(workspace, "base", lambda task: "red", lambda task: "A", losses=losses)
    make_evaluated(
        workspace,
        "better",
        lambda task: colors[int(task.record.question_id, 16) % 3],
        right,
        losses=[loss - 0.3 for loss in losses],
    )
