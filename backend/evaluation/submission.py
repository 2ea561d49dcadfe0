"""The challenge's submission: what goes in, what must be true before, and the archive."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backend.errors import InputError, UsageError
from backend.evaluation.evidence import Evaluated, gather
from backend.files import read_json
from backend.runs import Run
from backend.workspace import Workspace

CheckState = Literal["passed", "failed", "warning"]
BENCHMARK_FILES = (
    "textvqa/*.jsonl",
    "mmbench/answers/*/*.jsonl",
    "mmbench/answers_upload/*/*.xlsx",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of the submission; messages `check.submission_<name>.title|why|remedy`."""

    name: str
    state: CheckState
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Submission:
    """What a submission is made from."""

    workspace: Workspace
    evaluated: Evaluated
    experiment: str
    sample_cap: int
    final: bool
    """The offline final also wants the data and the weights."""
    fixed: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stage to the parameters that the challenge fixes, with their values."""

    def run(self, stage: str) -> Run | None:
        """The run of a stage behind the evaluation; None when there is none."""
        found = [spec.run_id for spec in self.evaluated.trail if spec.stage == stage]
        return Run(self.workspace.runs / found[-1]) if found else None

    @property
    def results(self) -> Path | None:
        """The folder of answers in the kit's layout."""
        folder = Run(self.workspace.runs / self.evaluated.run_id).artifacts / "eval_results"
        found = sorted(folder.glob("*")) if folder.is_dir() else []
        return found[0] if found else None


def submission_of(
    workspace: Workspace,
    evaluation: str,
    *,
    experiment: str = "",
    sample_cap: int = 200_000,
    final: bool = False,
    fixed: dict[str, dict[str, Any]] | None = None,
) -> Submission:
    """The submission of an evaluated run.

    Raises:
        UsageError: There is no such evaluation.
        InputError: It has no scores.
    """
    evaluated = gather(workspace, evaluation)
    name = experiment or "".join(
        letter if letter.isalnum() or letter in "-_." else "-" for letter in evaluated.label
    )
    return Submission(workspace, evaluated, name, sample_cap, final, fixed or {})


def check_submission(submission: Submission) -> list[Check]:
    """Every condition, in the order in which a person would mend them; takes seconds."""
    return [check(submission) for check in CHECKS]


def _synthesis_step(submission: Submission) -> Check:
    """Without a synthesis step a submission is invalid."""
    made = sum(dataset.counts.get("synthesized", 0) for dataset in submission.evaluated.datasets)
    return Check("synthesis_step", "passed" if made else "failed", {"count": made})


def _sample_cap(submission: Submission) -> Check:
    run = submission.run("prepare")
    path = run.artifacts / "prepared.json" if run else None
    samples = read_json(path)["samples"] if path and path.is_file() else None
    fits = samples is not None and samples <= submission.sample_cap
    values = {"count": "?" if samples is None else samples, "cap": submission.sample_cap}
    return Check("sample_cap", "passed" if fits else "failed", values)


def _log(stage: str) -> Callable[[Submission], Check]:
    def check(submission: Submission) -> Check:
        run = submission.run(stage)
        there = run is not None and run.log_path.is_file() and run.log_path.stat().st_size > 0
        return Check(f"{stage}_log", "passed" if there else "failed", {})

    return check


def _answers(submission: Submission) -> Check:
    folder = submission.results
    absent = [
        pattern for pattern in BENCHMARK_FILES if folder is None or not any(folder.glob(pattern))
    ]
    return Check("answers", "failed" if absent else "passed", {"files": ", ".join(absent)})


def _complete(submission: Submission) -> Check:
    scores = submission.evaluated.scores
    missing = sum(entry["missing"] for entry in scores.values())
    limited = any(entry["contract"]["limit"] is not None for entry in scores.values())
    both = {"textvqa", "mmbench"} <= scores.keys()
    state: CheckState = "failed" if missing or limited or not both else "passed"
    return Check("complete", state, {"missing": missing})


def _fixed_recipe(submission: Submission) -> Check:
    changed = []
    for stage, expected in submission.fixed.items():
        run = submission.run(stage)
        actual = run.spec.parameters if run else {}
        changed += [
            f"{stage}.{name}"
            for name, value in expected.items()
            if name in actual and actual[name] != value
        ]
    state: CheckState = "warning" if changed else "passed"
    return Check("fixed_recipe", state, {"parameters": ", ".join(changed)})


