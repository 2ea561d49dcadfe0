"""Operator: keep one of images that look the same, without imagededup."""

from __future__ import annotations

from typing import Any

from data_juicer.ops.base_op import OPERATORS, Deduplicator

from backend.synthesis.pictures import near_duplicates, perceptual_hash

HASH = "__dj__imagehash"


@OPERATORS.register_module("image_perceptual_deduplicator")
class ImagePerceptualDeduplicator(Deduplicator):  # type: ignore[misc]
    """Keeps the first of samples whose images look the same, also resized or recompressed.

    Two images are near duplicates when their perceptual hashes, 64 bits of shape and 42 bits of
    color, differ in at most `max_distance` bits. The sample that comes first stays.
    """

    def __init__(self, max_distance: int = 3, *args: Any, **kwargs: Any):
        """Set the distance.

        Args:
            max_distance: Bits of 106 that may differ; 0 takes equal hashes only.
            args: Data-Juicer's own.
            kwargs: Data-Juicer's own.
        """
        super().__init__(*args, **kwargs)
        self.max_distance = max_distance
        self.twins: dict[str, str] = {}

    def compute_hash(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Set the hash of the first image."""
        sample[HASH] = perceptual_hash(sample[self.image_key][0])
        return sample

    def process(self, dataset: Any, show_num: int = 0) -> tuple[Any, dict[str, Any]]:
        """The dataset without near duplicates, and up to `show_num` pairs of them."""
        found = near_duplicates(list(dataset[HASH]), self.max_distance)
        if "id" in dataset.column_names:
            ids = list(dataset["id"])
            self.twins = {ids[a]: ids[b] for a, b in found.items()}
        pairs = list(found.items())[:show_num]
        shown = {str(number): [dataset[a], dataset[b]] for number, (a, b) in enumerate(pairs)}
        kept = [index for index in range(len(dataset)) if index not in found]
        return dataset.select(kept), shown
