"""Whether a training run is healthy: findings while it trains, at its end, and for any log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.files import read_json, read_lines, write_json
from backend.formats.kit_log import read_kit_log
from backend.memory.adapter_files import unchanged_matrices
from backend.memory.curves import Curves
from backend.memory.symptoms import SYMPTOMS, Finding, Subject
from backend.messages import message
from backend.runs import Reason, Run, RunFailed

_GRADES = {"error": 0, "warning": 1, "info": 2}


def judge(
    rows: Iterable[Mapping[str, Any]],
    *,
    vocabulary_size: int | None = None,
    samples: int | None = None,
    samples_without_labels: int | None = None,
    order: Sequence[str] = (),
) -> list[Finding]:
    """What is wrong with a training run, the worst first; empty for a healthy one.

    Args:
        rows: Metric rows (metrics.jsonl, or `read_kit_log`): `step`, `loss`, and where known
            `learning_rate`, `grad_norm`, `epoch`, `time` (s), `samples_per_second`,
            `memory_allocated` and `host_memory` (bytes), `attempt`.
        vocabulary_size: Tokens of the model; ln of it is the loss of guessing.
        samples: Training samples whose labels were counted; None when nobody counted.
        samples_without_labels: How many of them train no token.
        order: Sample ids in the order in which they were trained on.
    """
    subject = Subject(Curves(rows), vocabulary_size, samples, samples_without_labels, order)
    found = [finding for check in SYMPTOMS if (finding := check(subject)) is not None]
    return sorted(found, key=lambda finding: _GRADES[finding.level])


def judge_run(run: Run) -> list[Finding]:
    """`judge` of a training run's own files, and of the adapter that it left."""
    rows = list(read_lines(run.metrics_path))
    samples, without_labels, order = trained_samples(run.path / "batches")
    if without_labels == samples and any(row.get("loss") is not None for row in rows):
        # Steps have a loss and no sample has one: nobody measured those.
        without_labels = None
    found = judge(
        rows,
        vocabulary_size=_vocabulary_size(run.artifacts),
        samples=samples,
        samples_without_labels=without_labels,
        order=order,
    )
    unchanged = adapter_unchanged(run.artifacts)
    return sorted([*found, *([unchanged] if unchanged else [])], key=lambda f: _GRADES[f.level])


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
    return judge(log_rows(path), vocabulary_size=vocabulary_size)


def log_rows(path: Path) -> list[dict[str, Any]]:
    """The metric rows of a log in one of the forms that `judge_log` reads."""
    if path.suffix == ".jsonl":
        rows = list(read_lines(path))
    elif path.suffix == ".json":
        state = read_json(path)
        history = state.get("log_history") if isinstance(state, dict) else None
        rows = [row for row in history or () if isinstance(row, dict) and "loss" in row]
    else:
        return read_kit_log(path)
    if not rows or not all(isinstance(row.get("step"), int) for row in rows):
        raise InputError(
            "this log has no training step.",
            place=str(path),
            remedy="Choose a training's printed log, its trainer_state.json or metrics.jsonl.",
        )
    return rows


def conclude(run: Run) -> list[Finding]:
    """Judge a run that trained to its end, keep the findings, and fail it when it did not learn.

    Writes artifacts/findings.json and one event a warning or error. A training stage calls this
    as its last act, after its checkpoint is saved.

    Raises:
        RunFailed: A finding of the worst grade; its reason is `did_not_learn`.
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
        raise RunFailed(
            Reason(
                code="did_not_learn",
                values={"finding": worst[0].code, "problem": describe(worst[0])},
                evidence=[describe(finding) for finding in worst],
            )
        )
    return findings


def describe(finding: Finding, language: str = "en") -> str:
    """The finding in words."""
    shown = {name: _shown(value) for name, value in finding.values.items()}
    return message(f"finding.{finding.code}", language, **shown)


def advice(finding: Finding, language: str = "en") -> str:
    """What to do about it."""
    return message(f"finding.{finding.code}.advice", language)


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _vocabulary_size(checkpoint: Path) -> int | None:
    path = checkpoint / "config.json"
    if not path.exists():
        return None
    size = read_json(path).get("vocab_size")
    return size if isinstance(size, int) else None


def trained_samples(folder: Path) -> tuple[int | None, int | None, list[str]]:
    """What a run's `batches` tell: samples trained on, how many had no label (their loss is null),
    and the order of their ids; None and nothing where there are none.
    """
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        return None, None, []
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
    return len(rows), int(np.isnan(loss[rows]).sum()), sample[rows].tolist()
