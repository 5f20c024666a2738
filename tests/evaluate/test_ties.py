"""What differs by no more than rounding is a tie, in every score that compares; what differs by more is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from phosphene.analyse._labels import area, mean_area
from phosphene.analyse.interpolate import forward_share, monotonicity
from phosphene.analyse.reliability import auc
from phosphene.analyse.words import beaten_share
from phosphene.evaluate import (
    batch_retrieval,
    comparisons,
    drawn_retrieval,
    n_way,
    n_way_class,
    n_way_influence,
    n_way_matrix,
    n_way_monte_carlo,
    rank_matrix,
    retrieval_curve,
    similarity,
    two_way,
)
from phosphene.evaluate.ties import RESOLUTION, bounds, first_best, grain_of, midranks, outcomes
from phosphene.evaluate.zero_shot import Candidates, confusion, share_in_top

pytestmark = pytest.mark.numeric

N = 24


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def nudged(values, rng):
    """Every value moved to the next float32 above or below."""
    values = np.asarray(values, dtype=np.float32)
    towards = np.where(rng.random(values.shape) < 0.5, np.inf, -np.inf).astype(np.float32)
    return np.nextafter(values, towards)


def repeated(rng, n_features, kind):
    """One prediction for every item: the same bits, or each with the last bit of every feature moved."""
    one = rng.standard_normal((1, n_features)).astype(np.float32)
    many = np.repeat(one, N, axis=0)
    return many if kind == "constant" else nudged(many, rng)


@pytest.mark.parametrize("n_features", [5, 17, 768, 4099])
@pytest.mark.parametrize("measure", ["pearson", "cosine"])
@pytest.mark.parametrize("kind", ["constant", "nudged"])
def test_one_prediction_for_all_is_at_chance_in_every_score_of_a_similarity(rng, n_features, measure, kind):
    true = rng.standard_normal((N, n_features)).astype(np.float32)
    s = similarity(repeated(rng, n_features, kind), true, measure)
    exactly = {"abs": 1e-12}

    np.testing.assert_array_equal(two_way(s, direction="decoded"), 0.5)
    np.testing.assert_array_equal(rank_matrix(s, direction="decoded"), 0.5)
    np.testing.assert_array_equal(comparisons(s, direction="decoded")[0].sum(axis=1), 0.5 * (N - 1))
    np.testing.assert_allclose(n_way(s, 10, direction="decoded"), 1 / 10, atol=1e-12)
    np.testing.assert_allclose(n_way_matrix(s, 10, direction="decoded"), 1 / 10, atol=1e-12)
    np.testing.assert_allclose(n_way_influence(s, 10, direction="decoded"), 1 / 10, atol=1e-12)
    assert retrieval_curve(s, (10,), direction="backward")[0].accuracy == pytest.approx(1 / 10, **exactly)

    assert two_way(s).mean() == pytest.approx(0.5, **exactly)
    assert n_way(s, 10).mean() == pytest.approx(1 / 10, **exactly)
    batches = batch_retrieval(s, 10)
    assert batches.forward == pytest.approx(1 / 10, **exactly)
    assert batches.backward == pytest.approx(1 / 10, **exactly)
    drawn = drawn_retrieval(s, 10, n_batches=5, rng=rng)
    assert drawn.backward == pytest.approx(1 / 10, **exactly)


def test_truths_that_are_the_same_picture_tie_for_each_decoded_item(rng):
    true = np.repeat(rng.standard_normal((1, 301)).astype(np.float32), N, axis=0)
    s = similarity(rng.standard_normal((N, 301)).astype(np.float32), nudged(true, rng))
    np.testing.assert_array_equal(two_way(s), 0.5)
    np.testing.assert_allclose(n_way(s, 5), 1 / 5, atol=1e-12)
    np.testing.assert_allclose(share_in_top(s, 3), 3 / N, atol=1e-12)
    drawn = n_way_monte_carlo(s, 5, n_draws=4000, rng=rng)
    np.testing.assert_allclose(drawn, 1 / 5, atol=5 * 0.4 / np.sqrt(4000))  # 5 sd of a share of 1/5


def test_a_twin_of_the_truth_counts_one_half_and_the_rest_as_before(rng):
    s = rng.random((N, N)).astype(np.float32) + 0.5
    plain = two_way(s)
    twin = s.copy()
    twin[:, 0] = nudged(s[:, 1], rng)
    above = (s[1] > s[1, 1]).sum() - (s[1, 0] > s[1, 1])
    assert two_way(twin)[1] == pytest.approx((N - 1 - above - 0.5) / (N - 1))
    np.testing.assert_allclose(plain, (s < np.diagonal(s)[:, None]).sum(axis=1) / (N - 1))


def test_a_uniform_classifier_scores_k_over_n_and_small_probabilities_still_differ(rng):
    uniform = nudged(np.full((6, 100), 0.01), rng)
    np.testing.assert_allclose(n_way_class(uniform, np.arange(6), 10), 1 / 10, atol=1e-12)

    sure = np.full((1, 100), 1e-9, np.float32)
    sure[0, 0] = 1
    sure[0, 7] = 2e-9  # far below the resolution of the largest, but twice the others
    assert n_way_class(sure, np.array([7]), 99, 2)[0] == pytest.approx(1)


def test_zero_shot_names_the_first_of_equal_categories_whatever_the_rounding(rng):
    text = rng.standard_normal(64)
    candidates = Candidates(("a", "b"), np.stack([text, nudged(text, rng)]))
    latents = rng.standard_normal((40, 64))
    assert set(confusion(candidates, latents, ["a"] * 40)["said"]) == {"a"}
    np.testing.assert_array_equal(share_in_top(candidates.similarity(latents), 1), 0.5)


@pytest.mark.parametrize("offset", [0.3, -5.0, 800.0])
def test_areas_under_the_curve_of_one_score_for_all_are_one_half(rng, offset):
    scores = nudged(np.full((40, 3), offset), rng).astype(np.float64)
    labels = rng.random((40, 3)) < 0.4
    assert [area(scores[:, j], labels[:, j]) for j in range(3)] == [0.5, 0.5, 0.5]
    assert mean_area(scores, labels)(np.ones((1, 40)))[0] == 0.5
    found = auc(scores[:20, 0], scores[20:, 0], rng)
    assert found == pytest.approx((0.5, 0.5, 0.5), abs=1e-12)


def test_ranks_along_a_way_ignore_rounding_and_captions_equally_far_are_tied(rng):
    still = nudged(np.full(9, 0.7), rng)
    assert monotonicity(np.arange(9.0), still) == 0
    assert forward_share(still) == 0.5
    pool = nudged(np.full((3, 50), 0.2), rng)
    np.testing.assert_array_equal(beaten_share(pool, np.full((3, 2), 0.2)), 0.5)


def test_a_difference_well_above_rounding_counts(rng):
    """Twice the resolution, of values of size 1: a hundredth of a thousandth."""
    step = 2 * RESOLUTION
    s = 0.9 + step * rng.permuted(np.tile(np.arange(N), (N, 1)), axis=1)
    order = np.argsort(np.argsort(s, axis=1), axis=1)
    np.testing.assert_allclose(rank_matrix(s), order / (N - 1))
    np.testing.assert_allclose(two_way(s), np.diagonal(order) / (N - 1))
    np.testing.assert_array_equal(midranks(s), order + 1)
    np.testing.assert_array_equal(first_best(s), s.argmax(axis=1))

    scores, label = s[0], order[0] >= N // 2
    assert area(scores, label) == 1
    assert auc(scores[label], scores[~label], rng).value == 1
    assert monotonicity(np.arange(float(N)), np.sort(scores)) == 1
    assert forward_share(np.sort(scores)) == 1


def test_midranks_are_scipys_where_values_are_equal_or_far_apart(rng):
    values = rng.integers(0, 6, (7, 30)) / 4
    np.testing.assert_array_equal(midranks(values), rankdata(values, axis=1))
    np.testing.assert_array_equal(midranks(values[0]), rankdata(values[0]))
    t = np.arange(30.0)
    assert monotonicity(t, values[0]) == pytest.approx(spearmanr(t, values[0]).statistic)


def test_one_value_that_has_run_away_makes_no_ties_of_the_others():
    values = np.array([0.001, 0.002, 0.003, 1e9, np.inf])
    np.testing.assert_array_equal(midranks(values), [1, 2, 3, 4, 5])
    tiny = np.array([1e-12, 2e-12, 3e-12])  # in a unit of its own
    np.testing.assert_array_equal(midranks(tiny), [1, 2, 3])


def test_undefined_values_tie_and_leave_the_grain_alone():
    values = np.array([0.1, np.nan, 0.2])
    assert grain_of(values)[0] == 0.2
    np.testing.assert_array_equal(outcomes(values, np.array(0.15), 1.0), [0, 0.5, 1])
    assert bounds(np.float32(0.5), 1.0)[1].dtype == np.float32
