"""A small workspace in the kit's layout, with pictures that were drawn for the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from backend.runs import Run, RunSpec, new_run_id
from backend.stages.base import StageContext
from backend.workspace import Settings, Workspace

REAL_SEED = Path(__file__).parents[2] / "shared" / "data" / "better_synth_300"
COLORS = ("red", "green", "blue", "yellow", "purple", "orange")
QUESTION = "<image>\nWhat is in the photo?"


def picture(number: int, size: int = 64) -> Image.Image:
    """A circle or a square whose color and place follow from the number."""
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    left, top = (7 * number) % (size // 2), (11 * number) % (size // 2)
    box = (left, top, left + size // 2, top + size // 2)
    shape = draw.ellipse if number % 2 else draw.rectangle
    shape(box, fill=COLORS[number % len(COLORS)], outline="black")
    draw.line((0, number % size, size, (5 * number) % size), fill="gray", width=2)
    return image


def caption(number: int) -> str:
    shape = "circle" if number % 2 else "square"
    return f"a {COLORS[number % len(COLORS)]} {shape} number {number}"


def pair(number: int, text: str | None = None, image: str | None = None) -> dict[str, Any]:
    return {
        "id": f"{number:09d}",
        "text": f"<__dj__image>\n{text or caption(number)} <|__dj__eoc|>",
        "images": [image or f"images/{number:09d}.png"],
    }


def original(number: int) -> dict[str, Any]:
    return {
        "id": f"{number:09d}",
        "conversations": [
            {"from": "human", "value": QUESTION},
            {"from": "gpt", "value": caption(number)},
        ],
        "image": f"images/{number:09d}.png",
    }


def write_seed(folder: Path, count: int, pairs: list[dict[str, Any]] | None = None) -> None:
    """The three seed assets below `folder`, pictures included."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(number).save(folder / "images" / f"{number:09d}.png")
    rows = [pair(number) for number in range(count)] if pairs is None else pairs
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "mgm_pretrain_stage_1.jsonl").write_text(lines)
    (folder / "stage_1.json").write_text(json.dumps([original(n) for n in range(count)]))


def make_workspace(
    root: Path, count: int = 12, pairs: list[dict[str, Any]] | None = None
) -> Workspace:
    workspace = Workspace.create(root / "workspace", Settings(name="test"))
    write_seed(workspace.asset("seed_images"), count, pairs)
    return workspace


def stage_context(workspace: Workspace, stage: str, **parameters: Any) -> StageContext:
    """The context of a new run of `stage`."""
    spec = RunSpec(
        run_id=new_run_id(stage),
        stage=stage,
        parameters=parameters,
        argv=[],
        created_at=0.0,
        device=None,
    )
    return StageContext(workspace, Run.create(workspace, spec))
