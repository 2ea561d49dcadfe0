"""The page of synthesis: recipes, previews, funnels, quality, analyses and checks."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from backend.files import write_json
from backend.runs import ProcessIdentity, RunStatus, State
from backend.synthesis.catalogue import (
    Catalogue,
    OperatorEntry,
    OperatorParameter,
    catalogue_path,
    catalogue_version,
)
from backend.workspace import Workspace
from pages.widgets.score_charts import funnel, quality
from store.funnel import FunnelStep
from store.statistics import Histogram
from tests.evaluation.samples import make_run
from tests.explored import COUNT, RECIPE, add_clean, add_seed
from tests.pages.browsing import HOSTILE, markup, sound, visit, words
from tests.seeds import make_workspace as make_seeded

RUN = "20261124-000000-synthesize-a"


def write_catalogue(space: Workspace) -> None:
    """What Data-Juicer would say of two operators, as its child process leaves it."""
    limit = {"name": "min_num", "type": "int", "default": 1, "required": False, "help": "Words."}
    unlimited = {**limit, "name": "max_num", "default": 2**63 - 1}
    text = {**limit, "name": "lang", "type": "str", "default": "en"}
    entries = [
        {"name": name, "type": kind, "tags": ["cpu", "text"], "summary": f"About {name}.",
         "documentation": HOSTILE, "parameters": [limit, unlimited, text], "missing": [],
         "origin": "data-juicer", "synthesizes": False}
        for name, kind in (("words_num_filter", "filter"),
                           ("whitespace_normalization_mapper", "mapper"))
    ]  # fmt: skip
    values = {"version": catalogue_version(), "operators": entries, "common_parameters": []}
    write_json(catalogue_path(space), values)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    space = make_seeded(tmp_path, 0)
    add_seed(space)
    write_catalogue(space)
    (space.recipes / "mine.yaml").write_text(RECIPE)
    return space


def steps(app) -> list[str]:
    return [b.label.split(" ", 1)[1] for b in app.button if str(b.key or "").startswith("step-")]


def test_the_catalogue_of_these_tests_has_the_real_form():
    fields = set(OperatorEntry.__dataclass_fields__) | set(OperatorParameter.__dataclass_fields__)
    assert {"summary", "required"} <= fields
    assert set(Catalogue.__dataclass_fields__) == {"operators", "common_parameters"}


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_recipe_is_shown_as_an_ordered_list_with_documentation(workspace, monkeypatch, lang):
    app = visit("synthesis", workspace, monkeypatch, lang, recipe="mine")
    assert len(steps(app)) == 2
    shown = [block.value for block in app.text]
    assert "About words_num_filter." in shown
    assert HOSTILE in shown


def test_templates_say_what_they_are_good_for(workspace, monkeypatch):
    app = visit("synthesis", workspace, monkeypatch, part="recipe")
    captions = app.radio[0].proto.captions
    assert len(captions) == len(app.radio[0].options) >= 3
    assert all(captions)


def test_an_edited_recipe_is_saved_under_a_new_name(workspace, monkeypatch):
    app = visit("synthesis", workspace, monkeypatch, recipe="mine")
    sound(app.button(key="arrow_downward-0").click().run())
    assert steps(app)[1].startswith("words")
    number = next(n for n in app.number_input if n.label == "min\\_num")
    sound(number.set_value(7).run())
    app.text_input(key="recipe-name").set_value("mine-2").run()
    sound(next(b for b in app.button if b.label == "Save").click().run())
    text = (workspace.recipes / "mine-2.yaml").read_text()
    assert text.index("whitespace") < text.index("words_num_filter:\n    min_num: 7")
    assert (workspace.recipes / "mine.yaml").read_text() == RECIPE
    assert app.radio[0].value == "mine-2"


def test_the_list_counts_what_the_latest_run_of_the_recipe_left(workspace, monkeypatch):
    run = make_run(workspace, "synthesize", RUN, recipe="mine", dataset="seed/v1")
    known = (("words_num_filter", 1200, 11), ("other", 9, 8))
    entries = [{"operator": name, "state": "finished", "before": before, "after": after}
               for name, before, after in known]  # fmt: skip
    write_json(run.artifacts / "funnel.json", entries)
    app = visit("synthesis", workspace, monkeypatch, recipe="mine", part="recipe")
    first, second = steps(app)
    assert first.endswith(":gray[1,200 → 11]")
    assert "→" not in second


def test_a_taken_name_is_refused_with_a_remedy(workspace, monkeypatch):
    app = visit("synthesis", workspace, monkeypatch, recipe="mine")
    app.text_input(key="recipe-name").set_value("clean").run()
    sound(next(b for b in app.button if b.label == "Save").click().run())
    assert "Choose another name" in app.error[0].value


def test_a_preview_marks_what_was_dropped_and_rewritten(workspace, monkeypatch):
    run = make_run(workspace, "synthesize", RUN, recipe="mine", preview=20)
    entry = {"sample_id": "a", "source_id": "a", "images": ["images/000000001.png"],
             "before": "a red dog", "after": "a big dog", "kept": True, "state": "rewritten",
             "operator": HOSTILE, "reason": HOSTILE, "stats": {}, "events": []}  # fmt: skip
    dropped = {**entry, "state": "dropped", "before": HOSTILE, "kept": False, "images": []}
    root = str(workspace.asset("seed_images"))
    write_json(run.artifacts / "preview.json", {"image_root": root, "samples": [entry, dropped]})
    html = markup(visit("synthesis", workspace, monkeypatch, recipe="mine", part="recipe"))
    assert "<del>red</del>" in html and "<ins>big</ins>" in html
    assert "<script" not in html and "<img src=x" not in html
    assert "data:image/webp" in html


def test_a_running_synthesis_shows_its_funnel(workspace, monkeypatch):
    run = make_run(workspace, "synthesize", RUN, recipe="mine", dataset="seed/v1")
    alive = ProcessIdentity.of(os.getpid())
    status = RunStatus(state=State.RUNNING, started_at=1, child=alive, supervisor=alive)
    write_json(run.status_path, status.model_dump(mode="json", exclude={"supervised"}))
    entry = {"operator": "words_num_filter", "state": "finished", "before": 12, "after": 11,
             "failures": 2, "examples": [HOSTILE]}  # fmt: skip
    write_json(run.artifacts / "funnel.json",
               [entry, {"operator": "b", "state": "running", "before": 11}])  # fmt: skip
    app = visit("synthesis", workspace, monkeypatch)
    assert app.query_params.get("part") is None
    assert len(app.get("plotly_chart")) >= 1
    assert "2 samples on which an operator failed" in [e.label for e in app.expander]


def test_a_finished_synthesis_shows_quality_and_leads_to_its_samples(workspace, monkeypatch):
    run = make_run(workspace, "synthesize", RUN, recipe="mine", dataset="seed/v1")
    reference = add_clean(workspace, run_id=run.id)
    write_json(run.artifacts / "dataset.json", {"dataset": reference})
    app = visit("synthesis", workspace, monkeypatch, part="runs")
    assert [metric.value for metric in app.metric][:4] == [str(COUNT + 1), str(COUNT), "1", "2"]
    assert len(app.get("plotly_chart")) >= 6
    links = [link.proto.query_string for link in app.get("page_link")]
    assert "dataset=clean%2Fv1" in links


def test_analyses_and_checks_show_their_results(workspace, monkeypatch):
    run = make_run(workspace, "analyze", "20261124-000000-analyze-a", dataset="seed/v1")
    statistic = {"p50": 5.0, "histogram": {"edges": [0, 5, 10], "counts": [2, 10]}}
    summary = {"dataset": "seed/v1", "samples": 12, "statistics": {"n_words": statistic}}
    write_json(run.artifacts / "summary.json", summary)
    app = visit("synthesis", workspace, monkeypatch, part="analyze")
    assert app.metric[0].value == "12"
    assert app.metric[1].value == "–"
    assert "Median 5" in words(app)
    run = make_run(workspace, "verify", "20261124-000000-verify-a", dataset="seed/v1")
    check = {"name": "data_repeated", "state": "warning", "count": 1, "total": 12,
             "examples": [{"sample_id": HOSTILE, "detail": HOSTILE}], "values": {}}  # fmt: skip
    write_json(run.artifacts / "verification.json", [check])
    html = markup(visit("synthesis", workspace, monkeypatch, part="verify"))
    assert "No pair is repeated" in html and "<script" not in html


def test_before_any_synthesis_the_page_names_the_one_step(workspace, monkeypatch):
    app = visit("synthesis", workspace, monkeypatch, part="runs")
    sound(next(b for b in app.button if b.label == "Recipe").click().run())
    assert steps(app)


def test_a_recipe_that_recaptions_asks_for_a_checkpoint_and_takes_the_newest(
    workspace, monkeypatch
):
    def preview_button(app):
        return next(b for b in app.button if b.label == "Preview 20 samples")

    app = visit("synthesis", workspace, monkeypatch, recipe="synthesis", part="recipe")
    assert preview_button(app).disabled
    assert "Run the baseline first" in app.info[0].value
    for name in ("20261124-000000-finetune-old", "20261124-000001-finetune-new"):
        run = make_run(workspace, "finetune", name)
        write_json(run.artifacts / "config.json", {})
    app = visit("synthesis", workspace, monkeypatch, recipe="synthesis", part="recipe")
    assert not preview_button(app).disabled
    assert app.selectbox(key="preview-captioner").value == "20261124-000001-finetune-new"
    assert any("captioner=20261124-000001-finetune-new" in block.value for block in app.code)


def test_a_statistic_over_powers_of_ten_has_bars_of_one_width():
    edges = np.geomspace(1, 1000, 31)
    ours = np.zeros(30)
    ours[[0, 29]] = 0.5
    figure = quality(Histogram("sharpness", edges, ours, np.zeros(30), 5.0, None, None), "", "", "")
    assert list(figure.data[0].x) == list(range(30))
    assert figure.layout.xaxis.ticktext[0] == "1"
    constant = np.zeros(30)
    constant[3] = 1.0
    figure = quality(Histogram("side", edges, constant, np.zeros(30), 2.0, None, None), "", "", "")
    assert len(figure.data[0].x) > 5
    assert max(figure.data[0].y) == 100


def test_the_funnel_tells_what_was_dropped_created_and_rewritten():
    step = FunnelStep("m", "finished", before=10, after=11, rewritten=4, created=3)
    assert funnel([step]).data[0].text == ("11  (-2, +3, 4 rewritten)",)
    still = FunnelStep("f", "finished", before=10, after=10, dropped=0, rewritten=0, created=0)
    assert funnel([still]).data[0].text == ("10",)
