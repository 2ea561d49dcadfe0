"""A starter workspace in small: the shipped zoo, and a few dozen pairs with every fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backend.starter.create import ZOO
from backend.starter.seed import UNREADABLE, write_seed
from backend.workspace import Settings, Workspace

TOWER = ZOO / "vision_tower"


def small_starter(root: Path, count: int = 60, seed: int = 5) -> Workspace:
    """`count` pairs, the last `UNREADABLE` of them broken; the zoo stays where it ships."""
    assets = {name: str(ZOO / name) for name in ("llm", "vision_tower", "vision_tower_aux")}
    workspace = Workspace.create(root, Settings(name="small", assets=assets))
    write_seed(workspace.asset("seed_images"), truth_file(workspace), count=count, seed=seed)
    return workspace


def truth_file(workspace: Workspace) -> Path:
    return workspace.kit / "scenes.jsonl"


def truth(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """What is truly in each pair's picture, and its fault, by id."""
    lines = truth_file(workspace).read_text().splitlines()
    return {record["id"]: record for record in map(json.loads, lines)}


def untrained_checkpoint(folder: Path) -> Path:
    """The nano model before any training: it answers in the words of scenes, and mostly wrong."""
    import torch

    from backend.mgm import checkpoints

    torch.manual_seed(0)
    mgm = checkpoints.assemble(
        ZOO / "llm", ZOO / "vision_tower", ZOO / "vision_tower_aux", image_size_aux=128
    )
    checkpoints.save(folder, mgm.model, mgm.processor)
    return folder


__all__ = ["TOWER", "UNREADABLE", "small_starter", "truth", "untrained_checkpoint"]
