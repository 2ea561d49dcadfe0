"""Scores, the questions behind them, and two runs on the same questions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from backend.files import tail_lines
from backend.runs import Run
from store.connection import identifier, rows, table
from store.runs import RunRow

Metric = Literal["textvqa", "mmbench", "mmbench_vlmeval"]
Outcome = Literal["", "right", "partly", "wrong"]
PairedOutcome = Literal["", "won", "lost", "same"]
_TAIL = 1 << 18
_OUTCOMES = {
    "": "true",
    "right": "score >= 1",
    "partly": "score > 0 AND score < 1",
    "wrong": "score <= 0",
}
_QUESTION = {
    "benchmark": "VARCHAR",
    "question_id": "VARCHAR",
    "group": "VARCHAR",
    "category": "VARCHAR",
    "l2_category": "VARCHAR",
    "question": "VARCHAR",
    "prompt": "VARCHAR",
    "options": "VARCHAR",
    "gold": "VARCHAR",
    "answer": "VARCHAR",
    "prediction": "VARCHAR",
    "vlmeval_prediction": "VARCHAR",
    "score": "DOUBLE",
    "image": "VARCHAR",
}


@dataclass(frozen=True, slots=True)
class Score:
    """One benchmark's score of one evaluated run."""

    run: RunRow
    benchmark: str
    score: float
    """0 to 100."""
    n: int | None
    interval: tuple[float, float] | None
    """95 %."""
    contract: dict[str, Any] = field(default_factory=dict)
    categories: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name to score and n."""


@dataclass(frozen=True, slots=True)
class QuestionPage:
    """Some questions of many."""

    rows: list[dict[str, Any]]
    total: int


def run_scores(row: RunRow) -> list[Score]:
    """The scores of one run, by benchmark."""
    found = []
    for benchmark, entry in row.scores.items():
        number = entry.get("score") if isinstance(entry, dict) else None
        if number is None:
            continue
        interval = entry.get("interval")
        found.append(
            Score(
                run=row,
                benchmark=benchmark,
                score=float(number),
                n=entry.get("n"),
                interval=(float(interval[0]), float(interval[1])) if interval else None,
                contract=entry.get("contract") or {},
                categories=entry.get("categories") or {},
            )
        )
    return found


def question_page(
    run: Run,
    benchmark: str,
    outcome: Outcome = "",
    category: str = "",
    search: str = "",
    page: int = 1,
    size: int = 12,
) -> QuestionPage:
    """The run's questions with answer, gold and score; empty before it was scored.

    Args:
        run: An evaluation.
        benchmark: textvqa or mmbench.
        outcome: Right, partly right (TextVQA knows halves) or wrong ones only.
        category: Of this category only.
        search: Part of question or answer, whatever the case.
        page: From 1.
        size: Questions a page.
    """
    if not _has_questions(run):
        return QuestionPage([], 0)
    condition = (
        f"benchmark = $benchmark AND {_OUTCOMES[outcome]} "
        "AND ($category = '' OR category = $category) "
        "AND ($search = '' OR contains(lower(question), $search) "
        "OR contains(lower(answer), $search))"
    )
    parameters = {"benchmark": benchmark, "category": category, "search": search.strip().lower()}
    source, path = _questions(run)
    found = rows(
        f"SELECT *, count(*) OVER () AS total FROM ({source}) WHERE {condition} "  # noqa: S608
        "LIMIT $size OFFSET $skip",
        {**parameters, **path, "size": size, "skip": (page - 1) * size},
    )
    total = found[0]["total"] if found else 0
    return QuestionPage([{k: v for k, v in row.items() if k != "total"} for row in found], total)


def paired_answers(candidate: Run, baseline: Run, metric: Metric) -> pa.Table:
    """What both runs answered: one row a TextVQA question, or an MMBench circular group.

    Returns:
        `key`, `category`, `cluster` (questions of one image are not independent), `candidate` and
        `baseline` (scores 0 to 1; of a group the lowest of its rows), and of the row that tells
        most `question_id`, `question`, `options`, `gold`, `image`, `candidate_answer`,
        `baseline_answer`. Empty where one of the runs was not scored.

    A group counts only if both runs answered the same rows of it.
    """
    if not (_has_questions(candidate) and _has_questions(baseline)):
        return _empty_pairs()
    ours, theirs = _questions(candidate, "ours"), _questions(baseline, "theirs")
    unit = "question_id" if metric == "textvqa" else '"group"'
    return table(
        f"WITH a AS (SELECT *, {unit} AS key, {_score(metric)} AS s FROM ({ours[0]}) "  # noqa: S608
        "WHERE benchmark = $benchmark), "
        f"b AS (SELECT *, {unit} AS key, {_score(metric)} AS s FROM ({theirs[0]}) "
        "WHERE benchmark = $benchmark), "
        "paired AS (SELECT a.*, b.s AS other, b.answer AS other_answer "
        "FROM a JOIN b ON a.key = b.key AND a.question_id = b.question_id), "
        "whole AS (SELECT key FROM paired GROUP BY key "
        "INTERSECT (SELECT key FROM (SELECT key, count(*) AS n FROM a GROUP BY key) "
        "JOIN (SELECT key, count(*) AS m FROM b GROUP BY key) USING (key) "
        "JOIN (SELECT key, count(*) AS k FROM paired GROUP BY key) USING (key) "
        "WHERE n = m AND n = k)), "
        "told AS (SELECT *, row_number() OVER (PARTITION BY key "
        "ORDER BY (s <> other) DESC, try_cast(question_id AS BIGINT), question_id) AS place, "
        "min(s) OVER (PARTITION BY key) AS candidate, "
        "min(other) OVER (PARTITION BY key) AS baseline FROM paired) "
        "SELECT key, coalesce(category, '') AS category, \"group\" AS cluster, candidate, "
        "baseline, question_id, question, options, gold, image, answer AS candidate_answer, "
        "other_answer AS baseline_answer FROM told SEMI JOIN whole USING (key) "
        "WHERE place = 1 ORDER BY try_cast(key AS BIGINT), key",
        {
            "benchmark": "textvqa" if metric == "textvqa" else "mmbench",
            **ours[1],
            **theirs[1],
        },
    )


def paired_page(
    paired: pa.Table,
    outcome: PairedOutcome = "",
    category: str = "",
    page: int = 1,
    size: int = 12,
) -> QuestionPage:
    """Some of `paired_answers`, those first on which the runs differ most."""
    chosen = [
        row
        for row in paired.to_pylist()
        if outcome in ("", _outcome(row)) and category in ("", row["category"])
    ]
    # Sorting is stable: equal differences stay in the benchmark's order.
    chosen.sort(key=lambda row: -abs(row["candidate"] - row["baseline"]))
    return QuestionPage(chosen[(page - 1) * size : page * size], len(chosen))


def _outcome(row: dict[str, Any]) -> PairedOutcome:
    if row["candidate"] == row["baseline"]:
        return "same"
    return "won" if row["candidate"] > row["baseline"] else "lost"


def latest_answers(run: Run, most: int = 8) -> list[dict[str, Any]]:
    """The answers written last in a run that still works, the newest first.

    Returns:
        The lines of the kit's answer files with `benchmark` added.
    """
    found: list[dict[str, Any]] = []
    for path in sorted(run.artifacts.glob("*/answers.jsonl")):
        own = {"benchmark": path.parent.name, "at": path.stat().st_mtime_ns}
        found += [{**line, **own} for line in _last_lines(path, most)]
    found.sort(key=lambda line: line["at"], reverse=True)
    return found[:most]


def _last_lines(path: Path, most: int) -> list[dict[str, Any]]:
    """The last whole lines, the newest first; a line that is not JSON is left out."""
    found: list[dict[str, Any]] = []
    for line in reversed(tail_lines(path, _TAIL)):
        if len(found) == most:
            break
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _score(metric: Metric) -> str:
    """SQL for the score of one row."""
    if metric == "mmbench_vlmeval":
        return "CASE WHEN '\"' || vlmeval_prediction || '\"' = gold THEN 1.0 ELSE 0.0 END"
    return "score"


def _questions(run: Run, name: str = "path") -> tuple[str, dict[str, Any]]:
    """SQL that selects the questions with every column, and its parameter.

    Columns that an older file lacks are null.
    """
    path = escape(str(run.artifacts / "questions.parquet"))
    there = {
        row["column_name"]
        for row in rows("SELECT column_name FROM (DESCRIBE FROM read_parquet(?))", [path])
    }
    listed = ", ".join(
        identifier(column) if column in there else f"NULL::{kind} AS {identifier(column)}"
        for column, kind in _QUESTION.items()
    )
    return f"SELECT {listed} FROM read_parquet(${name})", {name: path}  # noqa: S608


def _has_questions(run: Run) -> bool:
    return (run.artifacts / "questions.parquet").is_file()


def _empty_pairs() -> pa.Table:
    texts = ("key", "category", "cluster", "question_id", "question", "options", "gold", "image",
             "candidate_answer", "baseline_answer")  # fmt: skip
    kinds = {**dict.fromkeys(texts, "VARCHAR"), "candidate": "DOUBLE", "baseline": "DOUBLE"}
    listed = ", ".join(f"NULL::{kind} AS {identifier(name)}" for name, kind in kinds.items())
    return table(f"SELECT {listed} WHERE false")
