"""The page of evaluations: scores with their contract, answers with their pictures."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from backend.files import write_json
from backend.runs import Run, RunStatus, State
from backend.workspace import Settings, Workspace
from tests.evaluation.samples import make_run, write_lines
from tests.explored import BASELINE, CANDIDATE, explored
from tests.pages.browsing import HOSTILE, markup, sound, visit, words


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return explored(tmp_path_factory.mktemp("evaluation"))


def cards(app) -> int:
    return markup(app).count('class="sl-card"')


def test_without_a_checkpoint_the_page_names_the_one_step(tmp_path: Path, monkeypatch):
    space = Workspace.create(tmp_path / "empty", Settings(name="empty"))
    app = visit("evaluation", space, monkeypatch)
    assert app.button(key="empty-step").label == "Go to Training"


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_score_never_stands_without_interval_and_contract(workspace, monkeypatch, lang):
    app = visit("evaluation", workspace, monkeypatch, lang, run=BASELINE)
    assert [metric.value for metric in app.metric] == ["33.3", "0.0", "0.0"]
    assert all("95%" in metric.delta for metric in app.metric)
    assert "sha256 000000000000" in words(app)


def test_outcomes_filter_the_questions(workspace, monkeypatch):
    for outcome, count in (("", 6), ("wrong", 4), ("right", 2)):
        app = visit("evaluation", workspace, monkeypatch, run=BASELINE, outcome=outcome)
        assert cards(app) == count
    app = visit("evaluation", workspace, monkeypatch, run=CANDIDATE, outcome="wrong")
    assert cards(app) == 0
    assert "No question passes" in words(app)


def test_a_card_shows_picture_answer_gold_and_prompt(workspace, monkeypatch):
    app = visit("evaluation", workspace, monkeypatch, run=BASELINE, benchmark="mmbench")
    html = markup(app)
    assert html.count("data:image/webp") == 12
    assert "A. blue" in html or "A. red" in html
    assert "<details" in html


def test_the_benchmark_chosen_goes_to_the_url(workspace, monkeypatch):
    app = visit("evaluation", workspace, monkeypatch, run=BASELINE)
    group = next(g for g in app.get("button_group") if "MMBench" in map(str, g.options))
    sound(group.set_value("mmbench").run())
    assert app.query_params["benchmark"] in ("mmbench", ["mmbench"])
    assert cards(app) == 12


def test_answers_of_a_running_evaluation_are_shown_while_it_works(tmp_path: Path, monkeypatch):
    import os

    from backend.runs import ProcessIdentity

    space = explored(tmp_path)
    run = make_run(space, "evaluate", "20261124-000009-evaluate-live", checkpoint="x")
    alive = ProcessIdentity.of(os.getpid())
    status = RunStatus(state=State.RUNNING, started_at=1, child=alive, supervisor=alive)
    write_json(run.status_path, status.model_dump(mode="json", exclude={"supervised"}))
    image = f"{0:016x}"
    write_lines(run.artifacts / "textvqa" / "answers.jsonl",
                [{"question_id": image, "prompt": "Why?\nx", "text": "because"}])  # fmt: skip
    app = visit("evaluation", space, monkeypatch, run=run.id)
    assert "because" in markup(app)
    assert "data:image/webp" in markup(app)


def test_an_evaluation_without_scores_says_so(tmp_path: Path, monkeypatch):
    space = explored(tmp_path)
    run = make_run(space, "evaluate", "20261124-000009-evaluate-none", checkpoint="x")
    app = visit("evaluation", space, monkeypatch, run=run.id)
    assert "has no scores" in words(app)


def test_hostile_answers_stay_text(tmp_path: Path, monkeypatch):
    space = explored(tmp_path)
    path = Run(space.runs / BASELINE).artifacts / "questions.parquet"
    table = pq.read_table(path)
    for name in ("answer", "prediction", "question", "prompt", "category"):
        column = table.schema.get_field_index(name)
        table = table.set_column(column, name, [[HOSTILE] * table.num_rows])
    pq.write_table(table, path)
    html = markup(visit("evaluation", space, monkeypatch, run=BASELINE))
    assert "<script" not in html
    assert "<img src=x" not in html
    assert "&lt;script&gt;" in html


def test_the_duration_is_predicted_from_the_latest_evaluation(workspace, monkeypatch):
    app = visit("evaluation", workspace, monkeypatch)
    assert "About 1 min 15 s for 12 questions, as better took" in words(app)
