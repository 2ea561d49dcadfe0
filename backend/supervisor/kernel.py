"""Whether the kernel killed processes because main memory ran out."""

from __future__ import annotations

import os
import re
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
VMSTAT = Path("/proc/vmstat")
KMSG = Path("/dev/kmsg")
_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class KillCounter:
    """Counts the kernel's kills from now on: in the child's control group and on the machine."""

    def __init__(self, pid: int):
        self._pid = pid
        self._group = group_file(pid)
        self._group_before = kill_count(self._group)
        self._machine_before = self._machine_now = kill_count(VMSTAT)

    def look(self) -> None:
        """Remember the machine's count, so that only a kill after this moment is held for ours."""
        self._machine_before, self._machine_now = self._machine_now, kill_count(VMSTAT)

    def evidence(self) -> list[str]:
        """What tells that the kernel killed for memory; empty when nothing does."""
        lines = kernel_lines(self._pid)
        now = kill_count(self._group)
        if self._group_before is not None and now is not None and now > self._group_before:
            count = now - self._group_before
            lines.append(f"{self._group}: oom_kill rose by {count} while the run was watched")
        machine = kill_count(VMSTAT)
        if self._machine_before is not None and machine is not None:
            count = machine - self._machine_before
            if count > 0:
                lines.append(f"{VMSTAT}: oom_kill rose by {count} when the process died")
        return lines


def group_file(pid: int, root: Path = CGROUPS) -> Path | None:
    """The file that counts the memory kills of the control group of `pid`; None without one."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    candidates = []
    for line in groups:
        _, controllers, path = line.split(":", 2)
        inside = path.lstrip("/")
        if "memory" in controllers.split(","):
            # Inside a container its own group is mounted as the root.
            candidates += [root / "memory" / inside / "memory.oom_control"]
            candidates += [root / "memory" / "memory.oom_control"]
        elif not controllers:
            candidates += [root / inside / "memory.events", root / "memory.events"]
    return next((path for path in candidates if kill_count(path) is not None), None)


def kill_count(path: Path | None) -> int | None:
    """The file's `oom_kill` counter; None when there is none."""
    if path is None:
        return None
    try:
        found = _COUNT.search(path.read_text(encoding="utf-8"))
    except OSError:
        return None
    return int(found[1]) if found else None


def kernel_lines(pid: int, path: Path = KMSG) -> list[str]:
    """The kernel's messages about killing `pid`; empty where they may not be read."""
    sign = re.compile(rf"(?:Killed process|Out of memory).*\b{pid}\b")
    lines: list[str] = []
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return lines
    try:
        while record := os.read(descriptor, 8192):
            text = record.decode(errors="replace")
            lines += [
                line.partition(";")[2] or line for line in text.splitlines() if sign.search(line)
            ]
    except OSError:
        # No more messages for now, or they were overwritten while we read.
        return lines
    finally:
        os.close(descriptor)
    return lines
