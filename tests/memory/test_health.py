from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from backend.errors import InputError
from backend.formats.kit_log import read_kit_log
from backend.memory.curves import Curves
from backend.memory.health import advice, describe, judge, judge_log
from backend.memory.symptoms import SYMPTOMS

REAL = Path(__file__).parents[3] / "shared" / "data" / "kit_run" / "pretrain.log"


def codes(findings, *levels: str) -> list[str]:
    return [f.code for f in findings if not levels or f.level in levels]


def rows(loss, **columns):
    return [
        {"step": n + 1, "loss": value, **{name: column[n] for name, column in columns.items()}}
        for n, value in enumerate(loss)
    ]


def healthy(steps: int = 120, seed: int = 0, start: float = 5.0, end: float = 1.2):
    generator = np.random.default_rng(seed)
    t = np.arange(steps) / steps
    loss = end + (start - end) * np.exp(-4 * t) + generator.normal(0, 0.08 * end, steps)
    return rows(
        loss.tolist(),
        learning_rate=[1e-3 * min(1, (n + 1) / 4) * 0.5 * (1 + math.cos(math.pi * n / steps))
                       for n in range(steps)],
        grad_norm=np.abs(generator.lognormal(0, 0.4, steps)).tolist(),
        samples_per_second=generator.normal(40, 6, steps).tolist(),
        host_memory=[int(1.5e9 + 1e6 * n) for n in range(steps)],
        memory_allocated=[None] * steps,
        time=[1000.0 + 3 * n for n in range(steps)],
        epoch=[(n + 1) / steps for n in range(steps)],
    )  # fmt: skip


@pytest.mark.parametrize("steps", [1, 2, 5, 16, 60, 400])
@pytest.mark.parametrize("seed", range(5))
def test_healthy_runs_raise_no_alarm(steps, seed):
    order = [str(n) for n in np.random.default_rng(seed).permutation(steps * 8)]
    found = judge(healthy(steps, seed), vocabulary_size=320, order=order, samples=steps * 8,
                  samples_without_labels=0)  # fmt: skip
    assert codes(found, "warning", "error") == []


def test_a_continued_run_that_starts_low_is_no_plateau_alarm_of_the_worst_grade():
    generator = np.random.default_rng(1)
    found = judge(rows((1.3 + generator.normal(0, 0.05, 200)).tolist()), vocabulary_size=256000)
    assert codes(found) == ["plateau_from_start"]
    assert found[0].level == "warning"


@pytest.mark.skipif(not REAL.exists(), reason="the kit's log lies beside the project only")
def test_the_kits_log_is_healthy_and_scaled_to_1e11_is_not():
    log = read_kit_log(REAL)
    assert judge(log, vocabulary_size=256000) == []
    assert judge(log) == []
    sick = [{**row, "loss": row["loss"] * 1e11} for row in log]
    assert codes(judge(sick), "error") == ["loss_above_chance"]
    assert codes(judge(sick[:5], vocabulary_size=256000), "error") == ["loss_above_chance"]


def test_foreign_logs_are_judged_in_each_of_their_forms(tmp_path: Path):
    run = healthy(60)
    printed = tmp_path / "train.log"
    printed.write_text("".join(f"{ {k: row[k] for k in ('loss', 'epoch')} }\n" for row in run))
    rows = tmp_path / "metrics.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in run))
    state = tmp_path / "trainer_state.json"
    history = [*({**row, "loss": 1e11} for row in run), {"step": 60, "train_runtime": 9.0}]
    state.write_text(json.dumps({"log_history": history}))
    assert codes(judge_log(printed), "warning", "error") == []
    assert codes(judge_log(rows, vocabulary_size=320), "warning", "error") == []
    assert codes(judge_log(state), "error")[0] == "loss_above_chance"
    rows.write_text('{"note": 1}\n')
    with pytest.raises(InputError, match="no training step"):
        judge_log(rows)


