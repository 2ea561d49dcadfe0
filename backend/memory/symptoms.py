"""The signs of a sick training run, each found by one function with its evidence and threshold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from backend.memory.curves import Curves, rolling_median, spread

Level = Literal["info", "warning", "error"]
LARGEST_VOCABULARY = 256_000
MIB = 1 << 20


@dataclass(frozen=True)
class Finding:
    """Something about a run that a person should know."""

    code: str
    """Message keys: `finding.<code>` and `finding.<code>.advice`."""
    level: Level
    values: dict[str, Any] = field(default_factory=dict)
    """The evidence and its threshold; fills the message's placeholders."""
    steps: tuple[int, ...] = ()
    """Where to look; the worst first."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is examined."""

    curves: Curves
    vocabulary_size: int | None = None
    samples: int | None = None
    """Training samples of which labels were counted."""
    samples_without_labels: int | None = None
    steps_without_labels: tuple[int, ...] = ()
    order: Sequence[str] = ()
    """Sample ids in the order in which they were trained on."""

    @property
    def chance(self) -> float:
        """Loss of guessing every token alike, ln(vocabulary); the largest known when unknown."""
        return math.log(self.vocabulary_size or LARGEST_VOCABULARY)


def loss_not_finite(subject: Subject) -> Finding | None:
    """NaN or infinite losses; an error when they are the end or more than 1 % of the run."""
    loss = subject.curves.series("loss")
    bad = ~np.isfinite(loss.values)
    if not bad.any():
        return None
    share = float(bad.mean())
    ended = bool(bad[-1])
    level: Level = "error" if ended or share > 0.01 else "warning"
    steps = tuple(int(step) for step in loss.steps[bad][:10])
    return Finding(
        "loss_not_finite", level, {"step": steps[0], "count": int(bad.sum()), "n": len(loss)}, steps
    )


def loss_above_chance(subject: Subject) -> Finding | None:
    """The loss ends above what guessing would give: far above, in its last row, be it the only
    one, or over its last rows; or a tenth above over the last of 20 steps or more.
    """
    loss = subject.curves.series("loss").finite()
    if not len(loss):
        return None
    final, threshold = float(loss.values[-1]), 2 * subject.chance
    if final <= threshold:
        final = float(np.median(loss.last()))
        threshold = (2 if len(loss) < 20 else 1.1) * subject.chance
    if final <= threshold:
        return None
    values = {"loss": final, "chance": subject.chance, "threshold": threshold}
    return Finding("loss_above_chance", "error", values, (int(loss.steps[-1]),))


def loss_exploded(subject: Subject) -> Finding | None:
    """The loss ends at twice its best or more, and at least 1 above it."""
    loss = subject.curves.series("loss").finite()
    if len(loss) < 6:
        return None
    smooth = rolling_median(loss.values, 5)
    lowest = int(np.argmin(smooth))
    best = float(smooth[lowest])
    final = float(np.median(loss.last()))
    threshold = best + max(1.0, best)
    if final <= threshold:
        return None
    where = int(loss.steps[lowest + int(np.argmax(smooth[lowest:] > threshold))])
    values = {"loss": final, "best": best, "threshold": threshold, "step": where}
    return Finding("loss_exploded", "error", values, (where,))


