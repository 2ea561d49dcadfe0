"""One configuration, trained by the real stage in a process of its own.

`python -m tests.benchmarks.job JOB.json RESULT.json`: the job as `configurations.Job` writes it,
with the workspace and the gate's folder beside it; the result is one JSON object.
"""

from __future__ import annotations

import time

STARTED = time.time()

import json  # noqa: E402
import os  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import ExitStack, contextmanager, suppress  # noqa: E402
from importlib import import_module  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from tests.benchmarks.configurations import Job  # noqa: E402
from tests.benchmarks.gate import Gate  # noqa: E402

GIB = 2**30
PARTIAL, OBSERVED = "partial.json", "observed.json"
WORKER_VARIABLE = "SYNTHLOOP_BENCHMARK_JOB"
"""Tells a launcher's process where its job lies."""
COMPILING = 5
"""Calls of the engine in which layers may be compiled, where all texts have one length."""
PARTIAL_EVERY = 5.0
"""Seconds between two looks at what a long job has so far."""


def main(job_file: Path, result_file: Path) -> int:
    """Run a job; its result says how it ended, so the exit code only tells whether there is one."""
    asked = json.loads(job_file.read_text())
    job = Job.from_dict(asked["job"])
    result: dict[str, Any] = {"name": job.name, "group": job.group, "state": "error"}
    host = HostMemory()
    try:
        import torch

        torch.set_num_threads(job.threads)
        result["imported_s"] = time.time() - STARTED
        gate = Gate(Path(asked["gate"]) if asked["gate"] else None)
        if job.name == "oracle":
            from tests.benchmarks.device_checks import oracle

            result |= oracle(gate)
        elif job.name == "resume":
            from tests.benchmarks.device_checks import resume

            result |= resume(job, Path(asked["workspace"]), asked["data"], gate)
        else:
            result |= train(asked, result_file.parent)
    except BaseException as error:
        traceback.print_exc()
        result["error"] = f"{type(error).__name__}: {error}"[:2000]
    own = host.close()
    result.setdefault("host", own)
    result["total_s"] = time.time() - STARTED
    scratch = result_file.with_suffix(".part")
    scratch.write_text(json.dumps(result))
    scratch.replace(result_file)
    sys.stdout.flush()
    sys.stderr.flush()
    # Whatever threads a library left behind must not hold the device any longer.
    os._exit(0)


