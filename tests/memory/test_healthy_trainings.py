"""Twenty whole trainings of the starter, recorded as they ran: nothing may be found wrong.

Made by `python -m tests.benchmarks gpu --only healthy`: pretraining with seven seeds, and
fine-tuning with adapters, with all weights, in several precisions, with several schedules.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from backend.memory.health import judge
from tests.benchmarks.configurations import healthy_jobs
from tests.benchmarks.recorded import healthy_runs

VOCABULARY = 1279
RUNS = healthy_runs()


def rows(run: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for values in zip(*run["columns"].values(), strict=True):
        yield dict(zip(run["columns"], values, strict=True))


def codes(name: str, **change: Any) -> list[str]:
    run = RUNS[name]
    measured = [row | {key: value(row[key]) for key, value in change.items()} for row in rows(run)]
    found = judge(
        measured, vocabulary_size=VOCABULARY, samples=run["samples"],
        samples_without_labels=run["without_labels"], order=[str(one) for one in run["order"]],
    )  # fmt: skip
    return [finding.code for finding in found]


def test_there_are_twenty_whole_runs():
    assert RUNS.keys() == {job.name for job in healthy_jobs()}
    assert len(RUNS) == 20
    assert all(len(run["order"]) == run["samples"] > 3000 for run in RUNS.values())
    assert min(len(run["columns"]["step"]) for run in RUNS.values()) == 248


@pytest.mark.parametrize("name", RUNS)
def test_a_healthy_training_raises_no_alarm(name: str):
    assert codes(name) == []


@pytest.mark.parametrize("name", RUNS)
def test_the_same_training_with_losses_of_1e11_is_sick(name: str):
    assert set(codes(name, loss=lambda loss: 1e11 * loss)) & {"loss_above_chance", "loss_exploded"}


@pytest.mark.parametrize("name", RUNS)
def test_the_same_training_without_gradients_is_sick(name: str):
    still = {"grad_norm": lambda _: 0.0, "loss": lambda loss: 3.0 + 1e-3 * loss}
    assert "gradients_zero" in codes(name, **still)
