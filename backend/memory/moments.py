"""What a dying process can still say of itself: its moment in the step, and torch's memory."""

from __future__ import annotations

import sys
import traceback
from dataclasses import replace
from typing import Any

from backend.memory.allocation import FailedAllocation, failed_allocation
from backend.memory.deaths import last_sign
from backend.memory.frames import frames_of, place_of
from backend.runs import Reason


def reason_of(error: BaseException) -> Reason:
    """Name the cause of an unexpected exception; of one about memory also where and how much.

    The values hold `error`, and for memory as far as they are known `moment`, `module`,
    `recomputed` and `allocation` (`FailedAllocation` as plain values, bytes).
    """
    last = traceback.format_exception_only(error)[-1].strip()
    code = _code(error, last)
    values: dict[str, Any] = {"error": last}
    if code in ("device_memory", "host_memory"):
        values |= _memory(error, last)
    if code == "killed":
        values["signal"] = "SIGKILL"
    return Reason(code=code, values=values, evidence=[last])


def _code(error: BaseException, last: str) -> str:
    if type(error).__name__ == "OutOfMemoryError":
        return "device_memory"
    if isinstance(error, MemoryError):
        return "host_memory"
    if isinstance(error, OSError) and error.errno == 28:
        return "disk_full"
    sign = last_sign([last])
    return "unknown" if sign is None else sign.code


def _memory(error: BaseException, last: str) -> dict[str, Any]:
    place = place_of(frames_of(error))
    values: dict[str, Any] = {
        "moment": place.moment,
        "module": place.part,
        "recomputed": place.again or None,
    }
    allocation = failed_allocation(last)
    if allocation is not None:
        values["allocation"] = _looked_at(allocation).to_dict()
    return {name: value for name, value in values.items() if value is not None}


def _looked_at(allocation: FailedAllocation) -> FailedAllocation:
    """With the largest free block among torch's own, where this process has a device.

    It is looked at after the exception came up, so blocks that were freed on its way count.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or not allocation.on_device or not torch.cuda.is_initialized():
        return allocation
    try:
        segments = torch.cuda.memory_snapshot()
    except RuntimeError:
        # The device no longer answers: what the message says stays true.
        return allocation
    free = [
        int(block["size"])
        for segment in segments
        if segment["device"] == allocation.device
        for block in segment["blocks"]
        if block["state"] == "inactive"
    ]
    return replace(allocation, largest_free=max(free, default=0))
