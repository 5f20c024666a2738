"""FID and KID: closed forms, other libraries, and what their bias is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.special import gammaln

from phosphene.errors import DataError
from phosphene.metrics.fid import fid_floor, fid_influence, fid_of, frechet_distance, kid_influence, kid_of


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def moments(x):
    return x.mean(axis=0), np.cov(x, rowvar=False)


def by_sqrtm(a, b):
    (mean_a, c_a), (mean_b, c_b) = moments(a), moments(b)
    return ((mean_a - mean_b) ** 2).sum() + np.trace(c_a + c_b - 2 * np.real(sqrtm(c_a @ c_b)))


def test_distance_of_gaussians_that_commute_is_the_closed_form(rng):
    """Diagonal covariances: the sum of squared differences of means and of standard deviations."""
    for d in (1, 5, 30):
        mean_a, mean_b = rng.standard_normal((2, d))
        s, t = rng.uniform(0.1, 3, (2, d))
        turn = np.linalg.qr(rng.standard_normal((d, d)))[0]  # distances do not know of rotations
        expected = ((mean_a - mean_b) ** 2).sum() + ((s - t) ** 2).sum()
        found = frechet_distance(turn @ mean_a, (turn * s**2) @ turn.T, turn @ mean_b, (turn * t**2) @ turn.T)
        assert found == pytest.approx(expected, rel=1e-9)  # float64 eigenvalues


def test_distance_of_points_and_of_flat_gaussians_is_exact():
    """Rank 0 and 1: where a root of the product of covariances is undefined or loses half its digits."""
    nothing, flat = np.zeros((3, 3)), np.outer([1.0, 2, 2], [1, 2, 2])
    assert frechet_distance([0, 0, 0], nothing, [1, 2, 2], nothing) == 9
    assert frechet_distance([0, 0, 0], flat, [0, 0, 0], 4 * flat) == pytest.approx(9)  # lengths 3 and 6 along one line
    across = np.outer([2.0, -1, 0], [2, -1, 0])  # at right angles: nothing shared
    assert frechet_distance([0, 0, 0], flat, [0, 0, 0], across) == pytest.approx(9 + 5)


def test_fid_agrees_with_the_matrix_square_root(rng):
    a, b = rng.standard_normal((80, 12)), 1.3 * rng.standard_normal((60, 12)) @ rng.standard_normal((12, 12)) + 0.4
    assert fid_of(a, b) == pytest.approx(by_sqrtm(a, b), rel=1e-8)
    assert fid_of(a, b) == pytest.approx(fid_of(b, a))
    (mean_a, c_a), (mean_b, c_b) = moments(a), moments(b)
    assert fid_of(a, b) == pytest.approx(frechet_distance(mean_a, c_a, mean_b, c_b), rel=1e-9)


def test_fid_agrees_with_torchmetrics(rng):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("torchmetrics.image.fid")._compute_fid
    a, b = rng.standard_normal((90, 16)), 0.7 * rng.standard_normal((70, 16)) + 0.2
    found = theirs(*(torch.from_numpy(np.asarray(x)) for x in (*moments(a), *moments(b))))
    assert fid_of(a, b) == pytest.approx(float(found), rel=1e-6)  # theirs takes roots of eigenvalues of a product


def test_fid_of_fewer_pictures_than_features_is_right(rng):
    """By turning all data into the space they span, where the covariances have no zero eigenvalues to trip over."""
    a, b = rng.standard_normal((2, 20, 100))
    shared = np.linalg.svd((a - a.mean(0)) @ (b - b.mean(0)).T, compute_uv=False).sum() / 19
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + a.var(0, ddof=1).sum() + b.var(0, ddof=1).sum() - 2 * shared
    assert fid_of(a, b) == pytest.approx(expected)
    padded = [np.pad(x, ((0, 0), (0, 30))) for x in (a, b)]
    assert fid_of(*padded) == pytest.approx(fid_of(a, b))
    narrow = [np.pad(x[:, :6], ((0, 0), (0, 50))) for x in (a, b)]  # 20 rows, rank 6
    assert fid_of(*narrow) == pytest.approx(by_sqrtm(a[:, :6], b[:, :6]), rel=1e-8)


def test_identical_sets_are_no_distance_apart(rng):
    x = rng.standard_normal((30, 40))
    assert fid_of(x, x[::-1]) == pytest.approx(0, abs=1e-9)
    assert kid_of(x, x, paired=True) == 0
    shift = np.full(40, 0.5)
    assert fid_of(x, x + shift) == pytest.approx(40 * 0.25)


@pytest.mark.parametrize("n", [3, 10, 40])
def test_bias_of_fid_of_one_feature_is_the_closed_form(rng, n):
    """E (mean_a - mean_b)^2 = 2/n and E (s_a - s_b)^2 = 2 - 2 c4^2, with c4 the mean of a standard deviation of 1."""
    c4 = np.sqrt(2 / (n - 1)) * np.exp(gammaln(n / 2) - gammaln((n - 1) / 2))
    found = [fid_of(*rng.standard_normal((2, n, 1))) for _ in range(2000)]
    assert np.mean(found) == pytest.approx(2 / n + 2 * (1 - c4**2), abs=4 * np.std(found) / np.sqrt(2000))


@pytest.mark.parametrize(("n", "expected"), [(50, 43.9), (113, 19.7)])
def test_bias_of_fid_at_small_n_is_what_the_documentation_says(rng, n, expected):
    """Two samples of one isotropic 64-d Gaussian: the truth is 0, every bit of the number is bias."""
    found = [fid_of(rng.standard_normal((n, 64)), rng.standard_normal((n, 64))) for _ in range(40)]
    error = np.std(found) / np.sqrt(40)
    assert np.mean(found) == pytest.approx(expected, abs=4 * error + 0.05)  # the printed figure is rounded to 0.1


def test_kid_has_no_such_bias(rng):
    found = [kid_of(rng.standard_normal((50, 64)), rng.standard_normal((50, 64))) for _ in range(60)]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(60)
    assert min(found) < 0 < max(found)


def test_kid_agrees_with_torchmetrics(rng):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("torchmetrics.image.kid").poly_mmd
    a, b = rng.standard_normal((25, 8)), rng.standard_normal((25, 8)) + 0.3
    expected = float(theirs(torch.from_numpy(a), torch.from_numpy(b)))
    assert kid_of(a, b) == pytest.approx(expected, rel=1e-9)


def test_kid_of_pairs_is_unbiased_where_the_plain_one_is_too_low(rng):
    """Decoded pictures that depend on their truth, of the very same distribution: 0 is right."""
    plain, paired = [], []
    for _ in range(200):
        true = rng.standard_normal((20, 6))
        ours = 0.9 * true + np.sqrt(1 - 0.81) * rng.standard_normal((20, 6))
        plain.append(kid_of(ours, true))
        paired.append(kid_of(ours, true, paired=True))
    error = np.std(paired) / np.sqrt(200)
    assert abs(np.mean(paired)) < 4 * error
    assert np.mean(plain) < -4 * np.std(plain) / np.sqrt(200)


def test_kid_of_pairs_is_the_mean_over_all_quadruples(rng):
    a, b = rng.standard_normal((2, 7, 3))

    def k(x, y):
        return (x @ y / 3 + 1) ** 3

    each = [k(a[i], a[j]) + k(b[i], b[j]) - k(a[i], b[j]) - k(a[j], b[i]) for i in range(7) for j in range(7) if i != j]
    assert kid_of(a, b, paired=True) == pytest.approx(np.mean(each))


@pytest.mark.parametrize(("influence", "whole"), [(fid_influence, fid_of), (kid_influence, None)])
def test_influence_is_the_jackknife_and_has_the_score_as_mean(rng, influence, whole):
    a = rng.standard_normal((15, 4))
    b = 0.5 * a + rng.standard_normal((15, 4)) + 0.3
    whole = whole or (lambda x, y: kid_of(x, y, paired=True))
    found = influence(a, b)
    assert found.mean() == pytest.approx(whole(a, b))
    without = np.array([whole(np.delete(a, i, 0), np.delete(b, i, 0)) for i in range(15)])
    np.testing.assert_allclose(found - found.mean(), 14 * (without.mean() - without), rtol=1e-6, atol=1e-10)


def test_spread_of_the_influence_is_the_sampling_error(rng):
    """Jackknife standard error against the standard deviation over many data sets, of which it estimates the mean."""
    found, errors = {"fid": [], "kid": []}, {"fid": [], "kid": []}
    for draw in range(150):
        true = rng.standard_normal((40, 30))
        ours = 0.6 * true + 0.5 * rng.standard_normal((40, 30)) + 0.2
        found["fid"].append(fid_of(ours, true))
        found["kid"].append(kid_of(ours, true, paired=True))
        if draw < 15:
            errors["fid"].append(fid_influence(ours, true).std(ddof=1) / np.sqrt(40))
            errors["kid"].append(kid_influence(ours, true).std(ddof=1) / np.sqrt(40))
    for name in ("fid", "kid"):  # a standard deviation of 150 draws is known to 6 %, the jackknife errs by some more
        assert np.mean(errors[name]) == pytest.approx(np.std(found[name]), rel=0.3), name


@pytest.mark.parametrize(("n", "spectrum"), [(40, 0.0), (60, 0.5), (120, 1.0)])
def test_floor_holds_the_fid_of_two_perfect_sets(rng, n, spectrum):
    sd = np.arange(1.0, 65) ** (-spectrum / 2)

    def sample():
        return rng.standard_normal((n, 64)) * sd

    perfect = np.mean([fid_of(sample(), sample()) for _ in range(20)])
    floors = np.array([fid_floor(sample(), rng=rng) for _ in range(5)]).mean(axis=0)
    assert floors[0] * 0.95 < perfect < floors[1]  # 5 %: at 120 in 64 dimensions halving n doubles the bias just so
    assert np.isnan(fid_floor(sample()[:3], rng=rng)).all()


def test_sets_that_cannot_be_compared_are_refused(rng):
    x = rng.standard_normal((6, 3))
    with pytest.raises(DataError, match=r"\(1, 3\)"):
        fid_of(x[:1], x)
    with pytest.raises(DataError, match=r"\(6, 2\)"):
        kid_of(x, x[:, :2])
    with pytest.raises(DataError, match="1 and 0 rows"):
        fid_of(np.r_[x[:5], [[np.nan] * 3]], x)
    with pytest.raises(DataError, match="6 and 5 rows"):
        kid_of(x, x[:5], paired=True)
