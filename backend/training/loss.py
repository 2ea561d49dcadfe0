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
            logits = functional.linear(hidden[part], head).float()
            right = logits.gather(1, targets[part].unsqueeze(1)).squeeze(1)
            highest = logits.amax(dim=1, keepdim=True)
            sums = logits.sub_(highest).exp_().sum(dim=1)
            losses[part] = sums.log_() + highest.squeeze(1) - right
            # Else they would lie beside those of the next part.
            del logits
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
            slope = _slope(functional.linear(hidden[part], head), targets[part], outer[part])
            if for_hidden is not None:
                for_hidden[part] = slope @ head
            if for_weight is not None:
                width = for_weight.dtype
                for_weight.addmm_(slope.t().to(width), hidden[part].to(width))
            del slope
        return for_hidden, None if ctx.in_place else for_weight, None, None, None


def _slope(logits: Tensor, targets: Tensor, outer: Tensor) -> Tensor:
    """Gradient of the losses for logits (n, V), in their dtype; one fp32 copy of them lives."""
    wide = logits.float()
    wide.sub_(wide.amax(dim=1, keepdim=True)).exp_()
    wide.mul_((outer / wide.sum(dim=1)).unsqueeze(1))
    wide.scatter_add_(1, targets.unsqueeze(1), -outer.unsqueeze(1))
    return wide.to(logits.dtype)


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
    targets = labels[:, 1:]
    # Labels that lie on the host tell where they are without waiting for the device.
    rows, places = (targets != IGNORE).nonzero().unbind(1)
    wanted = targets[rows, places].to(hidden.device, non_blocking=True)
    flat = (rows * hidden.shape[1] + places).to(hidden.device, non_blocking=True)
    rows = rows.to(hidden.device, non_blocking=True)
    if chunk:
        chosen = hidden.flatten(0, 1).index_select(0, flat)
        if torch.is_autocast_enabled(hidden.device.type):
            chosen = chosen.to(torch.get_autocast_dtype(hidden.device.type))
        losses = _ChunkedHead.apply(chosen, weight, wanted, chunk, in_place)
    else:
        logits = functional.linear(hidden, weight).flatten(0, 1)
        everywhere = torch.full(logits.shape[:1], IGNORE, device=hidden.device)
        everywhere[flat] = wanted
        losses = functional.cross_entropy(
            logits, everywhere, ignore_index=IGNORE, reduction="none"
        )[flat].float()
    detached = losses.detach()
    counts, sums = (torch.zeros(len(labels), device=hidden.device) for _ in range(2))
    counts.index_add_(0, rows, torch.ones_like(detached))
    sums.index_add_(0, rows, detached)
    return Loss(losses.sum() / max(1, len(rows)), sums / counts, len(rows))
