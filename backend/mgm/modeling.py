"""MGM on Gemma: pictures become tokens of a causal language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GemmaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.gemma.modeling_gemma import GemmaPreTrainedModel

from backend.mgm.configuration import MGMConfig
from backend.mgm.decoder import MGMGemmaModel
from backend.mgm.multimodal import IGNORE
from backend.mgm.projector import is_projector, is_tower

EOS = 1
PAD = 0


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
        """The loader of transformers, for full checkpoints; fills in the towers' sizes first.

        `backend.mgm.checkpoints.load` reads more: adapters, towers in other directories.
        """
        from backend.mgm.towers import complete_config

        directory = Path(pretrained_model_name_or_path)
        config = kwargs.pop("config", None) or MGMConfig.from_pretrained(directory)
        kwargs["config"] = complete_config(config, directory)
        model: MGMGemmaForCausalLM = super().from_pretrained(directory, *args, **kwargs)
        return model

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
            return_hidden: Give (hidden states (B, L, hidden), labels (B, L), not shifted) of rows
                padded at the right, and compute no logits, for a loss that needs few of them.
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
        if return_hidden and inputs_embeds is not None:
            return self.model.decode(inputs_embeds), labels
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
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
            with torch.no_grad():
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
