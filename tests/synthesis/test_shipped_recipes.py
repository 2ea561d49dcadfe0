"""Every shipped recipe runs, and does to a seed with known faults what its first line says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from backend.runs import Run
from backend.synthesis.agreement import agreement_model
from backend.synthesis.captions import vagueness
from backend.synthesis.datasets import describe
from backend.synthesis.recipes import (
    SHIPPED,
    SYNTHESIS_OPERATORS,
    load_recipe,
    recipe_names,
    ship_recipes,
)
from backend.workspace import Settings, Workspace
from tests.juicer import Juicer
from tests.seeds import REAL_SEED
from tests.starter.small import (
    TOWER,
    UNREADABLE,
    small_starter,
    truth,
    untrained_checkpoint,
)
from tests.synthesis.recipes import funnel, lineage, made, samples

COUNT = 92
NAMES = sorted(path.stem for path in SHIPPED.glob("*.yaml"))


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Pairs with faults; large pictures for the recipe that asks for them."""
    root = tmp_path_factory.mktemp("shipped")
    untrained_checkpoint(root / "mgm-2b-nano")
    return small_starter(root / "workspace", COUNT)


@pytest.fixture(scope="module")
def runs(juicer: Juicer, space: Workspace) -> dict[str, Run]:
    """A finished run of each shipped recipe."""
    captioner = str(space.root.parent / "mgm-2b-nano")
    large = _enlarged(space)
    return {
        name: juicer.run(
            large if name == "kit-filters" else space,
            "synthesize",
            recipe=name,
            captioner=captioner if "captioner" in load_recipe(space, name).placeholders else "",
            output=name,
        )
        for name in NAMES
    }


def _enlarged(space: Workspace) -> Workspace:
    """The same pairs with pictures of 400 pixels."""
    workspace = Workspace.create(
        space.root.parent / "large", Settings(name="large", assets=space.settings.assets)
    )
    shutil.copytree(space.asset("seed_images"), workspace.asset("seed_images"))
    for path in workspace.asset("seed_images").rglob("*.jpg"):
        try:
            with Image.open(path) as image:
                image.resize((400, 400)).save(path)
        except OSError:
            continue
    return workspace


def space_of(runs: dict[str, Run], name: str) -> Workspace:
    return Workspace.open(runs[name].path.parents[1])


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_with_one_line_that_says_what_it_is_good_for(name: str) -> None:
    lines = (SHIPPED / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert lines[0].endswith(".")
    assert lines[1] == f"project_name: {name}"


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_without_failures_and_keeps_a_share_worth_training_on(runs, name: str) -> None:
    space = space_of(runs, name)
    assert [bar["state"] for bar in funnel(runs[name])] == ["finished"] * len(funnel(runs[name]))
    assert sum(bar["failures"] for bar in funnel(runs[name])) == 0
    counts = describe(space, made(runs[name])).counts
    assert 0.25 * COUNT < counts.kept < 0.8 * COUNT
    recaptioned = {bar["operator"] for bar in funnel(runs[name]) if bar["rewritten"]}
    assert bool(recaptioned & SYNTHESIS_OPERATORS) == load_recipe(space, name).synthesizes


@pytest.mark.parametrize("name", NAMES)
def test_it_throws_out_pictures_that_cannot_be_read(runs, name: str) -> None:
    found = lineage(space_of(runs, name), runs[name])
    broken = [f"{number:06d}" for number in range(COUNT - UNREADABLE, COUNT)]
    assert {found[key][-1][0] for key in broken} == {"image_readable_filter"}


@pytest.mark.parametrize("name", NAMES)
def test_the_pairs_that_it_keeps_agree_better_than_those_it_got(runs, name: str) -> None:
    space = space_of(runs, name)
    rows = [row for row in samples(space, runs[name]).values() if row["width"]]
    root = space.asset("seed_images")

    def median(rows: list) -> float:
        images = [str(root / row["images"][0]) for row in rows]
        scores = sorted(agreement_model(str(TOWER)).scores(images, [row["text"] for row in rows]))
        return float(scores[len(scores) // 2])

    assert median([row for row in rows if row["kept"]]) > median(rows) + 0.02


@pytest.mark.parametrize("name", ["clean", "synthesis"])
def test_it_finds_the_faults_that_were_put_into_the_seed(runs, space, name: str) -> None:
    faults = {key: record["fault"] for key, record in truth(space).items()}
    rows = samples(space, runs[name])

    def share(fault: str) -> float:
        keys = [key for key, value in faults.items() if value == fault]
        untouched = [rows[key]["kept"] and rows[key]["origin"] == "seed" for key in keys]
        return sum(untouched) / len(keys)

    assert share("swapped") < 0.2
    assert share("vague") == share("blurred") == share("tiny") == 0
    assert share("none") > 0.7
    assert all((vagueness(row["text"]) or 0) < 1 for row in rows.values() if row["kept"])


def test_shipped_recipes_come_into_a_workspace_and_stay_as_a_person_left_them(tmp_path: Path):
    workspace = Workspace.create(tmp_path, Settings(name="new"))
    ship_recipes(workspace)
    assert recipe_names(workspace) == NAMES
    changed = workspace.recipes / "clean.yaml"
    changed.write_text("process:\n  - image_readable_filter:\n")
    ship_recipes(workspace)
    assert len(load_recipe(workspace, "clean").steps) == 1
    assert changed.read_text().count("\n") == 2


@pytest.mark.skipif(not REAL_SEED.is_dir(), reason=f"real seed pairs are absent: {REAL_SEED}")
def test_filters_of_the_challenge_run_over_real_pairs(juicer: Juicer, tmp_path: Path) -> None:
    workspace = Workspace.create(
        tmp_path / "real",
        Settings(
            name="real",
            assets={
                "seed_pairs": str(REAL_SEED / "mgm_pretrain_stage_1_300.jsonl"),
                "seed_originals": str(REAL_SEED / "stage_1.json"),
                "seed_images": str(REAL_SEED),
                "vision_tower": str(TOWER),
            },
        ),
    )
    run = juicer.run(workspace, "synthesize", recipe="kit-filters")
    info = describe(workspace, made(run))
    assert info.counts.samples == 300
    assert 100 < info.counts.kept < 150
    assert info.image_root == str(REAL_SEED.resolve())
