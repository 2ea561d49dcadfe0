"""Where things lie: the folders of a workspace, its settings and the assets of its profile."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backend.errors import InputError, UsageError
from backend.files import confine, write_atomic

Profile = Literal["starter", "mgm-2b"]
Language = Literal["en", "zh"]

ASSET_PATHS: dict[str, str] = {
    "llm": "toolkit/training/model_zoo/LLM/gemma/gemma-2b-it",
    "vision_tower": "toolkit/training/model_zoo/OpenAI/clip-vit-large-patch14-336",
    "vision_tower_aux": (
        "toolkit/training/model_zoo/OpenAI/openclip-convnext-large-d-320-laion2B-s29B-b131K-ft-soup"
    ),
    "seed_pairs": "input/pretrain_stage_1/mgm_pretrain_stage_1.jsonl",
    "seed_originals": "input/pretrain_stage_1/stage_1.json",
    "seed_images": "input/pretrain_stage_1",
    "finetune_pairs": ("toolkit/training/data/finetuning_stage_1/mgm_instruction_stage_1.json"),
    "finetune_images": "toolkit/training/data/finetuning_stage_1",
    "textvqa_questions": (
        "toolkit/training/data/eval_stage_1/textvqa/llava_textvqa_val_v051_ocr.jsonl"
    ),
    "textvqa_annotations": ("toolkit/training/data/eval_stage_1/textvqa/TextVQA_0.5.1_val.json"),
    "textvqa_images": "toolkit/training/data/eval_stage_1/textvqa/train_images",
    "mmbench_questions": ("toolkit/training/data/eval_stage_1/mmbench/mmbench_dev_20230712.tsv"),
}
"""Where the kit keeps each asset, below the kit's folder (the starter has the same layout)."""


class Settings(BaseModel):
    """What `workspace.toml` says."""

    model_config = ConfigDict(extra="forbid")

    name: str
    profile: Profile = "starter"
    language: Language = "en"
    kit: str = "kit"
    """The kit's folder: relative to the workspace, or absolute."""
    memory_budget_gib: float | None = Field(default=None, gt=0)
    """Device memory that runs may use; None is the whole card."""
    retention_checkpoints: int = Field(default=2, ge=1)
    """Checkpoints a training run keeps."""
    assets: dict[str, str] = Field(default_factory=dict)
    """Assets that lie elsewhere than the kit keeps them: name to path."""


class Workspace:
    """A folder with datasets, recipes and runs."""

    def __init__(self, root: Path, settings: Settings):
        self.root = root.resolve()
        self.settings = settings

    @classmethod
    def open(cls, root: Path) -> Workspace:
        """The workspace at `root`.

        Raises:
            UsageError: There is none.
            InputError: `workspace.toml` is malformed; names the field.
        """
        path = root / "workspace.toml"
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
            return cls(root, Settings.model_validate(values))
        except FileNotFoundError as error:
            raise UsageError(
                "there is no workspace here.",
                place=str(root),
                remedy=f"Create one with: python -m backend -w {root} init",
            ) from error
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"this is not TOML: {error}.", place=str(path)) from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise InputError(f"{first['msg']}.", place=f"{path}, field {field}") from error

    @classmethod
    def create(cls, root: Path, settings: Settings) -> Workspace:
        """Make the folders and `workspace.toml`; an existing workspace is an error."""
        if (root / "workspace.toml").exists():
            raise UsageError("there is a workspace here already.", place=str(root))
        workspace = cls(root, settings)
        for folder in (workspace.datasets, workspace.recipes, workspace.runs):
            folder.mkdir(parents=True, exist_ok=True)
        workspace.save()
        return workspace

    def save(self) -> None:
        """Write the settings."""
        values = self.settings.model_dump(exclude_none=True)
        write_atomic(self.root / "workspace.toml", tomli_w.dumps(values))

    @property
    def datasets(self) -> Path:
        """`<name>/<version>/` folders, immutable."""
        return self.root / "datasets"

    @property
    def recipes(self) -> Path:
        """Data-Juicer recipes, `<name>.yaml`."""
        return self.root / "recipes"

    @property
    def runs(self) -> Path:
        """One folder a run."""
        return self.root / "runs"

    @property
    def kit(self) -> Path:
        """The kit's folder."""
        return (self.root / self.settings.kit).resolve()

    def asset(self, name: str) -> Path:
        """Where the asset `name` lies, whether or not it is there."""
        if name in self.settings.assets:
            return (self.root / self.settings.assets[name]).resolve()
        return self.kit / ASSET_PATHS[name]

    def dataset(self, reference: str) -> Path:
        """The folder of the dataset version `<name>/<version>`.

        Raises:
            UsageError: There is no such version; lists those that exist.
        """
        path = confine(self.datasets, reference)
        if not (path / "dataset.json").is_file():
            known = ", ".join(self.dataset_references()) or "none"
            raise UsageError(
                f"there is no dataset version of this name (there are: {known}).", place=reference
            )
        return path

    def dataset_references(self) -> list[str]:
        """All dataset versions as `<name>/<version>`, sorted."""
        found = self.datasets.glob("*/*/dataset.json")
        return sorted(f"{path.parent.parent.name}/{path.parent.name}" for path in found)
