"""The training loop: from a stage's parameters to its artifacts."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backend.bases import Checkpoint
from backend.errors import InputError
from backend.files import append_line, read_lines
from backend.memory.expectation import write_expectation
from backend.memory.health import conclude, judge
from backend.mgm.adapters import Lora
from backend.mgm.checkpoints import MGM
from backend.runs import RunFailed
from backend.stages.base import StageContext, StopRequested
from backend.training import resume
from backend.training.batches import BatchLog
from backend.training.compiling import compile_layers, left_as_they_are
from backend.training.data import (
    Collator,
    MicroBatch,
    Sample,
    Unreadable,
    prefetch,
    read_samples,
)
from backend.training.device import choose_layout, forget_peaks, memory, training_device
from backend.training.engine import Engine, PlainEngine
from backend.training.longest import expectation
from backend.training.loss import Loss
from backend.training.model import build
from backend.training.order import DataOrder
from backend.training.parameters import TrainingParameters
from backend.training.ranks import Ranks
from backend.training.schedule import learning_rate, warmup_steps
from backend.training.sources import Source

Save = Callable[[Path, MGM, dict[str, Tensor] | None], None]
"""Writes a stage's result into a folder; weights are given when processes share them."""
SICK_EVERY = 25
"""Steps between two looks at the run's health."""
NAMED = 10
"""Unreadable pictures that the last event names; a file of the run lists them all."""
PICTURES = ("images", "images_aux")
"""Tensors of a micro-batch that go to the device; the others are read on the host."""


@dataclass(frozen=True)
class Job:
    """What a stage asks the loop for.

    Attributes:
        source: Data and pictures.
        save: Writes the result.
        projector: `mm_projector.bin` to start from.
        lora: Adapter to train.
        start: Checkpoint whose weights are the start, instead of the workspace's models.
        group: Group batches by modality and length.
    """

    source: Source
    save: Save
    projector: Path | None = None
    lora: Lora | None = None
    start: Checkpoint | None = None
    group: bool = False


class Share(NamedTuple):
    """What one process did in a step.

    Attributes:
        losses: Of its micro-batches that have labels.
        ids: Of its samples.
        samples: Their losses; NaN without a label.
        tokens: Positions of the language model that are not padding.
        unreadable: Samples without a picture that can be opened.
        stop: Whether this process was asked to stop.
    """

    losses: list[float]
    ids: list[str]
    samples: list[float]
    tokens: int
    unreadable: list[Unreadable]
    stop: bool


