"""Driving a recipe operator by operator: progress, lineage, and going on after a stop.

After every operator the samples and its lineage are on disk, so that a resumed run repeats only
the operator during which it was stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa

from backend.errors import InputError
from backend.files import read_json, write_json
from backend.synthesis.datasets import OperatorRecord
from backend.synthesis.guard import guarded_operators
from backend.synthesis.lineage import Ledger, LineageParts
from backend.synthesis.operator_check import check_operators
from backend.synthesis.recipes import Recipe, Step
from backend.synthesis.runner import Runner, Task
from backend.synthesis.samples import Sample, load_samples, save_samples
from backend.synthesis.steps import StepRunner

FAILURES_SHOWN = 20


@dataclass
class OperatorState:
    """One bar of the funnel (`funnel.json`)."""

    step: int
    operator: str
    state: str = "waiting"
    """waiting, running or finished."""
    before: int | None = None
    after: int | None = None
    """Living samples before and after; None as long as it is not known."""
    dropped: int = 0
    rewritten: int = 0
    created: int = 0
    seconds: float | None = None
    failures: int = 0
    examples: list[str] = field(default_factory=list)
    """The first things that went wrong with single samples."""


@dataclass(frozen=True)
class Progress:
    """How the driver speaks to whoever runs it."""

    report: Callable[[int, int, str], None]
    """Samples done, samples in all, operator; called between chunks, may raise to stop."""
    failed: Callable[[OperatorState], None]
    """An operator ended, but not without failures."""


class Driver:
    """One run of a recipe over one dataset version."""

    def __init__(
        self,
        recipe: Recipe,
        steps: list[Step],
        *,
        image_root: Path,
        work: Path,
        funnel: Path,
        workers: int,
        seed: int,
        progress: Progress,
    ):
        """Check the recipe and find out where an earlier attempt stopped.

        Args:
            recipe: What the steps are from.
            steps: Its steps, filled in.
            image_root: Folder that the samples' images are relative to.
            work: Folder for what a later attempt needs.
            funnel: Where the funnel is written, operator by operator.
            workers: Processes for operators that need no model.
            seed: What random operators draw from.
            progress: Told how it goes.

        Raises:
            InputError: An operator or an argument is wrong; names the line.
        """
        self.steps = steps
        self.image_root = image_root
        self.work = work
        self.cache_folder = work / "cache"
        self.funnel_path = funnel
        self.workers = workers
        self.seed = seed
        self.progress = progress
        self.parts = LineageParts(work)
        self._places = [recipe.place(step) for step in steps]
        operators = guarded_operators(self.cache_folder)
        self._kinds = check_operators(recipe, steps, operators)
        work.mkdir(parents=True, exist_ok=True)
        self.funnel = self._earlier_funnel()

    def run(self, samples: list[Sample]) -> list[Sample]:
        """All samples after the last operator, dropped and created ones included.

        Args:
            samples: The samples to start from; not looked at after a resume.

        Raises:
            InputError: An operator failed; names it and the sample.
        """
        done = sum(entry.state == "finished" for entry in self.funnel)
        if done:
            samples = load_samples(self._state_path(done))
        with Runner(self.workers, self.cache_folder) as runner:
            if len(samples) > 1 and done < len(self.steps):
                runner.start()
            for number in range(done + 1, len(self.steps) + 1):
                samples = self._run_step(number, samples, runner)
        return samples

    def records(self) -> list[OperatorRecord]:
        """What each operator did, for `dataset.json`."""
        return [
            OperatorRecord(
                name=entry.operator,
                before=entry.before or 0,
                after=entry.after or 0,
                seconds=entry.seconds or 0.0,
            )
            for entry in self.funnel
        ]

    def lineage(self) -> list[pa.Table]:
        """Every operator's lineage, in order."""
        return list(self.parts.tables(len(self.steps)))

    def _run_step(self, number: int, samples: list[Sample], runner: Runner) -> list[Sample]:
        step, entry = self.steps[number - 1], self.funnel[number - 1]
        living = [sample for sample in samples if sample.kept]
        entry.state, entry.before = "running", len(living)
        self._write_funnel()
        started = time.monotonic()
        ledger = Ledger(number, step.name)
        self.progress.report(0, len(living), step.name)
        if living:
            one = StepRunner(
                step=step,
                kind=self._kinds[number - 1],
                task=self._task(number),
                runner=runner,
                image_root=self.image_root,
                report=lambda done, total: self.progress.report(done, total, step.name),
            )
            one.run(living, {sample.sample_id for sample in samples}, ledger)
        samples = [*samples, *ledger.created]
        self._finish(entry, ledger, samples, time.monotonic() - started)
        return samples

    def _finish(
        self, entry: OperatorState, ledger: Ledger, samples: list[Sample], seconds: float
    ) -> None:
        """Commit an operator: its lineage, the samples, and last the funnel that says so."""
        counts = ledger.counts()
        entry.state, entry.seconds = "finished", seconds
        entry.after = sum(sample.kept for sample in samples)
        entry.dropped, entry.rewritten = counts["dropped"], counts["rewritten"]
        entry.created = counts["created"]
        entry.failures = len(ledger.failures)
        entry.examples = ledger.failures[:FAILURES_SHOWN]
        self.parts.write(entry.step, ledger.events)
        save_samples(self._state_path(entry.step), samples)
        self._write_funnel()
        self._state_path(entry.step - 1).unlink(missing_ok=True)
        if entry.failures:
            self.progress.failed(entry)

    def _task(self, number: int) -> Task:
        step = self.steps[number - 1]
        return Task(
            name=step.name,
            arguments=step.arguments,
            place=self._places[number - 1],
            seed=self.seed + number,
            cache_folder=self.cache_folder,
        )

    def _earlier_funnel(self) -> list[OperatorState]:
        fresh = [OperatorState(n, step.name) for n, step in enumerate(self.steps, 1)]
        if not self.funnel_path.exists():
            return fresh
        earlier = [OperatorState(**entry) for entry in read_json(self.funnel_path)]
        if [entry.operator for entry in earlier] != [step.name for step in self.steps]:
            raise InputError(
                "the earlier attempt ran another recipe.",
                place=str(self.funnel_path),
                remedy="Start a new run.",
            )
        return [
            old if old.state == "finished" else new for old, new in zip(earlier, fresh, strict=True)
        ]

    def _write_funnel(self) -> None:
        write_json(self.funnel_path, [asdict(entry) for entry in self.funnel])

    def _state_path(self, step: int) -> Path:
        return self.work / f"samples-{step:03d}.parquet"
