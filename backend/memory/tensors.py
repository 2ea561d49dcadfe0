"""Which tensor of a training step has a given size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from backend.memory import costs
from backend.memory.frames import Place
from backend.memory.settings import MemorySettings
from backend.memory.shapes import ModelShape

WIDTHS = (costs.HALF, costs.FULL)
ROUNDING = 0.006
"""torch rounds sizes to two decimals of their unit; half of that, and a little for its own
rounding up to pages."""


class Tensor(NamedTuple):
    """A tensor that was recognized by its size: `death.tensor.<code>` and what fills it."""

    code: str
    values: dict[str, Any]


def recognized(
    asked: int, shape: ModelShape, place: Place, settings: MemorySettings | None
) -> Tensor | None:
    """The tensor that an allocation of `asked` bytes was for.

    Only those are considered that are made at this place of a step; without a place, logits
    alone, whose size gives them away.

    Args:
        asked: As torch said it, rounded to two decimals.
        shape: Sizes of the model.
        place: Where the step was.
        settings: How it was trained; None when nobody knows.
    """
    logits = _logits(asked, shape, place, settings)
    if settings is None or (logits is not None and place.part in (None, "logits")):
        return logits
    for code, size, values in _known(shape, place, settings):
        if abs(asked - size) <= _tolerance(asked):
            return Tensor(code, values)
    return logits


def _tolerance(asked: int) -> float:
    unit = next(unit for unit in (1 << 30, 1 << 20, 1 << 10, 1) if asked >= unit or unit == 1)
    # Above ten MiB torch asks the driver for multiples of two.
    return max(ROUNDING * unit, (2 << 20) if asked > 10 << 20 else 512)


def _logits(
    asked: int, shape: ModelShape, place: Place, settings: MemorySettings | None
) -> Tensor | None:
    vocabulary = shape.language.vocabulary
    at_loss = place.part == "logits" or place.moment == "loss"
    if not at_loss and place.moment not in (None, "forward", "backward"):
        return None
    if place.part not in (None, "logits", "decoder", "checkpoint"):
        return None
    most = settings.tokens if settings else 1 << 20
    found: list[tuple[int, int, int]] = []
    for width in WIDTHS:
        one = vocabulary * width
        for rank, step in enumerate((most if settings else 512, 512, 64, 1)):
            positions = step * round(asked / one / step)
            if 1 <= positions <= most and abs(positions * one - asked) <= _tolerance(asked):
                found.append((rank, width, positions))
    # Elsewhere a multiple of the vocabulary may be chance: whole rows of text are not.
    found = [one for one in found if at_loss or one[0] < 3]
    if not found:
        return None
    _, width, positions = min(found)
    return Tensor("logits", {"positions": positions, "vocabulary": vocabulary, "bits": 8 * width})


def _known(
    shape: ModelShape, place: Place, settings: MemorySettings
) -> Iterator[tuple[str, float, dict[str, Any]]]:
    """Large tensors of a step: code, bytes, values."""
    language = shape.language
    trained = costs.trained_parameters(shape, settings)
    bits = {width: {"bits": 8 * width} for width in WIDTHS}
    for width in WIDTHS:
        embedding = language.embedding_parameters * width
        if place.moment == "optimizer":
            yield "flat", width * trained / settings.devices, bits[width]
            yield "bundle", width * min(trained, costs.BUNDLE), bits[width]
        if place.moment in ("backward", "loss"):
            yield "embedding_gradient", embedding, bits[width]
        if place.moment == "loading":
            yield "embedding", embedding, bits[width]
        if place.moment in ("forward", "backward"):
            yield "mlp", settings.tokens * language.intermediate * width, bits[width]
            yield "hidden", settings.tokens * language.hidden * width, bits[width]
        if place.moment in ("vision", "backward"):
            side = costs.picture_side(shape, settings) // 4
            for images in dict.fromkeys((settings.images, settings.tower_chunk or 1)):
                size = images * side * side * shape.convnext.channels * width
                yield "map", size, {**bits[width], "images": images}
        for inputs, outputs in language.linear_inputs_outputs:
            if place.moment in ("loading", "backward"):
                yield "linear", inputs * outputs * width, bits[width]
