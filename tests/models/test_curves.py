import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from phosphene.models.curves import OutputCurve


def test_the_monotone_curve_is_isotonic_regression():
    rng = np.random.default_rng(0)
    decoded = rng.random((50, 8, 8, 1)).astype(np.float32)
    true = np.clip(decoded**2 + 0.1 * rng.standard_normal(decoded.shape), 0, 1)
    curve = OutputCurve.monotone(decoded, true)
    exact = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(decoded.ravel(), true.ravel())
    x = np.linspace(0.05, 0.95, 50)
    # Steps of isotonic regression are drawn as slopes between 513 knots.
    np.testing.assert_allclose(curve(x), exact.predict(x), atol=0.05)
    assert (np.diff(curve.outputs_) >= 0).all()


def test_the_monotone_curve_never_raises_the_squared_error_it_was_fitted_on():
    rng = np.random.default_rng(1)
    decoded = rng.normal(0.4, 0.2, (40, 6, 6, 1)).astype(np.float32)
    true = np.clip(2 * decoded - 0.3 + 0.1 * rng.standard_normal(decoded.shape), 0, 1)
    curve = OutputCurve.monotone(decoded, true)
    assert ((curve(decoded) - true) ** 2).mean() < ((decoded.clip(0, 1) - true) ** 2).mean()


def test_contrast_finds_the_curve_that_made_the_pictures():
    rng = np.random.default_rng(2)
    decoded = rng.random((20, 8, 8, 1)).astype(np.float32)
    true = OutputCurve.s_curve(6.0)(decoded)
    curve = OutputCurve.contrast(decoded, lambda pictures: -float(((pictures - true) ** 2).mean()))
    assert curve.chosen_["c"] == 6.0


@pytest.mark.parametrize("c", [0.0, 0.5, 4.0, 16.0])
def test_an_s_curve_keeps_black_white_and_middle_grey(c):
    np.testing.assert_allclose(
        OutputCurve.s_curve(c)(np.array([-1.0, 0.0, 0.5, 1.0, 2.0])), [0, 0, 0.5, 1, 1], atol=1e-6
    )


def test_constant_pictures_have_a_curve_too():
    curve = OutputCurve.monotone(np.full((2, 3, 3, 1), 0.5), np.full((2, 3, 3, 1), 0.25))
    np.testing.assert_allclose(curve(np.array([0.5])), [0.25])
