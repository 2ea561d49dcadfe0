"""Check a dataset version against the kit's rules and its parent, before it is trained on."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from backend.files import write_json
from backend.formats.convert import read_originals
from backend.formats.images import ImageFacts, ImageInspector, inspect_image
from backend.stages.base import Problem, StageContext, StageParameters, parameter, stage_main
from backend.synthesis.datasets import DatasetInfo, describe, read
from backend.synthesis.importing import ensure_dataset
from backend.synthesis.preflight import dataset_problems
from backend.workspace import Workspace

_CHUNK = 512
_COLUMNS = [
    "sample_id",
    "source_id",
    "origin",
    "images",
    "text",
    "question",
    "image_sha256",
]
_SCORED = 2000
"""Samples of each version whose agreement is measured; enough for a median."""


class Parameters(StageParameters):
    """Which data, and how much of it may be trained on."""

    dataset: str = parameter("seed/v1", fold="data", kind="dataset")
    sample_cap: int = parameter(200_000, fold="data", ge=1)
    seed: int = parameter(1024, fold="data", ge=0)


def preflight(workspace: Workspace, parameters: Parameters) -> list[Problem]:
    """The dataset version must exist."""
    return dataset_problems(workspace, parameters.dataset)


def main(context: StageContext, parameters: Parameters) -> None:
    """Write `verification.json`, a list of checks."""
    from backend.synthesis import verification as checks

    workspace = context.workspace
    reference = ensure_dataset(workspace, parameters.dataset)
    info = describe(workspace, reference)
    rows = read(workspace, reference, _COLUMNS, kept_only=True).to_pylist()
    facts = _image_facts(context, rows, Path(info.image_root))
    found = [
        checks.one_image(rows),
        checks.readable_images(rows, facts),
        checks.row_form(rows),
        checks.within_cap(rows, parameters.sample_cap),
        checks.repeated_pairs(rows),
    ]
    originals = workspace.asset("seed_originals")
    if originals.is_file():
        known = read_originals(originals)
        found += [checks.known_ids(rows, known), checks.original_questions(rows, known)]
    if info.parent is not None:
        found.append(checks.synthesized_samples(rows))
        found.append(
            checks.agreement_against_parent(
                _agreement(workspace, info, parameters.seed),
                _agreement(workspace, describe(workspace, info.parent), parameters.seed),
            )
        )
    write_json(context.artifacts / "verification.json", [check.record() for check in found])
    failed = [check.name for check in found if check.state == "failed"]
    if failed:
        context.event("warning", "verification_failed", dataset=reference, checks=len(failed))
    else:
        context.event("info", "verified", dataset=reference, checks=len(found))


def _image_facts(
    context: StageContext, rows: list[dict[str, Any]], image_root: Path
) -> list[ImageFacts]:
    facts: list[ImageFacts] = []
    with ImageInspector(image_root) as inspector:
        for start in range(0, len(rows), _CHUNK):
            context.check_stop()
            facts += inspector.facts([row["images"][0] for row in rows[start : start + _CHUNK]])
            context.progress(len(facts), len(rows), "samples")
    return facts


def _agreement(workspace: Workspace, info: DatasetInfo, seed: int) -> list[float]:
    """Agreement of some of a version's pairs; empty without a CLIP tower."""
    tower = workspace.asset("vision_tower")
    if not tower.is_dir():
        return []
    from backend.synthesis.agreement import agreement_model

    rows = read(workspace, info.reference, ["images", "text"], kept_only=True).to_pylist()
    chosen = random.Random(seed).sample(rows, min(len(rows), _SCORED))
    root = Path(info.image_root)
    readable = [
        (str(root / row["images"][0]), row["text"])
        for row in chosen
        if inspect_image(root, row["images"][0]).problem is None
    ]
    if not readable:
        return []
    paths, captions = zip(*readable, strict=True)
    return [float(score) for score in agreement_model(str(tower)).scores(paths, captions)]


if __name__ == "__main__":
    stage_main(Parameters, main)
