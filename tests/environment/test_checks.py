"""What the checks make of machines: with and without a device, large and small, odd and usual."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from backend.environment import checks, not_ready, readiness
from backend.environment.checking import Check
from backend.environment.disk import disk_checks, file_system_check, space_needed
from backend.environment.hardware import (
    device_check,
    device_free_check,
    device_lost_check,
    device_memory_check,
    held_by_others,
    host_memory_check,
    shared_memory_check,
)
from backend.environment.software import driver_checks, package_checks, pins
from backend.gpu import Device, DeviceProcess, DeviceReadings
from backend.messages import catalogue
from backend.workspace import Settings, Workspace

GIB = 1 << 30
NONE = DeviceReadings(error="no_driver")
CARD = DeviceReadings((Device(0, "Card", total=24 * GIB, used=GIB),), driver="580.95.05")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "space", Settings(name="checked"))


def state(check: Check) -> str:
    return check.state


def by_name(found: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in found}


def test_looking_imports_nothing_heavy():
    code = (
        "import sys, backend.environment, backend.assets, backend.stages.check, "
        "backend.stages.install, backend.stages.fetch; "
        "print([m for m in ('torch','transformers','datasets','data_juicer','ray','streamlit') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_check_has_its_words(workspace):
    for language in ("en", "zh"):
        known = catalogue(language)
        keys = [
            f"check.{check.name}.{part}"
            for check in checks(workspace)
            for part in ("title", "why", "remedy")
        ]
        assert [key for key in keys if key not in known] == []


def test_names_are_unique_and_an_empty_workspace_is_not_ready(workspace):
    found = checks(workspace)
    assert len({check.name for check in found}) == len(found)
    own = readiness(found, "starter")
    assert not own.ready
    assert set(own.blocking) >= {"asset_llm", "asset_mmbench_questions"}
    wanting = not_ready(found, "starter")
    assert not any(check.optional for check in wanting)
    assert not {"gpu", "driver", "torch_build"} & {check.name for check in wanting}


def test_no_device_is_missing_and_its_memory_unknown():
    assert state(device_check(NONE)) == "missing"
    assert state(device_memory_check(NONE, None)) == "unknown"
    assert state(device_free_check(NONE)) == "unknown"


def test_a_driver_that_does_not_answer_is_unknown_not_missing():
    check = device_check(DeviceReadings(error="driver/library version mismatch"))
    assert (check.state, check.found) == ("unknown", "driver/library version mismatch")


def test_a_lost_device_is_told_from_a_lost_machine():
    lost = Device(1, "Card", error="lost")
    both = DeviceReadings((*CARD.devices, lost))
    assert [state(device_check(both)), state(device_lost_check(both))] == ["ok", "warning"]
    assert state(device_lost_check(DeviceReadings((lost,)))) == "failed"
    assert state(device_lost_check(CARD)) == "ok"
    assert state(device_lost_check(NONE)) == "unknown"


def test_the_budget_counts_where_it_is_smaller_than_the_card():
    assert state(device_memory_check(CARD, None)) == "ok"
    check = device_memory_check(CARD, 4 * GIB)
    assert (check.state, check.found) == ("failed", "4.0 GiB / 24.0 GiB")
    assert device_memory_check(CARD, 80 * GIB).found == "24.0 GiB"


def test_memory_held_by_others_is_a_warning():
    busy = DeviceReadings((Device(0, "Card", total=24 * GIB, used=20 * GIB),))
    assert state(device_free_check(CARD)) == "ok"
    assert state(device_free_check(busy)) == "warning"
    own = DeviceProcess(4711, 19 * GIB)
    ours = DeviceReadings((replace(busy.devices[0], processes=(own,)),))
    assert state(device_free_check(ours, {4711})) == "ok"
    assert state(device_free_check(ours, {4712})) == "warning"
    unknown = DeviceReadings((Device(0, "Card", total=24 * GIB, used=None),))
    assert state(device_free_check(unknown)) == "unknown"


def test_memory_that_may_be_our_own_is_not_held_against_others():
    busy = Device(0, "Card", total=24 * GIB, used=20 * GIB)
    untold = replace(busy, processes=(DeviceProcess(4711, None),))
    assert held_by_others(untold, {4711}) is None
    assert held_by_others(untold, {4712}) == 20 * GIB
    assert held_by_others(busy, {4711}) is None
    assert held_by_others(busy, ()) == 20 * GIB
    assert state(device_free_check(DeviceReadings((untold,)), {4711})) == "unknown"


@pytest.mark.parametrize(
    ("total", "profile", "expected"),
    [
        (2, "starter", "failed"),
        (8, "starter", "ok"),
        (8, "mgm-2b", "warning"),
        (32, "mgm-2b", "ok"),
    ],
)
def test_host_memory_is_judged_by_the_profile(total, profile, expected):
    assert state(host_memory_check(total * GIB, profile)) == expected


def test_a_containers_shared_memory_is_a_warning():
    assert state(shared_memory_check(64 << 20)) == "warning"
    assert state(shared_memory_check(None)) == "unknown"


@pytest.mark.parametrize(
    ("readings", "cuda", "driver", "build"),
    [
        (CARD, "13.0", "ok", "ok"),
        (CARD, "12.8", "ok", "ok"),
        (CARD, "", "ok", "failed"),
        (NONE, "", "missing", "warning"),
        (DeviceReadings(CARD.devices, driver="550.54"), "13.0", "failed", "ok"),
        (DeviceReadings(CARD.devices), "13.0", "unknown", "ok"),
    ],
)
def test_driver_and_torch_must_fit_each_other(readings, cuda, driver, build):
    found = by_name(driver_checks(readings, cuda))
    assert (found["driver"].state, found["torch_build"].state) == (driver, build)


def test_tools_that_are_not_there_are_missing_but_optional():
    found = by_name(driver_checks(NONE, "", which=lambda _: None))
    assert found["compiler"].state == "missing"
    assert found["compiler"].optional
    assert by_name(driver_checks(NONE, "", which=lambda name: f"/bin/{name}"))["nvcc"].state == "ok"


def packages(tmp_path: Path, **versions: str) -> dict[str, Check]:
    path = tmp_path / "requirements.txt"
    path.write_text("# why\ntorch==2.13.0\nray[default]==2.60.0\nbitsandbytes==0.50.2\n")
    return by_name(package_checks(lambda name: versions.get(name), path))


def test_pins_are_compared_without_the_build(tmp_path):
    found = packages(tmp_path, torch="2.13.0+cpu", ray="2.60.0", bitsandbytes="0.50.2")
    assert (found["pins"].state, found["pins"].found) == ("ok", "3")


def test_a_missing_package_blocks_and_another_version_warns(tmp_path):
    found = packages(tmp_path, torch="2.11.0", ray="2.60.0")
    assert (found["pins"].state, found["pins"].found) == ("warning", "1: torch 2.11.0")
    found = packages(tmp_path, torch="2.13.0")
    assert (found["pins"].state, found["pins"].found) == ("missing", "1: ray")
    assert readiness(found.values(), "starter").blocking == ("pins",)
    assert found["pins"].remedy.value == "pip install -r requirements.txt"


def test_an_accelerator_that_is_missing_blocks_nothing(tmp_path):
    found = packages(tmp_path, torch="2.13.0", ray="2.60.0")
    assert found["pins"].state == "ok"
    assert (found["bitsandbytes"].state, found["bitsandbytes"].optional) == ("missing", True)
    assert found["bitsandbytes"].remedy.value == "bitsandbytes"


def test_packages_that_break_others_are_named(tmp_path):
    found = packages(tmp_path, torch="2.13.0", ray="2.60.0", torchvision="0.28.0")
    assert (found["strangers"].state, found["strangers"].found) == ("warning", "torchvision")


def test_the_pins_of_this_checkout_are_read():
    assert pins()["torch"] == "2.13.0"
    assert pins()["ray"]


def test_room_is_asked_for_by_what_training_leaves(workspace):
    small = space_needed(workspace)
    workspace.settings.profile = "mgm-2b"
    large = space_needed(workspace)
    workspace.settings.retention_checkpoints = 3
    assert small < large < space_needed(workspace)


def test_a_disk_without_room_blocks(workspace):
    workspace.settings.profile = "mgm-2b"
    workspace.settings.retention_checkpoints = 10**9
    assert by_name(disk_checks(workspace))["disk_free"].state == "failed"


def test_a_folder_that_cannot_be_written_to_is_named(workspace):
    workspace.runs.rmdir()
    check = by_name(disk_checks(workspace))["disk_writable"]
    assert check.state == "failed"
    assert str(workspace.runs) in check.found


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("ext4", "ok"), ("nfs4", "warning"), ("tmpfs", "warning"), (None, "unknown")],
)
def test_file_systems(kind, expected):
    assert state(file_system_check(kind)) == expected


def test_unknown_is_not_ready_by_name_and_does_not_block():
    found = [Check("a", "disk", "unknown", blocks=("starter",))]
    one = readiness(found, "starter")
    assert (one.ready, one.unknown) == (True, ("a",))
