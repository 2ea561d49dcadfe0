"""Which checkpoint writes captions."""

from __future__ import annotations

from pathlib import Path

from backend.errors import InputError, UsageError
from backend.runs import Run
from backend.workspace import Workspace


def captioner_path(workspace: Workspace, value: str) -> Path | None:
    """The checkpoint's folder: of a fine-tuning run, or a path of its own; None for no value.

    Args:
        workspace: Where the runs lie.
        value: A run id, or a path (a relative one is taken from the workspace).

    Raises:
        InputError: There is neither such a run nor such a folder, or it holds no checkpoint.
    """
    if not value:
        return None
    try:
        path = Run.find(workspace, value).artifacts
    except (UsageError, InputError):
        path = (workspace.root / value).resolve()
    if not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise InputError(
            "there is no checkpoint here.",
            place=str(path),
            remedy="Choose a finished fine-tuning run, or the folder of a checkpoint.",
        )
    return path
