"""Bootstrap and permutation against scipy, theory and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from phosphene.errors import DataError
from phosphene.metrics import (
    bootstrap,
    comparisons,
    mean_of_items,
    mean_of_pairs,
    paired_difference,
    permutation_null,
    rank_matrix,
    similarity,
    two_way,
)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def test_bca_of_a_skewed_mean_is_scipys(rng):
    x = rng.exponential(size=40)
    ours = bootstrap(mean_of_items(x), 40, rng=rng, n_draws=40_000)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=40_000, method="BCa", rng=np.random.default_rng(3))
    spread = x.std() / np.sqrt(40)
    # two independent sets of draws: a 2.5 % quantile of 40,000 has a standard error of about 0.015 spreads
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.08 * spread)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.08 * spread)
    assert ours.value == pytest.approx(x.mean())


def test_bca_covers_a_skewed_mean_about_as_often_as_it_says(rng):
    covered = []
    for _ in range(300):
        found = bootstrap(mean_of_items(rng.exponential(size=50)), 50, rng=rng, n_draws=400)
        covered.append(found.low <= 1 <= found.high)
    assert 0.88 <= np.mean(covered) <= 0.985  # binomial sd 0.013 around 0.93, which BCa reaches at n = 50


def test_interval_of_identification_covers_its_expectation(rng):
    def subject():
        true = rng.standard_normal((40, 20))
        return similarity(0.4 * true + rng.standard_normal((40, 20)), true)

    expected = np.mean([two_way(subject()).mean() for _ in range(400)])
    covered = []
    for _ in range(200):
        s = subject()
        found = bootstrap(mean_of_pairs(*comparisons(s)), 40, rng=rng, n_draws=400)
        covered.append(found.low <= expected <= found.high)
    assert np.mean(covered) > 0.88  # binomial sd 0.015; pairs treated as independent cover about 0.5


def test_pair_statistic_equals_resampling_the_matrix_by_hand(rng):
    s = rng.random((9, 9))
    statistic = mean_of_pairs(*comparisons(s))
    for _ in range(10):
        drawn = rng.integers(0, 9, 9)
        by_hand = []
        for i in drawn:
            others = [j for j in drawn if j != i]  # a stimulus is no distractor of its own copy
            if others:
                by_hand.append(np.mean([s[i, i] > s[i, j] for j in others]))
        found = statistic(np.bincount(drawn, minlength=9)[None].astype(float))[0]
        assert found == pytest.approx(np.mean(by_hand))


@pytest.mark.fault(123)
def test_degenerate_samples_get_honest_bounds(rng):
    assert bootstrap(mean_of_items(np.ones(5)), 5, rng=rng)[1:] == (1, 1)
    one = bootstrap(mean_of_items(np.array([0.3])), 1, rng=rng)
    assert one.value == 0.3
    assert np.isnan(one.low)
    some = bootstrap(mean_of_items(np.array([0.1, np.nan, 0.5, 0.6])), 4, rng=rng)
    assert some.value == pytest.approx(0.4)
    assert some.low < 0.4 < some.high
    nothing = bootstrap(mean_of_items(np.full(4, np.nan)), 4, rng=rng)
    assert np.isnan(nothing.value)


def test_same_seed_same_interval():
    x = np.random.default_rng(0).random(30)
    first, second = (bootstrap(mean_of_items(x), 30, rng=np.random.default_rng(5)) for _ in range(2))
    assert first == second


@pytest.mark.fault(125)
def test_p_is_never_zero_and_its_least_value_is_known(rng):
    assert permutation_null(np.eye(50), rng=rng, n_permutations=999).p == 1 / 1000
    assert permutation_null(np.eye(50) - 1, rng=rng, n_permutations=99).p == 1 / 100
    difference = paired_difference(np.ones(40), np.zeros(40), rng=rng, n_flips=999)
    assert difference.p == 1 / 1000


def test_permutation_p_equals_all_orders_of_a_small_set(rng):
    from itertools import permutations

    ranks = rank_matrix(rng.random((6, 6)) + 0.4 * np.eye(6))
    observed = np.diagonal(ranks).mean()
    every = np.array([ranks[np.arange(6), list(order)].mean() for order in permutations(range(6))])
    exact = np.mean(every >= observed - 1e-12)
    found = permutation_null(ranks, rng=rng, n_permutations=20_000)
    assert found.p == pytest.approx(exact, abs=5 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4)
    assert found.mean == pytest.approx(ranks.mean(), abs=0.01)


def test_p_is_uniform_when_nothing_is_decoded(rng):
    p = []
    for _ in range(300):
        s = similarity(rng.standard_normal((25, 10)), rng.standard_normal((25, 10)))
        p.append(permutation_null(rank_matrix(s), rng=rng, n_permutations=199).p)
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert np.mean(np.array(p) <= 0.05) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 300)


def test_p_within_classes_is_uniform_when_only_the_class_is_decoded(rng):
    labels = np.repeat([0, 1], 15)
    p_all, p_within = [], []
    for _ in range(150):
        true = rng.standard_normal((30, 10)) + 2 * labels[:, None]
        s = similarity(rng.standard_normal((30, 10)) + 2 * labels[:, None] * np.arange(10), true * np.arange(10))
        p_all.append(permutation_null(rank_matrix(s), rng=rng, n_permutations=199).p)
        p_within.append(permutation_null(rank_matrix(s, labels), rng=rng, n_permutations=199, groups=labels).p)
    assert np.mean(np.array(p_all) <= 0.05) > 0.5  # the class alone is above chance
    assert stats.kstest(p_within, "uniform").pvalue > 0.001  # and is worth nothing inside a class


def test_errors_are_tested_downwards(rng):
    error = np.ones((12, 12)) - 0.9 * np.eye(12)
    assert permutation_null(error, rng=rng, n_permutations=999, larger_is_better=False).p == 0.001
    assert permutation_null(error, rng=rng, n_permutations=999).p == 1.0


def test_binomial_over_pairs_would_claim_too_much(rng):
    """The reason for permuting stimuli: the true null is three times as wide at 50 items."""
    scores = [
        two_way(similarity(rng.standard_normal((50, 5)), rng.standard_normal((50, 5)))).mean() for _ in range(200)
    ]
    assert np.std(scores) > 2 * 0.5 / np.sqrt(50 * 49)


def test_paired_difference_finds_what_overlapping_intervals_hide(rng):
    items = rng.normal(0, 1, 60)
    ours, theirs = items + 0.2 + 0.1 * rng.standard_normal(60), items
    found = paired_difference(ours, theirs, rng=rng)
    assert found.low > 0
    assert found.p < 0.001
    apart = [bootstrap(mean_of_items(x), 60, rng=rng) for x in (ours, theirs)]
    assert apart[0].low < apart[1].high
    assert paired_difference(theirs, theirs, rng=rng).p == 1.0


def test_sign_flip_p_is_uniform_without_a_difference(rng):
    p = [paired_difference(rng.standard_normal(20), rng.standard_normal(20), rng=rng, n_draws=100, n_flips=199).p
         for _ in range(300)]  # fmt: skip
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_matrices_and_groups_of_the_wrong_shape_are_refused(rng):
    with pytest.raises(DataError, match="square"):
        permutation_null(np.zeros((3, 4)), rng=rng)
    with pytest.raises(DataError, match="one per item"):
        permutation_null(np.eye(3), rng=rng, groups=np.zeros(2))
    with pytest.raises(DataError, match="same items"):
        paired_difference(np.zeros(3), np.zeros(4), rng=rng)
