"""What the last lines of a log say about how a program died."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

SIGNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("device_memory", re.compile(r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory")),
    (
        "disk_full",
        re.compile(
            r"No space left on device|Disk quota exceeded|\[Errno 28\]|"
            r"PytorchStreamWriter failed writing|inline_container.*unexpected pos"
        ),
    ),
    (
        "host_memory",
        re.compile(
            r"^(?:numpy\S*)?_?(?:Array)?MemoryError\b|Cannot allocate memory|std::bad_alloc|"
            r"DataLoader worker \(pid.*killed by signal: Killed|"
            r"DefaultCPUAllocator: can't allocate"
        ),
    ),
    ("shared_memory", re.compile(r"insufficient shared memory|unable to (?:open|write).*shm")),
    (
        "gpu_lost",
        re.compile(
            r"GPU is lost|fallen off the bus|GPU has fallen|Unable to determine the device handle|"
            r"NVRM: Xid .*79"
        ),
    ),
    (
        "version_clash",
        re.compile(
            r"undefined symbol|No module named '(?:transformers\.deepspeed|torch\._six)'|"
            r"ImportError: cannot import name|numpy\.dtype size changed|_ARRAY_API not found|"
            r"compiled using NumPy 1|"
            r"does not match the version torch was compiled with(?!.*accepting)|"
            r"mismatches the version that was used to compile|no kernel image is available|"
            r"operator torchvision::nms does not exist|NVIDIA driver on your system is too old|"
            r"driver version is insufficient|lib(?:cudart|cudnn|cublas|nvrtc)\S*: cannot open|"
            r"version `(?:GLIBC|GLIBCXX|CXXABI)\S*' not found|"
            r"validation errors? for DeepSpeed\w*Config"
        ),
    ),
    ("device_error", re.compile(r"CUDA error: |device-side assert")),
    (
        "compiler_missing",
        re.compile(
            r"Ninja is required|Error (?:building|compiling)\b.*extension|Unable to JIT load|"
            r"CUDA_HOME (?:does not|environment)|no attribute 'ds_opt_adam'|"
            r"(?:nvcc|g\+\+|c\+\+|cc1plus)'?: (?:command )?not found|"
            r"No such file or directory: '\S*(?:nvcc|g\+\+|c\+\+)'|fatal error: Python\.h"
        ),
    ),
    ("package_missing", re.compile(r"^(?:ModuleNotFoundError|ImportError):")),
    ("address_in_use", re.compile(r"Address already in use|EADDRINUSE")),
    ("no_permission", re.compile(r"Permission denied|Read-only file system")),
    (
        "communication",
        re.compile(
            r"NCCL error|nccl(?:System|Unhandled|Internal|Remote)\w*Error|"
            r"Watchdog caught collective operation timeout|Dist(?:Network|Store|Backend)Error|"
            r"[Gg]loo.*(?:error|failed|closed by|reset by|[Tt]imed out)|Socket Timeout"
        ),
    ),
    (
        "killed",
        re.compile(
            r"exits with return code = -9|exitcode\s*: -9|Signal 9 \(SIGKILL\)|Signals\.SIGKILL"
        ),
    ),
)
"""Reason code and how a line of a log says so; of several in one line the first counts."""
CONSEQUENCES = ("communication", "killed")
"""What one process says when another has died: any other sign tells more."""

ATTEMPT = "=== attempt {n} ==="
"""What stands in the log before a resumed attempt: its end is not explained by an earlier one."""


class Sign(NamedTuple):
    """What a line of a log says."""

    code: str
    line: str


def sign_of(line: str) -> Sign | None:
    """The sign in one line."""
    for code, pattern in SIGNS:
        if pattern.search(line):
            return Sign(code, line.strip())
    return None


def last_sign(lines: Sequence[str]) -> Sign | None:
    """The last sign that is no mere consequence of another; None when no line has one."""
    consequence = None
    for line in reversed(lines):
        sign = sign_of(line)
        if sign is None:
            continue
        if sign.code not in CONSEQUENCES:
            return sign
        consequence = consequence or sign
    return consequence


def last_attempt(lines: Sequence[str]) -> list[str]:
    """The lines of a log since the run was last resumed."""
    mark = ATTEMPT.partition("{")[0]
    begins = max((i for i, line in enumerate(lines) if line.startswith(mark)), default=-1)
    return list(lines[begins + 1 :])
