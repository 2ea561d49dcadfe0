"""The page of reports: a preview that cannot do harm, files to take along, checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.files import write_json
from backend.workspace import Settings, Workspace
from tests.evaluation.samples import make_run
from tests.explored import BASELINE, explored
from tests.pages.browsing import HOSTILE, markup, visit


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    space = explored(tmp_path_factory.mktemp("report"))
    run = make_run(space, "report", "20261124-000001-report-a", runs=[BASELINE])
    run.artifacts.mkdir(exist_ok=True)
    (run.artifacts / "report.html").write_text(f"<h1>Found</h1>{HOSTILE}</body></iframe>")
    (run.artifacts / "report.md").write_text("# Found")
    return space


def test_without_scores_the_page_names_the_one_step(tmp_path: Path, monkeypatch):
    space = Workspace.create(tmp_path / "empty", Settings(name="empty"))
    app = visit("report", space, monkeypatch)
    assert app.button(key="empty-step").label == "Go to Evaluation"


def test_a_report_is_shown_in_a_frame_that_may_do_nothing(workspace, monkeypatch):
    app = visit("report", workspace, monkeypatch)
    [frame] = app.get("iframe")
    content = frame.proto.srcdoc
    assert 'sandbox=""' in content
    # Nothing of the report ends the attribute that holds it.
    inner = content.split('srcdoc="')[1]
    assert inner.count('"') == 1
    assert "<script" not in content


def test_both_files_can_be_taken_along(workspace, monkeypatch):
    app = visit("report", workspace, monkeypatch)
    labels = [button.proto.label for button in app.get("download_button")]
    assert labels == ["HTML", "Markdown"]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_submission_shows_its_checks_the_worst_first(tmp_path: Path, monkeypatch, lang):
    space = explored(tmp_path)
    run = make_run(space, "submit", "20261124-000001-submit-a", evaluation=BASELINE)
    checks = [
        {"name": "answers", "state": "passed", "values": {}},
        {"name": "synthesis_step", "state": "failed", "values": {}},
        {"name": HOSTILE, "state": HOSTILE, "values": {HOSTILE: HOSTILE}},
    ]
    write_json(run.artifacts / "submission.json", checks)
    html = markup(visit("report", space, monkeypatch, lang, tab="submit"))
    assert html.index("cancel</span>") < html.index("check_circle</span>")
    assert "<script" not in html
