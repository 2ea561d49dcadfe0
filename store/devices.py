"""What devices and processes used lately, from the readings beside the runs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.files import tail_lines
from backend.runs import Run
from backend.workspace import Workspace

_LINE = 4096
"""Bytes that a reading of one second has at the most, with eight devices."""


@dataclass(slots=True)
class Series:
    """One figure over time."""

    times: list[float] = field(default_factory=list)
    """Seconds since the epoch, rising."""
    values: list[float | None] = field(default_factory=list)
    """None where nobody knew, and between two runs."""


@dataclass(slots=True)
class Recent:
    """The last minutes."""

    used: dict[int, Series] = field(default_factory=dict)
    """Bytes by device."""
    utilization: dict[int, Series] = field(default_factory=dict)
    """Percent by device."""
    host: dict[str, Series] = field(default_factory=dict)
    """Resident bytes of a run's processes, by run."""


def recent(workspace: Workspace, now: float, span_s: float = 600) -> Recent:
    """The readings of the last `span_s` seconds; of several runs at a time, devices count once.

    Only the ends of files that changed within the span are read.
    """
    found = Recent()
    readings: dict[int, dict[str, Any]] = {}
    for run in Run.all(workspace):
        for reading in _tail(run.gpu_path, now - span_s, span_s):
            moment = float(reading["time"])
            host = reading["process"].get("rss") if reading.get("process") else None
            _add(found.host.setdefault(run.id, Series()), moment, host)
            if reading.get("devices"):
                readings[round(moment)] = reading
    for _, reading in sorted(readings.items()):
        for device in reading["devices"]:
            index = int(device["index"])
            moment = float(reading["time"])
            _add(found.used.setdefault(index, Series()), moment, device.get("used"))
            _add(found.utilization.setdefault(index, Series()), moment, device.get("utilization"))
    return found


def _add(series: Series, moment: float, value: float | None, gap_s: float = 5) -> None:
    """Append a point; a gap in time is a gap in the line."""
    if series.times and moment - series.times[-1] > gap_s:
        series.times.append((moment + series.times[-1]) / 2)
        series.values.append(None)
    series.times.append(moment)
    series.values.append(value)


def _tail(path: Path, since: float, span_s: float) -> list[dict[str, Any]]:
    """Readings after `since`; torn and foreign lines are left out."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return []
    if state.st_mtime < since:
        return []
    found = []
    for line in tail_lines(path, int(span_s * _LINE)):
        try:
            reading = json.loads(line)
        except ValueError:
            continue
        if isinstance(reading, dict) and isinstance(reading.get("time"), int | float):
            found.append(reading)
    return [reading for reading in found if reading["time"] >= since]
