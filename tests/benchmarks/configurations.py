"""What is run on a device: names, parameters of the real stages, and in which order they count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from tests.benchmarks.texts import Length

Group = Literal[
    "speed", "kit", "fit", "start", "learn", "memory", "border", "pair", "death", "healthy", "check"
]
LONG = Length(1024, 200)
"""448 positions of text and 576 of the picture."""


@dataclass(frozen=True)
class Job:
    """One process that trains.

    Attributes:
        name: Unique.
        group: What it is for.
        stage: `pretrain` or `finetune`.
        parameters: Of the stage; data and projector are filled in where it runs.
        length: Of its samples.
        cap_gib: Device memory that torch may take; None is the whole card.
        card_gib: Card that the cap stands for; its prediction is judged by `plan`'s verdict.
        window: (first step, steps) during which the device is its own and the clock runs.
        save: Write the result as the stage does; otherwise nothing is written at the end.
        after: Job that must have succeeded before.
        timeout: Seconds.
        threads: CPU threads of torch.
        slot: Jobs of one slot use the device one after another, micro-batch by micro-batch.
        again: Changes to try, one after another, when the device's memory did not do.
        leave_gib: Device memory that another process leaves to this one; None is no such process.
        fails: Moment of a training step at which its memory ends, as `explain` has to find it.
    """

    name: str
    group: Group
    stage: str
    parameters: dict[str, Any]
    length: Length = LONG
    cap_gib: float | None = None
    card_gib: int | None = None
    window: tuple[int, int] | None = None
    save: bool = False
    after: str = ""
    timeout: int = 240
    threads: int = 2
    slot: str = "heavy"
    again: tuple[dict[str, Any], ...] = field(default=())
    leave_gib: float | None = None
    fails: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Job:
        """From `to_dict`."""
        values = {**values, "length": Length(**values["length"])}
        values["window"] = tuple(values["window"]) if values["window"] else None
        values["again"] = tuple(values["again"])
        return cls(**values)


COMMON: dict[str, Any] = {
    "epochs": 1000,
    "save_steps": 0,
    "stop_when_sick": False,
    "image_workers": 2,
    "group_by_modality_length": False,
}
"""What has no part in memory: enough data, no checkpoints in between, no early end."""


def _steps(micro: int, accumulation: int = 2, steps: int = 2) -> dict[str, Any]:
    return {
        "micro_batch_size": micro,
        "global_batch_size": micro * accumulation,
        "max_steps": steps,
    }


def _memory(
    name: str,
    preset: str,
    *,
    micro: int = 4,
    accumulation: int | None = None,
    length: Length = LONG,
    stage: str = "finetune",
    **parameters: Any,
) -> Job:
    accumulation = accumulation or (1 if micro > 4 else 2)
    values = {**COMMON, "preset": preset, **_steps(micro, accumulation), **parameters}
    if stage == "pretrain":
        del values["group_by_modality_length"]
    return Job(name, "memory", stage, values, length)


FULL, FULL24 = "fit-16gb-full", "fit-24gb-full"
LORA, QLORA = "fit-12gb-lora", "fit-8gb-qlora"
NAIVE: dict[str, Any] = {
    "activation_checkpointing": True,
    "mining_checkpointing": False,
    "tower_chunk": 0,
    "loss_chunk": 0,
}
"""A plain training script: every logit at once, only the language model checkpointed."""


def memory_jobs() -> list[Job]:
    """Configurations spread over every axis, the most telling first."""
    at = Length
    return [
        _memory("full-paged8-lean", FULL),
        _memory("lora-lean", LORA),
        _memory("qlora-lean", QLORA),
        _memory("projector-lean", FULL, stage="pretrain"),
        _memory("full-naive-bf16", "custom", optimizer="adamw_bf16", precision="bf16", **NAIVE),
        _memory("lora-naive", "custom", method="lora", **NAIVE),
        _memory("full-8bit-lean", FULL24),
        _memory("full-8bit-no-mining-checkpoint", FULL24, mining_checkpointing=False),
        _memory("full-paged8-towers-together", FULL, tower_chunk=0),
        _memory("full-paged8-all-logits", FULL, loss_chunk=0),
        _memory("full-paged8-no-checkpoint", FULL, activation_checkpointing=False, micro=2),
        _memory("lora-no-checkpoint", LORA, activation_checkpointing=False),
        _memory("qlora-micro-1", QLORA, micro=1),
        _memory("qlora-micro-16", QLORA, micro=16),
        _memory("lora-micro-16", LORA, micro=16),
        _memory("full-paged8-micro-8-2048", FULL, micro=8, length=at(2048, 400)),
        _memory("lora-2048", LORA, length=at(2048, 400)),
        _memory("full-paged8-700", FULL, length=at(700, 60)),
        _memory("full-master-lean", FULL, precision="fp32_master", optimizer="adamw"),
        _memory("full-fp32-lean", FULL, precision="fp32", optimizer="adamw", micro=2),
        _memory("full-bf16-states", FULL, precision="bf16", optimizer="adamw_bf16"),
        _memory("full-paged8-once", FULL, accumulation=1),
        _memory("full-paged8-whole-mlp", FULL, mlp_chunk=0),
        _memory("full-paged8-eager", FULL, attention="eager"),
        _memory("full-paged8-mixed", FULL, length=at(1024, 200, shortest=800)),
        _memory("full-paged8-1536-chunk-1024", FULL, loss_chunk=1024, length=at(1536, 640)),
        _memory("full-paged8-micro-1", FULL, micro=1),
        _memory("qlora-2048-micro-2", QLORA, micro=2, length=at(2048, 400)),
        _memory("qlora-no-checkpoint", QLORA, activation_checkpointing=False),
        _memory("lora-rank-128-no-dropout", LORA, lora_rank=128, lora_dropout=0.0),
        _memory("lora-rank-16-qv", LORA, lora_rank=16, lora_targets=["q_proj", "v_proj"]),
        _memory("lora-fp32", LORA, precision="fp32"),
        _memory("projector-naive", "custom", stage="pretrain", **NAIVE),
        _memory("projector-micro-16", FULL, stage="pretrain", micro=16, length=at(700, 60)),
        _memory("qlora-towers-by-4", QLORA, micro=8, tower_chunk=4, length=at(1200, 300)),
        _memory("lora-hd", LORA, micro=1, image_grid=2, image_global=True, image_size_aux=1536,
                model_max_length=4096, length=at(3200, 200)),
        _memory("full-8bit-1300-micro-6", FULL24, micro=6, length=at(1300, 250)),
        _memory("lora-8bit-900-micro-2", LORA, optimizer="adamw_8bit", precision="bf16_stochastic",
                micro=2, length=at(900, 150)),
        _memory("qlora-all-logits", QLORA, loss_chunk=0),
        _memory("lora-compiled-no-checkpoint", LORA, compile=True, activation_checkpointing=False,
                mlp_chunk=0),
        _memory("full-compiled", FULL, compile=True, mlp_chunk=0),
        _memory("full-paged8-zero2", FULL, zero_stage=2, precision="fp32_master",
                optimizer="adamw"),
        _memory("full-text-only", FULL, length=at(1024, 200, pictures=False)),
        _memory("lora-micro-12-1100", LORA, micro=12, length=at(1100, 128)),
        _memory("full-zero3-offload-all", FULL, zero_stage=3, offload="optimizer_parameters",
                precision="fp32_master", optimizer="adamw"),
        _memory("full-zero3", FULL, zero_stage=3, precision="fp32_master", optimizer="adamw"),
        _memory("full-zero3-offload", FULL, zero_stage=3, offload="optimizer",
                precision="fp32_master", optimizer="adamw", micro=8),
        _memory("full-zero1", FULL, zero_stage=1, precision="fp32_master", optimizer="adamw",
                loss_chunk=0),
        _memory("lora-zero2", LORA, zero_stage=2, length=at(1400, 300)),
        _memory("lora-zero3", LORA, zero_stage=3),
    ]  # fmt: skip


def _border(card: int, name: str, preset: str, positions: int, **options: Any) -> Job:
    from backend.memory.cards import usable

    labels = round(positions * 200 / 1024)
    job = _memory(f"card-{card}-{name}", preset, length=Length(positions, labels), **options)
    return replace(job, group="border", card_gib=card, cap_gib=usable(card << 30) / 2**30)


def border_jobs() -> list[Job]:
    """Configurations close to what common cards hold, each in a process that has no more.

    Of each card one that is said to fit, one that may, and one that is said not to.
    """
    return [
        _border(8, "qlora-fits", QLORA, 1024, micro=7),
        _border(12, "lora-fits", LORA, 1024, micro=6, mining_checkpointing=False),
        _border(16, "full-fits", FULL, 900, activation_checkpointing=False),
        _border(24, "full-8bit-fits", FULL24, 1024, micro=3, loss_chunk=0),
        _border(8, "qlora-tight", QLORA, 1200, mlp_chunk=0),
        _border(12, "lora-tight", LORA, 960, micro=7, mining_checkpointing=False),
        _border(16, "full-tight", FULL, 1024, activation_checkpointing=False),
        _border(24, "full-8bit-tight", FULL24, 850, loss_chunk=0),
        _border(8, "qlora-above", QLORA, 1024, micro=8, mining_checkpointing=False),
        _border(12, "lora-above", LORA, 1200, micro=10, mining_checkpointing=False),
        _border(16, "full-above", FULL, 2048, activation_checkpointing=False),
        _border(24, "full-8bit-above", FULL24, 1400, loss_chunk=0),
    ]


def pair_jobs() -> list[Job]:
    """Two devices and each way to share between them; only where there are two."""
    states = {"precision": "fp32_master", "optimizer": "adamw", "devices": 2}
    jobs = [
        _memory("two-plain-lora", LORA, devices=2),
        _memory("two-zero1-lora", LORA, zero_stage=1, devices=2),
        _memory("two-zero2", FULL, zero_stage=2, **states),
        _memory("two-zero3", FULL, zero_stage=3, **states),
    ]
    return [
        replace(
            # Both processes of a job have to be in the same step.
            job, group="pair", slot="",
            parameters={**job.parameters,
                        "global_batch_size": 2 * job.parameters["global_batch_size"]},
        )
        for job in jobs
    ]  # fmt: skip


def death_jobs() -> list[Job]:
    """Trainings that run out of device memory, each at another moment."""

    def dies(fails: str, cap: float, job: Job, **more: Any) -> Job:
        return replace(job, group="death", cap_gib=cap, fails=fails, **more)

    return [
        dies("loading", 4.0, _memory("death-loading", FULL24)),
        dies("vision", 13.0, _memory("death-vision", LORA, micro=16, tower_chunk=0,
                                     mining_checkpointing=False)),
        dies("forward", 14.0, _memory("death-forward", LORA, micro=16,
                                      activation_checkpointing=False)),
        dies("loss", 12.0, _memory("death-loss", "custom", method="lora", **NAIVE)),
        dies("backward", 11.0, _memory("death-backward", QLORA, micro=16, tower_chunk=4,
                                       mlp_chunk=0, length=Length(2048, 400))),
        dies("optimizer", 15.0, _memory("death-optimizer", FULL, precision="bf16",
                                        optimizer="adamw_bf16")),
        dies("", 11.5, _memory("death-kit", "kit"), threads=14),
        replace(_memory("death-beside", LORA), group="death", leave_gib=7.0, fails=""),
    ]  # fmt: skip


def healthy_jobs() -> list[Job]:
    """Twenty trainings of the starter as its users start them: nothing may be found wrong."""
    quiet = {"image_workers": 2}
    jobs = [
        Job(f"healthy-pretrain-{seed}", "healthy", "pretrain", {**quiet, "seed": seed},
            Length(0, 0), slot="", save=True)
        for seed in range(1, 8)
    ]  # fmt: skip
    full = {**quiet, "method": "full", "learning_rate": 2e-4}
    ways: dict[str, dict[str, Any]] = {
        **{f"lora-{seed}": {**quiet, "seed": seed} for seed in range(1, 7)},
        **{f"full-{seed}": {**full, "seed": seed} for seed in range(1, 4)},
        "lora-rank-64": {**quiet, "lora_rank": 64, "lora_alpha": 128.0, "lora_dropout": 0.05},
        "full-master": {**full, "precision": "fp32_master"},
        "full-stochastic": {**full, "precision": "bf16_stochastic", "optimizer": "adamw_8bit"},
        "full-constant": {**full, "scheduler": "constant", "learning_rate": 1e-4},
    }
    for name, values in ways.items():
        jobs.append(
            Job(f"healthy-{name}", "healthy", "finetune", values, Length(0, 0), slot="", save=True,
                after="healthy-pretrain-1")
        )  # fmt: skip
    return jobs


def fit_jobs() -> list[Job]:
    """The presets on a card of 24 GB: 20 steps of global batch 128, and its smaller siblings."""
    cap = {"cap_gib": 23.0, "save": True}
    short = {**COMMON, "global_batch_size": 16, "max_steps": 4}
    pretraining = {key: value for key, value in short.items() if not key.startswith("group")}
    full = {**COMMON, "preset": FULL, "global_batch_size": 128, "max_steps": 20}
    return [
        Job("fit-16gb-full", "fit", "finetune", full, window=(1, 1), timeout=530, slot="",
            **cap),
        Job("fit-12gb-lora", "fit", "finetune", {**short, "preset": LORA}, window=(1, 3), **cap),
        Job("fit-8gb-qlora", "fit", "finetune", {**short, "preset": QLORA}, window=(1, 3), **cap),
        Job("fit-pretrain", "fit", "pretrain", {**pretraining, "preset": FULL}, window=(1, 3),
            **cap),
        Job("fit-24gb-full", "fit", "finetune", {**short, "preset": FULL24}, window=(1, 3), **cap),
    ]  # fmt: skip


def kit_job() -> Job:
    """The kit's own preset, at what a 24 GB card leaves."""
    values = {**COMMON, "preset": "kit", "global_batch_size": 16, "max_steps": 3}
    return Job("kit", "kit", "finetune", values, cap_gib=23.0, window=(1, 2), timeout=330,
               threads=14)  # fmt: skip


