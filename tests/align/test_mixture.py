import numpy as np
import pytest
from scipy.stats import multivariate_normal

from phosphene.align.decoders import LinearGaussian, fit_encoding, invert
from phosphene.align.mixture import MixtureDecoder, posterior


def problem(seed=0, n_latents=3, n_voxels=6, n_candidates=5):
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((n_latents, n_voxels))
    a = rng.standard_normal((n_voxels, n_voxels))
    return rng, w, a @ a.T / n_voxels + np.eye(n_voxels), rng.standard_normal((n_candidates, n_latents))


@pytest.mark.parametrize("trust", [1.0, 0.3])
def test_the_posterior_is_that_of_joint_gaussians_written_out_in_voxels(trust):
    """Bayes' rule with the density of every component and textbook conditioning, no Woodbury, no G."""
    rng, w, noise, z = problem()
    noise = noise / trust
    r = 0.4 * np.array([[1.0, 0.3, 0.0], [0.3, 1.5, 0.2], [0.0, 0.2, 0.7]])
    x = rng.standard_normal((4, 6))
    total = w.T @ r @ w + noise
    density = np.array([[multivariate_normal(c @ w, total).pdf(row) for c in z] for row in x])
    expected_p = density / density.sum(axis=1, keepdims=True)
    gain = r @ w @ np.linalg.inv(total)
    means = np.array([[c + gain @ (row - c @ w) for c in z] for row in x])
    expected = (expected_p[..., None] * means).sum(axis=1)
    inverse = np.linalg.inv(noise)
    p, moved = posterior(x @ inverse @ w.T, w @ inverse @ w.T, z, r)
    np.testing.assert_allclose(p, expected_p, rtol=1e-8)
    np.testing.assert_allclose(p @ z + moved, expected, rtol=1e-8)


def test_without_spread_the_mean_stays_among_the_candidates():
    rng, w, noise, z = problem(1)
    x = rng.standard_normal((4, 6))
    inverse = np.linalg.inv(noise)
    p, moved = posterior(x @ inverse @ w.T, w @ inverse @ w.T, z, np.zeros((3, 3)))
    expected = np.array([[multivariate_normal(c @ w, noise).pdf(row) for c in z] for row in x])
    np.testing.assert_allclose(p, expected / expected.sum(axis=1, keepdims=True), rtol=1e-8)
    np.testing.assert_allclose(moved, 0, atol=1e-10)


def test_many_gaussian_candidates_decode_as_the_linear_gaussian_decoder_does():
    """A sampled Gaussian prior is a Gaussian prior: the non-linear decoder must then agree with `invert`."""
    rng = np.random.default_rng(2)
    latents = rng.standard_normal((60, 2)).astype(np.float32)
    betas = (latents @ rng.standard_normal((2, 8)) + 2 * rng.standard_normal((60, 8))).astype(np.float32)
    encoding = fit_encoding(latents, betas, [1.0])
    model = LinearGaussian(encoding, latents, betas)
    drawn = rng.standard_normal((40000, 2)) * np.sqrt(model.prior) + model.centre
    decoder = MixtureDecoder.fit(model, drawn, correlation=0.2, trust=0.5, spread=0.0)
    linear = invert(betas, latents, encoding, rng=rng, correlations=[0.2], trusts=[0.5], alphas=[1.0])
    # Monte-Carlo error of a mean over some thousand effective candidates.
    np.testing.assert_allclose(decoder.predict(betas), linear.predict(betas), atol=0.06)


def test_voxels_that_are_not_used_change_nothing():
    rng = np.random.default_rng(3)
    latents = rng.standard_normal((50, 2)).astype(np.float32)
    signal = latents @ rng.standard_normal((2, 6)) + rng.standard_normal((50, 6))
    betas = np.concatenate([signal, rng.standard_normal((50, 6))], axis=1).astype(np.float32)
    model = LinearGaussian(fit_encoding(latents, betas), latents, betas)
    decoder = MixtureDecoder.fit(model, latents, correlation=0.1, trust=1.0, spread=0.1)
    unused = decoder.voxel_weights_ == 0
    assert unused.any() and not unused.all()
    altered = np.where(unused, 100.0, betas)
    np.testing.assert_array_equal(decoder.predict(altered), decoder.predict(betas))


def test_saving_and_loading_changes_no_bit():
    rng = np.random.default_rng(4)
    latents = rng.standard_normal((30, 2)).astype(np.float32)
    betas = (latents @ rng.standard_normal((2, 5)) + rng.standard_normal((30, 5))).astype(np.float32)
    model = LinearGaussian(fit_encoding(latents, betas), latents, betas)
    decoder = MixtureDecoder.fit(model, latents, correlation=0.1, trust=0.5, spread=0.1)
    back = MixtureDecoder.from_state(*decoder.state())
    np.testing.assert_array_equal(back.predict(betas), decoder.predict(betas))