def loss_spikes(subject: Subject) -> Finding | None:
    """Single steps far above their neighbors: 8 deviations and half of the median above it."""
    loss = subject.curves.series("loss").finite()
    if len(loss) < 20:
        return None
    middle = rolling_median(loss.values, 21)
    excess = loss.values - middle
    limit = np.maximum(8 * spread(excess), np.maximum(0.5 * middle, 0.3))
    # Where the curve itself falls steeply, the neighbors tell nothing.
    settled = np.arange(len(loss)) >= min(10, len(loss) // 10)
    found = np.flatnonzero((excess > limit) & settled)
    if not len(found):
        return None
    worst = found[np.argsort(-excess[found], kind="stable")]
    high = float(loss.values[worst[0]])
    usual = float(middle[worst[0]])
    many = len(found) >= max(3, 0.01 * len(loss))
    level: Level = "warning" if many or high > 3 * usual else "info"
    steps = tuple(int(step) for step in loss.steps[worst[:10]])
    values = {"count": len(found), "step": steps[0], "loss": high, "usual": usual}
    return Finding("loss_spikes", level, values, steps)


def plateau_from_start(subject: Subject) -> Finding | None:
    """Over 40 steps or more the loss fell by neither 2 % nor two standard errors."""
    loss = subject.curves.series("loss").finite()
    if len(loss) < 40:
        return None
    quarter = len(loss) // 4
    before, after = loss.values[:quarter], loss.values[-quarter:]
    fall = float(before.mean() - after.mean())
    error = math.sqrt(before.var() / quarter + after.var() / quarter)
    first = float(before.mean())
    if fall >= 0.02 * abs(first) or fall > 2 * error:
        return None
    level: Level = "error" if after.mean() > 0.9 * subject.chance else "warning"
    values = {"first": first, "last": float(after.mean()), "n": len(loss)}
    return Finding("plateau_from_start", level, values)


def loss_zero(subject: Subject) -> Finding | None:
    """A loss of exactly zero in more than half of the steps: there was nothing to predict."""
    loss = subject.curves.series("loss")
    if len(loss) < 3:
        return None
    share = float((loss.values == 0).mean())
    return Finding("loss_zero", "error", {"share": 100 * share}) if share > 0.5 else None


def _loss_fell(subject: Subject) -> bool:
    """Whether the loss fell by a tenth: then the weights must have changed."""
    loss = subject.curves.series("loss").finite()
    return len(loss) >= 6 and bool(np.median(loss.last()) < 0.9 * np.median(loss.first()))


def gradients_zero(subject: Subject) -> Finding | None:
    """Gradient norms of zero in more than 5 % of the steps, while the loss does not fall."""
    norm = subject.curves.series("grad_norm")
    if len(norm) < 3 or _loss_fell(subject):
        return None
    zero = norm.values < 1e-12
    share = float(zero.mean())
    if share <= 0.05:
        return None
    level: Level = "error" if share > 0.5 else "warning"
    steps = tuple(int(step) for step in norm.steps[zero][:10])
    return Finding("gradients_zero", level, {"share": 100 * share, "n": len(norm)}, steps)


def gradients_exploding(subject: Subject) -> Finding | None:
    """Gradient norms that are not finite, or end at a hundred times those of the first half."""
    norm = subject.curves.series("grad_norm")
    if len(norm) < 3:
        return None
    bad = ~np.isfinite(norm.values)
    if bad.any():
        share = float(bad.mean())
        steps = tuple(int(step) for step in norm.steps[bad][:10])
        values = {"count": int(bad.sum()), "n": len(norm), "step": steps[0]}
        level: Level = "error" if share > 0.1 else "warning"
        return Finding("gradients_not_finite", level, values, steps)
    if len(norm) < 20:
        return None
    usual, final = float(np.median(norm.first(0.5))), float(np.median(norm.last()))
    if final <= 10 or final <= 100 * usual:
        return None
    return Finding("gradients_exploding", "warning", {"norm": final, "usual": usual})


def learning_rate_zero(subject: Subject) -> Finding | None:
    """A learning rate of zero between warm-up and the last steps, in more than 10 % of them."""
    rate = subject.curves.series("learning_rate")
    if len(rate) < 3:
        return None
    skip_first, skip_last = max(1, len(rate) // 20), max(1, len(rate) // 50)
    inner = rate.values[skip_first : len(rate) - skip_last]
    if not len(inner):
        return None
    share = float((inner <= 0).mean())
    if share <= 0.1:
        return None
    level: Level = "error" if share > 0.5 else "warning"
    return Finding("learning_rate_zero", level, {"share": 100 * share})


def labels_masked(subject: Subject) -> Finding | None:
    """Samples of which no token is trained: more than 1 %; an error from half of them on."""
    if not subject.samples or subject.samples_without_labels is None:
        return None
    share = subject.samples_without_labels / subject.samples
    if share <= 0.01:
        return None
    values = {
        "share": 100 * share,
        "count": subject.samples_without_labels,
        "n": subject.samples,
    }
    level: Level = "error" if share >= 0.5 else "warning"
    return Finding("labels_masked", level, values, subject.steps_without_labels)


def throughput_collapsed(subject: Subject) -> Finding | None:
    """The last quarter runs at half the speed of the first half or less, a minute at least."""
    speed = subject.curves.series("samples_per_second")
    time = subject.curves.series("time")
    if len(speed) < 30 or len(time) != len(speed):
        return None
    before, after = float(np.median(speed.first(0.5))), float(np.median(speed.last(0.25)))
    lasted = float(time.values[-1] - time.values[-max(1, len(time) // 4)])
    if before <= 0 or after >= 0.5 * before or lasted < 60:
        return None
    return Finding("throughput_collapsed", "warning", {"before": before, "after": after})


def memory_creeping(subject: Subject) -> Finding | None:
    """Memory rises through all five parts of the run after its start, by 15 % and 512 MiB."""
    for name in ("memory_allocated", "host_memory"):
        memory = subject.curves.series(name)
        if len(memory) < 50:
            continue
        parts = np.array_split(memory.values[len(memory) // 5 :], 5)
        levels = np.array([float(np.median(part)) for part in parts])
        growth = levels[-1] - levels[0]
        steady = bool((np.diff(levels) > 0.01 * levels[0]).all())
        if steady and growth > max(0.15 * levels[0], 512 * MIB):
            values = {"first": levels[0] / 1024**3, "last": levels[-1] / 1024**3}
            where = "device" if name == "memory_allocated" else "host"
            return Finding(f"memory_creeping_{where}", "warning", values)
    return None


def data_order_repeats(subject: Subject) -> Finding | None:
    """Samples come back before the others had their turn, or every epoch has the same order.

    An epoch has as many samples as were trained on, divided by the epochs that the figures tell;
    less than 80 % of them different is a repetition.
    """
    order = list(subject.order)
    different = len(set(order))
    if different < 20:
        return None
    epochs = subject.curves.series("epoch").finite()
    if len(epochs):
        expected = len(order) / max(1.0, float(epochs.values[-1]))
        if different < 0.8 * expected:
            values = {"different": different, "n": round(expected)}
            return Finding("data_order_repeats", "warning", values)
    if len(order) >= 2 * different and order[:different] == order[different : 2 * different]:
        return Finding("data_order_same", "warning", {"n": different})
    return None


SYMPTOMS: tuple[Callable[[Subject], Finding | None], ...] = (
    loss_not_finite,
    loss_above_chance,
    loss_exploded,
    loss_zero,
    plateau_from_start,
    loss_spikes,
    gradients_zero,
    gradients_exploding,
    learning_rate_zero,
    labels_masked,
    throughput_collapsed,
    memory_creeping,
    data_order_repeats,
)
