"""Running one operator over the living samples and taking down what it decided for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.synthesis.lineage import Ledger
from backend.synthesis.mapping import NOT_RETURNED, Mapping
from backend.synthesis.reasons import filter_reason, limits_of
from backend.synthesis.recipes import Step
from backend.synthesis.runner import Chunk, Row, Runner, Task, deduplicate
from backend.synthesis.samples import STATS, Sample, number

_READS_STATS = frozenset(
    {"general_field_filter", "specified_field_filter", "specified_numeric_field_filter"}
)
"""Filters that judge by what others computed."""
_SURVEYS = "survey"
"""Method of our mappers that first look at the statistics of all samples."""
_CHUNK, _MODEL_CHUNK = 500, 128
"""Rows between two looks at whether a person asked to stop; fewer where a model works."""
Report = Callable[[int, int], None]
"""Told how many of how many rows an operator has seen; may raise to stop."""


@dataclass(frozen=True)
class StepRunner:
    """One operator of a recipe, ready to run."""

    step: Step
    kind: type[Any]
    """The operator's class."""
    task: Task
    runner: Runner
    image_root: Path
    report: Report

    def run(self, samples: list[Sample], taken: set[str], ledger: Ledger) -> None:
        """Run it over the living samples.

        Args:
            samples: Changed in place: statistics, text, whether they are kept.
            taken: Sample ids in use; those of new samples are added.
            ledger: Takes down what happened.
        """
        kinds = {base.__name__ for base in self.kind.__mro__}
        if "Filter" in kinds:
            self._filter(samples, ledger)
        elif "Deduplicator" in kinds:
            self._deduplicate(samples, ledger)
        elif "Selector" in kinds:
            self._select(samples, ledger)
        else:
            mapping = Mapping(self.step.name, self.image_root, taken, ledger)
            surveys = hasattr(self.kind, _SURVEYS)
            if surveys:
                self._survey(samples)
            for chunk_samples, chunk in self._chunks(samples, ledger, with_stats=surveys):
                mapping.apply(chunk_samples, chunk.rows)

    def _survey(self, samples: list[Sample]) -> None:
        rows = [sample.row(self.image_root, with_stats=True) for sample in samples]
        try:
            self.task.operator().survey(rows)
        except InputError as error:
            raise InputError(error.problem, place=self.task.place, remedy=error.remedy) from error

    def _filter(self, samples: list[Sample], ledger: Ledger) -> None:
        by_field = self.step.name in _READS_STATS
        limits = limits_of(self.kind, self.step.arguments)
        for chunk_samples, chunk in self._chunks(samples, ledger, with_stats=by_field):
            rows = {row["id"]: row for row in chunk.rows}
            for sample in chunk_samples:
                row = rows.get(sample.sample_id)
                if row is None:
                    ledger.judge(sample, kept=False, reason=NOT_RETURNED)
                    continue
                stats = {k: v for k, v in (row.get(STATS) or {}).items() if v is not None}
                kept = row["id"] in (chunk.kept or ())
                reason = filter_reason(stats, limits, kept=kept)
                sample.stats.update(stats)
                ledger.judge(sample, kept=kept, reason=self._field(sample) if by_field else reason)

    def _deduplicate(self, samples: list[Sample], ledger: Ledger) -> None:
        hashed = [row for _, chunk in self._chunks(samples, ledger) for row in chunk.rows]
        if not hashed:
            return
        columns = hashed[0].keys() - samples[0].row(self.image_root).keys()
        kept_rows, twins = deduplicate(self.task, hashed)
        kept = {row["id"] for row in kept_rows}
        same = {_hashes(row, columns): row["id"] for row in reversed(kept_rows)}
        rows = {row["id"]: row for row in hashed}
        for sample in samples:
            row = rows.get(sample.sample_id)
            if row is None:
                ledger.judge(sample, kept=False, reason=NOT_RETURNED)
                continue
            twin = twins.get(row["id"]) or same.get(_hashes(row, columns), "duplicate")
            is_kept = row["id"] in kept
            ledger.judge(sample, kept=is_kept, reason="" if is_kept else f"= {twin}")

    def _select(self, samples: list[Sample], ledger: Ledger) -> None:
        rows = [sample.row(self.image_root, with_stats=True) for sample in samples]
        chunks = self.runner.run(self.task, rows, alone=True, size=max(len(rows), 1))
        kept = {row["id"] for chunk in chunks for row in chunk.rows}
        values = [self._value(sample) for sample in samples if sample.sample_id in kept]
        numbers = [value for value in values if value is not None]
        span = f" ({min(numbers):.4g} to {max(numbers):.4g} selected)" if numbers else ""
        for sample in samples:
            reason = self._field(sample)
            reason = f"{reason}{span}" if reason else ""
            ledger.judge(sample, kept=sample.sample_id in kept, reason=reason)

    @property
    def _field_name(self) -> str:
        return str(self.step.arguments.get("field_key", "")).rpartition(".")[2]

    def _value(self, sample: Sample) -> float | None:
        """The statistic that a selector, or a filter by field, looks at."""
        return number(sample.stats.get(self._field_name))

    def _field(self, sample: Sample) -> str:
        value = self._value(sample)
        return "" if value is None else f"{self._field_name} {value:.4g}"

    def _chunks(
        self, samples: list[Sample], ledger: Ledger, *, with_stats: bool = False
    ) -> Iterator[tuple[list[Sample], Chunk]]:
        size = _MODEL_CHUNK if self._alone else _CHUNK
        rows: list[Row] = [sample.row(self.image_root, with_stats) for sample in samples]
        done = 0
        for chunk in self.runner.run(self.task, rows, alone=self._alone, size=size):
            seen = samples[done : done + size]
            done += len(seen)
            for error in chunk.errors:
                ledger.fail(error)
            yield seen, chunk
            self.report(done, len(rows))

    @property
    def _alone(self) -> bool:
        """Whether the operator holds a model, so that this process must run it."""
        from data_juicer.ops import UNFORKABLE

        return bool(
            getattr(self.kind, "_single_process", False)
            or self.kind._accelerator == "cuda"
            or self.step.name in UNFORKABLE.modules
        )


def _hashes(row: Row, columns: set[str]) -> tuple[str, ...]:
    return tuple(repr(row[name]) for name in sorted(columns))
