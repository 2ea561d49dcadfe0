from __future__ import annotations

import json
import signal
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backend.files import append_line, read_json
from backend.memory.health import conclude, judge_run
from backend.runs import Run, RunFailed, RunSpec
from backend.workspace import Settings, Workspace


@pytest.fixture
def run(tmp_path) -> Run:
    workspace = Workspace.create(tmp_path / "w", Settings(name="test"))
    spec = RunSpec(
        run_id="20261124-000000-finetune-0000", stage="finetune", parameters={}, argv=[],
        created_at=time.time(), device=None,
    )  # fmt: skip
    run = Run.create(workspace, spec)
    (run.artifacts / "config.json").write_text('{"vocab_size": 320}')
    return run


def write_metrics(run: Run, losses) -> None:
    for n, loss in enumerate(losses, 1):
        append_line(run.metrics_path, {"step": n, "loss": loss, "attempt": 1})


def write_batches(run: Run, name: str, rows: list[tuple[int, str, float | None, int]]) -> None:
    folder = run.path / "batches"
    folder.mkdir(exist_ok=True)
    schema = pa.schema(
        [("step", pa.int64()), ("sample_id", pa.string()), ("loss", pa.float32()),
         ("attempt", pa.int32())]
    )  # fmt: skip
    columns = zip(schema.names, zip(*rows, strict=True), strict=True)
    table = pa.table({key: list(values) for key, values in columns}, schema)
    pq.write_table(table, folder / name)


def test_a_healthy_run_ends_well_and_keeps_an_empty_list(run):
    write_metrics(run, np.linspace(5, 1, 30))
    assert conclude(run) == []
    assert read_json(run.artifacts / "findings.json") == []
    assert run.events() == []


def test_a_run_that_did_not_learn_fails_with_its_reason(run):
    write_metrics(run, [3e11] * 93)
    with pytest.raises(RunFailed) as failure:
        conclude(run)
    reason = failure.value.reason
    assert (reason.code, reason.values["finding"]) == ("did_not_learn", "loss_above_chance")
    assert reason.evidence[0].startswith("The loss ends at 3e+11; guessing")
    kept = read_json(run.artifacts / "findings.json")
    assert [finding["code"] for finding in kept] == ["loss_above_chance", "plateau_from_start"]
    assert [event["code"] for event in run.events()] == ["finding", "finding"]


def test_a_nan_survives_the_way_through_the_files(run):
    write_metrics(run, [3.0, 2.9, float("nan"), float("nan")])
    with pytest.raises(RunFailed):
        conclude(run)
    assert read_json(run.artifacts / "findings.json")[0]["code"] == "loss_not_finite"


def test_masked_samples_and_the_order_come_from_the_batches(run):
    write_metrics(run, np.linspace(5, 1, 30))
    write_batches(
        run, "part-00000.parquet",
        [(step, f"s{step}-{k}", None if k == 0 else 1.0, 1) for step in range(1, 31)
         for k in range(4)],
    )  # fmt: skip
    [finding] = judge_run(run)
    assert (finding.code, finding.level) == ("labels_masked", "warning")
    assert finding.values == {"share": 25.0, "count": 30, "n": 120}


def test_steps_trained_again_after_a_resume_are_no_repetition(run):
    for n in range(1, 31):
        append_line(run.metrics_path, {"step": n, "loss": 5 - n / 10, "epoch": n / 30})
    batches = {step: [f"s{step}-{k}" for k in range(4)] for step in range(1, 31)}
    rows = [(step, name, 1.0, 1) for step in range(1, 26) for name in batches[step]]
    write_batches(run, "part-00000.parquet", rows)
    rows = [(step, name, 1.0, 2) for step in range(10, 31) for name in batches[step]]
    write_batches(run, "part-00001.parquet", rows)
    assert judge_run(run) == []


def test_a_stage_that_did_not_learn_writes_its_outcome(run, monkeypatch, capsys):
    from backend.stages import base

    def main(context, parameters):
        conclude(context.run)

    write_metrics(run, [3e11] * 20)
    monkeypatch.setattr("sys.argv", ["stage", str(run.path)])
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(SystemExit) as end:
            base.stage_main(base.StageParameters, main)
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    assert end.value.code == 1
    outcome = json.loads((run.path / "outcome.json").read_text())
    assert (outcome["state"], outcome["reason"]["code"]) == ("failed", "did_not_learn")
    assert "The loss ends at 3e+11" in capsys.readouterr().err
