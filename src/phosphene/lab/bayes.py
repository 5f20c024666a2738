"""The best linear decoder, computed from the true signals and the true noise: the most that a linear recipe can reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from phosphene.errors import DataError
from phosphene.lab.response_noise import NoiseModel


@dataclass(frozen=True)
class BayesLinear:
    """A linear decoder with its expected accuracy, in closed form.

    Attributes
    ----------
    weights : ndarray of shape (n_voxels, n_targets), float64
    intercept : ndarray of shape (n_targets,)
    noise_power : ndarray of shape (n_targets,)
        variance that the measurement noise adds to each prediction
    fade : float
        mean adaptation of the responses decoded
    learned : Accuracy
        expected correlation and explained variance over the stimuli it learned from, (n_targets,) each; at least those
        of the best linear decoder there is
    """

    weights: np.ndarray
    intercept: np.ndarray
    noise_power: np.ndarray
    fade: float
    learned: Accuracy

    def predict(self, betas: np.ndarray) -> np.ndarray:
        """Decode (n, n_voxels) betas, gain and offset of their session removed: (n, n_targets) float64."""
        return betas @ self.weights + self.intercept

    def expected(self, signal: np.ndarray, targets: np.ndarray) -> Accuracy:
        """Accuracy on other stimuli, over all noise, without drawing any.

        Parameters
        ----------
        signal : ndarray of shape (n, n_voxels)
            noiseless responses
        targets : ndarray of shape (n, n_targets)
            truth

        Returns
        -------
        Accuracy
            at most that of the best linear decoder there is (in expectation over stimuli)
        """
        return _accuracy(self.predict(self.fade * np.asarray(signal, dtype=np.float64)), targets, self.noise_power)


@dataclass(frozen=True)
class Accuracy:
    """How well targets are decoded.

    Attributes
    ----------
    correlation : ndarray of shape (n_targets,)
        of prediction and truth over stimuli, at the expected variances
    explained : ndarray of shape (n_targets,)
        1 - expected squared error / variance of the target; may be negative
    """

    correlation: np.ndarray
    explained: np.ndarray


def _accuracy(clean: np.ndarray, targets: np.ndarray, noise_power: np.ndarray) -> Accuracy:
    """Accuracy of predictions that are `clean` plus noise of this power, over stimuli."""
    targets = np.asarray(targets, dtype=np.float64)
    variance = targets.var(axis=0)
    covariance = ((clean - clean.mean(axis=0)) * (targets - targets.mean(axis=0))).mean(axis=0)
    size = np.sqrt(variance * (clean.var(axis=0) + noise_power))
    error = ((clean - targets) ** 2).mean(axis=0) + noise_power

    # A target that never varies cannot be decoded.
    floor = 1e-12 * max(float(variance.max(initial=0.0)), 1e-300)
    varies = variance > floor
    correlation = np.where(varies, covariance / np.maximum(size, 1e-300), 0.0)
    explained = np.where(varies, 1.0 - error / np.maximum(variance, 1e-300), 0.0)

    return Accuracy(correlation, explained)


def fit_bayes_linear(
    signal: np.ndarray, targets: np.ndarray, noise: NoiseModel, fade: float, repeats: int
) -> BayesLinear:
    """Minimum mean square error among linear decoders.

    Parameters
    ----------
    signal : ndarray of shape (n, n_voxels)
        noiseless responses
    targets : ndarray of shape (n, n_targets)
        what is to be decoded
    noise : NoiseModel
        of one trial
    fade : float
        mean adaptation of the responses to be decoded
    repeats : int
        how many trials they average, in different runs

    Returns
    -------
    BayesLinear

    Raises
    ------
    DataError
        with fewer than two stimuli or another number of targets than signals
    """
    signal = np.asarray(signal, dtype=np.float64) * fade
    targets = np.asarray(targets, dtype=np.float64).reshape(len(targets), -1)
    if len(signal) != len(targets) or len(signal) < 2:
        raise DataError(
            f"signal and targets need the same stimuli, at least two; got {len(signal)} and {len(targets)}."
        )

    n = len(signal)
    signal_mean = signal.mean(axis=0)
    target_mean = targets.mean(axis=0)
    centred = signal - signal_mean

    # W = (S'S/n + N)^-1 S'T/n = N^-1 S' (S N^-1 S' + n I)^-1 T, with N the noise covariance of the mean of `repeats` trials.
    white = repeats * noise.whiten(centred)  # (n, n_voxels)
    gram = centred @ white.T  # (n, n)
    gram[np.diag_indices(n)] += n
    weights = white.T @ linalg.solve(
        gram, targets - target_mean, assume_a="pos", overwrite_a=True
    )  # (n_voxels, n_targets)

    # What the noise of the mean adds to each prediction: w' N w.
    shared = noise.factors.T @ weights  # (k, n_targets)
    power = ((shared**2).sum(axis=0) + (noise.own_variance[:, None] * weights**2).sum(axis=0)) / repeats
    intercept = target_mean - signal_mean @ weights  # (n_targets,)

    return BayesLinear(weights, intercept, power, fade, _accuracy(signal @ weights + intercept, targets, power))
