"""What device memory is made of, and what a prediction says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

PARTS = (
    "weights",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "vision",
    "temporary",
    "context",
)
"""In the order in which they are drawn; `memory.part.<name>` names and explains them."""

STATIC = ("weights", "gradients", "optimizer")
"""Parts that do not grow with the micro-batch."""

Moment = Literal["loading", "vision", "forward", "loss", "backward", "optimizer"]
MOMENTS: tuple[Moment, ...] = ("loading", "vision", "forward", "loss", "backward", "optimizer")
GROWING: tuple[Moment, ...] = ("vision", "forward", "loss", "backward")
"""Moments whose worst point grows with the micro-batch."""
GIB = 2**30


@dataclass(frozen=True)
class Prediction:
    """Predicted memory of one training configuration, in bytes, per device.

    Attributes:
        parts: Bytes of every name in `PARTS` at the moment of the peak; they sum to `device_total`.
        moments: Allocated bytes at the worst point of each moment.
        peak_moment: The moment that needs most.
        peak_allocated: What torch's allocator hands out at the peak.
        peak_reserved: What it holds then, gaps between blocks included; an estimate.
        host: Main memory of all processes together.
        factor: Correction measured on this device; 1.0 without a probe.
        remedies: Ways to shrink the largest part, cheapest first, as changed settings.
    """

    parts: dict[str, int]
    moments: dict[Moment, int]
    peak_moment: Moment
    peak_allocated: int
    peak_reserved: int
    host: int
    factor: float = 1.0
    remedies: tuple[Remedy, ...] = ()
    held: dict[Moment, dict[str, int]] = field(default_factory=dict)
    """Bytes of every part at the worst point of each moment, context left out."""

    @property
    def context(self) -> int:
        """What the driver takes before the first tensor."""
        return self.parts["context"]

    @property
    def device_total(self) -> int:
        """Everything on the device that the step truly needs."""
        return self.peak_allocated + self.context

    @property
    def largest(self) -> str:
        """The part that takes most at the peak."""
        return max(PARTS, key=lambda name: self.parts[name])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; bytes."""
        return {
            "peak_allocated": self.peak_allocated,
            "peak_reserved": self.peak_reserved,
            "device_total": self.device_total,
            "host": self.host,
            "peak_moment": self.peak_moment,
            "parts": self.parts,
            "moments": self.moments,
            "largest": self.largest,
            "factor": self.factor,
            "remedies": [remedy.to_dict() for remedy in self.remedies],
        }


@dataclass(frozen=True)
class Remedy:
    """One changed lever that shrinks a part.

    Attributes:
        lever: Message key below `memory.lever.`; says what it does and costs.
        changes: Fields of `MemorySettings` and their new values.
        saved: Bytes that the peak falls by.
    """

    lever: str
    changes: dict[str, Any] = field(default_factory=dict)
    saved: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"lever": self.lever, "changes": self.changes, "saved": self.saved}
