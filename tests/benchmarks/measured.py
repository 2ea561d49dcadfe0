"""What a device measured, as data: `results/measured.json`, made from a call's `results.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.configurations import Job
from tests.benchmarks.predictions import FILE as PREDICTIONS
from tests.benchmarks.predictions import RESULTS

FILE = RESULTS / "measured.json"
KEPT = (
    "name", "group", "state", "error", "peak", "phases", "host", "paged_bytes", "pinned",
    "step_peaks", "told",
    "device", "device_used", "device_reserved", "speed", "losses", "asked", "try", "imported_s",
    "total_s", "started_at", "ended_at", "waited_s", "largest_difference", "noise", "curves",
    "fp32_error", "bf16_error", "bf16_against_cpu", "largest_logit", "loss", "fp32_loss",
    "bf16_loss", "bf16_cpu_loss",
)  # fmt: skip
"""Of a result; the rest (paths, whole parameters) tells nothing to anybody else."""


@dataclass(frozen=True)
class Row:
    """A measured job beside its prediction.

    Attributes:
        job: As it ran, with the micro-batch of its last try.
        result: What was measured.
        foreseen: What was written down before; None for jobs without a prediction.
    """

    job: Job
    result: dict[str, Any]
    foreseen: dict[str, Any] | None

    @property
    def done(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.result["state"] == "done")

    @property
    def allocated(self) -> int | None:
        """Measured peak, bytes; None where the run did not come to its end, or on a processor."""
        return self._peak("allocated")

    @property
    def reserved(self) -> int | None:
        """The same of what torch's allocator held."""
        return self._peak("reserved")

    def _peak(self, name: str) -> int | None:
        value = (self.result.get("peak") or {}).get(name)
        return int(value) if self.done and value else None


def collect(folder: Path, file: Path = FILE) -> None:
    """Keep a call's results: its `results.jsonl` and `environment.json`."""
    lines = (folder / "results.jsonl").read_text().splitlines()
    results = []
    for line in lines:
        result = json.loads(line)
        reason = (result.get("outcome") or {}).get("reason") or {}
        kept = {key: result[key] for key in KEPT if key in result}
        if result["state"] != "done" and reason:
            kept["reason"] = {"code": reason.get("code"), "values": reason.get("values")}
        results.append(kept)
    values = {
        "environment": json.loads((folder / "environment.json").read_text()),
        "results": results,
    }
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(values, indent=1) + "\n")


def rows(measured: Path = FILE, predicted: Path = PREDICTIONS) -> list[Row]:
    """Every job that ran, its last try, in the order of the results."""
    known = {job["name"]: job for job in json.loads(predicted.read_text())["jobs"]}
    last: dict[str, Row] = {}
    for result in results(measured):
        if "asked" in result:
            job = Job.from_dict(result["asked"])
            # A smaller micro-batch than the predicted one was tried.
            changed = result["try"] and job.group == "speed"
            last[job.name] = Row(job, result, None if changed else known.get(job.name))
    return list(last.values())


def results(measured: Path = FILE) -> Iterator[dict[str, Any]]:
    """As they were measured."""
    yield from json.loads(measured.read_text())["results"]


def environment(measured: Path = FILE) -> dict[str, Any]:
    """Device and versions of the measurements."""
    values: dict[str, Any] = json.loads(measured.read_text())["environment"]
    return values