def speed_jobs(card_gib: float) -> list[Job]:
    """`fastest` and the naive form of the same step, in full and with LoRA.

    Args:
        card_gib: Decides the micro-batch.
    """
    large = card_gib > 100
    jobs = []
    micro = 8 if large else 4
    for method in ("full", "lora"):
        values = {
            **COMMON, "preset": "fastest", "method": method, "micro_batch_size": micro,
            "global_batch_size": 4 * micro, "max_steps": 9, "image_workers": 10,
        }  # fmt: skip
        naive = {**values, **NAIVE, "compile": False,
                 "activation_checkpointing": False, "max_steps": 7}  # fmt: skip
        smaller = tuple(
            {"micro_batch_size": size, "global_batch_size": 4 * size}
            for size in (6, 4, 3)
            if size < micro
        )
        for name, parameters, window in (
            (f"fastest-{method}", values, (3, 6)),
            (f"naive-{method}", naive, (2, 5)),
        ):
            job = Job(name, "speed", "finetune", parameters, window=window, timeout=200)
            jobs.append(replace(job, threads=4, again=smaller))
    for method, optimizer in (("full", "adamw_bf16"), ("lora", "adamw")):
        values = {
            **COMMON, **NAIVE, "method": method, "optimizer": optimizer, "precision": "bf16",
            "micro_batch_size": 4, "global_batch_size": 16, "max_steps": 4,
        }  # fmt: skip
        jobs.append(Job(f"plain-{method}", "speed", "finetune", values, window=(1, 3)))
    return jobs


