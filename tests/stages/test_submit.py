"""Submitting from the command line: an archive that the challenge takes, or what is in its way."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from backend.cli.commands import main
from backend.files import read_json, write_json
from backend.runs import Run
from backend.workspace import Workspace
from tests.evaluation.samples import make_submittable

EVALUATION = "20261124-000000-evaluate-clean"


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("SYNTHLOOP_STATE_DIR", str(tmp_path / "state"))
    return make_submittable(tmp_path)


def submit(space: Workspace, **parameters: str) -> int:
    given = {"evaluation": EVALUATION} | parameters
    words = [word for name, value in given.items() for word in ("-p", f"{name}={value}")]
    return main(["-w", str(space.root), "run", "submit", *words, "--json"])


def test_an_evaluated_run_is_packed_with_its_commands_and_data(
    space: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    solution = space.root / "mine"
    solution.mkdir()
    (solution / "operator.py").write_text("pass\n")
    assert submit(space, experiment="clean-200k", solution="mine") == 0
    run = Run.find(space, json.loads(capsys.readouterr().out)["run_id"])
    checks: list[dict[str, Any]] = read_json(run.artifacts / "submission.json")
    assert {check["state"] for check in checks} <= {"passed", "warning"}
    with zipfile.ZipFile(run.artifacts / "submit.zip") as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        script = archive.read("output/train.sh").decode()
        readme = archive.read("solution/readme.md").decode()
    assert names >= {
        "solution/operator.py",
        "solution/requirements.txt",
        "output/training_dirs/MGM-2B-Pretrain-clean-200k/pretrain.log",
        "output/training_dirs/MGM-2B-Finetune-clean-200k/finetune.log",
        "output/eval_results/MGM-2B-Finetune-clean-200k/textvqa/bm1.jsonl",
    }
    stages = [line.split("backend run ")[1].split()[0] for line in script.splitlines()[2:]]
    assert stages == ["prepare", "pretrain", "finetune", "evaluate"]
    assert "# clean-200k" in readme
    assert [event["code"] for event in run.events()][-1] == "submission_packed"


def test_what_the_challenge_would_refuse_is_refused_before_a_run(
    space: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    path = space.datasets / "clean" / "v1" / "dataset.json"
    write_json(path, read_json(path) | {"counts": {"samples": 50, "kept": 42}})
    before = len(Run.all(space))
    assert submit(space) == 1
    assert "at least one synthesis step" in capsys.readouterr().err
    assert len(Run.all(space)) == before
