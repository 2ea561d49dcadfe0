from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest

from backend.errors import InputError
from backend.files import read_json, read_lines
from backend.formats.convert import dj_to_llava
from backend.formats.llava import read_conversations
from backend.messages import message
from backend.runs import State
from backend.stages.prepare import Parameters, kit_subset, main, preflight
from backend.synthesis.importing import import_directory
from tests.seeds import make_workspace, pair, stage_context


def prepare(workspace, **parameters):
    context = stage_context(workspace, "prepare", **parameters)
    main(context, Parameters(**parameters))
    return context


def test_the_training_file_is_what_the_kit_would_make(tmp_path):
    workspace = make_workspace(tmp_path, 6, [pair(0), pair(1), pair(1, "again"), pair(5)])
    artifacts = prepare(workspace).artifacts
    dj_to_llava(
        workspace.asset("seed_pairs"), tmp_path / "kit.json", workspace.asset("seed_originals")
    )
    records = read_json(artifacts / "train.json")
    assert [r.pop("sample_id") for r in records][1:3] == ["000000001", "000000001~2"]
    assert records == read_json(tmp_path / "kit.json")
    assert len(list(read_conversations(artifacts / "train.json"))) == 4
    prepared = read_json(artifacts / "prepared.json")
    assert (prepared["dataset"], prepared["samples"], prepared["rejected"]) == ("seed/v1", 4, 0)
    assert prepared["purpose"] == "pretrain"
    assert prepared["image_root"] == str(workspace.asset("seed_images"))


def test_above_the_cap_the_kits_own_draw_is_taken(tmp_path):
    workspace = make_workspace(tmp_path, 12)
    records = read_json(prepare(workspace, sample_cap=5).artifacts / "train.json")
    random.seed(1024)
    drawn = random.sample([f"{number:09d}" for number in range(12)], 5)
    assert [record["id"] for record in records] == drawn
    assert kit_subset(list(range(5)), 5, 1024) == [0, 1, 2, 3, 4]


def test_a_bad_image_is_rejected_counted_and_named(tmp_path):
    workspace = make_workspace(tmp_path, 30)
    image = workspace.asset("seed_images") / "images" / "000000004.png"
    image.write_bytes(image.read_bytes()[:60])
    context = prepare(workspace)
    prepared = read_json(context.artifacts / "prepared.json")
    assert (prepared["samples"], prepared["rejected"]) == (29, 1)
    rejected = list(read_lines(context.artifacts / "rejected.jsonl"))
    assert [(r["sample_id"], r["place"], r["code"]) for r in rejected] == [
        ("000000004", str(image), "image_unreadable")
    ]
    sentence = message(f"problem.{rejected[0]['code']}", **rejected[0]["values"])
    assert "image_readable_filter" in sentence
    assert context.run.events()[-1]["values"] == {"samples": 29, "rejected": 1}


def test_an_image_that_broke_after_the_import_is_found(tmp_path):
    workspace = make_workspace(tmp_path, 30)
    prepare(workspace)
    (workspace.asset("seed_images") / "images" / "000000004.png").unlink()
    assert read_json(prepare(workspace).artifacts / "prepared.json")["rejected"] == 1


def test_too_many_bad_images_refuse_the_whole(tmp_path):
    workspace = make_workspace(tmp_path, 10)
    (workspace.asset("seed_images") / "images" / "000000004.png").unlink()
    with pytest.raises(InputError, match=r"1 of 10 images \(10 %\).*more than the 5 %"):
        prepare(workspace)


def test_no_limit_lets_a_set_without_any_image_through(tmp_path):
    workspace = make_workspace(tmp_path, 2)
    for image in (workspace.asset("seed_images") / "images").iterdir():
        image.unlink()
    with pytest.raises(InputError, match="2 of 2 images"):
        prepare(workspace, rejected_limit_percent=100)


def test_dialogues_are_prepared_as_they_are_and_nothing_else_is(tmp_path):
    workspace = make_workspace(tmp_path, 1)
    folder = tmp_path / "dialogues"
    folder.mkdir()
    text = "[[human]]: <__dj__image>\nWhat?\n[[gpt]]: a dog <|__dj__eoc|>"
    (folder / "d.jsonl").write_text(json.dumps(pair(0) | {"text": text}) + "\n")
    reference = import_directory(workspace, folder)
    context = prepare(workspace, dataset=reference, restore_questions=False)
    record = read_json(context.artifacts / "train.json")[0]
    assert [turn["value"] for turn in record["conversations"]] == ["<image>\nWhat?", "a dog"]
    with pytest.raises(InputError, match="restore_questions=false"):
        prepare(workspace, dataset=reference)
    with pytest.raises(InputError, match="restore_questions=true"):
        prepare(workspace, restore_questions=False)


