"""Workspaces as a person finds them: empty, and in the middle of the loop."""

from __future__ import annotations

import math
import os
import random
import time
from pathlib import Path
from typing import Any

from backend.files import append_line, write_json
from backend.runs import Outcome, ProcessIdentity, Progress, Reason, Run, RunSpec, RunStatus, State
from backend.workspace import Settings, Workspace

MIB = 1 << 20
LOG = "Loading <script>alert(1)</script>\n{'loss': 2.31}\nSaving to artifacts\n"


def empty(root: Path) -> Workspace:
    """A new workspace with nothing in it."""
    return Workspace.create(root, Settings(name="studio *one*", profile="starter"))


def add_run(
    workspace: Workspace,
    run_id: str,
    state: State,
    parameters: dict[str, Any] | None = None,
    *,
    name: str = "",
    reason: Reason | None = None,
    parent: str | None = None,
    age_s: float = 3600,
    took_s: float = 600,
    alive: int | None = None,
    progress: Progress | None = None,
) -> Run:
    """A run's folder as supervisor and stage leave it; `alive` is who works on it."""
    stage, created = run_id.split("-")[2], time.time() - age_s
    spec = RunSpec(
        run_id=run_id,
        stage=stage,
        parameters=parameters or {},
        argv=["python", "-m", f"backend.stages.{stage}"],
        created_at=created,
        device=None,
        parent=parent,
        name=name,
        versions={"torch": "2.13.0"},
    )
    run = Run.create(workspace, spec)
    worker = ProcessIdentity.of(alive or os.getpid()) if state is State.RUNNING else None
    status = RunStatus(
        state=state,
        supervisor=worker,
        child=worker,
        queued_at=created,
        started_at=None if state is State.QUEUED else created + 1,
        ended_at=created + took_s if state.ended else None,
        reason=reason,
        exit_code=0 if state is State.SUCCEEDED else None,
    )
    write_json(run.status_path, status.model_dump(mode="json", exclude={"supervised"}))
    if state in (State.SUCCEEDED, State.FAILED, State.STOPPED):
        outcome = Outcome(
            state=state, reason=reason or Reason(code="completed"), ended_at=created, attempt=1
        )
        write_json(run.path / "outcome.json", outcome.model_dump(mode="json"))
    if progress is not None:
        write_json(run.path / "progress.json", progress.model_dump(mode="json"))
    if state is not State.QUEUED:
        run.log_path.write_text(LOG, encoding="utf-8")
    return run


def add_metrics(run: Run, steps: int, *, device: bool = False, broken: bool = False) -> None:
    """A falling loss with a spike, and memory; a broken one ends in NaN."""
    chance = random.Random(steps)
    start = run.spec.created_at
    for step in range(1, steps + 1):
        loss = 1.1 + 3.2 * math.exp(-step / (steps / 4)) + chance.gauss(0, 0.06)
        loss += 1.5 if step == steps // 2 else 0.0
        reserved = (9000 + 200 * math.sin(step / 9)) * MIB if device else None
        append_line(
            run.metrics_path,
            {
                "step": step,
                "time": start + 2 * step,
                "attempt": 1,
                "loss": math.nan if broken and step > steps * 0.8 else loss,
                "learning_rate": 1e-3 * math.sin(math.pi * step / (steps + 1)),
                "grad_norm": abs(chance.gauss(1.2, 0.3)),
                "epoch": step / steps,
                "samples_per_second": chance.gauss(31, 1.4),
                "tokens_per_second": chance.gauss(5100, 200),
                "memory_allocated": 7800 * MIB if device else None,
                "memory_reserved": reserved,
                "memory_allocated_peak": 8200 * MIB if device else None,
                "memory_reserved_peak": reserved,
                "host_memory": (900 + step / 10) * MIB,
            },
        )
        if step % 5 == 0:
            devices = None
            if device:
                devices = [
                    {
                        "index": 0,
                        "name": "Test card",
                        "used": 10_500 * MIB,
                        "total": 24_576 * MIB,
                        "utilization": 93.0,
                        "power_w": 210.0,
                        "temperature_c": 61.0,
                    }
                ]
            process = {"rss": (950 + step / 10) * MIB, "cpu_percent": 180.0, "device_memory": None}
            line = {"time": start + 2 * step, "devices": devices, "process": process}
            append_line(run.gpu_path, line)


