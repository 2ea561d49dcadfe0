"""Who may use the device now: many at once, or one alone while it takes the time.

Peaks of torch's allocator belong to a process, so memory is measured in many processes at once;
speed needs the device for itself. A turnstile lets nobody new in while somebody waits to be alone.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Gate:
    """A lock between processes that dies with its holder.

    Args:
        folder: Where its two files lie; None is a gate that is always open.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.waited = 0.0
        """Seconds that this process stood in front of the gate."""

    @contextmanager
    def shared(self, slot: str = "") -> Iterator[None]:
        """Beside others; waits while somebody is alone or wants to be.

        Args:
            slot: Only one at a time of those that name the same slot, so that whoever names none
                keeps a fair share of the device. Processes take turns on it anyway.
        """
        if self.folder is None:
            yield
            return
        turn = self._take(f"slot-{slot}", fcntl.LOCK_EX) if slot else None
        try:
            with self._beside():
                yield
        finally:
            if turn is not None:
                os.close(turn)

    def pass_by(self) -> None:
        """Wait while somebody is alone or wants to be, and hold nothing afterwards."""
        if self.folder is not None:
            os.close(self._take("turnstile", fcntl.LOCK_SH))

    @contextmanager
    def _beside(self) -> Iterator[None]:
        turnstile = self._take("turnstile", fcntl.LOCK_SH)
        room = self._take("room", fcntl.LOCK_SH)
        os.close(turnstile)
        try:
            yield
        finally:
            os.close(room)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else works on the device."""
        if self.folder is None:
            yield
            return
        turnstile = self._take("turnstile", fcntl.LOCK_EX)
        room = self._take("room", fcntl.LOCK_EX)
        try:
            yield
        finally:
            os.close(room)
            os.close(turnstile)

    def _take(self, name: str, kind: int) -> int:
        assert self.folder is not None
        started = time.perf_counter()
        handle = os.open(self.folder / name, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(handle, kind)
        self.waited += time.perf_counter() - started
        return handle
