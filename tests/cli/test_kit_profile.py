"""A kit of tiny models is worked through by the command line as a real one is.

The workspace's name is a pattern for whoever reads it as one, with a neighbor that it matches.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from backend.bases import located
from backend.cli.commands import main
from backend.errors import InputError
from backend.files import read_json, write_json
from backend.mgm import adapters, checkpoints
from backend.mgm.multimodal import IMAGE_TOKEN
from backend.runs import Run
from backend.training.sources import MODEL_ASSETS
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


@pytest.fixture(scope="module")
def adapter(space: Workspace) -> Iterator[Path]:
    """What a LoRA run by the command line left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNTHLOOP_STATE_DIR", str(space.root.parent / "state"))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        before = {run.id for run in Run.all(space)}

        def run(stage: str, *words: str) -> str:
            assert main(["-w", str(space.root), "run", stage, *words]) == 0
            new = {one.id for one in Run.all(space)} - before
            before.update(new)
            return new.pop()

        prepared = run("prepare")
        aligned = run("pretrain", "-p", f"data={prepared}")
        lora = ("-p", "preset=fit-12gb-lora", "-p", "epochs=3")
        yield Run.find(space, run("finetune", "-p", f"projector={aligned}", *lora)).artifacts


@pytest.fixture
def foreign(adapter: Path, tmp_path: Path) -> Path:
    """The adapter as the kit of another machine would have written it."""
    folder = Path(shutil.copytree(adapter, tmp_path / "MGM-2B-Finetune-old"))
    zoo = "/root/dj_synth_challenge/toolkit/training/model_zoo"
    named = {"_name_or_path": f"{zoo}/LLM/gemma/gemma-2b-it"}
    named |= {"mm_vision_tower": f"{zoo}/OpenAI/clip-vit-large-patch14-336"}
    named |= {"mm_vision_tower_aux": f"{zoo}/OpenAI/openclip-convnext-large-d-320"}
    unknown = {"mm_vision_config", "mm_vision_aux_config", "base_model_type"}
    config = {k: v for k, v in read_json(folder / "config.json").items() if k not in unknown}
    write_json(folder / "config.json", config | named)
    settings = read_json(folder / "adapter_config.json")
    settings["base_model_name_or_path"] = named["_name_or_path"]
    write_json(folder / "adapter_config.json", settings)
    for file in folder.glob("token*"):
        file.unlink()
    return folder


def scored(space: Workspace, capsys: pytest.CaptureFixture[str], checkpoint: str | Path) -> Run:
    """The evaluation of a checkpoint."""
    words = ("-p", f"checkpoint={checkpoint}")
    run = Run.find(space, call(space, capsys, "run", "evaluate", *words)["run_id"])
    assert read_json(run.artifacts / "scores.json").keys() >= {"textvqa", "mmbench"}
    return run


def answers(run: Run) -> list[str]:
    return (run.artifacts / "textvqa" / "answers.jsonl").read_text().splitlines()


def test_an_adapter_of_another_machine_has_the_scores_of_ours(
    space: Workspace, capsys: pytest.CaptureFixture[str], adapter: Path, foreign: Path
) -> None:
    ours, theirs = scored(space, capsys, adapter.parent.name), scored(space, capsys, foreign)
    told = [one["values"] for one in theirs.events() if one["code"] == "base_stands_in"]
    assert {one["asset"]: one["path"] for one in told} == {
        name: str(space.asset(name)) for name in MODEL_ASSETS
    }
    assert all(one["recorded"].startswith("/root/dj_synth_challenge/") for one in told)
    assert "base_stands_in" not in [one["code"] for one in ours.events()]
    for name in ("textvqa", "mmbench"):
        one, other = (read_json(run.artifacts / "scores.json")[name] for run in (ours, theirs))
        assert one["score"] == other["score"]
    said = [[json.loads(line)["text"] for line in answers(run)] for run in (ours, theirs)]
    assert said[0] == said[1]


def test_a_merged_adapter_is_a_full_checkpoint_that_answers_alike(
    space: Workspace, capsys: pytest.CaptureFixture[str], foreign: Path
) -> None:
    words = ("-p", f"checkpoint={foreign}", "-p", "weights_dtype=float32")
    run = Run.find(space, call(space, capsys, "run", "merge", *words)["run_id"])
    assert [one["code"] for one in run.events()].count("base_stands_in") == 3
    index = read_json(run.artifacts / "model.safetensors.index.json")["weight_map"]
    assert not [name for name in index if "lora" in name or "base_layer" in name]
    assert read_json(run.artifacts / "config.json")["model_type"] == "mgm_gemma"

    found = located(space, str(foreign))
    apart = checkpoints.load(foreign, roots=found.roots, **found.directories).model
    merged = checkpoints.load(run.artifacts).model
    base = checkpoints.load(foreign, roots=found.roots, **found.directories).model
    for layer in adapters.adapted_layers(base).values():
        layer.scaling[adapters.ADAPTER] = 0.0
    ids = torch.tensor([[2, IMAGE_TOKEN, 40, 41, 42]])
    size = TINY.clip["image_size"]
    pictures = {
        "images": torch.rand(1, 3, size, size),
        "images_aux": torch.rand(1, 3, apart.config.image_size_aux, apart.config.image_size_aux),
    }
    with torch.no_grad():
        one, other, without = (m.eval()(ids, **pictures).logits for m in (apart, merged, base))
    assert_close(one, other, rtol=0, atol=1e-5)
    assert (one - without).abs().max() > 1e-4
    evaluation = scored(space, capsys, run.id)
    assert evaluation.spec.inputs == {"checkpoint": run.id}


def test_training_goes_on_from_an_adapter_of_another_machine(
    space: Workspace, capsys: pytest.CaptureFixture[str], adapter: Path, foreign: Path
) -> None:
    words = ("-p", "preset=fit-8gb-qlora", "-p", "max_steps=1", "-p", f"continue_from={foreign}")
    run = Run.find(space, call(space, capsys, "run", "finetune", *words)["run_id"])
    assert [one["code"] for one in run.events()].count("base_stands_in") == 3
    loss = json.loads(run.metrics_path.read_text().splitlines()[0])["loss"]
    first = json.loads((adapter.parent / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    assert loss < first


def test_a_model_of_other_sizes_stands_in_for_none(
    space: Workspace, capsys: pytest.CaptureFixture[str], foreign: Path
) -> None:
    config = read_json(foreign / "config.json")
    write_json(foreign / "config.json", config | {"num_hidden_layers": 18})
    words = ("run", "evaluate", "-p", f"checkpoint={foreign}")
    assert main(["-w", str(space.root), *words]) == 1
    told = capsys.readouterr().err
    assert "num_hidden_layers is 2 where 18 is wanted" in told
    assert "under Settings" in told
    write_json(foreign / "config.json", config)
    moved = Workspace(space.root, space.settings.model_copy(update={"assets": {"llm": "gone"}}))
    with pytest.raises(InputError, match="neither at /root/dj_synth_challenge") as caught:
        located(moved, str(foreign))
    assert str(space.root / "gone") in str(caught.value)
    full = foreign / "adapter_config.json"
    full.unlink()
    assert main(["-w", str(space.root), "run", "merge", "-p", f"checkpoint={foreign}"]) == 1
    assert "nothing to merge" in capsys.readouterr().err


def _lines(run: Run) -> list[str]:
    return (run.artifacts / "unreadable.jsonl").read_text().splitlines()
