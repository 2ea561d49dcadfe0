"""One optimizer step from its micro-batches, in plain torch: on one device or on several."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, distributed, nn

from backend.mgm.modeling import MGMGemmaForCausalLM
from backend.training.loss import Loss, label_loss
from backend.training.model import trainable
from backend.training.optimizers import LeanAdamW, clip_gradients
from backend.training.parameters import TrainingParameters

STATE_FILE = "training_state.pt"


class Engine(Protocol):
    """How gradients become weights.

    Attributes:
        trained: How many values each trained tensor has.
    """

    trained: list[int]

    def micro_batch(self, tensors: dict[str, Tensor], share: float) -> Loss:
        """Forward and backward of one micro-batch, its loss weighed by `share`."""

    def step(self, learning_rate: float) -> float | None:
        """Update the weights; returns the gradient's norm before clipping, None when unknown."""

    def save(self, folder: Path) -> None:
        """Write weights and states below `folder`; every process calls it."""

    def load(self, folder: Path) -> None:
        """Continue from `save`."""

    def weights(self) -> dict[str, Tensor] | None:
        """All parameters by name when they are spread over processes; None when they are not."""


class LossModel(nn.Module):
    """The model with its loss, so that one forward call is all that a micro-batch is.

    Args:
        model: Whose loss it is.
        parameters: Its levers.
        device: Whose autocast applies.
        in_place: Let the largest gradients be added in place: see `label_loss` and
            `embed_in_place`.
    """

    def __init__(
        self,
        model: MGMGemmaForCausalLM,
        parameters: TrainingParameters,
        device: torch.device,
        *,
        in_place: bool,
    ) -> None:
        super().__init__()
        self.model = model
        model.model.gradients_in_place = in_place
        self.chunk = parameters.loss_chunk
        self.in_place = in_place
        self.autocast = parameters.precision == "fp32" and device.type == "cuda"

    def forward(self, **tensors: Tensor) -> Loss:
        """The loss of one micro-batch."""
        with self._autocast():
            hidden, labels = self.model(**tensors, return_hidden=True)
            return label_loss(
                hidden, labels, self.model.lm_head.weight, chunk=self.chunk, in_place=self.in_place
            )

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cuda", torch.bfloat16) if self.autocast else nullcontext()


class PlainEngine:
    """Gradients summed over micro-batches, then one AdamW step; processes average gradients."""

    def __init__(
        self, model: MGMGemmaForCausalLM, parameters: TrainingParameters, device: torch.device
    ) -> None:
        self.loss = LossModel(model, parameters, device, in_place=True)
        self.named = trainable(model)
        self.values = list(self.named.values())
        self.trained = [value.numel() for value in self.values]
        self.limit = parameters.max_grad_norm
        self.optimizer = LeanAdamW(
            self.values,
            parameters.optimizer,
            parameters.precision,
            parameters.weight_decay,
            parameters.seed,
        )

    def micro_batch(self, tensors: dict[str, Tensor], share: float) -> Loss:
        """See `Engine`."""
        loss: Loss = self.loss(**tensors)
        (loss.total * share).backward()
        return loss._replace(total=loss.total.detach())

    def step(self, learning_rate: float) -> float:
        """See `Engine`."""
        if distributed.is_initialized():
            self._average()
        norm = clip_gradients(self.values, self.limit)
        self.optimizer.step(learning_rate)
        return norm

    def _average(self) -> None:
        for parameter in self.values:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)
            parameter.grad /= distributed.get_world_size()

    def save(self, folder: Path) -> None:
        """See `Engine`; processes hold the same, so the first one writes."""
        if distributed.is_initialized() and distributed.get_rank():
            return
        state = {
            "parameters": {name: value.data for name, value in self.named.items()},
            "optimizer": self.optimizer.state_dict(),
            "updates": self.optimizer.updates,
        }
        torch.save(state, folder / STATE_FILE)

    def load(self, folder: Path) -> None:
        """See `Engine`."""
        state = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True, mmap=True)
        with torch.no_grad():
            for name, value in self.named.items():
                value.copy_(state["parameters"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.optimizer.updates = state.get("updates", 0)  # not in files of earlier versions

    def weights(self) -> dict[str, Tensor] | None:
        """See `Engine`."""
        return None
