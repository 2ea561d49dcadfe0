"""A trainer that only measures: its longest micro-batch, again and again."""

from __future__ import annotations

import itertools
from collections.abc import Generator

from backend.memory.measuring import Meter
from backend.stages.base import StageContext
from backend.training.data import MicroBatch, prefetch
from backend.training.engine import Engine
from backend.training.longest import device_name, find_longest
from backend.training.parameters import TrainingParameters
from backend.training.trainer import Job, Trainer


class ProbedTrainer(Trainer):
    """Steps of the real loop on the longest samples; nothing is saved.

    Args:
        context: Of the stage.
        parameters: Of the training.
        job: What the training stage asks for.

    Attributes:
        meter: What was measured so far.
    """

    def __init__(self, context: StageContext, parameters: TrainingParameters, job: Job) -> None:
        self.meter = Meter()
        super().__init__(context, parameters, job)
        self.longest = find_longest(self.collator, parameters.micro_batch_size)
        self._batches = self._stream()

    @property
    def device_name(self) -> str | None:
        """See `longest.device_name`."""
        return device_name(self.device)

    def _engine(self) -> Engine:
        self.meter.built(self.device)
        return super()._engine()

    def _stream(self) -> Generator[MicroBatch, None, None]:
        batches = itertools.repeat(list(self.longest.indices))
        return prefetch(self.collator, batches, 0, pin=self.device.type == "cuda")

    def probe_step(self) -> None:
        """One optimizer step."""
        self._one_step(self._batches)
