"""The real pynvml on a stand-in for the driver's library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.gpu import Device, DeviceProcess, DeviceReadings, process_memory

ROOT = Path(__file__).parents[2]
MIB = 2**20
READ = """
import json, os, sys
from dataclasses import asdict
from pathlib import Path
from backend.gpu import process_memory, read_devices
for state in json.loads(sys.argv[1]):
    Path(os.environ["FAKE_NVML_STATE"]).write_text(state)
    readings = read_devices()
    print(json.dumps({**asdict(readings), "ours": process_memory(readings, {11, 12})}))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    source = ROOT / "tests" / "data" / "nvml_stub.c"
    target = folder / "libnvidia-ml.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", target, source], check=True)
    return folder


def read(tmp_path: Path, library: Path | None, *states: str) -> list[dict]:
    """What a process reads while the driver says one state after the other."""
    environment = {**os.environ, "FAKE_NVML_STATE": str(tmp_path / "state")}
    if library is not None:
        environment["LD_LIBRARY_PATH"] = str(library)
    argv = [sys.executable, "-c", READ, json.dumps(states)]
    done = subprocess.run(
        argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_two_cards_are_read_with_their_processes(tmp_path: Path, library: Path):
    cards = (
        "A100;81920;1000;37;12;41;123000;400000;11:600,99:300",
        "A100;81920;500;0;0;30;60500;400000;12:200",
    )
    (readings,) = read(tmp_path, library, "\n".join(cards))
    first, second = readings["devices"]
    assert (first["name"], first["total"], first["used"]) == ("A100", 81920 * MIB, 1000 * MIB)
    assert (first["utilization"], first["temperature_c"]) == (37, 41)
    assert (second["index"], second["power_w"], second["power_limit_w"]) == (1, 60.5, 400)
    assert second["uuid"] != first["uuid"]
    assert second["processes"] == [{"pid": 12, "memory": 200 * MIB}]
    assert (readings["error"], readings["driver"]) == (None, "580.159.04")
    assert readings["ours"] == 800 * MIB


def test_a_lost_card_does_not_hide_the_others(tmp_path: Path, library: Path):
    state = "L4;1000;1;1;1;1;1;1;LOST\nL4;1000;7;1;1;1;1;1;"
    (readings,) = read(tmp_path, library, state)
    lost, well = readings["devices"]
    assert (lost["error"], lost["used"], lost["name"]) == ("lost", None, None)
    assert (well["error"], well["used"]) == (None, 7 * MIB)


def test_what_a_card_does_not_tell_is_unknown_and_not_zero(tmp_path: Path, library: Path):
    (readings,) = read(tmp_path, library, "T4;1000;5;0;0;0;0;0;NOTSUP")
    (device,) = readings["devices"]
    assert device["used"] == 5 * MIB
    unknown = ("utilization", "power_w", "power_limit_w", "temperature_c", "processes", "error")
    assert [device[name] for name in unknown] == [None] * 6
    assert readings["ours"] is None


def test_a_process_of_unknown_memory_makes_the_sum_unknown(tmp_path: Path, library: Path):
    state = f"T4;1000;5;0;0;0;0;0;11:200,12:{2**64 - 1}"
    (readings,) = read(tmp_path, library, state)
    assert readings["devices"][0]["processes"][1] == {"pid": 12, "memory": None}
    assert readings["ours"] is None


def test_the_open_library_sees_what_changes(tmp_path: Path, library: Path):
    states = [f"T4;1000;{used};0;0;0;0;0;" for used in (5, 6)]
    before, after = read(tmp_path, library, *states)
    assert [one["devices"][0]["used"] for one in (before, after)] == [5 * MIB, 6 * MIB]


def test_a_machine_without_driver_says_so(tmp_path: Path):
    readings = read(tmp_path, None, "", "")
    assert [(one["devices"], one["error"], one["ours"]) for one in readings] == [
        ([], "no_driver", None)
    ] * 2


def test_pids_that_the_driver_does_not_list_are_unknown():
    device = Device(index=0, processes=(DeviceProcess(5, 100),))
    assert process_memory(DeviceReadings((device,)), {6}) is None
    assert process_memory(DeviceReadings((device,)), {5, 6}) == 100
