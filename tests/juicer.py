"""Data-Juicer in a child of its own: its guard holds for a process for good."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from backend.runs import Run
from backend.stages.base import StageContext, StopRequested
from backend.workspace import Workspace
from tests.seeds import stage_context

SECONDS = 300


class Juicer:
    """A child that runs functions, and stages as the supervisor's child would."""

    def __init__(self, pool: ProcessPoolExecutor):
        self._pool = pool

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns or raises in the child."""
        return self._pool.submit(function, *arguments).result(SECONDS)

    def run(self, workspace: Workspace, stage: str, **parameters: Any) -> Run:
        """A finished run of the stage; raises what the stage raises."""
        return self.again(workspace, self.start(workspace, stage, **parameters))

    def start(self, workspace: Workspace, stage: str, **parameters: Any) -> Run:
        """A run that is yet to be run."""
        return stage_context(workspace, stage, **parameters).run

    def again(self, workspace: Workspace, run: Run, stop_in: str = "") -> Run:
        """Run it (once more); asked to stop as soon as it works on the operator `stop_in`."""
        self(_run_stage, workspace.root, run.path, stop_in)
        return run


def _run_stage(root: Path, path: Path, stop_in: str) -> None:
    run = Run(path)
    context = Stoppable(Workspace.open(root), run)
    context.stop_in = stop_in
    module = import_module(f"backend.stages.{run.spec.stage}")
    try:
        module.main(context, module.Parameters.model_validate(run.spec.parameters))
    except StopRequested:
        assert stop_in


class Stoppable(StageContext):
    """A context that is asked to stop when an operator has begun."""

    stop_in = ""

    def progress(self, done: float, total: float | None, unit: str, note: str = "") -> None:
        self.stop_requested |= bool(self.stop_in) and note == self.stop_in
        super().progress(done, total, unit, note)


def _one_thread() -> None:
    """Tiny models on threads that others need are slower than on one."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def juicer() -> Iterator[Juicer]:
    """One child for all tests: importing Data-Juicer takes seconds."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_one_thread) as pool:
        yield Juicer(pool)
