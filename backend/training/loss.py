"""Cross-entropy at the labeled positions alone, with few logits in memory at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from backend.mgm.multimodal import IGNORE


class Loss(NamedTuple):
    """The loss of a micro-batch.

    Attributes:
        total: Mean over the labeled positions, scalar fp32; 0 when there is none.
        samples: (B,) fp32 each row's own mean; NaN for a row without a label.
        labels: How many positions are labeled.
    """

    total: Tensor
    samples: Tensor
    labels: int


class _ChunkedHead(torch.autograd.Function):
    """Per-position cross-entropy of `hidden @ weight.T`, computed again in the backward pass.

    Logits and their gradient exist for `chunk` positions at a time. With `in_place` the weight's
    gradient is added to `weight.grad` at once, without a second tensor of its size.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, in_place: bool
    ) -> Tensor:
        """(n,) fp32 losses of hidden (n, H), weight (V, H), targets (n,) int64."""
        ctx.save_for_backward(hidden, targets)
        # Not saved by autograd: the gradient is written into this very parameter.
        ctx.weight, ctx.chunk, ctx.in_place = weight, chunk, in_place
        losses = hidden.new_empty(len(hidden), dtype=torch.float32)
        head = weight.to(hidden.dtype)
        for part in _parts(len(hidden), chunk):
            logits = functional.linear(hidden[part], head)
            logarithms = functional.log_softmax(logits, dim=-1, dtype=torch.float32)
            losses[part] = -logarithms.gather(1, targets[part].unsqueeze(1)).squeeze(1)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of hidden and weight for gradients (n,) of the losses."""
        (outer,) = gradients
        hidden, targets = ctx.saved_tensors
        weight = ctx.weight
        for_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for_weight = None
        if ctx.needs_input_grad[1]:
            if ctx.in_place and weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            for_weight = weight.grad if ctx.in_place else torch.zeros_like(weight)
        head = weight.to(hidden.dtype)
        for part in _parts(len(hidden), ctx.chunk):
            logits = functional.linear(hidden[part], head)
            probabilities = logits.softmax(dim=-1, dtype=torch.float32)
            rows = torch.arange(len(probabilities), device=hidden.device)
            probabilities[rows, targets[part]] -= 1
            slope = probabilities.mul_(outer[part].unsqueeze(1)).to(hidden.dtype)
            del logits, probabilities
            if for_hidden is not None:
                for_hidden[part] = slope @ head
            if for_weight is not None:
                width = for_weight.dtype
                for_weight.addmm_(slope.t().to(width), hidden[part].to(width))
        return for_hidden, None if ctx.in_place else for_weight, None, None, None


def _parts(count: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, count)) for start in range(0, count, chunk)]


def label_loss(
    hidden: Tensor, labels: Tensor, weight: Tensor, *, chunk: int, in_place: bool = False
) -> Loss:
    """Next-token cross-entropy, mean over a micro-batch's labeled positions.

    Args:
        hidden: (B, L, H) last hidden states.
        labels: (B, L) int64, not shifted, `IGNORE` where there is none.
        weight: (V, H) of the output layer.
        chunk: Labeled positions whose logits exist at once. 0 makes the logits of every position
            at once, as the kit does.
        in_place: Add the weight's gradient to `weight.grad` during the backward pass. Needs a
            weight that nobody's hooks watch, and a single backward pass.
    """
    hidden, targets = hidden[:, :-1], labels[:, 1:]
    places = targets != IGNORE
    rows = places.nonzero()[:, 0]
    if chunk:
        wanted = hidden[places]
        if torch.is_autocast_enabled(hidden.device.type):
            wanted = wanted.to(torch.get_autocast_dtype(hidden.device.type))
        losses = _ChunkedHead.apply(wanted, weight, targets[places], chunk, in_place)
    else:
        logits = functional.linear(hidden, weight)
        losses = functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="none"
        )
        losses = losses.unflatten(0, targets.shape)[places].float()
    detached = losses.detach()
    counts = torch.bincount(rows, minlength=len(labels))
    sums = torch.zeros(len(labels), device=rows.device).index_add_(0, rows, detached)
    return Loss(losses.sum() / max(1, len(rows)), sums / counts, len(rows))
