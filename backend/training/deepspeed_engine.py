"""The same optimizer step through DeepSpeed's ZeRO: states, gradients, weights over processes.

Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models" (2020).
The settings are those of the kit's files, with whole numbers where these say "auto".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import chdir, nullcontext
from pathlib import Path
from typing import Any

import deepspeed
import torch
from torch import Tensor, nn

from backend.errors import InputError
from backend.memory.costs import BUCKET, MAX_LIVE, PREFETCH, SUB_GROUP
from backend.mgm.modeling import MGMGemmaForCausalLM
from backend.training.engine import LossModel
from backend.training.loss import Loss
from backend.training.model import trainable
from backend.training.optimizers import BETAS, EPS
from backend.training.parameters import TrainingParameters

TAG = "deepspeed"
PERSISTENT = 100_000


class DeepSpeedEngine:
    """ZeRO 1, 2 or 3 with an fp32 master of bf16 weights, or in fp32 throughout.

    Args:
        model: Whose weights are trained.
        parameters: Of the stage.
        device: Of this process.
        micro_batches: Of one optimizer step in this process.
        tell: Called with a code and its values when something is not as asked for.
    """

    def __init__(
        self,
        model: MGMGemmaForCausalLM,
        parameters: TrainingParameters,
        device: torch.device,
        micro_batches: int,
        tell: Callable[..., None],
    ) -> None:
        # Its kernels for several processes on one processor take a minute to compile.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self.model = model
        self.sharded = parameters.zero_stage == 3
        named = trainable(model)
        self.trained = [value.numel() for value in named.values()]
        loss = LossModel(model, parameters, device, in_place=False)
        if self.sharded:
            model.model.uniform = True
            # The loss reads the head without calling it, so ZeRO-3 has to be told.
            deepspeed.zero.register_external_parameter(loss, model.lm_head.weight)
        optimizer = _optimizer(list(named.values()), parameters, device, tell)
        self.engine, self.optimizer, *_ = deepspeed.initialize(
            model=loss,
            optimizer=optimizer,
            model_parameters=list(named.values()),
            config=configuration(
                parameters, micro_batches, device, type(optimizer).__name__, sum(self.trained)
            ),
            dist_init_required=False,
        )
        self.waiting = False

    def micro_batch(self, tensors: dict[str, Tensor], share: float) -> Loss:  # noqa: ARG002
        """See `Engine`; DeepSpeed weighs micro-batches itself, and alike."""
        self._end_micro_batch()
        loss: Loss = self.engine(**tensors)
        self.engine.backward(loss.total)
        self.waiting = True
        return loss._replace(total=loss.total.detach())

    def _end_micro_batch(self) -> None:
        if self.waiting:
            self.engine.step()
        self.waiting = False

    def step(self, learning_rate: float) -> float | None:
        """See `Engine`."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self._end_micro_batch()
        norm = self.engine.get_global_grad_norm()
        return float(norm) if norm is not None else None

    def save(self, folder: Path) -> None:
        """See `Engine`."""
        self.engine.save_checkpoint(str(folder), tag=TAG, exclude_frozen_parameters=True)

    def load(self, folder: Path) -> None:
        """See `Engine`."""
        # DeepSpeed looks for its files by a pattern, and a folder's name may hold its signs.
        with chdir(folder):
            found, _ = self.engine.load_checkpoint(".", tag=TAG, load_module_strict=False)
        if found is None:
            raise InputError(
                "DeepSpeed finds no states in this checkpoint.",
                place=str(folder),
                remedy="Remove the checkpoint, and resume from the one before.",
            )

    def weights(self) -> dict[str, Tensor] | None:
        """See `Engine`; under ZeRO-3 every process takes part, and all get them."""
        if not self.sharded:
            return None
        return {name: self._whole(value) for name, value in self.model.named_parameters()}

    def _whole(self, parameter: nn.Parameter) -> Tensor:
        with deepspeed.zero.GatheredParameters([parameter]) if self.sharded else nullcontext():
            return parameter.detach().cpu().clone()


def configuration(
    parameters: TrainingParameters,
    micro_batches: int,
    device: torch.device,
    optimizer: str,
    trained: int,
) -> dict[str, Any]:
    """DeepSpeed's settings.

    Args:
        parameters: Of the stage.
        micro_batches: Of one optimizer step in each process.
        device: Of this process.
        optimizer: Its class.
        trained: How many values are trained; a bucket is made whole, so it is no larger.
    """
    bucket = min(BUCKET, trained)
    zero: dict[str, Any] = {
        "stage": parameters.zero_stage,
        "overlap_comm": device.type == "cuda",
        "contiguous_gradients": True,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        "sub_group_size": SUB_GROUP,
    }
    if parameters.zero_stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": PREFETCH,
            "stage3_param_persistence_threshold": PERSISTENT,
            "stage3_max_live_parameters": MAX_LIVE,
            "stage3_max_reuse_distance": MAX_LIVE,
        }
    place = {"device": "cpu", "pin_memory": device.type == "cuda"}
    if parameters.offload != "none":
        zero["offload_optimizer"] = place
    if parameters.offload == "optimizer_parameters":
        zero["offload_param"] = place
    return {
        "train_micro_batch_size_per_gpu": parameters.micro_batch_size,
        "gradient_accumulation_steps": micro_batches,
        "gradient_clipping": parameters.max_grad_norm,
        "bf16": {"enabled": parameters.precision != "fp32"},
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": optimizer == "DeepSpeedCPUAdam",
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }


def _optimizer(
    trained: Sequence[nn.Parameter],
    parameters: TrainingParameters,
    device: torch.device,
    tell: Callable[..., None],
) -> torch.optim.Optimizer:
    """AdamW where its states lie: torch's, or DeepSpeed's for the host when it can be built."""
    settings: dict[str, Any] = {
        "lr": parameters.learning_rate,
        "betas": BETAS,
        "eps": EPS,
        "weight_decay": parameters.weight_decay,
    }
    if parameters.offload == "none" or device.type == "cpu":
        return torch.optim.AdamW(trained, fused=True, **settings)
    try:
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        optimizer: torch.optim.Optimizer = DeepSpeedCPUAdam(trained, adamw_mode=True, **settings)
        return optimizer
    except Exception as error:  # what fails is a build: compiler, ninja, headers, CUDA's version
        lines = str(error).strip().splitlines() or [""]
        tell("cpu_adam_unavailable", error=f"{type(error).__name__}: {lines[0]}")
        return torch.optim.AdamW(trained, **settings)
