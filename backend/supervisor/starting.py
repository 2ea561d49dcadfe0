"""Making a run's folder and starting the process that looks after it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from backend.errors import InputError, UsageError
from backend.files import confine
from backend.gpu import visible_cards
from backend.runs import Run, RunSpec, State, new_run_id
from backend.stages import stage as stage_of
from backend.stages.base import Problem, StageParameters
from backend.supervisor.parameters import check_parameters, refuse_problems, sentence
from backend.supervisor.turns import DeviceQueue
from backend.workspace import Workspace

ROOT = Path(__file__).parents[2]
"""SynthLoop's own folder: where every process of a run is started."""
PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "deepspeed",
    "tokenizers",
    "safetensors",
    "bitsandbytes",
    "py-data-juicer",
    "datasets",
    "pyarrow",
    "numpy",
    "pillow",
)
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "OMP_NUM_THREADS",
    "NCCL_DEBUG",
    "HF_HOME",
    "TORCH_EXTENSIONS_DIR",
    "DS_ACCELERATOR",
)
"""Environment variables that change what a stage does; a resumed run gets them again."""
PAGE_ONLY = "SYNTHLOOP_PAGE_ONLY"
"""Names the variables, with commas, that are the page process's own and no stage's."""


def start(
    workspace: Workspace,
    stage: str,
    parameters: dict[str, Any],
    *,
    parent: str | None = None,
    request: str | None = None,
    name: str = "",
) -> Run:
    """Start a stage and return at once; it waits for its device by itself.

    Args:
        workspace: Where the run's folder is made.
        stage: The stage's name.
        parameters: Values by name; the stage's defaults fill the rest.
        parent: The loop run that starts it.
        request: Token of the click: the same token always gives the same run.
        name: What a person calls the run.

    Raises:
        UsageError: No such stage or parameter, or a value that is not allowed.
        InputError: The preflight found what would make the run fail.
    """
    with _one_run_each(workspace, request) as token:
        if token.run is not None:
            return token.run
        checked, problems = check_parameters(workspace, stage, parameters)
        refuse_problems(problems)
        spec = _spec(workspace, stage, checked)
        extra = {"parent": parent, "request": request, "name": name}
        run = Run.create(workspace, spec.model_copy(update=extra))
        token.keep(run)
    _tell_warnings(run, problems)
    spawn(run)
    return run


def spawn(run: Run) -> None:
    """Start a supervisor for the run; of several only one gets it.

    It is a session of its own without a terminal, so nothing that happens to this process, or
    to the terminal below it, reaches it.
    """
    with (run.path / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "backend.supervisor", str(run.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=ROOT,
            env=_own_environment(),
        )
    _queue_up(run, process.pid)
    # Someone has to collect its exit status, else it stays a zombie as long as we live.
    threading.Thread(target=process.wait, name=f"reap {run.id}", daemon=True).start()


def _own_environment() -> dict[str, str]:
    """This process's environment without what concerns the page process alone."""
    left_out = {PAGE_ONLY, *os.environ.get(PAGE_ONLY, "").split(",")}
    return {name: value for name, value in os.environ.items() if name not in left_out}


def _queue_up(run: Run, supervisor: int) -> None:
    """Put the supervisor into the queue before it can itself: it may start later than the next."""
    status = run.written_status()
    if status.state is State.QUEUED and status.queued_at is not None:
        for device in run.spec.devices:
            # What fails here (a full disk) the supervisor does again.
            with contextlib.suppress(OSError):
                DeviceQueue(device).take_ticket(run.id, status.queued_at, supervisor)


def device(count: int = 1) -> str:
    """The devices whose queues a run joins: the first visible cards, or the processor."""
    return ",".join(visible_cards()[:count]) or "cpu"


class _Token:
    """A request's file: the id of the run that it started, once there is one."""

    def __init__(self, workspace: Workspace, descriptor: int | None):
        self._descriptor = descriptor
        self.run: Run | None = None
        if descriptor is not None:
            run_id = os.read(descriptor, 256).decode()
            path = workspace.runs / run_id
            if run_id and (path / "run.json").is_file():
                self.run = Run(path)

    def keep(self, run: Run) -> None:
        """Write down what was started."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, run.id.encode(), 0)


@contextlib.contextmanager
def _one_run_each(workspace: Workspace, request: str | None) -> Iterator[_Token]:
    """Hold the request's file; a second call with the same token waits here for the first.

    The kernel lets go of the lock when its holder dies, so a crash leaves nothing stuck.
    """
    if request is None:
        yield _Token(workspace, None)
        return
    folder = workspace.runs / ".requests"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(request.encode()).hexdigest()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield _Token(workspace, descriptor)
    finally:
        os.close(descriptor)


def _spec(workspace: Workspace, stage: str, checked: StageParameters) -> RunSpec:
    found = stage_of(stage)
    now = time.time()
    run_id = new_run_id(stage, now)
    environment = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        **{name: os.environ[name] for name in VARIABLES if name in os.environ},
    }
    return RunSpec(
        run_id=run_id,
        stage=stage,
        parameters=checked.model_dump(mode="json"),
        argv=[sys.executable, "-m", found.module, str(workspace.runs / run_id)],
        created_at=now,
        device=device(getattr(checked, "devices", 1)) if found.uses_device else None,
        inputs=_inputs(workspace, checked),
        environment=environment,
        versions=_versions(),
        git=_commit(),
    )


def _inputs(workspace: Workspace, checked: StageParameters) -> dict[str, str]:
    """Runs and dataset versions that the parameters name; paths are no runs and left out."""
    inputs = {}
    for name, field in type(checked).model_fields.items():
        extra = field.json_schema_extra
        kind = extra.get("kind") if isinstance(extra, dict) else None
        value = getattr(checked, name)
        if kind == "dataset" and value:
            inputs[name] = value
        elif kind == "run" and (run_id := _run_id(workspace, value)):
            inputs[name] = run_id
        elif kind == "runs":
            named = {f"{name}.{i}": _run_id(workspace, one) for i, one in enumerate(value, 1)}
            inputs |= {key: run_id for key, run_id in named.items() if run_id}
    return inputs


def _run_id(workspace: Workspace, value: str) -> str | None:
    """The id of the run that `value` names, if it names one."""
    if not value or "/" in value:
        return None
    try:
        confine(workspace.runs, value)
        return Run.find(workspace, value).id
    except (UsageError, InputError):
        return None


def _tell_warnings(run: Run, problems: list[Problem]) -> None:
    for problem in problems:
        if problem.level == "warning":
            run.add_event("warning", "preflight", text=sentence(problem), place=problem.place)


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _commit() -> str | None:
    """The checkout's commit; None outside one, or without git."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
