"""Token embeddings whose gradient goes where it belongs, without a second matrix of its size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _InPlaceRows(torch.autograd.Function):
    """Rows of `weight` times `scale`; the backward pass adds to `weight.grad` itself."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, scale: Tensor) -> Tensor:
        """(T, H) of weight (V, H), ids (T,) on the host, and a scalar on the weight's device."""
        # Each row once: sums are made in fp32, and no two of them meet in one row.
        unique, inverse = ids.unique(return_inverse=True)
        ctx.weight, ctx.scale = weight, scale
        ctx.places = [part.to(weight.device, non_blocking=True) for part in (unique, inverse)]
        return weight[ids.to(weight.device, non_blocking=True)] * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Nothing but side effects."""
        weight, (unique, inverse) = ctx.weight, ctx.places
        wide = gradients[0].float() * ctx.scale
        sums = wide.new_zeros(len(unique), wide.shape[1]).index_add_(0, inverse, wide)
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        weight.grad.index_add_(0, unique, sums.to(weight.dtype))
        return None, None, None


def embed_in_place(weight: Tensor, ids: Tensor, scale: Tensor) -> Tensor:
    """Scaled embeddings of a text.

    The gradient of an embedding matrix is as large as the matrix (1 GiB for Gemma in bf16) though
    a text touches few of its rows; here only those rows of `weight.grad` are touched. Needs a
    weight that nobody's hooks watch, and a single backward pass.

    Args:
        weight: (V, H), a trained parameter.
        ids: (T,) int64 on the host.
        scale: Scalar in the weight's dtype.

    Returns:
        (T, H).
    """
    rows: Tensor = _InPlaceRows.apply(weight, ids, scale)
    return rows
