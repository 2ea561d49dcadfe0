"""A run's figures as curves small enough to draw, with every spike still in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from glob import escape

import numpy as np
from numpy.typing import NDArray

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
_LAYERS = ("memory_allocated", "memory_reserved", "memory_reserved_peak", "host_memory")
_DEVICE_TYPE = (
    'STRUCT("index" INTEGER, "name" VARCHAR, used DOUBLE, total DOUBLE, utilization DOUBLE, '
    "power_w DOUBLE, temperature_c DOUBLE)[]"
)
_PROCESS_TYPE = "STRUCT(rss DOUBLE, cpu_percent DOUBLE, device_memory DOUBLE)"


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
    reserved_peak: Curve
    host: Curve
    """Resident memory of the trainer (of the process tree, before the first step was written)."""
    device: Curve
    """All that is in use on the first device, whoever uses it."""
    process_tree: Curve
    """Resident memory of the run's process tree, as its supervisor saw it."""
    total: float | None
    """Size of the first device; None when unknown."""


@dataclass(frozen=True, slots=True)
class DeviceCurves:
    """One device over time (seconds since the epoch)."""

    index: int
    name: str | None
    total: float | None
    used: Curve
    utilization: Curve
    power_w: Curve
    temperature_c: Curve


@dataclass(frozen=True, slots=True)
class GpuReadings:
    """What the supervisor saw of devices and process."""

    devices: list[DeviceCurves]
    """Empty when there was no driver."""
    rss: Curve
    cpu_percent: Curve


def curve(run: Run, name: str, max_points: int = 2000) -> Curve:
    """One of `METRICS` over steps; of a step done twice, the last attempt counts."""
    return curves(run, (name,), max_points)[name]


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
    readings = gpu(run, max_points)
    clock = _clock(run)
    first = readings.devices[0] if readings.devices else None
    return MemoryLayers(
        allocated=layers["memory_allocated"],
        reserved=layers["memory_reserved"],
        reserved_peak=layers["memory_reserved_peak"],
        host=layers["host_memory"],
        device=_on_steps(first.used, clock) if first else Curve(),
        process_tree=_on_steps(readings.rss, clock),
        total=first.total if first else None,
    )


def gpu(run: Run, max_points: int = 1000) -> GpuReadings:
    """The supervisor's readings of devices and process, over seconds since the epoch."""
    source = fingerprint(run.gpu_path)
    if source is None:
        return GpuReadings([], Curve(), Curve())
    return _gpu(source, max_points)


def reduce_curve(x: Floats, y: Floats, max_points: int) -> tuple[Floats, Floats]:
    """The lowest and the highest point of each bucket, in order, so that no spike is lost.

    Args:
        x: Positions, rising.
        y: Finite values.
        max_points: How many points remain at most, at least 4; the first and the last do.
    """
    if len(x) <= max_points:
        return x, y
    # Two of the budget are for the ends.
    edges = np.linspace(0, len(x), (max_points - 2) // 2 + 1).astype(np.int64)
    starts = edges[:-1]
    lowest = _first_where(y, np.minimum.reduceat(y, starts), edges)
    highest = _first_where(y, np.maximum.reduceat(y, starts), edges)
    chosen = np.unique(np.concatenate([[0, len(x) - 1], lowest, highest]))
    return x[chosen], y[chosen]


def _first_where(y: Floats, wanted: Floats, edges: Steps) -> Steps:
    """Index of the first point of each bucket that has the bucket's wanted value."""
    hits = np.flatnonzero(y == np.repeat(wanted, np.diff(edges)))
    return hits[np.searchsorted(hits, edges[:-1])]


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
def _gpu(source: Fingerprint, max_points: int) -> GpuReadings:
    types = {"time": "DOUBLE", "devices": _DEVICE_TYPE, "process": _PROCESS_TYPE}
    given = {"path": escape(source.path), "columns": types}
    host = columns(
        f"SELECT time, process.rss AS rss, process.cpu_percent AS cpu FROM {JSON_LINES} "  # noqa: S608
        "WHERE time IS NOT NULL",
        given,
    )
    devices = columns(
        "SELECT time, d['index'] AS number, d['name'] AS name, d.used AS used, d.total AS total, "  # noqa: S608
        "d.utilization AS utilization, d.power_w AS power_w, d.temperature_c AS temperature_c "
        f"FROM (SELECT time, unnest(devices) AS d FROM {JSON_LINES} WHERE time IS NOT NULL)",
        given,
    )
    numbers = np.ma.compressed(devices["number"])
    return GpuReadings(
        devices=[_device(devices, int(number), max_points) for number in np.unique(numbers)],
        rss=_reduced(host["time"], host["rss"], max_points),
        cpu_percent=_reduced(host["time"], host["cpu"], max_points),
    )


def _device(data: dict[str, NDArray[np.generic]], number: int, max_points: int) -> DeviceCurves:
    mine = np.ma.filled(data["number"] == number, False)
    own = {name: values[mine] for name, values in data.items()}
    totals, names = np.ma.compressed(own["total"]), np.ma.compressed(own["name"])
    return DeviceCurves(
        index=number,
        name=str(names[-1]) if len(names) else None,
        total=float(totals[-1]) if len(totals) else None,
        **{
            key: _reduced(own["time"], own[key], max_points)
            for key in ("used", "utilization", "power_w", "temperature_c")
        },
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
