"""Every lever that saves memory or time gives the results of the run without it."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from backend.files import read_lines
from backend.mgm.weights import read_weights
from backend.runs import Run
from backend.workspace import Workspace
from tests.training.small import losses, trained, weights

LEVERS: dict[str, dict[str, Any]] = {
    "activation_checkpointing": {"activation_checkpointing": True},
    "mining_checkpointing": {"mining_checkpointing": True},
    "tower_chunk": {"tower_chunk": 1},
    "loss_chunk": {"loss_chunk": 3},
    "mlp_chunk": {"mlp_chunk": 50},
    "attention": {"attention": "eager"},
    "compile": {"compile": True},
    "image_workers": {"image_workers": 3},
    "all": {
        "activation_checkpointing": True,
        "mining_checkpointing": True,
        "tower_chunk": 1,
        "loss_chunk": 7,
        "mlp_chunk": 64,
        "image_workers": 2,
    },
}
NONE = {"activation_checkpointing": False, "loss_chunk": 0, "lora_rank": 4, "lora_dropout": 0.0}
METHODS = ("projector", "full", "lora")
# Fused and chunked sums round otherwise, and Adam turns the sign of a vanishing gradient into a
# step of the learning rate (1e-3): hence the weights' bound.
CURVE, WEIGHTS = {"rtol": 1e-5, "atol": 1e-5}, {"rtol": 1e-4, "atol": 2e-4}


def train(space: Workspace, method: str, **levers: Any) -> Run:
    settings = NONE | {"drop_path": False} | levers
    if method == "projector":
        return trained(
            space, "pretrain", **{k: v for k, v in settings.items() if not k.startswith("lora_")}
        )
    return trained(space, "finetune", method=method, **settings)


@pytest.fixture(scope="module")
def plain(space: Workspace) -> dict[str, Run]:
    return {method: train(space, method) for method in METHODS}


@pytest.mark.parametrize(
    ("method", "lever"),
    [pair for pair in product(METHODS, LEVERS) if pair != ("projector", "compile")],
)
def test_a_lever_changes_neither_curve_nor_weights(
    space: Workspace, plain: dict[str, Run], method: str, lever: str
) -> None:
    run, base = train(space, method, **LEVERS[lever]), plain[method]
    assert_close(torch.tensor(losses(run)), torch.tensor(losses(base)), **CURVE)
    norms = [[row["grad_norm"] for row in read_lines(one.metrics_path)] for one in (run, base)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    found, wanted = weights(run.artifacts), weights(base.artifacts)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert_close(found[name], value, **WEIGHTS, msg=lambda text, n=name: f"{n}: {text}")
    assert [event["code"] for event in run.events() if event["level"] == "warning"] == []


@pytest.mark.parametrize(
    ("precision", "optimizer"),
    [
        ("fp32_master", "adamw"),
        ("fp32_master", "adamw_bf16"),
        ("fp32_master", "adamw_8bit"),
        ("bf16_stochastic", "adamw_8bit"),
        ("bf16_stochastic", "paged_adamw_8bit"),
        ("bf16_stochastic", "adamw_bf16"),
        ("bf16", "adamw"),
    ],
)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_narrow_numbers_learn_nearly_alike(
    space: Workspace, plain: dict[str, Run], method: str, precision: str, optimizer: str
) -> None:
    run = train(space, method, precision=precision, optimizer=optimizer)
    assert losses(run) == pytest.approx(losses(plain[method]), rel=0.03)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_bf16", "adamw_8bit"])
def test_at_a_small_rate_rounding_at_random_goes_as_far_as_fp32_and_bf16_alone_does_not(
    space: Workspace, optimizer: str
) -> None:
    """The layers' weights are about 0.1, and half a step of bf16 there is ten times the rate."""
    (file,) = space.asset("llm").glob("*.safetensors")
    start = {name: value for name, value in read_weights(file).items() if "_proj." in name}

    def way(precision: str, **chosen: Any) -> torch.Tensor:
        run = train(space, "full", precision=precision, learning_rate=2e-5, **chosen)
        end, kind = weights(run.artifacts), {"fp32": torch.float32}.get(precision, torch.bfloat16)
        ways = [(end[name].double() - value.to(kind).double()) for name, value in start.items()]
        return torch.cat([one.flatten() for one in ways])

    exact = way("fp32")

    def share(precision: str) -> float:
        """How far the weights went along the exact way, 1 for all of it."""
        return float(way(precision, optimizer=optimizer) @ exact / (exact @ exact))

    assert share("bf16_stochastic") == pytest.approx(1, abs=0.1)
    assert share("bf16") < 0.2


def test_quantized_layers_learn_as_lora_does(space: Workspace, plain: dict[str, Run]) -> None:
    run = train(space, "qlora")
    assert losses(run) == pytest.approx(losses(plain["lora"]), rel=0.1)
    lean = train(space, "qlora", **LEVERS["all"])
    assert losses(lean) == pytest.approx(losses(run), rel=1e-4)


def test_what_cannot_be_compiled_runs_as_it_is_and_says_so(
    space: Workspace, plain: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    from backend.training import compiling

    def no_compiler(*_: Any) -> None:
        raise RuntimeError("no C++ compiler found\nand many more lines")

    monkeypatch.setattr(compiling, "_try_out", no_compiler)
    run = train(space, "full", compile=True)
    told = [event for event in run.events() if event["code"] == "compile_unavailable"]
    assert [event["values"]["error"] for event in told] == ["RuntimeError: no C++ compiler found"]
    assert losses(run) == losses(plain["full"])
