"""Retrieval in batches against every batch there is, and ensembles against a search by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from phosphene.errors import ConfigError, DataError
from phosphene.metrics.nway import n_way
from phosphene.metrics.retrieval import batch_retrieval, combined, drawn_retrieval, ensemble_weights, retrieval_curve


def by_brute_force(s, size, truth=None):
    """Mean share of hits, forward and backward, over every batch of rows."""
    truth = np.arange(len(s)) if truth is None else truth
    forward, backward, chance = [], [], []
    for rows in map(list, combinations(range(len(s)), size)):
        ids = truth[rows]
        batch = s[rows][:, ids]
        forward.append(np.mean(ids[batch.argmax(axis=1)] == ids))
        backward.append(np.mean(ids[batch.argmax(axis=0)] == ids))
        chance.append(np.mean(ids[:, None] == ids))
    return np.mean(forward), np.mean(backward), np.mean(chance)


def some(n, m=None, seed=0, strength=0.6):
    rng = np.random.default_rng(seed)
    truth = np.arange(n) if m is None else rng.integers(0, m, n)
    s = rng.standard_normal((n, m or n))
    s[np.arange(n), truth] += strength
    return s, truth


@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_batches_without_repeats_are_every_batch_there_is(size):
    s, _ = some(8)
    found = batch_retrieval(s, size)
    forward, backward, chance = by_brute_force(s, size)
    assert found.forward == pytest.approx(forward, abs=1e-12)
    assert found.backward == pytest.approx(backward, abs=1e-12)
    assert found.chance == pytest.approx(chance) == pytest.approx(1 / size)
    assert found.forward == pytest.approx(n_way(s, size).mean())
    assert found.backward == pytest.approx(n_way(s, size, direction="decoded").mean())


@pytest.mark.parametrize("size", [2, 4, 6, 9])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_batches_with_several_rows_of_a_picture_are_every_batch_there_is(size, seed):
    s, truth = some(9, 4, seed)
    found = batch_retrieval(s, size, truth)
    forward, backward, chance = by_brute_force(s, size, truth)
    assert found.forward == pytest.approx(forward, abs=1e-12)
    assert found.backward == pytest.approx(backward, abs=1e-12)
    assert found.chance == pytest.approx(chance)
    assert found.chance > 1 / size


def test_drawn_batches_come_near_the_exact_mean_and_spread_around_it():
    s, truth = some(60, 40, strength=1.5)
    exact = batch_retrieval(s, 20, truth)
    drawn = drawn_retrieval(s, 20, truth, n_batches=400, rng=np.random.default_rng(0))
    for side in ("forward", "backward"):
        spread = getattr(drawn, f"{side}_std")
        assert 0.02 < spread < 0.2
        assert abs(getattr(drawn, side) - getattr(exact, side)) < 4 * spread / 20  # four standard errors
    assert drawn.chance == pytest.approx(exact.chance, abs=0.005)
    assert drawn.n_batches == 400


def test_a_perfect_decoder_finds_all_and_an_undefined_one_scores_chance():
    assert batch_retrieval(np.eye(12), 5)[1:3] == (1, 1)
    assert drawn_retrieval(np.eye(12), 5, rng=np.random.default_rng(0))[1:3] == (1, 1)
    for nothing in (np.zeros((12, 12)), np.full((12, 12), np.nan)):
        assert batch_retrieval(nothing, 5)[1:3] == pytest.approx((0.2, 0.2))
        assert drawn_retrieval(nothing, 5, rng=np.random.default_rng(0))[1:3] == pytest.approx((0.2, 0.2))


def test_the_whole_gallery_is_the_last_point_of_the_curve():
    s, _ = some(30)
    assert batch_retrieval(s, 30).forward == pytest.approx(retrieval_curve(s)[-1].accuracy)
    assert batch_retrieval(s, 30).forward == np.mean(s.argmax(axis=1) == np.arange(30))


def test_batches_larger_than_the_rows_are_refused():
    with pytest.raises(DataError, match="300 candidates"):
        batch_retrieval(np.eye(10))
    with pytest.raises(ConfigError, match="n is 1"):
        batch_retrieval(np.eye(10), 1)


# -- ensembles ---------------------------------------------------------------------------------------------------------


def three(n=40, seed=0):
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((3, n, n))
    return [np.eye(n) + 0.45 * noise[0], np.eye(n) + 0.45 * noise[1], noise[2]]


def test_weights_are_the_best_of_the_grid():
    matrices = three()
    found = ensemble_weights(matrices, size=20, step=0.25)
    grid = [np.array([a, b, 4 - a - b]) / 4 for a in range(5) for b in range(5 - a)]
    scores = [sum(batch_retrieval(combined(matrices, w), 20)[1:3]) / 2 for w in grid]
    assert found.score == pytest.approx(max(scores))
    assert found.weights.sum() == pytest.approx(1)
    assert (found.weights >= 0).all()
    own = [np.mean(batch_retrieval(m, 20)[1:3]) for m in matrices]
    np.testing.assert_allclose(found.alone, own)


def test_two_decoders_with_errors_of_their_own_are_better_together_and_noise_is_left_out():
    found = ensemble_weights(three(), size=40)
    assert found.score > found.alone.max() + 0.05
    assert found.weights[2] <= 0.2
    assert min(found.weights[:2]) >= 0.2
    # On new items of the same decoders too.
    new = three(seed=1)
    alone = max(batch_retrieval(m, 40).forward for m in new)
    assert batch_retrieval(combined(new, found.weights), 40).forward > alone


def test_equal_decoders_share_the_weight():
    (one, *_) = three()
    np.testing.assert_allclose(ensemble_weights([one, one], 40).weights, [0.5, 0.5])
    assert ensemble_weights([one], 300).weights == [1.0]


def test_an_impossible_ensemble_is_refused():
    with pytest.raises(DataError, match="one shape"):
        ensemble_weights([np.eye(4), np.eye(5)])
    with pytest.raises(DataError, match="0 came"):
        ensemble_weights([])
    with pytest.raises(ConfigError, match="step of 0.3"):
        ensemble_weights([np.eye(4)] * 2, step=0.3)
    with pytest.raises(ConfigError, match="20,000"):
        ensemble_weights([np.eye(4)] * 9)