@pytest.mark.parametrize("row", ["{'loss': 1.2e+11, 'epoch': 1.0}", "{'loss': '1.2e+11'}"])
def test_a_single_row_far_above_guessing_is_an_error(tmp_path: Path, row: str):
    path = tmp_path / "train.log"
    path.write_text(f"{row}\n{{'train_runtime': 12.5, 'train_loss': 1.2e11}}\n")
    assert codes(judge_log(path), "error") == ["loss_above_chance"]
    # The first training of a log counts too, though the second is well.
    path.write_text(path.read_text() + "{'loss': 2.5, 'epoch': 0.5}\n{'loss': 2.4, 'epoch': 1.0}\n")
    assert codes(judge_log(path), "error") == ["loss_above_chance"]


@pytest.mark.parametrize("last", [1e11, 26.0, math.nan, math.inf])
def test_whatever_came_before_the_last_row_must_be_sound(last: float):
    for before in (1, 2, 10, 60):
        losses = [*np.linspace(6, 2, before).tolist(), last]
        assert codes(judge(rows(losses)), "error"), before


@pytest.mark.parametrize("losses", [[12.4], [11.9, 6.5], [13.0, 9.0, 7.0], [2.3]])
def test_a_short_healthy_run_is_healthy(losses: list[float]):
    assert judge(rows(losses)) == []


def test_causes_come_before_their_effects():
    run = [{"step": n, "loss": 5.0, "grad_norm": 0.0, "learning_rate": 0.0} for n in range(1, 61)]
    found = codes(judge(run, samples=60, samples_without_labels=60), "error")
    assert found[:2] == ["labels_masked", "learning_rate_zero"]
    assert "gradients_zero" in found


def test_spikes_are_found_at_their_steps_and_a_noisy_curve_has_none():
    run = healthy(200)
    for step in (77, 130, 131):
        run[step - 1]["loss"] *= 6
    [finding] = judge(run, vocabulary_size=320)
    assert (finding.code, finding.level) == ("loss_spikes", "warning")
    assert set(finding.steps) == {77, 130, 131}
    noisy = rows(np.random.default_rng(0).gamma(4, 0.4, 300).tolist())
    assert "loss_spikes" not in codes(judge(noisy), "warning", "error")


def test_a_single_mild_spike_is_no_alarm():
    run = healthy(300)
    run[200]["loss"] += 1.5
    [finding] = judge(run, vocabulary_size=320)
    assert (finding.code, finding.level) == ("loss_spikes", "info")


def test_an_explosion_after_learning_is_an_error_at_its_step():
    run = healthy(100)
    for n in range(70, 100):
        run[n]["loss"] = 6.0 + n / 50
    finding = judge(run, vocabulary_size=256000)[0]
    assert (finding.code, finding.level) == ("loss_exploded", "error")
    assert 68 <= finding.values["step"] <= 73


def test_one_lost_step_is_a_warning_and_a_lost_end_an_error():
    run = healthy(200)
    run[50]["loss"] = math.nan
    assert codes(judge(run, vocabulary_size=320), "warning") == ["loss_not_finite"]
    run[-1]["loss"] = math.inf
    assert codes(judge(run, vocabulary_size=320), "error") == ["loss_not_finite"]


def test_unknown_is_not_zero():
    run = [{**row, "grad_norm": None, "learning_rate": None, "host_memory": None}
           for row in healthy(80)]  # fmt: skip
    assert judge(run, vocabulary_size=320) == []
    assert judge([]) == []
    assert judge([{"step": 1, "loss": None}]) == []


def test_a_learning_rate_of_zero_counts_only_between_warm_up_and_end():
    run = healthy(100)
    for n in (0, 1, 2, 99):
        run[n]["learning_rate"] = 0.0
    assert judge(run, vocabulary_size=320) == []
    for row in run[10:]:
        row["learning_rate"] = 0.0
    assert codes(judge(run, vocabulary_size=320), "error") == ["learning_rate_zero"]


