"""Running recipes over small seeds, and reading what came of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from backend.files import read_json
from backend.runs import Run
from backend.synthesis.datasets import read
from backend.workspace import Workspace
from tests.juicer import Juicer


def write_recipe(workspace: Workspace, text: str, name: str = "test") -> Path:
    path = workspace.recipes / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def synthesize(juicer: Juicer, workspace: Workspace, recipe: str, **parameters: Any) -> Run:
    """A finished run of a recipe that is given by its text."""
    write_recipe(workspace, recipe)
    return juicer.run(workspace, "synthesize", recipe="test", **parameters)


def made(run: Run) -> str:
    """The reference of the version that a run wrote."""
    return str(read_json(run.artifacts / "dataset.json")["dataset"])


def samples(workspace: Workspace, run: Run) -> dict[str, dict[str, Any]]:
    """The version's rows by id."""
    return {row["sample_id"]: row for row in read(workspace, made(run)).to_pylist()}


def lineage(workspace: Workspace, run: Run) -> dict[str, list[tuple[Any, ...]]]:
    """By sample id and in order: operator, action, before, after, reason."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    table = pq.read_table(workspace.dataset(made(run)) / "lineage.parquet")
    for row in table.to_pylist():
        values = tuple(row[name] for name in ("operator", "action", "before", "after", "reason"))
        found.setdefault(row["sample_id"], []).append(values)
    return found


def funnel(run: Run) -> list[dict[str, Any]]:
    return list(read_json(run.artifacts / "funnel.json"))
