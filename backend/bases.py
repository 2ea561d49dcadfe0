"""Where a checkpoint lies, and the models that it stands on. Imports nothing heavy.

A checkpoint names language model and towers by the paths of the machine that made it. Where such
a path is not here, the workspace's own models stand in when their sizes are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backend.errors import InputError, UsageError
from backend.files import confine
from backend.mgm.lora import CONFIG_FILE
from backend.mgm.settings import read_settings
from backend.runs import Run, State
from backend.workspace import Workspace

MGM = "mgm_gemma"
"""`model_type` of a full checkpoint."""
_TOWERS = {
    "vision_tower": ("vision_dir", "mm_vision_tower", "model.vision_tower."),
    "vision_tower_aux": ("vision_aux_dir", "mm_vision_tower_aux", "model.vision_tower_aux."),
}
"""Asset to the argument of `checkpoints.load`, the key of config.json and the weights' prefix."""
_LANGUAGE_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)
_INDEX = "model.safetensors.index.json"


class StandIn(NamedTuple):
    """An asset of the workspace in the place of a model that is not here."""

    asset: str
    recorded: str
    path: Path


class Checkpoint(NamedTuple):
    """A full checkpoint or an adapter, and how to open it.

    Attributes:
        folder: Its own.
        adapter: Whether it is an adapter.
        roots: Where relative paths in its configurations start.
        directories: Arguments of `backend.mgm.checkpoints.load` for what stands in.
        stand_ins: The same, to be told.
    """

    folder: Path
    adapter: bool
    roots: list[Path]
    directories: dict[str, Any]
    stand_ins: list[StandIn]

    def tell(self, event: Callable[..., None]) -> None:
        """Say through `StageContext.event` which models of the workspace take others' places."""
        for one in self.stand_ins:
            told = {"asset": one.asset, "recorded": one.recorded or "-", "path": str(one.path)}
            event("info", "base_stands_in", **told)


def checkpoint_folder(workspace: Workspace, checkpoint: str) -> Path:
    """The folder of the checkpoint that a run left, or that a path names.

    Raises:
        UsageError: There is none.
    """
    path = Path(checkpoint).expanduser()
    if checkpoint and len(path.parts) == 1 and not (workspace.root / path).exists():
        run = Run.find(workspace, checkpoint)
        if run.status().state is not State.SUCCEEDED:
            raise UsageError(f"this run has not succeeded ({run.status().state}).", place=run.id)
        path = run.artifacts
    path = path if path.is_absolute() else workspace.root / path
    known = ("config.json", CONFIG_FILE)
    if not checkpoint or not any((path / name).is_file() for name in known):
        raise UsageError(
            "there is no checkpoint.",
            place=checkpoint or "checkpoint",
            remedy="Choose a fine-tuning run that has succeeded, or a folder with config.json.",
        )
    return path


def located(workspace: Workspace, checkpoint: str) -> Checkpoint:
    """A checkpoint and the models that it stands on.

    Args:
        workspace: Holds the runs, and the models that may stand in.
        checkpoint: A run's id, or a path.

    Raises:
        UsageError: There is no such checkpoint.
        InputError: A configuration is broken, or a model is neither where the checkpoint names
            it nor in the workspace, or the workspace's has other sizes.
    """
    folder = checkpoint_folder(workspace, checkpoint)
    roots = [workspace.kit / "toolkit" / "training", folder]
    config = read_settings(folder / "config.json")
    adapter = (folder / CONFIG_FILE).is_file()
    found: list[StandIn] = []
    directories: dict[str, Any] = {}
    holder: Path | None = None if adapter else folder
    if adapter:
        settings = read_settings(folder / CONFIG_FILE)
        named = str(settings.get("base_model_name_or_path") or config.get("_name_or_path") or "")
        base = existing_directory(named, roots)
        if base is None:
            found.append(_language_model(workspace, folder, named, config))
            directories["llm_dir"] = found[-1].path
        elif read_settings(base / "config.json").get("model_type") == MGM:
            holder, config = base, read_settings(base / "config.json")
            roots.append(base)
    for asset, (argument, key, prefix) in _TOWERS.items():
        named = str(config.get(key) or "")
        inside = holder is not None and _holds(holder, prefix)
        if not inside and existing_directory(named, roots) is None:
            found.append(_tower(workspace, folder, asset, named, config))
            directories[argument] = found[-1].path
    return Checkpoint(folder, adapter, roots, directories, found)


def existing_directory(path: str | Path | None, roots: Sequence[Path]) -> Path | None:
    """The directory that a configuration names: as it is, or below the first root that has it."""
    if path is None or not str(path):
        return None
    candidates = (root / Path(path).expanduser() for root in (Path(), *roots))
    return next((candidate for candidate in candidates if candidate.is_dir()), None)


def _holds(folder: Path, prefix: str) -> bool:
    """Whether a full checkpoint has weights of this name; one without an index always has."""
    index = confine(folder, _INDEX)
    if not index.is_file():
        return True
    return any(name.startswith(prefix) for name in read_settings(index).get("weight_map") or {})


def _language_model(
    workspace: Workspace, folder: Path, named: str, config: dict[str, Any]
) -> StandIn:
    if config.get("base_model_type") == MGM or "mgm" in Path(named).name.lower():
        raise InputError(
            f"the full checkpoint that this adapter stands on is not at {named}, and no plain "
            "language model can stand in for it.",
            place=str(folder / CONFIG_FILE),
            remedy="Put it back, or name where it is now in the field base_model_name_or_path.",
        )
    path = _asset(workspace, folder, "llm", named)
    _same(folder, "llm", path, config, read_settings(path / "config.json"), _LANGUAGE_SIZES)
    return StandIn("llm", named, path)


def _tower(
    workspace: Workspace, folder: Path, asset: str, named: str, config: dict[str, Any]
) -> StandIn:
    path = _asset(workspace, folder, asset, named)
    if asset == "vision_tower":
        values = read_settings(path / "config.json")
        there = values.get("vision_config") or values
        told = config.get("mm_vision_config") or {"hidden_size": config.get("mm_hidden_size")}
        _same(folder, asset, path, told, there, tuple(told))
    return StandIn(asset, named, path)


def _asset(workspace: Workspace, folder: Path, asset: str, named: str) -> Path:
    path = workspace.asset(asset)
    if path.is_dir():
        return path
    raise InputError(
        f"the {asset} of this checkpoint is neither at {named or 'a path that it names'} nor at "
        f"{path}, where this workspace would have it.",
        place=str(folder),
        remedy=f"Fetch the asset {asset}, or name its folder under Settings.",
    )


def _same(
    folder: Path,
    asset: str,
    path: Path,
    wanted: dict[str, Any],
    there: dict[str, Any],
    names: Sequence[str],
) -> None:
    """Refuse a stand-in with a size other than the checkpoint's, as far as both tell it."""
    for name in names:
        one, other = wanted.get(name), there.get(name)
        if one is not None and other is not None and one != other:
            raise InputError(
                f"the {asset} at {path} cannot stand in for the one that this checkpoint was "
                f"trained on: {name} is {other} where {one} is wanted.",
                place=str(folder),
                remedy=f"Name the folder of the right {asset} under Settings.",
            )
