"""Many processes on one device: as many at once as its memory holds, the most valuable first."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import psutil

from tests.benchmarks.configurations import Job

GIB = 2**30
EACH = 1.1
"""GiB that a process takes beside its own peak: context, and what a prediction may be short."""
MORE = 8.0
"""GiB that are added when a job without a cap ran out of memory: others may have been the cause."""
AT_ONCE = 8
LANES = {"speed": 1, "learn": 6, "fit": 2, "start": 1, "kit": 1, "pair": 2}
"""How many of a group run at once; other groups know no limit of their own."""
LONG = 400
"""Seconds of time-out from which a job counts as long."""
LAST_LINES = 60
STOP = 8.0
"""Seconds before the deadline at which everything that still runs is ended."""


@dataclass
class Running:
    """A process and what is known of it."""

    job: Job
    process: subprocess.Popen[bytes]
    folder: Path
    started: float
    room: float
    log: TextIO
    tries: int


class Scheduler:
    """Starts jobs in their order as soon as there is room.

    Args:
        jobs: The most valuable first.
        out: Gets `results.jsonl` and `logs.txt`.
        work: Scratch folder.
        deadline: Clock time (`time.time`) at which everything must have ended.
        room_gib: Device memory for all processes together.
        needs: GiB that a job will take.
        inputs: (workspace, data parameters) of a job, asked just before it starts.
        at_once: Processes at most.
        program: What runs a job: gets the paths of the job and of its result.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        out: Path,
        work: Path,
        deadline: float,
        room_gib: float,
        needs: Callable[[Job], float],
        inputs: Callable[[Job], tuple[Path, dict[str, Any]]],
        at_once: int = AT_ONCE,
        program: Sequence[str] = (sys.executable, "-m", "tests.benchmarks.job"),
    ) -> None:
        self.waiting = [(job, 0) for job in jobs]
        self.out, self.work, self.deadline = out, work, deadline
        self.room, self.needs, self.inputs, self.at_once = room_gib, needs, inputs, at_once
        self.program = list(program)
        self.running: list[Running] = []
        self.ended: dict[str, str] = {}
        self.began = time.time()
        self.gate = work / "gate"
        self.gate.mkdir(parents=True, exist_ok=True)
        self.results = (out / "results.jsonl").open("a")
        self.logs = (out / "logs.txt").open("a")

    def run(self) -> dict[str, str]:
        """Everything that the time allows; how each job ended."""
        # Jobs are sessions of their own: nothing else would end them with this process.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        try:
            while (self.waiting or self.running) and time.time() < self.deadline - STOP:
                self._collect()
                self._start()
                time.sleep(0.1)
        finally:
            for item in list(self.running):
                self._end(item, "deadline")
            for job, _ in self.waiting:
                self._write({"name": job.name, "group": job.group, "state": "not_started"})
            self.results.close()
            self.logs.close()
        return self.ended

    def _room_of(self, job: Job) -> float:
        if job.leave_gib is not None:
            return self.room
        return min(self.needs(job), job.cap_gib or 1e9) + EACH

    def _long(self) -> float:
        return sum(item.room for item in self.running if item.job.timeout > LONG)

    def _start(self) -> None:
        reserved = 0.0
        for entry in list(self.waiting):
            job, tries = entry
            if len(self.running) >= self.at_once:
                return
            if job.after and job.after not in self.ended:
                continue
            if job.after and self.ended[job.after] != "done":
                self.waiting.remove(entry)
                self._write({"name": job.name, "group": job.group, "state": "not_possible"})
                continue
            group = [item for item in self.running if item.job.group == job.group]
            if len(group) >= LANES.get(job.group, self.at_once):
                continue
            needed = self._room_of(job) + MORE * tries
            taken = sum(item.room for item in self.running)
            if self.running and taken + reserved + needed > self.room:
                # What lies in a long run's shadow anyway waits for its end without keeping room.
                if job.group == "speed" and self._long() + needed <= self.room:
                    reserved += needed
                continue
            self.waiting.remove(entry)
            self._launch(job, needed, tries)

    def _launch(self, job: Job, needed: float, tries: int) -> None:
        folder = self.work / "jobs" / f"{job.name}-{tries}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            workspace, data = self.inputs(job)
        except Exception as error:
            self._write(
                {"name": job.name, "group": job.group, "state": "error", "error": repr(error)}
            )
            self.ended[job.name] = "error"
            return
        asked = {
            "job": job.to_dict(),
            "workspace": str(workspace),
            "data": data,
            "gate": str(self.gate),
        }
        (folder / "job.json").write_text(json.dumps(asked))
        log = (folder / "log.txt").open("w")
        command = [*self.program, str(folder / "job.json"), str(folder / "result.json")]
        environment = {
            **os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(job.threads),
            "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
            "NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo",
        }  # fmt: skip
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env=environment, start_new_session=True,
        )  # fmt: skip
        now = time.time()
        self.running.append(Running(job, process, folder, now, needed, log, tries))
        print(f"{now - self.began:6.1f} s  start {job.name} ({needed:.1f} GiB)", flush=True)

    def _collect(self) -> None:
        now = time.time()
        for item in list(self.running):
            if item.process.poll() is not None:
                self._end(item, "")
            elif now - item.started > item.job.timeout:
                self._end(item, "timeout")

    def _end(self, item: Running, cause: str) -> None:
        if item.process.poll() is None:
            _kill_session(item.process.pid)
            item.process.wait()
        self.running.remove(item)
        item.log.close()
        result: dict[str, Any] = {"name": item.job.name, "group": item.job.group}
        file = item.folder / "result.json"
        if file.is_file():
            result |= json.loads(file.read_text())
        else:
            partial = item.folder / "partial.json"
            if partial.is_file():
                result |= json.loads(partial.read_text())
            result |= {"state": cause or "died", "exit_code": item.process.returncode}
        result["started_at"] = round(item.started - self.began, 1)
        result["ended_at"] = round(time.time() - self.began, 1)
        result["asked"] = item.job.to_dict()
        result["try"] = item.tries
        state = str(result["state"])
        self._write(result)
        lines = (item.folder / "log.txt").read_text(errors="replace").splitlines()
        shown = lines[-LAST_LINES:] if state != "done" else lines[-4:]
        self.logs.write(f"=== {item.job.name} (try {item.tries}): {state}\n")
        self.logs.write("\n".join(line[:600] for line in shown) + "\n")
        self.logs.flush()
        told = self._told(result)
        print(f"{result['ended_at']:6.1f} s  {state:8} {item.job.name}  {told}", flush=True)
        if state == "oom" and not cause and self._again(item):
            return
        self.ended[item.job.name] = state

    def _again(self, item: Running) -> bool:
        """Try with less; what has no cap and nothing less gets a second chance with more room."""
        job = item.job
        if job.again:
            change, *rest = job.again
            job = replace(job, parameters={**job.parameters, **change}, again=tuple(rest))
        elif job.cap_gib is not None or item.tries:
            return False
        self.waiting.insert(0, (job, item.tries + 1))
        return True

    def _told(self, result: dict[str, Any]) -> str:
        """A few words for the console."""
        words = [f"{result.get('total_s', 0):.0f} s"]
        peak = (result.get("peak") or {}).get("allocated")
        if peak:
            words.append(f"{peak / GIB:.2f} GiB")
        if result.get("speed"):
            words.append(f"{result['speed']['samples_per_second']:.1f} samples/s")
        losses = result.get("losses") or []
        if losses and losses[-1] is not None:
            words.append(f"loss {losses[-1]:.4f}")
        if result["state"] not in ("done",):
            reason = (result.get("outcome") or {}).get("reason") or {}
            words.append(str(result.get("error") or reason.get("values") or "")[:160])
        return ", ".join(words)

    def _write(self, result: dict[str, Any]) -> None:
        self.results.write(json.dumps(result) + "\n")
        self.results.flush()
        os.fsync(self.results.fileno())


def _kill_session(leader: int) -> None:
    """End a job with everything that it started: launchers have groups of their own."""
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == leader:
                process.kill()
