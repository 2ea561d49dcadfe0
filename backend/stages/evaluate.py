"""Put the questions of TextVQA and MMBench to a checkpoint, keep every answer, and score them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from backend.bases import located
from backend.errors import InputError, SynthLoopError
from backend.evaluation.answers import Notebook
from backend.evaluation.benchmarks import (
    KIT_MAX_NEW_TOKENS,
    Name,
    PromptLanguage,
    Task,
    mmbench_tasks,
    textvqa_tasks,
)
from backend.evaluation.results import (
    Contract,
    Result,
    file_sha256,
    mmbench_result,
    textvqa_result,
    write_questions,
)
from backend.files import confine, write_json
from backend.formats import mmbench, textvqa
from backend.stages.base import Problem, StageContext, StageParameters, parameter, stage_main
from backend.stages.checkpoint_input import checkpoint_problem
from backend.workspace import Workspace

if TYPE_CHECKING:
    from backend.evaluation.generation import Answerer

ASSETS: dict[Name, tuple[str, ...]] = {
    "textvqa": ("textvqa_questions", "textvqa_annotations", "textvqa_images"),
    "mmbench": ("mmbench_questions",),
}


class Parameters(StageParameters):
    """What to ask which model."""

    checkpoint: str = parameter("", fold="data", kind="run", stages=("finetune", "merge"))
    benchmarks: list[Name] = parameter(["textvqa", "mmbench"], fold="data", min_length=1)
    limit: int | None = parameter(None, fold="data", ge=1)
    ocr_tokens: bool = parameter(True, fold="recipe")
    prompt_language: PromptLanguage = parameter("en", fold="recipe")
    max_new_tokens: int | None = parameter(None, fold="recipe", ge=1, le=4096)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = parameter("auto", fold="recipe")
    batch_size: int = parameter(16, fold="memory", ge=1, le=1024)
    image_workers: int = parameter(2, fold="memory", ge=0, le=64)


def preflight(workspace: Workspace, parameters: Parameters) -> list[Problem]:
    """The checkpoint, the benchmark files and the pictures must be there and well-formed."""
    problems = []
    try:
        located(workspace, parameters.checkpoint)
    except SynthLoopError as error:
        problems.append(checkpoint_problem(error, "checkpoint"))
    for name in parameters.benchmarks:
        absent = [
            Problem("error", "asset_missing", {"asset": asset, "path": str(path)}, str(path))
            for asset in ASSETS[name]
            if not (path := workspace.asset(asset)).exists()
        ]
        problems += absent or _malformed(workspace, name)
    return problems


def _malformed(workspace: Workspace, name: Name) -> list[Problem]:
    """Read a benchmark's files without its pictures; say what is wrong, and which are missing."""
    try:
        if name == "mmbench":
            for _ in mmbench.read_rows(workspace.asset("mmbench_questions"), images=False):
                continue
            return []
        textvqa.read_annotations(workspace.asset("textvqa_annotations"))
        folder = workspace.asset("textvqa_images")
        images = {
            question.image
            for question in textvqa.read_questions(workspace.asset("textvqa_questions"))
        }
        absent = sorted(image for image in images if not confine(folder, image).is_file())
    except SynthLoopError as error:
        told = {"problem": error.problem}
        return [Problem("error", "benchmark_malformed", told, error.place or name)]
    if not absent:
        return []
    values = {"count": len(absent), "first": absent[0]}
    return [Problem("warning", "benchmark_images_missing", values, str(folder))]


def main(context: StageContext, parameters: Parameters) -> None:
    """Write the answers as they come, then `questions.parquet` and `scores.json`."""
    from backend.evaluation.generation import Answerer

    workspace = context.workspace
    found = located(workspace, parameters.checkpoint)
    tasks = {name: _tasks(workspace, name, parameters) for name in parameters.benchmarks}
    model_id = _model_id(context, found.folder)
    notebooks = {
        name: Notebook(context.artifacts / name / "answers.jsonl", name, model_id) for name in tasks
    }
    found.tell(context.event)
    answerer = Answerer(
        found.folder, dtype=parameters.dtype, batch_size=parameters.batch_size,
        image_workers=parameters.image_workers, roots=found.roots, directories=found.directories,
    )  # fmt: skip
    context.event(
        "info", "model_loaded", device=answerer.device_name, dtype=answerer.dtype_name,
        seconds=f"{answerer.load_seconds:.1f}",
    )  # fmt: skip
    _ask(context, parameters, answerer, tasks, notebooks)
    results = {
        name: _result(context, parameters, name, tasks[name], answerer.dtype_name) for name in tasks
    }
    rows = [row for result in results.values() for row in result.rows]
    write_questions(context.artifacts / "questions.parquet", rows)
    _kit_layout(context, tasks, notebooks, model_id)
    write_json(
        context.artifacts / "scores.json", {name: part.scores for name, part in results.items()}
    )
    _tell(context, results)


