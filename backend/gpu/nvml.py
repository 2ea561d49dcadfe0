"""The one gateway to NVIDIA's management library. What the driver does not tell is None."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

import pynvml

T = TypeVar("T")

_LOCK = threading.Lock()
_opened = False


@dataclass(frozen=True)
class DeviceProcess:
    """A process that uses a device."""

    pid: int
    memory: int | None
    """Bytes; None where the driver does not tell (containers, WSL)."""


@dataclass(frozen=True)
class Device:
    """One reading of one device; bytes, percent, watts, degrees Celsius."""

    index: int
    name: str | None = None
    uuid: str | None = None
    total: int | None = None
    used: int | None = None
    """Of all processes together, and the driver's own."""
    utilization: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    temperature_c: int | None = None
    processes: tuple[DeviceProcess, ...] | None = None
    """Computing processes; None where the driver does not tell."""
    error: str | None = None
    """`lost`, or the driver's word, when the device does not answer."""


@dataclass(frozen=True)
class DeviceReadings:
    """All devices, or why there are none to see."""

    devices: tuple[Device, ...] = ()
    driver: str | None = None
    error: str | None = None
    """`no_driver`, or the driver's word."""
    at: float = 0.0
    """Seconds since the epoch."""


def read_devices() -> DeviceReadings:
    """One reading of every device; never raises for what a driver does.

    The library stays open between readings, so that one each second costs little.
    """
    global _opened
    now = time.time()
    with _LOCK:
        try:
            if not _opened:
                pynvml.nvmlInit()
                _opened = True
            count = pynvml.nvmlDeviceGetCount()
            devices = tuple(_read(index) for index in range(count))
            return DeviceReadings(devices, _ask(pynvml.nvmlSystemGetDriverVersion), None, now)
        except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
            _opened = False
            return DeviceReadings(error="no_driver", at=now)
        except pynvml.NVMLError as error:
            # The driver may have been reloaded below us: the next reading opens it anew.
            _opened = False
            return DeviceReadings(error=str(error), at=now)


def process_memory(readings: DeviceReadings, pids: Collection[int]) -> int | None:
    """Bytes that `pids` hold on all devices; None when the driver does not tell.

    A driver that lists none of them may see other pids than we do (containers): unknown too.
    """
    found = [
        process.memory
        for device in readings.devices
        for process in device.processes or ()
        if process.pid in pids
    ]
    known = [memory for memory in found if memory is not None]
    return sum(known) if found and len(known) == len(found) else None


def _ask(query: Callable[[], T]) -> T | None:
    """The answer, or None where this device or driver does not support the question."""
    try:
        return query()
    except (
        pynvml.NVMLError_NotSupported,
        pynvml.NVMLError_NoPermission,
        pynvml.NVMLError_FunctionNotFound,
    ):
        return None


def _read(index: int) -> Device:
    try:
        handle: Any = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = _ask(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
        rates = _ask(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))
        power = _ask(lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
        limit = _ask(lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle))
        running = _ask(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
        return Device(
            index=index,
            name=_ask(lambda: pynvml.nvmlDeviceGetName(handle)),
            uuid=_ask(lambda: pynvml.nvmlDeviceGetUUID(handle)),
            total=None if memory is None else memory.total,
            used=None if memory is None else memory.used,
            utilization=None if rates is None else rates.gpu,
            power_w=None if power is None else power / 1000,
            power_limit_w=None if limit is None else limit / 1000,
            temperature_c=_ask(
                lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
            ),
            processes=None
            if running is None
            else tuple(DeviceProcess(one.pid, one.usedGpuMemory) for one in running),
        )
    except pynvml.NVMLError_GpuIsLost:
        return Device(index=index, error="lost")
    except pynvml.NVMLError as error:
        return Device(index=index, error=str(error))
