"""The processes that share a training run, one of them or several."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others: as long as the slowest writes a checkpoint."""


class Ranks:
    """This process among those that train together; alone it is rank 0 of one."""

    def __init__(self) -> None:
        self.several = distributed.is_initialized() and distributed.get_world_size() > 1
        self.rank = distributed.get_rank() if distributed.is_initialized() else 0
        self.count = distributed.get_world_size() if distributed.is_initialized() else 1

    @property
    def first(self) -> bool:
        """Whether this process speaks for all of them."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, by rank; every process calls it."""
        if not self.several:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.several:
            distributed.barrier()


def join() -> None:
    """Meet the other processes of a launcher (its environment variables say where)."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        distributed.init_process_group("cpu:gloo,cuda:nccl", timeout=PATIENCE)
    else:
        distributed.init_process_group("gloo", timeout=PATIENCE)


def leave() -> None:
    """Part in good order."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
