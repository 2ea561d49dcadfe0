"""Gemma's decoder with MGM's vision beside it: from pictures and text to embeddings."""

from __future__ import annotations

from collections.abc import Callable
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
from backend.mgm.embedding import embed_in_place
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
        mlp_chunk: Positions that pass a decoder layer's MLP at once in `decode`, each chunk
            computed again in the backward pass; 0 is all of them.
        gradients_in_place: See `embed_in_place`.
        uniform: A batch without pictures passes the towers and the mining layers as well, with a
            blank: processes that share out the weights of these layers meet in each of them.
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
        self.mlp_chunk = 0
        self.gradients_in_place = False
        self.uniform = False
        self._attend: Callable[..., Tensor] = attend
        self._feed: Callable[..., Tensor] = feed

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

    def _blank_tokens(self) -> Tensor:
        """`_no_image_tokens` by way of a blank picture through every layer."""
        config, weight = self.config, self.mm_projector[0].weight
        views = (config.image_grid**2 + config.image_global,) if config.image_grid > 1 else ()
        low = weight.new_zeros((1, *views, 3, config.image_size, config.image_size))
        high = weight.new_zeros((1, 3, config.image_size_aux, config.image_size_aux))
        return self.encode_images(low, high)[:0]

    def _embed(self, ids: Tensor) -> Tensor:
        """Scaled embeddings (T, hidden) of ids (T,) on the host."""
        table = self.embed_tokens
        if self.gradients_in_place and table.weight.requires_grad and torch.is_grad_enabled():
            return embed_in_place(table.weight, ids, table.embed_scale.to(table.weight.dtype))
        rows: Tensor = table(ids.to(table.weight.device))
        return rows

    def compile_layers(self) -> None:
        """Let `decode` run its layers through torch.compile, which fuses what is not a product."""
        self._attend, self._feed = torch.compile(attend), torch.compile(feed)

    def decode(self, inputs_embeds: Tensor) -> Tensor:
        """Last hidden states of whole rows that are padded at the right, for training.

        In a causal decoder no position reads what comes after it, so padding at the right needs
        no mask, and attention takes its fastest form. What stands at padded positions means
        nothing.

        Args:
            inputs_embeds: (B, L, hidden) on Gemma's scale.

        Returns:
            (B, L, hidden) after the last norm.
        """
        hidden = inputs_embeds
        length = hidden.shape[1]
        positions = torch.arange(length, device=hidden.device).unsqueeze(0)
        rotation = self.rotary_emb(hidden, position_ids=positions)
        mask = None
        if self.config._attn_implementation == "eager":
            lowest = torch.finfo(hidden.dtype).min
            mask = hidden.new_full((length, length), lowest).triu(1)[None, None]
        for layer in self.layers:
            again = layer.gradient_checkpointing and self.training
            if again and not self.mlp_chunk:
                hidden = _recomputed(self._whole, layer, hidden, rotation, mask)
                continue
            run = _recomputed if again else _direct
            hidden = run(self._attend, layer, hidden, rotation, mask)
            hidden = self._fed(layer, hidden)
        last: Tensor = self.norm(hidden)
        return last

    def _whole(
        self, layer: nn.Module, hidden: Tensor, rotation: Any, mask: Tensor | None
    ) -> Tensor:
        """One decoder layer."""
        return self._feed(layer, self._attend(layer, hidden, rotation, mask))

    def _fed(self, layer: nn.Module, hidden: Tensor) -> Tensor:
        """The second half of a layer, in chunks where `mlp_chunk` says so."""
        if not self.mlp_chunk:
            return self._feed(layer, hidden)
        parts = hidden.flatten(0, 1).split(self.mlp_chunk)
        fed = torch.cat([_recomputed(self._feed, layer, part) for part in parts])
        return fed.view_as(hidden)

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
            tokens = self._blank_tokens() if self.uniform else self._no_image_tokens()
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
            self._embed,
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


def attend(layer: nn.Module, hidden: Tensor, rotation: Any, mask: Tensor | None) -> Tensor:
    """The first half of a decoder layer: attention around its residual.

    Args:
        layer: Of Gemma.
        hidden: (B, L, hidden).
        rotation: Cosines and sines of the positions.
        mask: Additive, for eager attention; None where attention is causal by itself.
    """
    attended, _ = layer.self_attn(
        hidden_states=layer.input_layernorm(hidden),
        position_embeddings=rotation,
        attention_mask=mask,
    )
    summed: Tensor = hidden + attended
    return summed


def feed(layer: nn.Module, hidden: Tensor) -> Tensor:
    """The second half of a decoder layer, (…, hidden) to the same: its MLP around its residual."""
    summed: Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return summed


def _recomputed(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """The function's value, computed again in the backward pass."""
    value: Tensor = checkpoint(function, *inputs, use_reentrant=False)
    return value


def _direct(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    return function(*inputs)