def train(asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The stage from `stage_main`, watched: peaks, times, and the outcome it wrote of itself."""
    import torch

    from backend.files import read_lines
    from backend.stages import stage as stage_named
    from backend.stages.base import stage_main
    from backend.training import launching
    from backend.workspace import Workspace

    job = Job.from_dict(asked["job"])
    run = create_run(Workspace.open(Path(asked["workspace"])), job, asked["data"])
    module = import_module(stage_named(job.stage).module)
    parameters = module.Parameters.model_validate(run.spec.parameters)
    observed: dict[str, Any] = {}
    with another_process(job.leave_gib):
        if parameters.launched:
            # What trains is a process of the launcher's: it watches itself.
            launching.WORKER = "tests.benchmarks.worker"
            os.environ[WORKER_VARIABLE] = str(folder)
            _run_stage(stage_main, module, run)
            file = folder / OBSERVED
            if file.is_file():
                observed = json.loads(file.read_text())
        else:
            watch = Watch(job, Gate(Path(asked["gate"]) if asked["gate"] else None), folder)
            watch.install(module)
            _run_stage(stage_main, module, run)
            observed = watch.observations()
    outcome = json.loads((run.path / "outcome.json").read_text())
    steps = list(read_lines(run.metrics_path)) if run.metrics_path.exists() else []
    events = list(read_lines(run.events_path)) if run.events_path.exists() else []
    told = {
        name: json.loads(file.read_text())
        for name in ("memory", "probe", "findings")
        if (file := run.artifacts / f"{name}.json").is_file()
    }
    return {
        "state": _state(outcome),
        "told": told,
        "outcome": outcome,
        "run": str(run.path),
        "parameters": parameters.model_dump(mode="json"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "losses": [step.get("loss") for step in steps],
        "norms": [step.get("grad_norm") for step in steps],
        "step_peaks": [step.get("memory_allocated_peak") for step in steps],
        "samples_per_second": [step.get("samples_per_second") for step in steps],
        "events": [event for event in events if event.get("level") != "info"][:10],
        "artifacts": sorted(path.name for path in run.artifacts.iterdir()),
        **observed,
    }


@contextmanager
def another_process(leave_gib: float | None) -> Iterator[None]:
    """Somebody else on the device, who leaves this much of it; None is nobody."""
    if leave_gib is None:
        yield
        return
    code = (
        "import sys, torch; free, _ = torch.cuda.mem_get_info(); "
        f"held = torch.empty(free - int({leave_gib} * 2**30), dtype=torch.uint8, device='cuda'); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        if process.stdout.readline() != "held\n":
            raise RuntimeError("the other process could not take the device's memory")
        try:
            yield
        finally:
            process.stdin.close()


def _run_stage(stage_main: Any, module: Any, run: Any) -> None:
    """As `python -m` would; its exit is an exception here."""
    sys.argv = ["stage", str(run.path)]
    with suppress(SystemExit):
        stage_main(module.Parameters, module.main)


def create_run(workspace: Any, job: Job, data: dict[str, str]) -> Any:
    """A run that waits to be trained."""
    from backend.files import write_json
    from backend.runs import Run, RunSpec, RunStatus, State, new_run_id

    spec = RunSpec(
        run_id=f"{new_run_id(job.stage)}-{job.name}", stage=job.stage,
        parameters={**job.parameters, **data}, argv=[], created_at=time.time(), device=None,
        name=job.name,
    )  # fmt: skip
    run = Run.create(workspace, spec)
    status = RunStatus(state=State.RUNNING)
    write_json(run.status_path, status.model_dump(mode="json", exclude={"supervised"}))
    return run


def _state(outcome: dict[str, Any]) -> str:
    """done, oom, or error; a run that was judged not to learn did run."""
    if outcome["state"] == "succeeded":
        return "done"
    code = outcome["reason"]["code"]
    if code == "did_not_learn":
        return "done"
    told = json.dumps(outcome["reason"]).lower()
    return "oom" if code == "device_memory" or "out of memory" in told else "error"


class Watch:
    """Stands beside the trainer: peaks of every phase, the gate, and the clock.

    The trainer starts its peaks anew at each step; what they were before is kept here.
    """

    def __init__(self, job: Job, gate: Gate, folder: Path) -> None:
        self.job, self.gate, self.partial = job, gate, folder / PARTIAL
        self.host = HostMemory()
        self.written = time.time()
        self.phase = "build"
        self.phases: dict[str, dict[str, float | None]] = {}
        self.since = time.time()
        self.speed: dict[str, float] | None = None
        self.steps = 0
        self.alone: ExitStack | None = None
        self.began = 0.0

    def install(self, stage: Any) -> None:
        """Cap the device, and wrap the trainer's methods, in this process alone.

        Args:
            stage: Module of the stage; it writes no result unless the job says so.
        """
        import torch

        if not self.job.save:
            stage.save = lambda folder, mgm, weights: None
        if self.job.cap_gib and torch.cuda.is_available():
            total = torch.cuda.mem_get_info()[1]
            torch.cuda.set_per_process_memory_fraction(min(1.0, self.job.cap_gib * GIB / total))

        from backend.mgm.assembly import Filler
        from backend.training import trainer as training
        from backend.training.trainer import Trainer

        watch = self
        if torch.cuda.is_available():
            reset = torch.cuda.reset_peak_memory_stats

            def keep_and_reset(*arguments: Any, **options: Any) -> None:
                watch.note()
                reset(*arguments, **options)

            torch.cuda.reset_peak_memory_stats = keep_and_reset
        build, one_step, fill = Trainer.__init__, Trainer._one_step, Filler.fill
        choose_layout = training.choose_layout

        def fill_between_others(filler: Any, weights: Any, **options: Any) -> None:
            def one_by_one() -> Iterator[Any]:
                for item in weights:
                    watch.gate.pass_by()
                    yield item

            fill(filler, one_by_one(), **options)

        def choose_beside_others(*arguments: Any, **options: Any) -> Any:
            with watch.gate.shared():
                return choose_layout(*arguments, **options)

        def build_and_watch(trainer: Any, *arguments: Any, **options: Any) -> None:
            build(trainer, *arguments, **options)
            _finish_device_work()
            watch.enter("steps")
            compiling = trainer.parameters.compile
            watch.hold_back(trainer.engine, compiling)

        def timed_step(trainer: Any, *arguments: Any, **options: Any) -> Any:
            watch.before_step()
            answer = one_step(trainer, *arguments, **options)
            watch.after_step(trainer.parameters.global_batch_size)
            return answer

        Trainer.__init__, Trainer._one_step = build_and_watch, timed_step
        Filler.fill, training.choose_layout = fill_between_others, choose_beside_others

    def hold_back(self, engine: Any, compiling: bool) -> None:
        """Let others be alone between two micro-batches.

        Who compiles holds nothing meanwhile: minutes of the processor would stop the device.
        """
        free = 0
        if compiling:
            free = COMPILING if self.job.length.positions else sys.maxsize

        for name in ("micro_batch", "step"):
            inner = getattr(engine, name)

            def beside_others(*arguments: Any, inner: Any = inner, **options: Any) -> Any:
                nonlocal free
                if self.alone is not None:
                    return inner(*arguments, **options)
                if free:
                    free -= 1
                    self.gate.pass_by()
                    return inner(*arguments, **options)
                with self.gate.shared(self.job.slot):
                    answer = inner(*arguments, **options)
                    _finish_device_work()
                return answer

            setattr(engine, name, beside_others)

    def before_step(self) -> None:
        """Be alone from the window's first step on."""
        if not self.job.window:
            return
        first, _ = self.job.window
        if self.steps == first:
            self.alone = ExitStack()
            self.alone.enter_context(self.gate.alone())
            _finish_device_work()
            self.began = time.perf_counter()

    def after_step(self, samples: int) -> None:
        """Stop the clock and let the others in."""
        self.steps += 1
        self._write_partial()
        if not self.job.window or self.alone is None:
            return
        first, count = self.job.window
        if self.steps >= first + count:
            _finish_device_work()
            seconds = time.perf_counter() - self.began
            self.speed = {
                "samples": samples * count,
                "seconds": seconds,
                "samples_per_second": samples * count / seconds,
            }
            self.alone.close()
            self.alone = None

    def _write_partial(self) -> None:
        """What is known so far, for the case that time runs out."""
        if time.time() - self.written < PARTIAL_EVERY:
            return
        self.written = time.time()
        self.note()
        known = {"peak": self.peaks(), "phases": self.phases, "speed": self.speed}
        known |= {"steps": self.steps, "waited_s": self.gate.waited, "host": self.host.most}
        known |= {"paged_bytes": _paged_bytes()}
        self.partial.write_text(json.dumps(known))

    def enter(self, phase: str) -> None:
        """The next phase begins."""
        self.note()
        self.phase = phase
        self.since = time.time()

    def note(self) -> None:
        """Keep this phase's peaks and its time so far."""
        import torch

        kept = self.phases.setdefault(self.phase, {"allocated": None, "reserved": None})
        kept["seconds"] = time.time() - self.since
        if torch.cuda.is_available():
            kept["allocated"] = max(kept["allocated"] or 0, torch.cuda.max_memory_allocated())
            kept["reserved"] = max(kept["reserved"] or 0, torch.cuda.max_memory_reserved())

    def close(self) -> None:
        """The end, however it came."""
        self.note()
        if self.alone is not None:
            self.alone.close()
            self.alone = None

    def observations(self) -> dict[str, Any]:
        """Everything seen, at the end."""
        import torch

        self.close()
        cuda = torch.cuda.is_available()
        return {
            "peak": self.peaks(),
            "phases": self.phases,
            "waited_s": self.gate.waited,
            "speed": self.speed,
            "host": self.host.close(),
            "device_used": _used_by_this_process() if cuda else None,
            "device_reserved": torch.cuda.memory_reserved() if cuda else None,
            "paged_bytes": _paged_bytes(),
            "pinned": _pinned() if cuda else None,
        }

    def peaks(self) -> dict[str, float | None]:
        """The highest of all phases, bytes."""
        values = self.phases.values()
        return {
            name: max((value[name] or 0 for value in values), default=0) or None
            for name in ("allocated", "reserved")
        }


def _finish_device_work() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


class HostMemory:
    """Samples this process tree's main memory ten times a second; bytes."""

    def __init__(self) -> None:
        self.most = {"rss": 0, "anonymous": 0, "shared": 0, "file": 0}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while not self.ended.wait(0.1):
            self.sample()

    def sample(self) -> None:
        """One look at `/proc`."""
        names = {"VmRSS": "rss", "RssAnon": "anonymous", "RssShmem": "shared", "RssFile": "file"}
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
        except OSError:
            return
        for line in lines:
            key, _, value = line.partition(":")
            if key in names:
                size = int(value.split()[0]) * 1024
                self.most[names[key]] = max(self.most[names[key]], size)

    def close(self) -> dict[str, int]:
        """The highest values seen."""
        self.ended.set()
        self.sample()
        return self.most


def _used_by_this_process() -> int | None:
    """Device memory as the driver counts it, context included; None where it does not tell."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
            if process.pid == os.getpid() and process.usedGpuMemory:
                return int(process.usedGpuMemory)
    except Exception as error:
        print(f"the driver does not tell what this process uses: {error}", flush=True)
    return None


def _paged_bytes() -> int | None:
    """Managed memory of paged optimizer states; torch's allocator does not count it."""
    module = sys.modules.get("bitsandbytes.functional")
    if module is None:
        return None
    try:
        manager = module.GlobalPageManager.get_instance()
        return sum(int(tensor.nbytes) for tensor in manager.paged_tensors)
    except Exception as error:
        print(f"paged memory is not known: {error}", flush=True)
        return None


def _pinned() -> dict[str, int] | None:
    """Host memory that torch pinned."""
    import torch

    try:
        stats = torch.cuda.host_memory_stats()
        return {key: int(value) for key, value in stats.items() if key.endswith("bytes.peak")}
    except Exception as error:
        print(f"pinned memory is not known: {error}", flush=True)
        return None


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
