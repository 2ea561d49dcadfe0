"""Two processes, plain and under ZeRO 1, 2 and 3, train as one process does, and resume exactly."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from backend.files import read_lines
from backend.runs import Run, State
from backend.workspace import Workspace
from tests.training.several import digests, train_together
from tests.training.small import losses, new_run, seen, trained, weights

SETTINGS: dict[str, Any] = {
    "micro_batch_size": 1,
    "lora_rank": 4,
    "lora_dropout": 0.0,
    "drop_path": False,
    "max_steps": 4,
}
FULL = [f"{method}-{stage}" for method, stage in product(("full", "lora"), range(4))]
VARIANTS: dict[str, dict[str, Any]] = {
    **{
        name: {"method": name.split("-")[0], "zero_stage": int(name.split("-")[1])}
        for name in FULL
    },
    "clipped": {"method": "full", "zero_stage": 2, "max_grad_norm": 0.5},
    "kit": {
        "method": "full", "zero_stage": 2, "offload": "optimizer", "precision": "fp32_master",
        "loss_chunk": 0,
    },
    "all-away": {
        "method": "lora", "zero_stage": 3, "offload": "optimizer_parameters",
        "precision": "fp32_master", "mining_checkpointing": True,
    },
    "weights-at-random": {
        "method": "full", "precision": "bf16_stochastic", "optimizer": "adamw_8bit",
    },
    "states-at-random": {
        "method": "full", "precision": "fp32_master", "optimizer": "adamw_bf16",
    },
}  # fmt: skip
ROUNDED_AT_RANDOM = [name for name in VARIANTS if name.endswith("at-random")]
INTERRUPTED = (0, 1, 2, 3)
"""ZeRO stages of runs that are stopped after two steps, with everything random switched on."""


class Runs:
    """Two-process runs by variant, with single-process ones to compare to."""

    def __init__(self, workspace: Workspace, scratch: Any):
        self.workspace = workspace
        self.runs = {name: self._new("finetune", values) for name, values in VARIANTS.items()}
        self.projector = self._new("pretrain", {"zero_stage": 3})
        noisy = {"drop_path": True, "method": "lora", "lora_dropout": 0.3}
        self.whole, self.stopped = (
            {stage: self._new("finetune", noisy | {"zero_stage": stage}) for stage in INTERRUPTED}
            for _ in range(2)
        )
        plan = [{"run": str(run.path)} for run in (*self.runs.values(), *self.whole.values())]
        plan.append({"run": str(self.projector.path)})
        for run in self.stopped.values():
            plan.append({"run": str(run.path), "stop_at": 2})
            plan.append({"run": str(run.path), "attempt": 2})
        train_together(workspace, plan, scratch)
        self._alone: dict[str, Run] = {}

    def _new(self, stage: str, values: dict[str, Any]) -> Run:
        return new_run(self.workspace, stage, devices=2, **_known(stage, SETTINGS | values))

    def alone(self, stage: str, **values: Any) -> Run:
        """The same training in this process."""
        key = f"{stage} {sorted(values.items())}"
        if key not in self._alone:
            self._alone[key] = trained(self.workspace, stage, **_known(stage, SETTINGS | values))
        return self._alone[key]


def _known(stage: str, values: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if stage == "finetune" or not k.startswith("lora")}


@pytest.fixture(scope="module")
def runs(space: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(space, tmp_path_factory.mktemp("several"))


def close(run: Run, base: Run, *, curve: float, values: float) -> None:
    assert_close(torch.tensor(losses(run)), torch.tensor(losses(base)), rtol=curve, atol=curve)
    norms = [[row["grad_norm"] for row in read_lines(one.metrics_path)] for one in (run, base)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3 if curve < 1e-3 else 2e-2)
    found, wanted = weights(run.artifacts), weights(base.artifacts)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        assert_close(
            found[name], value, rtol=0, atol=values, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("variant", FULL)
def test_every_stage_trains_as_one_process_does(runs: Runs, variant: str) -> None:
    base = runs.alone("finetune", method=variant.split("-")[0])
    close(runs.runs[variant], base, curve=1e-5, values=2e-4)


def test_the_projector_alone_too(runs: Runs) -> None:
    close(runs.projector, runs.alone("pretrain"), curve=1e-5, values=2e-4)


def test_gradients_are_clipped_under_zero_as_in_plain_training(runs: Runs) -> None:
    base = runs.alone("finetune", method="full", max_grad_norm=0.5)
    close(runs.runs["clipped"], base, curve=1e-5, values=2e-4)
    assert losses(base) != losses(runs.alone("finetune", method="full"))


@pytest.mark.parametrize("variant", ["kit", "all-away"])
def test_masters_on_the_host_are_those_of_plain_training(runs: Runs, variant: str) -> None:
    method = VARIANTS[variant]["method"]
    base = runs.alone("finetune", method=method, precision="fp32_master")
    close(runs.runs[variant], base, curve=3e-3, values=1e-2)


@pytest.mark.parametrize("variant", ROUNDED_AT_RANDOM)
def test_rounding_at_random_is_that_of_one_process(runs: Runs, variant: str) -> None:
    base = runs.alone("finetune", **VARIANTS[variant])
    close(runs.runs[variant], base, curve=3e-3, values=1e-2)


def test_processes_without_zero_hold_the_same_weights(runs: Runs) -> None:
    plain = [runs.runs[name] for name in ("full-0", "lora-0", *ROUNDED_AT_RANDOM)]
    for run in (*plain, runs.whole[0], runs.stopped[0]):
        one, other = digests(run)
        assert one == other, run.spec.parameters


def test_batches_of_both_processes_are_kept(runs: Runs) -> None:
    base = runs.alone("finetune", method="full")
    for variant in FULL:
        if variant.startswith("full"):
            rows = [(step, sample) for step, sample, _ in seen(runs.runs[variant])]
            assert sorted(rows) == sorted((step, sample) for step, sample, _ in seen(base))


@pytest.mark.parametrize("stage", INTERRUPTED)
def test_a_run_that_one_process_stopped_goes_on_to_the_bit(runs: Runs, stage: int) -> None:
    stopped, whole = runs.stopped[stage], runs.whole[stage]
    rows = list(read_lines(stopped.metrics_path))
    assert [(row["step"], row["attempt"]) for row in rows] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert stopped.written_status().state is State.SUCCEEDED
    assert losses(stopped) == losses(whole)
    one, two = weights(stopped.artifacts), weights(whole.artifacts)
    assert all(torch.equal(one[name], two[name]) for name in two)
