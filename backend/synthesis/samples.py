"""Samples on their way through a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from backend.formats.convert import answer_of, is_dialogue
from backend.formats.data_juicer import END_TOKEN, IMAGE_TOKEN, caption_of, caption_text
from backend.synthesis.datasets import ROWS_PER_GROUP, STAT_PREFIX, count_words, samples_schema

Item = TypeVar("Item")
STATS = "__dj__stats__"
META = "__dj__meta__"
NOTE = "synthloop"
"""Key below `META` in which our mappers leave `{"reason": text, "failed": bool}`."""
_TOKEN_PART = "__dj__"  # noqa: S105
"""What the image token and the end token have in common."""
QUESTION = "question"
"""Column of a row with the sample's question; operators of Data-Juicer do not know it."""
COLUMNS = (
    "sample_id",
    "source_id",
    "origin",
    "operator",
    "images",
    "text",
    "question",
    "width",
    "height",
    "image_sha256",
    "image_problem",
)


@dataclass(slots=True)
class Sample:
    """One image-text pair and what is known of it."""

    sample_id: str
    source_id: str
    origin: str
    operator: str | None
    images: list[str]
    """Below the image folder; absolute where an operator made a new one."""
    text: str
    """The caption, or a dialogue with role tags."""
    question: str
    width: int | None = None
    height: int | None = None
    image_sha256: str | None = None
    image_problem: str | None = None
    kept: bool = True
    dropped_by: str | None = None
    stats: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    """Further columns that operators wrote."""

    def data_juicer_text(self) -> str:
        """The text with its tokens, as the seed has it."""
        return f"{self.text} {END_TOKEN}" if is_dialogue(self.text) else caption_text(self.text)

    def row(self, image_root: Path, with_stats: bool = False) -> dict[str, Any]:
        """The row that an operator gets.

        Statistics are given only to operators that read those of others: an operator that
        finds its own there takes them for computed, also when the text has changed since.
        """
        return {
            **self.extra,
            "id": self.sample_id,
            "text": self.data_juicer_text(),
            "images": [str(image_root / image) for image in self.images],
            QUESTION: self.question,
            STATS: self.stats if with_stats else {},
        }

    def copy(self) -> Sample:
        """A sample of its own."""
        return replace(
            self, images=list(self.images), stats=dict(self.stats), extra=dict(self.extra)
        )


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter."""
    pending = iter(items)
    while batch := list(islice(pending, size)):
        yield batch


def plain_text(text: str) -> str | None:
    """A text that an operator returned without its outer tokens.

    Returns:
        None when it is empty, its image token is gone, or a token, whole or in part, stands
        where it does not belong.
    """
    if is_dialogue(text):
        inner = text.strip().removesuffix(END_TOKEN).rstrip()
        return None if END_TOKEN in inner else inner
    caption = caption_of(text)
    broken = not caption or IMAGE_TOKEN not in text or _TOKEN_PART in caption
    return None if broken else caption


def from_table(table: pa.Table) -> list[Sample]:
    """The samples of a dataset version; statistics are left behind, they are computed anew."""
    return [Sample(**row) for row in table.select(list(COLUMNS)).to_pylist()]


def to_tables(samples: Iterable[Sample], statistics: list[str]) -> Iterator[pa.Table]:
    """Tables for `samples.parquet`, one row group each."""
    schema = samples_schema(statistics)
    for chunk in batches(samples, ROWS_PER_GROUP):
        yield pa.Table.from_pylist([_row(sample, statistics) for sample in chunk], schema=schema)


def statistic_names(samples: Iterable[Sample]) -> list[str]:
    """Names of the numeric statistics that any sample has, sorted."""
    return sorted(
        {
            name
            for sample in samples
            for name, value in sample.stats.items()
            if number(value) is not None
        }
    )


def number(value: Any) -> float | None:
    """A statistic as one number: of a list (one value an image) the first; None for no number."""
    if isinstance(value, list | tuple):
        return number(value[0]) if len(value) else None
    if isinstance(value, bool | int | float):
        return float(value)
    return None


def save_samples(path: Path, samples: list[Sample]) -> None:
    """Write all of the samples' state, so that a stopped recipe can go on from here."""
    names = [item.name for item in fields(Sample)]
    columns: dict[str, list[Any]] = {
        name: [getattr(sample, name) for sample in samples] for name in names
    }
    for name in ("stats", "extra"):
        columns[name] = [json.dumps(value, ensure_ascii=False) for value in columns[name]]
    scratch = path.with_suffix(".part")
    pq.write_table(pa.table(columns), scratch, compression="zstd")
    scratch.replace(path)


def load_samples(path: Path) -> list[Sample]:
    """What `save_samples` wrote."""
    rows = pq.read_table(path).to_pylist()
    return [
        Sample(**{**row, "stats": json.loads(row["stats"]), "extra": json.loads(row["extra"])})
        for row in rows
    ]


def _row(sample: Sample, statistics: list[str]) -> dict[str, Any]:
    answer = answer_of(sample.text)
    row = {name: getattr(sample, name) for name in COLUMNS}
    row |= {"kept": sample.kept, "dropped_by": sample.dropped_by}
    row |= {"answer": answer, "n_words": count_words(answer)}
    row |= {f"{STAT_PREFIX}{name}": number(sample.stats.get(name)) for name in statistics}
    return row
