"""`batches/part-*.parquet`: which samples each step trained on, and the loss of each."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("sample_id", pa.string()),
        ("loss", pa.float32()),
        ("attempt", pa.int32()),
    ]
)
PART_ROWS = 8192


class BatchLog:
    """Collects rows and writes them as parts, each renamed into place once complete.

    Args:
        folder: `batches` of a run; parts of earlier attempts stay.
        attempt: Of the run.
    """

    def __init__(self, folder: Path, attempt: int) -> None:
        self.folder = folder
        self.attempt = attempt
        self._rows: list[tuple[int, str, float | None]] = []
        folder.mkdir(exist_ok=True)
        numbers = [int(path.stem.removeprefix("part-")) for path in folder.glob("part-*.parquet")]
        self._next = max(numbers, default=-1) + 1

    def add(self, step: int, ids: list[str], losses: list[float]) -> None:
        """One step's samples; a loss that is not a number is stored as unknown."""
        for sample_id, loss in zip(ids, losses, strict=True):
            self._rows.append((step, sample_id, None if math.isnan(loss) else loss))
        if len(self._rows) >= PART_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was collected as a part of its own."""
        if not self._rows:
            return
        steps, ids, losses = zip(*self._rows, strict=True)
        attempts = [self.attempt] * len(steps)
        columns = [pa.array(steps), pa.array(ids), pa.array(losses, pa.float32()), attempts]
        table = pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)
        path = self.folder / f"part-{self._next:05d}.parquet"
        scratch = self.folder / f".{path.name}"
        pq.write_table(table, scratch)
        scratch.replace(path)
        self._next += 1
        self._rows.clear()
