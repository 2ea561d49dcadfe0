from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.files import write_json
from backend.supervisor.turns import DeviceQueue


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SYNTHLOOP_STATE_DIR", str(tmp_path))
    return tmp_path


def test_the_first_in_line_gets_the_device_and_the_next_waits():
    queue = DeviceQueue("0")
    late, early = (
        queue.take_ticket("late", 2.0, os.getpid()),
        queue.take_ticket("early", 1.0, os.getpid()),
    )
    assert queue.try_acquire(late) is None
    held = queue.try_acquire(early)
    assert held is not None
    assert queue.try_acquire(late) is None
    os.close(held)
    assert queue.try_acquire(late) is not None
    assert queue.tickets() == []


def test_tickets_of_the_dead_are_removed():
    queue = DeviceQueue("0")
    write_json(queue.folder / f"{1:017.6f}-dead.ticket", {"pid": os.getpid(), "create_time": 1.0})
    mine = queue.take_ticket("mine", 2.0, os.getpid())
    assert queue.tickets() == [mine]


def test_a_ticket_is_returned_by_whoever_gives_up():
    queue = DeviceQueue("0")
    queue.take_ticket("mine", 1.0, os.getpid())
    assert queue.wait("mine", 1.0, 0.01, lambda: True) is None
    assert queue.tickets() == []


def test_a_lost_ticket_is_taken_again():
    queue = DeviceQueue("0")
    held = queue.wait("mine", 1.0, 0.01, lambda: False)
    assert held is not None
    asked = 0

    def after_a_thief() -> bool:
        nonlocal asked
        asked += 1
        assert asked == 1 or len(queue.tickets()) == 1
        queue.return_ticket("next", 2.0)
        if asked == 3:
            os.close(held)
        return asked > 9

    assert queue.wait("next", 2.0, 0.01, after_a_thief) is not None


def test_devices_have_queues_of_their_own_and_no_path_in_their_name(state: Path):
    first = DeviceQueue("0")
    other = DeviceQueue("../GPU-1/x")
    assert (first.try_acquire(first.take_ticket("a", 1.0, os.getpid()))) is not None
    assert (other.try_acquire(other.take_ticket("b", 1.0, os.getpid()))) is not None
    assert other.folder.parent == state
