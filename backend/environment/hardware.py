"""Devices and memory."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import psutil

from backend.environment.checking import BOTH, LARGE, Check, CheckState, gib
from backend.environment.processes import process_tree, running
from backend.gpu import Device, DeviceReadings
from backend.workspace import Workspace

DEVICE_MEMORY = 15 << 29
"""Bytes that a card of 8 GB has: QLoRA with every lever reserves 7.6 GiB at the most."""
HOST_MEMORY = {"starter": 4 << 30, "mgm-2b": 16 << 30}
"""Bytes: model files are read through memory, and each loader process holds batches."""
SHARED_MEMORY = 1 << 30
"""Bytes: loader processes hand batches over in shared memory; containers often have 64 MiB."""
BUSY = 0.1
"""Share of a device's memory that others may hold before it is worth a warning."""
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def hardware_checks(workspace: Workspace, readings: DeviceReadings) -> list[Check]:
    """The devices as they were read, then the machine's memory and processors."""
    own = {pid for run in running(workspace) for pid in process_tree(run)}
    budget = workspace.settings.memory_budget_gib
    return [
        device_check(readings),
        device_lost_check(readings),
        device_memory_check(readings, None if budget is None else int(budget * 2**30)),
        device_free_check(readings, own),
        host_memory_check(host_memory(), workspace.settings.profile),
        shared_memory_check(shared_memory()),
        _cores(),
    ]


def device_check(readings: DeviceReadings) -> Check:
    """There is a device."""
    state: CheckState = "ok"
    if readings.error == "no_driver" or not (readings.devices or readings.error):
        state = "missing"
    elif readings.error is not None:
        state = "unknown"
    found = ", ".join(device.name or f"GPU {device.index}" for device in readings.devices)
    if state == "unknown":
        found = str(readings.error)
    return Check("gpu", "hardware", state, found, "1 NVIDIA GPU", LARGE)


def device_lost_check(readings: DeviceReadings) -> Check:
    """Every device answers."""
    lost = [f"GPU {one.index}: {one.error}" for one in readings.devices if one.error is not None]
    state: CheckState = "ok"
    if not readings.devices:
        state = "unknown"
    elif lost:
        state = "failed" if len(lost) == len(readings.devices) else "warning"
    return Check("gpu_lost", "hardware", state, ", ".join(lost), "", LARGE)


def device_memory_check(readings: DeviceReadings, budget: int | None) -> Check:
    """The largest device, or what the budget leaves of it, holds the smallest training."""
    known = [device.total for device in readings.devices if device.total is not None]
    needed = f"≥ {gib(DEVICE_MEMORY)}"
    if not known:
        return Check("gpu_memory", "hardware", "unknown", "", needed, LARGE)
    usable = min(max(known), budget or max(known))
    found = gib(usable) if usable == max(known) else f"{gib(usable)} / {gib(max(known))}"
    state: CheckState = "ok" if usable >= DEVICE_MEMORY else "failed"
    return Check("gpu_memory", "hardware", state, found, needed, LARGE)


def device_free_check(readings: DeviceReadings, own: Collection[int] = ()) -> Check:
    """Nobody but the processes `own` holds much of a device's memory."""
    held, known = [], False
    for device in readings.devices:
        others = held_by_others(device, own)
        known = known or others is not None
        if others is not None and device.total and others > BUSY * device.total:
            name = device.name or f"GPU {device.index}"
            held.append(f"{name}: {gib(others)} / {gib(device.total)}")
    state: CheckState = "warning" if held else "ok" if known else "unknown"
    return Check("gpu_free", "hardware", state, ", ".join(held), blocks=LARGE)


def held_by_others(device: Device, own: Collection[int]) -> int | None:
    """Bytes of a device that are not held by the processes `own`; None when nobody knows."""
    mine = [one.memory for one in device.processes or () if one.pid in own]
    told = [memory for memory in mine if memory is not None]
    if device.used is None or len(told) < len(mine) or (own and device.processes is None):
        return None
    return max(0, device.used - sum(told))


def host_memory_check(total: int, profile: str) -> Check:
    """The machine, or the container's share of it, has memory for the profile."""
    needed = HOST_MEMORY[profile]
    if total >= needed:
        state: CheckState = "ok"
    else:
        state = "failed" if total < HOST_MEMORY["starter"] else "warning"
    return Check("host_memory", "hardware", state, gib(total), f"≥ {gib(needed)}", BOTH)


def host_memory() -> int:
    """Bytes of memory that this process may use."""
    found = int(psutil.virtual_memory().total)
    for path in _LIMITS:
        text = path.read_text().strip() if path.is_file() else ""
        if text.isdecimal():
            found = min(found, int(text))
    return found


def shared_memory_check(total: int | None) -> Check:
    """Shared memory is not a container's stingy default; None where there is no such place."""
    needed = f"≥ {gib(SHARED_MEMORY)}"
    if total is None:
        return Check("shared_memory", "hardware", "unknown", "", needed)
    state: CheckState = "ok" if total >= SHARED_MEMORY else "warning"
    return Check("shared_memory", "hardware", state, gib(total), needed)


def shared_memory() -> int | None:
    """Bytes of the file system that POSIX shared memory lies on; None where it is elsewhere."""
    place = Path("/dev/shm")  # noqa: S108
    return psutil.disk_usage(str(place)).total if place.is_dir() else None


def _cores() -> Check:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if count is None:
        return Check("cpu", "hardware", "unknown", "", "≥ 2")
    return Check("cpu", "hardware", "ok" if count >= 2 else "warning", str(count), "≥ 2")
