"""Batches seen again, because a GPU learns faster than processors draw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random

import torch
from torch import Tensor


def replayed(
    batches: Iterable[tuple[Tensor, ...]], times: int, device: torch.device
) -> Iterator[tuple[Tensor, ...]]:
    """Each new batch, then `times - 1` older ones drawn at random; all kept on the device."""
    random = Random(0)
    kept: list[tuple[Tensor, ...]] = []
    for batch in batches:
        kept.append(tuple(tensor.to(device, non_blocking=True) for tensor in batch))
        yield kept[-1]
        for _ in range(times - 1):
            yield random.choice(kept)
