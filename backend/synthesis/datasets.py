"""Dataset versions: immutable folders of samples, their lineage and what made them."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from backend.errors import InputError, UsageError
from backend.files import confine, read_json, write_json
from backend.workspace import Workspace

STAT_PREFIX = "stat_"
ROWS_PER_GROUP = 16_384
BASE_FIELDS: tuple[tuple[str, pa.DataType], ...] = (
    ("sample_id", pa.string()),
    ("source_id", pa.string()),
    ("origin", pa.string()),
    ("operator", pa.string()),
    ("images", pa.list_(pa.string())),
    ("text", pa.string()),
    ("question", pa.string()),
    ("answer", pa.string()),
    ("kept", pa.bool_()),
    ("dropped_by", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("n_words", pa.int32()),
    ("image_sha256", pa.string()),
    ("image_problem", pa.string()),
)
"""Columns of every `samples.parquet`; one float column `stat_<name>` per statistic follows.

`text` is the caption (a dialogue with role tags where the source has one), `question` the original
question with its image token, word for word (of a dialogue the first), `answer` the caption or all
answers of a dialogue, by lines, and `n_words` counts the answer's words. `image_problem` says why
width and height are null.
"""
LINEAGE_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("step", pa.int32()),
        ("operator", pa.string()),
        ("action", pa.string()),
        ("before", pa.string()),
        ("after", pa.string()),
        ("reason", pa.string()),
    ]
)
"""`action` is kept, dropped, rewritten or created; `step` counts operators from 1."""


class Counts(BaseModel):
    """How many samples a version has."""

    samples: int
    """All, dropped ones included."""
    kept: int
    dropped: int
    synthesized: int
    """Kept samples whose caption or image was made by an operator."""


class OperatorRecord(BaseModel):
    """What one operator did."""

    name: str
    before: int
    after: int
    seconds: float


class DatasetInfo(BaseModel):
    """`dataset.json`."""

    model_config = ConfigDict(extra="forbid")

    name: str
    version: str
    source: str
    """The file or dataset version that the samples came from."""
    source_hash: str
    """SHA-256 of that file, or the content hash of that version."""
    recipe: str | None
    """The recipe as it was run (YAML)."""
    parent: str | None
    """The dataset version it was made from."""
    created_at: float
    run_id: str | None
    image_root: str
    """Absolute folder that image paths are relative to."""
    counts: Counts
    operators: list[OperatorRecord]
    content_hash: str
    """SHA-256 over what a model would be trained on: the kept samples, in order."""
    format: Literal["pretrain"]

    @property
    def reference(self) -> str:
        """`<name>/<version>`."""
        return f"{self.name}/{self.version}"


def describe(workspace: Workspace, reference: str) -> DatasetInfo:
    """What `dataset.json` says.

    Raises:
        UsageError: There is no such version.
    """
    return DatasetInfo.model_validate(read_json(workspace.dataset(reference) / "dataset.json"))


def read(
    workspace: Workspace,
    reference: str,
    columns: list[str] | None = None,
    *,
    kept_only: bool = False,
) -> pa.Table:
    """The samples of a version, in order.

    Args:
        workspace: Where the datasets lie.
        reference: `<name>/<version>`.
        columns: The columns wanted; None is all.
        kept_only: Leave dropped samples out.

    Raises:
        UsageError: There is no such version.
    """
    path = workspace.dataset(reference) / "samples.parquet"
    filters = [("kept", "==", True)] if kept_only else None
    return pq.read_table(path, columns=columns, filters=filters)


def samples_schema(statistics: Iterable[str] = ()) -> pa.Schema:
    """Schema of `samples.parquet` with these statistics (names without prefix)."""
    extra = [(f"{STAT_PREFIX}{name}", pa.float64()) for name in statistics]
    return pa.schema([*BASE_FIELDS, *extra])


def count_words(caption: str) -> int:
    """Words as the challenge counts them: split at blanks."""
    return len(caption.split())


def write_dataset(
    workspace: Workspace,
    name: str,
    samples: Iterable[pa.Table],
    *,
    image_root: Path,
    own_images: Path | None = None,
    source: str,
    source_hash: str,
    lineage: Iterable[pa.Table] = (),
    recipe: str | None = None,
    parent: str | None = None,
    run_id: str | None = None,
    operators: Iterable[OperatorRecord] = (),
) -> str:
    """Write a new version of the dataset `name`; nothing shows before all of it is there.

    Args:
        workspace: Where the datasets lie.
        name: The dataset; its next free version is taken.
        samples: Tables in one `samples_schema`, streamed to row groups.
        image_root: Folder that image paths are relative to.
        own_images: Folder that becomes the version's own image folder instead.
        source: The file or version that the samples came from.
        source_hash: That source's hash.
        lineage: Tables in `LINEAGE_SCHEMA`.
        recipe: The recipe as it was run.
        parent: The version it was made from.
        run_id: The run that made it.
        operators: What each operator did.

    Returns:
        The reference, `<name>/<version>`.

    Raises:
        UsageError: The name is no folder's name.
        InputError: A sample id comes twice.
    """
    check_name(name)
    folder = confine(workspace.datasets, name)
    scratch = workspace.root / ".cache" / "datasets" / secrets.token_hex(8)
    scratch.mkdir(parents=True)
    try:
        counts, content_hash = _write_samples(scratch / "samples.parquet", samples)
        _write_tables(scratch / "lineage.parquet", LINEAGE_SCHEMA, lineage)
        if own_images is not None:
            shutil.move(own_images, scratch / "images")
        info = DatasetInfo(
            name=name,
            version="",
            source=source,
            source_hash=source_hash,
            recipe=recipe,
            parent=parent,
            created_at=time.time(),
            run_id=run_id,
            image_root="" if own_images else str(image_root.resolve()),
            counts=counts,
            operators=list(operators),
            content_hash=content_hash,
            format="pretrain",
        )
        folder.mkdir(parents=True, exist_ok=True)
        return _publish(scratch, folder, info)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def check_name(name: str) -> None:
    """Refuse a dataset name that could not be one folder below `datasets/`.

    Raises:
        UsageError: It is empty or holds anything but letters, digits, `-`, `_` and `.`.
    """
    allowed = all(character.isalnum() or character in "-_." for character in name)
    if not name or not allowed or name.startswith("."):
        raise UsageError(
            "a dataset's name is made of letters, digits, '-', '_' and '.'.",
            place=name or "(empty)",
            remedy="Choose another name.",
        )


def _publish(scratch: Path, folder: Path, info: DatasetInfo) -> str:
    """Give the finished folder the next version; two writers never get the same one."""
    number = 1 + max((int(path.name[1:]) for path in folder.glob("v[0-9]*")), default=0)
    while True:
        info.version = f"v{number}"
        root = info.image_root or str(folder / info.version / "images")
        values = info.model_dump(mode="json") | {"image_root": root}
        write_json(scratch / "dataset.json", values)
        try:
            scratch.rename(folder / info.version)
        except OSError:
            if not (folder / info.version).exists():
                raise
            number += 1
        else:
            return info.reference


def _write_samples(path: Path, tables: Iterable[pa.Table]) -> tuple[Counts, str]:
    digest = hashlib.sha256()
    seen: set[str] = set()
    counts = Counts(samples=0, kept=0, dropped=0, synthesized=0)

    def watched() -> Iterator[pa.Table]:
        for table in tables:
            for row in table.select([name for name, _ in BASE_FIELDS]).to_pylist():
                _count(row, counts, seen, digest)
            yield table

    _write_tables(path, samples_schema(), watched())
    counts.dropped = counts.samples - counts.kept
    return counts, digest.hexdigest()


def _count(row: dict[str, Any], counts: Counts, seen: set[str], digest: Any) -> None:
    if row["sample_id"] in seen:
        raise InputError("the sample id comes twice.", place=row["sample_id"])
    seen.add(row["sample_id"])
    counts.samples += 1
    if row["kept"]:
        counts.kept += 1
        counts.synthesized += row["origin"] == "synthesized"
        keys = ("sample_id", "source_id", "images", "image_sha256", "question", "answer", "text")
        line = json.dumps([row[key] for key in keys], ensure_ascii=False)
        digest.update(line.encode() + b"\n")


def _write_tables(path: Path, default: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write tables of one schema; without any, an empty file of the default schema."""
    pending = iter(tables)
    first = next(pending, default.empty_table())
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        writer.write_table(first, ROWS_PER_GROUP)
        for table in pending:
            writer.write_table(table, ROWS_PER_GROUP)
