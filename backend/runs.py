"""A run's folder: what was asked for, where it stands, what it said.

Each file has one writer: `run.json` is written once at creation, `status.json` by the supervisor,
`progress.json` and `outcome.json` by the stage, the `.jsonl` files by whoever their name says.
"""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field

from backend.errors import UsageError
from backend.files import append_line, confine, read_json, read_lines, write_json
from backend.workspace import Workspace


class State(StrEnum):
    """Where a run stands. `LOST` is derived, never written."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self not in (State.QUEUED, State.RUNNING)


UNFINISHED = ".checkpoint-"
"""What the names of checkpoints begin with until they are whole."""
EndState = Literal[State.SUCCEEDED, State.FAILED, State.STOPPED]


class ProcessIdentity(BaseModel):
    """A process that cannot be mistaken for a later one with the same pid."""

    model_config = ConfigDict(frozen=True)

    pid: int
    create_time: float
    """Seconds since the epoch, as the operating system tells."""

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """The identity of a living process; raises `psutil.NoSuchProcess`."""
        return cls(pid=pid, create_time=psutil.Process(pid).create_time())

    def alive(self) -> bool:
        """Whether this very process runs (a zombie does not)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.create_time) < 0.05
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


class Reason(BaseModel):
    """Why a run ended as it did."""

    code: str
    """Message key below `reason.`: `completed`, `stopped_by_person`, `bad_input`, `did_not_learn`,
    `stopped_sick`, `device_memory`, `host_memory`, `disk_full`, `killed`, `lost`, `unknown` …"""
    values: dict[str, Any] = Field(default_factory=dict)
    """What fills the message's placeholders."""
    evidence: list[str] = Field(default_factory=list)
    """Lines of the log, or readings, that show it."""


class RunFailed(Exception):  # noqa: N818
    """Raised by a stage that ran to its end and still failed; says why."""

    def __init__(self, reason: Reason):
        self.reason = reason
        super().__init__(reason.code)


class Outcome(BaseModel):
    """What a stage says of itself as its last act (`outcome.json`)."""

    state: EndState
    reason: Reason
    ended_at: float
    attempt: int


class RunSpec(BaseModel):
    """What was asked for; frozen at the start (`run.json`)."""

    run_id: str
    stage: str
    parameters: dict[str, Any]
    argv: list[str]
    """The child's command, as the supervisor starts it."""
    created_at: float
    device: str | None
    """The devices whose locks the run waits for, with commas; None runs at once."""
    parent: str | None = None
    """The loop that started it."""
    request: str | None = None
    """Token of the click that started it: one token, one run."""
    name: str = ""
    """What a person calls it."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Runs and dataset versions it reads, by parameter."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Python, platform, host, and the environment variables that matter."""
    versions: dict[str, str] = Field(default_factory=dict)
    git: str | None = None
    """Commit of SynthLoop's own checkout; None outside one."""

    @property
    def devices(self) -> list[str]:
        """The devices one by one, in the order in which every run takes them."""
        return sorted(self.device.split(",")) if self.device is not None else []


class RunStatus(BaseModel):
    """Where the run stands (`status.json`)."""

    state: State = State.QUEUED
    attempt: int = 1
    """1 at first, one more for each resume."""
    supervisor: ProcessIdentity | None = None
    child: ProcessIdentity | None = None
    queued_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    heartbeat_at: float | None = None
    exit_code: int | None = None
    signal: str | None = None
    reason: Reason | None = None
    supervised: bool = True
    """Derived: whether a living supervisor watches it."""


class Progress(BaseModel):
    """How far a stage is (`progress.json`)."""

    done: float
    total: float | None
    unit: str
    """Message key below `unit.`: `steps`, `samples`, `questions`, `bytes`, `stages`."""
    eta_s: float | None = None
    at: float = 0.0
    note: str = ""
    """What it is doing, e.g. an operator's name."""


