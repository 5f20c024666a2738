"""The best linear decoder: its expected accuracy is what it reaches, and nothing linear does better."""

import numpy as np
import pytest

from phosphene.errors import DataError
from phosphene.lab import scenes
from phosphene.lab.subject import fade


@pytest.fixture(scope="module")
def targets():
    pixels = scenes.render_many(11, np.arange(480)).reshape(480, -1) / 255.0
    pixels = pixels - pixels.mean(axis=0)
    return pixels @ np.linalg.svd(pixels, full_matrices=False)[2][:8].T


def test_expected_accuracy_is_reached_on_measured_betas(subject, signal, targets):
    decoder = subject.bayes_linear(signal[:360], targets[:360], repeats=3)
    expected = decoder.expected(signal[360:], targets[360:])
    rng = np.random.default_rng(0)
    reached = []
    for _ in range(60):
        runs = [signal[360:] * f + subject.noise.sample(120, rng) for f in fade(np.arange(3))]
        decoded = decoder.predict(np.mean(runs, axis=0))
        error = ((decoded - targets[360:]) ** 2).mean(axis=0)
        correlation = [np.corrcoef(decoded[:, k], targets[360:, k])[0, 1] for k in range(8)]
        reached.append((correlation, 1 - error / targets[360:].var(axis=0)))
    correlation, explained = np.mean(reached, axis=0)
    # Means over 60 draws of noise. Within a run noise carries over, which lowers its variance about the run's mean a little.
    assert np.abs(correlation - expected.correlation).max() < 0.01
    assert np.abs(explained - expected.explained).max() < 0.02


def test_it_solves_the_normal_equations_of_true_signal_and_true_noise(subject, signal, targets):
    decoder = subject.bayes_linear(signal, targets, repeats=2)
    s = signal.astype(float) * fade(np.arange(2)).mean()
    s, t = s - s.mean(axis=0), targets - targets.mean(axis=0)
    dense = np.linalg.solve(s.T @ s / len(s) + subject.noise.covariance() / 2, s.T @ t / len(s))
    assert np.allclose(decoder.weights, dense, atol=1e-8 * np.abs(dense).max())
    # For the optimum, explained variance over what it learned from is the squared correlation.
    assert np.allclose(decoder.learned.explained, decoder.learned.correlation**2, atol=1e-8)


def test_no_ridge_decoder_beats_it_where_it_is_optimal(subject, signal, targets):
    best = subject.bayes_linear(signal, targets)
    s, t = signal - signal.mean(axis=0), targets - targets.mean(axis=0)
    noise = subject.noise.covariance()
    for strength in (1.0, 10.0, 100.0, 1000.0):
        w = np.linalg.solve(s.T @ s + len(s) * noise.mean() * np.eye(600) + strength * np.eye(600), s.T @ t)
        error = ((s @ w - t) ** 2).mean(axis=0) + np.einsum("vt,vu,ut->t", w, noise, w, optimize=True)
        assert (1 - error / t.var(axis=0) <= best.learned.explained + 1e-9).all()


def test_more_repeats_help_and_other_pictures_cost(subject, signal, targets):
    once, thrice = (subject.bayes_linear(signal[:360], targets[:360], m) for m in (1, 3))
    assert (thrice.learned.explained > once.learned.explained).all()
    assert thrice.expected(signal[360:], targets[360:]).explained.mean() < thrice.learned.explained.mean()


def test_a_target_that_never_varies_scores_zero_and_mismatched_rows_are_refused(subject, signal):
    flat = subject.bayes_linear(signal, np.ones((480, 1)))
    assert flat.learned.correlation == [0.0]
    with pytest.raises(DataError, match="same stimuli"):
        subject.bayes_linear(signal, np.ones((3, 1)))
