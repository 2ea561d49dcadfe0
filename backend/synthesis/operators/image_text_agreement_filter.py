"""Operator: keep samples whose caption agrees with their image."""

from __future__ import annotations

from typing import Any

from data_juicer.ops.base_op import OPERATORS, Filter
from data_juicer.utils.constant import Fields

from backend.formats.data_juicer import caption_of
from backend.synthesis.agreement import agreement_model

STAT = "image_text_agreement"


@OPERATORS.register_module("image_text_agreement_filter")
class ImageTextAgreementFilter(Filter):  # type: ignore[misc]
    """Keeps samples whose image and caption agree, by a local CLIP model.

    Agreement is the cosine similarity of the two embeddings, -1 to 1. To keep a share of the
    data instead of all above a threshold, leave the limits open and let
    `range_specified_field_selector` choose by `__dj__stats__.image_text_agreement`.
    """

    _batched_op = True
    # One process with full batches beats several that load the model each.
    _single_process = True

    def __init__(
        self,
        model: str = "",
        min_score: float = -1.0,
        max_score: float = 1.0,
        batch_size: int = 256,
        *args: Any,
        **kwargs: Any,
    ):
        """Set the model and the range.

        Args:
            model: Folder of a CLIP model in transformers' layout, e.g. `${vision_tower}`.
            min_score: Samples below it are dropped.
            max_score: Samples above it are dropped.
            batch_size: Samples scored at a time.
            args: Data-Juicer's own.
            kwargs: Data-Juicer's own.
        """
        kwargs.setdefault("num_proc", 1)
        super().__init__(*args, batch_size=batch_size, **kwargs)
        self.model = model
        self.min_score = min_score
        self.max_score = max_score

    def compute_stats_batched(self, samples: dict[str, Any]) -> Any:
        """Set `image_text_agreement`, always anew: an earlier operator may have rewritten."""
        images = [paths[0] for paths in samples[self.image_key]]
        captions = [caption_of(text) for text in samples[self.text_key]]
        scores = agreement_model(self.model).scores(images, captions)
        for stats, score in zip(samples[Fields.stats], scores, strict=True):
            stats[STAT] = float(score)
        return samples

    def process_batched(self, samples: dict[str, Any]) -> list[bool]:
        """Whether to keep each sample."""
        return [
            bool(self.get_keep_boolean(stats[STAT], self.min_score, self.max_score))
            for stats in samples[Fields.stats]
        ]
