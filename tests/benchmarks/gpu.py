"""`python -m tests.benchmarks gpu`: everything that needs a device, inside a given time."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from backend.profiles import defaults
from backend.workspace import Workspace
from tests.benchmarks.configurations import START, Job, all_jobs
from tests.benchmarks.predictions import FILE as PREDICTIONS
from tests.benchmarks.schedule import Scheduler
from tests.benchmarks.texts import Length, tokenizer_of, write_samples

GIB = 2**30
SMALL = Length(120, 24)
"""What stands for every length in a dry run on a CPU."""
SAMPLES = 300
THUMBNAIL = 160
"""Pixels of the learner's pictures: its towers read 128."""
SMALL_NEED, LEARNER_NEED = 1.0, 4.0
KEPT_GROUPS = ("death", "healthy", "check")
MARGIN = 1.5
"""GiB of the device that stay free."""


def run(
    out: Path,
    data: Path | None,
    work: Path,
    *,
    seconds: float,
    tiny: bool = False,
    only: Sequence[str] = (),
    at_once: int = 6,
) -> int:
    """Measure everything and write `results.jsonl`, `logs.txt` and `environment.json`.

    Args:
        out: Where results go.
        data: Real pairs: `stage_1.json`, and `images` beside it or in `images.tar`; None takes the
            drawn ones of the starter.
        work: Scratch folder with room for 20 GB.
        seconds: Time for everything.
        tiny: A dry run with a tiny model, for a machine without a device.
        only: Groups or names to run; none is all.
        at_once: Processes at most.
    """
    deadline = time.time() + seconds
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    stage = Setup(data, work, tiny)
    environment = describe()
    (out / "environment.json").write_text(json.dumps(environment, indent=1))
    # What was foreseen goes with what is measured, so that no later prediction takes its place.
    shutil.copyfile(PREDICTIONS, out / PREDICTIONS.name)
    _say(deadline - seconds, f"{environment['device']}, {environment['free_gib']} GiB free")
    building = build_deepspeed(work)
    stage.prepare()
    _say(deadline - seconds, "models and texts are written")
    card = environment["total_gib"] or 80.0
    jobs = [stage.fit(job) for job in all_jobs(card)]
    if only:
        needed = {job.after for job in jobs if _chosen(job, only)}
        jobs = [job for job in jobs if _chosen(job, only) or job.name in needed]
    scheduler = Scheduler(
        jobs, out=out, work=work, deadline=deadline,
        room_gib=(environment["free_gib"] or 1e6) - MARGIN,
        needs=_needs(tiny), inputs=stage.inputs, at_once=at_once,
    )  # fmt: skip
    ended = scheduler.run()
    if building is not None and building.poll() is None:
        building.kill()
    keep_runs(out, work)
    states = sorted(set(ended.values()))
    counts = ", ".join(f"{list(ended.values()).count(state)} {state}" for state in states)
    _say(deadline - seconds, f"ended: {counts}; {len(jobs) - len(ended)} not run")
    return 0


def _chosen(job: Job, only: Sequence[str]) -> bool:
    return job.group in only or job.name in only


def _say(began: float, text: str) -> None:
    print(f"{time.time() - began:6.1f} s  {text}", flush=True)


def _needs(tiny: bool) -> Callable[[Job], float]:
    """GiB that a job will take, states in pageable memory counted in."""
    from backend.memory.costs import optimizer_bytes
    from backend.memory.shapes import MGM_2B
    from tests.benchmarks.predictions import predict_job, settings_of_job

    def needs(job: Job) -> float:
        if tiny or not job.length.positions:
            return SMALL_NEED if tiny or job.name == "oracle" else LEARNER_NEED
        _, pageable = optimizer_bytes(MGM_2B, settings_of_job(job))
        return (predict_job(job).peak_reserved + pageable) / GIB

    return needs


