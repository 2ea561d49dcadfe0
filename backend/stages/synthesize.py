"""Make a new dataset version by a recipe: clean, synthesize, clean.

Data-Juicer works in this very process and its forks, which are guarded: nothing is installed.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import InputError
from backend.files import write_atomic, write_json
from backend.stages.base import Problem, StageContext, StageParameters, parameter, stage_main
from backend.synthesis.captioner import captioner_path
from backend.synthesis.datasets import DatasetInfo, describe, read, write_dataset
from backend.synthesis.importing import ensure_dataset
from backend.synthesis.made_images import settle_images
from backend.synthesis.preflight import dataset_problems, recipe_problems
from backend.synthesis.recipes import Recipe, data_juicer_yaml, fill, load_recipe, parse_recipe
from backend.synthesis.samples import COLUMNS, Sample, from_table, statistic_names, to_tables
from backend.workspace import Workspace

if TYPE_CHECKING:
    from backend.synthesis.driver import Driver, OperatorState


class Parameters(StageParameters):
    """Which data, which recipe, and where the result goes."""

    dataset: str = parameter("seed/v1", fold="data", kind="dataset")
    recipe: str = parameter("synthesis", fold="recipe", kind="recipe")
    captioner: str = parameter("", fold="recipe", kind="run", stages=("finetune",))
    output: str = parameter("synthesized", fold="data", min_length=1)
    seed: int = parameter(1024, fold="recipe", ge=0)
    preview: int = parameter(0, fold="advanced", ge=0, le=1000)


def preflight(workspace: Workspace, parameters: Parameters) -> list[Problem]:
    """The dataset version, the recipe with what it needs, and the name of the result."""
    return dataset_problems(workspace, parameters.dataset) + recipe_problems(
        workspace, parameters.recipe, parameters.captioner, parameters.output
    )


def main(context: StageContext, parameters: Parameters) -> None:
    """Write the dataset version, or with `preview` only `artifacts/preview.json`."""
    workspace = context.workspace
    reference = ensure_dataset(
        workspace, parameters.dataset, lambda done, total: context.progress(done, total, "samples")
    )
    info = describe(workspace, reference)
    samples = from_table(read(workspace, reference, list(COLUMNS), kept_only=True))
    if parameters.preview and parameters.preview < len(samples):
        samples = random.Random(parameters.seed).sample(samples, parameters.preview)
    recipe = _frozen_recipe(context, parameters.recipe)
    driver = _driver(context, parameters, recipe, Path(info.image_root))
    before = [sample.copy() for sample in samples] if parameters.preview else []
    after = driver.run(samples)
    if parameters.preview:
        from backend.synthesis.preview import write_preview

        write_preview(context.artifacts / "preview.json", before, after, driver)
    else:
        _write_version(context, parameters, recipe, driver, info, after)
    shutil.rmtree(driver.work)


def _frozen_recipe(context: StageContext, name: str) -> Recipe:
    """The recipe as it was at the first attempt, also when its file changed since."""
    frozen = context.artifacts / "recipe" / f"{name}.yaml"
    if not frozen.exists():
        recipe = load_recipe(context.workspace, name)
        write_atomic(frozen, recipe.text)
        return recipe
    return parse_recipe(frozen)


def _driver(
    context: StageContext, parameters: Parameters, recipe: Recipe, image_root: Path
) -> Driver:
    from backend.synthesis.driver import Driver, Progress
    from backend.synthesis.operators import files

    captioner = captioner_path(context.workspace, parameters.captioner)
    steps = fill(recipe, context.workspace, captioner)
    write_atomic(context.artifacts / "data-juicer.yaml", data_juicer_yaml(steps, files()))
    cores = os.cpu_count() or 1

    def report(done: int, total: int, operator: str) -> None:
        context.check_stop()
        context.progress(done, total, "samples", operator)

    def failed(entry: OperatorState) -> None:
        context.event(
            "warning",
            "operator_failures",
            operator=entry.operator,
            count=entry.failures,
            example=entry.examples[0],
        )

    return Driver(
        recipe,
        steps,
        image_root=image_root,
        work=context.run.path / "work",
        funnel=context.artifacts / "funnel.json",
        workers=min(recipe.workers or cores, cores),
        seed=parameters.seed,
        progress=Progress(report, failed),
    )


def _write_version(
    context: StageContext,
    parameters: Parameters,
    recipe: Recipe,
    driver: Driver,
    parent: DatasetInfo,
    samples: list[Sample],
) -> None:
    kept = sum(sample.kept for sample in samples)
    if not kept:
        worst = max(driver.funnel, key=lambda entry: entry.dropped)
        raise InputError(
            "the recipe dropped every sample.",
            place=f"{recipe.path}, {worst.operator}",
            remedy=f"Loosen its limits: it dropped {worst.dropped} of {worst.before}.",
        )
    own_images = settle_images(samples, driver.image_root, driver.work / "images")
    reference = write_dataset(
        context.workspace,
        parameters.output,
        to_tables(samples, statistic_names(samples)),
        image_root=driver.image_root,
        own_images=own_images,
        source=parent.reference,
        source_hash=parent.content_hash,
        lineage=driver.lineage(),
        recipe=recipe.text,
        parent=parent.reference,
        run_id=context.run.id,
        operators=driver.records(),
    )
    synthesized = sum(sample.kept and sample.origin == "synthesized" for sample in samples)
    write_json(context.artifacts / "dataset.json", {"dataset": reference})
    context.event(
        "info",
        "dataset_written",
        dataset=reference,
        kept=kept,
        dropped=len(samples) - kept,
        synthesized=synthesized,
    )
    if recipe.synthesizes and not synthesized:
        context.event("warning", "nothing_synthesized", dataset=reference)


if __name__ == "__main__":
    stage_main(Parameters, main)
