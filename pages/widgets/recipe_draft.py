"""A recipe while it is edited: steps that move, arguments that change, YAML in the end."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from backend.errors import UsageError
from backend.files import confine, write_atomic
from backend.synthesis.catalogue import Catalogue, operator_faults
from backend.synthesis.recipes import (
    CAPTIONER,
    SHIPPED,
    Recipe,
    load_recipe,
    parse_recipe,
    placeholders_in,
)
from backend.workspace import Workspace

DRAFT = "draft"
"""The recipe that holds changes nobody gave a name yet."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")


@dataclass
class DraftStep:
    """One operator and the arguments that differ from its defaults."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass
class Draft:
    """A recipe being edited."""

    origin: str
    """The recipe that it began as."""
    steps: list[DraftStep]
    workers: int | None = None
    changed: bool = False

    @classmethod
    def of(cls, recipe: Recipe) -> Draft:
        """A copy of a recipe."""
        steps = [DraftStep(step.name, dict(step.arguments)) for step in recipe.steps]
        return cls(recipe.name, steps, recipe.workers)

    @property
    def needs_captioner(self) -> bool:
        """Whether a trained checkpoint has to be chosen for it."""
        return any(CAPTIONER in placeholders_in(step.arguments) for step in self.steps)

    def move(self, place: int, by: int) -> int:
        """Move a step up (-1) or down (1); returns where it is then."""
        target = min(max(place + by, 0), len(self.steps) - 1)
        self.steps.insert(target, self.steps.pop(place))
        self.changed = True
        return target

    def remove(self, place: int) -> None:
        """Take a step out."""
        del self.steps[place]
        self.changed = True

    def add(self, name: str, place: int) -> None:
        """Put an operator with its defaults at a place."""
        self.steps.insert(place, DraftStep(name))
        self.changed = True

    def set(self, place: int, argument: str, value: Any, default: Any) -> None:
        """Change an argument; one that equals its default is left out."""
        arguments = self.steps[place].arguments
        if value == default and type(value) is type(default):
            arguments.pop(argument, None)
        else:
            arguments[argument] = value
        self.changed = True

    def text(self) -> str:
        """The recipe as Data-Juicer reads it."""
        values: dict[str, Any] = {} if self.workers is None else {"np": self.workers}
        values["process"] = [{step.name: step.arguments or None} for step in self.steps]
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def save(workspace: Workspace, draft: Draft, name: str, catalogue: Catalogue | None) -> Recipe:
    """Write the draft as the recipe `name`, after checking it.

    Args:
        workspace: Whose recipes.
        draft: What to write.
        name: Letters, digits, `-` and `_`; a shipped recipe's name is taken.
        catalogue: To check operators and arguments by; None leaves that to the preflight.

    Raises:
        UsageError: The name is none or is taken by another recipe.
        InputError: The draft is no recipe; names operator, argument and remedy.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            "a recipe's name is made of letters, digits, '-' and '_'.",
            place=name or "(empty)",
            remedy="Choose another name.",
        )
    path = confine(workspace.recipes, f"{name}.yaml")
    shipped = (SHIPPED / f"{name}.yaml").exists()
    if shipped or (path.exists() and name not in (draft.origin, DRAFT)):
        raise UsageError("another recipe has this name.", place=name, remedy="Choose another name.")
    with TemporaryDirectory() as folder:
        scratch = Path(folder) / path.name
        scratch.write_text(draft.text(), encoding="utf-8")
        recipe = parse_recipe(scratch)
        faults = operator_faults(recipe, catalogue) if catalogue else []
        if faults:
            raise faults[0]
    write_atomic(path, draft.text())
    return load_recipe(workspace, name)
