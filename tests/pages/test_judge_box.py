"""A log from anywhere is judged on the Runs page, and a running run says when it is not well."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backend.files import append_line
from backend.messages import LANGUAGES, message
from backend.runs import Run, State
from backend.workspace import Workspace
from pages.widgets.text import escape
from tests.pages.browsing import HOSTILE, live, sound, visit, words
from tests.pages.workspaces import add_metrics, add_run, empty

LOGS = Path(__file__).parents[1] / "data" / "logs"
RUNNING = "20261124-110000-finetune-1111"


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return empty(tmp_path / "space")


def judged(space: Workspace, monkeypatch, path: str, lang: str = "en", vocabulary=None):
    app = visit("runs", space, monkeypatch, lang)
    app.text_input(key="judge-path").set_value(path)
    app.number_input(key="judge-vocabulary").set_value(vocabulary)
    submit = next(one for one in app.button if one.label == message("judge.now", lang))
    return sound(submit.click().run())


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_death_is_explained_with_its_ways_out(space: Workspace, monkeypatch, lang: str) -> None:
    app = judged(space, monkeypatch, str(LOGS / "kit_logits.log"), lang)
    assert escape(message("death.title.device_memory", lang)) in app.error[0].value
    said = words(app)
    assert "1,024" in said
    assert message("death.ways", lang) in said
    assert any("loss_chunk=" in block.value for block in app.code)
    assert not app.success


def test_a_healthy_log_is_called_healthy_and_a_sick_one_is_not(
    space: Workspace, monkeypatch
) -> None:
    (space.root / "train.log").write_text("{'loss': '9.5'}\n{'loss': '9.4'}\n")
    app = judged(space, monkeypatch, "train.log")
    assert message("judge.healthy") in app.success[0].value
    app = judged(space, monkeypatch, "train.log", vocabulary=100)
    assert not app.success
    assert "guessing" in app.error[0].value


def test_an_uploaded_log_is_judged(space: Workspace, monkeypatch) -> None:
    app = visit("runs", space, monkeypatch)
    app.file_uploader(key="judge-file").set_value(
        ("killed.log", b"{'loss': 2.5}\nrun.sh: line 4: 977 Killed  python x\n", "text/plain")
    )
    submit = next(one for one in app.button if one.label == message("judge.now"))
    app = sound(submit.click().run())
    assert message("reason.killed", signal="SIGKILL").rstrip(").").split(" (")[0] in (
        app.error[0].value
    )


@pytest.mark.parametrize(
    ("path", "key"), [("", "judge.none"), ("none.log", "judge.missing"), (".", "judge.missing")]
)
def test_what_is_no_file_is_refused_in_a_sentence(
    space: Workspace, monkeypatch, path: str, key: str
) -> None:
    assert escape(message(key)) in judged(space, monkeypatch, path).error[0].value


def test_a_hostile_log_stays_text(space: Workspace, monkeypatch) -> None:
    trace = (
        f'Traceback (most recent call last):\n  File "x.py", line 1, in f\nValueError: {HOSTILE}\n'
    )
    (space.root / "x.log").write_text(f"{{'loss': 2.5}}\n{trace}")
    app = judged(space, monkeypatch, "x.log")
    assert not any(live(box.value) for box in (*app.error, *app.markdown, *app.caption))
    assert "ValueError" in app.error[0].value


def test_a_running_run_that_is_not_well_says_so_in_the_list_and_in_its_head(
    space: Workspace, monkeypatch
) -> None:
    run = add_run(space, RUNNING, State.RUNNING, alive=os.getpid())
    add_metrics(run, 10)
    sick = message("run.sick")
    app = visit("runs", space, monkeypatch)
    assert app.dataframe[0].value["state"][0] == message("state.running")
    append_line(run.metrics_path, {"step": 11, "loss": 3e11, "attempt": 1})
    app = visit("runs", space, monkeypatch)
    assert sick in app.dataframe[0].value["state"][0]
    assert sick in words(visit("runs", space, monkeypatch, run=RUNNING))


def test_the_health_view_follows_the_batches_and_leads_to_the_masked_samples(
    space: Workspace, monkeypatch
) -> None:
    run = add_run(space, RUNNING.replace("1111", "2222"), State.SUCCEEDED)
    add_metrics(run, 10)
    app = visit("runs", space, monkeypatch, run=run.id, view="health")
    assert not app.warning
    masked(run)
    app = visit("runs", space, monkeypatch, run=run.id, view="health")
    [warning] = [one for one in app.warning if "no token to learn from" in one.value]
    assert "Samples view" in warning.value
    app = sound(app.button(key=f"step-{run.id}-labels_masked-7").click().run())
    assert app.number_input(key=f"step-{run.id}").value == 7
    html = "\n".join(str(block.value) for block in app.get("html"))
    assert "s7-0" in html and "–" in html


def masked(run: Run) -> None:
    """Two of four samples of step 7 have no label."""
    rows = [(step, f"s{step}-{n}", 1.5, 1) for step in range(1, 11) for n in range(4)]
    rows = [(*row[:2], None, 1) if row[1] in ("s7-0", "s7-1") else row for row in rows]
    schema = pa.schema(
        [("step", pa.int64()), ("sample_id", pa.string()), ("loss", pa.float32()),
         ("attempt", pa.int32())]
    )  # fmt: skip
    columns = zip(schema.names, zip(*rows, strict=True), strict=True)
    (run.path / "batches").mkdir()
    table = pa.table({name: list(values) for name, values in columns}, schema)
    pq.write_table(table, run.path / "batches" / "part-00000.parquet")
