"""Embeddings whose gradient is added in place have the gradient of the plain ones."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from backend.mgm.checkpoints import MGM
from backend.mgm.embedding import embed_in_place
from tests.mgm import tiny


@pytest.mark.parametrize("before", [None, 1.0])
def test_rows_met_twice_get_both_gradients(before: float | None) -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(9, 4))
    scale, ids = torch.tensor(3.0), torch.tensor([2, 5, 2, 8, 2])
    outer = torch.randn(5, 4)
    (torch.nn.functional.embedding(ids, weight) * scale * outer).sum().backward()
    wanted, weight.grad = weight.grad, None
    if before is not None:
        weight.grad = torch.full_like(weight, before)
    rows = embed_in_place(weight, ids, scale)
    assert torch.equal(rows, weight[ids] * scale)
    (rows * outer).sum().backward()
    assert_close(weight.grad - (before or 0.0), wanted)


def test_a_sum_of_many_small_gradients_does_not_get_lost_in_bf16() -> None:
    weight = torch.nn.Parameter(torch.zeros(3, 2, dtype=torch.bfloat16))
    ids = torch.ones(4096, dtype=torch.int64)
    embed_in_place(weight, ids, torch.tensor(1.0, dtype=torch.bfloat16)).sum().backward()
    assert weight.grad[1].tolist() == [4096, 4096]


def test_the_whole_model_has_the_same_gradients_either_way(mgm: MGM) -> None:
    mgm.model.select_trainable("finetune")
    found = []
    for in_place in (False, True):
        mgm.model.zero_grad()
        mgm.model.model.gradients_in_place = in_place
        mgm.model(**tiny.forward_inputs()).loss.backward()
        found.append({n: p.grad for n, p in mgm.model.named_parameters() if p.requires_grad})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-7)
