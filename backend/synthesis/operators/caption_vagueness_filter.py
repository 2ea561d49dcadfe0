"""Operator: drop captions that would fit any picture."""

from __future__ import annotations

from typing import Any

from data_juicer.ops.base_op import OPERATORS, Filter
from data_juicer.utils.constant import Fields

from backend.formats.data_juicer import caption_of
from backend.synthesis.captions import vagueness

STAT = "caption_vagueness"


@OPERATORS.register_module("caption_vagueness_filter")
class CaptionVaguenessFilter(Filter):  # type: ignore[misc]
    """Keeps captions that say something of their picture.

    Vagueness is the share of words that would fit any picture: function words, and words such as
    "photo", "thing" or "nice". Captions without English words are not judged and stay.
    """

    _batched_op = True

    def __init__(self, max_vagueness: float = 0.99, *args: Any, **kwargs: Any):
        """Set the limit.

        Args:
            max_vagueness: Samples above it are dropped; 1 keeps all.
            args: Data-Juicer's own.
            kwargs: Data-Juicer's own.
        """
        super().__init__(*args, **kwargs)
        self.max_vagueness = max_vagueness

    def compute_stats_batched(self, samples: dict[str, Any]) -> Any:
        """Set `caption_vagueness`; null where it cannot be judged."""
        for stats, text in zip(samples[Fields.stats], samples[self.text_key], strict=True):
            stats[STAT] = vagueness(caption_of(text))
        return samples

    def process_batched(self, samples: dict[str, Any]) -> list[bool]:
        """Whether to keep each sample."""
        values = [stats[STAT] for stats in samples[Fields.stats]]
        return [
            value is None or self.get_keep_boolean(value, None, self.max_vagueness)
            for value in values
        ]
