"""Voxelwise scores and ceilings against scipy, scikit-learn, closed forms and simulation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import r2_score

from phosphene.errors import DataError
from phosphene.metrics import (
    Encoded,
    ceiling_from_ncsnr,
    compute_scores,
    fdr,
    fraction_of_ceiling,
    noise_ceiling,
    pearson_per_voxel,
    r2_per_voxel,
    split_half_ceiling,
)
from phosphene.metrics.voxelwise import pearson_p, voxels_with_signal


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def simulate(rng, n_stimuli=2000, n_repeats=3, signal=1.0, noise=1.0, n_voxels=20):
    signal = signal * rng.standard_normal((n_stimuli, 1, n_voxels))
    return signal + noise * rng.standard_normal((n_stimuli, n_repeats, n_voxels)), signal[:, 0]


def test_pearson_and_r2_are_scipys_and_scikit_learns(rng):
    predicted, measured = rng.standard_normal((30, 5)), rng.standard_normal((30, 5))
    r = [stats.pearsonr(predicted[:, v], measured[:, v]) for v in range(5)]
    np.testing.assert_allclose(pearson_per_voxel(predicted, measured), [x.statistic for x in r])
    np.testing.assert_allclose(
        r2_per_voxel(predicted, measured), r2_score(measured, predicted, multioutput="raw_values")
    )
    one_sided = [stats.pearsonr(predicted[:, v], measured[:, v], alternative="greater").pvalue for v in range(5)]
    np.testing.assert_allclose(pearson_p(np.array([x.statistic for x in r]), 30), one_sided, rtol=1e-9)


@pytest.mark.fault(123)
def test_constant_voxels_are_undefined_without_a_warning(rng):
    measured = rng.standard_normal((10, 3))
    measured[:, 1] = 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        r, r2 = pearson_per_voxel(rng.standard_normal((10, 3)), measured), r2_per_voxel(measured + 0.1, measured)
    np.testing.assert_array_equal(np.isnan(r), [False, True, False])
    np.testing.assert_array_equal(np.isnan(r2), [False, True, False])


@pytest.mark.parametrize("m", [1, 3])
def test_ceiling_is_the_known_share_of_signal(rng, m):
    betas, _ = simulate(rng, signal=0.7, noise=1.4)
    expected = 0.49 / (0.49 + 1.96 / m)
    found = noise_ceiling(betas, n_averaged=m)
    assert found.variance.mean() == pytest.approx(expected, abs=0.01)  # 2,000 stimuli x 20 voxels
    assert found.ncsnr.mean() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_allclose(ceiling_from_ncsnr(found.ncsnr, m), found.variance)


def test_true_signal_reaches_the_ceiling_and_no_more(rng):
    betas, signal = simulate(rng)
    r = pearson_per_voxel(signal, betas.mean(axis=1))
    np.testing.assert_allclose(r**2, noise_ceiling(betas).variance, atol=0.06)  # sd of an r2 at 2,000 stimuli is 0.013


def test_ceiling_is_zero_for_pure_noise(rng):
    betas, _ = simulate(rng, signal=0)
    ceiling = noise_ceiling(betas).variance
    assert ceiling.max() < 0.12
    assert (ceiling == 0).any()


def test_ceiling_allows_unequal_repeats(rng):
    betas, _ = simulate(rng, n_repeats=4)
    stimuli = np.repeat(np.arange(2000), 4)
    keep = rng.random(len(stimuli)) < 0.7
    found = noise_ceiling(betas.reshape(-1, 20)[keep], stimuli[keep], n_averaged=2)
    assert found.variance.mean() == pytest.approx(2 / 3, abs=0.015)


def test_ceiling_does_not_depend_on_the_order_of_trials(rng):
    betas, _ = simulate(rng, n_stimuli=30)
    order = rng.permutation(90)
    stimuli = np.repeat(np.arange(30), 3)
    shuffled = noise_ceiling(betas.reshape(90, -1)[order], stimuli[order])
    np.testing.assert_allclose(shuffled.variance, noise_ceiling(betas).variance)


def test_split_halves_agree_with_the_closed_form(rng):
    betas, _ = simulate(rng, n_repeats=4)
    halves = split_half_ceiling(betas[:, :2].mean(axis=1), betas[:, 2:].mean(axis=1))
    np.testing.assert_allclose(halves, noise_ceiling(betas).variance, atol=0.03)


def test_ceiling_without_repeats_is_refused(rng):
    with pytest.raises(DataError, match="without repeats"):
        noise_ceiling(rng.random((5, 1, 3)))
    with pytest.raises(DataError, match="without repeats"):
        noise_ceiling(rng.random((1, 5, 3)))
    with pytest.raises(DataError, match="how many repeats"):
        noise_ceiling(rng.random((5, 3)), np.array([0, 0, 1, 1, 1]))


@pytest.mark.fault(126)
def test_ceiling_of_zero_or_nan_gives_no_ratio_and_is_counted(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fraction_of_ceiling(np.array([0.5, 0.5, 0.5, 0.9, np.nan]), np.array([0.0, np.nan, 1.0, 0.6, 0.5]))
        dead = noise_ceiling(np.ones((4, 2, 1)))
    np.testing.assert_array_equal(found.ratio, [np.nan, np.nan, 0.5, 1.5, np.nan])
    assert found.n_undefined == 3
    assert found.n_above_one == 1  # shown, not clipped
    assert np.isnan(dead.variance).all()


def test_fdr_is_the_step_up_procedure_of_benjamini_and_hochberg(rng):
    """Discoveries at q are the k smallest p, with k the largest rank for which p(k) <= k q / n."""
    p = rng.random(50) ** 3
    for q in (0.01, 0.05, 0.2):
        below = np.flatnonzero(np.sort(p) <= q * np.arange(1, 51) / 50)
        n_discoveries = below.max() + 1 if len(below) else 0
        assert (fdr(p) <= q).sum() == n_discoveries
        assert set(np.flatnonzero(fdr(p) <= q)) == set(np.argsort(p)[:n_discoveries])


def test_fdr_leaves_out_what_is_no_test(rng):
    p = rng.random(50) ** 3
    p[[3, 7]] = np.nan
    kept = ~np.isnan(p)
    np.testing.assert_allclose(fdr(p)[kept], stats.false_discovery_control(p[kept]))
    assert np.isnan(fdr(p)[[3, 7]]).all()


@pytest.mark.parametrize("alive", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("knows_training", [True, False])
def test_the_fraction_of_the_ceiling_does_not_shrink_with_dead_voxels(alive, knows_training):
    values = []
    for world in range(20):
        rng = np.random.default_rng(world)
        is_alive = np.arange(300) < alive * 300
        signal = rng.normal(size=(400, 300)) * is_alive  # 300 stimuli train, 100 test
        trials = signal[:, None] + rng.normal(size=(400, 3, 300))
        test = trials[300:]
        predicted = np.where(is_alive, signal[300:], rng.normal(size=(100, 300)))
        ceiling = noise_ceiling(test)
        reliable = None
        if knows_training:
            reliable = voxels_with_signal(trials[:300].reshape(-1, 300), np.repeat(np.arange(300), 3))
            assert reliable[is_alive].mean() > 0.99
            assert reliable[~is_alive].sum() < 0.05 * 300

        ids = np.arange(100).astype(str)
        encoded = Encoded(ids, predicted, test.mean(axis=1), ceiling.variance, ceiling.unclipped, reliable)
        name = "pearson.fraction_of_ceiling"
        values.append(compute_scores(None, encoded, metrics=[name], n_draws=100, n_permutations=1)[name].value)

    slack = 0.03 if knows_training else 0.15
    assert np.mean(values) == pytest.approx(1, abs=slack)


def test_the_unclipped_ceiling_has_no_bias_without_a_signal():
    noise = np.random.default_rng(0).normal(size=(20, 3, 4000))
    found = noise_ceiling(noise)
    assert found.unclipped.mean() == pytest.approx(0, abs=0.03)
    assert found.variance.mean() > 0.07
    signal = np.random.default_rng(1).normal(size=(50, 1, 2000)) + np.random.default_rng(2).normal(size=(50, 4, 2000))
    assert noise_ceiling(signal).unclipped.mean() == pytest.approx(0.8, abs=0.01)
    assert noise_ceiling(signal, n_averaged=1).unclipped.mean() == pytest.approx(0.5, abs=0.02)
