"""Running one Data-Juicer operator over rows: chunk by chunk, on several cores, stoppable."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import random
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.synthesis.guard import PackageMissingError, guarded_operators
from backend.synthesis.operator_check import make_operator, missing_package
from backend.synthesis.samples import batches

_WORTH_SPREADING = 1000
_PARENT_DEATH_SIGNAL = 1

Row = dict[str, Any]
_made: dict[tuple[str, str], Any] = {}
"""This process's operators, by name and arguments."""


@dataclass(frozen=True)
class Task:
    """An operator with its arguments."""

    name: str
    arguments: dict[str, Any]
    place: str
    seed: int
    cache_folder: Path

    def operator(self) -> Any:
        """This process's instance of the operator."""
        key = self.name, json.dumps(self.arguments, sort_keys=True, default=repr)
        if key not in _made:
            kind = guarded_operators(self.cache_folder)[self.name]
            _made[key] = make_operator(kind, self.arguments, self.place)
        return _made[key]


@dataclass
class Chunk:
    """What an operator made of some rows."""

    rows: list[Row]
    """A filter's come back all, with statistics; a mapper's as it left them."""
    kept: set[str] | None = None
    """Ids that a filter keeps."""
    errors: list[str] = field(default_factory=list)
    """What it logged as errors without raising."""


class Runner:
    """Runs operators; keep it for a whole recipe, so that its processes start once."""

    def __init__(self, workers: int, cache_folder: Path):
        self._workers = workers
        self._cache_folder = cache_folder
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def start(self) -> None:
        """Fork the processes; do it while this one has no threads yet."""
        if self._workers > 1 and self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._workers,
                mp_context=multiprocessing.get_context("fork"),
                initializer=_start_worker,
                initargs=(self._cache_folder,),
            )
            self._pool.submit(int).result()

    def run(self, task: Task, rows: list[Row], *, alone: bool, size: int) -> Iterator[Chunk]:
        """The chunks in order, as they come.

        Args:
            task: The operator.
            rows: All rows it shall see.
            alone: Keep it in this process (it holds a model).
            size: Rows in a chunk.

        Raises:
            InputError: The operator failed; names the sample.
        """
        chunks = batches(rows, size)
        if alone or self._pool is None or len(rows) < _WORTH_SPREADING:
            yield from (run_chunk(task, chunk) for chunk in chunks)
            return
        # Only a few chunks are under way at a time: a stop must not wait for all.
        under_way = [
            self._pool.submit(run_chunk, task, chunk) for chunk in islice(chunks, 2 * self._workers)
        ]
        while under_way:
            done = under_way.pop(0).result()
            under_way += [self._pool.submit(run_chunk, task, chunk) for chunk in islice(chunks, 1)]
            yield done


def run_chunk(task: Task, rows: list[Row]) -> Chunk:
    """Run the operator over rows in this process.

    Raises:
        InputError: It failed; names the first sample with which it does.
    """
    operator = task.operator()
    _seed(task, rows)
    try:
        return _apply(operator, rows)
    except PackageMissingError as error:
        raise missing_package(error, task.place) from error
    except InputError:
        raise
    # An operator is foreign code: whatever it raises is told with the sample that made it fail.
    except Exception as error:
        sample, cause = _culprit(operator, rows, error)
        raise InputError(
            f"the operator failed with {type(cause).__name__}: {cause}.",
            place=f"{task.place}, sample {sample}",
            remedy="Put image_readable_filter before it, or leave the sample out.",
        ) from error


def deduplicate(task: Task, hashed: list[Row]) -> tuple[list[Row], dict[str, str]]:
    """The rows that a deduplicator keeps of rows with hashes.

    Returns:
        Those rows, and for dropped ids the kept one they are like, where the operator tells.
    """
    from data_juicer.core.data import NestedDataset

    operator = task.operator()
    kept, _ = operator.process(NestedDataset.from_list(hashed), 0)
    return kept.to_list(), dict(getattr(operator, "twins", {}))


def _apply(operator: Any, rows: list[Row]) -> Chunk:
    from data_juicer.core.data import NestedDataset
    from data_juicer.ops.base_op import Deduplicator, Filter
    from loguru import logger

    dataset = NestedDataset.from_list(rows)
    errors: list[str] = []
    sink = logger.add(
        lambda message: errors.append(_logged(message.record)),
        level="ERROR",
        backtrace=False,
        diagnose=False,
    )
    try:
        if isinstance(operator, Filter):
            judged = operator.run(dataset, reduce=False)
            kept = judged.filter(operator.process, batch_size=operator.batch_size)
            return Chunk(judged.to_list(), {row["id"] for row in kept.to_list()}, errors)
        if isinstance(operator, Deduplicator):
            return Chunk(operator.run(dataset, reduce=False).to_list(), None, errors)
        return Chunk(operator.run(dataset).to_list(), None, errors)
    finally:
        logger.remove(sink)


def _logged(record: Any) -> str:
    """One line of what was logged; the values in a traceback may be secret."""
    lines = record["message"].splitlines() or [""]
    told = lines[0].partition(" -- Traceback")[0]
    exception = record["exception"]
    cause = exception.type.__name__ if exception and exception.type else ""
    return f"{cause}: {told}" if cause else str(told)


def _culprit(operator: Any, rows: list[Row], error: Exception) -> tuple[str, Exception]:
    """The first row with which the operator fails by itself, and how."""
    for row in rows:
        try:
            _apply(operator, [row])
        except Exception as own:
            return row["id"], own
    return f"{rows[0]['id']} to {rows[-1]['id']}", error


def _seed(task: Task, rows: list[Row]) -> None:
    """Make an operator's random choices follow from the seed and the rows, not from the spread."""
    import numpy as np

    source = random.Random(f"{task.seed} {task.name} {rows[0]['id']}")
    random.seed(source.random())
    np.random.seed(source.getrandbits(32))
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(source.getrandbits(32))


def _start_worker(cache_folder: Path) -> None:
    # A killed parent must not leave workers that wait for it for ever.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    guarded_operators(cache_folder)
