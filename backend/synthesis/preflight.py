"""What stages that read a dataset version check before they start."""

from __future__ import annotations

from backend.errors import SynthLoopError
from backend.stages.base import Problem
from backend.synthesis.importing import SEED_REFERENCE
from backend.workspace import Workspace


def dataset_problems(workspace: Workspace, reference: str) -> list[Problem]:
    """An error when the version neither exists nor can be imported from the profile's seed."""
    known = workspace.dataset_references()
    if reference in known:
        return []
    if reference == SEED_REFERENCE:
        return [
            Problem("error", "asset_missing", {"asset": name, "path": str(path)}, str(path))
            for name in ("seed_pairs", "seed_originals", "seed_images")
            if not (path := workspace.asset(name)).exists()
        ]
    try:
        workspace.dataset(reference)
    except SynthLoopError:
        values = {"dataset": reference, "known": ", ".join(known) or "–"}
        return [Problem("error", "dataset_missing", values, reference)]
    return []
