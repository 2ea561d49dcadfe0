"""Pack an evaluated run as the challenge wants it, after checking that it would be accepted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from backend.errors import InputError, SynthLoopError
from backend.evaluation.submission import (
    Submission,
    check_submission,
    members,
    recipe_texts,
    submission_of,
    write_archive,
)
from backend.files import write_json
from backend.messages import message
from backend.stages.base import Problem, StageContext, StageParameters, parameter, stage_main
from backend.workspace import Workspace

_FREE = ("data", "projector", "image_root")
"""Parameters of the recipe's fold that name inputs, which the challenge leaves free."""


class Parameters(StageParameters):
    """What to submit."""

    evaluation: str = parameter("", fold="data", kind="run", stages=("evaluate",))
    experiment: str = parameter("", fold="data", pattern=r"^[\w.-]*$", max_length=80)
    solution: str = parameter("", fold="data", kind="path")
    sample_cap: int = parameter(200_000, fold="data", ge=1)
    final: bool = parameter(False, fold="data")


def preflight(workspace: Workspace, parameters: Parameters) -> list[Problem]:
    """Every check of the submission must pass."""
    try:
        submission = _submission(workspace, parameters)
    except SynthLoopError as error:
        place = error.place or "evaluation"
        return [Problem("error", "run_unknown", {"problem": error.problem}, place)]
    problems = []
    for check in check_submission(submission):
        if check.state != "passed":
            code = f"submission_{check.name}"
            level: Any = "error" if check.state == "failed" else "warning"
            problems.append(Problem(level, code, check.values, submission.evaluated.run_id))
    return problems


def _submission(workspace: Workspace, parameters: Parameters) -> Submission:
    return submission_of(
        workspace,
        parameters.evaluation,
        experiment=parameters.experiment,
        sample_cap=parameters.sample_cap,
        final=parameters.final,
        fixed={name: _recipe(workspace, name) for name in ("pretrain", "finetune")},
    )


def _recipe(workspace: Workspace, name: str) -> dict[str, Any]:
    """The parameters that the challenge fixes: a training stage's recipe, as the profile has it."""
    from backend.profiles import defaults
    from backend.stages import stage

    fields = stage(name).parameters.model_fields
    usual = {
        key: info.default
        for key, info in fields.items()
        if key not in _FREE and (info.json_schema_extra or {}).get("fold") == "recipe"  # type: ignore[union-attr]
    }
    return usual | {k: v for k, v in defaults(workspace, name).items() if k in usual}


def main(context: StageContext, parameters: Parameters) -> None:
    """Write `submission.json` (the checks) and `submit.zip`."""
    from backend.profiles import defaults
    from backend.supervisor import command

    workspace = context.workspace
    submission = _submission(workspace, parameters)
    checks = check_submission(submission)
    write_json(context.artifacts / "submission.json", [asdict(check) for check in checks])
    failed = [check for check in checks if check.state == "failed"]
    if failed:
        first = message(f"problem.submission_{failed[0].name}", "en", **failed[0].values)
        raise InputError(first, place=submission.evaluated.run_id)
    commands = [
        command(spec.stage, spec.parameters, defaults(workspace, spec.stage))
        for spec in submission.evaluated.trail
    ]
    texts = {
        "output/train.sh": "#!/bin/sh\nset -e\n" + "\n".join(commands) + "\n",
        "solution/readme.md": _readme(submission, commands),
        "solution/requirements.txt": _requirements(),
        **recipe_texts(submission),
    }
    solution = Path(parameters.solution).expanduser() if parameters.solution else None
    if solution is not None and not solution.is_absolute():
        solution = workspace.root / solution
    write_archive(
        context.artifacts / "submit.zip",
        members(submission, solution),
        texts,
        lambda done, total: context.progress(done, total, "files"),
    )
    size = (context.artifacts / "submit.zip").stat().st_size
    context.event("info", "submission_packed", mib=f"{size / (1 << 20):.1f}")


def _readme(submission: Submission, commands: list[str]) -> str:
    """What was done, for whoever opens the archive; a readme of the solution folder replaces it."""
    lines = [f"# {submission.experiment}", ""]
    for dataset in submission.evaluated.datasets:
        lines += [f"## Data: {dataset.reference}", ""]
        lines += [
            f"- {step['name']}: {step['before']} -> {step['after']}" for step in dataset.operators
        ]
        lines += [f"- {name}: {count}" for name, count in dataset.counts.items()] + [""]
    lines += ["## Scores", ""]
    lines += [f"- {name}: {entry['score']:.2f} ({entry['contract']['scorer']})"
              for name, entry in submission.evaluated.scores.items()]  # fmt: skip
    return "\n".join([*lines, "", "## Commands", "", *(f"    {line}" for line in commands), ""])


def _requirements() -> str:
    return (Path(__file__).parents[2] / "requirements.txt").read_text(encoding="utf-8")


if __name__ == "__main__":
    stage_main(Parameters, main)
