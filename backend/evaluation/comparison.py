"""Two evaluated runs on the same questions: the difference, how sure it is, and in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.evaluation.scores import Metric
from backend.evaluation.statistics import Comparison, compare_binary, compare_graded
from backend.messages import message


@dataclass(frozen=True, slots=True)
class Pair:
    """One question, or one circular group, that both runs answered."""

    key: str
    category: str
    cluster: str
    """What is not independent of it: the image."""
    candidate: float
    baseline: float
    rows: tuple[tuple[dict[str, Any], dict[str, Any]], ...]
    """The rows of questions.parquet: candidate's and baseline's, one pair a circular row."""


def read_questions(path: Path) -> list[dict[str, Any]]:
    """The rows of a questions.parquet.

    Raises:
        InputError: The file is missing or is not Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    except FileNotFoundError as error:
        raise InputError("the file does not exist.", place=str(path)) from error
    except pa.ArrowInvalid as error:
        raise InputError(f"this is not Parquet: {error}.", place=str(path)) from error
    return rows


def pairs(
    candidate: Iterable[dict[str, Any]], baseline: Iterable[dict[str, Any]], metric: Metric
) -> list[Pair]:
    """What both runs answered, in the candidate's order.

    TextVQA pairs questions; MMBench pairs circular groups (1 when every row is right).
    """
    ours, theirs = _units(candidate, metric), _units(baseline, metric)
    found = []
    for key, rows in ours.items():
        other = {row["question_id"]: row for row in theirs.get(key, [])}
        if {row["question_id"] for row in rows} != set(other):
            continue
        matched = tuple((row, other[row["question_id"]]) for row in rows)
        found.append(
            Pair(
                key=key,
                category=str(rows[0]["category"] or ""),
                cluster=str(rows[0]["group"]),
                candidate=min(_row_score(row, metric) for row, _ in matched),
                baseline=min(_row_score(row, metric) for _, row in matched),
                rows=matched,
            )
        )
    return found


def _units(rows: Iterable[dict[str, Any]], metric: Metric) -> dict[str, list[dict[str, Any]]]:
    benchmark = "textvqa" if metric == "textvqa" else "mmbench"
    unit = "question_id" if metric == "textvqa" else "group"
    units: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["benchmark"] == benchmark:
            units[str(row[unit])].append(row)
    return units


def _row_score(row: dict[str, Any], metric: Metric) -> float:
    if metric == "mmbench_vlmeval":
        return float(f'"{row["vlmeval_prediction"]}"' == row["gold"])
    return float(row["score"])


def compare(paired: list[Pair], metric: Metric) -> Comparison:
    """The paired comparison: exact McNemar for hits, permutation and bootstrap for graded scores.

    Raises:
        UsageError: The runs have no question in common.
    """
    ours, theirs = [pair.candidate for pair in paired], [pair.baseline for pair in paired]
    if metric == "textvqa":
        return compare_graded(ours, theirs, [pair.cluster for pair in paired])
    return compare_binary([score == 1 for score in ours], [score == 1 for score in theirs])


def sentence(
    comparison: Comparison, metric: Metric, candidate: str, baseline: str, language: str = "en"
) -> str:
    """The comparison in words, e.g. "A is 3.1 points better than B …"."""
    low, high = comparison.interval
    return message(
        f"evaluation.verdict.{comparison.verdict}",
        language,
        metric=message(f"evaluation.metric.{metric}", language),
        candidate=candidate,
        baseline=baseline,
        points=f"{abs(comparison.difference):.1f}",
        difference=f"{comparison.difference:+.1f}",
        low=f"{low:+.1f}",
        high=f"{high:+.1f}",
        p=format_p(comparison.p_value),
        n=f"{comparison.n:,}",
        won=f"{comparison.won:,}",
        lost=f"{comparison.lost:,}",
    )


def format_p(p_value: float) -> str:
    """`= 0.031`, or `< 0.001`."""
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"
