"""Device budgets: common cards, the card that was found, and what of it a run can use."""

from __future__ import annotations

from dataclasses import dataclass

from backend.memory.parts import GIB
from backend.memory.predict import CONTEXT

DRIVER = GIB // 2
"""What driver, display and rounding take from the size on the box: together with the context a
24 GB card leaves about 23 GiB to torch."""


@dataclass(frozen=True)
class Card:
    """A device to plan for.

    Attributes:
        name: As a person knows it.
        total: Bytes on the box.
        found: Whether it is in this machine.
    """

    name: str
    total: int
    found: bool = False

    @property
    def usable(self) -> int:
        """Bytes that torch's allocator can have."""
        return usable(self.total)


CARDS = tuple(
    Card(name, size * GIB)
    for name, size in (
        ("8 GB (RTX 4060)", 8),
        ("12 GB (RTX 4070)", 12),
        ("16 GB (RTX 4080, T4)", 16),
        ("24 GB (RTX 4090, 3090)", 24),
        ("32 GB (RTX 5090)", 32),
        ("40 GB (A100)", 40),
        ("48 GB (L40S, A6000)", 48),
        ("80 GB (H100, A100)", 80),
    )
)
"""Presets, smallest first."""


def usable(budget: int) -> int:
    """Bytes that torch's allocator can have on a card of this size."""
    return max(0, budget - CONTEXT - DRIVER)


def box(room: int) -> int:
    """Size of the card that leaves torch's allocator `room` bytes."""
    return room + CONTEXT + DRIVER