def _weights(submission: Submission) -> Check:
    absent = [name for name, path in _weight_files(submission).items() if not path.is_file()]
    needed = submission.final and (absent or not _weight_files(submission))
    return Check("weights", "failed" if needed else "passed", {"files": ", ".join(absent)})


CHECKS: tuple[Callable[[Submission], Check], ...] = (
    _synthesis_step,
    _sample_cap,
    _log("pretrain"),
    _log("finetune"),
    _answers,
    _complete,
    _fixed_recipe,
    _weights,
)


def _weight_files(submission: Submission) -> dict[str, Path]:
    """Names in the training folders to the files that the final wants."""
    pretrain = submission.run("pretrain")
    finetune = submission.run("merge") or submission.run("finetune")
    found = {}
    if pretrain:
        folder = f"training_dirs/MGM-2B-Pretrain-{submission.experiment}"
        found[f"{folder}/mm_projector.bin"] = pretrain.artifacts / "mm_projector.bin"
    if finetune:
        folder = f"training_dirs/MGM-2B-Finetune-{submission.experiment}"
        for path in sorted(finetune.artifacts.iterdir()):
            if path.is_file() and path.suffix in (".safetensors", ".bin", ".json", ".model"):
                found[f"{folder}/{path.name}"] = path
    return found


def members(submission: Submission, solution: Path | None) -> dict[str, Path]:
    """Names in the archive to the files that they come from.

    Args:
        submission: What is submitted.
        solution: A folder of the person's own; its files go below `solution/`.

    Raises:
        UsageError: The solution folder does not exist.
    """
    found: dict[str, Path] = {}
    if solution is not None:
        if not solution.is_dir():
            raise UsageError("the solution folder does not exist.", place=str(solution))
        for path in sorted(solution.rglob("*")):
            if path.is_file() and path.resolve().is_relative_to(solution.resolve()):
                found[f"solution/{path.relative_to(solution).as_posix()}"] = path
    name = submission.experiment
    for stage, folder in (("pretrain", "Pretrain"), ("finetune", "Finetune")):
        if run := submission.run(stage):
            found[f"output/training_dirs/MGM-2B-{folder}-{name}/{stage}.log"] = run.log_path
    if results := submission.results:
        for path in sorted(results.rglob("*")):
            if path.is_file():
                inside = path.relative_to(results).as_posix()
                found[f"output/eval_results/MGM-2B-Finetune-{name}/{inside}"] = path
    for dataset in submission.evaluated.datasets:
        found |= _dataset_files(submission, dataset.reference)
    if submission.final:
        found |= {f"output/{name}": path for name, path in _weight_files(submission).items()}
    return found


def _dataset_files(submission: Submission, reference: str) -> dict[str, Path]:
    """How the data was made; for the final, the data itself as it was trained on."""
    folder = submission.workspace.datasets / reference
    found = {f"solution/datasets/{reference}/dataset.json": folder / "dataset.json"}
    prepare = submission.run("prepare")
    if submission.final and prepare:
        found["output/processed_data/processed_data.json"] = prepare.artifacts / "train.json"
        made = folder / "images"
        for path in sorted(made.rglob("*")) if made.is_dir() else []:
            if path.is_file():
                inside = path.relative_to(made).as_posix()
                found[f"output/processed_data/synthetic_images/{inside}"] = path
    return found


def recipe_texts(submission: Submission) -> dict[str, str]:
    """Names in the archive to the recipes that made the data, as they were run (YAML)."""
    found = {}
    for dataset in submission.evaluated.datasets:
        folder = submission.workspace.datasets / dataset.reference
        recipe = read_json(folder / "dataset.json").get("recipe")
        if isinstance(recipe, str):
            found[f"solution/recipes/{dataset.reference.replace('/', '-')}.yaml"] = recipe
    return found


def write_archive(
    path: Path,
    files: dict[str, Path],
    texts: dict[str, str],
    progress: Callable[[int, int], None],
) -> None:
    """Write the archive through a rename; weights are stored, all else is compressed.

    Args:
        path: The archive.
        files: Name inside to the file.
        texts: Name inside to content that is not in a file; a file of that name wins.
        progress: Told files done and files in all.

    Raises:
        InputError: A file is no longer there.
    """
    scratch = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            for name, text in texts.items():
                if name not in files:
                    archive.writestr(name, text)
            for done, (name, source) in enumerate(files.items()):
                progress(done, len(files))
                if not source.is_file():
                    raise InputError("this file of the submission is missing.", place=str(source))
                stored = source.suffix in (".safetensors", ".bin", ".jpg", ".png")
                method = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
                archive.write(source, name, compress_type=method)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    progress(len(files), len(files))