class Trainer:
    """One training run in this process, alone or as one of several.

    Args:
        context: Of the stage.
        parameters: Its parameters.
        job: What is particular to the stage.
    """

    def __init__(self, context: StageContext, parameters: TrainingParameters, job: Job) -> None:
        self.context, self.parameters, self.job = context, parameters, job
        self.ranks = Ranks()
        budget = context.workspace.settings.memory_budget_gib
        self.device = training_device(self.ranks.rank, budget)
        started = time.perf_counter()
        samples = read_samples(job.source.file)
        lengths = [sample.length for sample in samples] if job.group else None
        self.order = DataOrder(
            len(samples),
            parameters.micro_batch_size,
            parameters.micro_batches * parameters.devices,
            parameters.seed,
            lengths,
        )
        self.content = _content_mark(samples)
        self._check_samples(len(samples))
        self._check_stop()
        resume.seed_everything(parameters.seed)
        if job.start is not None:
            job.start.tell(context.event)
            context.event("info", "training_continues", checkpoint=str(job.start.folder))
        self.mgm = build(
            context.workspace, parameters, self.device, projector=job.projector, lora=job.lora,
            start=job.start,
        )  # fmt: skip
        self._check_stop()
        # Weights start alike everywhere, and then every process drops what it drops.
        resume.seed_everything(parameters.seed + self.ranks.rank)
        self.micro_batches = min(
            parameters.micro_batches,
            -(-self.order.count // (parameters.micro_batch_size * parameters.devices)),
        )
        self.total = self._total_steps()
        self.warmup = warmup_steps(self.total, parameters.warmup_ratio)
        self.collator = Collator(
            samples, job.source.image_root, self.mgm.processor, parameters.image_mode
        )
        self.expected = expectation(context.workspace, parameters, self.collator, self.device)
        if self.ranks.first:
            write_expectation(context.artifacts, *self.expected)
        self.layouts = choose_layout(
            self.mgm.model.model.vision_tower_aux,
            self.device,
            self.mgm.model.config.image_size_aux,
        )
        if parameters.compile:
            compile_layers(self.mgm.model, self.device, self._tell)
        self.engine = self._engine()
        self.log = BatchLog(context.run.path / "batches", context.attempt)
        self.unreadable = self._known_unreadable()
        self.told_uncompiled = False
        self.step = 0
        self._announce(len(samples), time.perf_counter() - started)

    def _check_samples(self, count: int) -> None:
        devices = self.parameters.devices
        if devices > 1 and count < self.order.global_batch:
            raise InputError(
                f"{count} samples fill no global batch of {self.order.global_batch}, and "
                f"{devices} devices cannot share less.",
                place="global_batch_size",
                remedy=f"Choose a global batch of at most {count}, or one device.",
            )

    def _check_stop(self) -> None:
        """End at once while there is nothing to save; several processes agree on it later."""
        if not self.ranks.several:
            self.context.check_stop()

    def _engine(self) -> Engine:
        model, asked = self.mgm.model, self.parameters
        if not asked.zero_stage:
            return PlainEngine(model, asked, self.device)
        from backend.training.deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(model, asked, self.device, self.micro_batches, self._tell)

    def _total_steps(self) -> int:
        whole = math.ceil(self.parameters.epochs * self.order.steps_per_epoch)
        return min(whole, self.parameters.max_steps or whole)

    def _tell(self, code: str, **values: str) -> None:
        """Warn of what is not as it was asked for, once for all processes."""
        if self.ranks.first:
            self.context.event("warning", code, **values)
            print(f"{code}: {values}", flush=True)

    def _announce(self, samples: int, seconds: float) -> None:
        """Say what is trained, on what, and how."""
        if not self.ranks.first:
            return
        model, asked = self.mgm.model, self.parameters
        counts = self.engine.trained
        dtype = str(next(model.model.vision_tower.parameters()).dtype).removeprefix("torch.")
        attention = model.config._attn_implementation
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        self.context.event(
            "info", "training_started", device=name, dtype=dtype, precision=asked.precision,
            optimizer=asked.optimizer, attention=attention, trained=f"{sum(counts):,}",
            samples=f"{samples:,}", steps=f"{self.total:,}", seconds=f"{seconds:.1f}",
        )  # fmt: skip
        layouts = ", ".join(f"{name} {1000 * time:.2f} ms" for name, time in self.layouts.items())
        print(
            f"{name}, {dtype} ({asked.precision}), {asked.optimizer}, attention {attention}, "
            f"ZeRO {asked.zero_stage}, {asked.devices} processes; "
            f"{sum(counts):,} trained values in {len(counts)} tensors; {samples:,} samples, "
            f"{self.total:,} steps of {self.order.global_batch} "
            f"({asked.micro_batches} x {asked.micro_batch_size} x {asked.devices}), "
            f"{self.order.left_out} left out of each epoch; ready in {seconds:.1f} s"
            + (f"; ConvNeXt for a picture: {layouts}" if layouts else ""),
            flush=True,
        )

    def train(self) -> None:
        """Train to the end, save the result, and judge it.

        Raises:
            RunFailed: The run did not learn.
            StopRequested: A person asked to stop; a checkpoint is saved.
        """
        self._resume()
        self._progress()
        if any(self.ranks.gather(self.context.stop_requested)):
            raise StopRequested
        stream = self._stream()
        try:
            while self.step < self.total:
                stop = self._one_step(stream)
                self._after_step(stop)
        except (StopRequested, RunFailed):
            self._tell_unreadable()
            raise
        finally:
            stream.close()
            self.log.flush()
        self._tell_unreadable()
        weights = self.engine.weights()
        if self.ranks.first:
            self.job.save(self.context.artifacts, self.mgm, weights)
            conclude(self.context.run)
            # Nobody resumes a run that has succeeded, and they are larger than its result.
            resume.drop_older(self.context.artifacts, keep=0)

    def _resume(self) -> None:
        found = resume.checkpoints(self.context.artifacts)
        # Nobody may look when the first process has begun to drop old ones.
        self.ranks.wait()
        if not found:
            return
        self.step, folder = found[-1]
        position = resume.read_position(folder)
        wanted = self._position()
        wanted["step"] = position["step"]
        if wanted | position != wanted:
            changed = [name for name in position if position[name] != wanted.get(name)]
            raise InputError(
                f"{', '.join(changed)}: no longer what this checkpoint was made with.",
                place=str(folder),
                remedy="Start a new run.",
            )
        try:
            self.engine.load(folder)
            resume.load_random(folder, self.ranks.rank)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, OSError, EOFError, UnpicklingError) as error:
            said = str(error).splitlines() or [type(error).__name__]
            raise InputError(
                f"this checkpoint cannot be read: {said[0]}.",
                place=str(folder),
                remedy="Delete this folder: the run goes on from the checkpoint before.",
            ) from error
        if self.ranks.first:
            self.context.event("info", "training_resumed", step=self.step, total=self.total)
            print(f"resumed at step {self.step}", flush=True)

    def _position(self) -> dict[str, Any]:
        """The step, and what has to be as it was for anybody who goes on from it."""
        asked = self.parameters
        return {
            "step": self.step,
            "total": self.total,
            "samples": self.order.count,
            "data": self.content,
            "global_batch": self.order.global_batch,
            "micro_batch": self.order.micro_batch,
            "devices": asked.devices,
            "zero_stage": asked.zero_stage,
            "seed": asked.seed,
            "method": asked.trained_part,
            "precision": asked.precision,
            "optimizer": asked.optimizer,
            "lora_rank": self.job.lora.rank if self.job.lora else 0,
        }

    def _stream(self) -> Generator[MicroBatch, None, None]:
        """This process's micro-batches, from the next step on."""
        devices = self.parameters.devices
        mine = (
            indices
            for batch in self.order.batches(self.step)
            for indices in batch[self.ranks.rank :: devices]
        )
        return prefetch(
            self.collator, mine, self.parameters.image_workers, pin=self.device.type == "cuda"
        )

    def _one_step(self, stream: Iterator[MicroBatch]) -> bool:
        """One optimizer step; whether a process was asked to stop."""
        started = time.perf_counter()
        forget_peaks(self.device)
        losses: list[Loss] = []
        ids: list[str] = []
        unreadable: list[Unreadable] = []
        tokens = 0
        for _ in range(self.micro_batches):
            batch = next(stream)
            tensors = {
                name: value.to(self.device, non_blocking=True) if name in PICTURES else value
                for name, value in batch.tensors.items()
            }
            losses.append(self.engine.micro_batch(tensors, 1 / self.micro_batches))
            ids += batch.ids
            tokens += self._tokens(batch)
            unreadable += batch.unreadable
        rate = learning_rate(
            self.step, self.total, peak=self.parameters.learning_rate,
            scheduler=self.parameters.scheduler, warmup=self.warmup,
        )  # fmt: skip
        norm = self.engine.step(rate)
        self.step += 1
        # The only values that the host waits for: once a step, not once a micro-batch.
        totals = torch.stack([loss.total for loss in losses]).tolist()
        labeled = [total for total, loss in zip(totals, losses, strict=True) if loss.labels]
        of_samples = torch.cat([loss.samples for loss in losses]).tolist()
        stop = self.context.stop_requested
        mine = Share(labeled, ids, of_samples, tokens, unreadable, stop)
        shares = [Share(*share) for share in self.ranks.gather(tuple(mine))]
        if self.ranks.first:
            self._tell_step(shares, rate, norm, time.perf_counter() - started)
        if self.ranks.several:
            # What one of them learns after this meeting counts at the next.
            return any(share.stop for share in shares)
        return self.context.stop_requested

    def _tokens(self, batch: MicroBatch) -> int:
        """Positions of the language model that are not padding."""
        pictures = int((batch.tensors["input_ids"] < 0).sum())
        words = int(batch.tensors["attention_mask"].sum())
        size: int = self.mgm.model.config.tokens_per_image
        return words + pictures * (size - 1)

    def _tell_step(
        self, shares: list[Share], rate: float, norm: float | None, seconds: float
    ) -> None:
        for share in shares:
            self.log.add(self.step, share.ids, share.samples)
            self._note_unreadable(share.unreadable)
        loss = _mean([value for share in shares for value in share.losses])
        samples = sum(len(share.ids) for share in shares)
        tokens = sum(share.tokens for share in shares)
        read = memory(self.device)
        self.context.metric(
            self.step, loss=loss, learning_rate=rate, grad_norm=norm,
            epoch=self.step / self.order.steps_per_epoch,
            samples_per_second=samples / seconds, tokens_per_second=tokens / seconds, **read,
        )  # fmt: skip
        peak = read["memory_allocated_peak"]
        device = f"  {peak / 2**30:.2f} GiB" if peak is not None else ""
        told = "-" if norm is None else f"{norm:.3f}"
        shown = "-" if loss is None else f"{loss:.4f}"
        print(
            f"step {self.step}/{self.total}  loss {shown}  lr {rate:.2e}  norm {told}  "
            f"{samples / seconds:.1f} samples/s  {tokens / seconds:.0f} tokens/s{device}",
            flush=True,
        )
        self._progress()

    def _progress(self) -> None:
        if self.ranks.first:
            self.context.progress(self.step, self.total, "steps")

    def _after_step(self, stop: bool) -> None:
        asked, last = self.parameters, self.step == self.total
        if asked.compile and not self.told_uncompiled and (count := left_as_they_are()):
            self.told_uncompiled = True
            self._tell("compile_partly", count=str(count))
        if stop and not last:
            self._save_checkpoint()
            raise StopRequested
        if asked.save_steps and self.step % asked.save_steps == 0 and not last:
            self._save_checkpoint()
        if asked.stop_when_sick and self.step % SICK_EVERY == 0 and not last:
            self._look_for_sickness()

    def _save_checkpoint(self) -> None:
        self.log.flush()
        artifacts, first = self.context.artifacts, self.ranks.first
        folder = resume.scratch_folder(artifacts, self.step)
        if first:
            resume.start_writing(folder)
        self.ranks.wait()
        try:
            self.engine.save(folder)
            resume.save_random(folder, self.ranks.rank)
            self.ranks.wait()
            if first:
                resume.finish_writing(folder, self._position())
        except BaseException:
            if first:
                resume.give_up_writing(folder)
            raise
        if first:
            keep = self.parameters.save_total_limit
            resume.drop_older(
                artifacts, keep or self.context.workspace.settings.retention_checkpoints
            )
            print(f"saved checkpoint-{self.step}", flush=True)

    def _look_for_sickness(self) -> None:
        """End a run that cannot recover, as its end would."""
        sick = False
        if self.ranks.first:
            findings = judge(read_lines(self.context.run.metrics_path))
            sick = any(finding.level == "error" for finding in findings)
        if not self.ranks.gather(sick)[0]:
            return
        # Nothing is saved: it would push out a checkpoint from before the sickness.
        if self.ranks.first:
            self.log.flush()
            conclude(self.context.run, stopped_at=self.step)
        else:
            raise StopRequested

    @property
    def _unreadable_file(self) -> Path:
        return self.context.artifacts / "unreadable.jsonl"

    def _known_unreadable(self) -> set[str]:
        """Ids of the samples that earlier attempts named."""
        return {str(line["sample_id"]) for line in read_lines(self._unreadable_file)}

    def _note_unreadable(self, found: list[Unreadable]) -> None:
        for item in found:
            if item.sample_id in self.unreadable:
                continue
            self.unreadable.add(item.sample_id)
            line = {"sample_id": item.sample_id, "image": item.image, "problem": item.problem}
            append_line(self._unreadable_file, line)
            if len(self.unreadable) == 1:
                self.context.event("warning", "image_unreadable", **line)

    def _tell_unreadable(self) -> None:
        if not (self.ranks.first and self.unreadable):
            return
        listed = [str(line["image"]) for line in read_lines(self._unreadable_file)]
        named = ", ".join([*listed[:NAMED], *(["…"] if len(listed) > NAMED else [])])
        count = len(self.unreadable)
        self.context.event("warning", "images_unreadable", count=count, images=named)


def run(context: StageContext, parameters: TrainingParameters, job: Job) -> None:
    """Train in this process as a stage does."""
    Trainer(context, parameters, job).train()


def _content_mark(samples: Sequence[Sample]) -> int:
    """Changes when other samples are trained on, or the same in another order."""
    lines = (f"{sample.id} {sample.length}\n" for sample in samples)
    return zlib.crc32("".join(lines).encode())


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
