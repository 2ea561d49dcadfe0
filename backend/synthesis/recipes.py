"""Recipes: lists of Data-Juicer operators in YAML, read without importing Data-Juicer.

A value may name what differs between workspaces: `${vision_tower}` and every other asset,
`${captioner}` (the checkpoint chosen for the run). They are filled in before Data-Juicer reads
the recipe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from backend.errors import InputError, UsageError
from backend.files import confine, write_atomic
from backend.workspace import ASSET_PATHS, Workspace

SHIPPED = Path(__file__).with_name("recipes")
CAPTIONER = "captioner"
PLACEHOLDERS = frozenset({*ASSET_PATHS, CAPTIONER})
SYNTHESIS_OPERATORS = frozenset(
    {
        "calibrate_qa_mapper",
        "calibrate_query_mapper",
        "calibrate_response_mapper",
        "checkpoint_captioning_mapper",
        "generate_qa_from_examples_mapper",
        "generate_qa_from_text_mapper",
        "image_captioning_mapper",
        "image_diffusion_mapper",
        "mllm_mapper",
        "nlpaug_en_mapper",
        "nlpcda_zh_mapper",
        "optimize_prompt_mapper",
        "optimize_qa_mapper",
        "optimize_query_mapper",
        "optimize_response_mapper",
        "sdxl_prompt2prompt_mapper",
        "sentence_augmentation_mapper",
    }
)
"""Operators that make new captions or images, as the challenge demands of a pipeline."""
_KEYS = ("process", "project_name", "np")
_LARGEST = 1 << 18
_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Step:
    """One operator of a recipe."""

    name: str
    arguments: dict[str, Any]
    line: int
    """Line of the recipe file, from 1."""


@dataclass(frozen=True)
class Recipe:
    """A recipe as its file has it."""

    name: str
    path: Path
    text: str
    steps: tuple[Step, ...]
    workers: int | None
    """The recipe's `np`; None leaves it to the driver."""

    @property
    def placeholders(self) -> set[str]:
        """What must be filled in."""
        return {name for step in self.steps for name in placeholders_in(step.arguments)}

    @property
    def synthesizes(self) -> bool:
        """Whether any operator makes new captions or images."""
        return any(step.name in SYNTHESIS_OPERATORS for step in self.steps)

    def place(self, step: Step) -> str:
        """Where an operator stands, for a person."""
        return f"{self.path}, line {step.line}, {step.name}"


def recipe_names(workspace: Workspace) -> list[str]:
    """The workspace's recipes and the shipped ones, sorted."""
    folders = (workspace.recipes, SHIPPED)
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def ship_recipes(workspace: Workspace) -> None:
    """Copy the shipped recipes to the workspace, where they can be changed; none is replaced."""
    for path in SHIPPED.glob("*.yaml"):
        target = workspace.recipes / path.name
        if not target.exists():
            write_atomic(target, path.read_text(encoding="utf-8"))


def load_recipe(workspace: Workspace, name: str) -> Recipe:
    """The recipe `name`: the workspace's own, else the shipped one.

    Raises:
        UsageError: There is none; lists those that exist.
        InputError: It is not a recipe; names file and line.
    """
    if _NAME.fullmatch(name):
        for folder in (workspace.recipes, SHIPPED):
            path = confine(folder, f"{name}.yaml")
            if path.is_file():
                return parse_recipe(path)
    known = ", ".join(recipe_names(workspace))
    raise UsageError(f"there is no such recipe (there are: {known}).", place=name)


