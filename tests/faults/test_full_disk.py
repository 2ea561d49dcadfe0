"""A disk that is full ends the stage, but not the supervisor's watch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from backend.workspace import Workspace

# A user namespace lets anyone mount, where the kernel allows it.
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


def can_mount(folder: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def test_a_full_disk_delays_the_news_until_there_is_room(space: Workspace, tmp_path: Path):
    small = tmp_path / "small"
    small.mkdir()
    if not can_mount(small):
        pytest.skip("this machine lets nobody mount a small file system")
    script = 'mount -t tmpfs -o size=4m tmpfs "$1" && exec "$2" -m tests.faults.full_disk "$1"'
    argv = [*NAMESPACE, "sh", "-c", script, "sh", str(small), sys.executable]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
