"""Nothing is ever installed while Data-Juicer runs: not by it, not by its operators."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.errors import InputError
from backend.synthesis.guard import guard_environment
from tests.seeds import make_workspace
from tests.synthesis.recipes import synthesize

CASES = {
    "nlpaug_en_mapper": "nlpaug",
    "image_deduplicator": "imagededup",
    "image_face_count_filter": "opencv-contrib-python",
}
"""Operators that need a package which is not installed here."""
TRY = """
import subprocess, sys, os
from pathlib import Path
from backend.synthesis.guard import guarded_operators
guarded_operators(Path(sys.argv[1]))
tries = {
    "lazy": lambda: __import__("data_juicer.utils.lazy_loader", fromlist=["x"]).LazyLoader(
        "no_such_package_here").anything,
    "ensure": lambda: __import__("data_juicer.utils.lazy_loader", fromlist=["x"]).LazyLoader
        .check_packages(["no_such_package_here"]),
    "pip": lambda: subprocess.run([sys.executable, "-m", "pip", "install", "left-pad"]),
    "pip3": lambda: subprocess.check_call(["pip3", "install", "left-pad"]),
    "uv": lambda: subprocess.Popen(["/usr/local/bin/uv", "pip", "install", "left-pad"]),
    "shell": lambda: os.system("cd /tmp && pip install left-pad"),
    "shell text": lambda: subprocess.run("git clone somewhere", shell=True),
    "import": lambda: __import__("pip"),
    "ensurepip": lambda: __import__("ensurepip").bootstrap(),
}
for name, attempt in tries.items():
    try:
        attempt()
    except (ImportError, PermissionError) as error:
        print(name, type(error).__name__, error, sep="|")
    else:
        print(name, "WENT THROUGH", sep="|")
print("harmless", subprocess.run(["true"]).returncode, sep="|")
"""


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What came of each way to install, with installers on PATH that leave a trace."""
    root = tmp_path_factory.mktemp("guard")
    trap = root / "installers"
    trap.mkdir()
    for name in ("pip", "pip3", "uv", "git"):
        (trap / name).write_text(f"#!/bin/sh\ntouch {root}/called-$(basename $0)\n")
        (trap / name).chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(root / "cache")],
        env=os.environ | {"PATH": f"{trap}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(path.name for path in root.glob("called-*")) == []
    return dict(line.split("|", 1) for line in done.stdout.splitlines() if "|" in line)


@pytest.mark.parametrize("way", ["lazy", "ensure", "import", "ensurepip"])
def test_a_package_that_is_missing_is_named_and_not_fetched(attempts, way):
    assert attempts[way].startswith("PackageMissingError|")
    named = {"import": "pip", "ensurepip": "ensurepip"}.get(way, "no_such_package_here")
    assert named in attempts[way]


@pytest.mark.parametrize("way", ["pip", "pip3", "uv", "shell", "shell text"])
def test_no_installer_can_be_started(attempts, way):
    assert attempts[way].startswith("InstallRefusedError|")


def test_other_programs_run(attempts):
    assert attempts["harmless"] == "0"


@pytest.mark.parametrize(("operator", "package"), CASES.items())
def test_an_operator_that_lacks_a_package_ends_in_an_error(juicer, tmp_path, operator, package):
    workspace = make_workspace(tmp_path, 2)
    with pytest.raises(InputError) as error:
        synthesize(juicer, workspace, f"process:\n  - {operator}:\n")
    assert f"needs the package '{package}" in error.value.problem
    assert error.value.place == f"{workspace.recipes / 'test.yaml'}, line 2, {operator}"


def test_children_of_the_stage_inherit_the_guard(tmp_path: Path):
    environment = guard_environment(tmp_path)
    assert environment["PIP_NO_INDEX"] == environment["UV_OFFLINE"] == "1"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "left-pad", "-d", str(tmp_path)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert list(tmp_path.iterdir()) == []
