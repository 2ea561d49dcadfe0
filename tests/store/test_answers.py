"""Scores, pages of questions, and two runs on the same questions."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from backend.evaluation.comparison import pairs, read_questions
from backend.evaluation.scores import METRICS
from backend.runs import Run
from backend.workspace import Workspace
from store.answers import (
    latest_answers,
    paired_answers,
    paired_page,
    question_page,
    run_scores,
)
from store.runs import run_row
from tests.evaluation.samples import make_run
from tests.explored import BASELINE, CANDIDATE, explored
from tests.store.conftest import among_patterns


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return explored(among_patterns(tmp_path_factory.mktemp("answers")))


@pytest.fixture(scope="module")
def runs(workspace: Workspace) -> tuple[Run, Run]:
    return Run.find(workspace, CANDIDATE), Run.find(workspace, BASELINE)


def test_scores_carry_interval_and_contract(workspace: Workspace):
    found = {score.benchmark: score for score in run_scores(run_row(workspace, CANDIDATE))}
    score = found["textvqa"]
    assert score.score == 100
    assert score.interval is not None and score.interval[0] <= 100 <= score.interval[1]
    assert score.contract["scorer"] == "textvqa-evalai"
    assert set(score.categories) == {"color", "sign"}


def test_a_run_without_scores_has_none(workspace: Workspace):
    run = make_run(workspace, "evaluate", "20261124-000001-evaluate-none")
    assert run_scores(run_row(workspace, run.id)) == []
    assert question_page(run, "textvqa").total == 0
    assert paired_answers(run, Run.find(workspace, BASELINE), "textvqa").num_rows == 0


def test_right_and_wrong_questions_are_the_whole(runs):
    _, baseline = runs
    counts = {o: question_page(baseline, "textvqa", o).total for o in ("", "right", "wrong")}
    assert counts == {"": 6, "right": 2, "wrong": 4}
    assert {row["score"] for row in question_page(baseline, "textvqa", "wrong").rows} == {0.0}


def test_questions_are_paged_and_searched(runs):
    _, baseline = runs
    pages = [question_page(baseline, "mmbench", page=n, size=5) for n in (1, 2, 3)]
    assert [len(page.rows) for page in pages] == [5, 5, 2]
    assert question_page(baseline, "textvqa", search="QUESTION 3").total == 1
    assert question_page(baseline, "textvqa", category="color").total == 3
    assert question_page(baseline, "textvqa", search="' OR true --").total == 0


@pytest.mark.parametrize("metric", METRICS)
def test_pairs_are_the_scorer_s_own(runs, metric):
    ours, theirs = (read_questions(run.artifacts / "questions.parquet") for run in runs)
    expected = {p.key: (p.candidate, p.baseline) for p in pairs(ours, theirs, metric)}
    found = paired_answers(*runs, metric).to_pylist()
    assert {row["key"]: (row["candidate"], row["baseline"]) for row in found} == expected
    assert len(found) == 6


def test_a_group_that_one_run_answered_in_part_does_not_count(runs, tmp_path: Path):
    candidate, baseline = runs
    table = pq.read_table(baseline.artifacts / "questions.parquet")
    part = Run(tmp_path / "part")
    part.artifacts.mkdir(parents=True)
    keep = [value != "1000000" for value in table["question_id"].to_pylist()]
    pq.write_table(table.filter(keep), part.artifacts / "questions.parquet")
    found = paired_answers(candidate, part, "mmbench")
    assert found["key"].to_pylist() == [str(n) for n in range(1, 6)]


def test_what_was_won_is_not_what_was_lost(runs):
    candidate, baseline = runs
    forward = paired_answers(candidate, baseline, "textvqa")
    back = paired_answers(baseline, candidate, "textvqa")
    assert paired_page(forward, "won").total == paired_page(back, "lost").total == 4
    assert paired_page(forward, "lost").total == 0
    assert paired_page(forward).total == 6
    first = paired_page(forward).rows[0]
    assert (first["candidate"], first["baseline"]) == (1.0, 0.0)
    assert paired_page(forward, "won", "color").total == 2


def test_the_last_answers_come_first_and_torn_lines_wait(workspace: Workspace):
    run = make_run(workspace, "evaluate", "20261124-000002-evaluate-live")
    path = run.artifacts / "textvqa" / "answers.jsonl"
    path.parent.mkdir(parents=True)
    lines = [f'{{"text": "{n}"}}\n' for n in range(4)]
    path.write_text("".join(lines) + "nonsense\n" + '{"text": "to')
    assert [line["text"] for line in latest_answers(run, 2)] == ["3", "2"]
    assert latest_answers(run, 9)[0]["benchmark"] == "textvqa"
