import numpy as np
import pytest

from phosphene.betas import denoise, glm

from .conftest import LENGTHS, slow_badness, whole_data, whole_design


@pytest.fixture(scope="module")
def parts(small):
    """Four components of each run, of voxels 0 to 7."""
    return [denoise.components(denoise.pool_gram(y[:, :8]), 4) for y in small.series]


def test_components_are_the_left_singular_vectors_of_unit_series(small, parts):
    unit = small.series[1][:, :8] / np.linalg.norm(small.series[1][:, :8], axis=0)
    u = np.linalg.svd(unit.astype(float), full_matrices=False)[0][:, :4]
    np.testing.assert_allclose(np.abs(np.sum(u * parts[1], axis=0)), 1, atol=1e-4)  # up to sign; float32 sums
    assert (parts[1].max(axis=0) == np.abs(parts[1]).max(axis=0)).all()


@pytest.mark.parametrize("shape", [3, 13])
def test_badness_of_every_count_is_that_of_two_loops_over_trials(small, parts, shape):
    levels = []
    for count in range(5):
        design = whole_design(small, shape, [p[:, :count] for p in parts] if count else None)
        levels.append(np.linalg.lstsq(design, whole_data(small))[0][: small.n_trials])
    expected = slow_badness(small, levels)
    ours = denoise.component_badness(small.designs, shape, small.series, parts, small.repeats)
    np.testing.assert_allclose(ours[:, :11], expected[:, :11], rtol=2e-3)  # float32 betas, squared


def test_a_voxel_without_spread_has_no_badness_at_any_level(small, parts):
    """GLMsingle's division changes its argument in place, so that level 0 alone is set to 0."""
    ours = denoise.component_badness(small.designs, 13, small.series, parts, small.repeats)
    np.testing.assert_array_equal(ours[:, 11], 0)


def test_a_component_that_trials_explain_wholly_changes_nothing(small):
    x = small.designs[0].designs[13][:, :3]
    own = [np.linalg.qr(x)[0][:, :1], *[np.linalg.qr(d.designs[13][:, :1])[0] for d in small.designs[1:]]]
    ours = denoise.component_badness(small.designs, 13, small.series, own, small.repeats)
    np.testing.assert_allclose(ours[0, :11], ours[1, :11], rtol=1e-6)


def test_partners_are_trials_of_the_same_stimulus_in_another_fold(small):
    same = small.shown[:, None] == small.shown
    expected = same & (small.fold[:, None] != small.fold)
    np.testing.assert_array_equal(small.repeats.pairs.toarray() > 0, expected)
    np.testing.assert_array_equal(small.repeats.counts, expected.sum(axis=1))


def test_repeats_within_a_run_do_not_count():
    assert not denoise.Repeats.of(["a", "a", "b", "c"], np.array([0, 0, 1, 1]), np.ones(4)).any


@pytest.mark.parametrize(
    ("curve", "count"),
    [
        ([0, -1, -2], 0),
        ([0, 5, 9.8, 10, 9], 2),  # 9.8 * 1.05 reaches 10
        ([0, 5, 9, 10, 9], 3),
        ([-300, -200, -250, -199], 1),  # what counts is the gain over none
        ([3, 3, 3], 0),
        ([0, 1, 0.5, 2], 3),
    ],
)
def test_count_is_the_first_whose_gain_nearly_reaches_the_largest(curve, count):
    assert denoise.choose_count(np.array(curve, dtype=float)) == count


def test_threshold_is_where_two_known_gaussians_are_equally_likely():
    rng = np.random.default_rng(0)
    values = np.r_[rng.normal(0, 1, 30000), rng.normal(8, 2, 10000)]
    x = np.linspace(0, 8, 80001)
    upper = 0.25 / 2 * np.exp(-0.5 * ((x - 8) / 2) ** 2)
    crossing = x[np.flatnonzero(upper <= 0.75 * np.exp(-0.5 * x**2))[-1]]
    assert denoise.tail_threshold(values) == pytest.approx(crossing, abs=0.1)  # 40,000 draws


def test_threshold_is_the_same_each_time_and_ignores_what_is_not_finite():
    """GLMsingle's fit starts from an unseeded draw."""
    values = np.random.default_rng(3).gamma(1, 2, 500)
    assert denoise.tail_threshold(values) == denoise.tail_threshold(np.r_[values, np.nan, np.inf])
    assert denoise.tail_threshold(np.zeros(10)) == np.inf


@pytest.mark.parametrize("upper", [(4.0, 1.0), (3.0, 3.0), (2.0, 0.5)])
def test_threshold_is_that_of_another_library_s_fit(upper):
    from sklearn.mixture import GaussianMixture

    rng = np.random.default_rng(1)
    values = np.r_[rng.normal(0, 1, 3000), rng.normal(*upper, 1000)]
    fit = GaussianMixture(2, tol=1e-10, n_init=3, max_iter=5000, random_state=0).fit(values[:, None])
    grid = np.linspace(values.min(), values.max(), 20001)
    top = fit.predict_proba(grid[-1:, None]).argmax()
    expected = grid[np.flatnonzero(fit.predict_proba(grid[:, None])[:, top] <= 0.5)[-1]]
    assert denoise.tail_threshold(values) == pytest.approx(expected, abs=0.01)  # where each stops


def test_pool_holds_bright_voxels_that_do_not_respond():
    mean = np.array([100.0, 100, 100, 5, 0])
    pool = denoise.noise_pool(np.array([0.1, 9, 0.2, 0.1, 0]), mean, 1.0, (99.0, 0.1))
    np.testing.assert_array_equal(pool, [True, False, True, False, False])


def test_trend_is_that_of_responding_voxels_or_of_the_hundred_best():
    badness = np.array([[4.0, 1.0, 100.0], [2.0, 3.0, 0.0]])
    r2 = np.array([5.0, 6.0, 0.1])
    np.testing.assert_allclose(denoise.trend([badness], r2, 1.0), [-2.5, -2.5])
    np.testing.assert_allclose(denoise.trend([badness], r2, 50.0), [-4.0, -2.0])


def test_components_are_never_of_drift(small, parts):
    for part, design, n in zip(parts, small.designs, LENGTHS, strict=True):
        assert part.shape == (n, 4)
        assert np.abs(design.basis.T @ part).max() < 1e-4  # series were projected in float32


def test_components_stop_where_the_pool_has_no_more_dimensions(small):
    assert denoise.components(denoise.pool_gram(small.series[0][:, :2]), 10).shape[1] == 2
    assert denoise.components(np.zeros((9, 9)), 3).shape[1] <= 3
    assert glm.total_power(small.series)[11] == 0
