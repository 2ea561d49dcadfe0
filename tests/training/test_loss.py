"""The chunked loss is the plain cross-entropy: values, gradients, and each sample's own mean."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from backend.mgm.multimodal import IGNORE
from backend.training.loss import label_loss

VOCABULARY, WIDTH = 40, 8


def example(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(hidden, labels, weight): the second of three rows has no label."""
    torch.manual_seed(0)
    hidden = torch.randn(3, 11, WIDTH, dtype=dtype, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, dtype=dtype, requires_grad=True)
    labels = torch.randint(VOCABULARY, (3, 11))
    labels[0, :4] = labels[1] = labels[2, ::2] = IGNORE
    return hidden, labels, weight


def naive(hidden: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    logits = hidden[:, :-1] @ weight.T
    return functional.cross_entropy(
        logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE, reduction="none"
    ).unflatten(0, (3, 10))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("chunk", [0, 1, 4, 1000])
def test_values_and_gradients_are_those_of_the_whole(chunk: int, in_place: bool) -> None:
    hidden, labels, weight = example(torch.float32)
    places = labels[:, 1:] != IGNORE
    wanted = naive(hidden, labels, weight)[places].mean()
    wanted.backward()
    gradients = hidden.grad, weight.grad
    hidden.grad, weight.grad = None, torch.ones_like(weight)
    loss = label_loss(hidden, labels, weight, chunk=chunk, in_place=in_place)
    loss.total.backward()
    assert_close(loss.total, wanted.detach(), rtol=1e-6, atol=1e-6)
    assert_close(hidden.grad, gradients[0], rtol=1e-5, atol=1e-6)
    assert_close(weight.grad - 1, gradients[1], rtol=1e-5, atol=1e-6)
    assert loss.labels == int(places.sum())


@pytest.mark.parametrize("chunk", [0, 3])
def test_each_row_has_its_own_mean_and_none_without_a_label(chunk: int) -> None:
    hidden, labels, weight = example(torch.float32)
    each = naive(hidden, labels, weight).detach()
    samples = label_loss(hidden, labels, weight, chunk=chunk).samples
    for row in (0, 2):
        assert_close(samples[row], each[row][labels[row, 1:] != IGNORE].mean())
    assert samples[1].isnan()


@pytest.mark.parametrize("chunk", [0, 3])
def test_without_any_label_the_loss_is_zero_and_so_are_gradients(chunk: int) -> None:
    hidden, labels, weight = example(torch.float32)
    loss = label_loss(hidden, torch.full_like(labels, IGNORE), weight, chunk=chunk)
    loss.total.backward()
    assert loss.total == 0
    assert loss.labels == 0
    assert not hidden.grad.any()


def test_in_bf16_it_is_as_near_the_exact_loss_as_the_plain_form() -> None:
    hidden, labels, weight = example(torch.float64)
    exact = label_loss(hidden, labels, weight, chunk=4).total
    narrow = hidden.detach().bfloat16(), labels, weight.detach().bfloat16()
    ours = label_loss(*narrow, chunk=4).total.double()
    theirs = label_loss(*narrow, chunk=0).total.double()
    assert abs(ours - exact) <= abs(theirs - exact) + 1e-3


def test_the_same_values_come_from_labels_on_either_side() -> None:
    hidden, labels, weight = example(torch.float32)
    one = label_loss(hidden, labels, weight, chunk=4)
    assert torch.equal(one.total, label_loss(hidden, labels.cpu(), weight, chunk=4).total)
