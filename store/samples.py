"""The samples of a dataset version: pages of them, facets, one with all that is known of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from backend.errors import UsageError
from backend.workspace import Workspace
from store.connection import identifier, rows, table, value
from store.datasets import OpenDataset, open_dataset
from store.verdicts import verdicts

Fate = Literal["", "kept", "dropped"]
FACETS = ("fate", "origin", "operator", "dropped_by", "verdict")
NONE = "-"
"""Stands for null among a facet's values."""
_WORD = re.compile(r"[^\W_]{3,}")
_CANDIDATES = 4000


class Range(NamedTuple):
    """Samples whose number lies between two limits, both included."""

    column: str
    low: float | None
    high: float | None


class Sort(NamedTuple):
    """By which column; an empty one keeps the file's order."""

    column: str = ""
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Filters:
    """Which samples. Empty fields do not filter; several values of one field mean any of them."""

    search: str = ""
    """Part of caption or question, whatever the case; or a sample's or source's id."""
    fate: Fate = ""
    origin: tuple[str, ...] = ()
    operator: tuple[str, ...] = ()
    dropped_by: tuple[str, ...] = ()
    verdict: tuple[str, ...] = ()
    ranges: tuple[Range, ...] = ()

    @property
    def active(self) -> bool:
        """Whether anything is filtered out."""
        return self != Filters()


@dataclass(frozen=True, slots=True)
class SamplePage:
    """Some samples of many."""

    rows: pa.Table
    """The open table's columns, and `verdict` (null without one)."""
    total: int
    """Samples that pass the filters."""


def sample_page(
    workspace: Workspace,
    reference: str,
    filters: Filters,
    sort: Sort = Sort(),  # noqa: B008
    page: int = 1,
    size: int = 24,
) -> SamplePage:
    """The samples that pass, `size` a page.

    Args:
        workspace: Where the dataset lies.
        reference: `<name>/<version>`.
        filters: Which.
        sort: In which order; nulls come last.
        page: From 1.
        size: At most 500.

    Raises:
        UsageError: There is no such version or column, or the page is not a page.
        InputError: The samples cannot be read.
    """
    if page < 1 or not 1 <= size <= 500:
        raise UsageError("pages count from 1 and hold 1 to 500 samples.", place=f"{page}, {size}")
    opened = open_dataset(workspace, reference)
    condition, parameters = _condition(workspace, reference, opened, filters)
    order = "position"
    if sort.column:
        direction = "DESC" if sort.descending else "ASC"
        order = f"{_column(opened, sort.column)} {direction} NULLS LAST, position"
    found = table(
        f"SELECT * FROM {opened.table} WHERE {condition} ORDER BY {order} "  # noqa: S608
        "LIMIT $size OFFSET $skip",
        {**parameters, "size": size, "skip": (page - 1) * size},
    )
    total = value(f"SELECT count(*) FROM {opened.table} WHERE {condition}", parameters)  # noqa: S608
    said = verdicts(workspace, reference)
    marks = [said.get(sample_id) for sample_id in found["sample_id"].to_pylist()]
    verdict = table("SELECT unnest($marks::VARCHAR[]) AS verdict", {"marks": marks})["verdict"]
    return SamplePage(found.append_column("verdict", verdict), total)


def sample_ids(
    workspace: Workspace, reference: str, filters: Filters, most: int = 100_000
) -> list[str]:
    """The ids of the samples that pass, in the file's order, at most `most`."""
    opened = open_dataset(workspace, reference)
    condition, parameters = _condition(workspace, reference, opened, filters)
    found = rows(
        f"SELECT sample_id FROM {opened.table} WHERE {condition} ORDER BY position LIMIT $most",  # noqa: S608
        {**parameters, "most": most},
    )
    return [row["sample_id"] for row in found]


