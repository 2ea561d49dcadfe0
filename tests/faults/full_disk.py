"""Fills the disk below a run; runs inside a mount namespace of its own.

`python -m tests.faults.full_disk FOLDER`, FOLDER being a small file system.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from backend.runs import State
from backend.stages import STAGES
from backend.supervisor import start
from backend.workspace import Settings, Workspace
from tests.faults.conftest import counting, ended, wait_for
from tests.faults.studio import STEPS


def main() -> None:
    STAGES["steps"] = STEPS
    root = Path(sys.argv[1])
    run = start(Workspace.create(root / "ws", Settings(name="full")), "steps", {"steps": 1000})
    before = counting(run)
    filler = root / "filler"
    fill(filler)
    wait_for(lambda: not before.child.alive())
    fill(filler)
    # Long enough for the supervisor to see the end and to fail at writing it down.
    time.sleep(0.5)
    status = run.status()
    assert (status.state, status.supervised) == (State.RUNNING, True), status
    assert before.supervisor.alive()
    filler.unlink()
    status = ended(run)
    assert (status.state, status.reason.code) == (State.FAILED, "disk_full"), status
    assert run.written_status().state is State.FAILED


def fill(path: Path) -> None:
    """Append to `path` until not one byte more fits."""
    with path.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                continue


if __name__ == "__main__":
    main()
