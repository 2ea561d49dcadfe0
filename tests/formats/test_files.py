"""Plain files: what a reader makes of a line that is torn, broken or cut short by a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.errors import InputError, UsageError
from backend.files import append_line, read_json, read_lines, tail_lines
from backend.runs import Run, RunSpec
from backend.workspace import Settings, Workspace

ROOT = Path(__file__).parents[2]


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


def test_no_id_names_no_run_even_if_there_is_only_one(tmp_path):
    workspace = Workspace.create(tmp_path / "ws", Settings(name="test"))
    only = RunSpec(run_id="20261124-000000-check-beef", stage="check", parameters={}, argv=[],
                   created_at=0.0, device=None)  # fmt: skip
    Run.create(workspace, only)
    assert Run.find(workspace, "beef").id == only.run_id
    with pytest.raises(UsageError, match="no run of this id"):
        Run.find(workspace, "")


@pytest.mark.parametrize("torn", ['{"step":3,"lo', "x" * 200_000, '{"word":"né"[:-1]'])
def test_a_torn_last_line_is_cut_off_before_the_next_is_appended(tmp_path: Path, torn: str):
    path = tmp_path / "metrics.jsonl"
    append_line(path, {"step": 1})
    append_line(path, {"step": 2})
    with path.open("a") as file:
        file.write(torn)
    assert [line["step"] for line in read_lines(path)] == [1, 2]
    append_line(path, {"step": 3})
    assert path.read_text() == '{"step":1}\n{"step":2}\n{"step":3}\n'


def test_a_file_of_nothing_but_a_torn_line_starts_anew(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"time":')
    append_line(path, {"time": 1})
    assert list(read_lines(path)) == [{"time": 1}]


def test_a_line_that_a_full_disk_has_no_room_for_is_an_error_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "metrics.jsonl"
    append_line(path, {"step": 1})
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[: len(data) // 2]))
    with pytest.raises(OSError, match="No space left"):
        append_line(path, {"step": 2})
    assert path.read_text() == '{"step":1}\n'


def test_lines_of_several_processes_never_mix(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    script = (
        "import sys; from pathlib import Path; from backend.files import append_line\n"
        "for i in range(200): append_line(Path(sys.argv[1]), {'who': sys.argv[2], 'x': 'y' * 5000})"
    )
    argv = [sys.executable, "-c", script, str(path)]
    writers = [subprocess.Popen([*argv, str(who)], cwd=ROOT) for who in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    lines = list(read_lines(path))
    assert len(lines) == 600
    assert {line["x"] for line in lines} == {"y" * 5000}


def test_the_end_of_a_log_is_whole_lines(tmp_path: Path):
    log = tmp_path / "output.log"
    assert tail_lines(log, 100) == []
    log.write_bytes(b"first\n 10 %\r 20 %\r\nl\xc3\xa4st \ntorn")
    assert tail_lines(log, 100) == ["first", " 10 %", " 20 %", "l\u00e4st", "torn"]
    assert tail_lines(log, 9) == ["torn"]
    log.write_text("one\n\ntwo\n")
    assert tail_lines(log, 100) == ["one", "", "two"]
