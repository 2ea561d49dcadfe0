"""What the samples of a dataset version are like, sample by sample and on the whole."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from backend.formats.images import inspect_image
from backend.synthesis.captions import vagueness
from backend.synthesis.datasets import count_words
from backend.synthesis.pictures import near_duplicates, perceptual_hash, sharpness

NEAR = 3
"""Bits by which the hashes of near duplicates may differ."""
EDGES: dict[str, NDArray[np.float64]] = {
    "n_words": np.arange(0, 42, 1.0),
    "min_side": np.geomspace(16, 4096, 41),
    "aspect": np.geomspace(1 / 8, 8, 41),
    "sharpness": np.geomspace(1, 100_000, 41),
    "vagueness": np.linspace(0, 1, 21),
    "agreement": np.linspace(-1, 1, 101),
}
"""Histogram edges, the same for every version, so that two can be drawn over each other.

Values beyond the ends count in the first or last bin.
"""
SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        *((name, pa.float64()) for name in EDGES),
        ("caption_copies", pa.int32()),
        ("duplicate_of", pa.string()),
        ("image_problem", pa.string()),
    ]
)
"""`statistics.parquet`: null where a statistic is unknown. `caption_copies` counts the samples
with the same caption, `duplicate_of` names the earlier sample whose image looks the same."""


@dataclass(frozen=True)
class Picture:
    """What one image is like; all None for one that cannot be read."""

    problem: str | None
    min_side: float | None = None
    """Pixels."""
    aspect: float | None = None
    """Width by height."""
    sharpness: float | None = None
    hash: str | None = None


def look_at(image_root: Path, relative: str) -> Picture:
    """Size, sharpness and perceptual hash of an image."""
    facts = inspect_image(image_root, relative)
    if facts.problem is not None or not facts.width or not facts.height:
        return Picture(facts.problem or "image_unreadable")
    path = str(image_root / relative)
    return Picture(
        problem=None,
        min_side=float(min(facts.width, facts.height)),
        aspect=facts.width / facts.height,
        sharpness=sharpness(path),
        hash=perceptual_hash(path),
    )


def look_at_all(
    image_root: Path, relatives: Sequence[str], pool: ThreadPoolExecutor
) -> list[Picture]:
    """`look_at` of many, in order."""
    return list(pool.map(partial(look_at, image_root), relatives))


def statistics_table(
    ids: Sequence[str],
    captions: Sequence[str],
    pictures: Sequence[Picture],
    agreement: Sequence[float | None],
) -> pa.Table:
    """One row a sample, in `SCHEMA`.

    Args:
        ids: Sample ids.
        captions: Their captions.
        pictures: Their images.
        agreement: Of image and caption, -1 to 1; None where it is not known.
    """
    copies = Counter(captions)
    columns = {
        "sample_id": list(ids),
        "n_words": [float(count_words(caption)) for caption in captions],
        "min_side": [picture.min_side for picture in pictures],
        "aspect": [picture.aspect for picture in pictures],
        "sharpness": [picture.sharpness for picture in pictures],
        "vagueness": [vagueness(caption) for caption in captions],
        "agreement": list(agreement),
        "caption_copies": [copies[caption] for caption in captions],
        "duplicate_of": _duplicates(ids, pictures),
        "image_problem": [picture.problem for picture in pictures],
    }
    return pa.table(columns, schema=SCHEMA)


def summarize(table: pa.Table) -> dict[str, Any]:
    """Figures and histograms of a `statistics_table`, as `summary.json` has them.

    Returns:
        `samples`; `statistics`: name to count, unknown, mean, std, percentiles (p1 … p99, min,
        max) and `histogram` {edges, counts}; `distinct_captions`, `duplicate_images`,
        `unreadable_images`, `vague_captions`. Figures are None where nothing is known.
    """
    samples = table.num_rows
    copies = table["caption_copies"].to_pylist()
    vague = [value for value in table["vagueness"].to_pylist() if value is not None]
    return {
        "samples": samples,
        "statistics": {name: _figures(table, name) for name in EDGES},
        "distinct_captions": round(sum(1 / count for count in copies)),
        "duplicate_images": samples - table["duplicate_of"].null_count,
        "unreadable_images": samples - table["image_problem"].null_count,
        "vague_captions": sum(value >= 1 for value in vague),
    }


def _duplicates(ids: Sequence[str], pictures: Sequence[Picture]) -> list[str | None]:
    hashed = [(i, picture.hash) for i, picture in enumerate(pictures) if picture.hash]
    found = near_duplicates([value for _, value in hashed], NEAR)
    twins: list[str | None] = [None] * len(ids)
    for later, earlier in found.items():
        twins[hashed[later][0]] = ids[hashed[earlier][0]]
    return twins


def _figures(table: pa.Table, name: str) -> dict[str, Any]:
    known = table[name].drop_null().to_numpy()
    edges = EDGES[name]
    clipped = np.clip(known, edges[0], edges[-1])
    counts, _ = np.histogram(clipped, edges)
    figures: dict[str, Any] = {"count": len(known), "unknown": table.num_rows - len(known)}
    measures: dict[str, Any] = dict.fromkeys(("mean", "std", "min", "max"))
    percents = (1, 5, 25, 50, 75, 95, 99)
    if len(known):
        measures = {
            "mean": known.mean(),
            "std": known.std(),
            "min": known.min(),
            "max": known.max(),
        }
        values = np.percentile(known, percents)
    else:
        values = np.full(len(percents), math.nan)
    measures |= {f"p{percent}": value for percent, value in zip(percents, values, strict=True)}
    figures |= {key: _finite(value) for key, value in measures.items()}
    return {**figures, "histogram": {"edges": edges.tolist(), "counts": counts.tolist()}}


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
