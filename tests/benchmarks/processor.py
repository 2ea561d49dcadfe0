"""Measurements that need no device, each beside its alternative in the same run."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

REPEATS = 5
POINTS, BUDGET, SPIKES, SEEDS = 1_000_000, 2_000, 25, 5
SPIKE = 10.0
"""Value above which a point shows a spike."""
ROWS = 5_000
ORACLES = Path(__file__).parents[1] / "data" / "oracles"


def tables() -> str:
    """Everything, as Markdown."""
    parts = [
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, "
        f"medians.",
        "### The page's process",
        _page(),
        f"### A curve of {POINTS:,} points with {SPIKES} spikes in {BUDGET:,}",
        _curves(),
        "### Predicting memory",
        _predicting(),
        f"### Scoring {ROWS:,} TextVQA answers",
        _scoring(),
    ]
    return "\n\n".join(parts) + "\n"


def _page() -> str:
    from backend.workspace import Settings, Workspace

    lines = []
    with tempfile.TemporaryDirectory() as folder:
        Workspace.create(Path(folder) / "space", Settings(name="bench"))
        for name, modules in (
            ("SynthLoop", []),
            ("the same, with torch and transformers in the process", ["torch", "transformers"]),
        ):
            runs = [page_once(f"{folder}/space", modules) for _ in range(3)]
            seconds = statistics.median(run["seconds"] for run in runs)
            size = statistics.median(run["megabytes"] for run in runs)
            every = statistics.median(run["megabytes_of_all"] for run in runs)
            heavy = ", ".join(runs[0]["heavy"]) or "none"
            lines.append([name, f"{seconds:.2f}", f"{size:.0f}", f"{every:.0f}", heavy])
    heads = ("overview drawn in a fresh process", "s", "MB", "MB after every page", "heavy modules")
    return _table(heads, lines)


def page_once(workspace: str, modules: Sequence[str] = ()) -> dict[str, Any]:
    """What `page_process` measured."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.page_process", workspace, *modules],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if told["errors"]:
        raise RuntimeError(f"the page raised {told['errors']}")
    return told


def _curves() -> str:
    from backend.reducing import reduce_curve

    def stride(x: Any, y: Any, _: Any) -> tuple[Any, Any]:
        step = -(-len(x) // BUDGET)
        return x[::step], y[::step]

    def reservoir(x: Any, y: Any, draw: Any) -> tuple[Any, Any]:
        chosen = np.sort(draw.choice(len(x), BUDGET, replace=False))
        return x[chosen], y[chosen]

    ways: dict[str, Callable[..., tuple[Any, Any]]] = {
        "SynthLoop (lowest and highest of each bucket)": lambda x, y, _: reduce_curve(x, y, BUDGET),
        "every n-th point": stride,
        "a random sample, as TensorBoard keeps": reservoir,
    }
    lines = []
    for name, way in ways.items():
        found, seconds = 0, []
        for seed in range(SEEDS):
            draw = np.random.default_rng(seed)
            x = np.arange(POINTS, dtype=np.float64)
            y = 2 + 3 * np.exp(-x / 2e5) + draw.normal(0, 0.05, POINTS)
            places = draw.choice(POINTS, SPIKES, replace=False)
            y[places] += 20
            started = time.perf_counter()
            kept, values = way(x, y, draw)
            seconds.append(time.perf_counter() - started)
            high = kept[values > SPIKE]
            # Two spikes within what one pair of points stands for are one on the screen.
            found += sum(bool((abs(high - place) <= 2 * POINTS / BUDGET).any()) for place in places)
        recall = 100 * found / (SPIKES * SEEDS)
        lines.append([name, f"{recall:.0f} %", f"{1000 * statistics.median(seconds):.1f}"])
    return _table(("way", "spikes kept", "ms"), lines)


def _predicting() -> str:
    from backend.memory.fit import LEVERS, fit
    from backend.memory.parts import GIB
    from backend.memory.predict import predict
    from backend.memory.settings import MemorySettings
    from backend.memory.shapes import MGM_2B

    settings = MemorySettings()
    code = (
        "import time; started = time.perf_counter()\n"
        "from backend.memory.predict import predict\n"
        "from backend.memory.settings import MemorySettings\n"
        "from backend.memory.shapes import MGM_2B\n"
        "predict(MGM_2B, MemorySettings()); print(time.perf_counter() - started)"
    )
    meta = (
        "import time; started = time.perf_counter()\n"
        "from accelerate.utils.modeling import calculate_maximum_sizes\n"
        "from transformers import CLIPVisionConfig\n"
        "from backend.mgm.assembly import empty_model\n"
        "from backend.mgm.configuration import MGMConfig\n"
        "from tests.benchmarks.model_files import MGM_2B\n"
        "config = MGMConfig(**MGM_2B.language, hidden_act='gelu')\n"
        "config.set_towers(CLIPVisionConfig(**MGM_2B.clip), MGM_2B.convnext)\n"
        "calculate_maximum_sizes(empty_model(config)); print(time.perf_counter() - started)"
    )
    lines = [
        ["SynthLoop, first prediction of a process", f"{1000 * _fresh(code):.0f}"],
        ["SynthLoop, every further one", f"{1000 * _timed(lambda: predict(MGM_2B, settings)):.2f}"],
        [
            "SynthLoop, the search for what fits 24 GB",
            f"{1000 * _timed(lambda: fit(MGM_2B, settings, 24 * GIB, LEVERS)):.0f}",
        ],
        ["accelerate's estimator on the empty model (weights only)", f"{1000 * _fresh(meta):.0f}"],
    ]
    return _table(("what", "ms"), lines)


def _scoring() -> str:
    from backend.evaluation.textvqa import Reference, normalize

    cases = json.loads((ORACLES / "textvqa.json").read_text())["cases"]
    asked = [cases[index % len(cases)] for index in range(ROWS)]

    def ours() -> list[float]:
        return [Reference(tuple(case["gt_answers"])).score(case["pred_answer"]) for case in asked]

    def direct() -> list[float]:
        scores = []
        for case in asked:
            truths = [normalize(answer) for answer in case["gt_answers"]]
            said = normalize(case["pred_answer"])
            shares = []
            for left_out in range(len(truths)):
                others = truths[:left_out] + truths[left_out + 1 :]
                shares.append(min(1, sum(other == said for other in others) / 3))
            scores.append(sum(shares) / len(shares))
        return scores

    right = [case["score"] for case in asked]
    lines = []
    ways = {"SynthLoop": ours, "ten times leaving one out, as defined": direct}
    # In turns and in time of this process alone: what else the machine does counts for neither.
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            started = time.process_time()
            way()
            seconds[name].append(time.process_time() - started)
    for name, way in ways.items():
        differing = sum(abs(a - b) > 1e-12 for a, b in zip(way(), right, strict=True))
        lines.append([name, f"{ROWS / statistics.median(seconds[name]):,.0f}", str(differing)])
    return _table(("way", "answers/s", "rows that differ from the original's"), lines)


def _timed(work: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _fresh(code: str) -> float:
    """Seconds that a new process prints."""
    seconds = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
        )
        seconds.append(float(done.stdout.splitlines()[-1]))
    return statistics.median(seconds)


def _table(head: tuple[str, ...], lines: list[list[str]]) -> str:
    from tests.benchmarks.render import table

    return table(head, lines)
