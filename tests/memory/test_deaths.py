"""Which logs are a death's and which a living training's, in the words that real programs print."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.memory.deaths import death_sign, sign_of
from backend.memory.explain import explain_log

LOGS = Path(__file__).parents[1] / "data" / "logs"
KIT = Path(__file__).parents[3] / "shared" / "data" / "kit_run" / "pretrain.log"
STEPS = [
    "  4%|▍         | 4/93 [00:20<06:40,  4.5s/it]",
    "{'loss': 2.4, 'grad_norm': 1.1, 'learning_rate': 2e-05, 'epoch': 0.04}",
    "  5%|▌         | 5/93 [00:25<06:36,  4.5s/it]",
]
SUMMARY = "{'train_runtime': 320.1, 'train_loss': 2.3, 'epoch': 1.0}"
OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
    "capacity of 23.65 GiB of which 1.20 GiB is free."
)
TRACE = ["Traceback (most recent call last):", '  File "train.py", line 9, in train', "    f(x)"]
WARNINGS = [
    "/usr/bin/which: Permission denied",
    "ImportError: flash_attn is not installed, falling back to sdpa",
    "CUDA_HOME environment variable is not set, CUDA ops are not compiled",
    "numpy.dtype size changed, may indicate binary incompatibility",
]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("train.sh: line 12: 12345 Killed                  python train.py", "killed"),
        ("bash: line 1:   977 Killed  python -m x", "killed"),
        ("[1]+  Killed                  python train.py", "killed"),
        ("zsh: killed     python train.py", "killed"),
        ("Killed", "killed"),
        ("srun: error: node7: task 0: Killed", "killed"),
        ("[ 95.1] Out of memory: Killed process 4242 (python) total-vm:1kB", "host_memory"),
        ("Out of memory: Kill process 4242 (python) score 911", "host_memory"),
        ("Memory cgroup out of memory: Killed process 42 (python)", "host_memory"),
        ("oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=a", "host_memory"),
        ("python invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0", "host_memory"),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.batch.", "host_memory"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0", "host_memory"),
        ("Some of the step tasks have been OOM Killed.", "host_memory"),
        (
            "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(h)`",
            "device_memory",
        ),
        ("RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "device_memory"),
        ("[rank1]: ncclUnhandledCudaError: Cuda failure 2 'out of memory'", "device_memory"),
        ("RuntimeError: Failed to find C compiler. Please specify via CC", "compiler_missing"),
        ("InductorError: InvalidCxxCompiler: No working C++ compiler found", "compiler_missing"),
        ("[rank1]: RuntimeError: Connection reset by peer", "communication"),
        (
            "[enforce fail at ../gloo/device.cc:84] ifa != nullptr. Unable to find address for: x",
            "communication",
        ),
        ("[rank0]: ModuleNotFoundError: No module named 'apex'", "package_missing"),
        ("[2024-08-11 10:02:40] [INFO] [launch.py:315] Killing subprocess 5523", None),
        ("skilled workers, 5 Killedeer", None),
    ],
)
def test_a_line_says_how_it_died(line: str, code: str | None) -> None:
    found = sign_of(line)
    assert (found.code if found else None) == code


@pytest.mark.parametrize(
    "end",
    [
        "train.sh: line 3: 12345 Killed                  python train.py",
        STEPS[-1] + "Killed",
        STEPS[-1] + "train.sh: line 3: 12345 Killed   python train.py",
    ],
)
def test_a_shells_word_at_5_of_93_is_a_death(tmp_path: Path, end: str) -> None:
    path = tmp_path / "train.log"
    path.write_text("\n".join(["/usr/bin/which: Permission denied", *STEPS, end]) + "\n")
    found = explain_log(path)
    assert found is not None
    assert (found.code, found.line) == ("killed", end.strip())


@pytest.mark.parametrize("warning", WARNINGS)
@pytest.mark.parametrize("behind", [STEPS, STEPS[:1], ["step 3/20  loss 4.1  lr 1.00e-03"]])
def test_what_was_said_before_a_later_step_killed_nothing(warning: str, behind: list[str]) -> None:
    assert death_sign([warning, *behind]) is None
    assert death_sign([*behind, warning]) is None
    assert death_sign([*TRACE, "ImportError: no flash_attn", *behind]) is None


@pytest.mark.parametrize("warning", WARNINGS)
def test_a_warning_does_not_hide_the_true_end(warning: str) -> None:
    assert death_sign([warning, *STEPS, *TRACE, OOM]).code == "device_memory"
    assert death_sign([warning, *STEPS, *TRACE, "ValueError: odd"]).line == "ValueError: odd"
    told = death_sign([warning, *STEPS, "[ERROR] ['python'] exits with return code = 1"])
    assert told.code == "unknown"


def test_a_warning_in_passing_is_not_the_reason_of_another_error() -> None:
    sign = death_sign([WARNINGS[0], *TRACE, "ValueError: odd"])
    assert (sign.code, sign.line) == ("unknown", "ValueError: odd")
    sign = death_sign([*TRACE, "PermissionError: [Errno 13] Permission denied: 'x'"])
    assert sign.code == "no_permission"


def test_a_training_that_ended_well_stays_well() -> None:
    rank = "[rank1]:[W] TCPStore recvValue failed: Connection reset by peer"
    python = ["Exception ignored in: <function X.__del__>", *TRACE, "ImportError: shutting down"]
    success = "[INFO] [launch.py:347:main] Process 4333 exits successfully."
    assert death_sign([*STEPS, SUMMARY, rank, *python]) is None
    assert death_sign([*STEPS, SUMMARY, rank, success]) is None
    saving = [*TRACE, "OSError: [Errno 28] No space left on device"]
    assert death_sign([*STEPS, SUMMARY, *saving]).code == "disk_full"


def test_memory_counts_though_another_process_told_one_step_more() -> None:
    rank = [f"[rank1]: {line}" for line in (*TRACE, OOM)]
    end = "[ERROR] ['python'] exits with return code = -9"
    assert death_sign([*STEPS, *rank, STEPS[1], end]).code == "device_memory"
    # Of a much earlier attempt it does not count.
    assert death_sign([*rank, *STEPS, *STEPS, "Killed"]).code == "killed"


def test_an_attempt_after_a_death_lives() -> None:
    assert death_sign([*STEPS, *TRACE, OOM, "  0%|          | 0/93 [00:00<?, ?it/s]"])
    assert death_sign([*STEPS, *TRACE, OOM, *STEPS]) is None


@pytest.mark.skipif(not KIT.is_file(), reason="the kit's log lies beside the project only")
def test_the_second_stages_death_is_not_hidden_by_the_firsts_end(tmp_path: Path) -> None:
    path = tmp_path / "both.log"
    path.write_text(KIT.read_text() + (LOGS / "kit_logits.log").read_text())
    both, alone = explain_log(path), explain_log(LOGS / "kit_logits.log")
    assert both is not None and alone is not None
    assert (both.code, both.stage) == ("device_memory", "finetune")
    assert (both.settings, both.place, both.tensor) == (alone.settings, alone.place, alone.tensor)
