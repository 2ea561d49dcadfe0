"""Turn a dataset version into training data: the kit's subset, every row and image checked.

A malformed row refuses the whole, because it means that the data is not what it should be. An
image that is missing or unreadable rejects its sample; too many of those refuse the whole as well.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from backend.errors import InputError
from backend.files import write_json, write_stream
from backend.formats.convert import (
    caption_record,
    checked_caption,
    dialogue_to_conversation,
    is_dialogue,
)
from backend.formats.data_juicer import LLAVA_IMAGE_TOKEN, Pair, caption_text
from backend.formats.images import ImageFacts, ImageInspector
from backend.formats.llava import write_conversations
from backend.stages.base import Problem, StageContext, StageParameters, parameter, stage_main
from backend.synthesis.datasets import describe, read
from backend.synthesis.importing import ensure_dataset
from backend.synthesis.preflight import dataset_problems
from backend.workspace import Workspace

CHUNK = 512
_COLUMNS = ["sample_id", "source_id", "images", "text", "question"]


class Parameters(StageParameters):
    """What to prepare and how strictly."""

    dataset: str = parameter("seed/v1", fold="data", kind="dataset")
    sample_cap: int = parameter(200_000, fold="data", ge=1)
    seed: int = parameter(1024, fold="data", ge=0)
    restore_questions: bool = parameter(True, fold="data")
    rejected_limit_percent: float = parameter(5.0, fold="data", ge=0, le=100)


def preflight(workspace: Workspace, parameters: Parameters) -> list[Problem]:
    """The dataset version must exist, or be the seed whose files are there."""
    return dataset_problems(workspace, parameters.dataset)


def main(context: StageContext, parameters: Parameters) -> None:
    """Write `train.json`, `prepared.json` and `rejected.jsonl`."""
    workspace = context.workspace
    reference = ensure_dataset(
        workspace, parameters.dataset, lambda done, total: context.progress(done, total, "samples")
    )
    image_root = Path(describe(workspace, reference).image_root)
    rows = read(workspace, reference, _COLUMNS, kept_only=True).to_pylist()
    chosen = kit_subset(rows, parameters.sample_cap, parameters.seed)
    place = str(workspace.dataset(reference) / "samples.parquet")

    records, rejected = [], []
    with ImageInspector(image_root) as inspector:
        for start in range(0, len(chosen), CHUNK):
            context.check_stop()
            chunk = chosen[start : start + CHUNK]
            facts = inspector.facts([row["images"][0] for row in chunk])
            for row, fact in zip(chunk, facts, strict=True):
                record = training_record(row, place, restore=parameters.restore_questions)
                if fact.problem is None:
                    records.append(record)
                else:
                    rejected.append(_rejection(row, fact, image_root))
            context.progress(start + len(chunk), len(chosen), "samples")

    _refuse_too_many(rejected, len(chosen), parameters.rejected_limit_percent)
    _write(context, reference, image_root, records, rejected, len(rows))


def kit_subset(rows: list[Any], cap: int, seed: int) -> list[Any]:
    """All rows, or `cap` of them as the kit draws them: in drawn order, from this seed."""
    return random.Random(seed).sample(rows, cap) if len(rows) > cap else rows


def training_record(row: dict[str, Any], place: str, *, restore: bool) -> dict[str, Any]:
    """The LLaVA record of a sample, checked.

    Args:
        row: A row of `samples.parquet`.
        place: The file it is from.
        restore: Answer the original question with the caption; else take the text's own dialogue.

    Raises:
        InputError: The row does not have that form; names the sample and the field.
    """
    where = f"{place}, sample {row['sample_id']}"
    images = tuple(row["images"])
    if len(set(images)) != 1:
        raise InputError(
            f"{len(set(images))} different images; a sample has one.", place=f"{where}, images"
        )
    if restore == is_dialogue(row["text"]):
        form = "a dialogue with role tags" if restore else "a caption"
        raise InputError(
            f"the text is {form}.",
            place=f"{where}, field text",
            remedy=f"Prepare it with restore_questions={str(not restore).lower()}.",
        )
    if not restore:
        conversation = dialogue_to_conversation(Pair(row["source_id"], row["text"], images, where))
        return {**conversation.record(), "sample_id": row["sample_id"]}
    if LLAVA_IMAGE_TOKEN not in (row["question"] or ""):
        raise InputError(
            "the question has no image token.",
            place=f"{where}, field question",
            remedy=f"Its original must begin with {LLAVA_IMAGE_TOKEN} and a line break.",
        )
    caption = checked_caption(
        Pair(row["source_id"], caption_text(row["text"]), images, where),
    )
    return caption_record(
        row["source_id"], row["question"], caption, images[0], sample_id=row["sample_id"]
    )


def _rejection(row: dict[str, Any], facts: ImageFacts, image_root: Path) -> dict[str, Any]:
    image = row["images"][0]
    return {
        "sample_id": row["sample_id"],
        "place": str(image_root / image),
        "code": facts.problem,
        "values": {"image": image, "detail": facts.detail},
    }


def _refuse_too_many(rejected: list[dict[str, Any]], total: int, limit: float) -> None:
    if not total:
        raise InputError(
            "the dataset version has no kept samples.", remedy="Loosen the recipe's thresholds."
        )
    share = 100 * len(rejected) / total
    if share > limit or len(rejected) == total:
        first = rejected[0]
        raise InputError(
            f"{len(rejected)} of {total} images ({share:.3g} %) are missing or unreadable, "
            f"more than the {limit:g} % allowed; the first: {first['values']['detail']}.",
            place=first["place"],
            remedy="Fetch the images again, filter them out with a recipe, or raise "
            "rejected_limit_percent.",
        )


def _write(
    context: StageContext,
    reference: str,
    image_root: Path,
    records: list[dict[str, Any]],
    rejected: list[dict[str, Any]],
    available: int,
) -> None:
    train = context.artifacts / "train.json"
    write_conversations(train, records)
    write_stream(context.artifacts / "rejected.jsonl", _lines(rejected))
    with train.open("rb") as file:
        content_hash = hashlib.file_digest(file, "sha256").hexdigest()
    prepared = {
        "dataset": reference,
        "image_root": str(image_root),
        "available": available,
        "samples": len(records),
        "rejected": len(rejected),
        "content_hash": content_hash,
        "purpose": "pretrain",
    }
    write_json(context.artifacts / "prepared.json", prepared)
    level: Literal["info", "warning"] = "warning" if rejected else "info"
    context.event(level, "prepared", samples=len(records), rejected=len(rejected))


def _lines(values: list[dict[str, Any]]) -> Iterator[str]:
    return (json.dumps(value, ensure_ascii=False) + "\n" for value in values)


if __name__ == "__main__":
    stage_main(Parameters, main)