class Run:
    """A run's folder."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def find(cls, workspace: Workspace, run_id: str) -> Run:
        """The run `run_id`; a unique ending of an id will do.

        Raises:
            UsageError: No run, or more than one, has that id.
        """
        exact = confine(workspace.runs, run_id)
        if (exact / "run.json").is_file():
            return cls(exact)
        matches = [run for run in cls.all(workspace) if run_id and run.id.endswith(run_id)]
        if len(matches) != 1:
            count = "no run" if not matches else f"{len(matches)} runs"
            raise UsageError(f"{count} of this id.", place=run_id, remedy="See: runs")
        return matches[0]

    @classmethod
    def all(cls, workspace: Workspace) -> list[Run]:
        """Every run, newest first."""
        found = (path.parent for path in workspace.runs.glob("*/run.json"))
        return [cls(path) for path in sorted(found, reverse=True)]

    @classmethod
    def create(cls, workspace: Workspace, spec: RunSpec) -> Run:
        """Write a new run's folder, queued."""
        path = workspace.runs / spec.run_id
        (path / "artifacts").mkdir(parents=True, exist_ok=False)
        run = cls(path)
        write_json(
            run.status_path,
            RunStatus(queued_at=spec.created_at).model_dump(mode="json", exclude={"supervised"}),
        )
        write_json(path / "run.json", spec.model_dump(mode="json"))
        return run

    @property
    def id(self) -> str:
        """The folder's name; sorts by time."""
        return self.path.name

    @property
    def artifacts(self) -> Path:
        """What the stage leaves behind."""
        return self.path / "artifacts"

    @property
    def unfinished_checkpoints(self) -> list[Path]:
        """Folders of checkpoints that are being written; each gets its name when it is whole."""
        return list(self.artifacts.glob(f"{UNFINISHED}*"))

    @property
    def log_path(self) -> Path:
        """Everything printed."""
        return self.path / "output.log"

    @property
    def metrics_path(self) -> Path:
        """One object a step."""
        return self.path / "metrics.jsonl"

    @property
    def gpu_path(self) -> Path:
        """One object a sample of the devices and the process tree."""
        return self.path / "gpu.jsonl"

    @property
    def events_path(self) -> Path:
        """Milestones, warnings, findings."""
        return self.path / "events.jsonl"

    @property
    def status_path(self) -> Path:
        """The supervisor's word; read it through `status`."""
        return self.path / "status.json"

    @property
    def spec(self) -> RunSpec:
        """What was asked for."""
        return RunSpec.model_validate(read_json(self.path / "run.json"))

    def written_status(self) -> RunStatus:
        """`status.json` as it stands, with nothing derived."""
        return RunStatus.model_validate(read_json(self.status_path))

    def outcome(self) -> Outcome | None:
        """The stage's last word, if it said one."""
        path = self.path / "outcome.json"
        return Outcome.model_validate(read_json(path)) if path.exists() else None

    def status(self) -> RunStatus:
        """Where the run stands now, judged by its files and by who lives.

        A running run without a living child ends as its outcome says when there is one for this
        attempt, and is lost when neither a supervisor lives that could tell why.
        """
        status = self.written_status()
        if status.state.ended:
            return status
        supervised = status.supervisor is not None and status.supervisor.alive()
        status = status.model_copy(update={"supervised": supervised})
        if supervised or (status.child is not None and status.child.alive()):
            return status
        # The files may have moved on between the two looks.
        status = self.written_status()
        if status.state is not State.RUNNING:
            return status.model_copy(update={"supervised": status.state.ended})
        outcome = self.outcome()
        if outcome is not None and outcome.attempt == status.attempt:
            update = {
                "state": outcome.state,
                "reason": outcome.reason,
                "ended_at": outcome.ended_at,
                "supervised": False,
            }
            return status.model_copy(update=update)
        reason = Reason(code="lost")
        return status.model_copy(
            update={"state": State.LOST, "reason": reason, "supervised": False}
        )

    def progress(self) -> Progress | None:
        """How far the stage is; None before it said anything."""
        path = self.path / "progress.json"
        return Progress.model_validate(read_json(path)) if path.exists() else None

    def events(self) -> list[dict[str, Any]]:
        """Milestones, warnings and findings, oldest first."""
        return list(read_lines(self.events_path))

    def add_event(self, level: str, code: str, **values: Any) -> None:
        """Append an event: `level` is info, warning or error; `code` a key below `event.`."""
        event = {"time": time.time(), "level": level, "code": code, "values": values}
        append_line(self.events_path, event)


def new_run_id(stage: str, now: float | None = None) -> str:
    """`20261123-154500-finetune-7f3a`: sorts by time (UTC), tells the stage."""
    stamp = datetime.fromtimestamp(now or time.time(), UTC).strftime("%Y%m%d-%H%M%S")
    return f"{stamp}-{stage}-{secrets.token_hex(2)}"
