"""What every operator did to every sample, written operator by operator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from backend.synthesis.datasets import LINEAGE_SCHEMA
from backend.synthesis.samples import Sample

Action = Literal["kept", "dropped", "rewritten", "created"]


@dataclass(frozen=True, slots=True)
class Event:
    """What one operator did to one sample."""

    sample_id: str
    step: int
    """Place of the operator in the recipe, from 1."""
    operator: str
    action: Action
    before: str | None = None
    """Text before; set where the text changed or was dropped."""
    after: str | None = None
    """Text after; set where it changed or was made."""
    reason: str = ""
    """The statistic against its limit, the sample it duplicates, the sample it was made from."""


@dataclass
class Ledger:
    """Takes down what one operator does, and applies it to the samples."""

    step: int
    operator: str
    events: list[Event] = field(default_factory=list)
    created: list[Sample] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """What the operator said went wrong with single samples, without stopping."""

    def judge(self, sample: Sample, *, kept: bool, reason: str) -> None:
        """The sample goes on as it is, or is dropped."""
        if kept:
            self._add(sample, "kept", None, None, reason)
        else:
            sample.kept, sample.dropped_by = False, self.operator
            self._add(sample, "dropped", sample.text, None, reason)

    def rewrite(self, sample: Sample, before: str, reason: str) -> None:
        """The sample's text or image was changed."""
        self._add(sample, "rewritten", before, sample.text, reason)

    def create(self, sample: Sample, reason: str) -> None:
        """The sample is new."""
        self.created.append(sample)
        self._add(sample, "created", None, sample.text, reason)

    def fail(self, problem: str) -> None:
        """Something went wrong with one sample."""
        self.failures.append(problem)

    def counts(self) -> Counter[str]:
        """Events by action."""
        return Counter(event.action for event in self.events)

    def _add(
        self, sample: Sample, action: Action, before: str | None, after: str | None, reason: str
    ) -> None:
        event = Event(sample.sample_id, self.step, self.operator, action, before, after, reason)
        self.events.append(event)


class LineageParts:
    """One Parquet part for each operator, in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def write(self, step: int, events: list[Event]) -> None:
        """Write an operator's part, all or nothing."""
        path = self._path(step)
        scratch = path.with_suffix(".part")
        rows = [asdict(event) for event in events]
        table = pa.Table.from_pylist(rows, schema=LINEAGE_SCHEMA)
        pq.write_table(table, scratch, compression="zstd")
        scratch.replace(path)

    def tables(self, steps: int) -> Iterator[pa.Table]:
        """The parts of the first `steps` operators, in order."""
        for step in range(1, steps + 1):
            yield pq.read_table(self._path(step), schema=LINEAGE_SCHEMA)

    def _path(self, step: int) -> Path:
        return self.folder / f"lineage-{step:03d}.parquet"
