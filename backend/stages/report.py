"""Compare evaluated runs in a page that needs nothing beside itself, and in Markdown."""

from __future__ import annotations

import time
from typing import Literal

from backend.errors import SynthLoopError
from backend.evaluation.evidence import gather
from backend.evaluation.report import PARTS, Part, make_report
from backend.files import write_atomic
from backend.runs import Run
from backend.stages.base import Problem, StageContext, StageParameters, parameter, stage_main
from backend.workspace import Workspace


class Parameters(StageParameters):
    """What to report on."""

    runs: list[str] = parameter([], fold="data", kind="runs", stages=("evaluate",))
    baseline: str = parameter("", fold="data", kind="run", stages=("evaluate",))
    parts: list[Part] = parameter(list(PARTS), fold="recipe")
    examples: int = parameter(6, fold="recipe", ge=0, le=50)
    title: str = parameter("", fold="recipe", max_length=200)
    language: Literal["", "en", "zh"] = parameter("", fold="recipe")


def preflight(workspace: Workspace, parameters: Parameters) -> list[Problem]:
    """The runs must exist and have scores."""
    if not parameters.runs:
        return [Problem("error", "no_runs_chosen", {}, "runs")]
    problems = []
    for run_id in _chosen(parameters):
        try:
            run = Run.find(workspace, run_id)
        except SynthLoopError as error:
            problems.append(Problem("error", "run_unknown", {"problem": error.problem}, run_id))
            continue
        if not (run.artifacts / "scores.json").is_file():
            problems.append(Problem("error", "run_without_scores", {"run": run.id}, run.id))
    return problems


def _chosen(parameters: Parameters) -> list[str]:
    """The runs and the baseline, each once; the baseline first."""
    baseline = [parameters.baseline] if parameters.baseline else []
    return list(dict.fromkeys(baseline + parameters.runs))


def main(context: StageContext, parameters: Parameters) -> None:
    """Write `report.html` and `report.md`."""
    from backend.profiles import defaults
    from backend.supervisor import command

    workspace = context.workspace
    chosen = list(dict.fromkeys(Run.find(workspace, name).id for name in _chosen(parameters)))
    runs = []
    for number, run_id in enumerate(chosen):
        context.progress(number, len(chosen), "runs")
        runs.append(gather(workspace, run_id))
    baseline = Run.find(workspace, parameters.baseline).id if parameters.baseline else None
    report = make_report(
        workspace,
        runs,
        baseline=baseline,
        language=parameters.language or workspace.settings.language,
        title=parameters.title,
        parts=tuple(parameters.parts),
        examples=parameters.examples,
        commands={
            run.run_id: [
                command(spec.stage, spec.parameters, defaults(workspace, spec.stage))
                for spec in run.trail
            ]
            for run in runs
        },
        date=time.strftime("%Y-%m-%d %H:%M"),
    )
    write_atomic(context.artifacts / "report.html", report.html)
    write_atomic(context.artifacts / "report.md", report.markdown)
    context.progress(len(chosen), len(chosen), "runs")


if __name__ == "__main__":
    stage_main(Parameters, main)