LEARN_STEPS = 162
REFERENCE = "learn-master"
START = "learn-start"


def learning_jobs() -> Iterator[Job]:
    """One start, then each way to keep and round numbers, over the same data in the same order."""
    base: dict[str, Any] = {
        "epochs": 10_000, "save_steps": 0, "stop_when_sick": False, "image_workers": 2,
        "micro_batch_size": 16, "global_batch_size": 32, "drop_path": False,
        "max_steps": LEARN_STEPS, "learning_rate": 2e-5,
    }  # fmt: skip
    start = {**base, "precision": "fp32", "learning_rate": 5e-4, "max_steps": 240}
    yield Job(START, "start", "finetune", start, Length(0, 0), save=True, timeout=200, slot="")
    for name, values in {
        REFERENCE: {"precision": "fp32_master", "optimizer": "adamw"},
        "learn-stochastic-8bit": {"preset": FULL24},
        "learn-stochastic-paged8": {"preset": FULL},
        "learn-bf16": {"precision": "bf16", "optimizer": "adamw"},
        "learn-fastest": {"preset": "fastest"},
        "learn-kit": {"preset": "kit"},
        "learn-lora": {"preset": LORA, "learning_rate": 2e-4, "lora_dropout": 0.0},
        "learn-lora-fp32": {"method": "lora", "precision": "fp32", "learning_rate": 2e-4,
                            "lora_dropout": 0.0},
        "learn-qlora": {"preset": QLORA, "learning_rate": 2e-4, "lora_dropout": 0.0},
        "learn-fp32": {"precision": "fp32", "optimizer": "adamw"},
        "learn-stochastic-adamw": {"precision": "bf16_stochastic", "optimizer": "adamw"},
        "learn-stochastic-adamw_bf16": {"precision": "bf16_stochastic", "optimizer": "adamw_bf16"},
        "learn-master-8bit": {"precision": "fp32_master", "optimizer": "adamw_8bit"},
    }.items():  # fmt: skip
        yield Job(name, "learn", "finetune", {**base, **values}, Length(0, 0), after=START,
                  timeout=420, slot="")  # fmt: skip


