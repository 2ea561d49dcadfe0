"""The last minutes of devices and runs, whatever state their files are in."""

from __future__ import annotations

import json
import time
from pathlib import Path

from backend.files import append_line
from backend.runs import Run
from backend.workspace import Settings, Workspace
from store.devices import recent

NOW = float(int(time.time()))


def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "space", Settings(name="readings"))


def new_run(space: Workspace, name: str) -> Run:
    run = Run(space.runs / name)
    run.path.mkdir()
    (run.path / "run.json").write_text("{}")
    return run


def reading(moment: float, used: int | None = 5, rss: int | None = 7) -> dict:
    devices = [{"index": 0, "used": used, "total": 24, "utilization": 50}]
    return {"time": moment, "devices": devices, "process": {"rss": rss}}


def test_only_the_span_is_kept_and_a_gap_stays_a_gap(tmp_path):
    space = workspace(tmp_path)
    run = new_run(space, "20260101-000000-finetune-aaaa")
    for age in (900, 300, 299, 100):
        append_line(run.gpu_path, reading(NOW - age))
    found = recent(space, NOW)
    assert found.used[0].times == [NOW - 300, NOW - 299, NOW - 199.5, NOW - 100]
    assert found.used[0].values == [5, 5, None, 5]
    assert found.utilization[0].values == [50, 50, None, 50]
    assert found.host[run.id].values == [7, 7, None, 7]


def test_two_runs_at_once_count_a_device_once(tmp_path):
    space = workspace(tmp_path)
    for name in ("20260101-000000-finetune-aaaa", "20260101-000001-evaluate-bbbb"):
        append_line(new_run(space, name).gpu_path, reading(NOW - 10))
    found = recent(space, NOW)
    assert len(found.used[0].times) == 1
    assert len(found.host) == 2


def test_without_a_driver_there_is_only_the_host(tmp_path):
    space = workspace(tmp_path)
    run = new_run(space, "20260101-000000-finetune-aaaa")
    append_line(run.gpu_path, {"time": NOW, "devices": None, "process": {"rss": None}})
    found = recent(space, NOW)
    assert found.used == {}
    assert found.host[run.id].values == [None]


def test_unknown_stays_unknown(tmp_path):
    space = workspace(tmp_path)
    run = new_run(space, "20260101-000000-finetune-aaaa")
    append_line(run.gpu_path, reading(NOW, used=None))
    assert recent(space, NOW).used[0].values == [None]


def test_torn_and_foreign_lines_are_left_out(tmp_path):
    space = workspace(tmp_path)
    run = new_run(space, "20260101-000000-finetune-aaaa")
    run.gpu_path.write_text(f'garbage\n[1]\n{{}}\n{json.dumps(reading(NOW))}\n{{"time": 18')
    assert recent(space, NOW).host[run.id].times == [NOW]


def test_nothing_recorded_is_nothing(tmp_path):
    space = workspace(tmp_path)
    new_run(space, "20260101-000000-finetune-aaaa")
    assert recent(space, NOW).host == {}
