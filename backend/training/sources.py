"""Where a training run's inputs lie: data, pictures, projector, towers. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from backend.errors import InputError, UsageError
from backend.files import read_json
from backend.runs import Run, State
from backend.workspace import Workspace

PROJECTOR_FILES = ("mm_projector.bin", "non_lora_trainables.bin")
"""What holds the projector: pretraining's result, and what lies beside a LoRA adapter."""
MODEL_ASSETS = ("llm", "vision_tower", "vision_tower_aux")


class Source(NamedTuple):
    """A LLaVA file and the folder that its pictures' paths start at."""

    file: Path
    image_root: Path


def successful_run(workspace: Workspace, reference: str) -> Run | None:
    """The run that `reference` names; None when it is a path.

    Raises:
        UsageError: The run is unknown, or did not succeed.
    """
    path = Path(reference).expanduser()
    if len(path.parts) != 1 or (workspace.root / path).exists() or path.suffix:
        return None
    run = Run.find(workspace, reference)
    state = run.status().state
    if state is not State.SUCCEEDED:
        raise UsageError(
            f"this run has not succeeded ({state}).", place=run.id, remedy="Choose another one."
        )
    return run


def training_source(workspace: Workspace, data: str, image_root: str, *, asset: str) -> Source:
    """Training data and its pictures.

    Args:
        workspace: Paths start at its folder.
        data: A run of `prepare`, a path, or empty for the profile's own file.
        image_root: Folder of the pictures; empty takes what belongs to the data.
        asset: `<asset>_pairs` and `<asset>_images` are the profile's own.

    Raises:
        UsageError: The run did not succeed, or the pictures' folder has to be named.
        InputError: The run's files are broken.
    """
    given = workspace.root / Path(image_root).expanduser() if image_root else None
    if not data:
        if asset == "seed":
            raise UsageError("no data is chosen.", place="data", remedy="Choose a prepared run.")
        file = workspace.asset(f"{asset}_pairs")
        return Source(file, given or workspace.asset(f"{asset}_images"))
    run = successful_run(workspace, data)
    if run is None:
        file = workspace.root / Path(data).expanduser()
        return Source(file, given or workspace.asset(f"{asset}_images"))
    prepared = read_json(run.artifacts / "prepared.json")
    return Source(run.artifacts / "train.json", given or Path(prepared["image_root"]))


def projector_file(workspace: Workspace, projector: str) -> Path | None:
    """The projector of a run or at a path, a LoRA's too; None when none is asked for.

    Raises:
        UsageError: The run did not succeed, or there is no such file.
    """
    if not projector:
        return None
    run = successful_run(workspace, projector)
    path = run.artifacts if run is not None else workspace.root / Path(projector).expanduser()
    if path.is_dir():
        files = [path / name for name in PROJECTOR_FILES]
        path = next((file for file in files if file.is_file()), files[0])
    if not path.is_file():
        raise UsageError(
            "there is no projector.",
            place=str(path),
            remedy="Choose a run that has succeeded, an mm_projector.bin, or an adapter's folder.",
        )
    return path


def model_sizes(workspace: Workspace) -> dict[str, int]:
    """`image_size_aux` for this workspace's towers: 32 pixels for each of CLIP's patches.

    The kit's 24 patches a side give its 768, and smaller towers the same 8 x 8 vectors a patch.

    Raises:
        InputError: CLIP's configuration is missing or broken.
    """
    file = workspace.asset("vision_tower") / "config.json"
    values: Any = read_json(file)
    try:
        vision = values.get("vision_config") or values
        grid = int(vision["image_size"]) // int(vision["patch_size"])
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"a size is missing: {error}.", place=str(file)) from error
    return {"image_size_aux": 32 * grid}
