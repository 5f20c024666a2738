"""A whole simulated study: complete, repeatable, and decodable as a study of this size is."""

import numpy as np
import pytest

from phosphene.errors import ConfigError, MachineError
from phosphene.io import memory
from phosphene.lab import make


@pytest.fixture(scope="module")
def study():
    return make(n_train=360, n_test=40, n_voxels=600)


def test_everything_fits_together(study):
    assert study.betas.shape == (360 + 120, 600)
    assert study.betas.dtype == study.signal.dtype == np.float32
    assert study.images.shape == (400, 32, 32, 3)
    assert list(study.trials.columns) == ["trial", "stimulus", "session", "run", "repeat"]
    assert set(study.trials["stimulus"]) == set(study.ids)
    assert study.trials["stimulus"].value_counts()[list(study.split.test)].eq(3).all()
    assert list(study.labels.index) == list(study.ids)
    assert all(study.labels.loc[i, kind] for i, kind in zip(study.ids, study.category, strict=True))
    assert len(study.voxels) == 600


def test_the_same_arguments_make_the_same_study_and_others_another(study):
    again = make(n_train=360, n_test=40, n_voxels=600)
    assert np.array_equal(again.betas, study.betas)
    assert again.trials.equals(study.trials)
    other = make(n_train=360, n_test=40, n_voxels=600, subject=2)
    assert other.split.test == study.split.test
    assert not set(other.split.train) & set(study.split.train)
    assert not np.allclose(other.betas, study.betas)


def test_pictures_are_told_apart_from_betas_but_not_perfectly_and_not_when_shuffled(study):
    table = study.trials
    betas = study.betas.copy()
    for session in table["session"].unique():
        here = (table["session"] == session).to_numpy()
        betas[here] -= betas[here].mean(axis=0)
    row = {name: i for i, name in enumerate(study.ids)}
    stimulus = table["stimulus"].map(row).to_numpy()
    train = np.isin(stimulus, np.flatnonzero(~study.design.is_test))
    tests = np.flatnonzero(study.design.is_test)
    averaged = np.array([betas[stimulus == i].mean(axis=0) for i in tests])
    pixels = study.images.reshape(len(study.ids), -1) / 255.0
    rng = np.random.default_rng(0)

    def two_way(shown):
        x, y = betas[train].astype(float), pixels[shown]
        mean = y.mean(axis=0)
        decoded = averaged @ x.T @ np.linalg.solve(x @ x.T + 1000 * np.eye(len(x)), y - mean) + mean
        similar = np.corrcoef(decoded, pixels[tests])[: len(tests), len(tests) :]
        return (np.diag(similar)[:, None] > similar).sum() / (len(tests) * (len(tests) - 1))

    right = two_way(stimulus[train])
    wrong = np.mean([two_way(rng.permutation(stimulus[train])) for _ in range(20)])
    assert 0.8 < right < 0.98  # as studies of this size are
    assert abs(wrong - 0.5) < 0.05  # one shuffle scatters by 0.035, the mean of twenty by 0.01


@pytest.mark.parametrize("name", ["god", "bold5000", "clusters"])
def test_other_designs_make_studies_too(name):
    study = make(name, n_train=40, n_test=8, n_voxels=100)
    assert len(study.split.train) == 40
    assert len(study.split.test) == 8
    assert len(study.betas) == study.design.shown.sum()
    assert study.split.category_disjoint == (name == "god")


def test_an_unknown_design_is_refused():
    with pytest.raises(ConfigError, match="no design 'nds'"):
        make("nds")


@pytest.mark.skipif((memory.available() or 1e12) > 400e9, reason="this system has so much memory, or does not say")
def test_a_study_that_no_memory_holds_is_refused_before_anything_is_drawn():
    with pytest.raises(MachineError, match="190,060 .* 50,000 voxels need 420.* GB .* Lower n_train"):
        make(n_train=190_000, n_test=60, n_voxels=50_000, train_repeats=10)
