"""Putting image tokens where their placeholders stand in a batch of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

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

    Args:
        embed: From ids (T,) to embeddings (T, hidden) on the language model's scale.
        image_tokens: (shown pictures, tokens, hidden) on that scale, in reading order.
        input_ids: (B, T) int64 with `IMAGE_TOKEN` placeholders.
        attention_mask: (B, T); positions without it are dropped. None keeps all.
        labels: (B, T) int64, or None.
        max_length: Positions a row may have after its pictures are in.
        padding_side: `right` for training, `left` for generation.
    """
    keep = torch.ones_like(input_ids, dtype=torch.bool)
    if attention_mask is not None:
        keep = attention_mask.bool()
    pictures = iter(image_tokens)
    rows, targets = [], []
    for index, mask in enumerate(keep):
        ids = input_ids[index][mask]
        target = labels[index][mask] if labels is not None else torch.full_like(ids, IGNORE)
        row, target = _expand(embed, ids, target, pictures)
        rows.append(row[:max_length])
        targets.append(target[:max_length])
    # Without a picture the image layers still belong to the graph, with a zero gradient.
    rows[0] = torch.cat([image_tokens.flatten(0, 1)[:0], rows[0]])
    real = [torch.ones(len(row), dtype=torch.bool, device=row.device) for row in rows]
    return Multimodal(
        pad_sequence(rows, batch_first=True, padding_side=padding_side),
        pad_sequence(real, batch_first=True, padding_side=padding_side),
        pad_sequence(targets, batch_first=True, padding_value=IGNORE, padding_side=padding_side)
        if labels is not None
        else None,
    )


def _expand(
    embed: Callable[[Tensor], Tensor], ids: Tensor, labels: Tensor, pictures: Iterator[Tensor]
) -> tuple[Tensor, Tensor]:
    """One row: (T,) ids and labels to (L, hidden) embeddings and (L,) labels."""
    places = (ids == IMAGE_TOKEN).nonzero().flatten().tolist()
    text = embed(ids[ids != IMAGE_TOKEN])
    parts, targets, start = [], [], 0
    for number, place in enumerate(places):
        picture = next(pictures)
        parts += [text[start - number : place - number], picture]
        targets += [labels[start:place], labels.new_full((len(picture),), IGNORE)]
        start = place + 1
    parts.append(text[start - len(places) :])
    targets.append(labels[start:])
    return torch.cat(parts), torch.cat(targets)
