"""Curves of a run: every spike, the last attempt, nothing made up."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from backend.reducing import reduce_curve
from backend.runs import Run
from store.metrics import Curve, curves, memory, smoothed


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def curve(run: Run, name: str, max_points: int = 2000) -> Curve:
    return curves(run, (name,), max_points)[name]


def write(run: Run, lines: list[dict], torn: str = "") -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    run.metrics_path.write_text(text + torn)


def test_a_run_without_metrics_has_empty_curves(run: Run):
    assert len(curve(run, "loss")) == 0
    assert curve(run, "loss").last is None
    assert len(smoothed(run, "loss")) == 0
    assert memory(run).total is None


def test_one_step_spikes_survive_the_reduction(run: Run):
    generator = np.random.default_rng(3)
    loss = generator.normal(1.0, 0.05, 60_000)
    spikes = generator.choice(60_000, 25, replace=False)
    loss[spikes] = 50 + np.arange(25)
    write(run, [{"step": i, "attempt": 1, "loss": float(v)} for i, v in enumerate(loss)])
    found = curve(run, "loss", 2000)
    assert len(found) <= 2000
    assert set(spikes) <= set(found.x.astype(int))
    assert found.total == 60_000


def test_a_reduced_curve_keeps_both_ends_and_its_order():
    x = np.arange(1000.0)
    small_x, small_y = reduce_curve(x, np.sin(x / 50), 50)
    assert small_x[0] == 0
    assert small_x[-1] == 999
    assert len(small_x) <= 50
    assert np.all(np.diff(small_x) > 0)
    assert np.array_equal(small_y, np.sin(small_x / 50))


def test_of_a_step_done_twice_the_last_attempt_counts(run: Run):
    first = [{"step": i, "attempt": 1, "loss": 10.0 + i} for i in range(1, 8)]
    second = [{"step": i, "attempt": 2, "loss": float(i)} for i in range(5, 10)]
    write(run, first + second)
    found = curve(run, "loss")
    assert found.x.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert found.y.tolist() == [11, 12, 13, 14, 5, 6, 7, 8, 9]


def test_a_torn_last_line_is_left_out(run: Run):
    write(run, [{"step": 1, "attempt": 1, "loss": 1.0}], torn='{"step": 2, "loss": 9')
    assert curve(run, "loss").x.tolist() == [1]


def test_unknown_is_left_out_and_not_finite_is_told_apart(run: Run):
    values = [1.0, None, math.nan, math.inf, 2.0]
    write(run, [{"step": i, "attempt": 1, "loss": v} for i, v in enumerate(values)])
    found = curve(run, "loss")
    assert found.x.tolist() == [0, 4]
    assert found.not_finite.tolist() == [2, 3]
    assert found.total == 4


def test_a_missing_column_is_an_empty_curve(run: Run):
    write(run, [{"step": 1, "attempt": 1, "loss": 1.0}])
    assert len(curves(run, ("loss", "memory_allocated"))["memory_allocated"]) == 0


def test_a_metric_that_does_not_exist_is_refused(run: Run):
    with pytest.raises(KeyError):
        curve(run, 'loss" FROM secrets; --')


def test_new_lines_are_seen(run: Run):
    write(run, [{"step": 1, "attempt": 1, "loss": 1.0}])
    assert curve(run, "loss").last == 1.0
    write(run, [{"step": 1, "attempt": 1, "loss": 1.0}, {"step": 2, "attempt": 1, "loss": 0.5}])
    assert curve(run, "loss").last == 0.5


def test_smoothing_starts_at_the_first_value_and_follows(run: Run):
    write(run, [{"step": i, "attempt": 1, "loss": 4.0} for i in range(50)])
    assert np.allclose(smoothed(run, "loss").y, 4.0)


def test_smoothing_of_a_long_run_covers_every_step(run: Run):
    write(run, [{"step": i, "attempt": 1, "loss": float(i % 2)} for i in range(4000)])
    found = smoothed(run, "loss", max_points=100)
    assert len(found) == 100
    assert found.x[-1] == 3999
    assert np.allclose(found.y, 0.5)


def reading(time: float, used: int | None) -> dict:
    device = {"index": 0, "name": "Card", "used": used, "total": 24, "utilization": None}
    return {"time": time, "devices": [device], "process": {"rss": 7, "cpu_percent": 50.0}}


def test_device_memory_is_placed_on_the_steps(run: Run):
    write(run, [{"step": i, "attempt": 1, "time": 100.0 + i, "loss": 1.0} for i in range(11)])
    lines = [reading(100.0, 4), reading(105.0, 9), reading(110.0, None)]
    run.gpu_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    layers = memory(run)
    assert layers.device.x.tolist() == [0, 5]
    assert layers.device.y.tolist() == [4, 9]
    assert layers.process_tree.y.tolist() == [7, 7, 7]
    assert layers.total == 24


def test_without_a_driver_there_are_no_devices_but_the_process_is_known(run: Run):
    write(run, [{"step": i, "attempt": 1, "time": 1.0 + i, "loss": 1.0} for i in range(3)])
    line = {"time": 1.0, "devices": None, "process": {"rss": 7, "cpu_percent": None}}
    run.gpu_path.write_text(json.dumps(line) + "\n")
    found = memory(run)
    assert (len(found.device), found.total) == (0, None)
    assert found.process_tree.y.tolist() == [7]


def test_of_two_devices_the_first_is_shown(run: Run):
    write(run, [{"step": i, "attempt": 1, "time": 1.0 + i, "loss": 1.0} for i in range(3)])
    devices = [{"index": i, "name": f"Card {i}", "used": 10 * i, "total": 24 + i} for i in (1, 0)]
    line = {"time": 1.0, "devices": devices, "process": {"rss": 7}}
    run.gpu_path.write_text(json.dumps(line) + "\n")
    found = memory(run)
    assert (found.device.y.tolist(), found.total) == ([0], 24)
