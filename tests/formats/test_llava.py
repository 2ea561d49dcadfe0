from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.errors import InputError
from backend.formats import json_array
from backend.formats.llava import read_conversations, write_conversations

QUESTION = {"from": "human", "value": "<image>\nWhat is this?"}
ANSWER = {"from": "gpt", "value": "a dog"}
GOOD = {"id": "7", "image": "images/7.jpg", "conversations": [QUESTION, ANSWER]}
TEXT_ONLY = {"id": "8", "conversations": [{"from": "human", "value": "Hello?"}, ANSWER]}


def written(tmp_path: Path, *records: object, indent: int | None = 0) -> Path:
    path = tmp_path / "llava.json"
    path.write_text(json.dumps(list(records), indent=indent))
    return path


@pytest.mark.parametrize("indent", [None, 0, 4])
def test_records_survive_reading_and_writing(tmp_path, indent):
    several = {**GOOD, "image": ["a", "b"]}
    several["conversations"] = [{"from": "human", "value": "<image><image>\nWhich?"}, ANSWER]
    records = [GOOD, TEXT_ONLY, several]
    conversations = list(read_conversations(written(tmp_path, *records, indent=indent)))
    assert conversations[1].images == ()
    assert write_conversations(tmp_path / "again.json", (c.record() for c in conversations)) == 3
    assert json.loads((tmp_path / "again.json").read_text()) == records


def test_an_empty_list_is_fine(tmp_path):
    assert list(read_conversations(written(tmp_path))) == []
    write_conversations(tmp_path / "empty.json", [])
    assert json.loads((tmp_path / "empty.json").read_text()) == []


def test_a_file_longer_than_the_window_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(json_array, "BLOCK", 7)
    path = written(tmp_path, *[{**GOOD, "id": str(n)} for n in range(40)])
    assert [c.id for c in read_conversations(path)] == [str(n) for n in range(40)]


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"id": None}, "id", "missing"),
        ({"conversations": None}, "conversations", "missing or empty"),
        ({"conversations": [QUESTION]}, "conversations", "no answer"),
        ({"conversations": [ANSWER, QUESTION]}, "conversations[0]", "where 'human' is due"),
        ({"conversations": [QUESTION, QUESTION]}, "conversations[1]", "where 'gpt' is due"),
        ({"conversations": [QUESTION, {"from": "gpt"}]}, "conversations[1]", '"value"'),
        ({"image": 3}, "image", "path or a list"),
        ({"image": "../../secret"}, "image", "leads outside"),
        ({"image": None}, "conversations", "0 image(s) for 1 image token(s)"),
        ({"image": ["a", "b"]}, "conversations", "2 image(s) for 1 image token(s)"),
        (
            {"conversations": TEXT_ONLY["conversations"]},
            "conversations",
            "no turn has an image token",
        ),
    ],
)
def test_a_malformed_record_is_named_with_its_line_and_field(tmp_path, change, field, problem):
    path = tmp_path / "llava.json"
    path.write_text(f"[\n{json.dumps(GOOD)},\n{json.dumps({**GOOD, **change})}\n]")
    with pytest.raises(InputError) as error:
        list(read_conversations(path))
    assert error.value.place == f"{path}, line 3, field {field}"
    assert problem in error.value.problem


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        ("", 1, "must be a JSON list"),
        ("{}", 1, "must be a JSON list"),
        ('[\n{"id": "1"}\n{"id": "2"}]', 3, "comma"),
        ('[\n{"id": "1"},\n3]', 3, "must be an object"),
        ('[\n{"id": "1"},\n{"id": }]', 3, "not JSON"),
        ('[\n{"id": "1"},\n{"id": "2', 3, "not JSON"),
        ('[\n{"id": "1"}\n]\nmore', 4, "follows the end"),
        ('[{"id": "1"},]', 1, "must be an object"),
    ],
)
def test_broken_json_is_named_with_its_line(tmp_path, content, line, problem):
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        list(json_array.array_objects(path))
    assert error.value.place == f"{path}, line {line}"
    assert problem in error.value.problem


def test_bytes_that_are_no_text_are_named(tmp_path):
    path = tmp_path / "latin.json"
    path.write_bytes(b'[{"id": "\xff"}]')
    with pytest.raises(InputError, match="not UTF-8"):
        list(json_array.array_objects(path))
