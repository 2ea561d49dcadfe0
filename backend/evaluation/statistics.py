"""How sure a score is, and whether a difference between two runs is more than chance."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from backend.errors import UsageError

Verdict = Literal["better", "worse", "no_clear_difference"]
LEVEL = 0.95
RESAMPLES = 4000
SEED = 1024
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired difference between two runs on the same questions, in points (0 to 100)."""

    difference: float
    """Candidate minus baseline."""
    interval: tuple[float, float]
    """95 %."""
    p_value: float
    n: int
    """Questions that both answered."""
    won: int
    """Questions on which the candidate scores higher."""
    lost: int
    verdict: Verdict
    method: str

    @property
    def ties(self) -> int:
        """Questions on which both score the same."""
        return self.n - self.won - self.lost


def wilson_interval(hits: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), 0 to 1.

    Raises:
        UsageError: `n` is not positive or `hits` lies outside 0…n.
    """
    if n <= 0 or not 0 <= hits <= n:
        raise UsageError(f"no proportion has {hits} hits of {n}.")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, z2 = hits / n, z * z
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low = 0.0 if hits == 0 else max(0.0, center - half)
    high = 1.0 if hits == n else min(1.0, center + half)
    return low, high


def clustered_interval(
    scores: Sequence[float],
    clusters: Sequence[Hashable],
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean whose questions come in clusters.

    Whole clusters (the questions of one image) are drawn with replacement, since their scores
    are not independent.

    Args:
        scores: One a question.
        clusters: The cluster of each question.
        level: Coverage.
        resamples: Bootstrap samples.
        seed: Makes the interval the same every time.
    """
    sums, counts = _cluster_sums(np.asarray(scores, dtype=float), clusters)
    means = _bootstrap_means(sums, counts, resamples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare_graded(
    candidate: Sequence[float],
    baseline: Sequence[float],
    clusters: Sequence[Hashable],
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison:
    """Compare scores between 0 and 1 of two runs on the same questions in the same order.

    The interval is a paired bootstrap over clusters; the p-value a two-sided permutation test
    that flips the sign of whole clusters, (1 + extreme) / (1 + resamples).

    Raises:
        UsageError: The runs do not have the same, positive, number of scores.
    """
    deltas = _paired(candidate, baseline)
    sums, counts = _cluster_sums(deltas, clusters)
    means = _bootstrap_means(sums, counts, resamples, seed)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    p_value = _sign_flip_p(sums, resamples, seed)
    return _comparison(deltas, (float(low), float(high)), p_value, "paired_permutation")


def compare_binary(candidate: Sequence[bool], baseline: Sequence[bool]) -> Comparison:
    """Compare hits and misses of two runs on the same questions in the same order.

    The p-value is McNemar's exact test; the interval is Newcombe's for a difference of paired
    proportions (method 10, Newcombe 1998).

    Raises:
        UsageError: The runs do not have the same, positive, number of answers.
    """
    ours, theirs = np.asarray(candidate, dtype=bool), np.asarray(baseline, dtype=bool)
    deltas = _paired(ours.astype(float), theirs.astype(float))
    won, lost = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    both, neither = int((ours & theirs).sum()), int((~ours & ~theirs).sum())
    interval = _newcombe(both, won, lost, neither)
    return _comparison(deltas, interval, mcnemar_exact(won, lost), "mcnemar_exact")


def mcnemar_exact(won: int, lost: int) -> float:
    """Two-sided p-value that `won` against `lost` discordant pairs are a fair coin's work."""
    n, fewer = won + lost, min(won, lost)
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return float(min(1.0, 2 * tail / 2**n))


def relative_score(scores: dict[str, float], baseline: dict[str, float]) -> float:
    """The challenge's score: the mean of both benchmarks' ratios to the baseline's.

    Args:
        scores: `textvqa` and `mmbench`, 0 to 100.
        baseline: The same of the baseline.

    Raises:
        UsageError: A benchmark is missing, or the baseline's score is zero.
    """
    for name in ("textvqa", "mmbench"):
        if name not in scores or name not in baseline:
            raise UsageError("the relative score needs both benchmarks of both runs.", place=name)
        if baseline[name] <= 0:
            raise UsageError("a ratio to a baseline of zero is undefined.", place=name)
    return (scores["mmbench"] / baseline["mmbench"] + scores["textvqa"] / baseline["textvqa"]) / 2


def _paired(
    candidate: Sequence[float] | NDArray[np.float64],
    baseline: Sequence[float] | NDArray[np.float64],
) -> NDArray[np.float64]:
    if len(candidate) != len(baseline) or len(candidate) == 0:
        raise UsageError(
            f"a paired comparison needs the same questions ({len(candidate)} against "
            f"{len(baseline)})."
        )
    deltas: NDArray[np.float64] = np.asarray(candidate, float) - np.asarray(baseline, float)
    return deltas


def _cluster_sums(
    values: NDArray[np.float64], clusters: Sequence[Hashable]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and count of each cluster, in the order of first appearance."""
    if len(values) == 0 or len(values) != len(clusters):
        raise UsageError(f"there are {len(values)} scores for {len(clusters)} clusters.")
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(name, len(numbers)) for name in clusters])
    sums = np.bincount(codes, weights=values).astype(np.float64)
    return sums, np.bincount(codes).astype(np.float64)


def _bootstrap_means(
    sums: NDArray[np.float64], counts: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Mean of each bootstrap sample of clusters, in blocks so that memory stays small."""
    generator, means = np.random.default_rng(seed), np.empty(resamples)
    for start in range(0, resamples, _BLOCK):
        size = min(_BLOCK, resamples - start)
        drawn = generator.integers(0, len(sums), (size, len(sums)))
        means[start : start + size] = sums[drawn].sum(1) / counts[drawn].sum(1)
    return means


def _sign_flip_p(sums: NDArray[np.float64], resamples: int, seed: int) -> float:
    moved = sums[sums != 0]
    if len(moved) == 0:
        return 1.0
    generator, observed, extreme = np.random.default_rng(seed + 1), abs(moved.sum()), 0
    for start in range(0, resamples, _BLOCK):
        size = min(_BLOCK, resamples - start)
        signs = generator.integers(0, 2, (size, len(moved)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ moved) >= observed - 1e-9).sum())
    return (1 + extreme) / (1 + resamples)


def _newcombe(both: int, won: int, lost: int, neither: int) -> tuple[float, float]:
    n = both + won + lost + neither
    ours, theirs = both + won, both + lost
    low1, high1 = wilson_interval(ours, n)
    low2, high2 = wilson_interval(theirs, n)
    share1, share2 = ours / n, theirs / n
    product = ours * (n - ours) * theirs * (n - theirs)
    excess = float(both * neither - won * lost)
    if excess > 0:
        # Newcombe's continuity correction of the correlation.
        excess = max(excess - n / 2, 0.0)
    correlation = excess / math.sqrt(product) if product else 0.0
    down1, up1, down2, up2 = share1 - low1, high1 - share1, share2 - low2, high2 - share2
    below = down1**2 - 2 * correlation * down1 * up2 + up2**2
    above = down2**2 - 2 * correlation * down2 * up1 + up1**2
    difference = share1 - share2
    return difference - math.sqrt(max(0.0, below)), difference + math.sqrt(max(0.0, above))


def _comparison(
    deltas: NDArray[np.float64], interval: tuple[float, float], p_value: float, method: str
) -> Comparison:
    difference = float(deltas.mean())
    verdict: Verdict = "no_clear_difference"
    if p_value < 1 - LEVEL:
        verdict = "better" if difference > 0 else "worse"
    return Comparison(
        difference=100 * difference,
        interval=(100 * interval[0], 100 * interval[1]),
        p_value=p_value,
        n=len(deltas),
        won=int((deltas > 1e-9).sum()),
        lost=int((deltas < -1e-9).sum()),
        verdict=verdict,
        method=method,
    )
