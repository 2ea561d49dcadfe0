"""Learning rates are those of transformers' schedules."""

from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler

from backend.training.schedule import learning_rate, warmup_steps


@pytest.mark.parametrize("scheduler", ["cosine", "linear", "constant"])
@pytest.mark.parametrize(("total", "ratio"), [(781, 0.03), (93, 0.03), (7, 0.0), (1, 0.5)])
def test_every_step_has_the_rate_that_transformers_gives_it(
    scheduler: str, total: int, ratio: float
) -> None:
    warmup = warmup_steps(total, ratio)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=2e-5)
    name = "constant_with_warmup" if scheduler == "constant" else scheduler
    theirs = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    for step in range(total):
        ours = learning_rate(step, total, peak=2e-5, scheduler=scheduler, warmup=warmup)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-18)
        optimizer.step()
        theirs.step()


def test_the_kit_warms_up_as_many_steps() -> None:
    assert warmup_steps(781, 0.03) == 24
    assert warmup_steps(1875, 0.03) == 57
