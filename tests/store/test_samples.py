"""Samples as pages, facets, neighbors and exported lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.errors import InputError, UsageError
from backend.workspace import Workspace
from store.datasets import dataset_row, dataset_rows, open_dataset, seed_of
from store.samples import (
    NONE,
    Filters,
    Range,
    Sort,
    column_limits,
    data_juicer_lines,
    facets,
    sample_ids,
    sample_page,
    samples,
    samples_like,
    similar_samples,
)
from store.verdicts import add_verdict, verdicts
from tests.explored import COUNT, CREATED_FROM, REWRITTEN, SHORT, add_clean, add_seed, sample_id
from tests.seeds import caption, pair
from tests.seeds import make_workspace as make_seeded
from tests.store.conftest import among_patterns

CLEAN = "clean/v1"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = make_seeded(among_patterns(tmp_path_factory.mktemp("samples")), 0)
    add_seed(workspace)
    add_clean(workspace)
    return workspace


def ids(workspace: Workspace, **filters: object) -> list[str]:
    return sample_ids(workspace, CLEAN, Filters(**filters))


def test_pages_together_are_the_whole_in_the_file_s_order(workspace: Workspace):
    pages = [sample_page(workspace, CLEAN, Filters(), page=n, size=5) for n in (1, 2, 3)]
    found = [i for page in pages for i in page.rows["sample_id"].to_pylist()]
    assert [page.total for page in pages] == [COUNT + 1] * 3
    assert found == [*map(sample_id, range(COUNT)), f"{sample_id(CREATED_FROM)}~2"]


def test_fate_origin_and_operator_filter(workspace: Workspace):
    made = f"{sample_id(CREATED_FROM)}~2"
    assert ids(workspace, fate="dropped") == [sample_id(SHORT)]
    assert ids(workspace, dropped_by=("words_num_filter",)) == [sample_id(SHORT)]
    assert ids(workspace, origin=("synthesized",)) == [sample_id(REWRITTEN), made]
    assert len(ids(workspace, operator=(NONE,))) == COUNT - 1


def test_ranges_include_both_limits_and_leave_unknown_values_out(workspace: Workspace):
    assert ids(workspace, ranges=(Range("stat_sharp", 10.0, 11.0),)) == [sample_id(1), sample_id(2)]
    assert len(ids(workspace, ranges=(Range("stat_sharp", 0.0, None),))) == COUNT


def test_search_finds_text_whatever_its_case_and_exact_ids(workspace: Workspace):
    assert ids(workspace, search=" ON White ") == [sample_id(REWRITTEN)]
    by_source = ids(workspace, search=sample_id(CREATED_FROM))
    assert by_source == [sample_id(CREATED_FROM), f"{sample_id(CREATED_FROM)}~2"]


@pytest.mark.parametrize("search", ["%", "_", "' OR 1=1 --", '"; DROP TABLE samples', "\\"])
def test_signs_of_sql_are_only_text(workspace: Workspace, search: str):
    assert ids(workspace, search=search) == []
    assert len(ids(workspace)) == COUNT + 1


def test_sorting_puts_unknown_values_last_both_ways(workspace: Workspace):
    for descending, first in ((False, 0), (True, COUNT - 1)):
        page = sample_page(workspace, CLEAN, Filters(), Sort("stat_sharp", descending))
        found = page.rows["sample_id"].to_pylist()
        assert (found[0], found[-1]) == (sample_id(first), f"{sample_id(CREATED_FROM)}~2")


def test_what_is_no_page_or_column_is_refused(workspace: Workspace):
    with pytest.raises(UsageError):
        sample_page(workspace, CLEAN, Filters(), page=0)
    with pytest.raises(UsageError, match="no such column"):
        sample_page(workspace, CLEAN, Filters(), Sort('x" DESC; DROP TABLE y; --'))
    with pytest.raises(UsageError, match="no dataset version"):
        sample_page(workspace, "clean/v9", Filters())


def test_facets_count_under_the_other_filters_only(workspace: Workspace):
    found = facets(workspace, CLEAN, Filters(fate="dropped"))
    assert found["fate"] == [("kept", COUNT), ("dropped", 1)]
    assert found["origin"] == [("seed", 1)]
    assert found["dropped_by"] == [("words_num_filter", 1)]


def test_verdicts_are_shown_counted_and_filtered(tmp_path: Path):
    workspace = make_seeded(tmp_path, 0)
    add_seed(workspace, 3)
    for number, verdict in ((0, "bad"), (1, "good"), (0, "unsure"), (1, None)):
        add_verdict(workspace, "seed/v1", sample_id(number), verdict)
    assert verdicts(workspace, "seed/v1") == {sample_id(0): "unsure"}
    assert verdicts(workspace, "clean/v1") == {}
    page = sample_page(workspace, "seed/v1", Filters(verdict=("unsure",)))
    assert page.rows["verdict"].to_pylist() == ["unsure"]
    assert facets(workspace, "seed/v1", Filters())["verdict"] == [("unsure", 1)]
    with pytest.raises(UsageError, match="no such verdict"):
        add_verdict(workspace, "seed/v1", sample_id(0), "great")


def test_a_torn_line_of_verdicts_leaves_the_earlier_ones(tmp_path: Path):
    workspace = make_seeded(tmp_path, 0)
    add_verdict(workspace, "seed/v1", "a", "good")
    with (workspace.root / "verdicts.jsonl").open("a") as file:
        file.write("{nonsense}\n")
    assert verdicts(workspace, "seed/v1") == {"a": "good"}


def test_limits_are_those_of_the_columns(workspace: Workspace):
    found = column_limits(workspace, CLEAN)
    assert found["stat_sharp"] == (9.0, 8.0 + COUNT)
    assert next(iter(found)) == "stat_num_words"


def test_the_same_source_or_picture_comes_first_then_common_words(workspace: Workspace):
    found = similar_samples(workspace, CLEAN, sample_id(CREATED_FROM), 3)
    assert found[0]["sample_id"] == f"{sample_id(CREATED_FROM)}~2"
    # Words of fewer than three letters, the numbers, do not count.
    assert [row["sample_id"] for row in found[1:2]] == [sample_id(CREATED_FROM - 6)]
    assert found[2]["similarity"] < 1
    assert sample_id(CREATED_FROM) not in [row["sample_id"] for row in found]


def test_likeness_is_the_share_of_common_words(workspace: Workspace):
    best = samples_like(workspace, "seed/v1", "RED square!", 1)[0]
    # "red square number": two of three words in common.
    assert best["text"].startswith("a red square")
    assert best["similarity"] == pytest.approx(2 / 3)
    assert samples_like(workspace, "seed/v1", "?? of ??") == []


def test_exported_lines_have_the_seed_s_form(workspace: Workspace):
    lines = data_juicer_lines(workspace, CLEAN, [sample_id(2), f"{sample_id(CREATED_FROM)}~2"])
    first, second = map(json.loads, lines.splitlines())
    assert first == pair(2, caption(2))
    assert second["id"] == sample_id(CREATED_FROM)


def test_samples_come_in_the_order_asked_for(workspace: Workspace):
    found = samples(workspace, CLEAN, [sample_id(4), "unknown", sample_id(1)])
    assert [row["sample_id"] for row in found] == [sample_id(4), sample_id(1)]


def test_versions_know_what_they_go_back_to(workspace: Workspace):
    assert {row.reference for row in dataset_rows(workspace)} == {"seed/v1", CLEAN}
    assert (seed_of(workspace, CLEAN), seed_of(workspace, "seed/v1")) == ("seed/v1", None)
    row = dataset_row(workspace, CLEAN)
    assert (row.samples, row.kept, row.dropped) == (COUNT + 1, COUNT, 1)


def test_a_broken_description_is_told_and_the_other_versions_stay(tmp_path: Path):
    workspace = make_seeded(tmp_path, 0)
    add_seed(workspace, 2)
    folder = workspace.datasets / "broken" / "v1"
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text("{torn")
    found = {row.reference: row.problem for row in dataset_rows(workspace)}
    assert found["seed/v1"] is None
    assert found["broken/v1"]
    with pytest.raises(InputError, match="does not exist"):
        open_dataset(workspace, "broken/v1")
    (folder / "samples.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(InputError, match="cannot be read"):
        open_dataset(workspace, "broken/v1")


def test_more_versions_than_are_kept_open_can_be_read_in_turn(tmp_path: Path):
    workspace = make_seeded(tmp_path, 0)
    references = [add_seed(workspace, count) for count in (1, 2, 3, 4)]
    for _ in range(2):
        totals = [sample_page(workspace, name, Filters()).total for name in references]
        assert totals == [1, 2, 3, 4]
