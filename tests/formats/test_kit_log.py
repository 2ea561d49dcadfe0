from __future__ import annotations

import math
from pathlib import Path

import pytest

from backend.errors import InputError
from backend.formats.kit_log import read_kit_log, read_trainings, summary

REAL = Path(__file__).parents[3] / "shared" / "data" / "kit_run" / "pretrain.log"


def test_rows_are_found_among_other_output_and_steps_come_from_the_bar(tmp_path):
    path = tmp_path / "train.log"
    path.write_text(
        "cmd = train.py --logging_steps 2\nLoading: 100%|█| 2/2 [00:01<00:00]\n"
        "WORLD INFO DICT: {'localhost': [0, 1]}\n"
        "  2%| 1/9 [00:01<00:08]\r  4%| 2/9 [00:02<00:07]\n"
        "{'loss': 6.5, 'grad_norm': nan, 'learning_rate': 1e-05, 'epoch': 0.2}\n"
        "{'loss': inf, 'learning_rate': 0.0, 'epoch': 0.4}\n"
        " 66%| 6/9 [00:06<00:03]{'loss': 5.0, 'learning_rate': 0.0, 'epoch': 0.6}\n"
        "{'train_runtime': 12.5, 'train_loss': 5.5, 'epoch': 1.0}\n"
    )
    rows = read_kit_log(path)
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert math.isnan(rows[0]["grad_norm"])
    assert rows[1]["loss"] == math.inf
    assert "grad_norm" not in rows[1]
    assert summary(path)["train_runtime"] == 12.5


def test_numbers_are_read_where_transformers_prints_them_as_text(tmp_path, capsys):
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_callback import ProgressCallback

    bar, state = ProgressCallback(), TrainerState(max_steps=4)
    arguments, control = TrainingArguments(output_dir=str(tmp_path / "out")), TrainerControl()
    bar.on_train_begin(arguments, state, control)
    for step, loss in ((2, 4.2131), (4, math.nan)):
        state.global_step = step
        bar.on_step_end(arguments, state, control)
        bar.on_log(arguments, state, control, logs={"loss": loss, "learning_rate": 2e-5})
    bar.on_log(arguments, state, control, logs={"train_runtime": 12.25, "train_loss": 4.0})
    printed = capsys.readouterr()
    assert "'loss': '4.213'" in printed.out
    path = tmp_path / "train.log"
    path.write_text(printed.out)
    rows = read_kit_log(path)
    assert [row["step"] for row in rows] == [1, 2]
    assert (rows[0]["loss"], rows[0]["learning_rate"]) == (4.213, 2e-5)
    assert math.isnan(rows[1]["loss"])
    assert summary(path)["train_runtime"] == 12.25


def test_what_this_studio_prints_is_read(tmp_path):
    path = tmp_path / "output.log"
    path.write_text(
        "step 1/3  loss 5.1000  lr 1.00e-03  norm 2.125  9.5 samples/s  800 tokens/s  1.25 GiB\n"
        "step 2/3  loss -  lr 5.00e-04  norm -  9.0 samples/s  700 tokens/s\n"
        "=== attempt 2 ===\nresumed at step 1\n"
        "step 2/3  loss 4.5000  lr 5.00e-04  norm 1.500  9.0 samples/s  700 tokens/s\n"
    )
    first, lost, again = read_kit_log(path)
    assert first == {
        "step": 1, "attempt": 1, "loss": 5.1, "learning_rate": 1e-3, "grad_norm": 2.125,
        "samples_per_second": 9.5,
    }  # fmt: skip
    assert (lost["loss"], lost["grad_norm"], lost["attempt"]) == (None, None, 1)
    assert (again["step"], again["attempt"], again["loss"]) == (2, 2, 4.5)


def test_each_training_of_a_log_stands_for_itself(tmp_path):
    path = tmp_path / "both.log"
    summary_ = "{'train_runtime': 1.0, 'epoch': 1.0}\n"
    path.write_text(f"{{'loss': 6.0}}\n{{'loss': 5.0}}\n{summary_}{{'loss': 3.0}}\n{summary_}")
    losses = [[row["loss"] for row in rows] for rows in read_trainings(path)]
    assert losses == [[6.0, 5.0], [3.0]]
    assert read_kit_log(path)[0]["step"] == 1


def test_a_log_without_training_is_refused(tmp_path):
    path = tmp_path / "other.log"
    path.write_text("hello {'a': 1}\n")
    with pytest.raises(InputError, match="no training step"):
        read_kit_log(path)
    with pytest.raises(InputError, match="does not exist"):
        read_kit_log(tmp_path / "absent.log")


@pytest.mark.skipif(not REAL.exists(), reason="the kit's log lies beside the project only")
def test_the_kits_own_log_is_read():
    rows = read_kit_log(REAL)
    assert [row["step"] for row in rows] == list(range(50, 751, 50))
    assert rows[0]["loss"] == 6.7308
    assert rows[-1]["epoch"] == 0.96
    assert summary(REAL)["train_samples_per_second"] == 45.204
