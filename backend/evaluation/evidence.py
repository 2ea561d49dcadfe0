"""What a report is made of: evaluated runs and, behind each, its training and its data."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.errors import InputError, UsageError
from backend.evaluation.comparison import read_questions
from backend.files import read_json, read_lines
from backend.memory.curves import Curves, Series
from backend.runs import Run, RunSpec
from backend.trails import may_name_a_run, named, trail
from backend.workspace import Workspace

_ORDER = ("synthesize", "prepare", "pretrain", "finetune", "merge", "evaluate")
_REFERENCE = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset version."""

    reference: str
    counts: dict[str, int]
    operators: list[dict[str, Any]]
    """name, before, after, seconds."""


@dataclass(frozen=True, slots=True)
class Training:
    """A pretraining or fine-tuning run."""

    run_id: str
    stage: str
    loss: Series
    final_loss: float | None
    seconds: float | None
    peak_memory: float | None
    """Bytes of device memory; None when unknown."""
    peak_host_memory: float | None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluated run with what led to it."""

    run_id: str
    label: str
    scores: dict[str, Any]
    questions: list[dict[str, Any]]
    trail: list[RunSpec]
    """Every run it depends on and itself, in the order in which they run."""
    trainings: list[Training] = field(default_factory=list)
    datasets: list[Dataset] = field(default_factory=list)

    @property
    def spec(self) -> RunSpec:
        """What was asked for."""
        return self.trail[-1]


def gather(workspace: Workspace, run_id: str) -> Evaluated:
    """The evaluated run `run_id` with its training and data.

    Raises:
        UsageError: There is no such run, or it is no evaluation.
        InputError: It has no scores.
    """
    run = Run.find(workspace, run_id)
    if run.spec.stage != "evaluate":
        raise UsageError("this run is not an evaluation.", place=run.id)
    scores = run.artifacts / "scores.json"
    if not scores.exists():
        raise InputError(
            "this evaluation has no scores.",
            place=str(scores),
            remedy="Resume it, and report when it has succeeded.",
        )
    trail = _trail(workspace, run)
    references = _dataset_references(workspace, [member.spec for member in trail])
    trail = [*_makers(workspace, references), *trail]
    specs = [member.spec for member in trail]
    return Evaluated(
        run_id=run.id,
        label=label_of(specs),
        scores=read_json(scores),
        questions=read_questions(run.artifacts / "questions.parquet"),
        trail=specs,
        trainings=[
            _training(member, spec)
            for member, spec in zip(trail, specs, strict=True)
            if spec.stage in ("pretrain", "finetune")
        ],
        datasets=[_dataset(workspace, name) for name in references],
    )


def label_of(trail: list[RunSpec]) -> str:
    """What a person calls the run: its name, the name of its checkpoint, or its id."""
    named = [spec.name for spec in reversed(trail) if spec.name]
    return named[0] if named else trail[-1].run_id


def distinct_labels(runs: list[Evaluated]) -> dict[str, str]:
    """Run id to label; equal labels get the end of the id."""
    labels = [run.label for run in runs]
    return {
        run.run_id: f"{run.label} ({run.run_id[-4:]})" if labels.count(run.label) > 1 else run.label
        for run in runs
    }


def _trail(workspace: Workspace, last: Run) -> list[Run]:
    """The run and all that it builds on, in the order in which they ran."""

    def spec_of(name: str) -> RunSpec | None:
        run = Run(workspace.runs / name)
        known = may_name_a_run(name) and (run.path / "run.json").is_file()
        return run.spec if known else None

    rank = {stage: number for number, stage in enumerate(_ORDER)}
    specs = trail(last.id, spec_of)
    specs.sort(key=lambda spec: (rank.get(spec.stage, -1), spec.run_id))
    return [Run(workspace.runs / spec.run_id) for spec in specs]


def _dataset_references(workspace: Workspace, specs: list[RunSpec]) -> list[str]:
    """The dataset versions that the runs read, and the ones those were made from, oldest first."""
    found: list[str] = []
    waiting = [value for spec in specs if spec.stage == "prepare" for value in named(spec)]
    while waiting:
        reference = waiting.pop(0)
        if reference in found or not _REFERENCE.fullmatch(reference):
            continue
        description = workspace.datasets / reference / "dataset.json"
        if description.is_file():
            found.insert(0, reference)
            parent = read_json(description).get("parent")
            waiting += [parent] if isinstance(parent, str) else []
    return found


def _makers(workspace: Workspace, references: list[str]) -> list[Run]:
    """The runs that made these dataset versions, as far as they are still there.

    What wrote their captions is left out: it trained another model.
    """
    descriptions = [read_json(workspace.datasets / name / "dataset.json") for name in references]
    made_by = (str(description.get("run_id") or "") for description in descriptions)
    return [
        Run(workspace.runs / run_id)
        for run_id in dict.fromkeys(made_by)
        if may_name_a_run(run_id) and (workspace.runs / run_id / "run.json").is_file()
    ]


def _dataset(workspace: Workspace, reference: str) -> Dataset:
    description = read_json(workspace.datasets / reference / "dataset.json")
    return Dataset(reference, description.get("counts", {}), description.get("operators", []))


def _training(run: Run, spec: RunSpec) -> Training:
    curves = Curves(read_lines(run.metrics_path))
    loss = curves.series("loss").finite()
    status = run.written_status()
    seconds = None
    if status.started_at is not None and status.ended_at is not None:
        seconds = status.ended_at - status.started_at
    return Training(
        run_id=run.id,
        stage=spec.stage,
        loss=loss,
        final_loss=float(loss.last().mean()) if len(loss) else None,
        seconds=seconds,
        peak_memory=_peak(curves, "memory_reserved_peak"),
        peak_host_memory=_peak(curves, "host_memory"),
    )


def _peak(curves: Curves, name: str) -> float | None:
    known = curves.series(name).finite()
    return float(known.values.max()) if len(known) else None


def parameter_differences(runs: list[Evaluated]) -> list[tuple[str, str, list[Any]]]:
    """Stage, parameter and its value in each run, where they differ; names of runs left out."""
    names = {
        (spec.stage, parameter)
        for run in runs
        for spec in run.trail
        for parameter in spec.parameters
    }
    rank = {stage: number for number, stage in enumerate(_ORDER)}
    differing = []
    for stage, parameter in sorted(names, key=lambda name: (rank.get(name[0], -1), name)):
        values = [_parameter(run, stage, parameter) for run in runs]
        trail_ids = {spec.run_id for run in runs for spec in run.trail}
        if any(str(value) in trail_ids for value in values):
            continue
        if any(value != values[0] for value in values):
            differing.append((stage, parameter, values))
    return differing


def _parameter(run: Evaluated, stage: str, parameter: str) -> Any:
    found = [spec.parameters.get(parameter) for spec in run.trail if spec.stage == stage]
    return found[-1] if found else None


def image_bytes(workspace: Workspace, references: list[str]) -> dict[str, bytes]:
    """The pictures that `image` of questions.parquet names; one that cannot be read is left out.

    Args:
        workspace: Where the benchmarks lie.
        references: Paths below the TextVQA images, or `tsv:<index>` for MMBench.
    """
    from backend.files import confine
    from backend.formats.mmbench import read_rows

    found: dict[str, bytes] = {}
    indices = {int(name[4:]) for name in references if name.startswith("tsv:")}
    tsv = workspace.asset("mmbench_questions")
    if indices and tsv.is_file():
        for row in read_rows(tsv):
            if row.index in indices:
                found[f"tsv:{row.index}"] = row.image_bytes()
                indices.discard(row.index)
            if not indices:
                break
    for name in references:
        if not name.startswith("tsv:"):
            path: Path = confine(workspace.asset("textvqa_images"), name)
            if path.is_file():
                found[name] = path.read_bytes()
    return found
