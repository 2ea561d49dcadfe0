"""The training loop: from a stage's parameters to its artifacts."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor, distributed

from backend.errors import InputError
from backend.files import append_line
from backend.memory.health import conclude, judge
from backend.mgm.adapters import Lora
from backend.mgm.checkpoints import MGM
from backend.stages.base import StageContext, StopRequested
from backend.training import resume
from backend.training.batches import BatchLog
from backend.training.data import Collator, MicroBatch, Unreadable, prefetch, read_samples
from backend.training.engine import Engine, PlainEngine
from backend.training.loss import Loss
from backend.training.model import build, trainable
from backend.training.order import DataOrder
from backend.training.parameters import TrainingParameters
from backend.training.schedule import learning_rate, warmup_steps
from backend.training.sources import Source

Save = Callable[[Path, MGM, dict[str, Tensor] | None], None]
"""Writes a stage's result into a folder; weights are given when processes share them."""
SICK_EVERY = 25
"""Steps between two looks at the run's health."""


@dataclass(frozen=True)
class Job:
    """What a stage asks the loop for.

    Attributes:
        source: Data and pictures.
        save: Writes the result.
        projector: `mm_projector.bin` to start from.
        lora: Adapter to train.
        group: Group batches by modality and length.
    """

    source: Source
    save: Save
    projector: Path | None = None
    lora: Lora | None = None
    group: bool = False


