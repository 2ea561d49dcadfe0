"""Whether a training run is healthy: findings while it trains, at its end, and for any log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from backend.errors import InputError
from backend.files import read_json, read_lines, write_json
from backend.formats.kit_log import read_trainings
from backend.memory.adapter_files import unchanged_matrices
from backend.memory.curves import Curves
from backend.memory.symptoms import SYMPTOMS, Finding, Subject
from backend.messages import message
from backend.runs import Reason, Run, RunFailed

_GRADES = {"error": 0, "warning": 1, "info": 2}
_CAUSES = ("labels_masked", "learning_rate_zero", "loss_not_finite", "adapter_unchanged")
"""Of one grade these come first: what else is found is mostly their effect."""
_MOST_STEPS = 10


def judge(
    rows: Iterable[Mapping[str, Any]],
    *,
    vocabulary_size: int | None = None,
    samples: int | None = None,
    samples_without_labels: int | None = None,
    steps_without_labels: Sequence[int] = (),
    order: Sequence[str] = (),
) -> list[Finding]:
    """What is wrong with a training run, the worst first, and of those causes before effects;
    empty for a healthy one.

    Args:
        rows: Metric rows (metrics.jsonl, or `read_trainings`): `step`, `loss`, and where known
            `learning_rate`, `grad_norm`, `epoch`, `time` (s), `samples_per_second`,
            `memory_allocated` and `host_memory` (bytes), `attempt`.
        vocabulary_size: Tokens of the model; ln of it is the loss of guessing.
        samples: Training samples whose labels were counted; None when nobody counted.
        samples_without_labels: How many of them train no token.
        steps_without_labels: Steps that had such samples, those with the most first.
        order: Sample ids in the order in which they were trained on.
    """
    subject = Subject(
        Curves(rows),
        vocabulary_size,
        samples,
        samples_without_labels,
        tuple(steps_without_labels),
        order,
    )
    found = [finding for check in SYMPTOMS if (finding := check(subject)) is not None]
    return sorted(found, key=_rank)


def _rank(finding: Finding) -> tuple[int, int]:
    code = finding.code
    return _GRADES[finding.level], _CAUSES.index(code) if code in _CAUSES else len(_CAUSES)


def judge_run(run: Run) -> list[Finding]:
    """`judge` of a training run's own files, and of the adapter that it left."""
    rows = list(read_lines(run.metrics_path))
    trained = trained_samples(run.path / "batches")
    without_labels = trained.without_labels
    if without_labels == trained.samples and any(row.get("loss") is not None for row in rows):
        # Steps have a loss and no sample has one: nobody measured those.
        without_labels = None
    found = judge(
        rows,
        vocabulary_size=_vocabulary_size(run.artifacts),
        samples=trained.samples,
        samples_without_labels=without_labels,
        steps_without_labels=trained.masked_steps,
        order=trained.order,
    )
    unchanged = adapter_unchanged(run.artifacts)
    return sorted([*found, *([unchanged] if unchanged else [])], key=_rank)


def findings_so_far(run: Run) -> list[Finding]:
    """What a list of runs can afford: what the run itself kept at its end, or its figures alone.

    Raises:
        InputError: The run's own files are broken.
    """
    kept, figures = run.artifacts / "findings.json", run.metrics_path
    # A resumed run has moved on from what an earlier attempt kept.
    if kept.is_file() and not (
        figures.is_file() and kept.stat().st_mtime_ns < figures.stat().st_mtime_ns
    ):
        fields = ("code", "level", "values", "steps")
        return [Finding(*(one[name] for name in fields)) for one in read_json(kept)]
    return judge(read_lines(figures), vocabulary_size=_vocabulary_size(run.artifacts))


def adapter_unchanged(checkpoint: Path) -> Finding | None:
    """A LoRA adapter whose B matrices are all zero: it computes what the base model computes."""
    count = unchanged_matrices(checkpoint)
    return Finding("adapter_unchanged", "error", {"count": count}) if count else None


def judge_log(path: Path, *, vocabulary_size: int | None = None) -> list[Finding]:
    """`judge` of a training that somebody else ran.

    Args:
        path: What the kit or transformers' Trainer printed, its `trainer_state.json`, or the
            `metrics.jsonl` of a run of this studio.
        vocabulary_size: Tokens of its model; the largest known when unknown.

    Raises:
        InputError: The file is missing, or tells of no training step.
    """
    found: dict[str, Finding] = {}
    for rows in _trainings(path):
        for finding in judge(rows, vocabulary_size=vocabulary_size):
            found.setdefault(finding.code, finding)
    return sorted(found.values(), key=_rank)


