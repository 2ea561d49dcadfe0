"""MGM on Gemma: pictures become tokens of a causal language model."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import GemmaForCausalLM, GemmaModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.gemma.modeling_gemma import GemmaPreTrainedModel

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
from backend.mgm.multimodal import (
    IGNORE,
    Multimodal,
    insert_images,
    rows_with_images,
    used_pictures,
)
from backend.mgm.projector import NewLayerNorm, NewLinear, is_projector, is_tower, mm_projector
from backend.mgm.vision import ClipTower

EOS = 1
PAD = 0


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
        self.image_scale = math.sqrt(config.hidden_size)
        self.tower_chunk = 0
        self.mining_checkpointing = False

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
            ConvNeXt stage maps.
        """
        with _graph_if_trained(self.vision_tower):
            query = self.vision_tower(images.flatten(0, -4))
            query = query.unflatten(0, images.shape[:-3])
        with _graph_if_trained(self.vision_tower_aux):
            maps = self.vision_tower_aux(images_aux)
        return query, maps

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
            # Gemma in transformers 5 scales inside embed_tokens; in 4.38 it scaled everything.
            (tokens * self.image_scale).to(self.embed_tokens.weight.dtype),
            input_ids,
            attention_mask,
            labels,
            max_length=self.config.tokenizer_model_max_length,
            padding_side=padding_side,
        )


class MGMGemmaForCausalLM(GemmaForCausalLM):
    """The whole model: `forward` for training, `generate` for answers."""

    config_class = MGMConfig

    def __init__(self, config: MGMConfig) -> None:
        GemmaPreTrainedModel.__init__(self, config)
        self.model = MGMGemmaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any
    ) -> MGMGemmaForCausalLM:
        """transformers' own loader, for full checkpoints; fills in the towers' sizes first.

        `backend.mgm.checkpoints.load` reads more: adapters, towers in other directories.
        """
        from backend.mgm.towers import complete_config

        directory = Path(pretrained_model_name_or_path)
        config = kwargs.pop("config", None) or MGMConfig.from_pretrained(directory)
        kwargs["config"] = complete_config(config, directory)
        model: MGMGemmaForCausalLM = super().from_pretrained(directory, *args, **kwargs)
        return model

    def _init_weights(self, module: nn.Module) -> None:
        """New layers start as PyTorch makes them (the kit's rule), all others as Gemma's."""
        if isinstance(module, NewLinear | NewLayerNorm):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    def select_trainable(self, stage: str) -> None:
        """Set `requires_grad` as the kit's stages do.

        Args:
            stage: `pretrain`: projector and mining layers. `finetune`: these and the language
                model. `adapter`: these and LoRA weights. In each stage the flags
                `optimize_vision_tower` (upper half of CLIP's layers) and
                `optimize_vision_tower_aux` (last block of each ConvNeXt stage) add to it.
        """
        for name, parameter in self.named_parameters():
            language = not is_projector(name) and not is_tower(name)
            wanted = is_projector(name) or (
                language and (stage == "finetune" or (stage == "adapter" and "lora_" in name))
            )
            # Quantized weights hold integers, which have no gradient.
            parameter.requires_grad_(wanted and parameter.is_floating_point())
        if self.config.optimize_vision_tower:
            layers = self.model.vision_tower.vision_tower.vision_model.encoder.layers
            for layer in layers[len(layers) // 2 :]:
                layer.requires_grad_(True)
        if self.config.optimize_vision_tower_aux:
            for stage_module in self.model.vision_tower_aux.vision_stages:
                stage_module.blocks[-1].requires_grad_(True)

    def set_activation_checkpointing(self, enabled: bool = True) -> None:
        """Checkpoint every decoder layer (frozen towers keep nothing, so they need none)."""
        name = "enable" if enabled else "disable"
        # transformers 5.23 renamed the method and deprecated the old name.
        switch = getattr(self, f"activation_checkpointing_{name}", None)
        (switch or getattr(self, f"gradient_checkpointing_{name}"))()
        for module in self.model.vision_tower.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = False

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        images: Tensor | None = None,
        images_aux: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_hidden: bool = False,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Tensor, Tensor | None]:
        """Logits of every position, and the loss when labels are given.

        Args:
            input_ids: (B, T) int64 with `IMAGE_TOKEN` placeholders.
            attention_mask: (B, T), or (B, past + T) beside a cache.
            position_ids: (B, T); None counts from 0 over the padded length.
            past_key_values: Cache of what was read before.
            inputs_embeds: (B, L, hidden) on Gemma's scale, instead of `input_ids`.
            labels: (B, T) int64, `IGNORE` where there is none.
            images: (pictures, 3, s, s); a row without a placeholder takes one and shows nothing.
            images_aux: (pictures, 3, S, S).
            use_cache: Give a cache back.
            logits_to_keep: How many last positions (or which) to compute logits of; 0 is all.
            return_hidden: Give (hidden states (B, L, hidden), labels (B, L), not shifted) and
                compute no logits, for a loss that needs few of them.
            **kwargs: Handed to Gemma's decoder.

        Returns:
            Logits (B, L, vocabulary) and the loss: mean cross-entropy over the labeled positions
            in the logits' own dtype, as transformers 4.38.0 computes it.
        """
        if input_ids is not None and past_key_values is None and inputs_embeds is None:
            inputs_embeds, attention_mask, labels = self.model.embed_batch(
                input_ids, attention_mask, labels, images, images_aux
            )
            input_ids = None
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=False if return_hidden else use_cache,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        if return_hidden:
            return hidden, labels
        if not isinstance(logits_to_keep, int):
            hidden = hidden[:, logits_to_keep]
        elif logits_to_keep:
            hidden = hidden[:, -logits_to_keep:]
        logits = self.lm_head(hidden)
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        images: Tensor | None = None,
        images_aux: Tensor | None = None,
        *,
        image_tokens: Tensor | None = None,
        **settings: Any,
    ) -> Tensor:
        """Continue each row, greedily unless `settings` say otherwise.

        Rows of different lengths are padded at the left inside; each row gets the tokens it
        would get alone. Only `<eos>` (id 1) ends an answer, as in the kit.

        Args:
            input_ids: (B, T) int64 with placeholders, padded at either side.
            attention_mask: (B, T); None reads every position.
            images: (pictures, 3, s, s).
            images_aux: (pictures, 3, S, S).
            image_tokens: (pictures, tokens, hidden) of `model.encode_images`, instead of
                pictures: several questions about one picture encode it once.
            **settings: transformers' generation settings, e.g. `max_new_tokens`.

        Returns:
            (B, new) the new tokens alone, int64, `<pad>` after a row's end.
        """
        if input_ids is not None:
            batch = self.model.embed_batch(
                input_ids,
                attention_mask,
                None,
                images,
                images_aux,
                image_tokens=image_tokens,
                padding_side="left",
            )
            settings["inputs_embeds"] = batch.inputs_embeds
            settings["attention_mask"] = batch.attention_mask.long()
        defaults = {"do_sample": False, "num_beams": 1, "eos_token_id": EOS, "pad_token_id": PAD}
        tokens: Tensor = super().generate(**{**defaults, **settings})
        return tokens


def _graph_if_trained(tower: nn.Module) -> AbstractContextManager[Any]:
    """No graph through a tower that nobody trains."""
    trained = any(parameter.requires_grad for parameter in tower.parameters())
    return nullcontext() if trained else torch.no_grad()
