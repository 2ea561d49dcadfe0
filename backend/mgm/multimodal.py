"""Putting image tokens where their placeholders stand in a batch of texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from backend.errors import InputError

IMAGE_TOKEN = -200
"""Placeholder of a picture in `input_ids`."""
IGNORE = -100
"""Label of a position that counts for no loss."""


class Multimodal(NamedTuple):
    """A batch whose pictures took their places.

    Attributes:
        inputs_embeds: (B, L, hidden); zero where padded.
        attention_mask: (B, L) bool.
        labels: (B, L) int64, `IGNORE` at pictures and padding; None when none were given.
    """

    inputs_embeds: Tensor
    attention_mask: Tensor
    labels: Tensor | None


def rows_with_images(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """(B,) how many placeholders stand in each row."""
    placeholders = input_ids == IMAGE_TOKEN
    if attention_mask is not None:
        placeholders = placeholders & attention_mask.bool()
    return placeholders.sum(dim=1)


def used_pictures(counts: Tensor, pictures: int) -> list[int]:
    """Which pictures of a batch are shown.

    Rows take pictures in order, one for each placeholder. A row without a placeholder takes one
    picture (the kit hands it a blank one) and shows nothing of it.

    Args:
        counts: (B,) placeholders in each row.
        pictures: How many pictures came with the batch.

    Raises:
        InputError: There are more or fewer pictures than the rows take.
    """
    taken = 0
    shown: list[int] = []
    for count in counts.tolist():
        shown += range(taken, taken + count)
        taken += max(count, 1)
    if taken != pictures:
        raise InputError(
            f"{pictures} pictures came with a batch that takes {taken}.",
            place="images",
            remedy="Give one picture for each placeholder, and one for each row without any.",
        )
    return shown


def insert_images(
    embed: Callable[[Tensor], Tensor],
    image_tokens: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    labels: Tensor | None,
    *,
    max_length: int,
    padding_side: str = "right",
) -> Multimodal:
    """Replace every placeholder by its picture's tokens, cut, and pad again.

    Where each position comes from is planned on the host: ids that lie there already cost the
    device no wait.

    Args:
        embed: From all ids of the texts (T,), on the host, to their embeddings (T, hidden) on the
            language model's scale.
        image_tokens: (shown pictures, tokens, hidden) on that scale, in reading order.
        input_ids: (B, T) int64 with `IMAGE_TOKEN` placeholders.
        attention_mask: (B, T); positions without it are dropped. None keeps all.
        labels: (B, T) int64, or None; the answer's labels lie where these do.
        max_length: Positions a row may have after its pictures are in.
        padding_side: `right` for training, `left` for generation.
    """
    ids = input_ids.cpu()
    keep = torch.ones_like(ids, dtype=torch.bool)
    if attention_mask is not None:
        keep = attention_mask.bool().cpu()
    texts = ids[keep & (ids != IMAGE_TOKEN)]
    size = image_tokens.shape[1]
    sources, targets = [], []
    text, picture = 0, len(texts)
    for row, mask in enumerate(keep):
        places = ids[row][mask] == IMAGE_TOKEN
        spans = torch.where(places, size, 1)
        source = torch.where(
            places,
            picture + (places.cumsum(0) - 1) * size,
            text + (~places).cumsum(0) - 1,
        ).repeat_interleave(spans)
        # Within a picture's span each position is one further than the last.
        first = (spans.cumsum(0) - spans).repeat_interleave(spans)
        source = source + torch.arange(len(first)) - first
        sources.append(source[:max_length])
        if labels is not None:
            target = labels[row].cpu()[mask].masked_fill(places, IGNORE)
            targets.append(target.repeat_interleave(spans)[:max_length])
        text += int((~places).sum())
        picture += int(places.sum()) * size
    padding: dict[str, Any] = {"batch_first": True, "padding_side": padding_side}
    # The last row of the table is what padded positions show; pictures are in it even where
    # there is none, so that their layers belong to the graph with a zero gradient.
    index = pad_sequence(sources, padding_value=picture, **padding)
    words = embed(texts)
    table = torch.cat([words, image_tokens.flatten(0, 1), words.new_zeros(1, words.shape[1])])
    rows = table.index_select(0, index.flatten().to(table.device, non_blocking=True))
    return Multimodal(
        rows.unflatten(0, index.shape),
        (index != picture).to(table.device, non_blocking=True),
        pad_sequence(targets, padding_value=IGNORE, **padding).to(labels.device)
        if labels is not None
        else None,
    )
