from __future__ import annotations

import numpy as np
import pytest

from backend.errors import UsageError
from backend.evaluation.statistics import (
    clustered_interval,
    compare_binary,
    compare_graded,
    mcnemar_exact,
    relative_score,
    wilson_interval,
)


def test_wilson_agrees_with_published_values():
    # Newcombe 1998 (one proportion), method 3: 81/263, 15/148, 0/20.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson_interval(20, 20)[1] == 1.0


@pytest.mark.parametrize(("hits", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_an_impossible_proportion_is_refused(hits, n):
    with pytest.raises(UsageError):
        wilson_interval(hits, n)


def test_mcnemar_is_the_exact_binomial():
    from scipy.stats import binomtest

    for won, lost in [(10, 2), (3, 3), (0, 9), (41, 25)]:
        expected = binomtest(won, won + lost).pvalue
        assert mcnemar_exact(won, lost) == pytest.approx(expected)
    assert mcnemar_exact(0, 0) == 1.0


def test_paired_binary_interval_agrees_with_newcombe():
    # Newcombe 1998 (paired differences), method 10: 36, 12, 2, 0 and 1, 1, 7, 12 swapped roles.
    ours = [True] * 36 + [True] * 12 + [False] * 2
    theirs = [True] * 36 + [False] * 12 + [True] * 2
    result = compare_binary(ours, theirs)
    assert result.difference == pytest.approx(20.0)
    assert result.interval == pytest.approx((5.69, 34.04), abs=0.02)
    assert (result.won, result.lost, result.n, result.ties) == (12, 2, 50, 36)
    assert result.verdict == "better"


def test_clusters_widen_the_interval():
    generator = np.random.default_rng(0)
    images = generator.random(60)
    scores = np.repeat(images > 0.5, 10).astype(float)
    clusters = np.repeat(np.arange(60), 10)
    low, high = clustered_interval(scores, clusters)
    alone_low, alone_high = clustered_interval(scores, np.arange(600))
    assert (high - low) > 2.5 * (alone_high - alone_low)


def test_intervals_are_the_same_every_time_and_cover_the_truth():
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(200):
        scores = generator.random(80) < 0.4
        low, high = clustered_interval(scores, range(80), resamples=400)
        assert (low, high) == clustered_interval(scores, range(80), resamples=400)
        covered += low <= 0.4 <= high
    assert 180 <= covered <= 200


def test_graded_scores_of_equal_runs_differ_by_nothing():
    scores = [0.3, 1.0, 0.0, 0.6]
    result = compare_graded(scores, scores, list("aabc"))
    assert (result.difference, result.p_value, result.verdict) == (0, 1, "no_clear_difference")


def test_a_real_graded_difference_is_found_and_chance_is_not():
    generator = np.random.default_rng(3)
    base = generator.choice([0, 0.3, 0.6, 1.0], 400)
    better = np.clip(base + 0.3 * (generator.random(400) < 0.4), 0, 1)
    clusters = np.arange(400) // 2
    found = compare_graded(better, base, clusters)
    assert found.verdict == "better"
    assert found.interval[0] > 0
    assert compare_graded(base, better, clusters).verdict == "worse"
    alarms = 0
    for _ in range(100):
        other = generator.permutation(base)
        result = compare_graded(other, base, clusters, resamples=400)
        alarms += result.verdict != "no_clear_difference"
    assert alarms <= 12


def test_a_comparison_of_different_questions_is_refused():
    with pytest.raises(UsageError, match="same questions"):
        compare_binary([True], [True, False])


def test_relative_score_is_the_mean_of_both_ratios():
    # The published example: (2.7190 + 1.1051) / 2.
    ours = {"mmbench": 2.7190 * 13.01, "textvqa": 1.1051 * 40}
    assert relative_score(ours, {"mmbench": 13.01, "textvqa": 40}) == pytest.approx(1.91205)


@pytest.mark.parametrize("baseline", [{"mmbench": 1.0}, {"mmbench": 0.0, "textvqa": 1.0}])
def test_a_ratio_that_does_not_exist_is_refused(baseline):
    with pytest.raises(UsageError):
        relative_score({"mmbench": 1.0, "textvqa": 1.0}, baseline)