def test_gradients_of_zero_and_beyond_measure():
    flat = rows([3.0, 3.1, 2.9] * 10, grad_norm=[0.0] * 30)
    assert codes(judge(flat), "error") == ["gradients_zero"]
    run = healthy(100)
    for row in run[80:]:
        row["grad_norm"] = 5000.0
    assert codes(judge(run, vocabulary_size=320), "warning") == ["gradients_exploding"]
    for row in run[50:]:
        row["grad_norm"] = math.inf
    assert codes(judge(run, vocabulary_size=320), "error") == ["gradients_not_finite"]


def test_a_norm_reported_as_zero_while_the_loss_falls_is_no_alarm():
    run = [{**row, "grad_norm": 0.0} for row in healthy(60)]
    assert judge(run, vocabulary_size=320) == []


@pytest.mark.parametrize(("without", "level"), [(0, None), (5, None), (40, "warning"),
                                                (700, "error")])  # fmt: skip
def test_masked_labels_are_counted(without, level):
    found = judge(healthy(30), vocabulary_size=320, samples=1000, samples_without_labels=without)
    assert [f.level for f in found if f.code == "labels_masked"] == ([level] if level else [])


def test_a_collapse_of_speed_counts_when_it_lasts():
    run = healthy(100)
    for row in run[70:]:
        row["samples_per_second"] = 9.0
    assert codes(judge(run, vocabulary_size=320)) == ["throughput_collapsed"]
    quick = [{**row, "time": row["step"] * 0.1} for row in run]
    assert judge(quick, vocabulary_size=320) == []


@pytest.mark.parametrize("name", ["host", "device"])
def test_memory_that_keeps_rising_is_found_and_a_filled_cache_is_not(name):
    column = {"host": "host_memory", "device": "memory_allocated"}[name]
    rising = [{**row, column: 4e9 + 3e7 * row["step"]} for row in healthy(100)]
    assert codes(judge(rising, vocabulary_size=320)) == [f"memory_creeping_{name}"]
    filled = [{**row, column: 4e9 + 3e7 * min(30, row["step"])} for row in healthy(100)]
    assert judge(filled, vocabulary_size=320) == []


def test_data_order_that_repeats_is_found():
    ids = [str(n) for n in range(200)]
    once = [{**row, "epoch": row["step"] / 100} for row in healthy(100)]
    assert judge(once, vocabulary_size=320, order=ids) == []
    again = judge(once, vocabulary_size=320, order=ids[:50] + ids[:50] + ids[:100])
    assert codes(again) == ["data_order_repeats"]
    twice = [{**row, "epoch": row["step"] / 50} for row in healthy(100)]
    assert codes(judge(twice, vocabulary_size=320, order=ids + ids)) == ["data_order_same"]
    shuffled = ids + np.random.default_rng(0).permutation(ids).tolist()
    assert judge(twice, vocabulary_size=320, order=shuffled) == []


def test_a_repeated_step_counts_as_its_last_attempt_told():
    table = [
        {"step": 1, "loss": 9.0, "attempt": 1},
        {"step": 2, "loss": 8.0, "attempt": 1},
        {"step": 2, "loss": 7.0, "attempt": 2},
    ]
    assert Curves(table).series("loss").values.tolist() == [9.0, 7.0]


def test_every_finding_has_words_and_advice_in_both_languages():
    from backend.messages import catalogue

    source = "".join(
        Path(check.__code__.co_filename).read_text(encoding="utf-8") for check in SYMPTOMS[:1]
    )
    known = [key.removeprefix("finding.") for key in catalogue("en") if key.startswith("finding.")]
    named = [code for code in known if not code.endswith(".advice")]
    assert len(named) >= 15
    for code in named:
        assert f"finding.{code}.advice" in catalogue("zh")
    assert source.count("Finding(") >= len(SYMPTOMS) - 1


def test_findings_read_well():
    [finding] = judge([{"step": n, "loss": 4.2e11} for n in range(1, 6)], vocabulary_size=256000)
    assert describe(finding) == (
        "The loss ends at 4.2e+11; guessing every token alike gives 12.5 (threshold 24.9)."
    )
    assert "随机猜测" in describe(finding, "zh")
    assert advice(finding).startswith("The model predicts worse than chance")
    assert json.dumps(finding.values)
