"""A tiny pair of benchmarks in the real file formats, and answers to it."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from backend.formats import mmbench, textvqa

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
