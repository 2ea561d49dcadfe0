"""From answer files to what a run leaves behind: scores with their contract, one row a question."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backend.evaluation import mmbench as mmbench_scorer
from backend.evaluation import textvqa as textvqa_scorer
from backend.evaluation.benchmarks import Task
from backend.formats import mmbench, textvqa

QUESTION_COLUMNS = (
    "benchmark", "question_id", "group", "category", "l2_category", "question", "prompt",
    "options", "gold", "answer", "prediction", "vlmeval_prediction", "score", "image",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contract:
    """Under which conditions a score was measured; scores of different contracts do not compare."""

    file: str
    sha256: str
    prompt: str
    """`kit` or what differs from it."""
    ocr_tokens: bool
    scorer: str
    limit: int | None
    dtype: str
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Result:
    """One benchmark's outcome."""

    scores: dict[str, Any]
    """Its entry of scores.json."""
    rows: list[dict[str, Any]]
    """Its part of questions.parquet."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def textvqa_result(
    tasks: Sequence[Task], answers: Path, annotations: Path, contract: Contract
) -> Result:
    """Score the answers to `tasks`.

    Raises:
        InputError: A file is malformed, or an answer has no annotation.
    """
    questions: dict[tuple[str, str], textvqa.Question] = {task.key: task.record for task in tasks}
    scored = textvqa_scorer.score_answers(
        list(textvqa.read_answers(answers)), textvqa.read_annotations(annotations), str(answers)
    )
    rows, by_category = [], defaultdict[str, list[float]](list)
    for entry in scored:
        question = questions[entry.answer.question_id, entry.answer.prompt]
        by_category[question.category].append(entry.score)
        rows.append(
            {
                "benchmark": "textvqa",
                "question_id": entry.question_id,
                "group": entry.answer.question_id,
                "category": question.category,
                "l2_category": None,
                "question": entry.annotation.question,
                "prompt": entry.answer.prompt,
                "options": None,
                "gold": json.dumps(entry.annotation.answers, ensure_ascii=False),
                "answer": entry.answer.text,
                "prediction": entry.prediction,
                "vlmeval_prediction": None,
                "score": entry.score,
                "image": question.image,
            }
        )
    categories = {
        name: {"score": 100 * sum(values) / len(values), "n": len(values)}
        for name, values in sorted(by_category.items())
    }
    summary = textvqa_scorer.summarize(scored, len(tasks))
    del summary["scorer"]
    return Result({**summary, "contract": asdict(contract), "categories": categories}, rows)


def mmbench_result(tasks: Sequence[Task], answers: Path, contract: Contract) -> Result:
    """Score the answers to `tasks` under both contracts; the kit's is the score.

    Raises:
        InputError: A file is malformed, or the benchmark file tells no answers.
    """
    questions: list[mmbench.Row] = [task.record for task in tasks]
    prompts = {task.record.index: task.prompt for task in tasks}
    predictions = mmbench_scorer.predictions_of(
        mmbench.read_answers(answers), prompts, str(answers)
    )
    asked = len({row.base for row in questions})
    groups = {
        name: mmbench_scorer.score_groups(questions, predictions, name)
        for name in mmbench_scorer.CONTRACTS
    }
    summary = mmbench_scorer.summarize(groups["kit"], asked, "kit")
    rules = mmbench_scorer.summarize(groups["vlmeval"], asked, "vlmeval")
    del summary["scorer"]
    rows = [
        _mmbench_row(row, prompts[row.index], predictions[row.index])
        for row in questions
        if row.index in predictions
    ]
    scores = {
        **summary,
        "vlmeval_score": rules["score"],
        "vlmeval_interval": rules["interval"],
        "vlmeval_vanilla_score": rules["vanilla_score"],
        "vlmeval_categories": rules["categories"],
        "contract": asdict(contract),
    }
    return Result(scores, rows)


def _mmbench_row(row: mmbench.Row, prompt: str, answer: str) -> dict[str, Any]:
    prediction = mmbench_scorer.predicted_letter(answer, row.options, "kit")
    return {
        "benchmark": "mmbench",
        "question_id": str(row.index),
        "group": str(row.base),
        "category": row.category,
        "l2_category": row.l2_category,
        "question": row.question,
        "prompt": prompt,
        "options": json.dumps(row.options, ensure_ascii=False),
        "gold": json.dumps(row.answer),
        "answer": answer,
        "prediction": prediction,
        "vlmeval_prediction": mmbench_scorer.extract(answer, row.options),
        "score": float(prediction == row.answer),
        "image": f"tsv:{row.index}",
    }


def write_questions(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write questions.parquet: one row a question, `QUESTION_COLUMNS`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [
        pa.field(name, pa.float64() if name == "score" else pa.string())
        for name in QUESTION_COLUMNS
    ]
    scratch = path.with_name(f".{path.name}.part")
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(fields)), scratch)
    scratch.replace(path)
