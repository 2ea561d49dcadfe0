"""Run a whole loop: one stage after the other, each a run of its own, with one click."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from backend.errors import SynthLoopError, UsageError
from backend.files import read_json, write_json
from backend.profiles import asked, defaults
from backend.runs import Reason, Run, RunFailed, State
from backend.stages.base import Problem, StageContext, StageParameters, parameter, stage_main
from backend.synthesis.preflight import dataset_problems, recipe_problems
from backend.training.presets import PresetName
from backend.workspace import Workspace

LOOPS: dict[str, tuple[str, ...]] = {
    "baseline": ("prepare", "pretrain", "finetune", "evaluate", "report"),
    "synthesis": (
        "analyze", "synthesize", "verify",
        "prepare", "pretrain", "finetune", "evaluate", "report",
    ),
}  # fmt: skip
"""The stages of each loop, in order."""
POLL_S = 0.5
ALONE_POLLS = 20
"""Looks at a run without a supervisor until it gets a new one."""
_FILE = "loop.json"
ADAPTER_PRESETS: dict[str, PresetName] = {"lora": "fit-12gb-lora", "qlora": "fit-8gb-qlora"}


class Parameters(StageParameters):
    """Which loop, with which data."""

    loop: Literal["baseline", "synthesis"] = parameter("baseline", fold="data")
    dataset: str = parameter("seed/v1", fold="data", kind="dataset")
    recipe: str = parameter("synthesis", fold="data", kind="recipe")
    baseline_loop: str = parameter("", fold="data", kind="run", stages=("loop",))
    method: Literal["full", "lora", "qlora"] = parameter("full", fold="recipe")
    seed: int = parameter(1024, fold="recipe", ge=0, lt=2**32)
    sample_cap: int = parameter(200_000, fold="recipe", ge=1)
    limit: int | None = parameter(None, fold="advanced", ge=1)


@dataclass
class Step:
    """One stage of the loop (`loop.json`)."""

    name: str
    stage: str
    run_id: str | None = None
    state: str | None = None
    """None as long as it has not been started."""


def preflight(workspace: Workspace, parameters: Parameters) -> list[Problem]:
    """The data, and for `synthesis` the recipe and a baseline whose model writes captions.

    The stages that come later have their own preflight when their turn comes.
    """
    problems = dataset_problems(workspace, parameters.dataset)
    if parameters.loop == "baseline":
        return problems
    try:
        captioner = _child(baseline_of(workspace, parameters.baseline_loop), "finetune")
    except UsageError as error:
        return [
            *problems,
            Problem("error", "no_baseline", {"problem": error.problem}, "baseline_loop"),
        ]
    recipe = parameters.recipe
    return problems + recipe_problems(workspace, recipe, captioner, output=recipe)


def baseline_of(workspace: Workspace, chosen: str) -> Run:
    """The baseline loop that was chosen, else the latest that succeeded.

    Raises:
        UsageError: There is none, or the chosen run is no baseline that succeeded.
    """
    if chosen:
        run = Run.find(workspace, chosen)
        if not _is_baseline(run):
            raise UsageError("this is no baseline loop that succeeded.", place=run.id)
        return run
    for run in Run.all(workspace):
        try:
            if _is_baseline(run):
                return run
        except (SynthLoopError, ValueError) as error:
            print(f"left out, its files are broken: {run.id}: {error}", file=sys.stderr)
    raise UsageError("no baseline loop has succeeded yet.", remedy="Run the baseline loop first.")


def _is_baseline(run: Run) -> bool:
    spec = run.spec
    of_kind = spec.stage == "loop" and spec.parameters.get("loop") == "baseline"
    return of_kind and run.status().state is State.SUCCEEDED


def _child(loop: Run, stage: str) -> str:
    """The run of a stage of a loop that succeeded."""
    steps = read_json(loop.artifacts / _FILE)["steps"]
    return str(next(step["run_id"] for step in steps if step["stage"] == stage))


def main(context: StageContext, parameters: Parameters) -> None:
    """Start the stages in turn and wait for each; `loop.json` tells where it stands."""
    Loop(context, parameters).run()


def method_values(workspace: Workspace, method: str) -> dict[str, Any]:
    """A fine-tuning method with the preset that suits it, where the profile starts from another's.

    An adapter that learns at the rate of full fine-tuning learns next to nothing.
    """
    usual = defaults(workspace, "finetune").get("preset")
    preset = ADAPTER_PRESETS.get(method)
    return {"method": method} | ({"preset": preset} if usual and preset else {})


class Loop:
    """One loop on its way."""

    def __init__(self, context: StageContext, parameters: Parameters):
        self.context, self.parameters = context, parameters
        self.workspace = context.workspace
        self.path = context.artifacts / _FILE
        self.steps = self._earlier() or [Step(name, name) for name in LOOPS[parameters.loop]]
        self.name = context.run.spec.name or parameters.loop

    def run(self) -> None:
        """Every stage that has not succeeded yet.

        Raises:
            RunFailed: A stage did not succeed.
            StopRequested: A person stopped the loop; the stage that was running is stopped too.
        """
        for place, step in enumerate(self.steps):
            self.context.progress(place, len(self.steps), "stages", note=step.stage, even=False)
            self.context.check_stop()
            if step.state != State.SUCCEEDED:
                self._run_step(place, step)
        self._write()
        self.context.progress(len(self.steps), len(self.steps), "stages", even=False)

    def _run_step(self, place: int, step: Step) -> None:
        run = self._started(place, step)
        self._told(step, run.status().state, run.id)
        state = self._ended(step, run)
        self._told(step, state, run.id)
        self.context.event("info", "step_ended", stage=step.stage, run=run.id, state=str(state))
        self.context.check_stop()
        if state is not State.SUCCEEDED:
            raise RunFailed(self._reason(step, run, state))

    def _ended(self, step: Step, run: Run) -> State:
        """Wait for the end of a step's run; a stop is passed on, a lost supervisor replaced."""
        from backend.supervisor import adopt_orphans, stop

        asked, alone = False, 0
        while not (status := run.status()).state.ended:
            if status.state != step.state:
                self._told(step, status.state, run.id)
            if self.context.stop_requested and not asked:
                stop(run)
                asked = True
            alone = 0 if status.supervised else alone + 1
            if alone == ALONE_POLLS:
                adopt_orphans(self.workspace)
                alone = 0
            time.sleep(POLL_S)
        return status.state

    def _started(self, place: int, step: Step) -> Run:
        """The step's run: the one under way, an ended one continued, else a new one."""
        from backend.stages import STAGES
        from backend.supervisor import resume, start

        if step.run_id is not None:
            run = Run.find(self.workspace, step.run_id)
            state = run.status().state
            if not state.ended or state is State.SUCCEEDED:
                return run
            if STAGES[step.stage].resumable:
                return resume(run)
        usual = defaults(self.workspace, step.stage)
        values = asked(usual, self._bindings()[step.stage]())
        own = self.context.run
        return start(
            self.workspace,
            step.stage,
            values,
            parent=own.id,
            request=f"{own.id} {place} {self.context.attempt}",
            name=self.name,
        )

    def _bindings(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """What each stage gets from the loop and from the stages before it."""
        asked = self.parameters
        return {
            "analyze": lambda: {"dataset": asked.dataset},
            "synthesize": lambda: {
                "dataset": asked.dataset,
                "recipe": asked.recipe,
                "captioner": self._of_baseline("finetune"),
                "output": asked.recipe,
                "seed": asked.seed,
            },
            "verify": lambda: {
                "dataset": self._data(),
                "seed": asked.seed,
                "sample_cap": asked.sample_cap,
            },
            "prepare": lambda: {
                "dataset": self._data(),
                "seed": asked.seed,
                "sample_cap": asked.sample_cap,
            },
            "pretrain": lambda: {"data": self._run_of("prepare"), "seed": asked.seed},
            "finetune": lambda: {
                "projector": self._run_of("pretrain"),
                "seed": asked.seed,
                **method_values(self.workspace, asked.method),
            },
            "evaluate": lambda: {"checkpoint": self._run_of("finetune"), "limit": asked.limit},
            "report": self._report,
        }

    def _report(self) -> dict[str, Any]:
        own = self._run_of("evaluate")
        if self.parameters.loop == "baseline":
            return {"runs": [own], "baseline": own}
        return {"runs": [own], "baseline": self._of_baseline("evaluate")}

    def _data(self) -> str:
        """The dataset version that is trained on."""
        if self.parameters.loop == "baseline":
            return self.parameters.dataset
        made = Run.find(self.workspace, self._run_of("synthesize"))
        return str(read_json(made.artifacts / "dataset.json")["dataset"])

    def _run_of(self, stage: str) -> str:
        found = next(step.run_id for step in self.steps if step.stage == stage)
        assert found is not None
        return found

    def _of_baseline(self, stage: str) -> str:
        return _child(baseline_of(self.workspace, self.parameters.baseline_loop), stage)

    def _told(self, step: Step, state: State, run_id: str) -> None:
        step.run_id, step.state = run_id, str(state)
        self._write()

    def _write(self) -> None:
        write_json(self.path, {"steps": [asdict(step) for step in self.steps]})

    def _earlier(self) -> list[Step]:
        if not self.path.is_file():
            return []
        return [Step(**step) for step in read_json(self.path)["steps"]]

    @staticmethod
    def _reason(step: Step, run: Run, state: State) -> Reason:
        from backend.messages import message

        why = run.status().reason
        text = message(f"reason.{why.code}", **why.values) if why is not None else str(state)
        return Reason(
            code="step_failed",
            values={"stage": step.stage, "run": run.id, "problem": text},
            evidence=why.evidence if why is not None else [],
        )


if __name__ == "__main__":
    stage_main(Parameters, main)
