"""Dataset versions as rows, and the table of the versions that are open."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from glob import escape
from hashlib import sha256
from pathlib import Path
from typing import Any

from backend.errors import InputError, SynthLoopError
from backend.files import read_json
from backend.workspace import Workspace
from store.connection import Fingerprint, cursor, fingerprint, identifier, rows, value

STATISTIC_PREFIX = "stat_"
_OPEN_AT_ONCE = 2
_COLUMNS: dict[str, str] = {
    "sample_id": "VARCHAR",
    "source_id": "VARCHAR",
    "origin": "VARCHAR",
    "operator": "VARCHAR",
    "images": "VARCHAR[]",
    "text": "VARCHAR",
    "question": "VARCHAR",
    "kept": "BOOLEAN",
    "dropped_by": "VARCHAR",
    "width": "INTEGER",
    "height": "INTEGER",
    "n_words": "INTEGER",
    "image_sha256": "VARCHAR",
    "image_problem": "VARCHAR",
}
"""What a version's table always has; one that its file lacks is null."""


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A dataset version as `dataset.json` tells it."""

    reference: str
    """`<name>/<version>`."""
    name: str = ""
    version: str = ""
    created_at: float | None = None
    parent: str | None = None
    source: str | None = None
    recipe: str | None = None
    """The recipe as it was run (YAML)."""
    run_id: str | None = None
    image_root: Path | None = None
    samples: int | None = None
    kept: int | None = None
    dropped: int | None = None
    synthesized: int | None = None
    operators: list[dict[str, Any]] = field(default_factory=list)
    """name, before, after, seconds."""
    content_hash: str | None = None
    problem: str | None = None
    """Why `dataset.json` cannot be read."""


@dataclass(frozen=True, slots=True)
class OpenDataset:
    """A version whose samples are in a table of this process."""

    table: str
    """Its name, quoted for SQL; it has `position` (from 0, the file's order) and `columns`."""
    columns: tuple[str, ...]
    statistics: tuple[str, ...]
    """Those of the columns that are statistics, with prefix."""
    rows: int


def dataset_rows(workspace: Workspace) -> list[DatasetRow]:
    """Every dataset version, the newest first."""
    found = [dataset_row(workspace, name) for name in workspace.dataset_references()]
    return sorted(found, key=lambda row: (row.created_at or 0, row.reference), reverse=True)


def dataset_row(workspace: Workspace, reference: str) -> DatasetRow:
    """One version; one that cannot be read says so in `problem`.

    Raises:
        UsageError: There is no such version.
    """
    path = workspace.dataset(reference) / "dataset.json"
    source = fingerprint(path)
    try:
        if source is None:
            raise InputError("the file does not exist.", place=str(path))
        return _dataset_row(source, reference)
    except (SynthLoopError, KeyError, TypeError, ValueError) as error:
        return DatasetRow(reference, problem=f"{type(error).__name__}: {error}")


@lru_cache(maxsize=1024)
def _dataset_row(source: Fingerprint, reference: str) -> DatasetRow:
    info = read_json(source.file)
    counts = info["counts"]
    return DatasetRow(
        reference=reference,
        name=info["name"],
        version=info["version"],
        created_at=info["created_at"],
        parent=info["parent"],
        source=info["source"],
        recipe=info["recipe"],
        run_id=info["run_id"],
        image_root=Path(info["image_root"]),
        samples=counts["samples"],
        kept=counts["kept"],
        dropped=counts["dropped"],
        synthesized=counts["synthesized"],
        operators=list(info["operators"]),
        content_hash=info["content_hash"],
    )


def seed_of(workspace: Workspace, reference: str) -> str | None:
    """The version that this one goes back to through its parents; None when it is that itself."""
    known, current = {reference}, reference
    while (parent := dataset_row(workspace, current).parent) and parent not in known:
        if parent not in workspace.dataset_references():
            break
        known.add(parent)
        current = parent
    return None if current == reference else current


def open_dataset(workspace: Workspace, reference: str) -> OpenDataset:
    """The version's samples as an in-memory table, loaded on first use.

    Raises:
        UsageError: There is no such version.
        InputError: `samples.parquet` is missing or malformed.
    """
    path = workspace.dataset(reference) / "samples.parquet"
    source = fingerprint(path)
    if source is None:
        raise InputError("the file does not exist.", place=str(path))
    return _TABLES.get(source)


class _Tables:
    """The tables of the versions used last; older ones are dropped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[Fingerprint, OpenDataset] = OrderedDict()

    def get(self, source: Fingerprint) -> OpenDataset:
        with self._lock:
            if source not in self._open:
                self._open[source] = _load(source)
            self._open.move_to_end(source)
            while len(self._open) > _OPEN_AT_ONCE:
                _, oldest = self._open.popitem(last=False)
                cursor().execute(f"DROP TABLE IF EXISTS {oldest.table}")
            return self._open[source]


_TABLES = _Tables()


def _load(source: Fingerprint) -> OpenDataset:
    import duckdb

    try:
        there = {
            row["column_name"]
            for row in rows(
                "SELECT column_name FROM (DESCRIBE FROM read_parquet(?))", [escape(source.path)]
            )
        }
        statistics = tuple(sorted(name for name in there if name.startswith(STATISTIC_PREFIX)))
        wanted = [
            identifier(name) if name in there else f"CAST(NULL AS {kind}) AS {identifier(name)}"
            for name, kind in _COLUMNS.items()
        ]
        wanted += [f"CAST({identifier(n)} AS DOUBLE) AS {identifier(n)}" for n in statistics]
        name = identifier("samples_" + sha256(repr(source).encode()).hexdigest()[:16])
        cursor().execute(
            f"CREATE OR REPLACE TABLE {name} AS SELECT file_row_number AS position, "  # noqa: S608
            f"{', '.join(wanted)} FROM read_parquet(?, file_row_number = true) ORDER BY position",
            [escape(source.path)],
        )
    except duckdb.Error as error:
        raise InputError(f"the samples cannot be read: {error}.", place=source.path) from error
    count = value(f"SELECT count(*) FROM {name}")  # noqa: S608
    return OpenDataset(name, (*_COLUMNS, *statistics), statistics, count)