def _trainings(path: Path) -> list[list[dict[str, Any]]]:
    """The metric rows of each training in a log in one of the forms that `judge_log` reads."""
    if path.suffix == ".jsonl":
        rows = list(read_lines(path))
    elif path.suffix == ".json":
        state = read_json(path)
        history = state.get("log_history") if isinstance(state, dict) else None
        rows = [row for row in history or () if isinstance(row, dict) and "loss" in row]
    else:
        return read_trainings(path)
    if not rows or not all(isinstance(row.get("step"), int) for row in rows):
        raise InputError(
            "this log has no training step.",
            place=str(path),
            remedy="Choose a training's printed log, its trainer_state.json or metrics.jsonl.",
        )
    return [rows]


def conclude(run: Run, stopped_at: int | None = None) -> list[Finding]:
    """Judge a run that trained to its end, keep the findings, and fail it when it did not learn.

    Writes artifacts/findings.json and one event a warning or error. A training stage calls this
    as its last act, after its checkpoint is saved; or at a step at which going on is in vain.

    Args:
        run: Whose figures are there.
        stopped_at: The step at which it ends before its time; None for the end.

    Raises:
        RunFailed: A finding of the worst grade; its reason is `did_not_learn`, or `stopped_sick`
            with the checkpoints from before.
    """
    findings = judge_run(run)
    write_json(run.artifacts / "findings.json", [asdict(finding) for finding in findings])
    for finding in findings:
        if finding.level != "info":
            run.add_event(
                finding.level, "finding", finding=finding.code, text=describe(finding),
                steps=list(finding.steps),
            )  # fmt: skip
    worst = [finding for finding in findings if finding.level == "error"]
    if worst:
        code = "did_not_learn"
        values: dict[str, Any] = {"finding": worst[0].code, "problem": describe(worst[0])}
        if stopped_at is not None:
            code, values = "stopped_sick", {**values, "step": stopped_at, **_kept(run)}
        evidence = [describe(finding) for finding in worst]
        raise RunFailed(Reason(code=code, values=values, evidence=evidence))
    return findings


def _kept(run: Run) -> dict[str, str]:
    """The checkpoints that a run saved on its way: how many, and their names."""
    numbers = [path.name.partition("-")[2] for path in run.artifacts.glob("checkpoint-*")]
    steps = sorted(int(number) for number in numbers if number.isdecimal())
    names = ", ".join(f"checkpoint-{step}" for step in steps)
    return {"checkpoints": f"{len(steps)} ({names})" if steps else "0"}


def describe(finding: Finding, language: str = "en") -> str:
    """The finding in words."""
    shown = {name: _shown(value) for name, value in finding.values.items()}
    return message(f"finding.{finding.code}", language, **shown)


def advice(finding: Finding, language: str = "en") -> str:
    """What to do about it."""
    return message(f"finding.{finding.code}.advice", language)


def told(finding: Finding) -> dict[str, Any]:
    """Plain values for JSON, in words too."""
    return asdict(finding) | {"text": describe(finding), "advice": advice(finding)}


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _vocabulary_size(checkpoint: Path) -> int | None:
    path = checkpoint / "config.json"
    if not path.exists():
        return None
    size = read_json(path).get("vocab_size")
    return size if isinstance(size, int) else None


class Trained(NamedTuple):
    """What a run's `batches` tell; None and nothing where there are none."""

    samples: int | None = None
    """Samples trained on, each as often as it was."""
    without_labels: int | None = None
    """How many of them had no label: their loss is null."""
    order: Sequence[str] = ()
    """Their ids."""
    masked_steps: Sequence[int] = ()
    """Steps that had samples without a label, those with the most first."""


def trained_samples(folder: Path) -> Trained:
    """What the `batches` of a run tell."""
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        return Trained()
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    # ParquetFile leaves out Arrow's dataset engine: 30 MB that the page process need not hold.
    table = pa.concat_tables(pq.ParquetFile(path).read() for path in parts)
    # Nor need it hold pandas, which `to_numpy` imports.
    step, attempt = (np.from_dlpack(table[name].combine_chunks()) for name in ("step", "attempt"))
    loss = np.array(table["loss"].to_pylist(), float)
    sample = np.array(table["sample_id"].to_pylist(), object)
    # A step that was trained again after a resume counts once, as it was at last.
    steps, place = np.unique(step, return_inverse=True)
    latest = np.zeros(len(steps), attempt.dtype)
    np.maximum.at(latest, place, attempt)
    rows = np.flatnonzero(attempt == latest[place])
    rows = rows[np.argsort(step[rows], kind="stable")]
    bad, counts = np.unique(step[rows][np.isnan(loss[rows])], return_counts=True)
    most = np.argsort(-counts, kind="stable")[:_MOST_STEPS]
    masked = bad[most].tolist()
    return Trained(len(rows), int(counts.sum()), sample[rows].tolist(), masked)