def parse_recipe(path: Path) -> Recipe:
    """The recipe in a file, its form checked.

    Operators and arguments themselves are checked by `backend.synthesis.operator_check`.

    Raises:
        InputError: It is not a recipe; names file, line and remedy.
    """
    if path.stat().st_size > _LARGEST:
        raise InputError("the file is too large for a recipe.", place=str(path))
    text = path.read_text(encoding="utf-8")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(
            f"this is not YAML: {error.problem}.", place=f"{path}, line {line}"
        ) from error
    if not isinstance(node, yaml.MappingNode) or not isinstance(values, dict):
        raise InputError(
            "a recipe is a mapping with the key 'process'.",
            place=str(path),
            remedy="List the operators below 'process:'.",
        )
    nodes = {key.value: (key, value) for key, value in node.value}
    for name, (key, _) in nodes.items():
        if name not in _KEYS:
            raise InputError(
                f"the key {name!r} is not the recipe's to decide.",
                place=_at(path, key),
                remedy=f"Keep only {', '.join(_KEYS)}; the studio sets the rest.",
            )
    workers = values.get("np")
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise InputError("np must be a whole number from 1.", place=_at(path, nodes["np"][0]))
    steps = _steps(path, nodes.get("process", (node, node))[1], values.get("process"))
    recipe = Recipe(path.stem, path, text, steps, workers)
    for step in steps:
        for name in placeholders_in(step.arguments) - PLACEHOLDERS:
            raise InputError(
                f"there is no placeholder ${{{name}}}.",
                place=recipe.place(step),
                remedy=f"Known are: {', '.join(sorted(PLACEHOLDERS))}.",
            )
    return recipe


def fill(recipe: Recipe, workspace: Workspace, captioner: Path | None) -> list[Step]:
    """The steps with every placeholder replaced by an absolute path.

    Raises:
        InputError: An asset is missing, or a captioner is needed and none was chosen.
    """
    values: dict[str, str] = {}
    for name in sorted(recipe.placeholders):
        path = captioner if name == CAPTIONER else workspace.asset(name)
        if path is None:
            raise InputError(
                "the recipe needs a trained checkpoint that writes captions.",
                place=str(recipe.path),
                remedy="Choose a finished fine-tuning run as captioner.",
            )
        if not path.exists():
            raise InputError(
                "the file or folder does not exist.",
                place=str(path),
                remedy="Fetch the assets on the Environment page."
                if name != CAPTIONER
                else "Choose another checkpoint.",
            )
        values[name] = str(path)
    return [Step(s.name, _filled(s.arguments, values), s.line) for s in recipe.steps]


def placeholders_in(value: Any) -> set[str]:
    """Names of the placeholders anywhere in an argument, or in several."""
    if isinstance(value, str):
        return set(_PLACEHOLDER.findall(value))
    if isinstance(value, Mapping):
        return {name for item in value.values() for name in placeholders_in(item)}
    if isinstance(value, list):
        return {name for item in value for name in placeholders_in(item)}
    return set()


def data_juicer_yaml(steps: list[Step], operator_files: list[Path]) -> str:
    """The filled recipe as `dj-process` runs it by itself, our operators included."""
    process = [{step.name: step.arguments or None} for step in steps]
    names = {step.name for step in steps}
    custom = [str(path) for path in operator_files if path.stem in names]
    values: dict[str, Any] = {"custom_operator_paths": custom} if custom else {}
    return yaml.safe_dump({**values, "process": process}, sort_keys=False, allow_unicode=True)


def _steps(path: Path, node: yaml.Node, process: Any) -> tuple[Step, ...]:
    if not isinstance(node, yaml.SequenceNode) or not process:
        raise InputError(
            "the recipe lists no operators.",
            place=_at(path, node),
            remedy="List them below 'process:', one a line, each beginning with '- '.",
        )
    steps = []
    for item, entry in zip(node.value, process, strict=True):
        if not isinstance(entry, dict) or len(entry) != 1:
            raise InputError(
                "an operator is its name, a colon and its arguments.",
                place=_at(path, item),
                remedy="Write for instance '- words_num_filter: {min_num: 3}'.",
            )
        ((name, arguments),) = entry.items()
        if not isinstance(arguments, dict | None):
            raise InputError(
                "the arguments of an operator have names.",
                place=f"{_at(path, item)}, {name}",
                remedy="Write for instance '- words_num_filter: {min_num: 3}'.",
            )
        steps.append(Step(str(name), dict(arguments or {}), item.start_mark.line + 1))
    return tuple(steps)


def _at(path: Path, node: yaml.Node) -> str:
    return f"{path}, line {node.start_mark.line + 1}"


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: values[match.group(1)], value)
    if isinstance(value, Mapping):
        return {key: _filled(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    return value
