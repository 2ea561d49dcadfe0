"""Everything that decides how much memory a training step needs, in one frozen record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backend.errors import UsageError

Method = Literal["projector", "full", "lora", "qlora"]
Optimizer = Literal["adamw", "adamw_bf16", "adamw_8bit", "paged_adamw_8bit"]
Precision = Literal["fp32", "fp32_master", "bf16", "bf16_stochastic"]
Attention = Literal["auto", "sdpa", "flash_attention_2", "eager"]
Offload = Literal["none", "optimizer", "optimizer_parameters"]

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Linear layers of a decoder layer, in the order of `LanguageShape.linear_inputs_outputs`."""


@dataclass(frozen=True)
class MemorySettings:
    """One training configuration, as far as memory depends on it.

    Attributes:
        method: What is trained: `projector` (stage 1), `full` language model and projector,
            `lora` or `qlora` adapters and projector.
        optimizer: Kind of AdamW; its name tells the width of its two states.
        precision: `fp32` (weights and states in fp32, computing in bf16), `fp32_master` (bf16
            weights and an fp32 copy that the optimizer updates), `bf16` and `bf16_stochastic`.
        zero_stage: DeepSpeed ZeRO stage; 0 is plain training.
        offload: What DeepSpeed keeps in host memory.
        devices: Processes that share the work, one device each.
        micro_batch_size: Samples that pass the model at once, on each device.
        gradient_accumulation: Micro-batches of one optimizer step.
        positions: Longest row in the language model, image tokens counted in.
        images_per_sample: Pictures in each row.
        image_size_aux: Side of the high-resolution picture, pixels; 0 is the model's own, once
            for each cell along a side.
        image_grid: Cells along a side in the HD variant; 1 is the plain model.
        image_global: Whether the HD variant adds a view of the whole.
        activation_checkpointing: Recompute decoder layers in the backward pass.
        mining_checkpointing: Recompute the mining block in the backward pass.
        tower_chunk: Pictures that pass the towers at once; 0 is all of the micro-batch.
        mlp_chunk: Positions that pass a decoder layer's MLP at once, recomputed in the backward
            pass; 0 is all of them.
        loss_chunk: Label positions whose logits exist at once; 0 makes logits of every position.
        label_fraction: Share of positions that carry a label.
        attention: Attention implementation.
        compile: Fuse what the decoder layers do between their matrix products.
        lora_rank: Inner size of the adapters.
        lora_dropout: Dropout before each adapter; any value above 0 keeps copies of its input.
        lora_targets: Linear layers of a decoder layer that get an adapter.
    """

    method: Method = "full"
    optimizer: Optimizer = "adamw"
    precision: Precision = "bf16"
    zero_stage: int = 0
    offload: Offload = "none"
    devices: int = 1
    micro_batch_size: int = 4
    gradient_accumulation: int = 1
    positions: int = 2048
    images_per_sample: int = 1
    image_size_aux: int = 0
    image_grid: int = 1
    image_global: bool = False
    activation_checkpointing: bool = True
    mining_checkpointing: bool = False
    tower_chunk: int = 0
    mlp_chunk: int = 0
    loss_chunk: int = 0
    label_fraction: float = 0.2
    attention: Attention = "sdpa"
    compile: bool = False
    lora_rank: int = 64
    lora_dropout: float = 0.05
    lora_targets: tuple[str, ...] = LINEARS

    def __post_init__(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            UsageError: A number is out of range, or two choices exclude each other.
        """
        for name in ("devices", "micro_batch_size", "gradient_accumulation", "positions"):
            if getattr(self, name) < 1:
                raise UsageError("must be at least 1.", place=name)
        if self.zero_stage not in (0, 1, 2, 3):
            raise UsageError("is 0, 1, 2 or 3.", place="zero_stage")
        if self.offload != "none" and self.zero_stage == 0:
            raise UsageError("needs a ZeRO stage of at least 1.", place="offload")
        if self.offload == "optimizer_parameters" and self.zero_stage != 3:
            raise UsageError("needs ZeRO stage 3.", place="offload")
        if not 0 < self.label_fraction <= 1:
            raise UsageError("is above 0 and at most 1.", place="label_fraction")

    @property
    def adapters(self) -> bool:
        """Whether LoRA adapters are trained."""
        return self.method in ("lora", "qlora")

    @property
    def tokens(self) -> int:
        """Positions of one micro-batch."""
        return self.micro_batch_size * self.positions

    @property
    def images(self) -> int:
        """Pictures of one micro-batch."""
        return self.micro_batch_size * self.images_per_sample

    @property
    def views(self) -> int:
        """Low-resolution views of one picture."""
        if self.image_grid == 1:
            return 1
        return self.image_grid**2 + (1 if self.image_global else 0)
