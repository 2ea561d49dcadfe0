"""Greedy answers of a checkpoint: batched, each picture encoded once, as if asked one by one."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import psutil
import torch
from torch import Tensor

from backend.errors import InputError
from backend.evaluation.benchmarks import Asked, open_picture
from backend.mgm.checkpoints import load

_WINDOW = 16
"""Batches' worth of questions that are sorted together: near questions share pictures."""
_AHEAD = 2
"""Batches whose pictures are prepared while one is answered."""
_CACHE_BYTES = 512 << 20
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


Question = TypeVar("Question", bound=Asked)
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Batch(Generic[Question]):
    """What came of one batch."""

    answered: list[tuple[Question, str]]
    unreadable: list[tuple[Question, str]] = field(default_factory=list)
    """Questions whose picture cannot be read, and why."""
    per_second: float | None = None
    """Answers a second."""


class Answerer:
    """A loaded model that answers questions.

    Args:
        checkpoint: A full checkpoint or a LoRA folder.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: bfloat16 on a GPU, float32 on a CPU
            (the kit evaluates in float16).
        batch_size: Questions at once; halved for a batch that does not fit in device memory.
        image_workers: Threads that decode and resize pictures; 0 does it in between.
        roots: Where relative paths in the checkpoint's configurations start.
        directories: Models instead of those that it names; arguments of `checkpoints.load`.
    """

    def __init__(
        self,
        checkpoint: Path,
        *,
        dtype: str = "auto",
        batch_size: int = 16,
        image_workers: int = 2,
        roots: Sequence[Path] = (),
        directories: Mapping[str, Any] | None = None,
    ):
        start = time.perf_counter()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        usual = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.dtype = usual if dtype == "auto" else _DTYPES[dtype]
        self.batch_size, self.image_workers = batch_size, image_workers
        self.model, self.processor = load(
            checkpoint,
            dtype=self.dtype,
            device=self.device,
            roots=roots,
            **(directories or {}),
        )
        self.model.eval()
        self._tokens: OrderedDict[str, Tensor] = OrderedDict()
        self.load_seconds = time.perf_counter() - start

    @property
    def device_name(self) -> str:
        """The GPU's name, or `cpu`."""
        if self.device.type == "cuda":
            return str(torch.cuda.get_device_name(self.device))
        return "cpu"

    @property
    def dtype_name(self) -> str:
        """E.g. `bfloat16`."""
        return str(self.dtype).removeprefix("torch.")

    def memory(self) -> dict[str, int | None]:
        """Bytes held now: `memory_allocated`, `memory_reserved` (None on a CPU), `host_memory`."""
        gpu = self.device.type == "cuda"
        return {
            "memory_allocated": torch.cuda.memory_allocated(self.device) if gpu else None,
            "memory_reserved": torch.cuda.memory_reserved(self.device) if gpu else None,
            "host_memory": psutil.Process().memory_info().rss,
        }

    def answers(self, tasks: Sequence[Question], max_new_tokens: int) -> Iterator[Batch[Question]]:
        """Answer every task, a batch at a time, in an order that wastes little padding.

        Args:
            tasks: The questions.
            max_new_tokens: Where an answer without an end is cut.
        """
        plan = plan_batches(tasks, self.batch_size)
        with ThreadPoolExecutor(max(1, self.image_workers)) as pool:
            pixels: dict[str, Future[tuple[Tensor, Tensor]]] = {}
            ahead = _AHEAD if self.image_workers else 0
            for number, batch in enumerate(plan):
                for task in (task for part in plan[number : number + 1 + ahead] for task in part):
                    key = task.picture.key
                    if key not in self._tokens and key not in pixels:
                        pixels[key] = pool.submit(self._pixels, task)
                yield self._answer(batch, pixels, max_new_tokens)

    def _pixels(self, task: Asked) -> tuple[Tensor, Tensor]:
        """The picture as both pixel tensors, (1, 3, s, s) and (1, 3, S, S)."""
        values = self.processor.images([open_picture(task)])
        return values["images"], values["images_aux"]

    def _answer(
        self,
        batch: list[Question],
        pixels: dict[str, Future[tuple[Tensor, Tensor]]],
        max_new_tokens: int,
    ) -> Batch[Question]:
        start = time.perf_counter()
        unreadable = self._encode(batch, pixels)
        failed = {id(task) for task, _ in unreadable}
        readable = [task for task in batch if id(task) not in failed]
        texts: list[str] = []
        if readable:
            texts = in_halves(lambda tasks: self._generate(tasks, max_new_tokens), readable)
        self._forget()
        seconds = time.perf_counter() - start
        per_second = len(texts) / seconds if texts else None
        return Batch(list(zip(readable, texts, strict=True)), unreadable, per_second)

    def _encode(
        self, batch: list[Question], pixels: dict[str, Future[tuple[Tensor, Tensor]]]
    ) -> list[tuple[Question, str]]:
        """Put the image tokens of the batch's pictures into the cache; tell what is unreadable."""
        unreadable: list[tuple[Question, str]] = []
        new: dict[str, tuple[Tensor, Tensor]] = {}
        broken: dict[str, str] = {}
        for task in batch:
            key = task.picture.key
            if key in self._tokens:
                self._tokens.move_to_end(key)
            elif key not in new and key not in broken:
                try:
                    new[key] = pixels.pop(key).result()
                except InputError as error:
                    broken[key] = error.problem
            if key in broken:
                unreadable.append((task, broken[key]))
        if new:
            tokens = in_halves(self._image_tokens, list(new.values()))
            self._tokens.update(zip(new, tokens, strict=True))
        return unreadable

    def _image_tokens(self, pictures: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        low, high = (torch.cat(part) for part in zip(*pictures, strict=True))
        place = {"device": self.device, "dtype": self.dtype}
        with torch.no_grad():
            return list(self.model.model.encode_images(low.to(**place), high.to(**place)))

    def _generate(self, tasks: Sequence[Asked], max_new_tokens: int) -> list[str]:
        prompts = [self.processor.prompt(task.sent, has_image=True) for task in tasks]
        batch = self.processor.collate_prompts(prompts)
        new = self.model.generate(
            **{name: values.to(self.device) for name, values in batch.items()},
            image_tokens=torch.stack([self._tokens[task.picture.key] for task in tasks]),
            max_new_tokens=max_new_tokens,
        )
        answers: list[str] = self.processor.decode(new)
        return answers

    def _forget(self) -> None:
        """Let go of the image tokens used longest ago."""
        held = sum(tokens.nbytes for tokens in self._tokens.values())
        while held > _CACHE_BYTES and len(self._tokens) > 1:
            _, tokens = self._tokens.popitem(last=False)
            held -= tokens.nbytes


def in_halves(
    work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]
) -> list[Result]:
    """`work` on all items at once, or on each half where they do not fit in device memory.

    Raises:
        torch.OutOfMemoryError: One alone does not fit.
    """
    try:
        return work(items)
    except torch.OutOfMemoryError:
        if len(items) == 1:
            raise
    # Only here the error is gone, and with it what its frames held.
    torch.cuda.empty_cache()
    half = len(items) // 2
    return in_halves(work, items[:half]) + in_halves(work, items[half:])


def plan_batches(tasks: Sequence[Question], batch_size: int) -> list[list[Question]]:
    """Batches of similar length, out of windows in the order of the file."""
    plan: list[list[Question]] = []
    for start in range(0, len(tasks), batch_size * _WINDOW):
        window = sorted(tasks[start : start + batch_size * _WINDOW], key=lambda t: len(t.sent))
        plan += [window[at : at + batch_size] for at in range(0, len(window), batch_size)]
    return plan
