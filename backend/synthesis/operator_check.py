"""Whether a recipe's operators and arguments exist: said before anything runs.

Data-Juicer's constructors take unknown arguments without a word, so its own preflight is asked.
"""

from __future__ import annotations

from typing import Any

from backend.errors import InputError
from backend.synthesis.guard import PackageMissingError
from backend.synthesis.recipes import Recipe, Step

_UNFIT = ("Grouper", "Aggregator", "Pipeline")
"""Kinds whose results are no samples any more."""


def check_operators(
    recipe: Recipe, steps: list[Step], operators: dict[str, type[Any]]
) -> list[type[Any]]:
    """The operators' classes, one per step.

    Args:
        recipe: What the steps are from, for the place of a fault.
        steps: The filled steps.
        operators: The guarded registry.

    Raises:
        InputError: An operator or argument does not exist, has the wrong type, or makes no
            samples; names file, line and operator, and what it may have meant to be.
    """
    from data_juicer.core.preflight import PipelineConfigError, pre_instantiation_check

    for step in steps:
        place = recipe.place(step)
        try:
            pre_instantiation_check([{step.name: step.arguments}])
        except PipelineConfigError as error:
            first = error.errors[0]
            suggestions = ", ".join(first.suggestions)
            raise InputError(
                f"{first.message}.",
                place=place,
                remedy=f"Did you mean: {suggestions}?" if suggestions else "See its documentation.",
            ) from error
        kinds = {base.__name__ for base in operators[step.name].__mro__}
        if kinds.intersection(_UNFIT):
            raise InputError(
                "this operator joins samples, and image-text pairs must stay pairs.",
                place=place,
                remedy="Leave it out.",
            )
    return [operators[step.name] for step in steps]


def make_operator(kind: type[Any], arguments: dict[str, Any], place: str) -> Any:
    """An instance of an operator, running in one process: the driver does the spreading.

    Raises:
        InputError: A package is missing or an argument has an impossible value.
    """
    usual: dict[str, Any] = {"auto_op_parallelism": False, "num_proc": None}
    if arguments.get("skip_op_error"):
        # With a sample that fails Data-Juicer gives up its whole batch.
        usual["batch_size"] = 1
    try:
        return kind(**{**usual, **arguments})
    except PackageMissingError as error:
        raise missing_package(error, place) from error
    except (ValueError, TypeError, AssertionError) as error:
        raise InputError(
            f"the operator does not take these arguments: {error}.",
            place=place,
            remedy="Correct them in the recipe.",
        ) from error


def missing_package(error: PackageMissingError, place: str) -> InputError:
    """The sentence for an operator that lacks a package."""
    return InputError(
        f"this operator needs the package {error.package!r}, which is not installed.",
        place=place,
        remedy="Choose another operator, or install the package yourself beforehand.",
    )
