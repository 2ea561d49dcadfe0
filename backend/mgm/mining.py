"""Patch info mining: each low-resolution token asks its own cell of the high-resolution map.

Token q of cell (i, j) attends to the M x M vectors a of that cell: softmax(Q·K / sqrt(d)) V with
Q = W_q LN(q), K = W_k LN(a), V = W_v LN(a), one query, no heads, no output projection
(Li et al., "Mini-Gemini", 2024, section 3.2).

There is one query for 64 vectors, so the projections are moved to the query's side:
Q·K = (W_kᵀ Q)·LN(a) + Q·b_k, and sum_m w_m V_m = W_v LN-affine(sum_m w_m â_m) + b_v because the
weights sum to one. K and V, 64 times the tokens, are never made. The result is the same up to
rounding; tests hold it against the direct form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from backend.mgm.projector import NewLayerNorm, NewLinear


class FoldedNorm(NewLayerNorm):
    """The affine part of a layer norm, applied to a query instead of to the keys."""

    def forward(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """(…, C) to the scaled query (…, C) and its product with the norm's bias (…, 1)."""
        return query * self.weight, (query @ self.bias).unsqueeze(-1)


class FoldedLinear(NewLinear):
    """A linear layer of the keys, applied to a query: Wᵀ q and q·b."""

    def forward(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """(…, d) to (…, C) and (…, 1)."""
        return query @ self.weight, (query @ self.bias).unsqueeze(-1)


class AffineNorm(NewLayerNorm):
    """The affine part of a layer norm whose normalization was done before."""

    def forward(self, normalized: Tensor) -> Tensor:
        """(…, C) to (…, C)."""
        return normalized * self.weight + self.bias


class KeyProjection(nn.Sequential):
    """`vlm_uni_aux_projector`: from a query to its counterpart among normalized vectors."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(FoldedNorm(channels), FoldedLinear(channels, width))

    def forward(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, d) to (B, N, C) and a constant per query (B, N, 1).

        The dot product of the first with a normalized vector, plus the second, is Q·K.
        """
        folded, of_linear = self[1](query)
        folded, of_norm = self[0](folded)
        return folded, of_linear + of_norm


class ValueProjection(nn.Sequential):
    """`vlm_uni_val_projector`: from a weighted mean of normalized vectors to its value."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(AffineNorm(channels), NewLinear(channels, width))


class QueryProjection(nn.Sequential):
    """`vlm_uni_query_projector`: layer norm and linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__(NewLayerNorm(width), NewLinear(width, width))


def join_maps(maps: Sequence[Tensor]) -> Tensor:
    """All stage maps side by side at the first one's resolution, upsampled in fp32.

    Args:
        maps: (B, C_s, H_s, W_s), finest first.

    Returns:
        (B, sum of C_s, H_0, W_0) in the maps' dtype.
    """
    size = maps[0].shape[-2:]
    return torch.cat([maps[0], *(resize(stage_map, size) for stage_map in maps[1:])], dim=1)


def resize(image: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear interpolation in fp32 without antialiasing, back in the image's dtype."""
    if not len(image):
        return image.new_zeros((*image.shape[:2], *size))
    resized: Tensor = functional.interpolate(
        image.float(), size=tuple(size), mode="bilinear", align_corners=False
    )
    return resized.to(image.dtype)


def cells(joined: Tensor, grid: int) -> Tensor:
    """Cut a map into grid x grid cells.

    Args:
        joined: (B, C, H, W), H and W multiples of `grid`.
        grid: Cells along a side.

    Returns:
        (B, grid², M², C): cells row by row, and the vectors of a cell row by row.
    """
    batch, channels, height, width = joined.shape
    split = joined.view(batch, channels, grid, height // grid, grid, width // grid)
    vectors = (height // grid) * (width // grid)
    return split.permute(0, 2, 4, 3, 5, 1).reshape(batch, grid * grid, vectors, channels)


def mine(
    query: Tensor,
    joined: Tensor,
    query_projection: QueryProjection,
    key_projection: KeyProjection,
    value_projection: ValueProjection,
) -> Tensor:
    """What each token finds in its cell.

    Args:
        query: (B, N, d) low-resolution features, N = grid².
        joined: (B, C, H, W) high-resolution map, H and W multiples of grid.
        query_projection: W_q with its norm.
        key_projection: W_k with its norm.
        value_projection: W_v with its norm.

    Returns:
        (B, N, d); the caller adds the query itself.
    """
    vectors = cells(joined, math.isqrt(query.shape[1]))
    vectors = functional.layer_norm(vectors, vectors.shape[-1:], eps=key_projection[0].eps)
    projected = query_projection(query)
    folded, constant = key_projection(projected)
    scores = (vectors @ folded.unsqueeze(-1)).squeeze(-1) + constant
    scores = scores / math.sqrt(projected.shape[-1])
    scores = torch.where(scores.isnan(), torch.zeros_like(scores), scores)
    weights = scores.softmax(dim=-1)
    found: Tensor = value_projection((weights.unsqueeze(-2) @ vectors).squeeze(-2))
    return found
