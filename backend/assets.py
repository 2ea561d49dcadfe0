"""What a workspace is fed with: where each asset comes from, and whether all of it is there.

The quick look reads names, sizes, headers and the ends of files; the thorough one reads every
record. Both tell a file that broke off from a whole one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend.errors import SynthLoopError
from backend.formats.spot_checks import (
    check_array,
    check_images,
    check_lines,
    check_model,
    check_table,
)
from backend.workspace import ASSET_PATHS, Workspace

AssetState = Literal["complete", "incomplete", "missing", "unknown"]
_GIB = 1 << 30
_LOOK_S = 0.3
"""Seconds that measuring a folder may take before its size is left unknown."""


@dataclass(frozen=True)
class Asset:
    """One asset of the kit."""

    name: str
    form: Literal["model", "lines", "array", "annotations", "table", "images"]
    source: str
    """Its official name: a model or data repository, or what the kit's download script calls it."""
    files: tuple[str, ...] = ()
    """Files that must be in the folder, besides weights."""
    weights: tuple[str, ...] = ()
    """Any one of these holds the weights, or lists the shards that do."""
    records: str | None = None
    """The asset that names the files of a folder of images."""
    size: int | None = None
    """Bytes at full size, about; None where nobody tells."""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder rather than one file."""
        return self.form in ("model", "images")


_HF_WEIGHTS = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
_KIT = "the kit's download script: "
ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        # Sizes of models are parameters times bytes: 2.506 B in bf16, 428 M and 352 M in fp32.
        Asset(
            "llm",
            "model",
            "google/gemma-2b-it",
            files=("config.json", "tokenizer.json", "tokenizer_config.json"),
            weights=_HF_WEIGHTS,
            size=5_012_344_832,
        ),
        Asset(
            "vision_tower",
            "model",
            "openai/clip-vit-large-patch14-336",
            files=("config.json", "preprocessor_config.json"),
            weights=_HF_WEIGHTS,
            size=1_711_000_000,
        ),
        Asset(
            "vision_tower_aux",
            "model",
            "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup",
            files=("open_clip_config.json",),
            weights=(
                "open_clip_model.safetensors",
                "open_clip_pytorch_model.bin",
                "model.safetensors",
                "pytorch_model.bin",
            ),
            size=1_407_000_000,
        ),
        Asset("seed_pairs", "lines", _KIT + "mgm_pretrain_stage_1.jsonl"),
        Asset("seed_originals", "array", _KIT + "stage_1.json"),
        Asset("seed_images", "images", _KIT + "pretrain_stage_1.tar.gz", records="seed_pairs"),
        Asset("finetune_pairs", "array", _KIT + "mgm_instruction_stage_1.json"),
        Asset(
            "finetune_images",
            "images",
            _KIT + "finetuning_stage_1.tar.gz",
            records="finetune_pairs",
        ),
        Asset("textvqa_questions", "lines", _KIT + "eval_stage_1.tar.gz"),
        Asset("textvqa_annotations", "annotations", "TextVQA 0.5.1: TextVQA_0.5.1_val.json"),
        Asset(
            "textvqa_images",
            "images",
            "TextVQA 0.5.1: train_val_images.zip",
            records="textvqa_questions",
        ),
        Asset("mmbench_questions", "table", "MMBench: mmbench_dev_20230712.tsv"),
    )
}
"""Every asset by its name in `ASSET_PATHS`."""


@dataclass(frozen=True)
class AssetStatus:
    """What is there of an asset."""

    name: str
    state: AssetState
    path: Path
    size: int | None = None
    """Bytes on disk; None when there is nothing, or too much to count in a moment."""
    files: int | None = None
    """Files on disk; None as for `size`."""
    problem: str = ""
    """What is missing or broken, and where."""


def asset_status(
    workspace: Workspace,
    name: str,
    *,
    thorough: bool = False,
    tick: Callable[[], None] = lambda: None,
) -> AssetStatus:
    """What is there of the asset `name`.

    Args:
        workspace: Whose asset.
        name: A name in `ASSETS`.
        thorough: Read every record and count every file, however long it takes.
        tick: Called now and then; may raise to break off.
    """
    asset, path = ASSETS[name], workspace.asset(name)
    try:
        there = path.is_dir() if asset.is_folder else path.is_file()
        if not there:
            wrong = "" if not path.exists() else "this should be a " + (
                "folder." if asset.is_folder else "file."
            )  # fmt: skip
            return AssetStatus(name, "incomplete" if wrong else "missing", path, problem=wrong)
        size, files = measure(path, None if thorough else _LOOK_S, tick)
        problem = _problem(workspace, asset, path, thorough, tick)
    except OSError as error:
        return AssetStatus(name, "unknown", path, problem=f"{path}: {error.strerror}.")
    state: AssetState = "incomplete" if problem else "complete"
    return AssetStatus(name, state, path, size, files, problem)


def _problem(
    workspace: Workspace, asset: Asset, path: Path, thorough: bool, tick: Callable[[], None]
) -> str:
    """What is wrong with the content of an asset that is there; empty when nothing."""
    try:
        if asset.form == "model":
            check_model(path, asset.files, asset.weights)
        elif asset.form == "lines":
            check_lines(path, thorough=thorough, tick=tick)
        elif asset.form == "array":
            check_array(path, thorough=thorough, tick=tick)
        elif asset.form == "annotations":
            check_array(path, opening="{", thorough=thorough, tick=tick)
        elif asset.form == "table":
            check_table(path, thorough=thorough, tick=tick)
        elif asset.records is not None:
            records = workspace.asset(asset.records)
            if records.is_file():
                check_images(path, records, thorough=thorough, tick=tick)
            elif not any(path.iterdir()):
                return f"{path}: the folder is empty."
    except SynthLoopError as error:
        return f"{error.place}: {error.problem}" if error.place else error.problem
    return ""


def assets(
    workspace: Workspace,
    *,
    thorough: bool = False,
    tick: Callable[[], None] = lambda: None,
) -> list[AssetStatus]:
    """What is there of every asset, in the kit's order; see `asset_status`."""
    return [asset_status(workspace, name, thorough=thorough, tick=tick) for name in ASSET_PATHS]


def measure(
    path: Path, limit_s: float | None, tick: Callable[[], None] = lambda: None
) -> tuple[int | None, int | None]:
    """Bytes and number of the files at `path`; None twice when `limit_s` seconds do not do."""
    if path.is_file():
        return path.stat().st_size, 1
    until = None if limit_s is None else time.monotonic() + limit_s
    size = files = 0
    for entry in _entries(path):
        size += entry.stat().st_size
        files += 1
        if files % 512 == 0:
            tick()
            if until is not None and time.monotonic() > until:
                return None, None
    return size, files


def _entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    """All files below a folder; links to folders are not followed."""
    waiting = [os.fspath(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file():
                    yield entry
