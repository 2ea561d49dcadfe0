"""The page of samples: what the URL says is what is shown, and verdicts are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backend.files import append_line, write_json
from backend.synthesis.datasets import samples_schema, write_dataset
from backend.workspace import Settings, Workspace
from store.samples import Filters, sample_ids
from store.verdicts import verdicts
from tests.evaluation.samples import make_run
from tests.explored import COUNT, REWRITTEN, SHORT, add_clean, add_seed, sample, sample_id
from tests.pages.browsing import HOSTILE, markup, sound, visit, words
from tests.seeds import make_workspace as make_seeded

CLEAN = "clean/v1"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = make_seeded(tmp_path_factory.mktemp("pages"), 0)
    add_seed(workspace)
    add_clean(workspace)
    return workspace


def cards(app) -> int:
    return markup(app).count('class="sl-card"')


def test_without_a_dataset_the_page_names_the_one_step(tmp_path: Path, monkeypatch):
    space = Workspace.create(tmp_path / "empty", Settings(name="empty"))
    app = visit("samples", space, monkeypatch)
    assert [button.label for button in app.button] == ["Go to Synthesis"]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_first_page_shows_twelve_cards_and_all_counts(workspace, monkeypatch, lang):
    app = visit("samples", workspace, monkeypatch, lang, dataset=CLEAN)
    assert cards(app) == 12
    assert f"**{COUNT + 1}**" in words(app)


def test_filters_page_and_view_come_from_the_url(workspace, monkeypatch):
    app = visit("samples", workspace, monkeypatch, dataset=CLEAN, f_fate="dropped")
    assert cards(app) == 1
    assert "words_num_filter" in markup(app)
    assert cards(visit("samples", workspace, monkeypatch, dataset=CLEAN, page="2")) == 1
    app = visit("samples", workspace, monkeypatch, dataset=CLEAN, view="table")
    assert (cards(app), len(app.dataframe[0].value)) == (0, 12)


def test_choosing_a_facet_goes_to_the_url_and_back_to_the_first_page(workspace, monkeypatch):
    app = visit("samples", workspace, monkeypatch, dataset=CLEAN, page="2")
    sound(app.get("button_group")[0].set_value(["dropped"]).run())
    assert app.query_params["f_fate"] in ("dropped", ["dropped"])
    assert "page" not in app.query_params
    assert cards(app) == 1


def test_values_in_the_url_that_nobody_knows_do_not_matter(workspace, monkeypatch):
    app = visit("samples", workspace, monkeypatch, dataset=CLEAN, f_fate="x", page="-1",
                sort="nothing", sample="nobody", r_stat_sharp=["x", "y"])  # fmt: skip
    assert cards(app) == 12


def test_an_open_card_shows_differences_lineage_and_limits(workspace, monkeypatch):
    app = visit("samples", workspace, monkeypatch, dataset=CLEAN, sample=sample_id(REWRITTEN))
    html = markup(app)
    assert "<ins> on white</ins>" in html
    assert html.index("words_num_filter</strong>") < html.index("num_words 5 &gt;= 3")
    assert "≥ 3" in html


def test_what_decided_over_a_dropped_sample_is_told(workspace, monkeypatch):
    app = visit("samples", workspace, monkeypatch, dataset=CLEAN, sample=sample_id(SHORT))
    assert "num_words 2 &lt; 3" in markup(app)


def test_a_verdict_is_kept_and_taken_back(workspace, monkeypatch):
    app = visit("samples", workspace, monkeypatch, dataset=CLEAN, sample=sample_id(1))
    sound(app.button(key="verdict-bad").click().run())
    assert verdicts(workspace, CLEAN) == {sample_id(1): "bad"}
    sound(app.button(key="verdict-bad").click().run())
    assert verdicts(workspace, CLEAN) == {}


def test_closing_a_card_takes_it_out_of_the_url(workspace, monkeypatch):
    app = visit("samples", workspace, monkeypatch, dataset=CLEAN, sample=sample_id(1))
    close = next(button for button in app.button if button.label == "Close")
    sound(close.click().run())
    assert "sample" not in app.query_params


def test_hostile_text_stays_text(tmp_path: Path, monkeypatch):
    space = make_seeded(tmp_path, 0)
    add_seed(space, 1)
    row = sample(space, 0, text=HOSTILE, question=HOSTILE, operator=HOSTILE, origin="synthesized",
                 images=["../../etc/passwd"])  # fmt: skip
    table = pa.Table.from_pylist([row], samples_schema())
    reference = write_dataset(space, "bad", [table], image_root=space.asset("seed_images"),
                              source=HOSTILE, source_hash="0")  # fmt: skip
    app = visit("samples", space, monkeypatch, dataset=reference, sample=sample_id(0))
    assert "<script" not in markup(app)
    assert "<img src=x" not in markup(app)
    assert "leads out of" in markup(app)
    labels = [option for group in app.get("button_group") for option in group.options]
    assert not any("**bold**" in str(label) for label in labels)


def test_a_sample_leads_to_the_steps_that_trained_it_and_a_step_to_its_samples(
    tmp_path: Path, monkeypatch
):
    space = make_seeded(tmp_path, 0)
    add_seed(space)
    prepared = make_run(space, "prepare", "1-prepare", dataset="seed/v1")
    root = str(space.asset("seed_images"))
    write_json(prepared.artifacts / "prepared.json", {"dataset": "seed/v1", "image_root": root})
    run = make_run(space, "pretrain", "2-pretrain", data="1-prepare")
    (run.path / "batches").mkdir()
    rows = {"step": [7, 7, 9], "sample_id": [sample_id(0), sample_id(1), sample_id(0)],
            "loss": [1.5, 4.0, 1.25], "attempt": [1, 1, 1]}  # fmt: skip
    pq.write_table(pa.table(rows), run.path / "batches" / "part-0.parquet")
    append_line(run.metrics_path, {"step": 9, "loss": 2.0})
    card = visit("samples", space, monkeypatch, dataset="seed/v1", sample=sample_id(0))
    links = {link.proto.label: link.proto.query_string for link in card.get("page_link")}
    assert links["Step 9: loss 1.25"] == f"run={run.id}&view=samples&step=9"
    batch = visit("runs", space, monkeypatch, run=run.id, view="samples", step="7")
    assert "2 samples, mean loss 2.75, highest 4" in words(batch)
    assert markup(batch).index("Loss 4") < markup(batch).index("Loss 1.50")
    assert "No training run" in markup(
        visit("samples", space, monkeypatch, dataset="seed/v1", sample=sample_id(2))
    )


def test_words_of_a_question_lead_to_the_samples_most_like_it(workspace, monkeypatch):
    app = visit("samples", workspace, monkeypatch, dataset=CLEAN, like="tiny square and a line")
    assert "a tiny square and a line" in markup(app).split("sl-card")[1]


def test_exported_lines_are_those_that_pass(workspace):
    from store.samples import data_juicer_lines

    chosen = sample_ids(workspace, CLEAN, Filters(fate="dropped"))
    [line] = data_juicer_lines(workspace, CLEAN, chosen).splitlines()
    assert json.loads(line)["id"] == sample_id(SHORT)
