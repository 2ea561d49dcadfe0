"""What `analyze` says of a seed with known faults."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from backend.files import read_json
from backend.runs import Run
from backend.stages import analyze
from backend.stages.base import StopRequested
from backend.synthesis.agreement import AgreementModel
from backend.synthesis.catalogue import catalogue_path, load_catalogue
from backend.synthesis.statistics import EDGES
from backend.workspace import Workspace
from tests.seeds import make_workspace, stage_context
from tests.starter.small import TOWER, UNREADABLE, small_starter, truth

COUNT = 92


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return small_starter(tmp_path_factory.mktemp("analyze") / "workspace", COUNT)


def analyzed(space: Workspace, **parameters) -> Run:
    context = stage_context(space, "analyze", **parameters)
    analyze.main(context, analyze.Parameters(**parameters))
    return context.run


@pytest.fixture(scope="module")
def run(space: Workspace) -> Run:
    return analyzed(space)


def test_the_faults_of_the_seed_are_counted(space, run):
    summary = read_json(run.artifacts / "summary.json")
    faults = [record["fault"] for record in truth(space).values()]
    assert (summary["dataset"], summary["samples"]) == ("seed/v1", COUNT)
    assert summary["unreadable_images"] == UNREADABLE
    vague = faults.count("vague")
    # A pair whose picture is broken may be vague as well.
    assert vague <= summary["vague_captions"] <= vague + UNREADABLE
    assert 0 < summary["duplicate_images"] <= faults.count("duplicate") + 1
    figures = summary["statistics"]["min_side"]
    assert (figures["count"], figures["unknown"]) == (COUNT - UNREADABLE, UNREADABLE)
    assert (figures["min"], figures["max"]) == (24, 160)


def test_every_sample_has_its_statistics_and_nothing_unknown_is_zero(space, run):
    table = pq.read_table(run.artifacts / "statistics.parquet")
    rows = {row["sample_id"]: row for row in table.to_pylist()}
    assert set(rows) == set(truth(space))
    for key, row in rows.items():
        known = row["image_problem"] is None
        assert known == (int(key) < COUNT - UNREADABLE)
        for name in ("min_side", "aspect", "sharpness", "agreement"):
            assert (row[name] is not None) == known
    swapped = [rows[k]["agreement"] for k, r in truth(space).items() if r["fault"] == "swapped"]
    right = [rows[k]["agreement"] for k, r in truth(space).items() if r["fault"] == "none"]
    assert sorted(swapped)[len(swapped) // 2] < min(right)


def test_agreement_is_the_towers_cosine(space, run):
    row = pq.read_table(run.artifacts / "statistics.parquet").slice(0, 1).to_pylist()[0]
    model = AgreementModel(TOWER)
    image = str(space.asset("seed_images") / "images/000/000000.jpg")
    text = next(iter(pq.read_table(space.dataset("seed/v1") / "samples.parquet")["text"])).as_py()
    (score,) = model.scores([image], [text])
    assert row["agreement"] == pytest.approx(float(score), abs=1e-5)
    assert model.embed_images([image])[0] @ model.embed_captions([text])[0] == pytest.approx(score)


def test_histograms_hold_every_known_value(run):
    for name, figures in read_json(run.artifacts / "summary.json")["statistics"].items():
        assert figures["histogram"]["edges"] == pytest.approx(list(EDGES[name]))
        assert sum(figures["histogram"]["counts"]) == figures["count"]
        assert figures["min"] <= figures["p5"] <= figures["p50"] <= figures["p95"] <= figures["max"]


def test_the_page_finds_the_operators_that_a_recipe_may_use(space, run):
    catalogue = load_catalogue(space)
    assert catalogue is not None
    ours = {name for name, entry in catalogue.operators.items() if entry.origin == "synthloop"}
    assert "checkpoint_captioning_mapper" in ours
    assert len(catalogue.operators) > 200
    entry = catalogue.operators["checkpoint_captioning_mapper"]
    assert (entry.type, entry.synthesizes) == ("mapper", True)
    assert {p.name for p in entry.parameters} >= {"checkpoint", "lowest_share", "keep_better"}
    assert all(p.help for p in entry.parameters if p.name not in ("args", "kwargs"))
    assert catalogue.operators["image_face_count_filter"].missing == ("cv2",)


def plain_workspace(root: Path, space: Workspace) -> Workspace:
    """A few pairs without a tower; the operators' catalogue is known already."""
    workspace = make_workspace(root, 4)
    catalogue_path(workspace).parent.mkdir(exist_ok=True)
    shutil.copy(catalogue_path(space), catalogue_path(workspace))
    return workspace


def test_without_a_tower_the_agreement_is_unknown(tmp_path, space, run):
    space = plain_workspace(tmp_path, space)
    (problem,) = analyze.preflight(space, analyze.Parameters())
    assert (problem.level, problem.code) == ("warning", "agreement_unknown")
    run = analyzed(space)
    figures = read_json(run.artifacts / "summary.json")["statistics"]["agreement"]
    assert (figures["count"], figures["unknown"], figures["mean"]) == (0, 4, None)


def test_it_stops_when_asked(tmp_path, space, run):
    context = stage_context(plain_workspace(tmp_path, space), "analyze")
    context.stop_requested = True
    with pytest.raises(StopRequested):
        analyze.main(context, analyze.Parameters(agreement=False))
    assert not (context.artifacts / "summary.json").exists()
