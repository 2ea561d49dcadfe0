"""The commands and their arguments.

Results go to standard output (as JSON with `--json`), messages to standard error. Exit codes:
0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from backend.cli import data, judging, planning, runs, serving, workspaces
from backend.errors import SynthLoopError

DEFAULT_WORKSPACE = "workspace"


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    parsed = parser().parse_args(arguments)
    try:
        code: int = parsed.command(parsed)
        return code
    except SynthLoopError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted; runs that were started go on.", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read the output has seen enough; nothing may be written to it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def parser() -> argparse.ArgumentParser:
    """All commands."""
    top = argparse.ArgumentParser(prog="python -m backend", description=__doc__)
    top.add_argument(
        "-w",
        "--workspace",
        type=Path,
        default=Path(os.environ.get("SYNTHLOOP_WORKSPACE", DEFAULT_WORKSPACE)),
        help="the workspace's folder (default: %(default)s)",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for module in (workspaces, runs, planning, judging, data, serving):
        module.add_commands(commands)
    return top
