"""Intervals and nulls where items depend on each other: groups of stimuli, and folds that share their training."""

from __future__ import annotations

import numpy as np
import pytest

from phosphene.metrics import Decoded, compute_scores
from phosphene.metrics.statistics import (
    Interval,
    bootstrap,
    mean_of_items,
    mean_of_pairs,
    paired_difference,
    permutation_null,
    widened,
)

pytestmark = pytest.mark.numeric

FIGURES = np.repeat([f"figure {n}" for n in range(8)], 5)  # 8 figures in 5 sizes each


def _null_matrix(rng):
    """(40, 40) what item i would score were j its truth, for a decoder that mistakes whole figures at random."""
    decoded = np.repeat(rng.standard_normal((8, 12)), 5, axis=0) + 0.3 * rng.standard_normal((40, 12))
    true = np.repeat(rng.standard_normal((8, 12)), 5, axis=0) + 0.3 * rng.standard_normal((40, 12))
    return np.corrcoef(decoded, true)[:40, 40:]


def test_a_null_of_figures_in_sizes_is_held_by_permuting_figures():
    alone = []
    whole = []
    for world in range(150):
        matrix = _null_matrix(np.random.default_rng(world))
        rng = np.random.default_rng(1000 + world)
        alone.append(permutation_null(matrix, rng=rng, n_permutations=400).p)
        whole.append(permutation_null(matrix, rng=rng, n_permutations=400, blocks=FIGURES).p)

    assert np.mean(np.array(alone) < 0.05) > 0.15
    assert np.mean(np.array(whole) < 0.05) < 0.09


def test_an_interval_over_figures_covers_what_one_over_items_does_not():
    covered = {"items": 0, "figures": 0}
    for world in range(200):
        rng = np.random.default_rng(world)
        values = np.repeat(rng.standard_normal(8), 5) + 0.3 * rng.standard_normal(40)
        for name, groups in (("items", None), ("figures", FIGURES)):
            interval = bootstrap(mean_of_items(values), 40, rng=rng, n_draws=400, groups=groups)
            covered[name] += interval.low <= 0 <= interval.high

    assert covered["items"] < 0.75 * 200
    assert covered["figures"] > 0.84 * 200  # eight units: BCa itself covers less than .95


def test_a_difference_of_figures_is_tested_by_figures():
    rejected = {"items": 0, "figures": 0}
    for world in range(200):
        rng = np.random.default_rng(world)
        values = np.repeat(rng.standard_normal(8), 5) + 0.3 * rng.standard_normal(40)
        for name, groups in (("items", None), ("figures", FIGURES)):
            found = paired_difference(values, np.zeros(40), rng=rng, n_draws=100, n_flips=500, groups=groups)
            rejected[name] += found.p < 0.05

    assert rejected["items"] > 0.2 * 200
    assert rejected["figures"] < 0.09 * 200


def test_blocks_of_one_size_change_places_whole():
    # Only pairings of whole blocks, in any order inside, have this score above what single swaps reach.
    same = (FIGURES[:, None] == FIGURES).astype(float)
    null = permutation_null(same, rng=np.random.default_rng(0), n_permutations=300, blocks=FIGURES)
    whole_blocks = {k / 8 for k in range(9)}
    assert null.p < 0.02
    assert null.percentile_99 in whole_blocks


def test_groups_of_all_items_or_of_one_are_the_ends():
    values = np.random.default_rng(0).standard_normal(30)
    plain = bootstrap(mean_of_items(values), 30, rng=np.random.default_rng(1))
    single = bootstrap(mean_of_items(values), 30, rng=np.random.default_rng(1), groups=np.arange(30) + 100)
    assert single == pytest.approx(plain)
    assert np.isnan(bootstrap(mean_of_items(values), 30, rng=np.random.default_rng(1), groups=np.zeros(30)).low)


def _out_of_fold(rng, n, n_folds, noise):
    """(n, d) predicted and true pictures of a ridge whose every item was tested by folds that did not train on it."""
    true = rng.standard_normal((n, 12)) * np.linspace(2, 0.5, 12)
    betas = true @ rng.standard_normal((12, 40)) + noise * rng.standard_normal((n, 40))
    folds = rng.permutation(n) % n_folds
    predicted = np.empty_like(true)
    for fold in range(n_folds):
        train = folds != fold
        centred = betas[train] - betas[train].mean(axis=0)
        gram = centred.T @ centred + 100 * np.eye(40)
        weights = np.linalg.solve(gram, centred.T @ (true[train] - true[train].mean(axis=0)))
        predicted[~train] = (betas[~train] - betas[train].mean(axis=0)) @ weights + true[train].mean(axis=0)

    return predicted, true, folds


@pytest.mark.parametrize("n_folds", [5, 10, 60])
@pytest.mark.parametrize("noise", [1e3, 8.0])
def test_intervals_out_of_fold_cover(n_folds, noise):
    values = []
    plain = []
    for world in range(200):
        rng = np.random.default_rng(world)
        predicted, true, _ = _out_of_fold(rng, 60, n_folds, noise)
        similarity = np.corrcoef(predicted, true)[:60, 60:]
        wins = (similarity < np.diag(similarity)[:, None]).astype(float)
        counted = 1 - np.eye(60)
        plain.append(bootstrap(mean_of_pairs(wins, counted), 60, rng=rng, n_draws=400))
        values.append(plain[-1].value)

    expected = np.mean(values)
    before = np.mean([one.low <= expected <= one.high for one in plain])
    after = np.mean([w.low <= expected <= w.high for w in (widened(one, n_folds) for one in plain)])
    assert before < 0.91
    assert after > 0.88


def test_chance_out_of_fold_is_below_one_half_and_is_measured_on_noise():
    from phosphene.metrics.registry import chance_out_of_fold

    rng = np.random.default_rng(0)
    n = 60
    predicted, true, folds = _out_of_fold(rng, n, 10, 1e3)
    low = true.min()
    scale = np.ptp(true)
    pictures = ((true - low) / scale).reshape(n, 3, 4, 1).astype(np.float32)
    decoded = np.clip((predicted - low) / scale, 0, 1).reshape(n, 3, 4, 1).astype(np.float32)

    of_noise = compute_scores(
        Decoded(np.arange(n).astype(str), decoded, pictures, folds=folds), metrics=["two_way.pixels"]
    )
    adjusted = chance_out_of_fold({"brain": of_noise, "noise": of_noise})
    chance = adjusted["brain"]["two_way.pixels"].chance
    assert of_noise["two_way.pixels"].chance == 0.5
    assert 0.4 < chance < 0.5


def test_one_split_widens_nothing_and_two_folds_most():
    assert widened(Interval(0.5, 0.4, 0.6), 1) == (0.5, 0.4, 0.6)
    assert widened(Interval(0.5, 0.4, 0.6), 2).low == pytest.approx(0.5 - 0.1 * np.sqrt(3))