class Trainer:
    """One training run in this process.

    Args:
        context: Of the stage.
        parameters: Its parameters.
        job: What is particular to the stage.
    """

    def __init__(self, context: StageContext, parameters: TrainingParameters, job: Job) -> None:
        self.context, self.parameters, self.job = context, parameters, job
        self.rank = distributed.get_rank() if distributed.is_initialized() else 0
        self.device = _device(self.rank)
        started = time.perf_counter()
        samples = read_samples(job.source.file)
        resume.seed_everything(parameters.seed)
        self.mgm = build(
            context.workspace, parameters, self.device, projector=job.projector, lora=job.lora
        )
        lengths = [sample.length for sample in samples] if job.group else None
        self.order = DataOrder(
            len(samples),
            parameters.micro_batch_size,
            parameters.micro_batches * parameters.devices,
            parameters.seed,
            lengths,
        )
        self.total = self._total_steps()
        self.warmup = warmup_steps(self.total, parameters.warmup_ratio)
        self.collator = Collator(
            samples, job.source.image_root, self.mgm.processor, parameters.image_mode
        )
        self.engine: Engine = PlainEngine(self.mgm.model, parameters, self.device)
        self.log = BatchLog(context.run.path / "batches", context.attempt)
        self.unreadable: dict[str, Unreadable] = {}
        self.step = 0
        self._announce(len(samples), time.perf_counter() - started)

    def _total_steps(self) -> int:
        whole = math.ceil(self.parameters.epochs * self.order.steps_per_epoch)
        return min(whole, self.parameters.max_steps or whole)

    def _announce(self, samples: int, seconds: float) -> None:
        """Say what is trained, on what, and how."""
        model, asked = self.mgm.model, self.parameters
        counts = [value.numel() for value in trainable(model).values()]
        dtype = str(next(model.model.vision_tower.parameters()).dtype).removeprefix("torch.")
        attention = model.config._attn_implementation
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        self.context.event(
            "info", "training_started", device=name, dtype=dtype, precision=asked.precision,
            optimizer=asked.optimizer, attention=attention, trained=f"{sum(counts):,}",
            samples=f"{samples:,}", steps=f"{self.total:,}", seconds=f"{seconds:.1f}",
        )  # fmt: skip
        print(
            f"{name}, {dtype} ({asked.precision}), {asked.optimizer}, attention {attention}; "
            f"{sum(counts):,} trained values in {len(counts)} tensors; {samples:,} samples, "
            f"{self.total:,} steps of {self.order.global_batch} "
            f"({asked.micro_batches} x {asked.micro_batch_size} x {asked.devices}), "
            f"{self.order.left_out} left out of each epoch; ready in {seconds:.1f} s",
            flush=True,
        )

    def train(self) -> None:
        """Train to the end, save the result, and judge it.

        Raises:
            RunFailed: The run did not learn.
            StopRequested: A person asked to stop; a checkpoint is saved.
        """
        self._resume()
        self.context.progress(self.step, self.total, "steps")
        stream = self._stream()
        try:
            while self.step < self.total:
                self._one_step(stream)
                self._after_step()
        finally:
            stream.close()
            self.log.flush()
        self.job.save(self.context.artifacts, self.mgm, self.engine.weights())
        self._tell_unreadable()
        conclude(self.context.run)

    def _resume(self) -> None:
        found = resume.checkpoints(self.context.artifacts)
        if not found:
            return
        self.step, folder = found[-1]
        position = resume.read_position(folder)
        if position["samples"] != self.order.count or position["total"] != self.total:
            raise InputError(
                "the data or the number of steps has changed since this checkpoint.",
                place=str(folder),
                remedy="Start a new run.",
            )
        self.engine.load(folder)
        resume.load_random(folder)
        self.context.event("info", "training_resumed", step=self.step, total=self.total)
        print(f"resumed at step {self.step}", flush=True)

    def _stream(self) -> Generator[MicroBatch, None, None]:
        """This process's micro-batches, from the next step on."""
        devices = self.parameters.devices
        mine = (
            indices
            for batch in self.order.batches(self.step)
            for indices in batch[self.rank :: devices]
        )
        return prefetch(self.collator, mine, self.parameters.image_workers)

    def _one_step(self, stream: Iterator[MicroBatch]) -> None:
        started = time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        count = min(
            self.parameters.micro_batches,
            -(-self.order.count // (self.parameters.micro_batch_size * self.parameters.devices)),
        )
        losses: list[Loss] = []
        ids: list[str] = []
        tokens = 0
        for _ in range(count):
            batch = next(stream)
            tensors = {
                name: value.to(self.device, non_blocking=True)
                for name, value in batch.tensors.items()
            }
            losses.append(self.engine.micro_batch(tensors, 1 / count))
            ids += batch.ids
            tokens += self._tokens(batch)
            self._note_unreadable(batch)
        rate = learning_rate(
            self.step, self.total, peak=self.parameters.learning_rate,
            scheduler=self.parameters.scheduler, warmup=self.warmup,
        )  # fmt: skip
        norm = self.engine.step(rate)
        self.step += 1
        loss = _mean([float(loss.total.detach()) for loss in losses if loss.labels])
        self.log.add(self.step, ids, [value for loss in losses for value in loss.samples.tolist()])
        seconds = time.perf_counter() - started
        self._tell_step(loss, rate, norm, len(ids), tokens, seconds)

    def _tokens(self, batch: MicroBatch) -> int:
        """Positions of the language model that are not padding."""
        config = self.mgm.model.config
        views = config.image_grid**2 + config.image_global if config.image_grid > 1 else 1
        grid: int = config.clip.image_size // config.clip.patch_size
        pictures = int((batch.tensors["input_ids"] < 0).sum())
        words = int(batch.tensors["attention_mask"].sum())
        return words + pictures * (int(views) * grid * grid - 1)

    def _tell_step(
        self, loss: float | None, rate: float, norm: float, samples: int, tokens: int,
        seconds: float,
    ) -> None:  # fmt: skip
        samples *= self.parameters.devices
        tokens *= self.parameters.devices
        memory = _memory(self.device)
        self.context.metric(
            self.step, loss=loss, learning_rate=rate, grad_norm=norm,
            epoch=self.step / self.order.steps_per_epoch,
            samples_per_second=samples / seconds, tokens_per_second=tokens / seconds, **memory,
        )  # fmt: skip
        peak = memory["memory_allocated_peak"]
        device = f"  {peak / 2**30:.2f} GiB" if peak is not None else ""
        shown = "-" if loss is None else f"{loss:.4f}"
        print(
            f"step {self.step}/{self.total}  loss {shown}  lr {rate:.2e}  norm {norm:.3f}  "
            f"{samples / seconds:.1f} samples/s  {tokens / seconds:.0f} tokens/s{device}",
            flush=True,
        )
        self.context.progress(self.step, self.total, "steps")

    def _after_step(self) -> None:
        asked, last = self.parameters, self.step == self.total
        if self.context.stop_requested and not last:
            self._save_checkpoint()
            raise StopRequested
        if asked.save_steps and self.step % asked.save_steps == 0 and not last:
            self._save_checkpoint()
        if asked.stop_when_sick and self.step % SICK_EVERY == 0 and not last:
            self._look_for_sickness()

    def _save_checkpoint(self) -> None:
        self.log.flush()
        folder = resume.start_writing(self.context.artifacts, self.step)
        self.engine.save(folder)
        resume.save_random(folder)
        position = {"step": self.step, "total": self.total, "samples": self.order.count}
        resume.finish_writing(folder, position)
        keep = self.parameters.save_total_limit
        resume.drop_older(
            self.context.artifacts, keep or self.context.workspace.settings.retention_checkpoints
        )
        print(f"saved checkpoint-{self.step}", flush=True)

    def _look_for_sickness(self) -> None:
        """End a run that cannot recover, as its end would."""
        from backend.files import read_lines

        rows = read_lines(self.context.run.metrics_path)
        if any(finding.level == "error" for finding in judge(rows)):
            self._save_checkpoint()
            self.log.flush()
            conclude(self.context.run)

    def _note_unreadable(self, batch: MicroBatch) -> None:
        for item in batch.unreadable:
            if item.sample_id in self.unreadable:
                continue
            self.unreadable[item.sample_id] = item
            line = {"sample_id": item.sample_id, "image": item.image, "problem": item.problem}
            append_line(self.context.artifacts / "unreadable.jsonl", line)
            if len(self.unreadable) == 1:
                self.context.event("warning", "image_unreadable", **line)

    def _tell_unreadable(self) -> None:
        if self.unreadable:
            self.context.event("warning", "images_unreadable", count=len(self.unreadable))


def run(context: StageContext, parameters: TrainingParameters, job: Job) -> None:
    """Train as a stage does."""
    trainer = Trainer(context, parameters, job)
    trainer.train()


def _device(rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _memory(device: torch.device) -> dict[str, int | None]:
    """Bytes now and at this step's peak; the device's are None on a CPU."""
    host = psutil.Process(os.getpid()).memory_info().rss
    names = ("memory_allocated", "memory_reserved", "memory_allocated_peak", "memory_reserved_peak")
    values: list[int | None] = [None] * 4
    if device.type == "cuda":
        values = [
            torch.cuda.memory_allocated(device),
            torch.cuda.memory_reserved(device),
            torch.cuda.max_memory_allocated(device),
            torch.cuda.max_memory_reserved(device),
        ]
    return {**dict(zip(names, values, strict=True)), "host_memory": host}
