"""CLIP's vision transformer, under the parameter names that the kit saves."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoder, CLIPVisionEmbeddings

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipVisionTransformer(nn.Module):
    """Embeddings, encoder and norms; MGM reads a hidden state, so the outer norm stays unused."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__()
        self.embeddings = CLIPVisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.encoder = CLIPEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, images: Tensor, layers: int) -> Tensor:
        """(B, 3, S, S) to the hidden state (B, 1 + patches, hidden) after `layers` layers."""
        hidden: Tensor = self.pre_layrnorm(self.embeddings(images))
        for layer in self.encoder.layers[:layers]:
            hidden = layer(hidden, None)
        return hidden


class ClipModel(nn.Module):
    """Holds the transformer under the name `vision_model`, as CLIP's checkpoints do."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__()
        self.vision_model = ClipVisionTransformer(config)


class ClipTower(nn.Module):
    """Patch features of one of CLIP's hidden states.

    Layers above the selected one are kept (a checkpoint holds them) but never run.
    """

    def __init__(self, config: CLIPVisionConfig, select_layer: int) -> None:
        super().__init__()
        config._attn_implementation = "sdpa"
        self.vision_tower = ClipModel(config)
        self.layers_run = select_layer % (config.num_hidden_layers + 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) normalized pixels to patch features (B, patches, hidden), no class token."""
        model = self.vision_tower.vision_model
        hidden: Tensor = model(images.to(self.dtype), self.layers_run)
        return hidden[:, 1:]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its weights."""
        return next(self.parameters()).dtype
