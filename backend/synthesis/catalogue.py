"""The operators that a recipe may use, for pages that must not import Data-Juicer.

A child process asks Data-Juicer once and leaves the answer in the workspace.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from backend.errors import InputError
from backend.files import read_json
from backend.synthesis.recipes import Recipe
from backend.workspace import Workspace

_CHILD = "backend.synthesis.catalogue_build"
_SECONDS = 300


@dataclass(frozen=True)
class OperatorParameter:
    """One argument of an operator."""

    name: str
    type: str
    """Its annotation, e.g. `float`; empty where there is none."""
    default: Any
    """As JSON; a value without a JSON form as text."""
    required: bool
    help: str


@dataclass(frozen=True)
class OperatorEntry:
    """One operator as its documentation has it."""

    name: str
    type: str
    """mapper, filter, deduplicator, selector, grouper, aggregator."""
    tags: tuple[str, ...]
    """Modality (text, image, multimodal, …) and resources (cpu, gpu, hf, api, vllm)."""
    summary: str
    documentation: str
    parameters: tuple[OperatorParameter, ...]
    missing: tuple[str, ...]
    """Packages that some ways of using it need and that are not installed; nothing will be."""
    origin: Literal["data-juicer", "synthloop"]
    synthesizes: bool
    """Whether it makes new captions or images."""


@dataclass(frozen=True)
class Catalogue:
    """Every operator, and the arguments that all of them take."""

    operators: dict[str, OperatorEntry]
    common_parameters: frozenset[str]


def catalogue_path(workspace: Workspace) -> Path:
    """Where the catalogue is kept."""
    return workspace.root / ".cache" / "operators.json"


def load_catalogue(workspace: Workspace) -> Catalogue | None:
    """The catalogue; None when it was not built for these versions yet."""
    path = catalogue_path(workspace)
    if not path.is_file():
        return None
    values = read_json(path)
    if values["version"] != catalogue_version():
        return None
    entries = [_entry(value) for value in values["operators"]]
    return Catalogue(
        {entry.name: entry for entry in entries}, frozenset(values["common_parameters"])
    )


def build_catalogue(workspace: Workspace) -> Catalogue:
    """Ask Data-Juicer in a guarded child (some seconds), and keep the answer.

    Raises:
        InputError: Data-Juicer could not be asked; carries what the child said last.
    """
    path = catalogue_path(workspace)
    done = subprocess.run(
        [sys.executable, "-m", _CHILD, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    catalogue = load_catalogue(workspace)
    if done.returncode != 0 or catalogue is None:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise InputError(
            f"the operator catalogue could not be built: {last[0]}.",
            place=str(path),
            remedy="Install the studio's requirements again: make run",
        )
    return catalogue


def ensure_catalogue(workspace: Workspace) -> Catalogue:
    """The catalogue, built if need be."""
    return load_catalogue(workspace) or build_catalogue(workspace)


def catalogue_version() -> str:
    """Changes with Data-Juicer's version and with our operators."""
    try:
        data_juicer = version("py-data-juicer")
    except PackageNotFoundError:
        data_juicer = "none"
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in (folder / "catalogue_build.py", *sorted((folder / "operators").glob("*.py"))):
        digest.update(path.read_bytes())
    return f"{data_juicer}+{digest.hexdigest()[:16]}"


def operator_faults(recipe: Recipe, catalogue: Catalogue) -> list[InputError]:
    """Operators and arguments of a recipe that do not exist."""
    return [
        fault
        for step in recipe.steps
        for fault in _faults(recipe.place(step), step.name, step.arguments, catalogue)
    ]


def _faults(
    place: str, name: str, arguments: dict[str, Any], catalogue: Catalogue
) -> list[InputError]:
    entry = catalogue.operators.get(name)
    if entry is None:
        return [_unknown("operator", name, list(catalogue.operators), place)]
    known = {parameter.name for parameter in entry.parameters} | catalogue.common_parameters
    return [
        _unknown("argument", argument, sorted(known), place)
        for argument in arguments
        if argument not in known
    ]


def _unknown(what: str, name: str, known: list[str], place: str) -> InputError:
    close = get_close_matches(name, known, n=3)
    remedy = f"Did you mean: {', '.join(close)}?" if close else f"Remove the {what}."
    return InputError(f"there is no {what} {name!r}.", place=place, remedy=remedy)


def _entry(value: dict[str, Any]) -> OperatorEntry:
    parameters = tuple(OperatorParameter(**item) for item in value["parameters"])
    return OperatorEntry(
        **{
            **value,
            "tags": tuple(value["tags"]),
            "missing": tuple(value["missing"]),
            "parameters": parameters,
        }
    )
