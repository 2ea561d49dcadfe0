"""Why a stage died without a last word: from the kernel, its exit, the disk and its log."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from backend.runs import Reason, Run, RunStatus

TAIL_LINES = 40
EVIDENCE_LINES = 12
TAIL_BYTES = 64 * 1024
FULL_BYTES = 1024 * 1024
SIGNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("device_memory", re.compile(r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory")),
    ("disk_full", re.compile(r"No space left on device|Disk quota exceeded|\[Errno 28\]")),
    (
        "host_memory",
        re.compile(
            r"^(?:numpy\S*)?_?(?:Array)?MemoryError\b|Cannot allocate memory|std::bad_alloc|"
            r"DataLoader worker \(pid.*killed by signal: Killed|DefaultCPUAllocator: can't allocate"
        ),
    ),
    ("shared_memory", re.compile(r"insufficient shared memory|unable to (?:open|write).*shm")),
    ("gpu_lost", re.compile(r"GPU is lost|fallen off the bus|GPU has fallen")),
    ("device_error", re.compile(r"CUDA error: |device-side assert")),
    (
        "communication",
        re.compile(r"NCCL error|ncclSystemError|[Gg]loo.*(?:error|failed|closed by)"),
    ),
    (
        "compiler_missing",
        re.compile(
            r"Ninja is required|Error building extension|CUDA_HOME (?:does not|environment)"
        ),
    ),
    ("package_missing", re.compile(r"^(?:ModuleNotFoundError|ImportError):|undefined symbol")),
    ("address_in_use", re.compile(r"Address already in use|EADDRINUSE")),
    ("no_permission", re.compile(r"Permission denied|Read-only file system")),
)
"""Reason code and how a line of the log says so; the last line with a sign wins."""


def last_lines(path: Path, count: int = TAIL_LINES) -> list[str]:
    """The last lines of a log, without reading all of it."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()[-count:]


def cause_of_death(
    run: Run, status: RunStatus, kernel: list[str], disk: str | None = None
) -> Reason:
    """Name the cause as far as there is evidence; otherwise show the last lines.

    Args:
        run: The run whose child is gone.
        status: With exit code and signal, as far as they were seen.
        kernel: The kernel's words that it killed for want of memory.
        disk: What the disk said when the supervisor itself could not write.
    """
    lines = last_lines(run.log_path)
    tail = lines[-EVIDENCE_LINES:]
    if kernel and status.signal in ("SIGKILL", None):
        return Reason(code="host_memory", values={"error": kernel[0]}, evidence=kernel + tail)
    for line in reversed(lines):
        for code, sign in SIGNS:
            if sign.search(line):
                return Reason(code=code, values={"error": line.strip()}, evidence=tail)
    if disk is None and _disk_is_full(run.path):
        disk = f"{run.path}: less than 1 MiB is free"
    if disk is not None:
        # A stage cannot write down that it could not write.
        return Reason(code="disk_full", values={"error": disk}, evidence=[disk, *tail])
    if status.signal == "SIGKILL":
        return Reason(code="killed", values={"signal": "SIGKILL"}, evidence=tail)
    if status.signal is not None:
        return Reason(code="signal", values={"signal": status.signal}, evidence=tail)
    return Reason(code="unknown", values={"error": _last_word(lines, status)}, evidence=tail)


def _last_word(lines: list[str], status: RunStatus) -> str:
    code = "unknown" if status.exit_code is None else status.exit_code
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"exit code {code}" + (f", last line: {said}" if said else "")


def _disk_is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path).free < FULL_BYTES
    except OSError:
        return False
