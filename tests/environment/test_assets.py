"""Assets that are whole, missing, broken off, or not what their name says."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import pytest

from backend.assets import ASSETS, asset_status, measure
from backend.formats import textvqa
from backend.formats.mmbench import COLUMNS
from backend.starter.create import ZOO
from backend.starter.mmbench import write_mmbench
from backend.workspace import ASSET_PATHS, Settings, Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "space", Settings(name="assets", profile="mgm-2b"))


def status(workspace: Workspace, name: str, *, thorough: bool = False) -> tuple[str, str]:
    found = asset_status(workspace, name, thorough=thorough)
    return found.state, found.problem


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def tensors(size: int) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def model(workspace: Workspace, name: str) -> Path:
    folder = workspace.asset(name)
    for file in ASSETS[name].files:
        write(folder / file, "{}")
    return folder


def test_every_place_of_the_kit_is_an_asset():
    assert list(ASSETS) == list(ASSET_PATHS)


@pytest.mark.parametrize("name", ["llm", "vision_tower", "vision_tower_aux"])
def test_the_zoo_that_comes_along_is_complete(workspace, name):
    workspace.settings.assets[name] = str(ZOO / name)
    assert status(workspace, name) == ("complete", "")


def test_an_empty_workspace_misses_everything(workspace):
    assert {status(workspace, name)[0] for name in ASSETS} == {"missing"}


def test_a_shard_that_is_missing_or_broken_off_is_named(workspace):
    folder = model(workspace, "llm")
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    write(folder / "model.safetensors.index.json", json.dumps({"weight_map": shards}))
    write(folder / "model-1.safetensors", tensors(1000))
    state, problem = status(workspace, "llm")
    assert state == "incomplete"
    assert "model-2.safetensors: the file of weights is missing" in problem
    write(folder / "model-2.safetensors", tensors(1000)[:-1])
    assert "of 1," in status(workspace, "llm")[1]
    write(folder / "model-2.safetensors", tensors(1000))
    assert status(workspace, "llm") == ("complete", "")


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 64, struct.pack("<Q", 4) + b"nope"])
def test_something_else_by_the_name_of_weights(workspace, content):
    folder = model(workspace, "vision_tower")
    write(folder / "model.safetensors", content)
    assert status(workspace, "vision_tower")[0] == "incomplete"


def test_an_index_cannot_point_outside_its_folder(workspace):
    folder = model(workspace, "llm")
    index = {"weight_map": {"a": "../../outside.safetensors"}}
    write(folder / "model.safetensors.index.json", json.dumps(index))
    assert "outside" in status(workspace, "llm")[1]


def test_a_torch_file_is_whole_when_its_archive_is(workspace):
    folder = model(workspace, "vision_tower_aux")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("data", bytes(1000))
    write(folder / "open_clip_pytorch_model.bin", buffer.getvalue()[:-30])
    assert status(workspace, "vision_tower_aux")[0] == "incomplete"
    write(folder / "open_clip_pytorch_model.bin", buffer.getvalue())
    assert status(workspace, "vision_tower_aux") == ("complete", "")


def test_a_configuration_that_is_no_json_is_named(workspace):
    write(model(workspace, "llm") / "config.json", "{")
    assert "config.json" in status(workspace, "llm")[1]


@pytest.mark.parametrize(
    ("name", "whole", "broken"),
    [
        ("seed_pairs", '{"id": 1}\n{"id": 2}\n', '{"id": 1}\n{"id": '),
        ("seed_originals", '[{"id": 1}, {"id": 2}]\n', '[{"id": 1}, {"id": '),
        ("textvqa_annotations", '{"data": []}', '{"data": ['),
    ],
)
def test_a_record_file_that_broke_off(workspace, name, whole, broken):
    path = workspace.asset(name)
    for thorough in (False, True):
        write(path, broken)
        assert asset_status(workspace, name, thorough=thorough).state == "incomplete"
        write(path, whole)
        assert asset_status(workspace, name, thorough=thorough).state == "complete"


def test_only_the_thorough_look_finds_a_fault_in_the_middle(workspace):
    write(workspace.asset("seed_pairs"), '{"id": 1}\nnot json\n{"id": 2}\n')
    assert status(workspace, "seed_pairs") == ("complete", "")
    state, problem = status(workspace, "seed_pairs", thorough=True)
    assert state == "incomplete"
    assert "line 2" in problem


@pytest.mark.parametrize("thorough", [False, True])
def test_an_empty_file_is_not_complete(workspace, thorough):
    for name in ("seed_pairs", "seed_originals", "textvqa_annotations", "mmbench_questions"):
        write(workspace.asset(name), "")
        assert status(workspace, name, thorough=thorough)[0] == "incomplete"


def write_mmbench_table(path: Path) -> bytes:
    write_mmbench(path, count=2, seed=1)
    return path.read_bytes()


def test_a_table_with_other_columns_or_a_torn_end(workspace):
    path = workspace.asset("mmbench_questions")
    header = "\t".join(COLUMNS)
    write(path, "one\ttwo\n1\t2\n")
    assert status(workspace, "mmbench_questions")[0] == "incomplete"
    write(path, f"{header}\n")
    assert "no rows" in status(workspace, "mmbench_questions")[1]
    content = write_mmbench_table(path)
    write(path, content)
    assert status(workspace, "mmbench_questions") == ("complete", "")
    write(path, content.rstrip(b"\r\n"))
    assert "no end" in status(workspace, "mmbench_questions")[1]


def test_images_are_looked_for_by_the_names_in_the_records(workspace):
    images = workspace.asset("textvqa_images")
    questions = [textvqa.Question(str(n), f"{n}.jpg", "q?\nshort") for n in range(200)]
    records = workspace.asset("textvqa_questions")
    records.parent.mkdir(parents=True)
    textvqa.write_questions(records, questions)
    for number in range(200):
        write(images / f"{number}.jpg", b"x")
    assert status(workspace, "textvqa_images") == ("complete", "")
    (images / "7.jpg").unlink()
    state, problem = status(workspace, "textvqa_images", thorough=True)
    assert state == "incomplete"
    assert "1 of 200 images are missing; the first: 7.jpg" in problem
    for number in range(100, 200):
        (images / f"{number}.jpg").unlink()
    assert status(workspace, "textvqa_images")[0] == "incomplete"


def test_images_without_their_records_are_judged_by_whether_there_are_any(workspace):
    folder = workspace.asset("finetune_images")
    folder.mkdir(parents=True)
    assert status(workspace, "finetune_images")[0] == "incomplete"
    write(folder / "a.jpg", b"x")
    assert status(workspace, "finetune_images")[0] == "complete"


def test_a_file_where_a_folder_should_be(workspace):
    write(workspace.asset("llm"), "x")
    assert status(workspace, "llm") == ("incomplete", "this should be a folder.")


def test_a_folder_too_large_for_a_glance_has_an_unknown_size(tmp_path):
    for number in range(600):
        write(tmp_path / str(number // 100) / str(number), b"xy")
    assert measure(tmp_path, None) == (1200, 600)
    assert measure(tmp_path, 0.0) == (None, None)
