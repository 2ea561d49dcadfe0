from __future__ import annotations

import json
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backend.errors import InputError, UsageError
from backend.synthesis.datasets import (
    BASE_FIELDS,
    describe,
    read,
    samples_schema,
    write_dataset,
)
from tests.seeds import make_workspace


def table(*ids: str, **columns: object) -> pa.Table:
    rows = [
        {"sample_id": i, "source_id": i, "origin": "seed", "images": [f"{i}.png"], "kept": True}
        for i in ids
    ]
    return pa.Table.from_pylist([{**row, **columns} for row in rows], schema=samples_schema())


def write(workspace, *tables, name="d", **kwargs):
    kwargs = {"image_root": workspace.root, "source": "test", "source_hash": "0"} | kwargs
    return write_dataset(workspace, name, tables, **kwargs)


def test_versions_count_up_and_are_read_back(tmp_path):
    workspace = make_workspace(tmp_path)
    assert write(workspace, table("a", "b"), table("c", kept=False)) == "d/v1"
    assert write(workspace, table("a")) == "d/v2"
    info = describe(workspace, "d/v1")
    assert (info.counts.samples, info.counts.kept, info.counts.dropped) == (3, 2, 1)
    assert info.image_root == str(workspace.root)
    assert read(workspace, "d/v1").column_names == [name for name, _ in BASE_FIELDS]
    assert read(workspace, "d/v1", ["sample_id"], kept_only=True).to_pylist() == [
        {"sample_id": "a"},
        {"sample_id": "b"},
    ]


def test_the_content_hash_follows_what_is_trained_on(tmp_path):
    workspace = make_workspace(tmp_path)
    versions = [
        write(workspace, table("a", "b")),
        write(workspace, table("a"), table("b"), source="elsewhere"),
        write(workspace, table("a", "b", text="other")),
        write(workspace, table("a", "b"), table("c", kept=False)),
    ]
    hashes = [describe(workspace, version).content_hash for version in versions]
    assert hashes[0] == hashes[1] == hashes[3] != hashes[2]


def test_nothing_is_left_of_a_version_that_failed(tmp_path):
    workspace = make_workspace(tmp_path)
    with pytest.raises(InputError, match="twice"):
        write(workspace, table("a"), table("a"))
    assert workspace.dataset_references() == []
    assert list((workspace.root / ".cache" / "datasets").iterdir()) == []


def test_an_existing_version_is_never_touched(tmp_path):
    workspace = make_workspace(tmp_path)
    write(workspace, table("a"))
    before = (workspace.dataset("d/v1") / "samples.parquet").read_bytes()
    write(workspace, table("b"))
    assert (workspace.dataset("d/v1") / "samples.parquet").read_bytes() == before


def test_writers_at_once_get_versions_of_their_own(tmp_path):
    workspace = make_workspace(tmp_path)
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda i=i: found.append(write(workspace, table(str(i)))))
        for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [f"d/v{number}" for number in range(1, 7)]


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b"])
def test_a_name_that_is_no_folder_is_refused(tmp_path, name):
    workspace = make_workspace(tmp_path)
    with pytest.raises(UsageError):
        write(workspace, table("a"), name=name)


def test_the_files_are_plain(tmp_path):
    workspace = make_workspace(tmp_path)
    path = workspace.dataset(write(workspace, table("a")))
    assert json.loads((path / "dataset.json").read_text())["version"] == "v1"
    assert pq.read_table(path / "lineage.parquet").num_rows == 0
