from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.errors import InputError
from backend.formats.data_juicer import Pair, caption_of, caption_text, read_pairs, write_pairs

GOOD = {"id": "7", "text": "<__dj__image>\na dog <|__dj__eoc|>", "images": ["images/7.jpg"]}


def written(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_reads_what_it_writes(tmp_path):
    pairs = [Pair("1", caption_text("a dog"), ("a/1.jpg",)), Pair("1", caption_text("狗"), ("b",))]
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    again = list(read_pairs(tmp_path / "pairs.jsonl"))
    assert [(p.id, p.text, p.images) for p in again] == [(p.id, p.text, p.images) for p in pairs]


def test_keys_of_data_juicer_and_numeric_ids_are_taken(tmp_path):
    path = written(tmp_path, {**GOOD, "id": 7, "__dj__stats__": {"num_words": 2}})
    assert next(read_pairs(path)).id == "7"


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"id": None}, "id", "missing"),
        ({"id": [1]}, "id", "must be text"),
        ({"id": "  "}, "id", "must be text"),
        ({"text": None}, "text", "missing"),
        ({"text": 5}, "text", "must be text"),
        ({"images": None}, "images", "missing"),
        ({"images": "a.jpg"}, "images", "list of paths"),
        ({"images": [3]}, "images", "list of paths"),
        ({"images": ["../a.jpg"]}, "images", "leads outside"),
        ({"images": ["/etc/passwd"]}, "images", "leads outside"),
        ({"images": ["a\0.jpg"]}, "images", "leads outside"),
        ({"text": "a dog"}, "text", "no image token"),
        ({"text": "<image>\na dog"}, "text", "which is LLaVA's"),
        ({"images": ["a.jpg", "b.jpg"]}, "text", "2 image(s) for 1 image token(s)"),
        ({"images": []}, "text", "0 image(s) for 1 image token(s)"),
    ],
)
def test_a_malformed_row_is_named_with_its_line_and_field(tmp_path, change, field, problem):
    path = written(tmp_path, GOOD, {**GOOD, **change})
    with pytest.raises(InputError) as error:
        list(read_pairs(path))
    assert error.value.place == f"{path}, line 2, field {field}"
    assert problem in error.value.problem


@pytest.mark.parametrize("line", ["{", "[1]", "null", '"text"'])
def test_a_line_that_is_no_object_is_named(tmp_path, line):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n")
    with pytest.raises(InputError) as error:
        list(read_pairs(path))
    assert error.value.place == f"{path}, line 2"


def test_an_absolute_path_below_the_image_folder_becomes_relative(tmp_path):
    path = written(tmp_path, {**GOOD, "images": [str(tmp_path / "images" / "7.jpg")]})
    assert next(read_pairs(path, tmp_path)).images == ("images/7.jpg",)


@pytest.mark.parametrize(
    "text",
    [
        "<__dj__image>\na dog <|__dj__eoc|>",
        "  <__dj__image>\na dog <|__dj__eoc|>\n",
        "<__dj__image>a dog",
        "a dog\n<__dj__image> <|__dj__eoc|>",
        "<__dj__image>\n  a dog  ",
    ],
)
def test_a_caption_is_stripped_of_its_tokens(text):
    assert caption_of(text) == "a dog"
