"""Standardisation: against scikit-learn, and blind to everything but training trials."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

from phosphene.data import Standardiser
from phosphene.errors import ConfigError, DataError, ModelError, PhospheneWarning
from phosphene.types import Trials


def trials(betas, sessions=0, subject="s"):
    table = pd.DataFrame({"stimulus": [f"p{i}" for i in range(len(betas))], "session": sessions})
    return Trials(np.asarray(betas), table, subject=subject)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_it_agrees_with_scikit_learn_in_double_precision(rng, scale):
    train, test = (rng.normal(3, 1, (n, 11)).astype("f4") * np.float32(scale) for n in (50, 7))
    reference = StandardScaler().fit(train.astype(float))
    got = Standardiser().fit(trials(train)).transform(trials(test)).betas
    # The result is rounded to float32 once: half a unit in the last place of values below 8.
    np.testing.assert_allclose(got, reference.transform(test.astype(float)), atol=5e-7)


def test_blocks_give_the_same_as_all_at_once(rng, monkeypatch):
    x = rng.normal(1000, 1, (101, 5)).astype("f4")
    whole = Standardiser().fit(trials(x))
    monkeypatch.setattr("phosphene.data.standardise._BLOCK_BYTES", 8 * 5 * 7)  # seven rows
    monkeypatch.setattr("phosphene.data.standardise._EAGER_BYTES", 0)
    parts = Standardiser().fit(trials(x))
    np.testing.assert_allclose(parts.mean_, whole.mean_, rtol=1e-14)  # sums in another order
    np.testing.assert_allclose(parts.scale_, whole.scale_, rtol=1e-11)  # of deviations 1/1000 of the mean
    lazy = parts.transform(trials(x))
    assert not isinstance(lazy.source, np.ndarray)
    np.testing.assert_allclose(lazy.betas, whole.transform(trials(x)).betas, atol=1e-6)
    assert np.array_equal(lazy.take(np.array([5, 2, 90])).betas, lazy.betas[[5, 2, 90]])


def test_the_other_rows_of_a_test_set_do_not_matter(rng):
    z = Standardiser().fit(trials(rng.normal(size=(20, 4))))
    test = rng.normal(size=(6, 4))
    alone = np.concatenate([z.transform(trials(test[i : i + 1])).betas for i in range(6)])
    assert np.array_equal(alone, z.transform(trials(test)).betas)


def test_the_lineage_names_every_trial_seen_averaged_ones_taken_apart():
    table = pd.DataFrame({"stimulus": ["a", "b", "a"], "trial": [10, 11, 12]})
    averaged = Trials(np.eye(3), table, subject="s").average_repeats()
    assert Standardiser().fit(averaged).lineage_ == {"s/10", "s/11", "s/12"}


def test_inverse_undoes_transform(rng):
    x = rng.normal(5, 3, (30, 4)).astype("f4")
    z = Standardiser().fit(trials(x))
    np.testing.assert_allclose(z.inverse(z.transform(trials(x)).betas), x, atol=2e-6)  # float32 of values near 10


@pytest.mark.fault(4)
def test_a_voxel_constant_in_training_is_listed_and_gives_no_nan(rng):
    x = rng.normal(size=(20, 3)).astype("f4")
    x[:, 1] = 0.1  # not a sum of powers of two: a mean by summation differs from it by rounding
    z = Standardiser().fit(trials(x))
    assert list(z.constant_) == [1]
    assert z.scale_[1] == 1
    assert np.array_equal(z.transform(trials(x)).betas[:, 1], np.zeros(20))


@pytest.mark.fault(5)
def test_a_voxel_constant_in_test_only_is_standardised_as_any_other(rng):
    train, test = rng.normal(size=(20, 2)), rng.normal(size=(5, 2))
    test[:, 0] = 2.0
    z = Standardiser().fit(trials(train))
    expected = (2.0 - train[:, 0].astype("f4").mean(dtype=float)) / train[:, 0].astype("f4").std(dtype=float)
    np.testing.assert_allclose(z.transform(trials(test)).betas[:, 0], expected, rtol=1e-6)


@pytest.mark.fault(6)
def test_voxels_that_are_all_constant_are_refused():
    with pytest.raises(DataError, match="none of the 3 voxels of s changes over 5"):
        Standardiser().fit(trials(np.ones((5, 3))))


@pytest.mark.fault(15)
def test_a_single_trial_has_no_spread():
    with pytest.raises(DataError, match="1 training trial"):
        Standardiser().fit(trials(np.ones((1, 3))))


@pytest.mark.fault(16)
def test_one_voxel_is_enough(rng):
    out = Standardiser().fit(trials(rng.normal(size=(9, 1))))
    assert out.mean_.shape == (1,)


@pytest.mark.fault(11)
def test_another_voxel_count_is_refused_with_both(rng):
    z = Standardiser().fit(trials(rng.normal(size=(9, 4))))
    with pytest.raises(DataError, match=r"have 3 voxels .* fitted on 4"):
        z.transform(trials(rng.normal(size=(9, 3))))
    with pytest.raises(DataError, match="subject other"):
        z.transform(trials(rng.normal(size=(9, 4)), subject="other"))


@pytest.mark.fault(1)
def test_nan_is_refused_with_voxel_and_trial(rng):
    x = rng.normal(size=(9, 4))
    x[6, 2] = np.nan
    with pytest.raises(DataError, match=r"voxel 2 of s is nan in trial '6'"):
        Standardiser().fit(trials(x))


@pytest.mark.fault(12)
def test_float16_and_int16_betas_are_summed_without_overflow():
    for dtype in ("f2", "i2"):
        x = np.array([[30000], [30016]] * 10, dtype=dtype)  # sums beyond 65504 and 32767
        z = Standardiser().fit(trials(x))
        assert z.mean_ == pytest.approx(30008)
        assert z.scale_ == pytest.approx(8)


def test_per_session_removes_drift_between_sessions_that_the_global_one_keeps(rng):
    sessions = np.repeat([1, 2], 50)
    x = rng.normal(size=(100, 3)) + 10 * sessions[:, None]
    per = Standardiser(per_session=True).fit(trials(x, sessions)).transform(trials(x, sessions)).betas
    for s in (1, 2):
        np.testing.assert_allclose(per[sessions == s].mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(per[sessions == s].std(axis=0), 1, atol=1e-6)
    glob = Standardiser().fit(trials(x)).transform(trials(x)).betas
    assert (np.abs(glob[sessions == 1].mean(axis=0)) > 0.9).all()


def test_a_session_without_training_trials_gets_training_statistics_and_a_warning(rng):
    sessions = np.repeat([1, 2], 20)
    z = Standardiser(per_session=True).fit(trials(rng.normal(size=(40, 3)), sessions))
    new = rng.normal(7, 2, (5, 3))
    with pytest.warns(PhospheneWarning, match="session 3 of s"):
        got = z.transform(trials(new, 3)).betas
    np.testing.assert_allclose(got, (new - z.mean_) / z.scale_, rtol=1e-4)


def test_inverse_per_session_undoes_transform(rng):
    sessions = np.repeat([1, 2], 20)
    x = rng.normal(size=(40, 3)) * sessions[:, None]
    z = Standardiser(per_session=True).fit(trials(x, sessions))
    np.testing.assert_allclose(z.inverse(z.transform(trials(x, sessions)).betas, sessions), x, atol=1e-6)


def test_saving_and_loading_changes_nothing(rng):
    sessions = np.repeat([1, 2], 20)
    t = trials(rng.normal(size=(40, 3)), sessions)
    z = Standardiser(per_session=True, ddof=1).fit(t)
    tensors, meta = z.state()
    again = Standardiser.from_state(tensors, json.loads(json.dumps(meta)))
    assert np.array_equal(again.transform(t).betas, z.transform(t).betas)
    assert again.lineage_ == z.lineage_
    with pytest.raises(ModelError, match="missing mean"):
        Standardiser.from_state({k: v for k, v in tensors.items() if k != "mean"}, meta)


def test_transform_before_fit_says_so():
    with pytest.raises(ModelError, match="call fit"):
        Standardiser().transform(trials(np.eye(2)))


def test_pooled_takes_one_mean_and_spread_of_all_entries_and_leaves_voxels_their_own(rng, monkeypatch):
    train, test = (rng.normal([0, 3, -40], [1, 5, 0.1], (n, 3)).astype("f4") for n in (50, 7))
    monkeypatch.setattr("phosphene.data.standardise._BLOCK_BYTES", 8 * 3 * 7)  # seven rows
    z = Standardiser(pooled=True).fit(trials(train))
    entries = train.astype(float)
    expected = (test.astype(float) - entries.mean()) / entries.std()
    np.testing.assert_allclose(z.transform(trials(test)).betas, expected, atol=5e-7)  # one rounding to float32
    np.testing.assert_allclose(z.inverse(expected), test, atol=1e-5)  # float32 of values near 40
    assert np.ptp(z.transform(trials(train)).betas.mean(0)) > 1
    again = Standardiser.from_state(*z.state())
    assert again.pooled
    assert np.array_equal(again.transform(trials(test)).betas, z.transform(trials(test)).betas)


def test_a_standardisation_saved_before_pooling_existed_still_loads(rng):
    z = Standardiser().fit(trials(rng.normal(size=(9, 4))))
    tensors, meta = z.state()
    del meta["pooled"]
    assert not Standardiser.from_state(tensors, meta).pooled


def test_pooled_and_per_session_exclude_each_other():
    with pytest.raises(ConfigError, match="leave one out"):
        Standardiser(per_session=True, pooled=True)
