"""What a training is expected to need, from its own longest samples, before it starts."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from backend.files import write_json
from backend.memory.bindings import settings_of
from backend.memory.parts import Prediction
from backend.memory.predict import predict
from backend.memory.probes import correction
from backend.memory.settings import MemorySettings
from backend.memory.shapes import ModelShape
from backend.workspace import Workspace

FILE = "memory.json"
CANDIDATES = 64
"""Samples with the most words that are turned into tokens, at least, to find the longest."""


class Sized(Protocol):
    """A sample as far as its length goes."""

    @property
    def length(self) -> int:
        """Words, negative without a picture."""


class Length(NamedTuple):
    """A sample in the language model: positions, labeled ones among them, pictures."""

    positions: int
    labels: int
    images: int


@dataclass(frozen=True)
class Longest:
    """The micro-batch that needs most.

    Attributes:
        indices: Of its samples.
        positions: Of its longest row, to which the others are padded.
        label_fraction: Share of all its positions that carry a label.
        images_per_sample: Most pictures of a row.
    """

    indices: tuple[int, ...]
    positions: int
    label_fraction: float
    images_per_sample: int

    def of(self, settings: MemorySettings) -> MemorySettings:
        """The settings with these lengths."""
        return replace(
            settings,
            positions=self.positions,
            label_fraction=self.label_fraction,
            images_per_sample=self.images_per_sample,
        )


def longest_micro_batch(
    samples: Sequence[Sized], size: int, image_tokens: int, measure: Callable[[int], Length]
) -> Longest:
    """The longest samples of a training, as one micro-batch.

    Args:
        samples: All of them; their words decide which are measured.
        size: Samples of a micro-batch; with fewer samples they repeat.
        image_tokens: Positions of a picture.
        measure: Length of the sample of this index.
    """
    most = heapq.nlargest(
        max(CANDIDATES, 8 * size),
        range(len(samples)),
        key=lambda i: abs(samples[i].length) + (image_tokens if samples[i].length > 0 else 0),
    )
    lengths = {index: measure(index) for index in most}
    chosen = sorted(most, key=lambda index: -lengths[index].positions)[:size]
    rows = [lengths[index] for index in chosen]
    positions = max(row.positions for row in rows)
    labels = sum(row.labels for row in rows)
    indices = tuple(chosen[i % len(chosen)] for i in range(size))
    return Longest(
        indices,
        positions,
        max(labels, 1) / (len(rows) * positions),
        max(row.images for row in rows),
    )


def expect(
    workspace: Workspace,
    shape: ModelShape,
    stage: str,
    parameters: dict[str, Any],
    longest: Longest,
    device: str | None,
) -> tuple[MemorySettings, Prediction]:
    """Settings and prediction of a training with these samples on a device."""
    settings = longest.of(settings_of(stage, parameters))
    factor = correction(workspace, device).factor
    return settings, predict(shape, settings, factor=factor)


def write_expectation(folder: Path, settings: MemorySettings, prediction: Prediction) -> None:
    """Keep beside a run what was expected of it: `memory.json`, bytes."""
    values = {
        "predicted_peak": prediction.peak_allocated,
        "predicted_reserved": prediction.peak_reserved,
        "predicted_host": prediction.host,
        "peak_moment": prediction.peak_moment,
        "parts": prediction.parts,
        "factor": prediction.factor,
        "positions": settings.positions,
        "label_fraction": settings.label_fraction,
        "images_per_sample": settings.images_per_sample,
    }
    write_json(folder / FILE, values)
