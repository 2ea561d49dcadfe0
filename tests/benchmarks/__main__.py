"""`python -m tests.benchmarks [gpu …]`: measurements beside their alternatives, with a table."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Run what was asked for; its exit code."""
    top = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    commands = top.add_subparsers(dest="command")
    gpu = commands.add_parser("gpu", help="memory, speed and learning on this machine's device")
    gpu.add_argument("--out", type=Path, required=True, help="folder for the results")
    gpu.add_argument("--data", type=Path, help="real pairs: stage_1.json and images; else drawn")
    gpu.add_argument("--work", type=Path, help="scratch folder (20 GB)")
    gpu.add_argument("--seconds", type=float, default=3600, help="time for everything")
    gpu.add_argument("--tiny", action="store_true", help="a dry run with a tiny model")
    gpu.add_argument("--only", nargs="*", default=[], help="groups or names of jobs")
    gpu.add_argument("--at-once", type=int, default=8, help="processes at most")
    commands.add_parser("predict", help="write down what memory will be, before measuring")
    keep = commands.add_parser("keep", help="keep a call's results as data")
    keep.add_argument("folders", type=Path, nargs="+", help="all of them, in their order")
    commands.add_parser("memory", help="show the measured tables")
    asked = top.parse_args(arguments)
    # torchao tells each time that it was built for another torch, and is told so by torch.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if asked.command == "gpu":
        from tests.benchmarks.gpu import run

        with tempfile.TemporaryDirectory(prefix="synthloop-bench-") as scratch:
            return run(
                asked.out,
                asked.data,
                asked.work or Path(scratch),
                seconds=asked.seconds,
                tiny=asked.tiny,
                only=asked.only,
                at_once=asked.at_once,
            )
    if asked.command == "predict":
        from tests.benchmarks.configurations import all_jobs
        from tests.benchmarks.predictions import write

        write(all_jobs(80))
        return 0
    if asked.command == "keep":
        from tests.benchmarks.measured import collect
        from tests.benchmarks.recorded import keep_runs

        collect(asked.folders)
        keep_runs(asked.folders)
        return 0
    from tests.benchmarks.render import render

    if asked.command is None:
        from tests.benchmarks.processor import tables

        print(tables())
    print(render())
    if asked.command is None:
        presets_here()
    return 0


def presets_here() -> None:
    """Every preset beside its naive form on this machine's device, where there is one."""
    import torch

    if not torch.cuda.is_available():
        print("No GPU here: the tables above are of the machine that they name.")
        return
    from tests.benchmarks.gpu import run
    from tests.benchmarks.measured import collect
    from tests.benchmarks.render import render

    with tempfile.TemporaryDirectory(prefix="synthloop-bench-") as scratch:
        out = Path(scratch) / "out"
        run(out, None, Path(scratch) / "work", seconds=1800, only=("fit", "kit", "speed"))
        collect([out], Path(scratch) / "measured.json")
        print(render(Path(scratch) / "measured.json"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
