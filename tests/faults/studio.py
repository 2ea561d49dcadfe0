"""Stands for the studio in tests: starts a run of the steps stage and goes on living.

`python -m tests.faults.studio WORKSPACE REQUEST NAME=VALUE…` prints the run's id.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from backend.stages import STAGES, Stage
from backend.supervisor import start
from backend.workspace import Workspace


class StepsStage(Stage):
    @property
    def module(self) -> str:
        return "tests.faults.steps_stage"


STEPS = StepsStage("steps", 0, uses_device=True, resumable=True)


def main() -> None:
    STAGES["steps"] = STEPS
    root, request, *pairs = sys.argv[1:]
    parameters = dict(pair.split("=", 1) for pair in pairs)
    run = start(Workspace.open(Path(root)), "steps", parameters, request=request)
    print(run.id, flush=True)
    time.sleep(60)


if __name__ == "__main__":
    main()
