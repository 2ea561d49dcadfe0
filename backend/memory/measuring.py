"""What a real training step takes, moment by moment, as torch's allocator and the kernel tell."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from backend.memory.parts import Moment


@dataclass
class Measured:
    """Bytes; None where nothing tells (a machine without a GPU has no device memory).

    Attributes:
        weights: Allocated after the model was built.
        optimizer: Masters and states; paged ones are not counted by the allocator.
        gradients: Between the last backward pass and the optimizer's step.
        moments: Highest allocated bytes of each moment of a step.
        peak_reserved: Highest reserved bytes.
        host_before: Main memory of this process before the model.
        host_built: After it was built.
        host_peak: Highest that was seen at the end of a moment.
    """

    weights: int | None = None
    optimizer: int | None = None
    gradients: int | None = None
    moments: dict[Moment, int] = field(default_factory=dict)
    peak_reserved: int | None = None
    host_before: int | None = None
    host_built: int | None = None
    host_peak: int | None = None

    @property
    def peak_allocated(self) -> int | None:
        """The highest of all moments."""
        return max(self.moments.values(), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**vars(self), "peak_allocated": self.peak_allocated}


class Meter:
    """Reads memory between the moments of a training step; made before anything is loaded."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.found = Measured(host_before=self._host())
        self.moment: Moment = "loading"
        self._before_states = 0

    @property
    def on_gpu(self) -> bool:
        """Whether there is an allocator to read."""
        kind: str = self.device.type
        return kind == "cuda"

    def built(self, device: torch.device) -> None:
        """The model is on its device, its optimizer is not there yet."""
        self.device = device
        self.found.host_built = self._host()
        if self.on_gpu:
            self.found.weights = torch.cuda.memory_allocated(device)

    def enter(self, moment: Moment) -> None:
        """The moment before has ended."""
        self._note()
        self.moment = moment

    def before_update(self) -> None:
        """All gradients are there."""
        self.enter("optimizer")
        if self.on_gpu:
            self._before_states = torch.cuda.memory_allocated(self.device)

    def after_update(self) -> None:
        """The weights are updated and the gradients gone."""
        self._note()
        if not self.on_gpu or self.found.weights is None:
            return
        now = torch.cuda.memory_allocated(self.device)
        states = now - self.found.weights
        if self.found.optimizer is not None:
            # From the second step on states existed before the gradients did.
            self.found.gradients = self._before_states - now
        self.found.optimizer = states

    def _note(self) -> None:
        self.found.host_peak = max(self.found.host_peak or 0, self._host())
        if not self.on_gpu:
            return
        peak = torch.cuda.max_memory_allocated(self.device)
        self.found.moments[self.moment] = max(self.found.moments.get(self.moment, 0), peak)
        reserved = torch.cuda.max_memory_reserved(self.device)
        self.found.peak_reserved = max(self.found.peak_reserved or 0, reserved)
        torch.cuda.reset_peak_memory_stats(self.device)

    def _host(self) -> int:
        """Resident bytes; pages of mapped files, which the system can drop, are left out."""
        memory = psutil.Process(os.getpid()).memory_info()
        try:
            lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
            mapped = next(line for line in lines if line.startswith("RssFile:"))
            return int(memory.rss) - 1024 * int(mapped.split()[1])
        except (OSError, StopIteration, ValueError):
            # Not Linux: what is mapped counts.
            return int(memory.rss)


@contextmanager
def metered(engine: Any, meter: Meter) -> Iterator[None]:
    """Let a meter see each moment of an engine's steps.

    Args:
        engine: A `PlainEngine`; its methods are as before afterwards.
        meter: Reads between the moments.
    """
    inner = engine.loss.model.model
    decode, micro_batch, step = inner.decode, engine.micro_batch, engine.step

    def decoded(embeddings: Tensor) -> Tensor:
        meter.enter("forward")
        hidden: Tensor = decode(embeddings)
        meter.enter("loss")
        if hidden.requires_grad:
            hidden.register_hook(_entering(meter))
        return hidden

    def batch(*arguments: Any, **options: Any) -> Any:
        meter.enter("vision")
        loss = micro_batch(*arguments, **options)
        meter.enter("vision")
        return loss

    def update(learning_rate: float) -> float:
        meter.before_update()
        norm: float = step(learning_rate)
        meter.after_update()
        meter.moment = "vision"
        return norm

    inner.decode, engine.micro_batch, engine.step = decoded, batch, update
    try:
        yield
    finally:
        inner.decode, engine.micro_batch, engine.step = decode, micro_batch, step


def _entering(meter: Meter) -> Callable[[Tensor], None]:
    def enter(_: Tensor) -> None:
        meter.enter("backward")

    return enter
