"""A run in full: what it says of itself, and what a person can do with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backend.errors import InputError, UsageError
from backend.files import append_line
from backend.messages import message
from backend.profiles import asked, defaults
from backend.runs import Run, State
from backend.supervisor import delete, validated
from backend.trails import named
from backend.workspace import Workspace
from pages.widgets import run_view as module
from pages.widgets.charts import MAX_POINTS, training_figure
from pages.widgets.colors import OKABE_ITO, run_color
from store.runs import run_rows
from tests.pages.browsing import HOSTILE, live, markup, sound, visit, words
from tests.pages.workspaces import add_metrics, add_run, empty, half_finished

RUNNING = "20261124-110000-finetune-1111"
FAILED = "20261124-090000-pretrain-baad"
TRAINED = "20261124-080020-finetune-aaad"


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return half_finished(tmp_path_factory.mktemp("busy"))


def test_stopping_asks_once_and_then_stops_this_run(busy, monkeypatch):
    stopped: list[str] = []
    monkeypatch.setattr(module, "stop", lambda run: stopped.append(run.id))
    app = visit("runs", busy, monkeypatch, run=RUNNING)
    assert stopped == []
    sound(app.button(key=f"stop-now-{RUNNING}").click().run())
    assert stopped == [RUNNING]


def test_an_error_of_the_supervisor_is_said_with_its_remedy(busy, monkeypatch):
    def refuse(run: Run) -> None:
        raise UsageError("it is gone.", remedy="Look elsewhere.")

    monkeypatch.setattr(module, "stop", refuse)
    app = visit("runs", busy, monkeypatch, run=RUNNING)
    sound(app.button(key=f"stop-now-{RUNNING}").click().run())
    assert "Look elsewhere" in words(app)


@pytest.mark.parametrize(("lang", "sentence"), [("en", "did not learn"), ("zh", "学")])
def test_a_failed_run_says_why_before_anything_else(busy, monkeypatch, lang, sentence):
    app = visit("runs", busy, monkeypatch, lang, run=FAILED)
    assert sentence in app.error[0].value
    assert "the loss became NaN" in app.error[0].value


def test_only_a_resumable_run_that_did_not_succeed_offers_to_resume(busy, monkeypatch):
    def buttons(run_id: str) -> list[str]:
        return [one.key for one in visit("runs", busy, monkeypatch, run=run_id).button]

    assert f"resume-{FAILED}" in buttons(FAILED)
    assert f"resume-{TRAINED}" not in buttons(TRAINED)
    assert f"resume-{RUNNING}" not in buttons(RUNNING)


def test_the_log_can_be_searched_and_stays_text(busy, monkeypatch):
    app = visit("runs", busy, monkeypatch, run=TRAINED, view="log")
    assert "<script>alert(1)</script>" in app.code[-1].value
    sound(app.text_input(key=f"log-{TRAINED}").set_value("LOSS").run())
    assert app.code[-1].value == "{'loss': 2.31}"


def test_health_names_the_steps_to_look_at(busy, monkeypatch):
    app = visit("runs", busy, monkeypatch, run=FAILED, view="health")
    assert any("not a finite number" in one.value for one in app.error)


def test_a_spike_is_a_click_away_from_the_samples_of_its_batch(tmp_path: Path, monkeypatch):
    space = empty(tmp_path / "spike")
    run = add_run(space, "20261124-080000-pretrain-feed", State.SUCCEEDED)
    for step in range(1, 201):
        loss = 40.0 if step == 120 else 2.0 + 0.01 * (step % 7)
        append_line(run.metrics_path, {"step": step, "loss": loss, "attempt": 1})
    rows = {"step": [119, 120], "sample_id": ["calm", "wild"], "loss": [2.0, 40.0],
            "attempt": [1, 1]}  # fmt: skip
    (run.path / "batches").mkdir()
    pq.write_table(pa.table(rows), run.path / "batches" / "part-00000.parquet")
    app = visit("runs", space, monkeypatch, run=run.id, view="health")
    [button] = [one for one in app.button if str(one.key).startswith(f"step-{run.id}-loss_spike")]
    sound(button.click().run())
    assert "wild" in markup(app)
    assert "calm" not in markup(app)
    assert app.query_params["step"] in ("120", ["120"])


def test_configuration_shows_what_differs(busy, monkeypatch):
    app = visit("runs", busy, monkeypatch, run=TRAINED, view="configuration")
    assert "<strong>20261124-080010-pretrain-aaac</strong>" in markup(app)


def test_a_run_whose_files_are_broken_says_so(tmp_path: Path, monkeypatch):
    space = empty(tmp_path / "one")
    run = add_run(space, "20261124-080000-pretrain-dead", State.SUCCEEDED)
    run.status_path.write_text("{")
    app = visit("runs", space, monkeypatch, run=run.id)
    assert "cannot be read" in app.error[0].value


def test_a_run_that_is_not_there_is_explained(busy, monkeypatch):
    app = visit("runs", busy, monkeypatch, run="nothing")
    assert "no run" in app.error[0].value


def test_no_curve_is_drawn_from_more_points_than_a_browser_likes(tmp_path: Path):
    run = add_run(empty(tmp_path / "long"), "20261124-080000-pretrain-feed", State.SUCCEEDED)
    add_metrics(run, 3000, device=True)
    figure = training_figure(run)
    assert max(len(trace.x) for trace in figure.data) <= MAX_POINTS
    # The spike in the middle is still there.
    assert np.max(figure.data[0].y) > 2.2


def test_without_a_device_the_memory_of_the_process_is_drawn(tmp_path: Path):
    run = add_run(empty(tmp_path / "cpu"), "20261124-080000-pretrain-feed", State.SUCCEEDED)
    add_metrics(run, 20)
    assert "resident" in [trace.name for trace in training_figure(run).data]


def test_a_run_keeps_its_color():
    assert run_color(TRAINED) == run_color(TRAINED)
    assert {run_color(f"run-{number}") for number in range(200)} == set(OKABE_ITO[:-1])


def test_deleting_demands_the_name(tmp_path: Path):
    space = half_finished(tmp_path / "half")
    built = [row.id for row in run_rows(space) if RUNNING in named(row)]
    assert built == ["20261124-120000-evaluate-9999"]
    with pytest.raises(InputError):
        delete(Run(space.runs / RUNNING))
    delete(Run(space.runs / FAILED))
    assert not (space.runs / FAILED).exists()


def test_every_unreadable_picture_is_listed_as_plain_text(tmp_path: Path, monkeypatch):
    space = empty(tmp_path)
    run = add_run(space, TRAINED, State.SUCCEEDED)
    assert len(visit("runs", space, monkeypatch, run=run.id, view="health").dataframe) == 0
    for number in range(12):
        line = {"sample_id": f"s{number}", "image": f"{HOSTILE}{number}.png", "problem": "torn"}
        append_line(run.artifacts / "unreadable.jsonl", line)
    app = visit("runs", space, monkeypatch, run=run.id, view="health")
    (table,) = app.dataframe
    rows = table.value.to_dict("records")
    assert [row["Sample"] for row in rows] == [f"s{number}" for number in range(12)]
    assert rows[11] == {"Sample": "s11", "Picture": f"{HOSTILE}11.png", "Problem": "torn"}
    assert not live(markup(app) + words(app))


def test_configuration_does_not_count_what_the_preset_names(tmp_path: Path, monkeypatch):
    space = empty(tmp_path)
    given = asked(defaults(space, "finetune"), {"preset": "fit-16gb-full", "seed": 7})
    parameters = validated("finetune", given).model_dump(mode="json")
    run = add_run(space, TRAINED, State.SUCCEEDED, parameters)
    app = visit("runs", space, monkeypatch, run=run.id, view="configuration")
    assert message("run.configuration.changed", n=2) in words(app)
