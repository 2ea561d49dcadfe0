"""The supervisor of one run: awaits its turn, starts the stage, watches it, says how it ended."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from backend.errors import SynthLoopError
from backend.files import file_sizes, write_json
from backend.memory.deaths import ATTEMPT
from backend.runs import ProcessIdentity, Reason, Run, State
from backend.supervisor.cause import cause_of_death, last_lines
from backend.supervisor.control import STOP_FILE
from backend.supervisor.kernel import KillCounter
from backend.supervisor.sampling import Sampler
from backend.supervisor.starting import ROOT, VARIABLES
from backend.supervisor.turns import DeviceQueue

POLL_S = float(os.environ.get("SYNTHLOOP_POLL_S", "1"))
"""Seconds between two samples."""
GRACE_S = float(os.environ.get("SYNTHLOOP_GRACE_S", "60"))
"""Seconds between asking a stage to end and killing it: beyond the step that it is in, and again
as long as a checkpoint grows or a run that it started has not ended."""
LAST_STEP = 2
"""How many times its latest step's time a stage is given to end the one that it is in."""
TICK_S = min(POLL_S, 0.2)
"""Seconds between two looks at the child and at the stop file."""
LAST_WORD_S = 3600.0
"""How long the end of a run is tried to be written on a full disk."""


