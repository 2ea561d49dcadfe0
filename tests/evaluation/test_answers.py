from __future__ import annotations

import json

import pytest

from backend.evaluation.answers import Notebook
from backend.evaluation.benchmarks import mmbench_tasks, textvqa_tasks
from backend.formats import textvqa
from tests.evaluation.samples import make_benchmarks


@pytest.fixture(params=["textvqa", "mmbench"])
def case(request, tmp_path):
    files = make_benchmarks(tmp_path)
    if request.param == "textvqa":
        return request.param, textvqa_tasks(files.questions, files.images)
    return request.param, mmbench_tasks(files.tsv)


def test_a_stopped_evaluation_goes_on_where_it_was(case, tmp_path):
    name, tasks = case
    path = tmp_path / name / "answers.jsonl"
    notebook = Notebook(path, name, "m")
    assert notebook.unanswered(tasks) == tasks
    notebook.add([(tasks[4], "four"), (tasks[0], "zero")])
    with path.open("a") as file:
        file.write('{"question_id": "half a li')
    again = Notebook(path, name, "m")
    assert [task.key for task in again.unanswered(tasks)] == [
        task.key for task in tasks if task not in (tasks[0], tasks[4])
    ]
    again.add([(task, "rest") for task in again.unanswered(tasks)])
    assert again.unanswered(tasks) == []
    again.put_in_order(tasks)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["text"] for line in lines[:6]] == ["zero", "rest", "rest", "rest", "four", "rest"]
    assert [line["prompt"] for line in lines] == [task.prompt for task in tasks]


def test_order_keeps_what_is_missing_missing(case, tmp_path):
    name, tasks = case
    notebook = Notebook(tmp_path / "a.jsonl", name, "m")
    notebook.add([(tasks[3], "b"), (tasks[1], "a")])
    notebook.put_in_order(tasks)
    assert [json.loads(line)["text"] for line in notebook.path.open()] == ["a", "b"]
    notebook.copy_to(tmp_path / "kit" / "bm1.jsonl")
    assert (tmp_path / "kit" / "bm1.jsonl").read_text() == notebook.path.read_text()


def test_a_question_that_the_file_asks_twice_is_answered_twice(tmp_path):
    files = make_benchmarks(tmp_path)
    questions = list(textvqa.read_questions(files.questions))
    textvqa.write_questions(files.questions, [questions[0], questions[1], questions[0]])
    tasks = textvqa_tasks(files.questions, files.images)
    notebook = Notebook(tmp_path / "a.jsonl", "textvqa", "m")
    notebook.add([(tasks[0], "once")])
    assert notebook.unanswered(tasks) == tasks[1:]
    notebook.add([(task, "x\n") for task in tasks[1:]])
    notebook.put_in_order(tasks)
    assert [json.loads(line)["text"] for line in notebook.path.open()] == ["once", "x\n", "x\n"]


def test_an_answer_may_hold_separators_that_are_no_line_break(case, tmp_path):
    name, tasks = case
    notebook = Notebook(tmp_path / "a.jsonl", name, "m")
    said = "one\u2028two\x85three"
    notebook.add([(task, said) for task in reversed(tasks)])
    notebook.put_in_order(tasks)
    assert {json.loads(line)["text"] for line in notebook.path.open()} == {said}