def _tasks(workspace: Workspace, name: Name, parameters: Parameters) -> list[Task]:
    if name == "textvqa":
        return textvqa_tasks(
            workspace.asset("textvqa_questions"),
            workspace.asset("textvqa_images"),
            ocr_tokens=parameters.ocr_tokens,
            limit=parameters.limit,
        )
    return mmbench_tasks(
        workspace.asset("mmbench_questions"),
        language=parameters.prompt_language,
        limit=parameters.limit,
    )


def _model_id(context: StageContext, folder: Path) -> str:
    """What the kit calls the model: `MGM-2B-Finetune-<experiment>`."""
    inside = folder.is_relative_to(context.workspace.runs)
    name = folder.parent.name if inside and folder.name == "artifacts" else folder.name
    return name if name.lower().startswith("mgm-2b") else f"MGM-2B-Finetune-{name}"


def _ask(
    context: StageContext,
    parameters: Parameters,
    answerer: Answerer,
    tasks: dict[Name, list[Task]],
    notebooks: dict[Name, Notebook],
) -> None:
    """Ask what is not yet answered; every batch's answers reach the disk at once."""
    total = sum(map(len, tasks.values()))
    waiting = {name: notebooks[name].unanswered(tasks[name]) for name in tasks}
    done = total - sum(map(len, waiting.values()))
    context.progress(done, total, "questions")
    for name, questions in waiting.items():
        most = parameters.max_new_tokens or KIT_MAX_NEW_TOKENS[name]
        for batch in answerer.answers(questions, most):
            notebooks[name].add(batch.answered)
            for task, problem in batch.unreadable:
                context.event(
                    "warning", "question_unreadable", benchmark=name, question=task.key[0],
                    problem=problem,
                )  # fmt: skip
            done += len(batch.answered) + len(batch.unreadable)
            context.metric(done, samples_per_second=batch.per_second, **answerer.memory())
            context.progress(done, total, "questions", note=name)
            context.check_stop()
        notebooks[name].put_in_order(tasks[name])


def _result(
    context: StageContext, parameters: Parameters, name: Name, tasks: Sequence[Task], dtype: str
) -> Result:
    workspace = context.workspace
    source = workspace.asset(f"{name}_questions")
    changes = []
    if name == "textvqa" and not parameters.ocr_tokens:
        changes.append("without OCR tokens")
    if name == "mmbench" and parameters.prompt_language != "en":
        changes.append(parameters.prompt_language)
    contract = Contract(
        file=source.name,
        sha256=file_sha256(source),
        prompt=", ".join(["kit", *changes]),
        ocr_tokens=name == "textvqa" and parameters.ocr_tokens,
        scorer={"textvqa": "textvqa-evalai", "mmbench": "mmbench-kit-circular"}[name],
        limit=parameters.limit,
        dtype=dtype,
        max_new_tokens=parameters.max_new_tokens or KIT_MAX_NEW_TOKENS[name],
    )
    answers = context.artifacts / name / "answers.jsonl"
    if name == "textvqa":
        return textvqa_result(tasks, answers, workspace.asset("textvqa_annotations"), contract)
    return mmbench_result(tasks, answers, contract)


def _kit_layout(
    context: StageContext,
    tasks: dict[Name, list[Task]],
    notebooks: dict[Name, Notebook],
    model_id: str,
) -> None:
    """The same answers under the kit's names, and the sheet for the benchmark's server."""
    folder = context.artifacts / "eval_results" / model_id
    if "textvqa" in tasks:
        notebooks["textvqa"].copy_to(folder / "textvqa" / "bm1.jsonl")
    if "mmbench" in tasks:
        split = context.workspace.asset("mmbench_questions").stem
        notebooks["mmbench"].copy_to(folder / "mmbench" / "answers" / split / f"{model_id}.jsonl")
        answers = mmbench.read_answers(notebooks["mmbench"].path)
        mmbench.write_upload(
            folder / "mmbench" / "answers_upload" / split / f"{model_id}.xlsx",
            [task.record for task in tasks["mmbench"]],
            {answer.index: answer.text for answer in answers},
        )


def _tell(context: StageContext, results: dict[Name, Result]) -> None:
    """Say the scores and what is missing."""
    for name, result in results.items():
        scores: dict[str, Any] = result.scores
        if scores["missing"]:
            context.event("warning", "questions_missing", benchmark=name, missing=scores["missing"])
        if scores["score"] is None:
            raise InputError(
                "no question could be answered.", place=name, remedy="See the run's events."
            )
        context.event(
            "info", "benchmark_scored", benchmark=name, score=f"{scores['score']:.1f}",
            n=scores["n"],
        )  # fmt: skip


if __name__ == "__main__":
    stage_main(Parameters, main)
