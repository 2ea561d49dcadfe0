"""A run's figures as curves small enough to draw, with every spike still in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from glob import escape

import numpy as np
from numpy.typing import NDArray

from backend.reducing import reduce_curve
from backend.runs import Run
from store.connection import JSON_LINES, Fingerprint, columns, fingerprint, known

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]

METRICS = (
    "loss",
    "learning_rate",
    "grad_norm",
    "epoch",
    "samples_per_second",
    "tokens_per_second",
    "memory_allocated",
    "memory_reserved",
    "memory_allocated_peak",
    "memory_reserved_peak",
    "host_memory",
)
"""What a trainer writes each step; memory in bytes, learning rate and loss without unit."""
_LAYERS = ("memory_allocated", "memory_reserved", "host_memory")
_DEVICE_TYPE = 'STRUCT("index" INTEGER, used DOUBLE, total DOUBLE)[]'
_PROCESS_TYPE = "STRUCT(rss DOUBLE)"


def _floats() -> Floats:
    return np.empty(0)


@dataclass(frozen=True, slots=True)
class Curve:
    """One figure over time. `x` are steps, or seconds since the epoch for device readings."""

    x: Floats = field(default_factory=_floats)
    y: Floats = field(default_factory=_floats)
    """Finite; at most as many as were asked for, each bucket's lowest and highest among them."""
    not_finite: Floats = field(default_factory=_floats)
    """Where the value was NaN or infinite (at most as many as were asked for)."""
    total: int = 0
    """Points before reduction."""

    def __len__(self) -> int:
        return len(self.x)

    @property
    def last(self) -> float | None:
        """The latest finite value; None when there is none."""
        return float(self.y[-1]) if len(self.y) else None


@dataclass(frozen=True, slots=True)
class MemoryLayers:
    """Memory over steps, in bytes; a layer that nobody told is empty."""

    allocated: Curve
    """torch tensors on the device."""
    reserved: Curve
    """What torch's allocator holds on the device."""
    host: Curve
    """Resident memory of the trainer (of the process tree, before the first step was written)."""
    device: Curve
    """All that is in use on the first device, whoever uses it."""
    process_tree: Curve
    """Resident memory of the run's process tree, as its supervisor saw it."""
    total: float | None
    """Size of the first device; None when unknown."""


@dataclass(frozen=True, slots=True)
class _Readings:
    """What the supervisor saw, over seconds since the epoch."""

    rss: Curve = Curve()
    used: Curve = Curve()
    """Of the first device; empty without a driver."""
    total: float | None = None


def curves(run: Run, names: tuple[str, ...], max_points: int = 2000) -> dict[str, Curve]:
    """Several of `METRICS`, read in one go. Read again only when the file has changed.

    Raises:
        KeyError: No such metric.
    """
    for name in names:
        if name not in METRICS:
            raise KeyError(name)
    source = fingerprint(run.metrics_path)
    if source is None:
        return {name: Curve() for name in names}
    return _curves(source, names, max_points)


def smoothed(run: Run, name: str, max_points: int = 500, weight: float = 0.9) -> Curve:
    """The metric's exponential moving average, over at most `max_points` bucket means.

    Args:
        run: Whose metric.
        name: One of `METRICS`.
        max_points: Buckets; fewer steps are smoothed one by one.
        weight: Share of the past, 0 to 1; without the pull to zero at the start
            (Kingma and Ba 2015, bias correction).
    """
    if name not in METRICS:
        raise KeyError(name)
    source = fingerprint(run.metrics_path)
    return Curve() if source is None else _smoothed(source, name, max_points, weight)


def memory(run: Run, max_points: int = 1000) -> MemoryLayers:
    """Memory as layers over steps; device readings are placed on the step going on then."""
    layers = curves(run, _LAYERS, max_points)
    source = fingerprint(run.gpu_path)
    readings = _readings(source, max_points) if source else _Readings()
    clock = _clock(run)
    return MemoryLayers(
        allocated=layers["memory_allocated"],
        reserved=layers["memory_reserved"],
        host=layers["host_memory"],
        device=_on_steps(readings.used, clock),
        process_tree=_on_steps(readings.rss, clock),
        total=readings.total,
    )


@lru_cache(maxsize=32)
def _curves(source: Fingerprint, names: tuple[str, ...], max_points: int) -> dict[str, Curve]:
    data = _read(source, names)
    return {name: _reduced(data["step"], data[name], max_points) for name in names}


