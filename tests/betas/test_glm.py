import numpy as np
import pytest

from phosphene.betas import glm

from .conftest import LENGTHS, SHAPES, TRIALS, whole_data, whole_design

CLOSE = 2e-3  # betas are about 4 and noise 1; sums are in float32


def products(small, shape):
    return [d.products(shape, y) for d, y in zip(small.designs, small.series, strict=True)]


@pytest.mark.parametrize("shape", SHAPES)
def test_least_squares_equal_those_of_one_matrix_for_the_whole_study(small, shape):
    expected = np.linalg.lstsq(whole_design(small, shape), whole_data(small))[0][: small.n_trials]
    ours = np.concatenate(
        [glm.least_squares(d, shape, xy) for d, xy in zip(small.designs, products(small, shape), strict=True)]
    )
    np.testing.assert_allclose(ours, expected, atol=CLOSE)


def test_separate_least_squares_equal_a_model_for_each_trial(small):
    run, shape = 1, 13
    x, drift, y = small.explicit[run][shape], small.drift[run], small.runs[run].volumes.astype(float)
    ours = glm.least_squares_separate(small.designs[run], shape, products(small, shape)[run])
    for trial in range(TRIALS):
        alone = np.column_stack([x[:, trial], np.delete(x, trial, axis=1).sum(axis=1), drift])
        np.testing.assert_allclose(ours[trial], np.linalg.lstsq(alone, y)[0][0], atol=CLOSE)


def test_on_off_r2_is_that_of_one_regressor(small):
    drift = whole_design(small, 13)[:, small.n_trials :]
    x = whole_design(small, 13)[:, : small.n_trials].sum(axis=1, keepdims=True)
    y = whole_data(small)

    def left(design):
        return ((y - design @ np.linalg.lstsq(design, y)[0]) ** 2).sum(axis=0)

    total = left(drift)
    expected = 100 * (1 - left(np.column_stack([x, drift]))[:11] / total[:11])
    ours = glm.on_off_r2(small.designs, small.series, 13)
    np.testing.assert_allclose(ours[:11], expected, atol=1e-3)
    assert ours[11] == 0  # a voxel that never changes


def test_the_chosen_response_is_the_one_whose_trials_explain_most(small):
    drift, y = whole_design(small, 0)[:, small.n_trials :], whole_data(small)[:, :11]
    total = ((y - drift @ np.linalg.lstsq(drift, y)[0]) ** 2).sum(axis=0)
    r2 = []
    for shape in range(20):
        x = whole_design(small, shape)
        r2.append(100 * (1 - ((y - x @ np.linalg.lstsq(x, y)[0]) ** 2).sum(axis=0) / total))
    chosen, ours = glm.choose_hrf(small.designs, small.series)
    np.testing.assert_allclose(ours[:, :11], r2, atol=1e-3)
    np.testing.assert_array_equal(chosen[:11], np.argmax(r2, axis=0))


def test_r2_of_given_betas_is_that_of_the_series_they_predict(small):
    betas = [np.full((TRIALS, 12), 0.7, np.float32) for _ in LENGTHS]
    error = sum(
        ((y - d.designs[13] @ b) ** 2).sum(axis=0) for y, d, b in zip(small.series, small.designs, betas, strict=True)
    )
    total = glm.total_power(small.series)
    ours = glm.explained_r2(small.designs, 13, betas, products(small, 13), total)
    np.testing.assert_allclose(ours[:11], 100 * (1 - error[:11] / total[:11]), atol=1e-3)


@pytest.mark.parametrize(("seconds", "degree"), [(20, 0), (59, 0), (60, 1), (300, 3), (299, 2), (720, 6)])
def test_degree_of_drift_is_half_the_minutes_rounded_up_from_halves(seconds, degree):
    assert glm.polynomial_degree(seconds) == degree


def test_drift_and_confounds_leave_nothing_behind():
    rng = np.random.default_rng(1)
    confounds = rng.normal(size=(80, 3)) * [1, 1e-5, 1e4]  # radians are small numbers
    basis = glm.nuisance_basis(80, 2, confounds)
    np.testing.assert_allclose(basis.T @ basis, np.eye(6), atol=1e-12)
    drift = np.linspace(-1, 1, 80)[:, None] ** np.arange(3) @ rng.normal(size=(3, 4)) * 20
    data = 1000 + drift + confounds @ np.diag([1, 1e5, 1e-4]) @ rng.normal(size=(3, 4))
    series, mean = glm.residuals(data.astype("f4"), basis)
    assert np.abs(series).max() < 2e-3  # float32 holds 1000 to 6e-5
    np.testing.assert_allclose(mean, data.mean(axis=0), rtol=1e-6)


def test_a_confound_that_is_a_drift_counts_once():
    line = np.linspace(-1, 1, 50)[:, None]
    assert glm.nuisance_basis(50, 1, line).shape == (50, 2)


@pytest.mark.fault(50)
def test_trials_that_cannot_be_told_apart_share_their_beta():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 3))
    design = glm.RunDesign.build(np.concatenate([x, x[:, :1]], axis=1)[None], np.zeros((60, 0)), slice(0, 4))
    assert design.factor(0).is_deficient
    y = (x @ np.array([[2.0], [1.0], [0.0]])).astype("f4")
    np.testing.assert_allclose(glm.least_squares(design, 0, design.products(0, y))[:, 0], [1, 1, 0, 1], atol=1e-5)
