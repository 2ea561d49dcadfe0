"""The learning rate over a training, as transformers' schedules give it."""

from __future__ import annotations

import math


def warmup_steps(total: int, ratio: float) -> int:
    """Steps of the linear warmup."""
    return math.ceil(total * ratio)


def learning_rate(step: int, total: int, *, peak: float, scheduler: str, warmup: int) -> float:
    """The rate of one optimizer step.

    Linear warmup from 0, then half a cosine to 0 (`cosine`), a line to 0 (`linear`), or the peak
    (`constant`).

    Args:
        step: Counted from 0; the first step of a warmup has rate 0, as in transformers.
        total: Steps of the whole training.
        peak: Highest rate.
        scheduler: `cosine`, `linear` or `constant`.
        warmup: Steps of the warmup.
    """
    if step < warmup:
        return peak * step / warmup
    if scheduler == "constant":
        return peak
    share = (step - warmup) / max(1, total - warmup)
    if scheduler == "linear":
        return peak * (1 - share)
    return peak * 0.5 * (1 + math.cos(math.pi * share))
