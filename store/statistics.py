"""How a statistic is spread over a dataset version, and how far that is from its origin."""

from __future__ import annotations

from dataclasses import dataclass
from glob import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.runs import Run, State
from backend.workspace import Workspace
from store.connection import columns, identifier, rows, table
from store.datasets import STATISTIC_PREFIX, open_dataset
from store.runs import run_rows

Floats = NDArray[np.float64]
_NUMBERS = ("n_words", "width", "height")
_MEASURED_ANEW = ("stat_image_width", "stat_image_height")


@dataclass(frozen=True, slots=True)
class Histogram:
    """One statistic of a version beside what it is compared with."""

    name: str
    """The column; statistics with their prefix."""
    edges: Floats
    """Of the bins, one more than there are bins."""
    ours: Floats
    """Share of the version's kept samples in each bin."""
    theirs: Floats
    """Share of the other version's; zeros when it has no such statistic."""
    our_median: float | None
    their_median: float | None
    compared_with: str | None
    """The other version; the version itself when only its own samples before dropping are known."""

    @property
    def shift(self) -> float:
        """How different both are: total variation distance, 0 to 1."""
        return float(np.abs(self.ours - self.theirs).sum() / 2) if self.theirs.any() else 0.0


def histograms(
    workspace: Workspace, reference: str, against: str | None, most: int = 6, bins: int = 20
) -> list[Histogram]:
    """The statistics that changed most, at most `most`.

    Args:
        workspace: Where the datasets lie.
        reference: The version; its kept samples count.
        against: The version to compare with, by its own columns or its latest analysis. Where it
            knows a statistic neither way, all samples that this version began with count.
        most: How many.
        bins: Bins between the 0.5 % and the 99.5 % quantile of both; what lies outside counts
            into the outermost bins.
    """
    opened = open_dataset(workspace, reference)
    names = _names(opened.statistics)
    ours = _numbers(opened.table, names, "kept")
    theirs = _known_of(workspace, against, names) if against else {}
    before = _numbers(opened.table, names, "true")
    found = []
    for name in names:
        if len(ours[name]):
            other, source = theirs.get(name), against
            if other is None or not len(other):
                other, source = before[name], reference
            found.append(_histogram(name, ours[name], other, source, bins))
    found.sort(key=lambda histogram: -histogram.shift)
    return found[:most]


def _names(statistics: tuple[str, ...]) -> tuple[str, ...]:
    """Every figure once: some operators measure anew what the table has as a column."""
    own = [name for name in statistics if name not in _MEASURED_ANEW]
    return (*_NUMBERS, *own)


def spread(workspace: Workspace, reference: str) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each statistic that varies."""
    opened = open_dataset(workspace, reference)
    if not opened.statistics:
        return {}
    quoted = [identifier(name) for name in opened.statistics]
    listed = ", ".join(
        f"avg({n}) FILTER (isfinite({n})), stddev_pop({n}) FILTER (isfinite({n}))" for n in quoted
    )
    numbers = list(table(f"SELECT {listed} FROM {opened.table}").to_pydict().values())  # noqa: S608
    pairs = zip(opened.statistics, numbers[::2], numbers[1::2], strict=True)
    return {name: (mean[0], std[0]) for name, mean, std in pairs if std[0]}


def telling(
    row: dict[str, Any], spreads: dict[str, tuple[float, float]], most: int = 2
) -> list[tuple[str, float]]:
    """The sample's statistics that lie farthest from the mean, in standard deviations."""
    known = {name: row[name] for name in spreads if row.get(name) is not None}
    order = sorted(known, key=lambda name: -abs(known[name] - spreads[name][0]) / spreads[name][1])
    return [(name, float(known[name])) for name in order[:most]]


def _numbers(table_name: str, names: tuple[str, ...], condition: str) -> dict[str, Floats]:
    listed = ", ".join(f"{identifier(name)}::DOUBLE AS {identifier(name)}" for name in names)
    found = columns(f"SELECT {listed} FROM {table_name} WHERE {condition}")  # noqa: S608
    return {name: _finite(values) for name, values in found.items()}


def _known_of(workspace: Workspace, reference: str, names: tuple[str, ...]) -> dict[str, Floats]:
    opened = open_dataset(workspace, reference)
    there = tuple(name for name in names if name in opened.columns)
    found = _numbers(opened.table, there, "kept")
    return {**_analysis(workspace, reference), **{k: v for k, v in found.items() if len(v)}}


def _analysis(workspace: Workspace, reference: str) -> dict[str, Floats]:
    """Statistics of the latest analysis of a version; names with prefix."""
    for row in run_rows(workspace):
        asked = row.stage == "analyze" and row.parameters.get("dataset") == reference
        path = Run(workspace.runs / row.id).artifacts / "statistics.parquet"
        if asked and row.state is State.SUCCEEDED and path.is_file():
            return _analyzed(str(path))
    return {}


def _analyzed(path: str) -> dict[str, Floats]:
    given = [escape(path)]
    described = rows("SELECT column_name, column_type FROM (DESCRIBE FROM read_parquet(?))", given)
    numeric = [row["column_name"] for row in described if row["column_type"] in ("DOUBLE", "FLOAT")]
    if not numeric:
        return {}
    listed = ", ".join(f"{identifier(name)}::DOUBLE AS {identifier(name)}" for name in numeric)
    found = columns(f"SELECT {listed} FROM read_parquet(?)", given)  # noqa: S608
    prefixed = {n: n if n.startswith(STATISTIC_PREFIX) else STATISTIC_PREFIX + n for n in numeric}
    return {prefixed[name]: _finite(values) for name, values in found.items()}


def _finite(values: NDArray[Any]) -> Floats:
    numbers = np.asarray(np.ma.filled(values.astype(np.float64), np.nan))
    return numbers[np.isfinite(numbers)]


def _histogram(name: str, ours: Floats, theirs: Floats, source: str | None, bins: int) -> Histogram:
    both = np.concatenate([ours, theirs])
    low, high = (float(edge) for edge in np.quantile(both, [0.005, 0.995]))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    return Histogram(
        name=name,
        edges=edges,
        ours=_shares(ours, edges),
        theirs=_shares(theirs, edges),
        our_median=float(np.median(ours)) if len(ours) else None,
        their_median=float(np.median(theirs)) if len(theirs) else None,
        compared_with=source,
    )


def _shares(values: Floats, edges: Floats) -> Floats:
    if not len(values):
        return np.zeros(len(edges) - 1)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return np.asarray(counts / len(values))
