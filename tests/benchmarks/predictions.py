"""What `backend.memory` predicts of every job, written down before anything is measured."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from backend.memory.bindings import settings_of
from backend.memory.cards import CARDS
from backend.memory.fit import verdict
from backend.memory.parts import GIB, Prediction
from backend.memory.predict import predict
from backend.memory.settings import MemorySettings
from backend.memory.shapes import MGM_2B
from backend.stages import stage
from tests.benchmarks.configurations import Job

RESULTS = Path(__file__).parent / "results"
FILE = RESULTS / "predictions.json"


def settings_of_job(job: Job) -> MemorySettings:
    """What decides the memory of a job: its parameters, presets filled in, and its samples."""
    name = "finetune" if job.stage == "probe" else job.stage
    parameters = stage(name).parameters.model_validate({"data": "any", **job.parameters})
    settings = settings_of(name, parameters.model_dump())
    length = job.length
    return replace(
        settings,
        positions=length.positions,
        label_fraction=length.labels / length.positions,
        images_per_sample=int(length.pictures),
    )


def predict_job(job: Job) -> Prediction:
    """Memory of a job with the kit's model."""
    return predict(MGM_2B, settings_of_job(job))


def foreseen(job: Job) -> dict[str, Any]:
    """A prediction as plain values, with what other tools say of the same; bytes."""
    settings = settings_of_job(job)
    prediction = predict(MGM_2B, settings)
    return {
        "name": job.name,
        "group": job.group,
        "peak_allocated": prediction.peak_allocated,
        "peak_reserved": prediction.peak_reserved,
        "host": prediction.host,
        "peak_moment": prediction.peak_moment,
        "parts": prediction.parts,
        "moments": prediction.moments,
        "verdicts": verdicts(prediction),
        "others": estimates(settings),
    }


def verdicts(prediction: Prediction) -> dict[str, str]:
    """`fits`, `tight` or `no` for each common card, by its GB."""
    return {str(card.total // GIB): verdict(prediction, card.total) for card in CARDS}


def estimates(settings: MemorySettings) -> dict[str, int]:
    """Bytes on the device by the formulas of `accelerate estimate-memory` and DeepSpeed.

    Neither knows activations, logits, pictures or frozen parts. accelerate's is for Adam over all
    weights; DeepSpeed's is for its ZeRO stages.
    """
    from accelerate.commands.estimate import estimate_training_usage
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    told: dict[str, int] = {}
    if settings.method == "full":
        kind = "float32" if settings.precision == "fp32" else "bfloat16"
        usage = estimate_training_usage(4 * MGM_2B.parameters, kind)
        told["accelerate"] = int(max(usage.values()))
    offload = settings.offload != "none"
    if settings.zero_stage in (1, 2):
        _, told["deepspeed"] = estimate_zero2_model_states_mem_needs(
            MGM_2B.parameters, settings.devices, 1, offload
        )
    elif settings.zero_stage == 3:
        _, told["deepspeed"], _ = estimate_zero3_model_states_mem_needs(
            MGM_2B.parameters, MGM_2B.language.embedding_parameters, settings.devices, 1,
            offload, settings.offload == "optimizer_parameters",
        )  # fmt: skip
    return told


def write(jobs: list[Job], file: Path = FILE) -> None:
    """The predictions of these jobs, with the commit that made them."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "backend/memory"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    values = {
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit,
        "uncommitted": [line[3:] for line in changed],
        "jobs": [foreseen(job) for job in jobs if job.length.positions],
    }
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(values, indent=1) + "\n")
