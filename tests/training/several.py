"""Several training runs one after another in the same processes, so that these start only once.

`python -m torch.distributed.run … -m tests.training.several PLAN.json`
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from backend.runs import Run, State
from backend.stages import stage as stage_named
from backend.stages.base import StopRequested, validated
from backend.stages.training_worker import WorkerContext
from backend.training.launching import ROOT, environment
from backend.workspace import Workspace
from tests.training.small import set_state


def train_together(workspace: Workspace, plan: list[dict[str, Any]], scratch: Path) -> None:
    """Train runs in two processes.

    Args:
        workspace: Of the runs.
        plan: For each its `run`, and `stop_at` or `attempt` where it is stopped or resumed.
        scratch: Where the plan is written to.
    """
    file = scratch / "plan.json"
    file.write_text(json.dumps({"workspace": str(workspace.root), "runs": plan}))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "tests.training.several", str(file),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]


class _Context(WorkerContext):
    """Is asked to stop when it has done a step."""

    stop_at: int | None = None
    done = 0

    @property
    def stop_requested(self) -> bool:
        return self.done == self.stop_at

    @stop_requested.setter
    def stop_requested(self, value: bool) -> None:
        assert not value


def _train(workspace: Workspace, rank: int, item: dict[str, Any]) -> None:
    from torch import distributed

    from backend.training.trainer import Trainer

    run, attempt = Run(Path(item["run"])), item.get("attempt", 1)
    if rank == 0:
        set_state(run, State.RUNNING, attempt)
    distributed.barrier()
    module = import_module(stage_named(run.spec.stage).module)
    parameters = validated(module.Parameters, run)
    context = _Context(workspace, run, rank)
    # Only one of them is asked: all have to agree.
    context.stop_at = item.get("stop_at") if rank == 1 else None

    class Counting(Trainer):
        def _one_step(self, stream: Any) -> bool:
            context.done = self.step + 1
            return super()._one_step(stream)

    trainer = Counting(context, parameters, module.job(workspace, parameters))
    try:
        trainer.train()
        state = State.SUCCEEDED
    except StopRequested:
        state = State.STOPPED
    _digest_file(run, rank).write_text(_digest(trainer.mgm.model))
    if rank == 0:
        set_state(run, state, attempt)
    distributed.barrier()


def digests(run: Run) -> list[str]:
    """A checksum of all weights, as each of the two processes held them at the end."""
    return [_digest_file(run, rank).read_text() for rank in range(2)]


def _digest_file(run: Run, rank: int) -> Path:
    return run.path / f"digest-{rank}.txt"


def _digest(model: Any) -> str:
    found = sha256()
    for value in model.state_dict().values():
        found.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def main() -> None:
    from backend.training import ranks

    ranks.join()
    plan = json.loads(Path(sys.argv[1]).read_text())
    workspace = Workspace.open(Path(plan["workspace"]))
    for item in plan["runs"]:
        _train(workspace, int(os.environ["RANK"]), item)
    ranks.leave()


if __name__ == "__main__":
    main()
