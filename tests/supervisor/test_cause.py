from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.memory.deaths import SIGNS
from backend.messages import LANGUAGES, message
from backend.runs import Run, RunStatus
from backend.supervisor.cause import cause_of_death
from backend.supervisor.kernel import KillCounter, group_file, kernel_lines, kill_count

KILLED = RunStatus(signal="SIGKILL", exit_code=-9)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 MiB", "device_memory"),
        ("RuntimeError: CUDA error: out of memory", "device_memory"),
        ("RuntimeError: CUDA error: device-side assert triggered", "device_error"),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 9 TiB", "host_memory"),
        ("RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed.", "host_memory"),
        ("ERROR: Unexpected bus error ... insufficient shared memory (shm)", "shared_memory"),
        ("torch.distributed.DistBackendError: NCCL error in: x.cpp:1", "communication"),
        ("RuntimeError: Ninja is required to load C++ extensions", "compiler_missing"),
        ("ModuleNotFoundError: No module named 'flash_attn'", "package_missing"),
        ("OSError: [Errno 98] Address already in use", "address_in_use"),
        ("PermissionError: [Errno 13] Permission denied: 'x'", "no_permission"),
        (
            "ImportError: flash_attn_2_cuda.so: undefined symbol: _ZN3c104cuda9SetDeviceEi",
            "version_clash",
        ),
        ("ModuleNotFoundError: No module named 'transformers.deepspeed'", "version_clash"),
        (
            "ImportError: cannot import name 'LlamaFlashAttention2' from 'transformers'",
            "version_clash",
        ),
        (
            "A module that was compiled using NumPy 1.x cannot be run in NumPy 2.1.0",
            "version_clash",
        ),
        (
            "ValueError: numpy.dtype size changed, may indicate binary incompatibility.",
            "version_clash",
        ),
        (
            "RuntimeError: The detected CUDA version (11.8) mismatches the version that was used "
            "to compile PyTorch (12.1).",
            "version_clash",
        ),
        (
            "Exception: Installed CUDA version 12.1 does not match the version torch was "
            "compiled with 11.7",
            "version_clash",
        ),
        (
            "RuntimeError: CUDA error: no kernel image is available for execution on the device",
            "version_clash",
        ),
        ("RuntimeError: operator torchvision::nms does not exist", "version_clash"),
        (
            "pydantic_core.ValidationError: 1 validation error for DeepSpeedZeroConfig",
            "version_clash",
        ),
        (
            "AttributeError: 'DeepSpeedCPUAdam' object has no attribute 'ds_opt_adam'",
            "compiler_missing",
        ),
        (
            "FileNotFoundError: [Errno 2] No such file or directory: '/usr/local/cuda/bin/nvcc'",
            "compiler_missing",
        ),
        ("/bin/sh: 1: g++: not found", "compiler_missing"),
        ("NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.", "gpu_lost"),
        (
            "[PG 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3)",
            "communication",
        ),
        (
            "RuntimeError: [../gloo/transport/tcp/pair.cc:534] Connection closed by peer",
            "communication",
        ),
        (
            "RuntimeError: [enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0",
            "disk_full",
        ),
        (
            "[ERROR] [launch.py:321:sigkill_handler] ['python'] exits with return code = -9",
            "killed",
        ),
        ("ValueError: odd", "unknown"),
    ],
)
def test_the_log_names_the_cause(run: Run, line: str, code: str):
    run.log_path.write_text(f"before\n{line}\nafter\n")
    reason = cause_of_death(run, RunStatus(exit_code=1), [])
    assert reason.code == code
    assert line in reason.evidence


def test_the_last_sign_in_a_log_wins(run: Run):
    run.log_path.write_text("Address already in use\nretrying\nCUDA out of memory\n")
    assert cause_of_death(run, RunStatus(exit_code=1), []).code == "device_memory"


def test_what_a_process_says_that_misses_another_counts_last(run: Run):
    run.log_path.write_text(
        "[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n"
        "[rank0]: torch.distributed.DistBackendError: NCCL error in: remote process exited\n"
        "torch.distributed.elastic: failed (exitcode: -9) local_rank: 1, Signal 9 (SIGKILL)\n"
    )
    assert cause_of_death(run, RunStatus(exit_code=1), []).code == "device_memory"


def test_an_earlier_attempts_end_explains_nothing(run: Run):
    run.log_path.write_text("CUDA out of memory\n=== attempt 2 ===\nstep 5/9\n")
    assert cause_of_death(run, KILLED, []).code == "killed"


def test_a_kill_by_the_kernel_is_told_from_another_kill(run: Run):
    assert cause_of_death(run, KILLED, []).code == "killed"
    reason = cause_of_death(run, KILLED, ["Killed process 7 (python)"])
    assert (reason.code, reason.evidence[0]) == ("host_memory", "Killed process 7 (python)")


def test_a_crash_of_its_own_is_not_blamed_on_a_kill_elsewhere(run: Run):
    crashed = RunStatus(signal="SIGSEGV", exit_code=-11)
    reason = cause_of_death(run, crashed, ["/proc/vmstat: oom_kill rose by 1"])
    assert (reason.code, reason.values["signal"]) == ("signal", "SIGSEGV")


def test_only_the_tail_of_a_long_log_is_read(run: Run):
    run.log_path.write_text("CUDA out of memory\n" + "fine\n" * 200_000)
    assert cause_of_death(run, RunStatus(exit_code=1), []).code == "unknown"


def test_every_cause_has_its_sentences():
    codes = {code for code, _ in SIGNS} | {
        "completed",
        "stopped_by_person",
        "stopped_by_force",
        "killed",
        "signal",
        "not_started",
        "lost",
        "unknown",
        "bad_input",
    }
    values = dict.fromkeys(("error", "signal", "seconds", "place", "problem", "remedy"), "x")
    for language in LANGUAGES:
        for code in codes:
            assert message(f"reason.{code}", language, **values)
            assert message(f"reason.{code}.remedy", language, **values)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("memory.events", "low 0\nhigh 0\nmax 5\noom 2\noom_kill 3\noom_group_kill 0\n"),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
    ],
)
def test_both_kinds_of_control_groups_are_counted(tmp_path: Path, file: str, text: str):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert kill_count(path) == 3


def test_a_container_finds_its_group_at_the_root_of_the_mount(tmp_path: Path):
    (tmp_path / "memory").mkdir()
    counters = [tmp_path / "memory.events", tmp_path / "memory" / "memory.oom_control"]
    assert group_file(os.getpid(), tmp_path) is None
    for path in counters:
        path.write_text("oom_kill 0\n")
    assert group_file(os.getpid(), tmp_path) in counters


def test_a_counter_that_rose_is_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    events = tmp_path / "memory.events"
    events.write_text("oom_kill 3\n")
    monkeypatch.setattr("backend.supervisor.kernel.group_file", lambda pid: events)
    counter = KillCounter(os.getpid())
    assert counter.evidence() == []
    events.write_text("oom_kill 4\n")
    assert counter.evidence() == [f"{events}: oom_kill rose by 1 while the run was watched"]


def test_the_kernel_log_is_searched_for_this_process(tmp_path: Path):
    log = tmp_path / "kmsg"
    log.write_text(
        "3,1,5,-;Out of memory: Killed process 4711 (python) total-vm:1kB\n"
        "3,2,6,-;Out of memory: Killed process 47 (python) total-vm:1kB\n"
    )
    assert kernel_lines(47, log) == ["Out of memory: Killed process 47 (python) total-vm:1kB"]
    assert kernel_lines(47, tmp_path / "none") == []
