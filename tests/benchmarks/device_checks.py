"""On this device: the reference's tiny model answers alike, and a resumed run goes on alike."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.benchmarks.configurations import Job
from tests.benchmarks.gate import Gate


def oracle(gate: Gate) -> dict[str, Any]:
    """Largest differences of the reference's tiny model on this device."""
    import tempfile

    import torch

    from tests.mgm import tiny

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.allow_tf32 = False
    inputs = tiny.forward_inputs()
    wanted = tiny.tensors("forward")
    kept = wanted["new_attention_mask"].bool()
    found: dict[str, Any] = {"state": "done"}
    with tempfile.TemporaryDirectory() as folder, gate.shared():
        zoo = tiny.write_zoo(Path(folder))
        answers = {}
        for name, dtype, place in (
            ("fp32", torch.float32, device),
            ("bf16", torch.bfloat16, device),
            ("bf16_cpu", torch.bfloat16, "cpu"),
        ):
            path = tiny.write_checkpoint(Path(folder) / name)
            mgm = tiny.checkpoints.load(
                path, dtype=dtype, device=place, vision_dir=zoo[1], vision_aux_dir=zoo[2]
            )
            with torch.no_grad():
                output = mgm.model(**{key: value.to(place) for key, value in inputs.items()})
            answers[name] = output.logits.float().cpu()
            found[f"{name}_loss"] = float(output.loss)
    scale = float(wanted["logits"][kept].abs().max())
    found["loss"] = float(wanted["loss"])
    found["fp32_error"] = float((answers["fp32"] - wanted["logits"])[kept].abs().max())
    found["bf16_error"] = float((answers["bf16"] - wanted["logits"])[kept].abs().max())
    found["bf16_against_cpu"] = float((answers["bf16"] - answers["bf16_cpu"])[kept].abs().max())
    found["largest_logit"] = scale
    return found


def resume(job: Job, workspace_root: Path, data: dict[str, str], gate: Gate) -> dict[str, Any]:
    """Losses of two undisturbed runs and of one that was stopped halfway and resumed."""
    from importlib import import_module

    from backend.files import read_lines, write_json
    from backend.runs import RunStatus, State
    from backend.stages.base import StageContext, StopRequested
    from backend.workspace import Workspace
    from tests.benchmarks.job import create_run

    workspace = Workspace.open(workspace_root)
    module = import_module(f"backend.stages.{job.stage}")
    module.save = lambda folder, mgm, weights: None
    halfway = int(job.parameters["max_steps"]) // 2
    curves: dict[str, list[float]] = {}
    started = time.time()
    for name in ("undisturbed", "again", "resumed"):
        run = create_run(workspace, job, data)
        for attempt in (1, 2) if name == "resumed" else (1,):
            status = RunStatus(state=State.RUNNING, attempt=attempt)
            write_json(run.status_path, status.model_dump(mode="json", exclude={"supervised"}))
            context = StageContext(workspace, run)
            if name == "resumed" and attempt == 1:
                _stop_after(context, halfway)
            try:
                with gate.shared():
                    module.main(context, module.Parameters.model_validate(run.spec.parameters))
            except StopRequested:
                print("stopped halfway", flush=True)
        curves[name] = [float(line["loss"]) for line in read_lines(run.metrics_path)]
    pairs = list(zip(curves["undisturbed"], curves["resumed"], strict=True))
    noise = list(zip(curves["undisturbed"], curves["again"], strict=True))
    return {
        "state": "done",
        "losses": curves["resumed"],
        "curves": curves,
        "largest_difference": max(abs(a - b) for a, b in pairs),
        "noise": max(abs(a - b) for a, b in noise),
        "seconds": time.time() - started,
    }


def _stop_after(context: Any, step: int) -> None:
    metric = context.metric

    def watched(number: int, **values: Any) -> None:
        metric(number, **values)
        if number >= step:
            context.stop_requested = True

    context.metric = watched
