"""A stage in a process that may not take more memory than it has once everything is imported.

`python -m tests.memory.dying RUN_DIR STAGE MIB`
"""

from __future__ import annotations

import resource
import sys
from importlib import import_module
from pathlib import Path

from backend.stages.base import stage_main


def main() -> None:
    """Train until memory runs out; the outcome is the stage's own."""
    run, stage, spare = sys.argv[1:]
    sys.argv = [sys.argv[0], run]
    module = import_module(f"backend.stages.{stage}")
    import_module("backend.training.trainer")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(spare) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    stage_main(module.Parameters, module.main)


if __name__ == "__main__":
    main()
