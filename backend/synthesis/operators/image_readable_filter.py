"""Operator: keep samples whose images can be decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_juicer.ops.base_op import OPERATORS, Filter
from data_juicer.utils.constant import Fields

from backend.formats.images import inspect_file

STAT = "image_readable"


@OPERATORS.register_module("image_readable_filter")
class ImageReadableFilter(Filter):  # type: ignore[misc]
    """Keeps samples whose images exist and decode to the last byte.

    Put it first: other image operators stop at an image that they cannot read.
    """

    _batched_op = True

    def compute_stats_batched(self, samples: dict[str, Any]) -> Any:
        """Set `image_readable` to 1 when every image of a sample decodes, else 0."""
        for stats, images in zip(samples[Fields.stats], samples[self.image_key], strict=True):
            if stats.get(STAT) is None:
                problems = [inspect_file(Path(image)).problem for image in images]
                stats[STAT] = float(not any(problems))
        return samples

    def process_batched(self, samples: dict[str, Any]) -> list[bool]:
        """Whether to keep each sample."""
        return [stats[STAT] == 1 for stats in samples[Fields.stats]]
