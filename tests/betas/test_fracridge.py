import numpy as np
import pytest

from phosphene.betas import fracridge
from phosphene.errors import ConfigError

from .conftest import slow_badness

FRACTIONS = np.round(1 - 0.05 * np.arange(20), 2)


@pytest.fixture(scope="module")
def fit(small):
    """Factors, coefficients and alphas of the small study, without the voxel that never changes."""
    factors = [d.factor(13) for d in small.designs]
    c = [
        fracridge.coefficients(f, d.products(13, y[:, :11]))
        for f, d, y in zip(factors, small.designs, small.series, strict=True)
    ]
    alphas = fracridge.strengths(np.concatenate([f.s2 for f in factors]), np.concatenate(c), FRACTIONS)
    return factors, c, alphas


def explicit_ridge(small, alpha: float) -> np.ndarray:
    """Ridge of all runs from its normal equations."""
    out = []
    for design, y in zip(small.designs, small.series, strict=True):
        x = design.designs[13]
        out.append(np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), x.T @ y[:, :11].astype(float)))
    return np.concatenate(out)


def test_coefficients_are_as_long_as_the_fraction_says(small, fit):
    full = np.linalg.norm(explicit_ridge(small, 0), axis=0)
    for fraction, row in zip(FRACTIONS, fit[2], strict=True):
        for voxel in range(11):
            length = np.linalg.norm(explicit_ridge(small, float(row[voxel]))[:, voxel])
            assert length / full[voxel] == pytest.approx(
                fraction, abs=4e-3
            )  # interpolated in steps of a fifth of a decade


def test_strength_is_that_of_a_fine_search(small, fit):
    grid = np.r_[0, 10 ** np.linspace(-4, 6, 4001)]
    length = np.array([np.linalg.norm(explicit_ridge(small, a)[:, 0]) for a in grid])
    for fraction, alpha in zip(FRACTIONS[1:], fit[2][1:, 0], strict=True):
        best = grid[np.abs(length / length[0] - fraction).argmin()]
        # Where the length hardly depends on the strength (near 1), the same length belongs to strengths further apart.
        assert np.log1p(alpha) == pytest.approx(np.log1p(best), rel=0.05, abs=0.02)


def test_betas_are_those_of_the_normal_equations(small, fit):
    factors, c, alphas = fit
    for k in (0, 5, 19):
        ours = np.concatenate([fracridge.shrunk(f, x, alphas[k]) for f, x in zip(factors, c, strict=True)])
        for voxel in range(11):
            expected = explicit_ridge(small, float(alphas[k, voxel]))[:, voxel]
            np.testing.assert_allclose(ours[:, voxel], expected, atol=2e-3)


def test_all_fractions_at_once_equal_each_alone(fit):
    s2, c = np.concatenate([f.s2 for f in fit[0]]), np.concatenate(fit[1])
    for row, fraction in zip(fit[2], FRACTIONS, strict=True):
        np.testing.assert_array_equal(fracridge.strengths(s2, c, np.array([fraction]))[0], row)


def test_smaller_fractions_need_more_strength_and_one_needs_none(fit):
    assert (fit[2][0] == 0).all()
    assert (np.diff(fit[2], axis=0) > 0).all()


def test_badness_of_every_fraction_is_that_of_two_loops_over_trials(small, fit):
    factors, c, alphas = fit
    levels = [
        np.concatenate([fracridge.shrunk(f, x, row) for f, x in zip(factors, c, strict=True)]).astype(float)
        for row in alphas
    ]
    ours = fracridge.fraction_badness(factors, c, alphas, [d.rows for d in small.designs], small.repeats)
    np.testing.assert_allclose(ours, slow_badness(small, levels), rtol=2e-4)


def test_a_voxel_without_response_is_left_at_zero(small):
    zero = np.zeros((16, 2), np.float32)
    factor = small.designs[0].factor(13)
    alphas = fracridge.strengths(factor.s2, zero, FRACTIONS)
    assert (alphas == 0).all()
    assert (fracridge.shrunk(factor, zero, alphas[3]) == 0).all()


def test_autoscaling_is_a_regression_on_the_shrunk_betas():
    rng = np.random.default_rng(0)
    full = rng.normal(size=(30, 4)).astype("f4")
    small = (0.4 * full + 0.1 * rng.normal(size=full.shape) - 0.3).astype("f4")
    scale, offset = fracridge.autoscale(small, full)
    for v in range(4):
        expected = np.linalg.lstsq(np.column_stack([small[:, v], np.ones(30)]), full[:, v])[0]
        np.testing.assert_allclose([scale[v], offset[v]], expected, rtol=1e-5)


def test_autoscaling_never_turns_a_response_around():
    full = np.arange(6, dtype="f4")[:, None]
    scale, offset = fracridge.autoscale(-full, full)
    assert (scale[0], offset[0]) == (1, 0)


@pytest.mark.parametrize("wrong", [[0.0], [1.2], []])
def test_fractions_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="more than 0 and at most 1"):
        fracridge.strengths(np.ones(2), np.ones((2, 1), np.float32), np.array(wrong))
