from __future__ import annotations

import json

import pytest

from backend.errors import InputError
from backend.formats.textvqa import (
    Annotation,
    Answer,
    Question,
    read_annotations,
    read_answers,
    read_questions,
    write_annotations,
    write_questions,
)

PROMPT = "What brand?\nReference OCR token: NIKE, é\nAnswer the question using a single word."


def test_questions_and_annotations_survive_a_round_trip(tmp_path):
    questions = [Question("ab12", "ab12.jpg", PROMPT), Question("cd", "cd.jpg", "Q?\nA", "x")]
    write_questions(tmp_path / "q.jsonl", questions)
    assert list(read_questions(tmp_path / "q.jsonl")) == questions
    annotations = [Annotation("ab12", "What brand?", tuple("abcdefghij"), "34602")]
    write_annotations(tmp_path / "a.json", annotations)
    assert read_annotations(tmp_path / "a.json") == annotations


def test_a_prompt_can_lose_its_ocr_tokens():
    bare = Question("ab", "ab.jpg", PROMPT).without_ocr_tokens()
    assert bare == "What brand?\nAnswer the question using a single word."


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question_id": "a", "image": "a.jpg"}', "line 2, field text: the field is missing"),
        ('{"question_id": 5, "image": "a.jpg", "text": "t"}', "line 2, field question_id: .*text"),
        ("[1]", "line 2: this line is not a JSON object"),
        ('{"question_id": "a"', "line 2: this is not JSON"),
    ],
)
def test_a_malformed_question_is_named(tmp_path, line, message):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question_id": "a", "image": "a.jpg", "text": "t"}\n' + line + "\n")
    with pytest.raises(InputError, match=message):
        list(read_questions(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent.jsonl: the file does not exist"):
        list(read_questions(tmp_path / "absent.jsonl"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "field data: the annotations must be a list"),
        ({"data": [3]}, r"data\[0\]: this annotation is not"),
        ({"data": [{"image_id": "a", "question": "q", "answers": ["x"] * 9}]}, "exactly 10"),
        ({"data": [{"image_id": "a", "question": "q", "answers": [1] * 10}]}, "list of texts"),
        ({"data": [{"question": "q", "answers": ["x"] * 10}]}, "field image_id"),
    ],
)
def test_a_malformed_annotation_is_named(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_annotations(path)


def test_a_torn_last_answer_is_left_out_only_while_the_file_grows(tmp_path):
    path = tmp_path / "answers.jsonl"
    whole = json.dumps(Answer("a", "p", "t", "model", "id").line())
    path.write_text(whole + "\n" + whole[:20])
    [answer] = read_answers(path, growing=True)
    assert (answer.text, answer.model_id, answer.place) == ("t", "model", f"{path}, line 1")
    with pytest.raises(InputError, match="line 2: this is not JSON"):
        list(read_answers(path))


def test_an_answer_line_has_the_fields_of_the_kit():
    assert list(Answer("a", "p", "t").line()) == [
        "question_id", "prompt", "text", "answer_id", "model_id", "metadata",
    ]  # fmt: skip
