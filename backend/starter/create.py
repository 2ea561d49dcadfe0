"""Make the starter workspace: files in the kit's layout, drawn anew, and the model zoo beside."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from backend.errors import UsageError
from backend.starter.instructions import write_instructions
from backend.starter.mmbench import write_mmbench
from backend.starter.seed import write_seed
from backend.starter.textvqa import write_textvqa
from backend.synthesis.importing import import_seed
from backend.synthesis.recipes import ship_recipes
from backend.workspace import Language, Settings, Workspace

ZOO = Path(__file__).parent / "zoo"
N_SEED, N_INSTRUCTIONS, N_TEXTVQA, N_MMBENCH = 4000, 1800, 500, 200
_SEEDS = {"seed": 11, "instructions": 12, "textvqa": 13, "mmbench": 14}


def create_starter(
    root: Path, *, language: Language = "en", report: Callable[[str], None] = lambda _: None
) -> Workspace:
    """A starter workspace at `root`, complete and with its seed imported as `seed/v1`.

    It is drawn beside `root` and moved there, so that a broken off attempt leaves nothing behind.

    Args:
        root: A folder that does not exist yet, or is empty.
        language: Of the studio.
        report: Is told each part as it begins: a message key below `starter.`.

    Raises:
        UsageError: There is a workspace, or anything else, at `root` already.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        known = "a workspace" if (root / "workspace.toml").exists() else "something"
        raise UsageError(
            f"there is {known} here already.",
            place=str(root),
            remedy="Name another folder, or empty this one.",
        )
    scratch = root.parent / f".{root.name}.making"
    shutil.rmtree(scratch, ignore_errors=True)
    workspace = Workspace.create(scratch, Settings(name="starter", language=language))
    report("zoo")
    for asset in ("llm", "vision_tower", "vision_tower_aux"):
        shutil.copytree(ZOO / asset, workspace.asset(asset))
    report("seed")
    truth = workspace.kit / "scenes.jsonl"
    write_seed(workspace.asset("seed_images"), truth, count=N_SEED, seed=_SEEDS["seed"])
    report("instructions")
    write_instructions(
        workspace.asset("finetune_pairs"),
        workspace.asset("finetune_images"),
        count=N_INSTRUCTIONS,
        seed=_SEEDS["instructions"],
    )
    report("benchmarks")
    write_textvqa(
        workspace.asset("textvqa_questions"),
        workspace.asset("textvqa_annotations"),
        workspace.asset("textvqa_images"),
        count=N_TEXTVQA,
        seed=_SEEDS["textvqa"],
    )
    write_mmbench(workspace.asset("mmbench_questions"), count=N_MMBENCH, seed=_SEEDS["mmbench"])
    ship_recipes(workspace)
    root.parent.mkdir(parents=True, exist_ok=True)
    if root.exists():
        root.rmdir()
    scratch.rename(root)
    workspace = Workspace.open(root)
    report("import")
    import_seed(workspace)
    return workspace
