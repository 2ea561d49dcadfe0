"""What a run's processes and the devices use, once a second, into `gpu.jsonl`."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict
from typing import Any

import psutil

from backend.files import append_line
from backend.gpu import DeviceReadings, process_memory, read_devices
from backend.runs import ProcessIdentity, Run


class Sampler:
    """Reads devices and the child's whole process tree."""

    def __init__(self, run: Run, child: ProcessIdentity):
        self._run = run
        self._child = child
        self._known: dict[int, psutil.Process] = {}
        self._read_before = False

    def sample(self) -> None:
        """Append one line.

        Raises:
            OSError: The line could not be written (disk full).
        """
        readings = read_devices()
        process = self._tree(readings)
        line = {"time": time.time(), "devices": _devices(readings), "process": process}
        append_line(self._run.gpu_path, line)

    def _tree(self, readings: DeviceReadings) -> dict[str, Any]:
        """Resident bytes, percent of one core and device bytes of all processes together."""
        members = self._members()
        rss = cpu = 0.0
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied), member.oneshot():
                cpu += member.cpu_percent(None)
                rss += member.memory_info().rss
        # A process's first reading of its time has nothing to compare with.
        percent = cpu if self._read_before else None
        self._read_before = bool(members)
        pids = {member.pid for member in members}
        return {
            "rss": int(rss) if rss else None,
            "cpu_percent": None if percent is None or not rss else round(percent, 1),
            "device_memory": process_memory(readings, pids),
        }

    def _members(self) -> list[psutil.Process]:
        """The child and its descendants; known ones are kept for their processor times."""
        if not self._child.alive():
            return []
        try:
            root = self._known.get(self._child.pid) or psutil.Process(self._child.pid)
            found = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
        kept = {}
        for process in found:
            before = self._known.get(process.pid)
            kept[process.pid] = before if before == process else process
        self._known = {pid: process for pid, process in kept.items() if process is not None}
        return list(self._known.values())


def _devices(readings: DeviceReadings) -> list[dict[str, Any]] | None:
    """The readings as the file keeps them; None without a driver."""
    if readings.error is not None:
        return None
    devices = []
    for device in readings.devices:
        values = asdict(device)
        del values["processes"]
        devices.append(values)
    return devices