def test_preflight_names_what_is_missing(tmp_path):
    workspace = make_workspace(tmp_path, 2)
    assert preflight(workspace, Parameters()) == []
    found = preflight(workspace, Parameters(dataset="none/v1"))
    assert [(p.level, p.code, p.place) for p in found] == [("error", "dataset_missing", "none/v1")]
    workspace.asset("seed_pairs").unlink()
    found = preflight(workspace, Parameters())
    assert [(p.level, p.code) for p in found] == [("error", "asset_missing")]
    for problem in found:
        assert str(workspace.asset("seed_pairs")) in message(
            "problem.asset_missing", **problem.values
        )


def test_as_a_program_a_malformed_row_ends_the_run_with_its_place(tmp_path):
    workspace = make_workspace(tmp_path, 2, [pair(0), pair(1) | {"images": ["a.png", "b.png"]}])
    run = stage_context(workspace, "prepare").run
    argv = [sys.executable, "-m", "backend.stages.prepare", str(run.path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    outcome = run.outcome()
    assert (done.returncode, outcome.state, outcome.reason.code) == (1, State.FAILED, "bad_input")
    assert outcome.reason.values["place"].endswith("line 2, field text")
    assert "2 image(s) for 1 image token(s)" in outcome.reason.values["problem"]


GOOD_LINE = json.dumps(pair(0))


@pytest.mark.parametrize(
    ("line", "place", "problem"),
    [
        ('{"id": "000000001", "text": ', "line 2", "not JSON"),
        ("[1, 2]", "line 2", "object"),
        ('{"id": "\udcff"}', "line 2", "UTF-8"),
        (pair(1) | {"text": "a dog <|__dj__eoc|>"}, "line 2, field text", "no image token"),
        (pair(1) | {"images": ["a.png", "b.png"]}, "line 2, field text", "2 image(s) for 1"),
        (pair(1) | {"images": "a.png"}, "line 2, field images", "list"),
        (pair(1) | {"images": ["../../secret.png"]}, "line 2, field images", "folder"),
        ({"text": "<__dj__image>\na <|__dj__eoc|>", "images": ["a.png"]}, "line 2, field id", "id"),
        (pair(1) | {"text": "<__dj__image>\n <|__dj__eoc|>"}, "line 2, field text", "empty"),
        (pair(1) | {"text": "<__dj__image>\na <__dj__image> b <|__dj__eoc|>",
                    "images": ["a.png", "a.png"]}, "line 2, field text", "inside"),
        (pair(7), "line 2, field id", "stage_1.json"),
    ],
)  # fmt: skip
def test_a_bad_row_is_one_error_with_file_line_and_remedy(tmp_path, line, place, problem):
    workspace = make_workspace(tmp_path, 2)
    text = line if isinstance(line, str) else json.dumps(line)
    workspace.asset("seed_pairs").write_bytes(
        f"{GOOD_LINE}\n{text}\n".encode(errors="surrogateescape")
    )
    with pytest.raises(InputError) as error:
        prepare(workspace)
    assert error.value.place == f"{workspace.asset('seed_pairs')}, {place}"
    assert problem in str(error.value)
    assert error.value.remedy
    assert workspace.dataset_references() == []


@pytest.mark.parametrize(
    ("harm", "detail"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(b""), "image"),
        (lambda path: path.write_bytes(path.read_bytes()[:80]), "truncated"),
        (lambda path: path.write_text("<html>not found</html>"), "image"),
    ],
)
def test_a_bad_picture_is_one_error_with_file_and_remedy(tmp_path, harm, detail):
    workspace = make_workspace(tmp_path, 3)
    path = workspace.asset("seed_images") / "images" / "000000001.png"
    harm(path)
    with pytest.raises(InputError, match="1 of 3 images") as error:
        prepare(workspace)
    assert error.value.place == str(path)
    assert detail in error.value.problem
    assert "Fetch the images again" in error.value.remedy
