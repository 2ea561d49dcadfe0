"""A tiny pair of benchmarks in the real file formats, and answers to it."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from backend.evaluation.benchmarks import mmbench_tasks, textvqa_tasks
from backend.evaluation.results import Contract, mmbench_result, textvqa_result, write_questions
from backend.files import append_line, write_json
from backend.formats import mmbench, textvqa
from backend.runs import Run, RunSpec, RunStatus, State
from backend.workspace import Settings, Workspace

COLORS = {"red": (200, 30, 30), "blue": (30, 30, 200), "green": (30, 160, 30)}
SHORT = textvqa.SHORT_ANSWER


@dataclass(frozen=True)
class Benchmarks:
    questions: Path
    annotations: Path
    images: Path
    tsv: Path


def picture(color: str, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), COLORS[color]).save(buffer, kind)
    return buffer.getvalue()


def make_benchmarks(root: Path, *, count: int = 6) -> Benchmarks:
    """`count` TextVQA questions over half as many images; `count` base questions with 2 rounds."""
    images = root / "train_images"
    images.mkdir(parents=True)
    questions, annotations, rows = [], [], []
    names = list(COLORS)
    for n in range(count):
        color, image = names[n // 2 % 3], f"{n // 2:016x}"
        (images / f"{image}.jpg").write_bytes(picture(color, "JPEG"))
        text = f"What is question {n}?"
        ocr = f"{textvqa.OCR_LINE}{color}, {n}"
        kind = "color" if n % 2 else "sign"
        questions.append(textvqa.Question(image, f"{image}.jpg", f"{text}\n{ocr}\n{SHORT}", kind))
        annotations.append(textvqa.Annotation(image, text, (color,) * 10, str(100 + n)))
        content = base64.b64encode(picture(color)).decode()
        other = names[(n // 2 + 1) % 3]
        for turn in (0, 1):
            first, second = (color, other) if turn == 0 else (other, color)
            rows.append(
                mmbench.Row(
                    index=turn * mmbench.ROUND + n,
                    question=f"Which color is {n}?",
                    options={"A": first, "B": second},
                    answer="AB"[turn],
                    image=content,
                    hint="Look." if n == 0 else None,
                    category="color" if n % 2 else "shape",
                    l2_category="attribute_reasoning",
                    split="dev",
                )
            )
    textvqa.write_questions(root / "questions.jsonl", questions)
    textvqa.write_annotations(root / "annotations.json", annotations)
    mmbench.write_rows(root / "mmbench_dev.tsv", rows)
    return Benchmarks(
        root / "questions.jsonl", root / "annotations.json", images, root / "mmbench_dev.tsv"
    )


def write_lines(path: Path, lines: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def make_workspace(root: Path, files: Benchmarks) -> Workspace:
    """A workspace whose benchmarks are `files`."""
    assets = {
        "textvqa_questions": str(files.questions),
        "textvqa_annotations": str(files.annotations),
        "textvqa_images": str(files.images),
        "mmbench_questions": str(files.tsv),
    }
    return Workspace.create(root, Settings(name="sample", assets=assets))


def make_run(workspace: Workspace, stage: str, run_id: str, name: str = "", **parameters) -> Run:
    """A succeeded run of `stage`."""
    spec = RunSpec(
        run_id=run_id, stage=stage, parameters=parameters, argv=[], created_at=0, device=None,
        name=name, environment={"python": "3.11"}, versions={"torch": "2.13.0"}, git="abc",
    )  # fmt: skip
    run = Run.create(workspace, spec)
    status = RunStatus(state=State.SUCCEEDED, started_at=100, ended_at=175)
    write_json(run.status_path, status.model_dump(mode="json", exclude={"supervised"}))
    return run


def make_evaluated(
    workspace: Workspace, name: str, text, letters, *, losses=(), counts=None
) -> Run:
    """An evaluated run with its dataset, preparation, pretraining and fine-tuning."""
    dataset = workspace.datasets / name / "v1"
    operator = {"name": "text_length_filter", "before": 40, "after": 30, "seconds": 1.0}
    description = {"counts": counts or {"samples": 40, "kept": 30}, "operators": [operator]}
    write_json(dataset / "dataset.json", description)
    ids = {stage: f"20261124-000000-{stage}-{name}" for stage in
           ("prepare", "pretrain", "finetune", "evaluate")}  # fmt: skip
    make_run(workspace, "prepare", ids["prepare"], dataset=f"{name}/v1")
    rate = 1e-3 if name == "seed" else 2e-3
    pretrain = make_run(
        workspace, "pretrain", ids["pretrain"], data=ids["prepare"], learning_rate=rate
    )
    for step, loss in enumerate(losses, 1):
        append_line(pretrain.metrics_path, {"step": step, "loss": loss, "host_memory": 2**30})
    make_run(workspace, "finetune", ids["finetune"], name, projector=ids["pretrain"])
    run = make_run(workspace, "evaluate", ids["evaluate"], checkpoint=ids["finetune"])
    contract = Contract("q.jsonl", "0" * 64, "kit", True, "textvqa-evalai", None, "float32", 128)
    first = textvqa_tasks(workspace.asset("textvqa_questions"), workspace.asset("textvqa_images"))
    second = mmbench_tasks(workspace.asset("mmbench_questions"))
    paths = {key: run.artifacts / key / "answers.jsonl" for key in ("textvqa", "mmbench")}
    write_lines(paths["textvqa"], [task.line(text(task), name) for task in first])
    write_lines(paths["mmbench"], [task.line(letters(task), name) for task in second])
    annotations = workspace.asset("textvqa_annotations")
    results = {
        "textvqa": textvqa_result(first, paths["textvqa"], annotations, contract),
        "mmbench": mmbench_result(second, paths["mmbench"], contract),
    }
    kit = run.artifacts / "eval_results" / f"MGM-2B-Finetune-{name}"
    write_lines(kit / "textvqa" / "bm1.jsonl", [{"text": "x"}])
    write_lines(kit / "mmbench" / "answers" / "mmbench_dev" / f"{name}.jsonl", [{"text": "x"}])
    sheet = kit / "mmbench" / "answers_upload" / "mmbench_dev" / f"{name}.xlsx"
    mmbench.write_upload(sheet, [task.record for task in second], {0: "A"})
    write_json(run.artifacts / "scores.json", {key: part.scores for key, part in results.items()})
    write_questions(
        run.artifacts / "questions.parquet", [row for part in results.values() for row in part.rows]
    )
    return run


def make_submittable(root: Path) -> Workspace:
    """A workspace whose run `20261124-000000-evaluate-clean` the challenge would take."""
    workspace = make_workspace(root / "w", make_benchmarks(root / "b"))
    counts = {"samples": 50, "kept": 42, "dropped": 8, "synthesized": 12}
    make_evaluated(workspace, "clean", lambda t: "red", lambda t: "A", counts=counts)
    for stage in ("pretrain", "finetune"):
        log = workspace.runs / f"20261124-000000-{stage}-clean" / "output.log"
        log.write_text(f"{stage} log\n")
    prepared = workspace.runs / "20261124-000000-prepare-clean" / "artifacts"
    write_json(prepared / "prepared.json", {"samples": 42})
    (prepared / "train.json").write_text("[]")
    return workspace
