"""Plain files: what a reader makes of a line that is torn, broken or cut short by a full disk."""

from __future__ import annotations

import os

import pytest

from backend.errors import InputError, UsageError
from backend.files import append_line, read_json, read_lines
from backend.runs import Run, RunSpec
from backend.workspace import Settings, Workspace


def test_a_last_line_torn_within_a_character_is_left_out(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_line(path, {"said": "é"})
    path.write_bytes(path.read_bytes() + '{"said": "é'.encode()[:-1])
    assert list(read_lines(path)) == [{"said": "é"}]


@pytest.mark.parametrize(
    ("line", "problem"), [(b"\xff\n", "UTF-8"), (b"7\n", "not a JSON object"), (b"{\n", "not JSON")]
)
def test_a_broken_line_is_named(tmp_path, line, problem):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"{}\n" + line)
    with pytest.raises(InputError, match=rf"line 2: .*{problem}"):
        list(read_lines(path))


def test_a_file_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "values.json"
    path.write_bytes('{"said": "é"}'.encode("latin-1"))
    with pytest.raises(InputError, match=r"values\.json: this is not UTF-8"):
        read_json(path)


def test_a_line_that_a_full_disk_cut_short_is_an_error(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    with pytest.raises(OSError, match="No space left"):
        append_line(tmp_path / "lines.jsonl", {"step": 1})


def test_no_id_names_no_run_even_if_there_is_only_one(tmp_path):
    workspace = Workspace.create(tmp_path / "ws", Settings(name="test"))
    only = RunSpec(run_id="20261124-000000-check-beef", stage="check", parameters={}, argv=[],
                   created_at=0.0, device=None)  # fmt: skip
    Run.create(workspace, only)
    assert Run.find(workspace, "beef").id == only.run_id
    with pytest.raises(UsageError, match="no run of this id"):
        Run.find(workspace, "")
