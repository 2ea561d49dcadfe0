"""What devices measured, as data: `results/measured.json`, made from what calls on them left."""

from __future__ import annotations

import json
from collections.abc import Sequence
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


def collect(folders: Sequence[Path], file: Path = FILE) -> None:
    """Keep what calls on a device left: `results.jsonl`, `environment.json`, `predictions.json`.

    Args:
        folders: One of each call, in the order in which they were made.
        file: Gets all of them, each with what was foreseen when it was made.
    """
    calls = []
    for folder in folders:
        predicted = json.loads((folder / PREDICTIONS.name).read_text())
        foreseen = {job["name"]: job for job in predicted["jobs"]}
        results = []
        for line in (folder / "results.jsonl").read_text().splitlines():
            result = json.loads(line)
            reason = (result.get("outcome") or {}).get("reason") or {}
            kept = {key: result[key] for key in KEPT if key in result}
            if result["state"] != "done" and reason:
                kept["reason"] = {"code": reason.get("code"), "values": reason.get("values")}
            if "asked" in result and result["name"] in foreseen:
                kept["foreseen"] = foreseen[result["name"]]
            results.append(kept)
        calls.append(
            {
                "environment": json.loads((folder / "environment.json").read_text()),
                "predicted": {key: predicted[key] for key in ("made_at", "commit")},
                "results": results,
            }
        )
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"calls": calls}, separators=(",", ":")) + "\n")


def rows(measured: Path = FILE) -> list[Row]:
    """Every job that ran, as it was measured last, in the order of the results.

    A job that was cut off before its peak was known is none, unless nothing else is known of it.
    """
    return [history[-1] for history in _histories(measured).values()]


def superseded(measured: Path = FILE) -> list[Row]:
    """What was measured before the program or its prediction was changed, and measured again."""
    return [row for history in _histories(measured).values() for row in history[:-1]]


def never_measured(measured: Path = FILE) -> list[str]:
    """Jobs that were asked for and of which nothing is known."""
    asked = {result["name"] for call in calls(measured) for result in call["results"]}
    return sorted(asked - _histories(measured).keys())


def _histories(measured: Path) -> dict[str, list[Row]]:
    """Rows of each job, the last measured last."""
    found: dict[str, list[Row]] = {}
    for call in calls(measured):
        for result in call["results"]:
            if "asked" not in result:
                continue
            job = Job.from_dict(result["asked"])
            # A smaller micro-batch than the predicted one was tried.
            changed = result["try"] and job.group == "speed"
            row = Row(job, result, None if changed else result.get("foreseen"))
            if row.cut_off and not row.steps:
                continue
            history = found.setdefault(job.name, [])
            if history and result["try"]:
                history.pop()
            if row.cut_off and row.allocated is None and history:
                continue
            history.append(row)
    return found


def calls(measured: Path = FILE) -> list[dict[str, Any]]:
    """Of the device: `environment`, `predicted` and `results` of each."""
    values: list[dict[str, Any]] = json.loads(measured.read_text())["calls"]
    return values
