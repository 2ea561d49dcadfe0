"""Cards have one name each, however the environment names them."""

from __future__ import annotations

import pytest

from backend.gpu import Device, DeviceReadings, visible, visible_cards, visible_devices

FOUR = DeviceReadings(tuple(Device(i, uuid=f"GPU-{i}a{i}a-77") for i in range(4)))
UNKNOWN = DeviceReadings(error="no_driver")


def name(monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    """Let the environment name these cards; None names none."""
    if given is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)


@pytest.mark.parametrize(
    ("given", "cards"),
    [
        (None, ["0", "1", "2", "3"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2", ["2"]),
        ("3, 01", ["3", "1"]),
        ("GPU-2a2a-77", ["2"]),
        ("GPU-2a,0,GPU-1", ["2", "0", "1"]),
        ("1,GPU-1a", ["1"]),
        ("1,9,2", ["1"]),
        ("1,-1,2", ["1"]),
        ("GPU-", []),
        ("GPU-9", []),
        ("MIG-3fd2/1/0", ["MIG-3fd2/1/0"]),
    ],
)
def test_a_card_has_one_name(
    monkeypatch: pytest.MonkeyPatch, given: str | None, cards: list[str]
) -> None:
    name(monkeypatch, given)
    assert visible_cards(FOUR) == cards


@pytest.mark.parametrize(
    ("given", "cards"), [("1,0", ["1", "0"]), ("GPU-2a", ["GPU-2a"]), ("", []), (None, [])]
)
def test_without_a_driver_to_ask_names_are_taken_as_they_are(
    monkeypatch: pytest.MonkeyPatch, given: str | None, cards: list[str]
) -> None:
    name(monkeypatch, given)
    assert visible_cards(UNKNOWN) == cards


def test_readings_are_those_of_the_cards_that_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visible, "read_devices", lambda: FOUR)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-2a,0,MIG-3fd2/1/0")
    assert [device.index for device in visible_devices()] == [2, 0]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_devices() == []
