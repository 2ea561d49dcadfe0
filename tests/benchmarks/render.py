"""Measurements as Markdown tables: `python -m tests.benchmarks memory`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backend.memory.cards import CARDS, usable
from backend.memory.parts import GIB
from backend.memory.settings import MemorySettings
from tests.benchmarks.configurations import COMMON, REFERENCE, Job
from tests.benchmarks.measured import FILE, Row, calls, never_measured, rows, superseded
from tests.benchmarks.predictions import predict_job, settings_of_job, verdicts

REFERENCES = (REFERENCE, "learn-fp32", "learn-lora-fp32")
"""Learning runs that others are compared with."""
LAST_STEPS = 18
"""Steps whose mean is a learning run's final loss: two epochs of the 300 pairs."""
QUIET = {*COMMON, "max_steps", "learning_rate"}
FORMS = ("fastest", "naive", "plain")
"""Jobs whose speeds are compared, by method."""
WANTED = 30
"""Distinct configurations that were to be measured."""


@dataclass(frozen=True)
class Accuracy:
    """How far predictions are from measurements.

    Attributes:
        count: Jobs with a measured peak and a prediction.
        distinct: Configurations among them that differ in more than their number of steps.
        median: Of the absolute relative errors of the allocated peak.
        worst: Likewise.
        false_fits: Configurations that were said to fit and did not: (name, GB of the card).
    """

    count: int
    distinct: int
    median: float
    worst: float
    false_fits: tuple[tuple[str, int], ...]


def error(row: Row, *, now: bool = False) -> float | None:
    """Predicted over measured peak, minus one; None where one of them is missing.

    Args:
        row: A measured job.
        now: Predict with the code as it is, not as it was before the measurement.
    """
    if row.allocated is None or row.foreseen is None:
        return None
    predicted = predict_job(row.job).peak_allocated if now else row.foreseen["peak_allocated"]
    return float(predicted / row.allocated - 1)


def accuracy(measured: Sequence[Row], *, now: bool = False) -> Accuracy:
    """Errors over all judged configurations, and what was said to fit and did not.

    A configuration fits a card when it ran under that card's cap. Those that ran without a cap
    fit when their measured peak does.
    """
    judged = [row for row in measured if row.foreseen]
    errors = [abs(value) for row in judged if (value := error(row, now=now)) is not None]
    settings = {_distinct(row.job) for row in judged if row.allocated is not None}
    false_fits = []
    for row in judged:
        assert row.foreseen is not None
        said = verdicts(predict_job(row.job)) if now else row.foreseen["verdicts"]
        for card in CARDS:
            size = card.total // GIB
            if row.job.card_gib is not None:
                wrong = row.job.card_gib == size and row.result["state"] == "oom"
            else:
                wrong = row.allocated is not None and row.allocated > usable(card.total)
            if wrong and said[str(size)] == "fits":
                false_fits.append((row.job.name, size))
    return Accuracy(
        len(errors),
        len(settings),
        statistics.median(errors) if errors else 0.0,
        max(errors, default=0.0),
        tuple(false_fits),
    )


def _distinct(job: Job) -> MemorySettings:
    """What decides a job's memory; how often gradients are added up does not, once it is twice."""
    settings = settings_of_job(job)
    return replace(settings, gradient_accumulation=min(2, settings.gradient_accumulation))


def render(measured: Path = FILE) -> str:
    """All tables."""
    if not measured.is_file():
        return "No device has been measured yet: python -m tests.benchmarks gpu --out FOLDER\n"
    found = rows(measured)
    sections = {
        "Memory: predicted on a CPU beforehand, measured on the device": [
            _memory(found),
            _again(superseded(measured)),
        ],
        "Presets": [_presets(found)],
        "Speed": [_speed(found)],
        "Learning": [_learning(found)],
        "The rest": [_checks(found)],
    }
    parts = [_where(measured)]
    for title, bodies in sections.items():
        if any(bodies):
            parts += [f"### {title}", *(body for body in bodies if body)]
    return "\n\n".join(parts) + "\n"


def _gib(value: float | None) -> str:
    return "–" if value is None else f"{value / GIB:.2f}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    body = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(body + ["| " + " | ".join(line) + " |" for line in lines])


