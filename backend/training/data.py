"""Training samples: LLaVA conversations with their pictures, to padded micro-batches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from backend.errors import InputError
from backend.files import confine
from backend.formats.json_array import array_objects
from backend.formats.llava import Conversation, parse_conversation
from backend.mgm.multimodal import IGNORE
from backend.mgm.processing import MGMProcessor

AHEAD = 2
"""Micro-batches that are prepared before they are asked for, for each thread."""


class Sample(NamedTuple):
    """One conversation and the id that it goes by in this studio."""

    id: str
    conversation: Conversation

    @property
    def length(self) -> int:
        """Words of all turns, negative without a picture: what the kit groups by."""
        words = sum(len(turn.value.split()) for turn in self.conversation.turns)
        return max(1, words) if self.conversation.images else -max(1, words)


@dataclass(frozen=True)
class Unreadable:
    """A sample whose picture cannot be opened; it trains nothing."""

    sample_id: str
    image: str
    problem: str


class MicroBatch(NamedTuple):
    """What one forward pass reads.

    Attributes:
        ids: Sample ids, one a row.
        tensors: `input_ids`, `labels`, `attention_mask`, `images`, `images_aux`.
        unreadable: Rows that lost their picture and with it their labels.
    """

    ids: list[str]
    tensors: dict[str, Tensor]
    unreadable: list[Unreadable]


def read_samples(path: Path) -> list[Sample]:
    """All samples of a LLaVA file; ids come from `sample_id`, else from `id`.

    An id that comes again is numbered (`x`, `x#2`, …): each record is a sample of its own.

    Raises:
        InputError: A record is malformed, or there is none; names the line and the field.
    """
    samples = []
    times: dict[str, int] = {}
    for place, record in array_objects(path):
        conversation = parse_conversation(record, place)
        name = str(record.get("sample_id") or conversation.id)
        times[name] = times.get(name, 0) + 1
        numbered = name if times[name] == 1 else f"{name}#{times[name]}"
        samples.append(Sample(numbered, conversation))
    if not samples:
        raise InputError("there is no sample.", place=str(path), remedy="Name another file.")
    return samples


def find_image(root: Path, relative: str) -> Path:
    """The file of a picture, under the other names that the kit's data has for some.

    Raises:
        InputError: The path leads outside `root`.
    """
    path = confine(root, relative)
    if path.is_file():
        return path
    others = [
        relative.replace(folder, "images")
        for folder in ("VG_100K_2", "VG_100K")
        if folder in relative
    ]
    if "ocr" in relative:
        others.append(str(Path(relative).with_suffix(".png")))
    return next((other for name in others if (other := confine(root, name)).is_file()), path)


class Collator:
    """Makes micro-batches of samples; the same samples give the same tensors.

    Args:
        samples: All of the training data.
        image_root: Folder that the pictures' paths start at.
        processor: Of the model.
        mode: `square` or `pad`.
    """

    def __init__(
        self, samples: Sequence[Sample], image_root: Path, processor: MGMProcessor, mode: str
    ) -> None:
        self.samples = samples
        self.image_root = image_root
        self.processor = processor
        self.mode = mode

    def __call__(self, indices: Sequence[int]) -> MicroBatch:
        """The micro-batch of these samples."""
        rows, pictures, unreadable = [], [], []
        for index in indices:
            sample = self.samples[index]
            names = sample.conversation.images
            turns = [turn.record() for turn in sample.conversation.turns]
            encoded = self.processor.encode(turns, bool(names))
            labels = encoded.labels
            opened: list[Image.Image | None] = []
            for name in names:
                picture, problem = self._open(name)
                opened.append(picture)
                if problem:
                    unreadable.append(Unreadable(sample.id, name, problem))
                    labels = [IGNORE] * len(labels)
            rows.append((encoded.input_ids, labels))
            pictures += opened or [None]
        tensors = self.processor.collate(rows)
        if any(self.samples[index].conversation.images for index in indices):
            tensors |= self.processor.images(pictures, self.mode)
        return MicroBatch([self.samples[i].id for i in indices], tensors, unreadable)

    def _open(self, name: str) -> tuple[Image.Image | None, str]:
        try:
            with Image.open(find_image(self.image_root, name)) as file:
                return file.convert("RGB"), ""
        except InputError as error:
            return None, error.problem
        # A hostile or broken file can make a decoder raise nearly anything.
        except Exception as error:
            return None, f"{type(error).__name__}: {error}"


def prefetch(
    collate: Collator, batches: Iterable[Sequence[int]], workers: int, *, pin: bool = False
) -> Generator[MicroBatch, None, None]:
    """Micro-batches in order, prepared ahead by threads (0: when they are asked for).

    Args:
        collate: Makes them.
        batches: Indices of the samples of each.
        workers: Threads.
        pin: Put tensors where a card reads them without the host's help.
    """

    def make(indices: Sequence[int]) -> MicroBatch:
        batch = collate(indices)
        if not pin:
            return batch
        return batch._replace(
            tensors={name: value.pin_memory() for name, value in batch.tensors.items()}
        )

    if not workers:
        yield from map(make, batches)
        return
    waiting: deque[Future[MicroBatch]] = deque()
    # Threads of torch's own would multiply with these.
    pool = ThreadPoolExecutor(workers, initializer=_one_thread)
    try:
        for indices in batches:
            waiting.append(pool.submit(make, indices))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    threading.current_thread().name = "pictures"
    torch.set_num_threads(1)