def check_jobs() -> list[Job]:
    """Resuming, and the forward pass of the reference's tiny model, on this device."""
    resume = {
        "epochs": 10_000, "save_steps": 0, "stop_when_sick": False, "image_workers": 2,
        "micro_batch_size": 16, "global_batch_size": 32, "max_steps": 24, "preset": FULL24,
    }  # fmt: skip
    return [
        Job("resume", "check", "finetune", resume, Length(0, 0), after=START, timeout=150),
        Job("oracle", "check", "", {}, Length(0, 0), timeout=120),
        *(
            Job(
                f"probe-{preset}",
                "check",
                "probe",
                {"preset": preset, "micro_batch_size": 4, "global_batch_size": 8},
            )
            for preset in (FULL, LORA, QLORA)
        ),
    ]


def all_jobs(card_gib: float) -> list[Job]:
    """Everything, the most valuable first."""
    speed, fit, learning = speed_jobs(card_gib), fit_jobs(), list(learning_jobs())
    memory, border, check = memory_jobs(), border_jobs(), check_jobs()
    healthy = healthy_jobs()
    *deaths, beside = death_jobs()
    return [
        beside,
        fit[0],
        *speed[:4],
        learning[0],
        kit_job(),
        *fit[1:],
        *memory[:14],
        *border,
        *learning[1:4],
        *memory[14:30],
        *learning[4:7],
        *memory[30:],
        *check,
        *deaths,
        *pair_jobs(),
        *speed[4:],
        *learning[7:],
        *healthy,
    ]