def _what(job: Job) -> str:
    """A configuration in words."""
    words = [] if job.stage == "finetune" else [job.stage]
    for key, value in job.parameters.items():
        if key in QUIET or key == "global_batch_size":
            continue
        words.append(str(value) if key == "preset" else f"{key}={value}")
    length = f"{job.length.positions} positions, {job.length.labels} labels"
    if job.length.shortest:
        length += f", every second row {job.length.shortest}"
    if not job.length.pictures:
        length += ", no picture"
    return f"{' '.join(words)}; {length}".replace("|", "/")


def _where(measured: Path) -> str:
    """Devices, versions and times of all calls, and what none of them came to."""
    told = calls(measured)
    where = [call["environment"] for call in told]
    devices = ", ".join(dict.fromkeys(one["device"] for one in where))
    versions = ", ".join(f"{key} {value}" for key, value in where[0]["versions"].items() if value)
    times = "; ".join(
        dict.fromkeys(
            f"predicted {call['predicted']['made_at']} (commit {call['predicted']['commit'][:9]}), "
            f"measured from {call['environment']['time']}"
            for call in told
        )
    )
    missing = ", ".join(f"`{name}`" for name in never_measured(measured)) or "nothing"
    return (
        f"{devices}, driver {where[0]['driver']}; Python {where[0]['python']}, {versions}.\n\n"
        f"{times}.\n\nAsked for and not measured: {missing}."
    )


def _again(earlier: Sequence[Row]) -> str:
    """What was foreseen worse before the program or its prediction was changed."""
    told = [
        f"`{row.job.name}` {_gib(row.foreseen['peak_allocated'])} foreseen, "
        f"{_gib(row.allocated)} measured ({100 * away:+.1f} %)"
        for row in earlier
        if row.foreseen is not None and (away := error(row)) is not None
    ]
    if not told:
        return ""
    return f"Measured earlier, before a change, and measured again: {'; '.join(told)}."


def _memory(found: Sequence[Row]) -> str:
    lines = []
    for row in found:
        if row.foreseen is None or row.job.group == "death":
            continue
        before, now = error(row), error(row, now=True)
        others = row.foreseen["others"]
        cap = "" if row.job.cap_gib is None else f"{row.job.cap_gib:.1f}"
        lines.append(
            [
                row.job.name, _what(row.job), cap, row.ended,
                _gib(row.foreseen["peak_allocated"]), _gib(row.allocated),
                "–" if before is None else f"{100 * before:+.1f} %",
                "–" if now is None else f"{100 * now:+.1f} %",
                _gib(row.foreseen["peak_reserved"]), _gib(row.reserved),
                _gib(others.get("accelerate")), _gib(others.get("deepspeed")),
            ]
        )  # fmt: skip
    head = (
        "configuration", "what", "cap", "outcome", "predicted", "measured", "error",
        "error of today's code", "reserved, predicted", "reserved", "accelerate", "DeepSpeed",
    )  # fmt: skip
    before, now = accuracy(found), accuracy(found, now=True)
    if not before.count:
        return f"No peak was measured.\n\n{table(head, lines)}" if lines else ""
    short = "" if before.distinct >= WANTED else f"; {WANTED} were to be measured"
    told = (
        f"{before.count} jobs with a measured peak, {before.distinct} distinct configurations"
        f"{short}. Median error {100 * before.median:.1f} %, worst {100 * before.worst:.1f} %, "
        f"{len(before.false_fits)} said to fit that do not. With today's code: "
        f"{100 * now.median:.1f} %, {100 * now.worst:.1f} %, {len(now.false_fits)}. GiB; "
        "accelerate and DeepSpeed are their own estimators, where they apply (– where not)."
    )
    return f"{told}\n\n{table(head, lines)}"


def brief(found: Sequence[Row]) -> str:
    """The measured peaks beside what was said before, as README shows them; nothing of today."""
    lines = []
    for row in found:
        before = error(row)
        if row.foreseen is None or before is None:
            continue
        others = row.foreseen["others"]
        lines.append(
            [
                row.job.name, row.ended, _gib(row.foreseen["peak_allocated"]),
                _gib(row.allocated), f"{100 * before:+.1f} %", _gib(row.reserved),
                _gib(others.get("accelerate")), _gib(others.get("deepspeed")),
            ]
        )  # fmt: skip
    head = (
        "configuration", "outcome", "predicted before", "measured", "error", "reserved",
        "accelerate", "DeepSpeed",
    )  # fmt: skip
    return table(head, lines)


