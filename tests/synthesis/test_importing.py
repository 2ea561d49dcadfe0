from __future__ import annotations

import json

import pytest

from backend.errors import InputError, UsageError
from backend.synthesis.datasets import describe, read
from backend.synthesis.importing import ensure_dataset, import_directory, import_seed
from backend.synthesis.samples import Sample, to_tables
from backend.workspace import Settings, Workspace
from tests.seeds import QUESTION, REAL_SEED, caption, make_workspace, pair, write_seed


def test_the_seed_becomes_a_version_and_its_images_stay(tmp_path):
    workspace = make_workspace(tmp_path, 5)
    seen: list[tuple[int, int]] = []
    assert import_seed(workspace, lambda done, total: seen.append((done, total))) == "seed/v1"
    assert seen == [(5, 5)]
    row = read(workspace, "seed/v1").to_pylist()[3]
    assert row["sample_id"] == row["source_id"] == "000000003"
    assert (row["text"], row["answer"], row["question"]) == (caption(3), caption(3), QUESTION)
    assert (row["width"], row["height"], row["n_words"]) == (64, 64, 5)
    assert (row["origin"], row["kept"], row["operator"]) == ("seed", True, None)
    assert describe(workspace, "seed/v1").image_root == str(workspace.asset("seed_images"))
    assert not (workspace.dataset("seed/v1") / "images").exists()


def test_the_same_files_are_imported_once_and_changed_ones_again(tmp_path):
    workspace = make_workspace(tmp_path, 4)
    assert [import_seed(workspace), import_seed(workspace)] == ["seed/v1", "seed/v1"]
    write_seed(workspace.asset("seed_images"), 5)
    assert import_seed(workspace) == "seed/v2"


def test_bad_images_stay_with_the_reason(tmp_path):
    workspace = make_workspace(tmp_path, 4)
    images = workspace.asset("seed_images") / "images"
    (images / "000000001.png").unlink()
    (images / "000000002.png").write_bytes(b"no picture")
    import_seed(workspace)
    rows = read(workspace, "seed/v1").to_pylist()
    assert [row["image_problem"] for row in rows] == [
        None,
        "image_missing",
        "image_unreadable",
        None,
    ]
    assert [row["width"] for row in rows] == [64, None, None, 64]


def test_repeated_ids_get_their_own_sample_ids(tmp_path):
    workspace = make_workspace(tmp_path, 2, [pair(0), pair(0, "again"), pair(0), pair(1)])
    import_seed(workspace)
    rows = read(workspace, "seed/v1", ["sample_id", "source_id"]).to_pylist()
    assert [row["sample_id"].partition("~")[2] for row in rows] == ["", "2", "3", ""]
    assert {row["source_id"] for row in rows} == {"000000000", "000000001"}


def test_a_malformed_seed_is_named_and_leaves_nothing(tmp_path):
    workspace = make_workspace(tmp_path, 2, [pair(0), pair(1) | {"text": "no token"}])
    with pytest.raises(InputError) as error:
        import_seed(workspace)
    assert error.value.place == f"{workspace.asset('seed_pairs')}, line 2, field text"
    assert workspace.dataset_references() == []


def test_a_missing_seed_says_how_to_get_it(tmp_path):
    workspace = make_workspace(tmp_path, 2)
    workspace.asset("seed_originals").unlink()
    with pytest.raises(InputError, match="Fetch the assets"):
        import_seed(workspace)


def test_only_the_seed_is_imported_on_demand(tmp_path):
    workspace = make_workspace(tmp_path, 2)
    assert ensure_dataset(workspace, "seed/v1") == "seed/v1"
    assert ensure_dataset(workspace, "seed/v1") == "seed/v1"
    with pytest.raises(UsageError):
        ensure_dataset(workspace, "other/v1")


