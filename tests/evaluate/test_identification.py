"""Similarity, two-way and n-way identification against brute force, enumeration and Monte Carlo."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest

from phosphene.errors import ConfigError, DataError
from phosphene.evaluate import (
    comparisons,
    expected_top_k,
    n_way,
    n_way_class,
    n_way_influence,
    n_way_matrix,
    n_way_monte_carlo,
    rank_matrix,
    retrieval_curve,
    similarity,
    two_way,
    undefined_items,
)

pytestmark = pytest.mark.numeric


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def two_way_by_hand(s, labels=None):
    """Every comparison spelled out."""
    scores = []
    for i in range(len(s)):
        outcomes = []
        for j in range(len(s)):
            if j == i or (labels is not None and labels[i] != labels[j]):
                continue
            tie = np.isnan(s[i, i]) or np.isnan(s[i, j]) or s[i, i] == s[i, j]
            outcomes.append(0.5 if tie else float(s[i, i] > s[i, j]))
        scores.append(np.mean(outcomes) if outcomes else np.nan)
    return np.array(scores)


def tied_matrix(rng, n=12):
    s = rng.integers(0, 4, (n, n)).astype(float)
    s[3] = np.nan
    s[5, 8] = np.nan
    return s


@pytest.mark.parametrize("n_features", [1, 7, 4096, 9001])
@pytest.mark.parametrize("offset", [0, 1000])
def test_similarity_is_numpys_corrcoef(rng, n_features, offset):
    x, y = rng.standard_normal((5, n_features)) + offset, rng.standard_normal((6, n_features)) + offset
    found = similarity(x.astype(np.float32), y.astype(np.float32))
    if n_features == 1:
        assert np.isnan(found).all()
        return
    expected = np.corrcoef(x.astype(np.float32), y.astype(np.float32))[:5, 5:]
    np.testing.assert_allclose(found, expected, atol=2e-6)  # float32 products of unit rows


def test_similarity_reads_any_number_type(rng):
    x = rng.integers(0, 255, (4, 30))
    expected = np.corrcoef(x)
    for kind in (np.uint8, np.int16, np.float16, np.float64, ">f4"):
        values = np.asfortranarray(x.astype(kind))
        np.testing.assert_allclose(similarity(values, values), expected, atol=1e-6)


def test_cosine_and_mse_are_the_plain_formulas(rng):
    x, y = rng.random((4, 5000)), rng.random((3, 5000))
    cosine = (x @ y.T) / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1))
    np.testing.assert_allclose(similarity(x, y, "cosine"), cosine, atol=1e-6)
    error = np.square(x[:, None] - y[None]).mean(axis=2)
    np.testing.assert_allclose(similarity(x, y, "neg_mse"), -error, atol=1e-6)


@pytest.mark.fault(123)
def test_constant_and_missing_rows_are_undefined_without_a_warning(rng):
    x, y = rng.standard_normal((5, 301)).astype(np.float32), rng.standard_normal((5, 301)).astype(np.float32)
    x[1] = 0.1
    x[2, 7] = np.nan
    y[4] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        s = similarity(x, y)
        scores = two_way(s)
        ranks = rank_matrix(s)
    assert np.isnan(s[[1, 2]]).all()
    assert np.isnan(s[:, 4]).all()
    assert np.isfinite(s[[0, 3]][:, :4]).all()
    np.testing.assert_array_equal(undefined_items(s), [1, 2, 4])
    np.testing.assert_array_equal(scores[[1, 2, 4]], 0.5)
    np.testing.assert_array_equal(ranks[[1, 2]], 0.5)


@pytest.mark.fault(124)
@pytest.mark.parametrize("n_features", [17, 4999])
def test_identical_rows_tie_exactly(rng, n_features):
    true = rng.standard_normal((21, n_features)).astype(np.float32)
    same = np.repeat(rng.standard_normal((1, n_features)).astype(np.float32), 21, axis=0)
    s = similarity(same, true)
    assert np.ptp(s, axis=0).max() == 0
    np.testing.assert_array_equal(two_way(s, direction="decoded"), 0.5)
    assert two_way(s).mean() == pytest.approx(0.5, abs=1e-12)  # one prediction for all can identify nothing


@pytest.mark.fault(124)
def test_two_way_equals_every_comparison_by_hand(rng):
    s = tied_matrix(rng)
    labels = rng.integers(0, 3, len(s))
    labels[0] = 9  # alone in its class
    np.testing.assert_allclose(two_way(s), two_way_by_hand(s))
    np.testing.assert_allclose(two_way(s, direction="decoded"), two_way_by_hand(s.T))
    found = two_way(s, labels=labels)
    np.testing.assert_allclose(found, two_way_by_hand(s, labels))
    assert np.isnan(found[0])


def test_ranks_say_what_two_way_would_be_under_any_pairing(rng):
    s = tied_matrix(rng)
    labels = rng.integers(0, 3, len(s))
    for _ in range(5):
        order = rng.permutation(len(s))
        paired = np.arange(len(s))
        np.testing.assert_allclose(rank_matrix(s)[paired, order], two_way(s[:, order]))
        np.testing.assert_allclose(rank_matrix(s, labels)[paired, order], two_way(s[:, order], labels=labels[order]))
        np.testing.assert_allclose(rank_matrix(s, direction="decoded")[paired, order], two_way(s.T[:, order]))


def test_comparisons_average_to_two_way(rng):
    s = tied_matrix(rng)
    labels = rng.integers(0, 3, len(s))
    wins, counted = comparisons(s, labels=labels)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(wins.sum(axis=1) / counted.sum(axis=1), two_way(s, labels=labels))
    assert not np.diagonal(counted).any()


def test_repeated_rows_never_meet_their_own_stimulus(rng):
    s = rng.random((6, 3))
    truth = np.array([0, 0, 1, 1, 2, 2])
    scores = two_way(s, truth)
    for i, t in enumerate(truth):
        assert scores[i] == np.mean([s[i, t] > s[i, j] for j in range(3) if j != t])


def test_random_features_score_one_half(rng):
    x, y = rng.standard_normal((400, 64)), rng.standard_normal((400, 64))
    assert abs(two_way(similarity(x, y)).mean() - 0.5) < 4 * 0.29 / np.sqrt(400)  # sd of a uniform rank is 0.29


def test_knowing_one_of_k_classes_reaches_the_arithmetic_limit():
    classes = np.repeat(np.arange(10), 20)
    s = (classes[:, None] == classes[None, :]).astype(float)
    assert two_way(s).mean() == pytest.approx(1 - 0.5 * 19 / 199)  # 19 classmates tie among 199 distractors
    assert np.all(two_way(s, labels=classes) == 0.5)


@pytest.mark.parametrize(
    ("below", "n", "k", "n_candidates", "expected"),
    [
        (990, 50, 1, 1000, 0.63476227), (900, 50, 5, 1000, 0.45442487), (990, 100, 1, 1000, 0.38936893),
        (950, 50, 1, 1000, 0.079885674), (950, 2, 1, 1000, 0.95095095), (900, 50, 1, 1000, 0.0052594489),
        (6, 4, 1, 10, 0.23809524), (6, 4, 2, 10, 0.77380952), (999, 50, 1, 1000, 1.0),
    ],
)  # fmt: skip
def test_n_way_has_the_published_reference_values(below, n, k, n_candidates, expected):
    above = n_candidates - 1 - below
    assert expected_top_k(np.array(above), np.array(0), n_candidates, n, k) == pytest.approx(expected, rel=1e-7)


def test_n_way_equals_enumeration_of_every_draw_and_every_tie_order(rng):
    m, n = 7, 4
    for k in (1, 2, 3):
        for _ in range(10):
            row = rng.integers(0, 4, m).astype(float)
            hits = []
            for drawn in itertools.combinations(range(1, m), n - 1):
                above = sum(row[j] > row[0] for j in drawn)
                ties = sum(row[j] == row[0] for j in drawn)
                hits += [np.mean([above + t < k for t in range(ties + 1)])]
            s = np.vstack([row, np.zeros((m - 1, m))])
            assert n_way(s, n, k)[0] == pytest.approx(np.mean(hits), abs=1e-12)


def test_n_way_with_scipys_hypergeometric(rng):
    from scipy.stats import hypergeom

    above = rng.integers(0, 981, 50)
    expected = hypergeom.cdf(4, 981, above, 49)
    np.testing.assert_allclose(expected_top_k(above, np.zeros(50, int), 982, 50, 5), expected, rtol=1e-9, atol=1e-12)


def test_two_of_n_way_is_two_way(rng):
    s = tied_matrix(rng)
    np.testing.assert_allclose(n_way(s, 2), two_way(s), atol=1e-12)


@pytest.mark.fault(124)
def test_n_way_agrees_with_random_draws(rng):
    s = np.round(rng.random((8, 40)) * 12)
    truth = rng.integers(0, 40, 8)
    exact = n_way(s, 10, 2, truth)
    drawn = n_way_monte_carlo(s, 10, 2, truth, n_draws=20_000, rng=rng)
    np.testing.assert_allclose(drawn, exact, atol=4.5 * 0.5 / np.sqrt(20_000))  # 4.5 sd of a proportion at most


@pytest.mark.fault(123)
def test_constant_predictions_score_k_over_n(rng):
    s = np.full((9, 9), np.nan)
    np.testing.assert_allclose(n_way(s, 5, 2), 2 / 5, atol=1e-12)
    probabilities = np.full((3, 1000), 0.001)
    np.testing.assert_allclose(n_way_class(probabilities, np.array([1, 2, 3]), 50, 1), 1 / 50, atol=1e-12)


def test_n_way_matrix_says_what_n_way_would_be_under_any_pairing(rng):
    s = tied_matrix(rng)
    for direction in ("truths", "decoded"):
        side = s if direction == "truths" else s.T
        matrix = n_way_matrix(s, 5, 2, direction)
        order = rng.permutation(len(s))
        np.testing.assert_allclose(matrix[np.arange(len(s)), order], n_way(side[:, order], 5, 2))


def test_influence_is_the_jackknife_over_rows_and_columns(rng):
    s = np.round(rng.random((15, 15)) * 20) + 4 * np.eye(15)
    score = n_way(s, 6).mean()
    left_out = []
    for i in range(15):
        keep = np.delete(np.arange(15), i)
        left_out.append(n_way(s[np.ix_(keep, keep)], 6).mean())
    pseudo = 15 * score - 14 * np.array(left_out)
    found = n_way_influence(s, 6)
    np.testing.assert_allclose(found, pseudo - pseudo.mean() + score, atol=1e-10)
    assert found.mean() == pytest.approx(score)


def test_influence_survives_all_ties_and_the_whole_gallery():
    np.testing.assert_allclose(n_way_influence(np.full((6, 6), np.nan), 6), 1 / 6, atol=1e-12)
    np.testing.assert_allclose(n_way_influence(np.eye(6), 6), 1)


@pytest.mark.fault(34)
def test_more_candidates_than_items_are_refused_with_both_numbers():
    with pytest.raises(DataError, match=r"50-way .* only 10"):
        n_way(np.eye(10), 50)
    with pytest.raises(DataError, match="only 3"):
        n_way_class(np.zeros((2, 3)), np.array([0, 1]), 50)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 5), (5, 0)])
def test_trials_without_sense_are_refused(n, k):
    with pytest.raises(ConfigError, match="n-way trial"):
        n_way(np.eye(10), n, k)


def test_retrieval_covers_galleries_up_to_all_items_in_both_directions(rng):
    s = rng.random((60, 60)) + 0.4 * np.eye(60)
    forward, backward = retrieval_curve(s), retrieval_curve(s, direction="backward")
    assert [r.size for r in forward] == [2, 10, 50, 60]
    assert [r.chance for r in forward] == [1 / 2, 1 / 10, 1 / 50, 1 / 60]
    assert forward[-1].accuracy == np.mean(s.argmax(axis=1) == np.arange(60))
    assert backward[-1].accuracy == np.mean(s.argmax(axis=0) == np.arange(60))
    accuracies = [r.accuracy for r in forward]
    assert accuracies == sorted(accuracies, reverse=True)  # a larger gallery is never easier


def test_shapes_that_do_not_pair_are_refused():
    with pytest.raises(DataError, match=r"\(2, 3\).*\(2, 4\)"):
        similarity(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(DataError, match="square"):
        two_way(np.zeros((3, 4)))
    with pytest.raises(DataError, match="one of 4 columns"):
        two_way(np.zeros((3, 4)), truth=np.array([0, 1, 4]))
    with pytest.raises(ConfigError, match="Did you mean 'decoded'"):
        two_way(np.eye(3), direction="decode")
