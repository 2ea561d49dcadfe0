"""The way of a sample, the funnel, and how statistics are spread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backend.files import write_json
from backend.workspace import Workspace
from store.datasets import dataset_row
from store.funnel import dataset_funnel, run_funnel
from store.lineage import lineage
from store.samples import samples
from store.statistics import histograms, spread, telling
from tests.evaluation.samples import make_run
from tests.explored import COUNT, CREATED_FROM, REWRITTEN, SHORT, add_clean, add_seed, sample_id
from tests.seeds import caption
from tests.seeds import make_workspace as make_seeded
from tests.store.conftest import among_patterns


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = make_seeded(among_patterns(tmp_path_factory.mktemp("lineage")), 0)
    add_seed(workspace)
    add_clean(workspace)
    return workspace


def actions(workspace: Workspace, sample: str) -> list[tuple[str, str]]:
    return [(step.operator, step.action) for step in lineage(workspace, "clean/v1", sample)]


def test_a_dropped_sample_tells_the_statistic_that_decided(workspace: Workspace):
    [step] = lineage(workspace, "clean/v1", sample_id(SHORT))
    assert (step.action, step.reason, step.before) == ("dropped", "num_words 2 < 3", "a  circle")


def test_a_rewritten_sample_tells_both_texts(workspace: Workspace):
    step = lineage(workspace, "clean/v1", sample_id(REWRITTEN))[-1]
    assert (step.before, step.after) == (caption(REWRITTEN), caption(REWRITTEN) + " on white")


def test_a_created_sample_goes_on_with_what_it_was_made_from(workspace: Workspace):
    assert actions(workspace, f"{sample_id(CREATED_FROM)}~2") == [
        ("words_num_filter", "kept"),
        ("whitespace_normalization_mapper", "created"),
    ]


def test_a_sample_that_nobody_touched_has_no_steps(workspace: Workspace):
    assert lineage(workspace, "seed/v1", sample_id(1)) == []


def test_the_funnel_of_a_version_is_its_operators(workspace: Workspace):
    steps = dataset_funnel(dataset_row(workspace, "clean/v1"))
    assert [(step.before, step.after) for step in steps] == [(COUNT, COUNT - 1), (COUNT - 1, COUNT)]


def test_counts_of_an_unfinished_operator_are_unknown(workspace: Workspace):
    run = make_run(workspace, "synthesize", "20261124-000000-synthesize-f")
    assert run_funnel(run) == []
    entry = {"operator": "a", "state": "running", "before": 9, "after": None, "dropped": 0}
    write_json(run.artifacts / "funnel.json", [entry, {"operator": "b"}])
    first, second = run_funnel(run)
    assert (first.before, first.dropped, second.state) == (9, None, "waiting")


def test_a_funnel_that_is_being_written_is_empty(workspace: Workspace):
    run = make_run(workspace, "synthesize", "20261124-000000-synthesize-g")
    (run.artifacts / "funnel.json").parent.mkdir(exist_ok=True)
    (run.artifacts / "funnel.json").write_text("[{")
    assert run_funnel(run) == []


def test_histograms_compare_with_the_seed_or_what_the_version_began_with(workspace: Workspace):
    found = {h.name: h for h in histograms(workspace, "clean/v1", "seed/v1", most=9)}
    assert found["n_words"].compared_with == "seed/v1"
    # The seed has no such statistic: all samples before dropping count instead.
    assert found["stat_num_words"].compared_with == "clean/v1"
    assert found["stat_num_words"].ours.sum() == pytest.approx(1)
    assert found["width"].shift == 0


def test_an_analysis_of_the_seed_is_what_a_version_is_compared_with(tmp_path: Path):
    workspace = make_seeded(tmp_path, 0)
    add_seed(workspace)
    add_clean(workspace)
    run = make_run(workspace, "analyze", "20261124-000000-analyze-s", dataset="seed/v1")
    run.artifacts.mkdir(exist_ok=True)
    table = pa.table({"sample_id": ["a", "b"], "sharp": [100.0, 200.0]})
    pq.write_table(table, run.artifacts / "statistics.parquet")
    first = histograms(workspace, "clean/v1", "seed/v1")[0]
    assert (first.name, first.compared_with, first.their_median) == ("stat_sharp", "seed/v1", 150)
    assert first.shift == pytest.approx(1)


def test_the_telling_statistics_are_the_unusual_ones(workspace: Workspace):
    spreads = spread(workspace, "clean/v1")
    [last] = samples(workspace, "clean/v1", [sample_id(COUNT - 1)])
    assert telling(last, spreads, 1) == [("stat_sharp", 8.0 + COUNT)]
    assert np.isfinite([number for pair in spreads.values() for number in pair]).all()
