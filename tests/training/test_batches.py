"""Which samples each step saw, kept in parts that are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from backend.training import batches
from backend.training.batches import SCHEMA, BatchLog


def rows(folder: Path) -> list[dict[str, object]]:
    return [
        row for part in sorted(folder.glob("part-*")) for row in pq.read_table(part).to_pylist()
    ]


def test_rows_name_step_sample_loss_and_attempt(tmp_path: Path) -> None:
    log = BatchLog(tmp_path / "batches", attempt=2)
    log.add(7, ["a", "b"], [1.5, float("nan")])
    log.flush()
    assert rows(tmp_path / "batches") == [
        {"step": 7, "sample_id": "a", "loss": 1.5, "attempt": 2},
        {"step": 7, "sample_id": "b", "loss": None, "attempt": 2},
    ]
    assert pq.read_schema(next((tmp_path / "batches").glob("part-*"))).equals(SCHEMA)


def test_a_later_attempt_adds_parts_and_keeps_the_earlier_ones(tmp_path: Path) -> None:
    for attempt in (1, 2):
        log = BatchLog(tmp_path / "batches", attempt)
        log.add(attempt, ["a"], [0.5])
        log.flush()
        log.flush()
    assert [row["attempt"] for row in rows(tmp_path / "batches")] == [1, 2]
    assert len(list((tmp_path / "batches").iterdir())) == 2


def test_a_full_part_is_written_without_being_asked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(batches, "PART_ROWS", 4)
    log = BatchLog(tmp_path / "batches", 1)
    log.add(1, ["a", "b", "c"], [1.0, 2.0, 3.0])
    assert rows(tmp_path / "batches") == []
    log.add(2, ["d"], [4.0])
    assert len(rows(tmp_path / "batches")) == 4
