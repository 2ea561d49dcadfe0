"""Which samples form which batch: repeatable from the seed alone, so that a resume needs no state.

Grouping by modality and length follows the kit's recipe: global batches hold either pictures or
plain text and samples of similar length, and their order is shuffled.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

Batch = list[list[int]]
"""The micro-batches of one optimizer step, over all devices: indices of samples."""


class DataOrder:
    """The batches of a whole training.

    An epoch's last samples that fill no global batch are left out, as in the kit; an epoch
    smaller than one global batch is one batch.

    Args:
        count: Samples.
        micro_batch: Samples of one micro-batch.
        micro_batches: Micro-batches of one step, over all devices.
        seed: Start of every draw.
        lengths: Words of each sample, negative for one without a picture; None does not group.
    """

    def __init__(
        self,
        count: int,
        micro_batch: int,
        micro_batches: int,
        seed: int,
        lengths: Sequence[int] | None = None,
    ) -> None:
        self.count = count
        self.micro_batch = micro_batch
        self.micro_batches = micro_batches
        self.seed = seed
        self.lengths = lengths

    @property
    def global_batch(self) -> int:
        """Samples of one step."""
        return self.micro_batch * self.micro_batches

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass over the data."""
        return max(1, self.count // self.global_batch)

    @property
    def left_out(self) -> int:
        """Samples of each epoch that fill no global batch."""
        return max(0, self.count - self.steps_per_epoch * self.global_batch)

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Batches without end, from step `start` (0 is the first) on."""
        epoch, first = divmod(start, self.steps_per_epoch)
        while True:
            groups = self._epoch(random.Random(f"{self.seed}/{epoch}"))
            for indices in groups[first : self.steps_per_epoch]:
                yield self._balance(indices) if self.lengths else _pieces(indices, self.micro_batch)
            epoch, first = epoch + 1, 0

    def _epoch(self, draw: random.Random) -> list[list[int]]:
        """The global batches of one epoch."""
        if self.lengths is None:
            indices = list(range(self.count))
            draw.shuffle(indices)
            return _pieces(indices, self.global_batch)
        groups: list[list[int]] = []
        rest: list[int] = []
        for kind in (True, False):
            members = [i for i in range(self.count) if (self.lengths[i] > 0) is kind]
            draw.shuffle(members)
            whole = len(members) // self.global_batch * self.global_batch
            groups += _pieces(members[:whole], self.global_batch)
            rest += members[whole:]
        # Samples of both kinds that fill no batch of their own share the last ones.
        mixed = _pieces(rest, self.global_batch)
        groups += [part for part in mixed if len(part) == self.global_batch]
        draw.shuffle(groups)
        groups += [part for part in mixed if len(part) < self.global_batch]
        return groups

    def _balance(self, indices: list[int]) -> Batch:
        """Micro-batches of nearly the same sum of lengths: the longest goes to the emptiest."""
        assert self.lengths is not None
        by_length = sorted(indices, key=lambda i: abs(self.lengths[i]), reverse=True)  # type: ignore[index]
        bins: Batch = [[] for _ in _pieces(indices, self.micro_batch)]
        sums = [0] * len(bins)
        for index in by_length:
            open_bins = [i for i, part in enumerate(bins) if len(part) < self.micro_batch]
            emptiest = min(open_bins, key=lambda i: sums[i])
            bins[emptiest].append(index)
            sums[emptiest] += abs(self.lengths[index])
        return bins


def _pieces(values: list[int], size: int) -> list[list[int]]:
    return [values[start : start + size] for start in range(0, len(values), size)]
