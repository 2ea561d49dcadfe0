"""The model's configuration: the kit's `config.json` and the sizes of both towers."""

from __future__ import annotations

from typing import Any

from transformers import CLIPVisionConfig, GemmaConfig

from backend.errors import InputError
from backend.mgm.convnext import ConvNextConfig


class MGMConfig(GemmaConfig):
    """Gemma's configuration with the `mm_*` keys of the kit's `config.json`.

    `mm_vision_config` (CLIP's vision configuration) and `mm_vision_aux_config` (depths, dims and
    drop path of the ConvNeXt trunk) are additions: with them a checkpoint opens without the
    original tower directories. `base_model_type` is `mgm_gemma` in an adapter's configuration whose
    base is a full checkpoint. The kit's loader leaves them alone.
    """

    model_type = "mgm_gemma"

    base_model_type: str | None = None
    mm_vision_tower: str | None = None
    mm_vision_tower_aux: str | None = None
    mm_vision_config: dict[str, Any] | None = None
    mm_vision_aux_config: dict[str, Any] | None = None
    mm_hidden_size: int | None = None
    mm_hidden_size_aux: int | None = None
    mm_projector_type: str = "mlp2x_gelu"
    mm_vision_select_layer: int = -2
    mm_vision_select_feature: str = "patch"
    mm_use_im_start_end: bool = False
    mm_use_im_patch_token: bool = False
    use_mm_proj: bool = True
    image_size_aux: int = 768
    image_grid: int = 1
    image_global: bool = False
    image_aspect_ratio: str = "square"
    optimize_vision_tower: bool = False
    optimize_vision_tower_aux: bool = False
    tokenizer_model_max_length: int = 2048
    tokenizer_padding_side: str = "right"

    def __post_init__(self, **kwargs: Any) -> None:
        """Keep the exact GELU where the file says `gelu`: transformers 5 would make it tanh."""
        activation: Any = vars(self)["hidden_act"]
        self.hidden_act = "gelu_pytorch_tanh"
        super().__post_init__(**kwargs)
        self.hidden_act = activation
        self._refuse_unsupported()

    def _refuse_unsupported(self) -> None:
        """Settings of MGM's family that this model does not have are refused, never ignored."""
        for name, wanted in (
            ("mm_vision_select_feature", "patch"),
            ("mm_use_im_start_end", False),
            ("mm_use_im_patch_token", False),
        ):
            value = getattr(self, name)
            if value != wanted:
                raise InputError(
                    f"{name} is {value!r}, and only {wanted!r} is supported.",
                    place="config.json",
                    remedy="Use a checkpoint trained with the kit's recipe.",
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with `rope_theta` where transformers 4.38 reads it."""
        values: dict[str, Any] = super().to_dict()
        rope = values.get("rope_parameters") or {}
        if "rope_theta" in rope:
            values["rope_theta"] = rope["rope_theta"]
        return values

    def set_towers(self, clip: CLIPVisionConfig, convnext: ConvNextConfig) -> None:
        """Record the sizes of both towers."""
        self.mm_vision_config = {
            "hidden_size": clip.hidden_size,
            "intermediate_size": clip.intermediate_size,
            "num_hidden_layers": clip.num_hidden_layers,
            "num_attention_heads": clip.num_attention_heads,
            "image_size": clip.image_size,
            "patch_size": clip.patch_size,
            "hidden_act": clip.hidden_act,
            "layer_norm_eps": clip.layer_norm_eps,
        }
        self.mm_vision_aux_config = convnext.to_dict()
        self.mm_hidden_size = clip.hidden_size
        self.mm_hidden_size_aux = convnext.channels

    @property
    def clip(self) -> CLIPVisionConfig:
        """CLIP's vision configuration.

        Raises:
            InputError: The configuration does not hold the towers' sizes.
        """
        return CLIPVisionConfig(**self._tower("mm_vision_config"))

    @property
    def convnext(self) -> ConvNextConfig:
        """Sizes of the ConvNeXt trunk.

        Raises:
            InputError: The configuration does not hold the towers' sizes.
        """
        return ConvNextConfig.from_dict(self._tower("mm_vision_aux_config"))

    def _tower(self, name: str) -> dict[str, Any]:
        values: dict[str, Any] | None = getattr(self, name)
        if values is None:
            raise InputError(
                "the sizes of the vision towers are not known.",
                place=f"config.json, field {name}",
                remedy="Open the checkpoint with backend.mgm.checkpoints.load, which finds them.",
            )
        return values

    @property
    def image_size(self) -> int:
        """Side of the low-resolution picture in pixels."""
        side: int = self._tower("mm_vision_config")["image_size"]
        return side

    @property
    def tokens_per_image(self) -> int:
        """Positions that one picture takes in the language model."""
        side: int = self.image_size // self._tower("mm_vision_config")["patch_size"]
        views = self.image_grid**2 + int(self.image_global) if self.image_grid > 1 else 1
        return views * side * side
