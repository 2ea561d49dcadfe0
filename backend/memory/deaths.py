"""What the last lines of a log say about how a program died."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from backend.memory.frames import RANK, traces

SIGNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "device_memory",
        re.compile(
            r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory|"
            r"Cuda failure (?:\d+ )?'out of memory'|"
            r"CU(?:BLAS|DNN|SOLVER|SPARSE)_STATUS_(?!\w*HOST_ALLOC)\w*ALLOC\w*FAILED"
        ),
    ),
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
            r"DefaultCPUAllocator: can't allocate|_HOST_ALLOC\w*FAILED|"
            # The kernel, a control group, and slurm.
            r"[Oo]ut of memory: Kill(?:ed)? process|invoked oom-killer|oom-kill:constraint=|"
            r"[Oo]om[-_]kill event|OOM[ -]?[Kk]illed|task \d+: Out Of Memory"
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
            r"No such file or directory: '\S*(?:nvcc|g\+\+|c\+\+)'|fatal error: Python\.h|"
            r"Failed to find C compiler|No working C\+\+ compiler|InvalidCxxCompiler"
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
            r"[Gg]loo.*(?:error|failed|closed by|reset by|[Tt]imed out)|Socket Timeout|"
            r"Connection reset by peer|Unable to (?:find|resolve) address"
        ),
    ),
    (
        "killed",
        re.compile(
            r"exits with return code = -9|exitcode\s*: -9|Signal 9 \(SIGKILL\)|Signals\.SIGKILL|"
            # What a shell prints, by itself or behind a progress bar, and slurm's srun.
            r"(?:^|[\s:])\d+ Killed(?:\s|$)|^\[\d+\][-+]?\s+(?:\d+ )?[Kk]illed\s|^zsh: killed|"
            r"(?:^|\])\s*Killed$|task \d+: Killed"
        ),
    ),
)
"""Reason code and how a line of a log says so; of several in one line the first counts."""
CONSEQUENCES = ("communication", "killed")
"""What one process says when another has died: any other sign tells more."""
FATAL = (
    "device_memory", "host_memory", "shared_memory", "disk_full", "gpu_lost", "device_error",
    "killed",
)  # fmt: skip
"""What hardly anybody survives; the others are also said in passing by trainings that go on."""
NOTICES = ("no_permission", "package_missing")
"""What is often said in passing: beside a traceback of another error it explains nothing."""

FINISHED = "'train_runtime'"
"""In the Trainer's summary, after the last step."""
_STEP = re.compile(r"\{[^{}]*'loss': |^step \d+/\d+  loss ")
_BAR = re.compile(r"^\s*\d+%\|[^|]*\|\s*(\d+)/(\d+) \[")
_ENDED = re.compile(
    r"exits with return code = -?[1-9]|exitcode\s*: -?[1-9]|ChildFailedError|"
    r"terminate called after|Segmentation fault|\(core dumped\)"
)
_LAST_STEPS = 3
"""Signs of life (a row and a bar each) back to which another process may have died already."""

ATTEMPT = "=== attempt {n} ==="
"""What stands in the log before a resumed attempt: its end is not explained by an earlier one."""


class Sign(NamedTuple):
    """What a line of a log says."""

    code: str
    line: str


def sign_of(line: str) -> Sign | None:
    """The sign in one line, which may begin with a process's rank."""
    said = RANK.sub("", line).strip()
    for code, pattern in SIGNS:
        if pattern.search(said):
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


def death_sign(lines: Sequence[str], *, ended: bool = False) -> Sign | None:
    """What killed the training whose log this is; None when nothing says that it died.

    What was said before a later step of a training that goes on killed nothing, nor what was said
    before its summary. Code `unknown` stands for an error that no sign knows.

    Args:
        lines: Of the log, a progress bar's returns being ends of lines.
        ended: Whether it is known otherwise that it died.
    """
    finished = max((i for i, line in enumerate(lines) if FINISHED in line), default=None)
    lines = lines[finished or 0 :]
    alive = _signs_of_life(lines)
    begins = alive[-1] if alive else 0
    after = lines[begins:]
    found = traces(after)
    last_word = next((line.strip() for line in reversed(after) if _ENDED.search(line)), None)
    sign = last_sign(after)
    if not (ended or last_word) and (alive or finished is not None):
        if any("exits successfully" in line for line in after):
            return None
        if not found:
            return sign if sign is not None and sign.code in FATAL else None
    errors = [one.error for one in found]
    if sign is None or sign.code in CONSEQUENCES:
        recent = lines[alive[-_LAST_STEPS] if len(alive) >= _LAST_STEPS else 0 :]
        known = (sign_of(one.error) for one in reversed(traces(recent)))
        sign = next((one for one in known if one and one.code in FATAL), sign)
    passing = sign is not None and sign.code in NOTICES
    if errors and (sign is None or (passing and not any(map(sign_of, errors)))):
        return Sign("unknown", errors[-1])
    return sign or (Sign("unknown", last_word) if last_word else None)


def _signs_of_life(lines: Sequence[str]) -> list[int]:
    """Where a step's figures stand, or a progress bar without a title moves on.

    A bar that ends with its process is printed once more where it stood.
    """
    found: list[int] = []
    shown: dict[str, str] = {}
    for i, line in enumerate(lines):
        bar = _BAR.match(line)
        if bar is not None:
            moved = int(bar[1]) > 0 and shown.get(bar[2]) != bar[1]
            shown[bar[2]] = bar[1]
            if moved:
                found.append(i)
                continue
        if _STEP.search(line):
            found.append(i)
    return found


def last_attempt(lines: Sequence[str]) -> list[str]:
    """The lines of a log since the run was last resumed."""
    mark = ATTEMPT.partition("{")[0]
    begins = max((i for i, line in enumerate(lines) if line.startswith(mark)), default=-1)
    return list(lines[begins + 1 :])
