"""A workspace with the tiny reference model and a handful of samples, and training runs in it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from backend.files import read_lines, write_json
from backend.runs import Run, RunSpec, RunStatus, State, new_run_id
from backend.stages import stage as stage_named
from backend.stages.base import StageContext, StopRequested
from backend.workspace import Settings, Workspace
from tests.mgm.tiny import write_zoo

EXACT: dict[str, Any] = {
    "precision": "fp32",
    "global_batch_size": 4,
    "micro_batch_size": 2,
    "model_max_length": 128,
    "image_workers": 0,
    "save_steps": 0,
    "warmup_ratio": 0.0,
    "learning_rate": 1e-3,
}
"""Parameters that suit the tiny model on a CPU."""
COLORS = ("red", "green", "blue", "white", "black", "gray")


def make_workspace(root: Path, count: int = 24) -> Workspace:
    """A workspace whose assets are the tiny model and `count` samples for each stage."""
    zoo = write_zoo(root / "zoo")
    data = root / "data"
    data.mkdir()
    records = [_record(data, index) for index in range(count)]
    (data / "train.json").write_text(json.dumps(records))
    assets = dict(zip(("llm", "vision_tower", "vision_tower_aux"), map(str, zoo), strict=True))
    assets |= {
        "seed_images": str(data),
        "finetune_pairs": str(data / "train.json"),
        "finetune_images": str(data),
    }
    return Workspace.create(root / "ws", Settings(name="tests", assets=assets))


def _record(folder: Path, index: int) -> dict[str, Any]:
    color = COLORS[index % len(COLORS)]
    answer = " ".join([color] * (1 + index % 3))
    record: dict[str, Any] = {"id": f"seed-{index}", "sample_id": f"sample-{index}"}
    question = "What color?"
    if index % 6 != 5:
        record["image"] = f"{index}.png"
        Image.new("RGB", (20 + index, 24), color).save(folder / f"{index}.png")
        question = f"<image>\n{question}"
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return record | {"conversations": turns}


def new_run(workspace: Workspace, stage: str, **parameters: Any) -> Run:
    """A run that waits to be trained, with `EXACT` and these parameters."""
    known = stage_named(stage).parameters.model_fields
    usual = {name: value for name, value in EXACT.items() if name in known}
    values = usual | {"data": str(workspace.asset("finetune_pairs"))} | parameters
    spec = RunSpec(
        run_id=new_run_id(stage), stage=stage, parameters=values, argv=[], created_at=time.time(),
        device=None,
    )  # fmt: skip
    run = Run.create(workspace, spec)
    set_state(run, State.RUNNING)
    return run


def set_state(run: Run, state: State, attempt: int = 1) -> None:
    """Write a status as the supervisor would."""
    status = RunStatus(state=state, attempt=attempt)
    write_json(run.status_path, status.model_dump(mode="json", exclude={"supervised"}))


def train(workspace: Workspace, run: Run, *, attempt: int = 1, stop_at: int | None = None) -> bool:
    """Run the stage in this process; whether it came to its end.

    Args:
        workspace: Of the run.
        run: From `new_run`.
        attempt: 2 resumes.
        stop_at: Ask it to stop after this step.
    """
    from importlib import import_module

    set_state(run, State.RUNNING, attempt)
    module = import_module(stage_named(run.spec.stage).module)
    context = _Context(workspace, run, stop_at)
    try:
        module.main(context, module.Parameters.model_validate(run.spec.parameters))
    except StopRequested:
        set_state(run, State.STOPPED, attempt)
        return False
    set_state(run, State.SUCCEEDED, attempt)
    return True


class _Context(StageContext):
    """A context that is asked to stop after a step."""

    def __init__(self, workspace: Workspace, run: Run, stop_at: int | None):
        super().__init__(workspace, run)
        self.stop_at = stop_at

    def metric(self, step: int, **values: float | int | None) -> None:
        super().metric(step, **values)
        self.stop_requested = step == self.stop_at


def trained(workspace: Workspace, stage: str, **parameters: Any) -> Run:
    """A run that has been trained to its end."""
    run = new_run(workspace, stage, **parameters)
    assert train(workspace, run)
    return run


def losses(run: Run) -> list[float]:
    """The loss of every step, the last attempt's where there are several."""
    rows = {row["step"]: row["loss"] for row in read_lines(run.metrics_path)}
    return [rows[step] for step in sorted(rows)]


def seen(run: Run) -> list[tuple[int, str, float]]:
    """(step, sample id, loss) of every row of batches/."""
    rows = []
    for part in sorted((run.path / "batches").glob("part-*.parquet")):
        table = pq.read_table(part).to_pylist()
        rows += [(row["step"], row["sample_id"], row["loss"]) for row in table]
    return rows


def weights(folder: Path) -> dict[str, Any]:
    """Every tensor of a run's result."""
    from backend.mgm.weights import read_weights

    found: dict[str, Any] = {}
    for pattern in ("model-*.safetensors", "adapter_model.bin", "*projector.bin", "non_lora*.bin"):
        for file in sorted(folder.glob(pattern)):
            found |= read_weights(file)
    return found
