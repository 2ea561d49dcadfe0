"""Whose turn it is on a device: first in, first out, whoever dies in between.

A waiting run holds a ticket file; a running one holds a file lock whose descriptor its stage
inherits, so the device stays taken for as long as the supervisor or the stage lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from backend.errors import InputError
from backend.files import read_json, write_json
from backend.runs import ProcessIdentity


def state_dir() -> Path:
    """Where the devices' queues of this user lie, shared by all workspaces."""
    default = Path.home() / ".local" / "state" / "synthloop"
    return Path(os.environ.get("SYNTHLOOP_STATE_DIR", default))


class DeviceQueue:
    """The queue of one device."""

    def __init__(self, device: str):
        safe = re.sub(r"[^\w.-]", "_", device)
        self.folder = state_dir() / f"device-{safe}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock_path = self.folder / "lock"

    def take_ticket(self, run_id: str, queued_at: float, pid: int) -> Path:
        """Stand in line at the place of `queued_at`, which a restarted supervisor finds again."""
        ticket = self._ticket(run_id, queued_at)
        write_json(ticket, ProcessIdentity.of(pid).model_dump())
        return ticket

    def return_ticket(self, run_id: str, queued_at: float) -> None:
        """Leave the line."""
        self._ticket(run_id, queued_at).unlink(missing_ok=True)

    def _ticket(self, run_id: str, queued_at: float) -> Path:
        return self.folder / f"{queued_at:017.6f}-{run_id}.ticket"

    def tickets(self) -> list[Path]:
        """Tickets of the living, first in line first; those of the dead are removed."""
        alive = []
        for ticket in sorted(self.folder.glob("[0-9]*.ticket")):
            try:
                holder = ProcessIdentity.model_validate(read_json(ticket))
            except (InputError, ValidationError):
                # Returned by its holder while we looked.
                continue
            if holder.alive():
                alive.append(ticket)
            else:
                ticket.unlink(missing_ok=True)
        return alive

    def try_acquire(self, ticket: Path) -> int | None:
        """The lock's descriptor when the ticket is first and the device is free, else None."""
        if self.tickets()[:1] != [ticket]:
            return None
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        ticket.unlink(missing_ok=True)
        return descriptor

    def wait(
        self, run_id: str, queued_at: float, poll_s: float, give_up: Callable[[], bool]
    ) -> int | None:
        """Wait for the turn; None when `give_up` said so. The ticket is gone afterwards."""
        ticket = self._ticket(run_id, queued_at)
        while not give_up():
            # A rival that lost the run may have taken the ticket over and died with it.
            if not ticket.exists():
                # On a full disk the next round tries again.
                with contextlib.suppress(OSError):
                    self.take_ticket(run_id, queued_at, os.getpid())
            descriptor = self.try_acquire(ticket)
            if descriptor is not None:
                return descriptor
            time.sleep(poll_s)
        ticket.unlink(missing_ok=True)
        return None