def benchmark(score: float, n: int) -> dict[str, Any]:
    """A benchmark's part of scores.json."""
    return {
        "score": score,
        "n": n,
        "interval": [score - 2.1, score + 2.2],
        "contract": {
            "file": "questions.jsonl",
            "sha256": "0" * 64,
            "prompt": "kit",
            "ocr_tokens": True,
            "scorer": "textvqa",
            "limit": None,
        },
        "categories": {"all": {"score": score, "n": n}},
    }


def add_scores(run: Run, textvqa: float, mmbench: float) -> None:
    """What an evaluation leaves."""
    scores = {"textvqa": benchmark(textvqa, 500), "mmbench": benchmark(mmbench, 400)}
    write_json(run.artifacts / "scores.json", scores)


def half_finished(root: Path, alive: int | None = None) -> Workspace:
    """A baseline that is done, a second round of which one run goes on and others ended badly."""
    workspace = empty(root)
    loop = "20261124-080000-loop-aaaa"
    steps = [
        ("prepare", "20261124-080001-prepare-aaab"),
        ("pretrain", "20261124-080010-pretrain-aaac"),
        ("finetune", "20261124-080020-finetune-aaad"),
        ("evaluate", "20261124-080030-evaluate-aaae"),
    ]
    run = add_run(
        workspace, loop, State.SUCCEEDED, {"loop": "baseline"}, name="First baseline",
        age_s=9000, took_s=2400, progress=Progress(done=4, total=4, unit="stages"),
    )  # fmt: skip
    listed = [{"name": n, "stage": n, "run_id": i, "state": "succeeded"} for n, i in steps]
    write_json(run.artifacts / "loop.json", {"steps": listed})
    add_run(workspace, steps[0][1], State.SUCCEEDED, {"dataset": "seed/v1"}, parent=loop)
    pretrain = add_run(
        workspace, steps[1][1], State.SUCCEEDED, {"data": steps[0][1], "learning_rate": 1e-3},
        parent=loop, age_s=8900, progress=Progress(done=93, total=93, unit="steps"),
    )  # fmt: skip
    add_metrics(pretrain, 93)
    finetune = add_run(
        workspace, steps[2][1], State.SUCCEEDED,
        {"projector": steps[1][1], "method": "full", "learning_rate": 2e-5},
        parent=loop, age_s=8000, progress=Progress(done=300, total=300, unit="steps"),
    )  # fmt: skip
    add_metrics(finetune, 300, device=True)
    evaluate = add_run(
        workspace, steps[3][1], State.SUCCEEDED, {"checkpoint": steps[2][1]}, parent=loop,
        age_s=7000,
    )  # fmt: skip
    add_scores(evaluate, 31.4, 42.0)
    failed = add_run(
        workspace, "20261124-090000-pretrain-baad", State.FAILED, {"data": steps[0][1]},
        name="too *fast*", age_s=5000,
        reason=Reason(code="did_not_learn", values={"problem": "the loss became NaN"},
                      evidence=["{'loss': nan}"]),
        progress=Progress(done=80, total=80, unit="steps"),
    )  # fmt: skip
    add_metrics(failed, 80, broken=True)
    failed.add_event("warning", "finding", finding="loss_not_finite", text="The loss is NaN")
    failed.add_event("info", "prepared", samples=120, rejected=2)
    stopped = add_run(
        workspace, "20261124-100000-finetune-5707", State.STOPPED, {"method": "lora"},
        age_s=4000, reason=Reason(code="stopped_by_person"),
        progress=Progress(done=20, total=300, unit="steps"),
    )  # fmt: skip
    add_metrics(stopped, 20)
    running = add_run(
        workspace, "20261124-110000-finetune-1111", State.RUNNING,
        {"method": "lora", "learning_rate": 1e-4}, name="second <b>round</b>", age_s=400,
        alive=alive, progress=Progress(done=150, total=300, unit="steps", eta_s=260,
                                       at=time.time()),
    )  # fmt: skip
    add_metrics(running, 150, device=True)
    add_run(
        workspace, "20261124-120000-evaluate-9999", State.QUEUED,
        {"checkpoint": running.id}, age_s=60, alive=alive,
    )  # fmt: skip
    better = add_run(
        workspace, "20261124-103000-evaluate-beef", State.SUCCEEDED,
        {"checkpoint": steps[2][1]}, name="cleaned data", age_s=2000,
    )  # fmt: skip
    add_scores(better, 36.0, 45.5)
    return workspace
