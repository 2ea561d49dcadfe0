"""A stage for tests: counts steps, keeps its counter, and ends as it is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

from backend.files import read_json, write_json
from backend.runs import UNFINISHED, Reason, RunFailed
from backend.stages.base import Problem, StageContext, StageParameters, parameter, stage_main
from backend.workspace import Workspace


class Parameters(StageParameters):
    """How long to count, and how to end."""

    steps: int = parameter(5, fold="data", ge=1)
    seconds: float = parameter(0.05, fold="data", gt=0)
    devices: int = parameter(1, fold="data", ge=1)
    ending: Literal[
        "done", "memory", "disk", "log", "sigkill", "failed", "stubborn", "worker", "saving", "hung"
    ] = parameter("done", fold="recipe")
    text: str = parameter("", fold="recipe")
    trouble: str = parameter("", fold="recipe")
    source: str = parameter("", fold="data", kind="run")
    other: str = parameter("", fold="data", kind="run")
    several: list[str] = parameter([], fold="data", kind="runs")


def preflight(workspace: Workspace, parameters: Parameters) -> list[Problem]:
    """An error or a warning, as asked for."""
    if not parameters.trouble:
        return []
    values = {"asset": "gemma", "path": "there"}
    level = "error" if parameters.trouble == "error" else "warning"
    return [Problem(level, "asset_missing", values, "kit")]


def main(context: StageContext, parameters: Parameters) -> None:
    """Count from where the last attempt stopped."""
    counter = context.artifacts / "counter.json"
    first = read_json(counter) if counter.exists() else 0
    if parameters.ending == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if parameters.ending == "worker":
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        write_json(context.artifacts / "worker.json", worker.pid)
    for step in range(first + 1, parameters.steps + 1):
        if context.stop_requested and parameters.ending in ("saving", "hung"):
            _save(context, hang=parameters.ending == "hung")
        context.check_stop()
        context.metric(step, loss=1 / step)
        write_json(counter, step)
        context.progress(step, parameters.steps, "steps")
        time.sleep(parameters.seconds)
    _end(parameters)


def _save(context: StageContext, *, hang: bool) -> None:
    """Write a checkpoint for two seconds and a half, or begin one and stand still."""
    folder = context.artifacts / f"{UNFINISHED}1"
    folder.mkdir()
    for part in range(25):
        (folder / f"{part}.pt").write_bytes(b"x")
        time.sleep(60 if hang else 0.1)
    folder.rename(context.artifacts / "checkpoint-1")


def _end(parameters: Parameters) -> None:
    match parameters.ending:
        case "memory":
            raise MemoryError
        case "disk":
            with Path("/dev/full").open("w") as full:
                full.write("x")
        case "failed":
            raise RunFailed(Reason(code="did_not_learn", values={"problem": parameters.text}))
        case "log":
            # A library that ends the process itself, without Python's leave.
            print(parameters.text, flush=True)
            os._exit(1)
        case "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    stage_main(Parameters, main)
