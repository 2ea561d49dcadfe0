from __future__ import annotations

import math
from pathlib import Path

import pytest

from backend.errors import InputError
from backend.formats.kit_log import read_kit_log, summary

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
