"""Gemma's decoder with MGM's vision beside it: from pictures and text to embeddings."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import GemmaModel
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings

from backend.errors import InputError
from backend.mgm.configuration import MGMConfig
from backend.mgm.convnext import ConvNextTower
from backend.mgm.mining import (
    KeyProjection,
    QueryProjection,
    ValueProjection,
    join_maps,
    mine,
    resize,
)
from backend.mgm.multimodal import Multimodal, insert_images, rows_with_images, used_pictures
from backend.mgm.projector import NewLayerNorm, NewLinear, mm_projector
from backend.mgm.vision import ClipTower


class MGMGemmaModel(GemmaModel):
    """Gemma's decoder with both towers, the mining layers and the projector beside it.

    Attributes:
        tower_chunk: Pictures that pass the towers and the mining layers at once; 0 is the whole
            batch. The result does not depend on it.
        mining_checkpointing: Compute the mining block again in the backward pass instead of
            keeping its activations (about 0.6 GB a picture at full size, in bf16).
    """

    config_class = MGMConfig

    def __init__(self, config: MGMConfig) -> None:
        super().__init__(config)
        clip, convnext = config.clip, config.convnext
        width, channels = clip.hidden_size, convnext.channels
        self.vision_tower = ClipTower(clip, config.mm_vision_select_layer)
        self.vision_tower_aux = ConvNextTower(convnext)
        self.mm_projector = mm_projector(config.mm_projector_type, width, config.hidden_size)
        self.vlm_uni_query_projector = QueryProjection(width)
        self.vlm_uni_aux_projector = KeyProjection(channels, width)
        self.vlm_uni_val_projector = ValueProjection(channels, width)
        self.tower_chunk = 0
        self.mining_checkpointing = False

    def _init_weights(self, module: nn.Module) -> None:
        """New layers start as PyTorch makes them (the kit's rule), all others as Gemma's."""
        if isinstance(module, NewLinear | NewLayerNorm):
            module.reset_parameters()
        elif isinstance(module, CLIPVisionEmbeddings):
            module.position_ids.copy_(torch.arange(module.num_positions))
        else:
            super()._init_weights(module)

    def encode_images(self, images: Tensor, images_aux: Tensor) -> Tensor:
        """Image tokens before Gemma's embedding scale.

        Args:
            images: (B, 3, s, s) normalized pixels; in the HD variant (B, views, 3, s, s), grid
                cells row by row, then the global view.
            images_aux: (B, 3, S, S) normalized pixels.

        Returns:
            (B, tokens, hidden); in the HD variant the global view's tokens come first.
        """
        chunk = self.tower_chunk or max(1, len(images))
        return torch.cat(
            [
                self._encode(low, high)
                for low, high in zip(images.split(chunk), images_aux.split(chunk), strict=True)
            ]
        )

    def _encode(self, images: Tensor, images_aux: Tensor) -> Tensor:
        query, maps = self.tower_features(images, images_aux)
        if self.mining_checkpointing and torch.is_grad_enabled():
            tokens: Tensor = checkpoint(self._tokens, query, *maps, use_reentrant=False)
            return tokens
        return self._tokens(query, *maps)

    def tower_features(self, images: Tensor, images_aux: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Both towers' outputs, without a graph where a tower is frozen.

        Returns:
            Low-resolution features (B, N, d), or (B, views, N, d) in the HD variant, and the
            ConvNeXt stage maps, all in the projector's dtype.
        """
        with _graph_if_trained(self.vision_tower):
            query = self.vision_tower(images.flatten(0, -4))
            query = query.unflatten(0, images.shape[:-3])
        with _graph_if_trained(self.vision_tower_aux):
            maps = self.vision_tower_aux(images_aux)
        dtype = self.mm_projector[0].weight.dtype
        return query.to(dtype), [stage_map.to(dtype) for stage_map in maps]

    def _tokens(self, query: Tensor, *maps: Tensor) -> Tensor:
        """Towers' outputs to image tokens (B, tokens, hidden)."""
        mined = self.mined_features(query, join_maps(maps))
        tokens: Tensor = self.mm_projector(mined)
        return tokens

    def mined_features(self, query: Tensor, joined: Tensor) -> Tensor:
        """Low-resolution features plus what they found: what the projector reads.

        Args:
            query: (B, N, d), or (B, views, N, d) in the HD variant.
            joined: (B, C, H, W).

        Returns:
            (B, tokens, d).
        """
        if query.ndim == 3:
            return query + self._mine(query, joined)
        grid = self.config.image_grid
        height, width = joined.shape[-2] // grid, joined.shape[-1] // grid
        parts = [
            joined[..., y * height : (y + 1) * height, x * width : (x + 1) * width]
            for y in range(grid)
            for x in range(grid)
        ]
        order = list(range(grid * grid))
        if self.config.image_global:
            parts.append(resize(joined, (height, width)))
            order.insert(0, grid * grid)
        views = [query[:, i] + self._mine(query[:, i], parts[i].contiguous()) for i in order]
        return torch.cat(views, dim=1)

    def _mine(self, query: Tensor, joined: Tensor) -> Tensor:
        return mine(
            query,
            joined,
            self.vlm_uni_query_projector,
            self.vlm_uni_aux_projector,
            self.vlm_uni_val_projector,
        )

    def _on_text_scale(self, tokens: Tensor) -> Tensor:
        """Times sqrt(hidden): 4.38 scaled all embeddings, transformers 5 only those of ids."""
        dtype = self.embed_tokens.weight.dtype
        return tokens.to(dtype) * self.embed_tokens.embed_scale.to(dtype)

    def _no_image_tokens(self) -> Tensor:
        """(0, N, hidden) image tokens that tie every image layer into the graph."""
        clip, weight = self.config.clip, self.mm_projector[0].weight
        grid = clip.image_size // clip.patch_size
        query = weight.new_zeros((0, grid * grid, clip.hidden_size))
        joined = weight.new_zeros((0, self.config.convnext.channels, grid, grid))
        mined = query + self._mine(query, joined)
        tokens: Tensor = self.mm_projector(mined)
        return tokens

    def embed_batch(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        images: Tensor | None = None,
        images_aux: Tensor | None = None,
        *,
        image_tokens: Tensor | None = None,
        padding_side: str = "right",
    ) -> Multimodal:
        """Embed texts and pictures, cut to `tokenizer_model_max_length` and padded.

        Pictures that no row shows are not computed: the result is the same.

        Args:
            input_ids: (B, T) int64 with `IMAGE_TOKEN` placeholders.
            attention_mask: (B, T); None reads every position.
            labels: (B, T) int64, or None.
            images: (pictures, 3, s, s); None when there are no pictures.
            images_aux: (pictures, 3, S, S).
            image_tokens: (pictures, tokens, hidden) of `encode_images`, instead of pictures.
            padding_side: `right` for training, `left` for generation.

        Raises:
            InputError: Pictures and placeholders do not match.
        """
        counts = rows_with_images(input_ids, attention_mask)
        given = images if image_tokens is None else image_tokens
        if given is None and int(counts.sum()):
            raise InputError("a placeholder has no picture.", place="images")
        shown = used_pictures(counts, len(given)) if given is not None else []
        if not shown:
            tokens = self._no_image_tokens()
        elif image_tokens is not None:
            tokens = image_tokens[shown]
        elif images is not None and images_aux is not None:
            everything = len(shown) == len(images)
            tokens = self.encode_images(
                images if everything else images[shown],
                images_aux if everything else images_aux[shown],
            )
        else:
            raise InputError("the high-resolution pictures are missing.", place="images_aux")
        return insert_images(
            self.embed_tokens,
            self._on_text_scale(tokens),
            input_ids,
            attention_mask,
            labels,
            max_length=self.config.tokenizer_model_max_length,
            padding_side=padding_side,
        )


def _graph_if_trained(tower: nn.Module) -> AbstractContextManager[Any]:
    """No graph through a tower that nobody trains."""
    trained = any(parameter.requires_grad for parameter in tower.parameters())
    return nullcontext() if trained else torch.no_grad()
