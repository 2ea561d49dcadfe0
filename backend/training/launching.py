"""Starting the processes that train together, and telling how they ended. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from backend.files import read_json
from backend.gpu.visible import VARIABLE
from backend.memory.deaths import CONSEQUENCES
from backend.runs import Outcome, Reason, Run, RunFailed, State
from backend.stages.base import StageContext, StopRequested
from backend.supervisor.cause import cause_of_death
from backend.supervisor.kernel import KillCounter
from backend.training.parameters import TrainingParameters
from backend.workspace import Workspace

if TYPE_CHECKING:
    from backend.training.trainer import Job

ROOT = Path(__file__).parents[2]
WORKER = "backend.stages.training_worker"
TICK_S = 0.2
GRACE_S = 20.0
"""Seconds that processes have to end after one of them has failed."""
STOP = "stop"
CARDS_VARIABLE = "SYNTHLOOP_VISIBLE_CARDS"
"""Tells a worker the cards that its stage saw: DeepSpeed's launcher numbers them anew from 0."""
STAGE_VARIABLE = "SYNTHLOOP_STAGE_PID"
"""Tells a worker the process of its stage; it saves and stops when that is gone."""

MakeJob = Callable[[Workspace, TrainingParameters], "Job"]


def train(context: StageContext, parameters: TrainingParameters, make_job: MakeJob) -> None:
    """Train as the parameters ask: here, or in processes of their own.

    Raises:
        RunFailed: The run did not learn, or a process failed; its reason is that process's.
        StopRequested: A person asked to stop; a checkpoint is saved.
    """
    if parameters.launched:
        _launch(context, parameters)
        return
    from backend.training.trainer import run

    run(context, parameters, make_job(context.workspace, parameters))


def workers_folder(run: Run) -> Path:
    """Where the processes of a run leave their last words, and find the wish to stop."""
    return run.path / "workers"


def _launch(context: StageContext, parameters: TrainingParameters) -> None:
    folder = workers_folder(context.run)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    process = subprocess.Popen(
        command(parameters, context.run.path),
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment(),
        # In our session, so that whoever ends it ends them; not in our group, so that a TERM to
        # the group is ours to hand on: a launcher that gets it kills before anything is saved.
        process_group=0,
    )
    kills = KillCounter(process.pid)
    try:
        _watch(context, process, folder, kills)
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    _conclude(context, parameters.devices, process.returncode, kills)


def _watch(
    context: StageContext, process: subprocess.Popen[bytes], folder: Path, kills: KillCounter
) -> None:
    deadline = None
    while process.poll() is None:
        if context.stop_requested:
            (folder / STOP).touch()
        if deadline is None and any(word.state is State.FAILED for word in _last_words(folder)):
            deadline = time.monotonic() + GRACE_S
        if deadline is not None and time.monotonic() > deadline:
            return
        kills.look()
        time.sleep(TICK_S)


def command(parameters: TrainingParameters, run: Path) -> list[str]:
    """The launcher's command line."""
    count = str(parameters.devices)
    if parameters.launcher == "deepspeed":
        return [
            sys.executable, "-m", "deepspeed.launcher.runner", "--num_gpus", count,
            "--master_addr", "127.0.0.1", "--master_port", str(_free_port()),
            "--no_local_rank", "--module", WORKER, str(run),
        ]  # fmt: skip
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nnodes", "1",
        "--local-addr", "127.0.0.1", "--nproc-per-node", count, "--max-restarts", "0",
        "-m", WORKER, str(run),
    ]  # fmt: skip


def environment() -> dict[str, str]:
    """This process's environment, with what the launchers and DeepSpeed look for."""
    found = dict(os.environ)
    # DeepSpeed finds ninja on PATH, and it lies beside this interpreter.
    found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{found.get('PATH', '')}"
    found[STAGE_VARIABLE] = str(os.getpid())
    if VARIABLE in found:
        found[CARDS_VARIABLE] = found[VARIABLE]
    found.setdefault("OMP_NUM_THREADS", "1")
    if not _has_card():
        found.setdefault("DS_ACCELERATOR", "cpu")
        # Hosts without a resolvable name still have their loopback.
        found.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return found


def _has_card() -> bool:
    return Path("/dev/nvidiactl").exists() and os.environ.get(VARIABLE) not in ("", "-1")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _last_words(folder: Path) -> list[Outcome]:
    return [Outcome.model_validate(read_json(path)) for path in sorted(folder.glob("rank-*.json"))]


def _conclude(context: StageContext, count: int, code: int, kills: KillCounter) -> None:
    """Turn what the processes said into this one's end.

    The first to fail is the cause: the others fail because they miss it. One that was killed
    says nothing, and then the others' complaints are no cause either.
    """
    words = _last_words(workers_folder(context.run))
    failed = sorted(
        (word for word in words if word.state is State.FAILED), key=lambda word: word.ended_at
    )
    if len(words) < count and all(word.reason.code in CONSEQUENCES for word in failed):
        raise RunFailed(_cause_of_silence(context, count, code, failed, kills))
    if failed:
        raise RunFailed(failed[0].reason)
    if any(word.state is State.STOPPED for word in words):
        raise StopRequested


def _cause_of_silence(
    context: StageContext, count: int, code: int, failed: list[Outcome], kills: KillCounter
) -> Reason:
    """Why a process ended without a word, from the log and the kernel."""
    status = context.run.written_status()
    with contextlib.suppress(ValueError):
        # DeepSpeed's launcher exits with the negative signal, as one byte.
        status.signal = signal.Signals(256 - code).name
    cause = cause_of_death(context.run, status, kills.evidence())
    if cause.code not in ("unknown", *CONSEQUENCES) or cause.code == "killed":
        return cause
    said = [line for word in failed for line in word.reason.evidence]
    return Reason(code="process_lost", values={"count": count}, evidence=said or cause.evidence)
