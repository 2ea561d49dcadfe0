"""What the command line says of trainings: of a foreign log, and of this studio's own runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from backend.cli.commands import main
from backend.files import append_line
from backend.memory.health import conclude, findings_so_far
from backend.runs import Run, RunFailed, State
from backend.workspace import Workspace
from tests.pages.workspaces import add_metrics, add_run, empty

LOGS = Path(__file__).parents[1] / "data" / "logs"
KIT = Path(__file__).parents[3] / "shared" / "data" / "kit_run" / "pretrain.log"
SICK, WELL = "20261124-090000-finetune-51c4", "20261124-080000-finetune-3e11"


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    space = empty(tmp_path / "space")
    add_metrics(add_run(space, WELL, State.SUCCEEDED), 60)
    run = add_run(space, SICK, State.RUNNING, alive=os.getpid())
    for step in range(1, 9):
        append_line(run.metrics_path, {"step": step, "loss": 3e11, "attempt": 1})
    return space


def test_a_running_run_tells_what_is_wrong_with_it(
    space: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-w", str(space.root), "show", SICK]) == 0
    told = capsys.readouterr().out
    assert f"{SICK}  running" in told
    assert "error: The loss ends at 3e+11" in told
    assert main(["-w", str(space.root), "show", SICK, "--json"]) == 0
    [finding] = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["code"], finding["steps"]) == ("loss_above_chance", [8])
    assert finding["advice"]


def test_the_list_of_runs_names_the_worst_finding_of_each(
    space: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-w", str(space.root), "runs"]) == 0
    sick, well = (line.split() for line in capsys.readouterr().out.splitlines()[1:])
    assert (sick[0], sick[-1]) == (SICK, "loss_above_chance")
    assert (well[0], well[-1]) == (WELL, "-")
    assert main(["-w", str(space.root), "runs", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert [one["code"] for one in first["findings"]] == ["loss_above_chance"]


def test_what_an_earlier_attempt_found_is_not_told_of_a_resumed_run(space: Workspace) -> None:
    run = Run.find(space, SICK)
    with pytest.raises(RunFailed):
        conclude(run)
    assert [one.code for one in findings_so_far(run)] == ["loss_above_chance"]
    for step in range(1, 61):
        append_line(run.metrics_path, {"step": step, "loss": 5 - step / 20, "attempt": 2})
    kept = run.artifacts / "findings.json"
    os.utime(kept, ns=(0, kept.stat().st_mtime_ns - 10**9))
    assert findings_so_far(run) == []


def test_broken_figures_do_not_hide_the_run(
    space: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    Run.find(space, SICK).metrics_path.write_text("{}\nno json\n")
    assert main(["-w", str(space.root), "show", SICK]) == 0
    told = capsys.readouterr()
    assert f"{SICK}  running" in told.out
    assert "not judged" in told.err


def test_a_death_is_never_healthy(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "killed.log"
    path.write_text("{'loss': 2.5}\n{'loss': 2.4}\nrun.sh: line 4: 977 Killed   python train.py\n")
    assert main(["judge", str(path)]) == 1
    assert "healthy" not in capsys.readouterr().out
    if KIT.is_file():
        path.write_text(KIT.read_text() + (LOGS / "kit_logits.log").read_text())
        assert main(["judge", str(path), "--json"]) == 1
        told = json.loads(capsys.readouterr().out)
        assert told["death"].startswith("The card's memory ran out.")
        assert told["findings"] == []


def test_the_vocabulary_of_a_foreign_model_can_be_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [json.dumps({"step": step, "loss": 9.5}) + "\n" for step in range(1, 11)]
    path.write_text("".join(rows))
    assert main(["judge", str(path)]) == 0
    # For 100 words it is twice what guessing costs.
    assert main(["judge", str(path), "--vocabulary", "100"]) == 1
    assert "guessing" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["judge", str(path), "--vocabulary", "0"])
