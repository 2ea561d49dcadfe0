"""A launcher's process of a benchmark job: the stage's own worker, watched as `job.Watch` does."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from backend.stages import stage as stage_named
from backend.stages import training_worker
from tests.benchmarks.configurations import Job
from tests.benchmarks.gate import Gate
from tests.benchmarks.job import OBSERVED, WORKER_VARIABLE, Watch


def main() -> None:
    """Train, and leave what was observed beside the job."""
    folder = Path(os.environ[WORKER_VARIABLE])
    asked = json.loads((folder / "job.json").read_text())
    job = Job.from_dict(asked["job"])
    watch = Watch(job, Gate(Path(asked["gate"]) if asked["gate"] else None), folder)
    watch.install(import_module(stage_named(job.stage).module))
    run_to_end = training_worker.run_to_end

    def watched(context: Any, work: Any) -> Any:
        outcome = run_to_end(context, work)
        (folder / OBSERVED).write_text(json.dumps(watch.observations()))
        return outcome

    training_worker.run_to_end = watched
    training_worker.main()


if __name__ == "__main__":
    main()
