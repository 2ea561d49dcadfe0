"""Operator: keep samples whose images are sharp enough, without OpenCV."""

from __future__ import annotations

import sys
from typing import Any

from data_juicer.ops.base_op import OPERATORS, Filter
from data_juicer.utils.constant import Fields

from backend.synthesis.pictures import sharpness

STAT = "image_sharpness"


@OPERATORS.register_module("image_sharpness_filter")
class ImageSharpnessFilter(Filter):  # type: ignore[misc]
    """Keeps samples whose images are neither blurred nor mere noise.

    Sharpness is the variance of the Laplacian of the gray image, its longest side at most 512
    pixels. Blurred photographs lie below 100, sharp ones at several hundred and more. Of several
    images the least sharp one counts.
    """

    _batched_op = True

    def __init__(
        self,
        min_sharpness: float = 50.0,
        max_sharpness: float = sys.float_info.max,
        *args: Any,
        **kwargs: Any,
    ):
        """Set the range.

        Args:
            min_sharpness: Samples below it are dropped.
            max_sharpness: Samples above it are dropped.
            args: Data-Juicer's own.
            kwargs: Data-Juicer's own.
        """
        super().__init__(*args, **kwargs)
        self.min_sharpness = min_sharpness
        self.max_sharpness = max_sharpness

    def compute_stats_batched(self, samples: dict[str, Any]) -> Any:
        """Set `image_sharpness`."""
        for stats, images in zip(samples[Fields.stats], samples[self.image_key], strict=True):
            if stats.get(STAT) is None and images:
                stats[STAT] = min(sharpness(image) for image in images)
        return samples

    def process_batched(self, samples: dict[str, Any]) -> list[bool]:
        """Whether to keep each sample; a sample without images stays."""
        values = [stats.get(STAT) for stats in samples[Fields.stats]]
        return [
            value is None or self.get_keep_boolean(value, self.min_sharpness, self.max_sharpness)
            for value in values
        ]
