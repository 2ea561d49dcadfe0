"""`checkpoint-N` folders: written whole or not at all, and the newest one read back."""

from __future__ import annotations

import ast
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backend.files import read_json, write_json
from backend.runs import UNFINISHED

POSITION_FILE = "position.json"


def checkpoints(artifacts: Path) -> list[tuple[int, Path]]:
    """Step and folder of every complete checkpoint, oldest first."""
    found = [
        (int(match[1]), path)
        for path in artifacts.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
        and (path / POSITION_FILE).is_file()
    ]
    return sorted(found)


def drop_older(artifacts: Path, keep: int) -> None:
    """Leave the newest `keep` checkpoints (0: none), and nothing half written."""
    found = [path for _, path in checkpoints(artifacts)]
    for path in found[: len(found) - keep]:
        # Half a checkpoint must not go by the name of a whole one.
        path.rename(path.with_name(f".{path.name}"))
    for path in artifacts.glob(f"{UNFINISHED}*"):
        shutil.rmtree(path)


def scratch_folder(artifacts: Path, step: int) -> Path:
    """Where `checkpoint-<step>` is put together."""
    return artifacts / f"{UNFINISHED}{step}"


def start_writing(scratch: Path) -> None:
    """Make the folder, without what an earlier attempt left in it."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()


def finish_writing(scratch: Path, position: dict[str, Any]) -> Path:
    """Give a complete folder its name, once all of it has reached the disk.

    Only then may older checkpoints go: a machine that loses its power keeps one that is whole.
    """
    write_json(scratch / POSITION_FILE, position)
    for path in [*scratch.rglob("*"), scratch]:
        _reach_disk(path)
    final = scratch.with_name(scratch.name.removeprefix("."))
    shutil.rmtree(final, ignore_errors=True)
    scratch.rename(final)
    _reach_disk(final.parent)
    return final


def _reach_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def give_up_writing(scratch: Path) -> None:
    """Remove a folder that cannot be completed: on a full disk its bytes are what others need."""
    shutil.rmtree(scratch, ignore_errors=True)


def read_position(folder: Path) -> dict[str, Any]:
    """What `finish_writing` was given."""
    position: dict[str, Any] = read_json(folder / POSITION_FILE)
    return position


def save_random(folder: Path, rank: int) -> None:
    """Write this process's random states."""
    state = {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "python": repr(random.getstate()),
    }
    torch.save(state, folder / f"random-{rank}.pt")


def load_random(folder: Path, rank: int) -> None:
    """Continue with the random states of `save_random`."""
    state = torch.load(folder / f"random-{rank}.pt", weights_only=True)
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    random.setstate(ast.literal_eval(state["python"]))


def seed_everything(seed: int) -> None:
    """Start every random stream that training reads."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
