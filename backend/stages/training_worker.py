"""One of the processes that share a training stage; a launcher starts it.

`python -m backend.stages.training_worker RUN_DIR`
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import psutil

from backend.files import write_json
from backend.gpu.visible import VARIABLE
from backend.runs import Run, State
from backend.stages import stage as stage_named
from backend.stages.base import StageContext, run_to_end, validated
from backend.training.launching import CARDS_VARIABLE, STAGE_VARIABLE, STOP, workers_folder
from backend.workspace import Workspace

DIE_WITH_PARENT = 1
"""`PR_SET_PDEATHSIG` of Linux's prctl."""


class WorkerContext(StageContext):
    """The stage's context, through which only the first process speaks."""

    def __init__(self, workspace: Workspace, run: Run, rank: int):
        self.rank = rank
        self.asked = False
        self._stage = int(os.environ[STAGE_VARIABLE])
        super().__init__(workspace, run)

    @property
    def stop_requested(self) -> bool:
        """Whether the stage or a signal asks to stop, or the stage is gone."""
        wanted = (workers_folder(self.run) / STOP).exists()
        return self.asked or wanted or not psutil.pid_exists(self._stage)

    @stop_requested.setter
    def stop_requested(self, value: bool) -> None:
        self.asked = value

    def metric(self, step: int, **values: float | int | None) -> None:
        """See `StageContext`."""
        if self.rank == 0:
            super().metric(step, **values)

    def event(self, level: Literal["info", "warning", "error"], code: str, **values: Any) -> None:
        """See `StageContext`."""
        if self.rank == 0:
            super().event(level, code, **values)

    def progress(
        self, done: float, total: float | None, unit: str, note: str = "", *, even: bool = True
    ) -> None:
        """See `StageContext`."""
        if self.rank == 0:
            super().progress(done, total, unit, note, even=even)


def see_the_cards_of_the_stage() -> None:
    """Undo a launcher's choice of cards; whoever looks at them has to be imported afterwards."""
    if CARDS_VARIABLE in os.environ:
        os.environ[VARIABLE] = os.environ[CARDS_VARIABLE]


def main() -> None:
    """Train this process's share; its last word is `workers/rank-<n>.json` of the run."""
    # Launchers start their processes as sessions of their own: nothing else would end them when
    # the launcher is killed.
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    see_the_cards_of_the_stage()
    run = Run(Path(sys.argv[1]).resolve())
    rank = int(os.environ["RANK"])
    context = WorkerContext(Workspace.open(run.path.parents[1]), run, rank)

    def ask_to_stop(_signal: int, _frame: object) -> None:
        context.stop_requested = True

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    outcome = run_to_end(context, lambda: _train(context))
    words = workers_folder(run) / f"rank-{rank}.json"
    write_json(words, outcome.model_dump(mode="json"))
    # A process that failed must not wait for others to part with.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(outcome.state is State.FAILED)


def _train(context: WorkerContext) -> None:
    from backend.training import ranks
    from backend.training.trainer import run

    module = import_module(stage_named(context.run.spec.stage).module)
    parameters: Any = validated(module.Parameters, context.run)
    ranks.join()
    run(context, parameters, module.job(context.workspace, parameters))
    ranks.leave()


if __name__ == "__main__":
    main()
