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
    "step_peaks", "steps", "told",
    "device", "device_used", "device_reserved", "speed", "losses", "asked", "try", "imported_s",
    "total_s", "started_at", "ended_at", "waited_s", "largest_difference", "noise", "curves",
    "fp32_error", "bf16_error", "bf16_against_cpu", "largest_logit", "loss", "fp32_loss",
    "bf16_loss", "bf16_cpu_loss",
)  # fmt: skip
"""Of a result; the rest (paths, whole parameters) tells nothing to anybody else."""
CUT_OFF = ("deadline", "timeout")
"""States of jobs that were ended from outside; what they measured until then is kept."""
SETTLED = 2
"""Steps after which a peak is that of the whole run: the first one begins without the optimizer's
states."""


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
    def cut_off(self) -> bool:
        """Whether it was ended from outside, by the deadline or its time-out."""
        return self.result["state"] in CUT_OFF

    @property
    def steps(self) -> int:
        """Optimizer steps that were completed."""
        return int(self.result.get("steps") or len(self.result.get("losses") or []))

    @property
    def ended(self) -> str:
        """How it ended, in words."""
        if self.done:
            return f"{self.steps} steps"
        if self.cut_off:
            return f"cut off after {self.steps} of {self.job.parameters['max_steps']} steps"
        return "out of memory" if self.result["state"] == "oom" else "failed"

    @property
    def allocated(self) -> int | None:
        """Measured peak, bytes; None where too little ran to know it, or on a processor."""
        return self._peak("allocated")

    @property
    def reserved(self) -> int | None:
        """The same of what torch's allocator held."""
        return self._peak("reserved")

    def _peak(self, name: str) -> int | None:
        value = (self.result.get("peak") or {}).get(name)
        settled = self.done or (self.cut_off and self.steps >= SETTLED)
        return int(value) if settled and value else None


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
    """Every job that ran, its last try, in the order of the results.

    A job that was cut off before its first step was completed is none.
    """
    known = {job["name"]: job for job in json.loads(predicted.read_text())["jobs"]}
    last: dict[str, Row] = {}
    for result in results(measured):
        if "asked" in result:
            job = Job.from_dict(result["asked"])
            # A smaller micro-batch than the predicted one was tried.
            changed = result["try"] and job.group == "speed"
            last[job.name] = Row(job, result, None if changed else known.get(job.name))
    return [row for row in last.values() if row.steps or not row.cut_off]


def results(measured: Path = FILE) -> Iterator[dict[str, Any]]:
    """As they were measured."""
    yield from json.loads(measured.read_text())["results"]


def environment(measured: Path = FILE) -> dict[str, Any]:
    """Device and versions of the measurements."""
    values: dict[str, Any] = json.loads(measured.read_text())["environment"]
    return values