@lru_cache(maxsize=32)
def _smoothed(source: Fingerprint, name: str, max_points: int, weight: float) -> Curve:
    data = _read(source, (name,))
    finite = np.isfinite(_filled(data[name]))
    x, y = data["step"][finite].astype(float), _filled(data[name])[finite]
    total = len(x)
    if total > max_points:
        edges = np.linspace(0, total, max_points + 1).astype(np.int64)
        x = x[edges[1:] - 1]
        y = np.add.reduceat(y, edges[:-1]) / np.diff(edges)
    return Curve(x, _moving_average(y, weight), total=total)


def _moving_average(y: Floats, weight: float) -> Floats:
    average, scale = 0.0, 0.0
    result = np.empty_like(y)
    for position, number in enumerate(y):
        average = weight * average + (1 - weight) * number
        scale = weight * scale + (1 - weight)
        result[position] = average / scale
    return result


@lru_cache(maxsize=32)
def _readings(source: Fingerprint, max_points: int) -> _Readings:
    types = {"time": "DOUBLE", "devices": _DEVICE_TYPE, "process": _PROCESS_TYPE}
    found = columns(
        "SELECT time, process.rss AS rss, first.used AS used, first.total AS total "  # noqa: S608
        # A struct is sorted by its first field: the device's number.
        f"FROM (SELECT time, process, list_sort(devices)[1] AS first FROM {JSON_LINES} "
        "WHERE time IS NOT NULL)",
        {"path": escape(source.path), "columns": types},
    )
    totals = np.ma.compressed(found["total"])
    return _Readings(
        rss=_reduced(found["time"], found["rss"], max_points),
        used=_reduced(found["time"], found["used"], max_points),
        total=float(totals[-1]) if len(totals) else None,
    )


def _read(source: Fingerprint, names: tuple[str, ...]) -> dict[str, NDArray[np.generic]]:
    """Steps and metrics of the file, one row a step, rising; null is masked."""
    types = {"step": "BIGINT", "attempt": "INTEGER", **dict.fromkeys(names, "DOUBLE")}
    listed = ", ".join(types)
    data = columns(
        f"SELECT {listed} FROM {JSON_LINES} WHERE step IS NOT NULL",  # noqa: S608
        {"path": escape(source.path), "columns": types},
    )
    steps = data["step"]
    if len(steps) > 1 and not bool(np.all(steps[1:] > steps[:-1])):
        order = np.lexsort((np.ma.filled(data["attempt"], 0), steps))
        # lexsort is stable: of one step and attempt, the line written last comes last.
        last = np.append(steps[order][1:] != steps[order][:-1], True)
        data = {name: values[order][last] for name, values in data.items()}
    return data


def _clock(run: Run) -> tuple[Floats, Floats]:
    """When each step was written: seconds since the epoch and steps, both rising."""
    source = fingerprint(run.metrics_path)
    if source is None:
        return np.empty(0), np.empty(0)
    return _clock_of(source)


@lru_cache(maxsize=32)
def _clock_of(source: Fingerprint) -> tuple[Floats, Floats]:
    data = columns(
        f"SELECT step, time FROM {JSON_LINES} "  # noqa: S608
        "WHERE step IS NOT NULL AND time IS NOT NULL ORDER BY time",
        {"path": escape(source.path), "columns": {"step": "BIGINT", "time": "DOUBLE"}},
    )
    times, steps = np.asarray(data["time"], float), np.asarray(data["step"], float)
    if len(times) > 4000:
        chosen = np.linspace(0, len(times) - 1, 4000).astype(np.int64)
        times, steps = times[chosen], steps[chosen]
    return times, steps


def _on_steps(readings: Curve, clock: tuple[Floats, Floats]) -> Curve:
    times, steps = clock
    if len(times) == 0 or len(readings) == 0:
        return Curve()
    during = (readings.x >= times[0] - 60) & (readings.x <= times[-1] + 60)
    x = np.interp(readings.x[during], times, steps)
    return Curve(x, readings.y[during], total=readings.total)


def _reduced(x: NDArray[np.generic], y: NDArray[np.generic], max_points: int) -> Curve:
    there = known(y)
    positions = np.asarray(x[there], dtype=np.float64)
    values = np.asarray(y[there], dtype=np.float64)
    finite = np.isfinite(values)
    broken = positions[~finite]
    small_x, small_y = reduce_curve(positions[finite], values[finite], max_points)
    return Curve(small_x, small_y, broken[:max_points], total=len(values))


def _filled(array: NDArray[np.generic]) -> Floats:
    return np.asarray(np.ma.filled(array.astype(np.float64), np.nan))
