"""Why a stage died without a last word: from the kernel, its exit, the disk and its log."""

from __future__ import annotations

import shutil
from pathlib import Path

from backend.files import tail_lines
from backend.memory.deaths import Sign, death_sign, last_attempt
from backend.runs import Reason, Run, RunStatus

TAIL_LINES = 400
EVIDENCE_LINES = 12
TAIL_BYTES = 64 * 1024
FULL_BYTES = 1024 * 1024


def last_lines(path: Path, count: int = TAIL_LINES) -> list[str]:
    """The last lines of a log's last attempt, without reading all of it."""
    return last_attempt(tail_lines(path, TAIL_BYTES)[-count:])


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
    sign = death_sign(lines, ended=True)
    if sign is not None and sign.code not in ("killed", "unknown"):
        return Reason(code=sign.code, values={"error": sign.line}, evidence=_around(lines, sign))
    if disk is None and _disk_is_full(run.path):
        disk = f"{run.path}: less than 1 MiB is free"
    if disk is not None:
        # A stage cannot write down that it could not write.
        return Reason(code="disk_full", values={"error": disk}, evidence=[disk, *tail])
    if status.signal == "SIGKILL" or (sign is not None and sign.code == "killed"):
        return Reason(code="killed", values={"signal": "SIGKILL"}, evidence=tail)
    if status.signal is not None:
        return Reason(code="signal", values={"signal": status.signal}, evidence=tail)
    return Reason(code="unknown", values={"error": _last_word(lines, status)}, evidence=tail)


def _around(lines: list[str], sign: Sign) -> list[str]:
    """The line that says it with what stands before it, and the end of the log."""
    at = max(i for i, line in enumerate(lines) if line.strip() == sign.line)
    if at >= len(lines) - EVIDENCE_LINES:
        return lines[-EVIDENCE_LINES:]
    return [*lines[max(0, at - EVIDENCE_LINES // 2) : at + 1], "…", *lines[-EVIDENCE_LINES // 2 :]]


def _last_word(lines: list[str], status: RunStatus) -> str:
    code = "unknown" if status.exit_code is None else status.exit_code
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"exit code {code}" + (f", last line: {said}" if said else "")


def _disk_is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path).free < FULL_BYTES
    except OSError:
        return False