def test_a_folder_with_its_own_images_and_originals_is_imported(tmp_path):
    workspace = make_workspace(tmp_path, 2)
    write_seed(tmp_path / "my data", 3)
    reference = import_directory(workspace, tmp_path / "my data")
    assert reference == "my-data/v1"
    assert describe(workspace, reference).image_root == str(tmp_path / "my data")
    assert read(workspace, reference).num_rows == 3


def test_processed_data_takes_questions_and_images_from_the_seed(tmp_path):
    workspace = make_workspace(tmp_path, 3)
    folder = tmp_path / "processed_data"
    folder.mkdir()
    absolute = str(workspace.asset("seed_images") / "images" / "000000002.png")
    rows = [pair(0, "one"), pair(0, "two"), pair(2, image=absolute)]
    (folder / "processed_data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reference = import_directory(workspace, folder, "mine")
    found = read(workspace, reference).to_pylist()
    assert [row["text"] for row in found] == ["one", "two", caption(2)]
    assert [row["width"] for row in found] == [64, 64, 64]
    assert found[2]["images"] == ["images/000000002.png"]


def test_dialogues_keep_their_text(tmp_path):
    workspace = make_workspace(tmp_path, 1)
    row = pair(0) | {"text": "[[human]]: <__dj__image>\nWhat?\n[[gpt]]: a dog <|__dj__eoc|>"}
    folder = tmp_path / "dialogues"
    folder.mkdir()
    (folder / "d.jsonl").write_text(json.dumps(row) + "\n")
    found = read(workspace, import_directory(workspace, folder)).to_pylist()[0]
    assert (found["question"], found["answer"]) == ("<image>\nWhat?", "a dog")
    assert found["text"] == "[[human]]: <__dj__image>\nWhat?\n[[gpt]]: a dog"


def test_every_answer_of_a_long_dialogue_counts(tmp_path):
    workspace = make_workspace(tmp_path, 1)
    turns = "[[human]]: <__dj__image>\nWhat?\n[[gpt]]: a dog\n[[human]]: Where?\n[[gpt]]: on grass"
    folder = tmp_path / "dialogues"
    folder.mkdir()
    (folder / "d.jsonl").write_text(json.dumps(pair(0) | {"text": f"{turns} <|__dj__eoc|>"}) + "\n")
    seed = read(workspace, import_directory(workspace, folder)).to_pylist()[0]
    assert (seed["text"], seed["question"]) == (turns, "<image>\nWhat?")
    assert (seed["answer"], seed["n_words"]) == ("a dog\non grass", 4)
    made = Sample("s", "s", "seed", None, seed["images"], turns, seed["question"])
    (row,) = next(to_tables([made], [])).to_pylist()
    same = ("text", "question", "answer", "n_words")
    assert [row[name] for name in same] == [seed[name] for name in same]


def test_a_folder_without_one_file_of_pairs_is_refused(tmp_path):
    workspace = make_workspace(tmp_path, 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"0 \.jsonl files"):
        import_directory(workspace, tmp_path / "empty")


@pytest.mark.skipif(not REAL_SEED.is_dir(), reason=f"real seed pairs are absent: {REAL_SEED}")
def test_three_hundred_real_pairs_are_imported(tmp_path):
    workspace = Workspace.create(
        tmp_path / "real",
        Settings(
            name="real",
            assets={
                "seed_pairs": str(REAL_SEED / "mgm_pretrain_stage_1_300.jsonl"),
                "seed_originals": str(REAL_SEED / "stage_1.json"),
                "seed_images": str(REAL_SEED),
            },
        ),
    )
    rows = read(workspace, import_seed(workspace)).to_pylist()
    assert len(rows) == 300
    assert {row["image_problem"] for row in rows} == {None}
    assert min(min(row["width"], row["height"]) for row in rows) >= 336
    assert len({row["question"] for row in rows}) == 11
    assert sum(row["images"][0].startswith("ALLaVA-4V/") for row in rows) == 4
    assert all("<" not in row["text"] and row["text"] == row["text"].strip() for row in rows)
