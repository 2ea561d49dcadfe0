from __future__ import annotations

import json
from dataclasses import asdict

import pyarrow.parquet as pq
import pytest

from backend.evaluation.benchmarks import mmbench_tasks, textvqa_tasks
from backend.evaluation.comparison import compare, pairs, read_questions, sentence
from backend.evaluation.results import (
    QUESTION_COLUMNS,
    Contract,
    file_sha256,
    mmbench_result,
    textvqa_result,
    write_questions,
)
from backend.evaluation.scores import contract_differences
from tests.evaluation.samples import make_benchmarks, write_lines

CONTRACT = Contract("q.jsonl", "00", "kit", True, "textvqa-evalai", None, "float32", 128)


@pytest.fixture
def files(tmp_path):
    return make_benchmarks(tmp_path)


def results(files, folder, text, letters):
    tasks = textvqa_tasks(files.questions, files.images)
    answers = write_lines(folder / "t.jsonl", [task.line(text(task), "m") for task in tasks])
    first = textvqa_result(tasks, answers, files.annotations, CONTRACT)
    rows = mmbench_tasks(files.tsv)
    answers = write_lines(folder / "m.jsonl", [task.line(letters(task), "m") for task in rows])
    return first, mmbench_result(rows, answers, CONTRACT)


def test_scores_carry_their_contract_and_categories(files, tmp_path):
    first, second = results(files, tmp_path, lambda task: "Red.", lambda task: task.record.answer)
    assert first.scores["score"] == pytest.approx(100 * 2 / 6)
    assert first.scores["categories"] == {
        "color": {"score": pytest.approx(100 / 3), "n": 3},
        "sign": {"score": pytest.approx(100 / 3), "n": 3},
    }
    assert first.scores["contract"] == asdict(CONTRACT)
    assert (second.scores["score"], second.scores["vanilla_score"]) == (100, 100)
    assert second.scores["categories"]["shape"] == {"score": 100, "n": 3}
    assert second.scores["l2"] == {"attribute_reasoning": {"score": 100, "n": 6}}
    assert json.loads(json.dumps(second.scores)) == second.scores


def test_an_answer_with_a_period_parts_the_two_mmbench_contracts(files, tmp_path):
    _, result = results(files, tmp_path, lambda task: "", lambda task: task.record.answer + ".")
    assert (result.scores["score"], result.scores["vlmeval_score"]) == (0, 100)
    assert result.rows[0]["prediction"] is None
    assert result.rows[0]["vlmeval_prediction"] == "A"


def test_questions_are_written_one_a_row(files, tmp_path):
    first, second = results(files, tmp_path, lambda task: "blue", lambda task: "A")
    write_questions(tmp_path / "questions.parquet", first.rows + second.rows)
    table = pq.read_table(tmp_path / "questions.parquet")
    assert tuple(table.column_names) == QUESTION_COLUMNS
    assert table.num_rows == 18
    row = table.to_pylist()[6]
    assert (row["question_id"], row["group"], row["image"]) == ("0", "0", "tsv:0")
    assert json.loads(row["options"]) == {"A": "red", "B": "blue"}
    assert table.to_pylist()[0]["question_id"] == "100"
    assert read_questions(tmp_path / "questions.parquet") == first.rows + second.rows


def test_two_runs_are_compared_by_question_and_by_circular_group(files, tmp_path):
    good = results(files, tmp_path / "a", lambda task: "red", lambda task: task.record.answer)
    bad = results(files, tmp_path / "b", lambda task: "none", lambda task: "A")
    ours, theirs = ([row for part in run for row in part.rows] for run in (good, bad))
    paired = pairs(ours, theirs, "textvqa")
    assert [pair.category for pair in paired[:2]] == ["sign", "color"]
    result = compare(paired, "textvqa")
    assert (result.n, result.won, result.lost) == (6, 2, 0)
    groups = pairs(ours, theirs, "mmbench")
    assert [len(pair.rows) for pair in groups] == [2] * 6
    result = compare(groups, "mmbench")
    assert (result.difference, result.won, result.verdict) == (100, 6, "better")
    said = sentence(result, "mmbench", "clean", "seed")
    assert said.startswith("MMBench (kit scorer): clean is 100.0 points better than seed (95% ")
    assert "clean 比 seed 高 100.0 分" in sentence(result, "mmbench", "clean", "seed", "zh")


def test_questions_that_only_one_run_answered_are_left_out(files, tmp_path):
    run = results(files, tmp_path, lambda task: "red", lambda task: "A")
    rows = run[0].rows + run[1].rows
    fewer = [row for row in rows if row["question_id"] not in ("100", "1000000")]
    assert len(pairs(rows, fewer, "textvqa")) == 5
    assert len(pairs(rows, fewer, "mmbench")) == 5


def test_scores_of_different_contracts_are_told_apart(files):
    ours = asdict(CONTRACT) | {"sha256": file_sha256(files.questions)}
    assert contract_differences(ours, ours | {"file": "elsewhere"}) == []
    assert contract_differences(ours, ours | {"ocr_tokens": False, "limit": 5}) == [
        "ocr_tokens",
        "limit",
    ]