def _presets(found: Sequence[Row]) -> str:
    lines = []
    for row in found:
        if row.job.group not in ("fit", "kit", "speed"):
            continue
        speed = row.result.get("speed")
        host = row.result.get("host") or {}
        own = host["anonymous"] + host["shared"] if host else None
        lines.append(
            [
                row.job.name, _what(row.job),
                "" if row.job.cap_gib is None else f"{row.job.cap_gib:.1f}",
                f"{row.ended} of {row.job.parameters['global_batch_size']}",
                _gib(row.allocated), _gib(row.reserved), _gib(host.get("rss")), _gib(own),
                _gib(row.result.get("paged_bytes")), _gib(predict_job(row.job).host),
                "–" if not speed else f"{speed['samples_per_second']:.1f}",
            ]
        )  # fmt: skip
    head = (
        "run", "what", "cap", "outcome", "allocated", "reserved", "host, resident",
        "host without mapped files", "paged", "host, predicted by today's code", "samples/s",
    )  # fmt: skip
    return table(head, lines) if lines else ""


def _speed(found: Sequence[Row]) -> str:
    speeds = {
        row.job.name: row.result["speed"]["samples_per_second"]
        for row in found
        if row.result.get("speed")
    }
    lines = []
    for method in ("full", "lora"):
        fast, naive, plain = (speeds.get(f"{form}-{method}") for form in FORMS)
        if fast is None:
            continue
        others = [_beside(other, fast) for other in (naive, plain)]
        lines.append([method, f"{fast:.1f}", *others])
    head = (
        "method",
        "`fastest`, samples/s",
        "without its levers",
        "a plain script at micro-batch 4",
    )
    return table(head, lines) if lines else ""


def _beside(other: float | None, fast: float) -> str:
    return "–" if other is None else f"{other:.1f} ({fast / other:.2f} times slower)"


def final_loss(row: Row) -> float | None:
    """Mean of the last steps of a learning run; None where it did not come to its end."""
    losses = [loss for loss in row.result.get("losses") or [] if loss is not None]
    if not row.done or len(losses) < 2 * LAST_STEPS:
        return None
    return statistics.fmean(losses[-LAST_STEPS:])


def _learning(found: Sequence[Row]) -> str:
    runs = [row for row in found if row.job.group == "learn"]
    finals = {row.job.name: final_loss(row) for row in runs}
    master, fp32, adapters = (finals.get(name) for name in REFERENCES)
    lines = []
    for row in runs:
        final = finals[row.job.name]
        lora = "lora" in row.job.name
        first = statistics.fmean(row.result["losses"][:LAST_STEPS]) if row.done else None
        lines.append(
            [
                row.job.name, _what(row.job).split(";")[0], row.ended,
                "–" if first is None else f"{first:.4f}",
                "–" if final is None else f"{final:.4f}",
                "" if lora else _away(final, master), "" if lora else _away(final, fp32),
                _away(final, adapters) if lora else "",
            ]
        )  # fmt: skip
    head = (
        "run", "what", "outcome", f"first {LAST_STEPS} steps", f"last {LAST_STEPS} steps",
        "against fp32 master", "against fp32 throughout", "LoRA against LoRA in fp32",
    )  # fmt: skip
    return table(head, lines) if lines else ""


def _away(final: float | None, reference: float | None) -> str:
    return "–" if final is None or not reference else f"{100 * (final / reference - 1):+.2f} %"


def _checks(found: Sequence[Row]) -> str:
    told = []
    for row in found:
        result = row.result
        if row.job.name == "resume" and row.done:
            told.append(
                f"Stopped halfway and resumed: largest difference of a loss "
                f"{result['largest_difference']:.2e}, of two undisturbed runs "
                f"{result['noise']:.2e}."
            )
        if row.job.name == "oracle" and row.done:
            told.append(
                f"The reference's tiny model on this device: logits differ by at most "
                f"{result['fp32_error']:.1e} in fp32 and {result['bf16_error']:.1e} in bf16 "
                f"(largest logit {result['largest_logit']:.2f}), bf16 here against bf16 on the "
                f"processor {result['bf16_against_cpu']:.1e}."
            )
    return " ".join(told)
