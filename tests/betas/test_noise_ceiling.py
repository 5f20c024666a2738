import numpy as np
import pandas as pd
import pytest

from phosphene.betas import ceiling, ncsnr
from phosphene.errors import DataError


def drawn(signal_sd: float, n: int = 800, repeats: int = 3, seed: int = 0):
    rng = np.random.default_rng(seed)
    stimulus = np.tile(np.arange(n), repeats)
    session = np.repeat(np.arange(repeats), n)
    betas = signal_sd * rng.normal(size=(n, 6))[stimulus] + rng.normal(size=(n * repeats, 6))
    return betas, pd.DataFrame({"stimulus": stimulus.astype(str), "session": session})


@pytest.mark.parametrize("sd", [0.5, 1.0, 2.0])
def test_ratio_is_that_of_the_standard_deviations_drawn(sd):
    np.testing.assert_allclose(ncsnr(*drawn(sd)), sd, rtol=0.1)  # 800 stimuli


def test_sessions_with_other_units_change_nothing():
    betas, table = drawn(1.0)
    other = betas * (1 + 4 * table["session"].to_numpy()[:, None]) + 100 * table["session"].to_numpy()[:, None]
    np.testing.assert_allclose(ncsnr(other, table), ncsnr(betas, table), rtol=1e-9)


def test_pure_noise_has_hardly_any_ceiling():
    assert ceiling(ncsnr(*drawn(0.0)), 1).max() < 0.05


def test_unequal_repeats_are_pooled_by_their_degrees_of_freedom():
    betas, table = drawn(1.0)
    kept = np.r_[np.arange(800), 800 + np.arange(300), 1600 + np.arange(100)]
    np.testing.assert_allclose(ncsnr(betas[kept], table.iloc[kept].reset_index(drop=True)), 1, rtol=0.2)


def test_ceiling_is_the_square_of_the_best_correlation():
    rng = np.random.default_rng(2)
    signal = rng.normal(size=20000)
    mean_of_three = 0.7 * signal + rng.normal(size=(3, 20000)).mean(axis=0)
    assert ceiling(0.7, 3) == pytest.approx(np.corrcoef(signal, mean_of_three)[0, 1] ** 2, abs=0.02)


def test_what_cannot_be_told_is_refused_or_zero():
    with pytest.raises(DataError, match="shown more than once"):
        ncsnr(np.ones((3, 2)), pd.DataFrame({"stimulus": ["a", "b", "c"]}))
    np.testing.assert_array_equal(ncsnr(np.ones((4, 2)), pd.DataFrame({"stimulus": list("aabb")})), 0)
    with pytest.raises(DataError, match="at least one trial"):
        ceiling(np.ones(2), 0)
