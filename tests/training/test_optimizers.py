"""AdamW in every width: exact where it claims to be, learning where bf16 alone would not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from backend.errors import InputError
from backend.training import optimizers
from backend.training.optimizers import LeanAdamW, clip_gradients, round_at_random

KINDS = ("adamw", "adamw_bf16", "adamw_8bit", "paged_adamw_8bit")
PRECISIONS = ("fp32", "fp32_master", "bf16", "bf16_stochastic")


def weights(dtype: torch.dtype, sizes: tuple[int, ...] = (5000, 64)) -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(size).to(dtype)) for size in sizes]


def gradients(parameters: list[nn.Parameter], step: int) -> None:
    torch.manual_seed(100 + step)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter, dtype=torch.float32).to(parameter.dtype)


def made(
    kind: str, precision: str, seed: int = 0, **settings: Any
) -> tuple[list[nn.Parameter], LeanAdamW]:
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    parameters = weights(dtype, **settings)
    return parameters, LeanAdamW(parameters, kind, precision, 0.01, seed)


def test_in_fp32_it_is_torchs_own() -> None:
    ours, optimizer = made("adamw", "fp32")
    theirs = weights(torch.float32)
    reference = torch.optim.AdamW(theirs, lr=1e-2, weight_decay=0.01, fused=True)
    for step in range(5):
        gradients(ours, step)
        gradients(theirs, step)
        optimizer.step(1e-2)
        reference.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_master_follows_fp32_and_its_weights_are_its_rounding() -> None:
    ours, optimizer = made("adamw", "fp32_master")
    theirs = [nn.Parameter(value.detach().float()) for value in weights(torch.bfloat16)]
    reference = torch.optim.AdamW(theirs, lr=1e-2, weight_decay=0.01, fused=True)
    for step in range(5):
        gradients(ours, step)
        for one, other in zip(ours, theirs, strict=True):
            other.grad = one.grad.float()
        optimizer.step(1e-2)
        reference.step()
    assert all(torch.equal(a, b.bfloat16()) for a, b in zip(ours, theirs, strict=True))


def test_parameters_cut_into_bundles_are_updated_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, one = made("adamw", "fp32_master")
    monkeypatch.setattr(optimizers, "BUNDLE", 1024)
    parts, many = made("adamw", "fp32_master")
    assert len(many.bundles) > len(one.bundles)
    for step in range(3):
        gradients(whole, step)
        gradients(parts, step)
        one.step(1e-2)
        many.step(1e-2)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_kind_in_every_precision_stays_near_the_exact_update(
    kind: str, precision: str
) -> None:
    ours, optimizer = made(kind, precision)
    exact, reference = made("adamw", "fp32")
    for step in range(10):
        gradients(ours, step)
        for one, other in zip(ours, exact, strict=True):
            other.grad = one.grad.float()
        optimizer.step(1e-2)
        reference.step(1e-2)
    assert all(parameter.grad is None for parameter in ours)
    start = weights(torch.float32)
    for a, b, before in zip(ours, exact, start, strict=True):
        moved = (b - before).norm()
        assert (a.float() - b).norm() < 0.3 * moved


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("bf16", 0.0),
        ("bf16_stochastic", pytest.approx(3e-3, rel=0.1)),
        # The master has moved 3e-3, and the weights are its rounding: bf16's next value below 1.
        ("fp32_master", 2**-8),
    ],
)
def test_small_updates_vanish_in_plain_bf16_alone(precision: str, expected: float) -> None:
    parameter = nn.Parameter(torch.ones(20_000, dtype=torch.bfloat16))
    optimizer = LeanAdamW([parameter], "adamw", precision, 0.0, 0)
    for _ in range(150):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step(2e-5)
    assert 1 - float(parameter.detach().double().mean()) == expected


def test_rounding_at_random_is_right_on_average() -> None:
    noise = torch.Generator().manual_seed(0)
    value = 1.0 + 2**-7 * 0.3
    rounded = round_at_random(torch.full((100_000,), value), noise).float()
    assert set(rounded.tolist()) == {1.0, 1.0 + 2**-7}
    assert float(rounded.mean()) == pytest.approx(value, abs=1e-4)
    exact = torch.tensor([0.0, 1.0, -2.5, 1.5 * 2.0**120])
    assert torch.equal(round_at_random(exact, noise).float(), exact.bfloat16().float())


@pytest.mark.parametrize(
    ("kind", "precision"), [("adamw", "bf16_stochastic"), ("adamw_bf16", "fp32_master")]
)
def test_rounding_is_decided_by_the_seed_and_never_by_what_a_process_dropped(
    kind: str, precision: str
) -> None:
    def after(process: int, seed: int) -> list[nn.Parameter]:
        parameters, optimizer = made(kind, precision, seed)
        for step in range(3):
            gradients(parameters, step)
            torch.manual_seed(process)
            optimizer.step(1e-2)
            assert torch.equal(torch.get_rng_state(), torch.manual_seed(process).get_state())
        return parameters

    def alike(one: list[nn.Parameter], other: list[nn.Parameter]) -> bool:
        return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))

    first = after(process=0, seed=7)
    assert alike(first, after(process=1, seed=7))
    assert not alike(first, after(process=0, seed=8))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_goes_on_from_its_states_to_the_bit(kind: str, precision: str) -> None:
    going, optimizer = made(kind, precision)
    for step in range(3):
        gradients(going, step)
        optimizer.step(1e-2)
    saved = copy.deepcopy(optimizer.state_dict())
    values = [parameter.detach().clone() for parameter in going]
    resumed, again = made(kind, precision)
    for parameter, value in zip(resumed, values, strict=True):
        parameter.data.copy_(value)
    again.load_state_dict(saved)
    again.updates = optimizer.updates
    for step in range(3, 6):
        for parameters, one in ((going, optimizer), (resumed, again)):
            gradients(parameters, step)
            one.step(1e-2)
    assert all(torch.equal(a, b) for a, b in zip(going, resumed, strict=True))


def test_states_of_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, optimizer = made("adamw", "fp32")
    monkeypatch.setattr(optimizers, "BUNDLE", 1024)
    _, other = made("adamw", "fp32")
    with pytest.raises(InputError, match="states are of 1 bundles"):
        other.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("limit", [0.0, 0.5, 1e9])
def test_clipping_is_torchs_own(limit: float) -> None:
    ours, theirs = weights(torch.float32), weights(torch.float32)
    gradients(ours, 0)
    gradients(theirs, 0)
    wanted = nn.utils.clip_grad_norm_(theirs, limit or float("inf"))
    assert clip_gradients(ours, limit) == pytest.approx(float(wanted), rel=1e-6)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a.grad, b.grad, rtol=1e-6, atol=0)
