"""From a training step to the samples it saw, and from a sample to the steps that saw it."""

from __future__ import annotations

import re
from glob import escape
from pathlib import Path
from typing import Any

from backend.errors import SynthLoopError
from backend.files import read_json
from backend.runs import Run
from backend.workspace import Workspace
from store.connection import rows
from store.runs import RunRow, run_rows
from store.samples import samples

_AGAIN = re.compile(r"#\d+$")
_LAST_ATTEMPT = "QUALIFY attempt = max(attempt) OVER (PARTITION BY step)"
_CONVERSATIONS = {
    "sample_id": "VARCHAR",
    "id": "VARCHAR",
    "image": "VARCHAR",
    "conversations": 'STRUCT("from" VARCHAR, "value" VARCHAR)[]',
}


def step_samples(workspace: Workspace, run: Run, step: int) -> list[dict[str, Any]]:
    """The samples of a training step, the highest loss first; of a step done twice the last.

    Returns:
        `sample_id`, `loss` (None when unknown), `attempt`, and as far as the run's data is still
        there `text`, `question`, `images`, `image_root`, `image_sha256`, and `dataset` where the
        sample belongs to a dataset version (else None).
    """
    seen = _rows(run, "step = $step", {"step": step}, "loss DESC NULLS LAST, sample_id")
    return _with_content(workspace, run, seen)


def worst_samples(workspace: Workspace, run: Run, most: int = 24) -> list[dict[str, Any]]:
    """The samples with the highest loss in the run's whole course, as `step_samples` with `step`.

    A sample appears once, with its worst step.
    """
    seen = _rows(run, "isfinite(loss)", {}, "loss DESC, sample_id", 20 * most)
    first: dict[str, dict[str, Any]] = {}
    for row in seen:
        first.setdefault(row["sample_id"], row)
    return _with_content(workspace, run, list(first.values())[:most])


def trained_on(
    workspace: Workspace, reference: str, sample_id: str, most: int = 4
) -> list[tuple[RunRow, list[dict[str, Any]]]]:
    """The runs that were trained on a sample, newest first, each with its `sample_steps`.

    Args:
        workspace: Where the runs are.
        reference: The dataset version that the sample belongs to.
        sample_id: Its id there.
        most: Runs of this version that are looked into.
    """
    fed: list[RunRow] = []
    for row in run_rows(workspace):
        run = Run(workspace.runs / row.id)
        known = row.problem is None and (run.path / "batches").is_dir()
        if known and training_dataset(workspace, run) == reference:
            fed.append(row)
        if len(fed) == most:
            break
    found = [(row, sample_steps(Run(workspace.runs / row.id), sample_id)) for row in fed]
    return [(row, steps) for row, steps in found if steps]


def sample_steps(run: Run, sample_id: str) -> list[dict[str, Any]]:
    """The steps that saw a sample: `step`, `loss`, `attempt`, in order."""
    return _rows(run, "sample_id = $id", {"id": sample_id}, "step")


def _rows(
    run: Run, condition: str, parameters: dict[str, Any], order: str, most: int = 4096
) -> list[dict[str, Any]]:
    parts = sorted(escape(str(path)) for path in (run.path / "batches").glob("part-*.parquet"))
    if not parts:
        return []
    return rows(
        f"SELECT * FROM (SELECT step, sample_id, loss, attempt FROM read_parquet($parts) "  # noqa: S608
        f"{_LAST_ATTEMPT}) WHERE {condition} ORDER BY {order} LIMIT $most",
        {**parameters, "parts": parts, "most": most},
    )


def training_dataset(workspace: Workspace, run: Run) -> str | None:
    """The dataset version that a training run was fed with; None when it is none."""
    prepared = _prepared(workspace, str(run.spec.parameters.get("data") or ""))
    reference = prepared.get("dataset") if prepared else None
    return reference if reference in workspace.dataset_references() else None


def _with_content(
    workspace: Workspace, run: Run, seen: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    if not seen:
        return []
    try:
        content = _content(workspace, run, [row["sample_id"] for row in seen])
    except SynthLoopError:
        # The data may be gone; what the run itself wrote down is still true.
        content = {}
    empty = dict.fromkeys(("text", "question", "images", "image_root", "image_sha256", "dataset"))
    return [{**empty, **content.get(row["sample_id"], {}), **row} for row in seen]


def _content(workspace: Workspace, run: Run, ids: list[str]) -> dict[str, dict[str, Any]]:
    data = str(run.spec.parameters.get("data") or "")
    prepared = _prepared(workspace, data)
    reference = training_dataset(workspace, run)
    if prepared and reference:
        found = samples(workspace, reference, ids)
        own = {"dataset": reference, "image_root": prepared["image_root"]}
        names = ("sample_id", "text", "question", "images", "image_sha256")
        return {row["sample_id"]: {**{n: row[n] for n in names}, **own} for row in found}
    pairs = workspace.root / data if data else workspace.asset("finetune_pairs")
    root = str(run.spec.parameters.get("image_root") or workspace.asset("finetune_images"))
    return _conversations(pairs, root, ids)


def _prepared(workspace: Workspace, data: str) -> dict[str, Any] | None:
    if not data or "/" in data or data.startswith("."):
        return None
    path = workspace.runs / data / "artifacts" / "prepared.json"
    return read_json(path) if path.is_file() else None


def _conversations(pairs: Path, image_root: str, ids: list[str]) -> dict[str, dict[str, Any]]:
    """Records of a LLaVA file: the first turn as question, the second as text.

    Of longer dialogues the text is every turn, each behind its role tag. An id that comes again
    is numbered as `read_samples` does.
    """
    if not pairs.is_file():
        return {}
    names = [*ids, *(_AGAIN.sub("", name) for name in ids)]
    found = rows(
        "WITH records AS (SELECT coalesce(sample_id, id) AS name, row_number() OVER () AS place, "
        "image, conversations FROM read_json($path, format='array', columns=$columns, "
        "maximum_object_size=67108864)), "
        "again AS (SELECT *, row_number() OVER (PARTITION BY name ORDER BY place) AS times "
        "FROM records WHERE list_contains($names, name)), "
        "named AS (SELECT *, if(times > 1, name || '#' || times, name) AS sample_id FROM again) "
        "SELECT sample_id, image, conversations[1].value AS question, "
        "CASE WHEN len(conversations) <= 2 THEN conversations[2].value ELSE array_to_string("
        "[format('[[{}]]: {}', turn['from'], turn.value) FOR turn IN conversations], chr(10)) END "
        "AS text FROM named WHERE list_contains($ids, sample_id)",
        {"path": escape(str(pairs)), "columns": _CONVERSATIONS, "ids": ids, "names": names},
    )
    return {
        row["sample_id"]: {
            "text": row["text"],
            "question": row["question"],
            "images": [row["image"]] if row["image"] else [],
            "image_root": image_root,
        }
        for row in found
    }
