from __future__ import annotations

import pytest

from backend.errors import InputError
from backend.evaluation.benchmarks import (
    answered_keys,
    mmbench_tasks,
    open_picture,
    textvqa_tasks,
)
from backend.formats import textvqa
from tests.evaluation.samples import SHORT, make_benchmarks, write_lines


def test_textvqa_asks_what_the_question_file_says(tmp_path):
    files = make_benchmarks(tmp_path)
    tasks = textvqa_tasks(files.questions, files.images)
    assert tasks[0].sent == f"What is question 0?\nReference OCR token: red, 0\n{SHORT}"
    assert tasks[0].prompt == tasks[0].sent
    bare = textvqa_tasks(files.questions, files.images, ocr_tokens=False, limit=2)
    assert [task.sent for task in bare] == [f"What is question {n}?\n{SHORT}" for n in (0, 1)]


def test_mmbench_asks_with_hint_options_and_the_kits_last_line(tmp_path):
    tasks = mmbench_tasks(make_benchmarks(tmp_path).tsv)
    stored = "Look.\nWhich color is 0?\nA. red\nB. blue"
    last = "Answer with the option's letter from the given choices directly."
    assert (tasks[0].prompt, tasks[0].sent) == (stored, f"{stored}\n{last}")
    assert tasks[1].prompt == "Look.\nWhich color is 0?\nA. blue\nB. red"
    chinese = mmbench_tasks(make_benchmarks(tmp_path / "b").tsv, language="cn")
    assert chinese[0].sent.endswith("\n请直接回答选项字母。")


def test_a_limit_keeps_circular_groups_whole(tmp_path):
    tasks = mmbench_tasks(make_benchmarks(tmp_path).tsv, limit=2)
    assert [task.record.index for task in tasks] == [0, 1_000_000, 1, 1_000_001]


def test_equal_pictures_are_held_once(tmp_path):
    tasks = mmbench_tasks(make_benchmarks(tmp_path).tsv)
    assert len(tasks) == 12
    assert len({id(task.picture) for task in tasks}) == 3
    assert open_picture(tasks[0]).size == (40, 30)
    assert open_picture(tasks[0]).mode == "RGB"


def test_an_unreadable_picture_is_named(tmp_path):
    files = make_benchmarks(tmp_path)
    tasks = textvqa_tasks(files.questions, files.images)
    (files.images / tasks[0].record.image).write_bytes(b"no picture")
    with pytest.raises(InputError, match="question 0000000000000000: the picture cannot be read"):
        open_picture(tasks[0])
    (files.images / tasks[2].record.image).unlink()
    with pytest.raises(InputError, match="cannot be read"):
        open_picture(tasks[2])


def test_a_picture_outside_the_folder_is_refused(tmp_path):
    textvqa.write_questions(
        tmp_path / "q.jsonl", [textvqa.Question("a", "../../etc/passwd", "q?\nshort")]
    )
    with pytest.raises(InputError, match="leads outside"):
        textvqa_tasks(tmp_path / "q.jsonl", tmp_path)


def test_answered_questions_are_recognized_in_a_torn_file(tmp_path):
    files = make_benchmarks(tmp_path)
    for name, tasks in {
        "textvqa": textvqa_tasks(files.questions, files.images),
        "mmbench": mmbench_tasks(files.tsv),
    }.items():
        path = write_lines(tmp_path / f"{name}.jsonl", [task.line("x", "m") for task in tasks[:3]])
        with path.open("a") as file:
            file.write('{"question_id": "torn')
        assert list(answered_keys(path, name)) == [task.key for task in tasks[:3]]
    assert list(answered_keys(tmp_path / "absent.jsonl", "mmbench")) == []


def test_answer_ids_depend_on_model_and_question_only(tmp_path):
    files = make_benchmarks(tmp_path)
    first, second = textvqa_tasks(files.questions, files.images)[:2]
    assert first.line("a", "m")["answer_id"] == first.line("b", "m")["answer_id"]
    ids = {first.line("", "m")["answer_id"], first.line("", "n")["answer_id"]}
    assert len(ids | {second.line("", "m")["answer_id"]}) == 3


def test_whatever_a_decoder_raises_is_told_with_the_question(tmp_path, monkeypatch):
    files = make_benchmarks(tmp_path)
    tasks = textvqa_tasks(files.questions, files.images)

    def fail(_image, _mode):
        raise ValueError("negative count")

    monkeypatch.setattr("PIL.Image.Image.convert", fail)
    with pytest.raises(InputError, match=r"question 0+: .*negative count"):
        open_picture(tasks[0])