class Supervisor:
    """One run from its place in the queue to its end; the only writer of its status."""

    def __init__(self, run: Run):
        self.run = run
        self.spec = run.spec
        self.status = run.written_status()
        self._killed_by_us = False
        self._held: list[int] = []
        self._grace_ends: float | None = None
        self._asked_at = 0.0
        self._saved = 0
        self._disk_error: str | None = None

    def supervise(self) -> None:
        """Start the run, or adopt the child that lives already, and see it to its end."""
        if self.status.state.ended:
            return
        self.status.supervisor = ProcessIdentity.of(os.getpid())
        self._write()
        if self.status.state is State.RUNNING:
            self._watch(None)
        elif (stray := self._unrecorded_child()) is not None:
            self._record(stray)
            self._watch(None)
        elif not self._wait_for_turn():
            self._end(State.STOPPED, Reason(code="stopped_by_person"))
        elif (process := self._start()) is not None:
            self._watch(process)

    def _unrecorded_child(self) -> ProcessIdentity | None:
        """A child whose supervisor died before it could write down the child's pid."""
        for process in psutil.process_iter(["cmdline"]):
            if process.info["cmdline"] == self.spec.argv:
                with contextlib.suppress(psutil.NoSuchProcess):
                    return ProcessIdentity.of(process.pid)
        return None

    def _wait_for_turn(self) -> bool:
        """Wait for the devices; False when the run was stopped before its turn came.

        Everybody takes them in one order and stands at one place in every line, so that no two
        runs wait for each other.
        """
        for device in self.spec.devices:
            held = DeviceQueue(device).wait(self.run.id, self._place, TICK_S, self._stop_wanted)
            if held is not None:
                self._held.append(held)
        return not self._stop_wanted()

    @property
    def _place(self) -> float:
        """The run's place in the lines of its devices."""
        return self.status.queued_at or self.spec.created_at

    def _start(self) -> subprocess.Popen[bytes] | None:
        frozen = {name: self.spec.environment.get(name) for name in VARIABLES}
        environment = {
            **{name: value for name, value in os.environ.items() if name not in VARIABLES},
            **{name: value for name, value in frozen.items() if value is not None},
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
        }
        try:
            with self.run.log_path.open("ab") as log:
                if self.status.attempt > 1:
                    log.write(f"{ATTEMPT.format(n=self.status.attempt)}\n".encode())
                    log.flush()
                process = subprocess.Popen(
                    self.spec.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    # The child holds its devices as long as it lives, whatever becomes of us.
                    pass_fds=self._held,
                    env=environment,
                    cwd=ROOT,
                )
        except OSError as error:
            code = "disk_full" if error.errno == errno.ENOSPC else "not_started"
            self._end(State.FAILED, Reason(code=code, values={"error": str(error)}))
            return None
        self._record(ProcessIdentity.of(process.pid))
        return process

    def _record(self, child: ProcessIdentity) -> None:
        self.status.child = child
        self.status.state = State.RUNNING
        self.status.started_at = child.create_time
        self._write()

    def _watch(self, process: subprocess.Popen[bytes] | None) -> None:
        """Sample until the child is gone; without `process` it is an adopted one."""
        child = self.status.child
        if child is None:
            self._end(State.FAILED, Reason(code="lost"))
            return
        sampler = Sampler(self.run, child)
        kills = KillCounter(child.pid)
        sample_at = 0.0
        while process.poll() is None if process is not None else child.alive():
            if self._stop_wanted():
                self._ask_to_end(child)
            if time.monotonic() >= sample_at:
                sample_at = time.monotonic() + POLL_S
                self._sample(sampler)
                kills.look()
            time.sleep(TICK_S)
        # Workers that outlive the stage would keep its memory and its device.
        _signal_session(child, signal.SIGKILL)
        self._finish(None if process is None else process.returncode, kills)

    def _ask_to_end(self, child: ProcessIdentity) -> None:
        """TERM once to the child's group, KILL to its whole session when the grace is over."""
        now = time.monotonic()
        if self._grace_ends is None:
            self._asked_at = now
            self._grace_ends = now + GRACE_S + LAST_STEP * self._step_s()
            _signal_group(child, signal.SIGTERM)
        elif now >= self._grace_ends and not self._killed_by_us:
            before, self._saved = self._saved, self._bytes_saved()
            if self._saved > before or self._waits_for_others():
                self._grace_ends = now + GRACE_S
                return
            self._killed_by_us = True
            _signal_session(child, signal.SIGKILL)

    def _step_s(self) -> float:
        """How long the stage's latest step took; 0 when it has no steps."""
        times = last_times(self.run.metrics_path)
        return max(0.0, times[1] - times[0]) if len(times) == 2 else 0.0

    def _waits_for_others(self) -> bool:
        """Whether a run that the stage started is still on its way; its supervisor sees to it."""
        for path in self.run.path.parent.glob("*/run.json"):
            other = Run(path.parent)
            with contextlib.suppress(SynthLoopError, ValueError):
                if other.spec.parent == self.run.id and not other.status().state.ended:
                    return True
        return False

    def _bytes_saved(self) -> int:
        """Bytes of the checkpoints that are being written."""
        return sum(sum(file_sizes(folder).values()) for folder in self.run.unfinished_checkpoints)

    def _sample(self, sampler: Sampler) -> None:
        try:
            sampler.sample()
        except OSError as error:
            _say(f"sample not written: {error}")
        self.status.heartbeat_at = time.time()
        self._write()

    def _finish(self, code: int | None, kills: KillCounter) -> None:
        self.status.exit_code = code
        if code is not None and code < 0:
            self.status.signal = signal.Signals(-code).name
        try:
            outcome = self.run.outcome()
        except (SynthLoopError, ValueError) as error:
            outcome = None
            _say(f"outcome not read: {error}")
        if outcome is not None and outcome.attempt == self.status.attempt:
            self._end(outcome.state, outcome.reason, outcome.ended_at)
        elif self._killed_by_us:
            values = {"seconds": f"{time.monotonic() - self._asked_at:.0f}"}
            self._end(State.STOPPED, Reason(code="stopped_by_force", values=values))
        elif self._grace_ends is not None:
            self._end(State.STOPPED, Reason(code="stopped_by_person"))
        else:
            why = cause_of_death(self.run, self.status, kills.evidence(), self._disk_error)
            self._end(State.FAILED, why)

    def _end(self, state: State, reason: Reason, at: float | None = None) -> None:
        """Write how it ended; on a full disk the next run goes first and we keep trying."""
        self.status.state = state
        self.status.reason = reason
        self.status.ended_at = at or time.time()
        (self.run.path / STOP_FILE).unlink(missing_ok=True)
        written = self._write()
        self._leave_devices()
        deadline = time.monotonic() + LAST_WORD_S
        while not written and self.run.path.is_dir() and time.monotonic() < deadline:
            time.sleep(POLL_S)
            written = self._write()

    def _leave_devices(self) -> None:
        while self._held:
            os.close(self._held.pop())
        for device in self.spec.devices:
            # Whoever started us may have put our ticket there after we had our turn.
            DeviceQueue(device).return_ticket(self.run.id, self._place)

    def _stop_wanted(self) -> bool:
        return (self.run.path / STOP_FILE).exists()

    def _write(self) -> bool:
        """Replace `status.json`; a full disk delays the news instead of ending the watch."""
        try:
            values = self.status.model_dump(mode="json", exclude={"supervised"})
            write_json(self.run.status_path, values)
            self._disk_error = None
            return True
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._disk_error = str(error)
            _say(f"status not written: {error}")
            return False


def last_times(metrics: Path) -> list[float]:
    """When the last two steps of a run's last attempt ended, in seconds since the epoch."""
    found: list[tuple[float, int]] = []
    for line in last_lines(metrics, 3):
        # The first may begin in the middle, and the last be torn.
        with contextlib.suppress(ValueError, KeyError, TypeError):
            value = json.loads(line)
            found.append((float(value["time"]), int(value["attempt"])))
    return [at for at, attempt in found[-2:] if attempt == found[-1][1]]


def _signal_group(child: ProcessIdentity, number: signal.Signals) -> None:
    """Send `number` to the child and its group, if it is still that child."""
    if child.alive():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)


def _signal_session(child: ProcessIdentity, number: signal.Signals) -> None:
    """Send `number` to whatever lives in the child's session, also after the child itself.

    The kernel gives a pid to nobody else while it names a session; only a living process of that
    pid that is not the child tells that the session is another's.
    """
    if psutil.pid_exists(child.pid) and not child.alive() and not _zombie(child.pid):
        return
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == child.pid:
                os.kill(pid, number)


def _zombie(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _say(text: str) -> None:
    # The log lies on the same disk: when that is full there is nobody left to tell.
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