def samples(workspace: Workspace, reference: str, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The samples with these ids, in the order of the ids; unknown ids are left out."""
    opened = open_dataset(workspace, reference)
    found = rows(
        f"SELECT * FROM {opened.table} WHERE list_contains($ids, sample_id)",  # noqa: S608
        {"ids": list(ids)},
    )
    known = {row["sample_id"]: row for row in found}
    return [known[sample_id] for sample_id in ids if sample_id in known]


def facets(
    workspace: Workspace, reference: str, filters: Filters
) -> dict[str, list[tuple[str, int]]]:
    """For each of `FACETS` its values with their counts, the most frequent first.

    A facet is counted under the other facets' filters, so that a second value can still be added.
    """
    opened = open_dataset(workspace, reference)
    found = {}
    for facet in ("fate", "origin", "operator", "dropped_by"):
        others = replace(filters, **{facet: "" if facet == "fate" else ()})  # type: ignore[arg-type]
        condition, parameters = _condition(workspace, reference, opened, others)
        key = "CASE WHEN kept THEN 'kept' ELSE 'dropped' END" if facet == "fate" else facet
        counted = rows(
            f"SELECT coalesce({key}, '{NONE}') AS name, count(*) AS n FROM {opened.table} "  # noqa: S608
            f"WHERE {condition} GROUP BY ALL ORDER BY n DESC, name",
            parameters,
        )
        found[facet] = [(row["name"], row["n"]) for row in counted]
    found["verdict"] = _verdict_facet(workspace, reference, opened, filters)
    return found


def _verdict_facet(
    workspace: Workspace, reference: str, opened: OpenDataset, filters: Filters
) -> list[tuple[str, int]]:
    said = verdicts(workspace, reference)
    condition, parameters = _condition(workspace, reference, opened, replace(filters, verdict=()))
    passing = rows(
        f"SELECT sample_id FROM {opened.table} WHERE {condition} "  # noqa: S608
        "AND list_contains($said, sample_id)",
        {**parameters, "said": list(said)},
    )
    counts: dict[str, int] = {}
    for row in passing:
        verdict = said[row["sample_id"]]
        counts[verdict] = counts.get(verdict, 0) + 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def column_limits(workspace: Workspace, reference: str) -> dict[str, tuple[float, float]]:
    """Lowest and highest of each numeric column, statistics first; columns without any left out."""
    opened = open_dataset(workspace, reference)
    names = (*opened.statistics, "n_words", "width", "height")
    listed = ", ".join(
        f"min({quoted}) FILTER (isfinite({quoted}::DOUBLE)), "
        f"max({quoted}) FILTER (isfinite({quoted}::DOUBLE))"
        for quoted in map(identifier, names)
    )
    numbers = list(table(f"SELECT {listed} FROM {opened.table}").to_pydict().values())  # noqa: S608
    pairs = zip(names, numbers[::2], numbers[1::2], strict=True)
    return {
        name: (float(low[0]), float(high[0])) for name, low, high in pairs if low[0] is not None
    }


def similar_samples(
    workspace: Workspace, reference: str, sample_id: str, most: int = 6
) -> list[dict[str, Any]]:
    """Samples with the same picture, the same source or the most words in common.

    Each has `similarity`: 1 for the same picture or source, else the share of words that both
    captions have among those that either has (Jaccard index).
    """
    opened = open_dataset(workspace, reference)
    found = samples(workspace, reference, [sample_id])
    if not found:
        return []
    own = found[0]
    related = rows(
        f"SELECT *, 1.0 AS similarity FROM {opened.table} WHERE sample_id <> $id "  # noqa: S608
        "AND (source_id = $source OR (image_sha256 IS NOT NULL AND image_sha256 = $image)) "
        "ORDER BY position LIMIT $most",
        {
            "id": sample_id,
            "source": own["source_id"],
            "image": own["image_sha256"],
            "most": most,
        },
    )
    known = {sample_id, *(row["sample_id"] for row in related)}
    alike = samples_like(workspace, reference, own["text"] or "", most + len(known))
    return (related + [row for row in alike if row["sample_id"] not in known])[:most]


def samples_like(
    workspace: Workspace, reference: str, text: str, most: int = 12, *, kept_only: bool = False
) -> list[dict[str, Any]]:
    """Samples whose captions share the most words with a text (Jaccard index, `similarity`).

    Captions are first narrowed down to those with one of the text's rarest words.
    """
    opened = open_dataset(workspace, reference)
    words = sorted(set(_WORD.findall(text.lower())))
    if not words:
        return []
    spread = ", ".join(f"count(*) FILTER (contains(lower(text), $w{n}))" for n in range(len(words)))
    named = {f"w{n}": word for n, word in enumerate(words)}
    counts = list(table(f"SELECT {spread} FROM {opened.table}", named).to_pydict().values())  # noqa: S608
    frequency = sorted(
        (count[0], word) for count, word in zip(counts, words, strict=True) if count[0]
    )
    rare: list[str] = []
    reached = 0
    for count, word in frequency:
        if rare and reached + count > _CANDIDATES:
            break
        rare.append(word)
        reached += count
    if not rare:
        return []
    some = " OR ".join(f"contains(lower(text), $r{n})" for n in range(len(rare)))
    fate = "AND kept" if kept_only else ""
    return rows(
        "WITH candidates AS (SELECT *, list_distinct(regexp_extract_all(lower(text), "  # noqa: S608
        f"'[\\pL\\pN]{{3,}}')) AS words FROM {opened.table} WHERE ({some}) {fate} "
        "LIMIT $candidates) "
        "SELECT * EXCLUDE (words), len(list_intersect(words, $words)) / "
        "(len(words) + len($words) - len(list_intersect(words, $words))) AS similarity "
        "FROM candidates ORDER BY similarity DESC, position LIMIT $most",
        {
            **{f"r{n}": word for n, word in enumerate(rare)},
            "words": words,
            "candidates": 2 * _CANDIDATES,
            "most": most,
        },
    )


def data_juicer_lines(workspace: Workspace, reference: str, ids: Sequence[str]) -> str:
    """The samples as JSON lines in the kit's Data-Juicer form, in the order of the ids."""
    from backend.formats.data_juicer import caption_text, END_TOKEN  # noqa: I001
    from backend.formats.convert import is_dialogue

    lines = []
    for row in samples(workspace, reference, ids):
        text = row["text"] or ""
        full = f"{text} {END_TOKEN}" if is_dialogue(text) else caption_text(text)
        record = {"id": row["source_id"], "text": full, "images": row["images"]}
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    return "".join(lines)


def _column(opened: OpenDataset, name: str) -> str:
    if name not in opened.columns:
        known = ", ".join(opened.columns)
        raise UsageError(f"there is no such column (there are: {known}).", place=name)
    return identifier(name)


def _condition(
    workspace: Workspace, reference: str, opened: OpenDataset, filters: Filters
) -> tuple[str, dict[str, Any]]:
    """The WHERE clause and its parameters; column names are checked, values never in the text."""
    parts: list[str] = []
    parameters: dict[str, Any] = {}
    if search := filters.search.strip():
        parts.append(
            "(contains(lower(text), $search) OR contains(lower(question), $search) "
            "OR sample_id = $exact OR source_id = $exact)"
        )
        parameters |= {"search": search.lower(), "exact": search}
    if filters.fate:
        parts.append("kept" if filters.fate == "kept" else "NOT kept")
    for field in ("origin", "operator", "dropped_by"):
        if chosen := getattr(filters, field):
            parts.append(f"list_contains($in_{field}, coalesce({field}, '{NONE}'))")
            parameters[f"in_{field}"] = list(chosen)
    if filters.verdict:
        said = verdicts(workspace, reference)
        parts.append("list_contains($judged, sample_id)")
        parameters["judged"] = [key for key, verdict in said.items() if verdict in filters.verdict]
    for number, limits in enumerate(filters.ranges):
        column = _column(opened, limits.column)
        for side, sign, limit in (("low", ">=", limits.low), ("high", "<=", limits.high)):
            if limit is not None:
                parts.append(f"{column} {sign} ${side}{number}")
                parameters[f"{side}{number}"] = limit
    return " AND ".join(parts) or "true", parameters
