"""Real runs of a call as test data: trainings that died on a GPU, and healthy ones."""

from __future__ import annotations

import gzip
import json
import re
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backend.files import read_lines
from backend.memory.health import trained_samples
from backend.runs import Run

DATA = Path(__file__).parents[1] / "data"
DEATHS, HEALTHY = DATA / "deaths", DATA / "healthy.json.gz"
COLUMNS = (
    "step", "time", "loss", "learning_rate", "grad_norm", "epoch", "samples_per_second",
    "memory_allocated", "host_memory",
)  # fmt: skip
"""Of metrics, what health is judged by."""
DIGITS = 6
"""Significant digits that are kept."""
_PLACES = (
    (re.compile(r"(/[\w.+-]+)+/site-packages/"), "/venv/lib/site-packages/"),
    (re.compile(r"(/[\w.+-]+)+/lib/python3"), "/venv/lib/python3"),
    (re.compile(r"(/[\w.+-]+)+/bin/python3"), "/venv/bin/python3"),
    (re.compile(r"(/[\w.+-]+)+/(backend|tests)/"), r"/synthloop/\2/"),
    (re.compile(r"/tmp(/[\w.+-]+)+"), "/data"),
)
"""Paths of the machine that measured say nothing to anybody else."""


def keep_runs(folders: Sequence[Path]) -> None:
    """Take what calls left in `runs.tar.gz` for the tests; the last run of a name counts."""
    healthy: dict[str, Any] = {}
    for folder in folders:
        results = [json.loads(line) for line in (folder / "results.jsonl").open()]
        with tempfile.TemporaryDirectory() as scratch:
            with tarfile.open(folder / "runs.tar.gz") as tar:
                tar.extractall(scratch, filter="data")
            for result in results:
                run = Run(Path(scratch) / result["name"])
                if result["group"] == "death" and result["state"] == "oom":
                    _keep_death(run, result)
                if result["group"] == "healthy" and result["state"] == "done":
                    healthy[result["name"]] = _columns(run)
    if healthy:
        text = json.dumps(healthy, separators=(",", ":")).encode()
        HEALTHY.write_bytes(gzip.compress(text, mtime=0))


def healthy_runs() -> dict[str, dict[str, Any]]:
    """By name: `columns` of the metrics, `samples`, `without_labels` and `order` of its batches."""
    found: dict[str, dict[str, Any]] = json.loads(gzip.decompress(HEALTHY.read_bytes()))
    return found


def _keep_death(run: Run, result: dict[str, Any]) -> None:
    """Its log, its specification with every parameter, its state, and what was expected of it."""
    target = DEATHS / run.path.name.removeprefix("death-")
    (target / "artifacts").mkdir(parents=True, exist_ok=True)
    spec = json.loads((run.path / "run.json").read_text())
    outcome = json.loads((run.path / "outcome.json").read_text())
    status = json.loads((run.path / "status.json").read_text())
    status |= {"state": outcome["state"], "reason": outcome["reason"]}
    spec |= {"run_id": target.name, "parameters": result["parameters"]}
    for name, values in (("run.json", spec), ("status.json", status)):
        (target / name).write_text(_anonymous(json.dumps(values, indent=1)) + "\n")
    expected = run.path / "artifacts" / "memory.json"
    if expected.is_file():
        (target / "artifacts" / "memory.json").write_text(expected.read_text())
    (target / "output.log").write_text(_anonymous((run.path / "output.log").read_text()))


def _anonymous(text: str) -> str:
    for pattern, place in _PLACES:
        text = pattern.sub(place, text)
    return text


def _columns(run: Run) -> dict[str, Any]:
    rows = list(read_lines(run.metrics_path))
    samples, without, order, _ = trained_samples(run.path / "batches")
    numbers: dict[str, int] = {}
    return {
        "columns": {name: [_short(row.get(name)) for row in rows] for name in COLUMNS},
        "samples": samples,
        "without_labels": without,
        "order": [numbers.setdefault(sample, len(numbers)) for sample in order],
    }


def _short(value: float | None) -> float | None:
    if value is None or isinstance(value, int):
        return value
    # Times need more: they are compared with each other.
    return round(value, 2) if value > 1e9 else float(f"{value:.{DIGITS}g}")
