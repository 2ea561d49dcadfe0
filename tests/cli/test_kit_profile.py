"""A kit of tiny models is worked through by the command line as a real one is.

The workspace's name is a pattern for whoever reads it as one, with a neighbor that it matches.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from backend.cli.commands import main
from backend.mgm import checkpoints
from backend.runs import Run
from backend.workspace import ASSET_PATHS, Workspace
from store.runs import run_rows
from store.samples import Filters, sample_page
from tests.benchmarks.model_files import TINY, write_kit
from tests.evaluation.samples import make_benchmarks
from tests.seeds import original, write_seed

PAIRS = 12
BROKEN = "images/000000003.png"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a complete kit, but for one picture of the instructions that is torn."""
    root = tmp_path_factory.mktemp("kit")
    kit = root / "kit"
    write_kit(kit, TINY)
    size = TINY.clip["image_size"]
    (kit / ASSET_PATHS["vision_tower"] / "preprocessor_config.json").write_text(
        json.dumps({"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}})
    )
    write_seed(kit / ASSET_PATHS["seed_images"], PAIRS)
    pictures = kit / ASSET_PATHS["finetune_images"]
    shutil.copytree(kit / ASSET_PATHS["seed_images"] / "images", pictures / "images")
    torn = (pictures / BROKEN).read_bytes()
    (pictures / BROKEN).write_bytes(torn[: len(torn) // 2])
    records = [original(number) for number in range(PAIRS)]
    (kit / ASSET_PATHS["finetune_pairs"]).write_text(json.dumps(records))
    made = make_benchmarks(root / "benchmarks")
    for name, path in {
        "textvqa_questions": made.questions,
        "textvqa_annotations": made.annotations,
        "textvqa_images": made.images,
        "mmbench_questions": made.tsv,
    }.items():
        target = kit / ASSET_PATHS[name]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
    return root


@pytest.fixture(scope="module")
def space(root: Path) -> Workspace:
    place = root / "a*"
    assert main(["-w", str(place), "init", "--profile", "mgm-2b", "--kit", str(root / "kit")]) == 0
    (root / "ab").symlink_to("a*")
    return Workspace.open(place)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHLOOP_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def call(space: Workspace, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What a command that succeeds prints as JSON."""
    capsys.readouterr()
    code = main(["-w", str(space.root), *words, "--json"])
    told = capsys.readouterr()
    assert code == 0, told.out + told.err
    return json.loads(told.out)


def asset_checks(space: Workspace, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    main(["-w", str(space.root), "check", "--json"])
    found = json.loads(capsys.readouterr().out)["checks"]
    return {one["name"].removeprefix("asset_"): one for one in found if one["group"] == "assets"}


def test_a_complete_kit_lacks_nothing(space: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    found = asset_checks(space, capsys)
    assert found.keys() == ASSET_PATHS.keys()
    assert {one["state"] for one in found.values()} == {"ok"}


def test_a_missing_asset_is_told_with_its_place_its_size_and_how_to_get_it(
    space: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = space.asset("llm")
    hidden = folder.rename(folder.with_name("hidden"))
    try:
        one = asset_checks(space, capsys)["llm"]
        assert main(["-w", str(space.root), "check"]) == 1
        told = capsys.readouterr().err
    finally:
        hidden.rename(folder)
    assert (one["state"], one["path"], one["source"]) == (
        "missing", str(folder), "google/gemma-2b-it"
    )  # fmt: skip
    assert one["full_size"] > 5e9
    assert one["remedy"] == {"kind": "fetch", "value": "llm"}
    assert f"{folder}  (google/gemma-2b-it, 4.7 GiB)" in told
    assert "run fetch -p asset=llm" in told


def test_the_baseline_loop_runs_to_its_report(
    space: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    call(space, capsys, "loop", "baseline")
    runs = {run.spec.stage: run for run in Run.all(space)}
    assert {"prepare", "pretrain", "finetune", "evaluate", "report", "loop"} == runs.keys()
    trained = runs["finetune"].spec.parameters
    assert (trained["preset"], trained["method"]) == ("fit-24gb-full", "full")
    assert trained["optimizer"] == "adamw_8bit"
    assert len(checkpoints.load(runs["finetune"].artifacts).model.model.layers) == 2
    assert (runs["report"].artifacts / "report.html").is_file()
    # DuckDB reads this workspace alone, and each of its rows once.
    assert {row.id for row in run_rows(space)} == {run.id for run in runs.values()}
    page = sample_page(space, "seed/v1", Filters())
    assert page.total == page.rows.num_rows == PAIRS

    torn = [json.loads(line) for line in _lines(runs["finetune"])]
    assert [line["image"] for line in torn] == [BROKEN]
    told = [one["values"] for one in runs["finetune"].events() if "unreadable" in one["code"]]
    assert told[0]["image"] == BROKEN
    assert told[-1] == {"count": 1, "images": BROKEN}


def test_stages_run_one_by_one_give_an_adapter_its_scores(
    space: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = call(space, capsys, "run", "prepare")["run_id"]
    aligned = call(space, capsys, "run", "pretrain", "-p", f"data={prepared}")["run_id"]
    words = ("-p", f"projector={aligned}", "-p", "preset=fit-12gb-lora", "-p", "epochs=3")
    tuned = call(space, capsys, "run", "finetune", *words)["run_id"]
    scored = call(space, capsys, "run", "evaluate", "-p", f"checkpoint={tuned}")["run_id"]
    scores = json.loads((Run.find(space, scored).artifacts / "scores.json").read_text())
    assert scores.keys() >= {"textvqa", "mmbench"}
    adapter = Run.find(space, tuned).artifacts / "adapter_model.bin"
    assert adapter.is_file()


def _lines(run: Run) -> list[str]:
    return (run.artifacts / "unreadable.jsonl").read_text().splitlines()
