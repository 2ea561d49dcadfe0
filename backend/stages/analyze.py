"""Say what a dataset version is like: words, sizes, sharpness, agreement, duplicates, vagueness."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from backend.files import write_json
from backend.stages.base import Problem, StageContext, StageParameters, parameter, stage_main
from backend.synthesis.catalogue import ensure_catalogue
from backend.synthesis.datasets import describe, read
from backend.synthesis.importing import ensure_dataset
from backend.synthesis.preflight import dataset_problems
from backend.workspace import Workspace

_CHUNK = 256


class Parameters(StageParameters):
    """Which data."""

    dataset: str = parameter("seed/v1", fold="data", kind="dataset")
    agreement: bool = parameter(True, fold="data")


def preflight(workspace: Workspace, parameters: Parameters) -> list[Problem]:
    """The dataset version must exist; without a CLIP tower the agreement stays unknown."""
    problems = dataset_problems(workspace, parameters.dataset)
    tower = workspace.asset("vision_tower")
    if parameters.agreement and not tower.is_dir():
        values = {"asset": "vision_tower", "path": str(tower)}
        problems.append(Problem("warning", "agreement_unknown", values, str(tower)))
    return problems


def main(context: StageContext, parameters: Parameters) -> None:
    """Write `statistics.parquet` and `summary.json`."""
    workspace = context.workspace
    reference = ensure_dataset(
        workspace, parameters.dataset, lambda done, total: context.progress(done, total, "samples")
    )
    # The page that offers operators beside these figures needs their catalogue.
    ensure_catalogue(workspace)
    info = describe(workspace, reference)
    rows = read(workspace, reference, ["sample_id", "images", "text"], kept_only=True).to_pylist()
    tower = workspace.asset("vision_tower")
    scoring = parameters.agreement and tower.is_dir()
    table = _table(context, rows, Path(info.image_root), tower if scoring else None)
    pq.write_table(table, context.artifacts / "statistics.parquet", compression="zstd")

    from backend.synthesis.statistics import summarize

    summary = {"dataset": reference, "content_hash": info.content_hash, **summarize(table)}
    write_json(context.artifacts / "summary.json", summary)
    context.event("info", "analyzed", dataset=reference, samples=len(rows))


def _table(
    context: StageContext, rows: list[dict[str, Any]], image_root: Path, tower: Path | None
) -> pa.Table:
    from backend.synthesis.statistics import Picture, look_at_all, statistics_table

    images = [row["images"][0] for row in rows]
    captions = [row["text"] for row in rows]
    pictures: list[Picture] = []
    agreement: list[float | None] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(rows), _CHUNK):
            context.check_stop()
            part = slice(start, start + _CHUNK)
            found = look_at_all(image_root, images[part], pool)
            pictures += found
            paths = [
                None if picture.problem else str(image_root / image)
                for picture, image in zip(found, images[part], strict=True)
            ]
            agreement += _agreement(tower, paths, captions[part])
            context.progress(len(pictures), len(rows), "samples")
    return statistics_table([row["sample_id"] for row in rows], captions, pictures, agreement)


def _agreement(
    tower: Path | None, paths: list[str | None], captions: list[str]
) -> list[float | None]:
    """The score of each readable image; None for the others, and without a tower."""
    known = [(path, text) for path, text in zip(paths, captions, strict=True) if path]
    if tower is None or not known:
        return [None] * len(paths)
    from backend.synthesis.agreement import agreement_model

    images, texts = zip(*known, strict=True)
    scores = iter(agreement_model(str(tower)).scores(images, texts))
    return [float(next(scores)) if path else None for path in paths]


if __name__ == "__main__":
    stage_main(Parameters, main)
