"""The scheduler runs what fits, tries smaller when memory did not do, and loses nothing."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.configurations import Job
from tests.benchmarks.schedule import Scheduler

PROGRAM = """
import json, sys, time
from pathlib import Path
job = json.loads(Path(sys.argv[1]).read_text())["job"]
parameters, started = job["parameters"], time.time()
Path(sys.argv[1]).with_name("partial.json").write_text(json.dumps({"steps": 3}))
time.sleep(parameters.get("seconds", 0.05))
if parameters.get("crash"):
    sys.exit("no result is left")
state = "oom" if parameters.get("micro", 1) > 2 else "done"
result = {"state": state, "span": [started, time.time()], "micro": parameters.get("micro")}
Path(sys.argv[2]).write_text(json.dumps(result))
"""


def job(name: str, group: str = "memory", **more: Any) -> Job:
    parameters = {key: more.pop(key) for key in ("seconds", "micro", "crash") if key in more}
    return Job(name, group, "finetune", parameters, **more)  # type: ignore[arg-type]


def run(tmp_path: Path, *jobs: Job, seconds: float = 20, room: float = 100, need: float = 10):
    out = tmp_path / "out"
    out.mkdir()
    scheduler = Scheduler(
        jobs, out=out, work=tmp_path / "work", deadline=time.time() + seconds + 8, room_gib=room,
        needs=lambda _: need, inputs=lambda _: (tmp_path, {}),
        program=(sys.executable, "-c", PROGRAM),
    )  # fmt: skip
    ended = scheduler.run()
    return ended, [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_what_needs_too_much_is_tried_again_with_less(tmp_path: Path):
    ended, results = run(tmp_path, job("large", micro=4, again=({"micro": 3}, {"micro": 2})))
    assert ended == {"large": "done"}
    assert [(result["state"], result["micro"]) for result in results] == [
        ("oom", 4), ("oom", 3), ("done", 2),
    ]  # fmt: skip


def test_who_has_no_cap_gets_one_more_chance_with_more_room(tmp_path: Path):
    _, results = run(tmp_path, job("free", micro=4), job("capped", micro=4, cap_gib=8.0))
    assert sorted((result["name"], result["try"]) for result in results) == [
        ("capped", 0), ("free", 0), ("free", 1),
    ]  # fmt: skip


def test_no_more_run_at_once_than_the_device_holds(tmp_path: Path):
    jobs = [job(str(number), seconds=0.4) for number in range(4)]
    _, results = run(tmp_path, *jobs, room=24, need=10)
    spans = [result["span"] for result in results]
    for start, _ in spans:
        assert sum(a <= start < b for a, b in spans) <= 2


def test_a_job_waits_for_the_one_it_stands_on_and_not_in_vain(tmp_path: Path):
    good, bad = job("good", seconds=0.3), job("bad", crash=True)
    ended, results = run(tmp_path, job("a", after="good"), job("b", after="bad"), good, bad)
    assert ended["a"] == "done"
    by_name = {result["name"]: result for result in results}
    assert by_name["a"]["span"][0] >= by_name["good"]["span"][1]
    assert by_name["b"]["state"] == "not_possible"
    assert by_name["bad"]["state"] == "died"


def test_the_deadline_keeps_what_is_known(tmp_path: Path):
    ended, results = run(tmp_path, job("long", seconds=60), job("never", after="long"), seconds=0.5)
    assert ended == {"long": "deadline"}
    long, never = results
    assert (long["state"], long["steps"]) == ("deadline", 3)
    assert never["state"] == "not_started"


def test_a_job_that_hangs_is_ended(tmp_path: Path):
    ended, _ = run(tmp_path, job("stuck", seconds=60, timeout=1), job("other"))
    assert ended == {"other": "done", "stuck": "timeout"}
