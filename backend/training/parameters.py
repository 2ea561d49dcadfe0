"""What both training stages are asked for: the recipe, and what decides memory."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from backend.stages.base import StageParameters, parameter
from backend.training.presets import PRESETS, PresetName

Optimizer = Literal["adamw", "adamw_bf16", "adamw_8bit", "paged_adamw_8bit"]
Precision = Literal["fp32", "fp32_master", "bf16", "bf16_stochastic"]
Offload = Literal["none", "optimizer", "optimizer_parameters"]
Attention = Literal["auto", "sdpa", "flash_attention_2", "eager"]
Scheduler = Literal["cosine", "linear", "constant"]
ImageMode = Literal["square", "pad"]


class StepParameters(StageParameters):
    """What a single step depends on; the recipe's defaults are the kit's.

    A preset fills the fields that are not named beside it.
    """

    preset: PresetName = parameter("custom", fold="recipe")

    image_root: str = parameter("", fold="data", kind="path")
    image_mode: ImageMode = parameter("square", fold="data")
    seed: int = parameter(1024, fold="data", ge=0, lt=2**32)

    learning_rate: float = parameter(1e-3, fold="recipe", gt=0)
    scheduler: Scheduler = parameter("cosine", fold="recipe")
    warmup_ratio: float = parameter(0.03, fold="recipe", ge=0, le=1)
    weight_decay: float = parameter(0.0, fold="recipe", ge=0)
    max_grad_norm: float = parameter(0.0, fold="recipe", ge=0)
    global_batch_size: int = parameter(256, fold="recipe", ge=1)
    model_max_length: int = parameter(2048, fold="recipe", ge=16)
    drop_path: bool = parameter(True, fold="recipe")
    image_size_aux: int = parameter(0, fold="recipe", ge=0)
    image_grid: int = parameter(1, fold="recipe", ge=1, le=2)
    image_global: bool = parameter(False, fold="recipe", only={"image_grid": (2,)})

    micro_batch_size: int = parameter(4, fold="memory", ge=1)
    precision: Precision = parameter("fp32_master", fold="memory")
    optimizer: Optimizer = parameter("adamw", fold="memory")
    activation_checkpointing: bool = parameter(True, fold="memory")
    mining_checkpointing: bool = parameter(False, fold="memory")
    mlp_chunk: int = parameter(0, fold="memory", ge=0)
    tower_chunk: int = parameter(0, fold="memory", ge=0)
    loss_chunk: int = parameter(512, fold="memory", ge=0)
    attention: Attention = parameter("auto", fold="memory")
    compile: bool = parameter(False, fold="memory")
    zero_stage: int = parameter(0, fold="memory", ge=0, le=3)
    offload: Offload = parameter("none", fold="memory")
    devices: int = parameter(1, fold="memory", ge=1, le=64)

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        known = cls.model_fields
        chosen = PRESETS.get(str(values.get("preset")), {})
        return {name: value for name, value in chosen.items() if name in known} | values

    @property
    def trained_part(self) -> str:
        """What is trained: `projector`, or fine-tuning's `method`."""
        return str(getattr(self, "method", "projector"))

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one optimizer step on each device."""
        return self.global_batch_size // (self.micro_batch_size * self.devices)

    @property
    def launched(self) -> bool:
        """Whether processes of their own do the training."""
        return self.devices > 1 or self.zero_stage > 0


class TrainingParameters(StepParameters):
    """Fields of pretraining and fine-tuning: a step, and the course of many."""

    epochs: float = parameter(1.0, fold="recipe", gt=0)
    max_steps: int | None = parameter(None, fold="recipe", ge=1)

    launcher: Literal["torchrun", "deepspeed"] = parameter("torchrun", fold="advanced")
    image_workers: int = parameter(2, fold="advanced", ge=0, le=64)
    save_steps: int = parameter(100, fold="advanced", ge=0)
    save_total_limit: int | None = parameter(None, fold="advanced", ge=1)
    stop_when_sick: bool = parameter(True, fold="advanced")