def describe() -> dict[str, Any]:
    """Device, driver and versions."""
    import torch

    free = total = None
    name = "CPU"
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
    packages = ("torch", "transformers", "peft", "accelerate", "deepspeed", "bitsandbytes",
                "numpy", "safetensors", "tokenizers", "triton", "pydantic", "flash-attn",
                "liger-kernel")  # fmt: skip
    return {
        "device": name,
        "total_gib": None if total is None else total / GIB,
        "free_gib": None if free is None else round(free / GIB, 2),
        "driver": _output(["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.sm",
                           "--format=csv,noheader"]),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "host_memory": _output(["free", "-g"]),
        "commit": _output(["git", "rev-parse", "HEAD"]),
        "versions": {package: _version(package) for package in packages},
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }  # fmt: skip


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def build_deepspeed(work: Path) -> subprocess.Popen[bytes] | None:
    """Compile DeepSpeed's AdamW for the host beside everything else."""
    import torch

    if not torch.cuda.is_available():
        return None
    code = "from deepspeed.ops.op_builder import CPUAdamBuilder as B; B().load(verbose=False)"
    with (work / "deepspeed-build.txt").open("w") as log:
        return subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log)


class Setup:
    """Models, pictures and texts of the jobs.

    Args:
        data: See `run`.
        work: Scratch folder.
        tiny: A tiny model instead of the kit's.
    """

    def __init__(self, data: Path | None, work: Path, tiny: bool) -> None:
        self.data, self.work, self.tiny = data, work, tiny
        self.files: dict[str, Path] = {}

    def _pairs(self, starter: Future[tuple[Workspace, dict[str, str]]]) -> None:
        """Records in LLaVA's form, and the folder that their pictures are named from."""
        if self.data is None:
            _, prepared = starter.result()
            file, self.pictures = Path(prepared["data"]), Path(prepared["image_root"])
        else:
            file = self.data / "stage_1.json"
            unpacked = (self.data / "images").is_dir()
            self.pictures = self.data if unpacked else self.work / "pictures"
            if not unpacked:
                with tarfile.open(self.data / "images.tar") as tar:
                    tar.extractall(self.pictures, filter="data")
        self.records: list[dict[str, Any]] = json.loads(file.read_text())[:SAMPLES]

    def prepare(self) -> None:
        """Write models and pictures; texts are written when a job asks for them."""
        import torch

        from tests.benchmarks.model_files import MGM_2B, TINY, write_workspace

        with ThreadPoolExecutor(4) as pool:
            starter = pool.submit(self._starter)
            smaller = pool.submit(self._thumbnails, starter)
            learner = pool.submit(self._learner)
            self.sizes = TINY if self.tiny else MGM_2B
            self.workspace = write_workspace(self.work / "model", self.sizes)
            self.learner_assets = learner.result()
            smaller.result()
        self.starter = starter
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.tokenize = tokenizer_of(self.workspace.asset("llm"))
        self.samples(SMALL if self.tiny else Length(1024, 200))

    def fit(self, job: Job) -> Job:
        """The job for this machine; short texts in a dry run."""
        if not self.tiny:
            return job
        parameters = dict(job.parameters)
        if job.group == "healthy":
            parameters["max_steps"] = 6
        if "max_steps" in parameters:
            parameters["max_steps"] = min(6, parameters["max_steps"])
        if parameters.get("image_size_aux"):
            parameters["image_size_aux"] = 256
        if "global_batch_size" in parameters:
            micro = min(4, parameters.get("micro_batch_size", 4))
            if not job.length.positions:
                parameters["micro_batch_size"] = micro
            whole = 2 * parameters.get("micro_batch_size", 4)
            parameters["global_batch_size"] = min(whole, parameters["global_batch_size"])
        short = replace(SMALL, pictures=job.length.pictures) if job.length.positions else job.length
        window = (1, 2) if job.window else None
        return replace(job, parameters=parameters, length=short, window=window)

    def inputs(self, job: Job) -> tuple[Path, dict[str, Any]]:
        """Workspace of a job, and the parameters that name its data."""
        if job.length.positions:
            file = self.samples(job.length)
            return self.workspace.root, {"data": str(file), "image_root": str(self.pictures)}
        if job.name == "oracle":
            return self.workspace.root, {}
        if job.group == "healthy":
            return self.work / "starter", self._as_users_start(job)
        data = {"data": str(self.work / "thumbnails" / "train.json")}
        data["image_root"] = str(self.work / "thumbnails")
        if job.name == START:
            return self._learner_workspace("start", self.learner_assets), data
        folder, projector = self._started()
        root = self._learner_workspace("learn", {**self.learner_assets, "llm": str(folder)})
        return root, {**data, "projector": str(projector)}

    def _as_users_start(self, job: Job) -> dict[str, Any]:
        """What the starter's profile sets of a stage and the job does not, and its data."""
        workspace, prepared = self.starter.result()
        values = {**defaults(workspace, job.stage), **job.parameters}
        if job.stage == "pretrain":
            return values | prepared
        [pretrained] = workspace.runs.glob(f"*{job.after}")
        return values | {"projector": str(pretrained / "artifacts" / "mm_projector.bin")}

    def samples(self, length: Length) -> Path:
        """The file of samples of this length."""
        if length.name not in self.files:
            path = self.work / "texts" / f"{length.name}.json"
            write_samples(
                path, self.records, length, self.tokenize,
                image_tokens=self._image_tokens(length), count=SAMPLES,
            )  # fmt: skip
            self.files[length.name] = path
        return self.files[length.name]

    def _image_tokens(self, length: Length) -> int:
        # More positions than a plain picture and a text can have are those of the HD variant.
        views = 5 if length.positions > 2880 else 1
        return self.sizes.tokens_per_image * views

    def _thumbnails(self, starter: Future[tuple[Workspace, dict[str, str]]]) -> None:
        from PIL import Image

        self._pairs(starter)
        folder = self.work / "thumbnails"
        kept = []
        for record in self.records:
            target = folder / record["image"]
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(self.pictures / record["image"]) as picture:
                small = picture.convert("RGB")
                small.thumbnail((THUMBNAIL, THUMBNAIL))
                small.save(target, quality=95)
            kept.append(record)
        (folder / "train.json").write_text(json.dumps(kept))

    def _starter(self) -> tuple[Workspace, dict[str, str]]:
        """The workspace that new users get, and its prepared pairs as parameters of pretraining."""
        from backend.stages import prepare
        from backend.stages.base import StageContext
        from backend.starter.create import create_starter
        from backend.synthesis.datasets import describe
        from tests.benchmarks.job import create_run

        workspace = create_starter(self.work / "starter")
        parameters = prepare.Parameters.model_validate(defaults(workspace, "prepare"))
        run = create_run(workspace, Job("prepare", "healthy", "prepare", {}), {})
        prepare.main(StageContext(workspace, run), parameters)
        root = describe(workspace, parameters.dataset).image_root
        return workspace, {"data": str(run.artifacts / "train.json"), "image_root": root}

    def _learner(self) -> dict[str, str]:
        """A language model that knows nothing, beside the starter's towers."""
        from tests.benchmarks.learner import write_learner
        from tests.benchmarks.model_files import LEARNER, LEARNER_TINY, STARTER

        folder = self.work / "learner"
        write_learner(folder, LEARNER_TINY if self.tiny else LEARNER)
        towers = {name: str(STARTER / name) for name in ("vision_tower", "vision_tower_aux")}
        return {"llm": str(folder), **towers}

    def _learner_workspace(self, name: str, assets: dict[str, str]) -> Path:
        from backend.workspace import Settings, Workspace

        root = self.work / f"workspace-{name}"
        if not root.exists():
            Workspace.create(root, Settings(name=name, profile="starter", assets=assets))
        return root

    def _started(self) -> tuple[Path, Path]:
        """The language model and the projector that the first training left."""
        from tests.benchmarks.learner import split_checkpoint

        folder = self.work / "started"
        if not folder.exists():
            runs = sorted((self.work / "workspace-start" / "runs").glob(f"*{START}"))
            split_checkpoint(runs[-1] / "artifacts", Path(self.learner_assets["llm"]), folder)
        return folder, folder / "mm_projector.bin"


def keep_runs(out: Path, work: Path) -> None:
    """Run folders of jobs that failed or whose files are data, logs in them, without weights."""
    with tarfile.open(out / "runs.tar.gz", "w:gz") as tar:
        for line in (out / "results.jsonl").read_text().splitlines():
            result = json.loads(line)
            if "run" not in result:
                continue
            if result["group"] not in KEPT_GROUPS and result["state"] not in ("oom", "error"):
                continue
            folder = Path(result["run"])
            log = work / "jobs" / f"{result['name']}-{result['try']}" / "log.txt"
            if log.is_file():
                shutil.copyfile(log, folder / "output.log")
            files = [*folder.glob("*"), *folder.glob("artifacts/*.json"), *folder.glob("batches/*")]
            for path in sorted(files):
                if path.is_file() and path.stat().st_size < 1 << 20:
                    tar.add(path, f"{result['name']}/{path.relative_to(folder)}")
