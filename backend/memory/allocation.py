"""torch's own words about an allocation that failed, as numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

GAPS = 0.05
"""Share of torch's memory that lies in gaps without anything being wrong."""
Shortage = Literal["fragmentation", "others", "need"]

_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = r"(\d+(?:\.\d*)?) (bytes|KiB|MiB|GiB)"
_ASKED = re.compile(rf"[Tt]ried to allocate {_SIZE}")
_FIELDS = {
    # Before 2.1 a list in brackets, since then sentences; 2.1 itself writes "capacty".
    "total": (rf"total capac(?:i)?ty of {_SIZE}", rf"{_SIZE} total capacity"),
    "free": (rf"of which {_SIZE} is free", rf"{_SIZE} free"),
    "allocated": (rf"Of the allocated memory {_SIZE} is", rf"{_SIZE} already allocated"),
    "unallocated": (rf"{_SIZE} is reserved by PyTorch but unallocated",),
    "reserved": (rf"{_SIZE} reserved in total by PyTorch",),
    "process": (rf"this process has {_SIZE} memory in use",),
    "limit": (rf"{_SIZE} allowed;",),
}
_OTHER = re.compile(rf"Process (\d+) has {_SIZE} memory in use")
_DEVICE = re.compile(r"GPU (\d+)")
_HOST = (
    re.compile(r"can't allocate memory: you tried to allocate (\d+) (bytes)"),
    re.compile(rf"Unable to allocate {_SIZE} for an array"),
)


@dataclass(frozen=True)
class FailedAllocation:
    """An allocation that there was no room for; bytes, and None where nothing was said.

    Attributes:
        asked: What one tensor or buffer wanted.
        total: Size of the device.
        free: What the driver had left.
        allocated: What torch had handed out.
        unallocated: What torch held back between its blocks, in pieces too small.
        process: What this process had on the device, context included.
        limit: What torch was allowed to take, where it was limited.
        others: (process id, bytes) of other processes on the device.
        device: Index of the GPU; None for main memory.
        largest_free: Largest free block among torch's own, where the trainer looked.
        line: The words themselves.
    """

    asked: int
    total: int | None = None
    free: int | None = None
    allocated: int | None = None
    unallocated: int | None = None
    process: int | None = None
    limit: int | None = None
    others: tuple[tuple[int, int], ...] = ()
    device: int | None = None
    largest_free: int | None = None
    line: str = ""

    @property
    def on_device(self) -> bool:
        """Whether it was a GPU's memory; otherwise the machine's."""
        return self.device is not None

    @property
    def by_others(self) -> int:
        """Bytes of all other processes."""
        return sum(size for _, size in self.others)

    @property
    def stopped_by_limit(self) -> bool:
        """Whether the card itself had the room: then nobody else on it is to blame."""
        return self.free is not None and self.free >= self.asked

    @property
    def missing(self) -> int | None:
        """Bytes that were short, gaps not counted as room."""
        room = self.free
        if self.limit is not None and self.allocated is not None:
            left = max(0, self.limit - self.allocated - (self.unallocated or 0))
            room = left if room is None else min(room, left)
        return None if room is None else max(0, self.asked - room)

    @property
    def shortage(self) -> Shortage | None:
        """Why there was no room; None when the message does not tell.

        Gaps are to blame when they were large enough, and larger than torch always has some
        (`GAPS` of what it took); other processes when what they hold would have been enough,
        and the run was not stopped by a limit of its own; else the training needs more.
        """
        missing, gaps = self.missing, self.unallocated or 0
        if missing is None:
            return None
        if gaps >= missing and gaps > GAPS * ((self.allocated or 0) + gaps):
            return "fragmentation"
        if self.stopped_by_limit:
            return "need"
        return "others" if self.by_others >= missing else "need"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without what is unknown."""
        values = {name: value for name, value in vars(self).items() if value not in (None, ())}
        return values | {"shortage": self.shortage, "missing": self.missing}


def failed_allocation(text: str) -> FailedAllocation | None:
    """The numbers of a message about memory; None when it names no size."""
    asked = _ASKED.search(text)
    if asked is None or "CPUAllocator" in text:
        return _host_allocation(text)
    # A number above the device's size comes from a driver that does not know it.
    found = {name: _first(patterns, text) for name, patterns in _FIELDS.items()}
    reserved, allocated = found.pop("reserved"), found["allocated"]
    if found["unallocated"] is None and reserved is not None and allocated is not None:
        found["unallocated"] = max(0, reserved - allocated)
    total = found["total"]
    if total is not None and (found["process"] or 0) > total:
        found["process"] = None
    others = tuple(
        (int(pid), size)
        for pid, *words in _OTHER.findall(text)
        if total is None or (size := _bytes(*words)) <= total
    )
    device = _DEVICE.search(text)
    return FailedAllocation(
        asked=_bytes(*asked.groups()),
        others=_without_this_process(others, found["allocated"], found["unallocated"], found),
        device=int(device[1]) if device else 0,
        line=" ".join(text.split()),
        **found,
    )


def _without_this_process(
    others: tuple[tuple[int, int], ...],
    allocated: int | None,
    unallocated: int | None,
    found: dict[str, int | None],
) -> tuple[tuple[int, int], ...]:
    """Where the driver hides which process is ours, it is listed among the others.

    Then the list holds one that is as large as torch's own memory and a context.
    """
    if found["process"] is not None or allocated is None or not others:
        return others
    ours = allocated + (unallocated or 0)
    candidates = [one for one in others if one[1] >= ours]
    if not candidates:
        return others
    closest = min(candidates, key=lambda one: one[1])
    return tuple(one for one in others if one != closest)


def _host_allocation(text: str) -> FailedAllocation | None:
    for pattern in _HOST:
        if found := pattern.search(text):
            return FailedAllocation(_bytes(found[1], found[2]), line=" ".join(text.split()))
    return None


def _first(patterns: tuple[str, ...], text: str) -> int | None:
    for pattern in patterns:
        if found := re.search(pattern, text):
            return _bytes(found[1], found[2])
    return None


def _bytes(number: str, unit: str) -> int:
    return round(float(number) * _UNITS[unit])
