from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.errors import InputError
from backend.formats.convert import dj_to_llava, llava_to_dj
from tests.seeds import REAL_SEED

needs_real_seed = pytest.mark.skipif(
    not REAL_SEED.is_dir(), reason=f"the 300 real seed pairs are not at {REAL_SEED}"
)
PAIR = {
    "id": "006092514",
    "text": "<__dj__image>\nthe end part of a bond <|__dj__eoc|>",
    "images": ["images/00609/006092514.jpg"],
}
RECORD = {
    "id": "006092514",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat is in the photo?"},
        {"from": "gpt", "value": "the end part of a bond"},
    ],
    "image": "images/00609/006092514.jpg",
}


def write_lines(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def restored(tmp_path: Path, *rows: dict) -> list[dict]:
    originals = tmp_path / "stage_1.json"
    originals.write_text(json.dumps([RECORD]))
    source = write_lines(tmp_path / "in.jsonl", *rows)
    dj_to_llava(source, tmp_path / "out.json", originals)
    return json.loads((tmp_path / "out.json").read_text())


@needs_real_seed
def test_the_real_seed_survives_the_round_trip_exactly(tmp_path):
    pairs, originals = REAL_SEED / "mgm_pretrain_stage_1_300.jsonl", REAL_SEED / "stage_1.json"
    assert dj_to_llava(pairs, tmp_path / "llava.json", originals) == 300
    assert json.loads((tmp_path / "llava.json").read_text()) == json.loads(originals.read_text())
    assert llava_to_dj(tmp_path / "llava.json", tmp_path / "dj.jsonl") == 300
    assert (tmp_path / "dj.jsonl").read_bytes() == pairs.read_bytes()


@needs_real_seed
def test_the_real_seed_survives_as_dialogues(tmp_path):
    originals = REAL_SEED / "stage_1.json"
    llava_to_dj(originals, tmp_path / "dialogues.jsonl", captions_only=False)
    first = json.loads((tmp_path / "dialogues.jsonl").read_text().splitlines()[0])
    assert first["text"].startswith("[[human]]: <__dj__image>\nRender a clear")
    assert "\n[[gpt]]: a soccer field" in first["text"]
    assert dj_to_llava(tmp_path / "dialogues.jsonl", tmp_path / "llava.json") == 300
    assert json.loads((tmp_path / "llava.json").read_text()) == json.loads(originals.read_text())


def test_the_question_is_the_originals_and_the_caption_the_answer(tmp_path):
    assert restored(tmp_path, PAIR) == [RECORD]


def test_one_id_may_come_more_than_once(tmp_path):
    again = {**PAIR, "text": "<__dj__image>\na bridge <|__dj__eoc|>"}
    answers = [r["conversations"][1]["value"] for r in restored(tmp_path, PAIR, PAIR, again)]
    assert answers == ["the end part of a bond"] * 2 + ["a bridge"]


def test_tokens_at_the_end_and_blanks_are_dropped(tmp_path):
    text = "\n the end part of a bond\n<__dj__image> <|__dj__eoc|>\n"
    assert restored(tmp_path, {**PAIR, "text": text}) == [RECORD]


def test_the_same_image_may_be_listed_for_a_token_before_and_after(tmp_path):
    row = {**PAIR, "text": "<__dj__image>\nthe end part of a bond\n<__dj__image> <|__dj__eoc|>"}
    assert restored(tmp_path, {**row, "images": PAIR["images"] * 2}) == [RECORD]


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"id": "unknown"}, "id", "not in the originals"),
        ({"text": "<__dj__image>\n <|__dj__eoc|>"}, "text", "empty"),
        ({"text": "<__dj__image>\na <|__dj__eoc|> b"}, "text", "inside the caption"),
        (
            {"text": "<__dj__image>\na\n<__dj__image>", "images": ["a.jpg", "b.jpg"]},
            "images",
            "different images",
        ),
    ],
)
def test_what_the_kit_cannot_convert_is_refused(tmp_path, change, field, problem):
    with pytest.raises(InputError, match=problem) as error:
        restored(tmp_path, PAIR, {**PAIR, **change})
    assert error.value.place == f"{tmp_path / 'in.jsonl'}, line 2, field {field}"
    assert not (tmp_path / "out.json").exists()


def test_captions_without_originals_are_refused_with_the_remedy(tmp_path):
    source = write_lines(tmp_path / "in.jsonl", PAIR)
    with pytest.raises(InputError, match="--originals"):
        dj_to_llava(source, tmp_path / "out.json")


def test_dialogues_of_several_rounds_survive(tmp_path):
    turns = [
        {"from": "human", "value": "<image>\nWhat\nis it?"},
        {"from": "gpt", "value": "a dog \n"},
        {"from": "human", "value": " Its color?"},
        {"from": "gpt", "value": "brown\n"},
    ]
    source = tmp_path / "in.json"
    source.write_text(json.dumps([{**RECORD, "conversations": turns}]))
    llava_to_dj(source, tmp_path / "dj.jsonl", captions_only=False)
    dj_to_llava(tmp_path / "dj.jsonl", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())[0]["conversations"] == turns


@pytest.mark.parametrize(
    "turns",
    [
        [("human", "<image>\nQ"), ("gpt", "see [[gpt]]: this")],
        [("human", "Look at <image> now"), ("gpt", "yes")],
    ],
)
def test_a_dialogue_that_could_not_come_back_is_refused(tmp_path, turns):
    source = tmp_path / "in.json"
    conversation = [{"from": speaker, "value": value} for speaker, value in turns]
    source.write_text(json.dumps([{**RECORD, "conversations": conversation}]))
    with pytest.raises(InputError):
        llava_to_dj(source, tmp_path / "dj.jsonl", captions_only=False)


def test_several_answers_make_no_caption(tmp_path):
    source = tmp_path / "in.json"
    more = [{"from": "human", "value": "And?"}, {"from": "gpt", "value": "no"}]
    source.write_text(json.dumps([{**RECORD, "conversations": RECORD["conversations"] + more}]))
    with pytest.raises(InputError, match="only one question"):
        llava_to_dj(source, tmp_path / "dj.jsonl")


def test_a_caption_row_is_byte_for_byte_the_kits(tmp_path):
    source = tmp_path / "in.json"
    source.write_text(json.dumps([RECORD]))
    llava_to_dj(source, tmp_path / "dj.jsonl")
    assert (tmp_path / "dj.jsonl").read_text() == json.dumps(PAIR) + "\n"
