"""The page that compares: differences, how sure they are, and the questions behind them."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.files import read_json, write_json
from backend.runs import Run
from backend.workspace import Settings, Workspace
from tests.explored import BASELINE, CANDIDATE, explored
from tests.pages.browsing import markup, sound, visit, words


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return explored(tmp_path_factory.mktemp("compare"))


def test_with_less_than_two_runs_the_page_names_the_one_step(tmp_path: Path, monkeypatch):
    space = Workspace.create(tmp_path / "empty", Settings(name="empty"))
    app = visit("compare", space, monkeypatch)
    assert app.button(key="empty-step").label == "Go to Evaluation"


def test_differences_to_the_older_run_are_told_in_words_and_figures(workspace, monkeypatch):
    app = visit("compare", workspace, monkeypatch)
    said = words(app)
    assert "better is 100\\.0 points better than base" in said
    assert "no clear difference" in said
    assert "+66.7" in markup(app)


def test_another_baseline_turns_the_signs(workspace, monkeypatch):
    app = visit("compare", workspace, monkeypatch, baseline=CANDIDATE)
    assert "base is 100\\.0 points worse than better" in words(app)


def test_sentences_follow_the_language(workspace, monkeypatch):
    assert "better 比 base 高" in words(visit("compare", workspace, monkeypatch, "zh"))


def test_all_figures_are_drawn(workspace, monkeypatch):
    app = visit("compare", workspace, monkeypatch)
    assert len(app.get("plotly_chart")) == 3


def test_won_and_lost_questions_lead_to_training_samples(tmp_path: Path, monkeypatch):
    space = explored(tmp_path)
    path = space.runs / "20261124-000000-prepare-better" / "run.json"
    write_json(path, read_json(path) | {"parameters": {"dataset": "clean/v1"}})
    app = visit("compare", space, monkeypatch, which="won")
    assert markup(app).count('class="sl-card"') == 4
    links = [link.proto.query_string for link in app.get("page_link")]
    assert any("dataset=clean%2Fv1" in link and "like=" in link for link in links)
    lost = visit("compare", space, monkeypatch, which="lost")
    assert "No question was lost" in words(lost)


def test_scores_of_different_contracts_are_called_out(tmp_path: Path, monkeypatch):
    space = explored(tmp_path)
    path = Run(space.runs / CANDIDATE).artifacts / "scores.json"
    scores = read_json(path)
    scores["textvqa"]["contract"]["ocr_tokens"] = False
    write_json(path, scores)
    app = visit("compare", space, monkeypatch)
    assert "ocr\\_tokens" in app.warning[0].value


def test_differing_parameters_are_listed(workspace, monkeypatch):
    app = visit("compare", workspace, monkeypatch)
    table = app.dataframe[0].value
    assert list(table.columns[2:]) == ["base", "better"]
    assert table.iloc[0, 2:].tolist() == ["base/v1", "better/v1"]


def test_trainings_are_compared_by_their_loss(workspace, monkeypatch):
    runs = ["20261124-000000-pretrain-base", "20261124-000000-pretrain-better"]
    app = visit("compare", workspace, monkeypatch, runs=runs)
    assert len(app.get("plotly_chart")) == 1
    assert "1.20" in markup(app)


def test_one_run_alone_asks_for_another(workspace, monkeypatch):
    app = visit("compare", workspace, monkeypatch)
    sound(app.multiselect(key="runs").set_value([BASELINE]).run())
    assert "at least two" in words(app)


def test_the_plot_by_category_opens_on_a_benchmark_that_has_some(tmp_path: Path, monkeypatch):
    space = explored(tmp_path)
    path = space.runs / BASELINE / "artifacts" / "scores.json"
    scores = read_json(path)
    scores["textvqa"]["categories"] = {"default": {"score": 50.0, "n": 4}}
    write_json(path, scores)
    app = visit("compare", space, monkeypatch)
    assert app.button_group(key="metric").value == "mmbench"
