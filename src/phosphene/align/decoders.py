"""Two linear ways from voxels to latents: regress the latents on the voxels, or invert a model of the voxels.

Both begin with an encoding model, latents to voxels, and with what it predicts of responses it was not fitted on.
Rows are distinct stimuli throughout, so leaving a row out leaves a stimulus out.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from phosphene.align.ridge import Ridge
from phosphene.errors import DataError, PhospheneWarning
from phosphene.io.stages import take, versioned

ALPHAS = tuple(float(a) for a in np.logspace(-1, 7, 33))
"""Grid of ridge penalties, for inputs of unit variance."""

CORRELATIONS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
TRUSTS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


class LinearDecoder:
    """An affine map from voxels to latents.

        z = (x - mean_) weights_ + offset_

    Attributes
    ----------
    weights_ : array of shape (n_voxels, n_latents), float32
        rows of voxels that are not used are zero
    mean_ : array of shape (n_voxels,), float32
    offset_ : array of shape (n_latents,), float32
    voxel_weights_ : array of shape (n_voxels,), float32
        how much a voxel was trusted, 0 for unused
    chosen_ : dict of {str: Any}
        what was chosen inside the training trials, for people
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        weights: np.ndarray,
        mean: np.ndarray,
        offset: np.ndarray,
        voxel_weights: np.ndarray,
        chosen: dict[str, Any],
    ) -> None:
        self.weights_ = weights.astype(np.float32)
        self.mean_ = mean.astype(np.float32)
        self.offset_ = offset.astype(np.float32)
        self.voxel_weights_ = voxel_weights.astype(np.float32)
        self.chosen_ = chosen

    def predict(self, betas: np.ndarray) -> np.ndarray:
        """Latents, (n, n_latents) float32, of standardised betas (n, n_voxels)."""
        return (betas - self.mean_) @ self.weights_ + self.offset_

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain values, for saving."""
        tensors = {
            "weights": self.weights_,
            "mean": self.mean_,
            "offset": self.offset_,
            "voxel_weights": self.voxel_weights_,
        }

        return tensors, self.chosen_

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """The same decoder again."""
        return cls(*take(tensors, ("weights", "mean", "offset", "voxel_weights"), "LinearDecoder"), chosen=meta)


@versioned(1)
def fit_encoding(latents: np.ndarray, betas: np.ndarray, alphas: Sequence[float] = ALPHAS) -> Ridge:
    """Ridge from latents (n, n_latents) to voxels (n, n_voxels), a penalty per voxel by exact leave-one-out."""
    with warnings.catch_warnings():
        # Voxels without signal rightly take the largest penalty; that is no reason to widen the grid.
        warnings.filterwarnings("ignore", category=PhospheneWarning, message=".*penalt")
        return Ridge(alphas, choose="loo", per_target=True).fit(latents, betas)


class HeldOut:
    """What a fitted encoding model predicts of each training row when that row is left out, exactly.

    Parameters
    ----------
    encoding : Ridge
        Ridge fitted on these latents and betas
    latents : ndarray of shape (n, n_latents), float32
        one row per stimulus
    betas : ndarray of shape (n, n_voxels), float32
        standardised

    Attributes
    ----------
    residuals_ : array of shape (n, n_voxels), float32
        measured minus predicted
    r2_ : array of shape (n_voxels,), float32
        share of variance explained; 0 for constant voxels
    """

    version: ClassVar[int] = 1

    def __init__(self, encoding: Ridge, latents: np.ndarray, betas: np.ndarray) -> None:
        # The diagonal of the hat matrix of centred rows, for the penalty of every voxel.
        u, s, _ = np.linalg.svd((latents - latents.mean(axis=0)).astype(np.float64), full_matrices=False)
        shrink = s[:, None] ** 2 / (s[:, None] ** 2 + np.broadcast_to(encoding.alpha_, betas.shape[1]))
        leverage = 1 / len(latents) + (u**2) @ shrink
        error = (betas - encoding.predict(latents)) / np.maximum(1 - leverage, 1e-6)
        total = ((betas - betas.mean(axis=0)) ** 2).sum(axis=0, dtype=np.float64)
        left = (error**2).sum(axis=0)
        self.residuals_ = error.astype(np.float32)
        self.r2_ = np.where(total > 0, 1 - left / np.where(total > 0, total, 1), 0).astype(np.float32)


@versioned(1)
def reliable_voxels(r2: np.ndarray) -> np.ndarray:
    """Mask of voxels whose held-out responses the encoding model predicts (R2 > 0).

    Parameters
    ----------
    r2 : ndarray of shape (n_voxels,)
        held-out share of variance explained

    Returns
    -------
    ndarray of shape (n_voxels,), bool

    Raises
    ------
    DataError
        When no voxel is predicted better than by its mean.
    """
    mask = r2 > 0
    if not mask.any():
        raise DataError(
            f"none of {len(r2)} voxels is predicted from the pictures better than by its mean (largest held-out R2 "
            f"{r2.max():.3f}). Trials and stimuli may be misaligned, or the data too few or too noisy; check the trial "
            "order, or take all voxels where the recipe offers it (linear: recipe.decoder.kind=ridge with "
            "recipe.decoder.voxels=all; regressor: recipe.voxels=all)."
        )

    return mask


@versioned(1)
def regress(
    betas: np.ndarray, latents: np.ndarray, voxel_weights: np.ndarray, alphas: Sequence[float] = ALPHAS
) -> LinearDecoder:
    """Ridge of latents on weighted voxels, one penalty for all latents, chosen by exact leave-one-out.

    Parameters
    ----------
    betas : ndarray of shape (n, n_voxels), float32
        standardised
    latents : ndarray of shape (n, n_latents), float32
    voxel_weights : ndarray of shape (n_voxels,)
        not negative; a voxel is multiplied by its weight, so 0 leaves it out
    alphas : sequence of float, optional
        penalties to choose among

    Returns
    -------
    LinearDecoder
    """
    used = voxel_weights > 0
    # In units of their root mean square, weights do not change what a penalty means.
    scale = (voxel_weights[used] / np.sqrt(np.mean(voxel_weights[used] ** 2))).astype(np.float32)
    ridge = Ridge(alphas, choose="loo", per_target=False).fit(betas[:, used] * scale, latents)
    weights = np.zeros((betas.shape[1], latents.shape[1]), dtype=np.float32)
    weights[used] = ridge.coef_ * scale[:, None]
    zero = np.zeros(betas.shape[1], dtype=np.float32)

    return LinearDecoder(weights, zero, ridge.intercept_, voxel_weights, {"alpha": float(np.ravel(ridge.alpha_)[0])})


@versioned(1)
def invert(
    betas: np.ndarray,
    latents: np.ndarray,
    encoding: Ridge,
    *,
    rng: np.random.Generator,
    correlations: Sequence[float] = CORRELATIONS,
    trusts: Sequence[float] = TRUSTS,
    n_folds: int = 5,
    alphas: Sequence[float] = ALPHAS,
) -> LinearDecoder:
    """Most probable latents under a linear Gaussian model of the voxels.

        betas = latents W + noise,   noise ~ N(0, N),   latents ~ N(0, S)
        latents^ = (t W N^-1 W' + S^-1)^-1 t W N^-1 betas
        N = (1 - c) diag(v) + c E'E / n,   E the leave-one-out residuals of the encoding model, v their variances

    c (how far the noise correlations seen are believed) and t (how far the model is trusted against the prior) are
    chosen by the squared error of the latents in folds over the training stimuli.

    Parameters
    ----------
    betas : ndarray of shape (n, n_voxels), float32
        standardised
    latents : ndarray of shape (n, n_latents), float32
        centred and uncorrelated (principal components)
    encoding : Ridge
        Ridge fitted on all these rows
    rng : numpy.random.Generator
        draws the folds
    correlations, trusts : sequence of float, optional
        values of c and t to choose among
    n_folds : int, default 5
        how many folds
    alphas : sequence of float, optional
        penalties of the encoding models fitted inside the folds

    Returns
    -------
    LinearDecoder

    References
    ----------
    Naselaris et al. 2009, Neuron 63; Schoenmakers et al. 2013, NeuroImage 83 (linear Gaussian reconstruction).
    """
    n = len(betas)
    fold = rng.permutation(n) % min(n_folds, n)
    error = np.zeros((len(correlations), len(trusts)))

    for held_out in range(fold.max() + 1):
        inside = fold != held_out
        outside = fold == held_out
        inner = fit_encoding(latents[inside], betas[inside], alphas)
        model = LinearGaussian(inner, latents[inside], betas[inside])

        for i, correlation in enumerate(correlations):
            for j, trust in enumerate(trusts):
                predicted = model.decode(betas[outside], correlation, trust)
                error[i, j] += ((predicted - latents[outside]) ** 2).sum()

    i, j = np.unravel_index(int(error.argmin()), error.shape)
    model = LinearGaussian(encoding, latents, betas)
    chosen = {"correlation": correlations[i], "trust": trusts[j], "n_voxels_used": int(model.used.sum())}
    weights = np.zeros((betas.shape[1], latents.shape[1]), dtype=np.float32)
    weights[model.used] = model.weights(correlations[i], trusts[j])
    mean = np.zeros(betas.shape[1], dtype=np.float32)
    mean[model.used] = model.intercept

    return LinearDecoder(weights, mean, model.centre, np.where(model.used, np.maximum(model.r2, 0), 0), chosen)


class LinearGaussian:
    """The linear Gaussian model of some training rows, ready for any c and t. Parameters as of `HeldOut`.

    Attributes
    ----------
    used : array of shape (n_voxels,), bool
        voxels with held-out R2 > 0; r2 : (n_voxels,) those R2
    centre : array of shape (n_latents,)
        mean of the latents; intercept : (n_used,) response predicted there
    """

    version: ClassVar[int] = 1

    def __init__(self, encoding: Ridge, latents: np.ndarray, betas: np.ndarray) -> None:
        held_out = HeldOut(encoding, latents, betas)
        self.r2 = held_out.r2_
        self.used = reliable_voxels(self.r2)
        self.centre = latents.mean(axis=0)
        self.prior = np.maximum(latents.var(axis=0, dtype=np.float64), 1e-12)
        coef = encoding.coef_[:, self.used]
        self.intercept = encoding.intercept_[self.used] + self.centre @ coef
        residuals = held_out.residuals_[:, self.used]
        self.spread = np.sqrt((residuals**2).mean(axis=0))
        self.w = coef / self.spread  # (n_latents, n_used)
        self.e = residuals / self.spread  # (n, n_used)
        self.ww = (self.w @ self.w.T).astype(np.float64)
        values, vectors = np.linalg.eigh((self.e @ self.e.T).astype(np.float64))
        self.values = np.maximum(values, 0)
        self.vectors = vectors
        self.we = (self.w @ self.e.T).astype(np.float64) @ vectors  # (n_latents, n)

    def _shrunk(self, correlation: float) -> tuple[np.ndarray, np.ndarray]:
        """Woodbury: what the correlated part of the noise takes away, along its eigenvectors; and the precision."""
        c = correlation / (len(self.values) * (1 - correlation))
        taken = c / (1 + c * self.values)
        return taken, (self.ww - (self.we * taken) @ self.we.T) / (1 - correlation)

    def decode(self, betas: np.ndarray, correlation: float, trust: float) -> np.ndarray:
        """Most probable latents, (n, n_latents), of betas (n, n_voxels)."""
        taken, precision = self._shrunk(correlation)
        x = (betas[:, self.used] - self.intercept) / self.spread
        along = (x @ self.e.T).astype(np.float64) @ self.vectors
        evidence = ((x @ self.w.T) - (along * taken) @ self.we.T) / (1 - correlation)
        system = trust * precision + np.diag(1 / self.prior)

        return np.linalg.solve(system, trust * evidence.T).T + self.centre

    def weights(self, correlation: float, trust: float) -> np.ndarray:
        """(n_used, n_latents), from betas less `intercept` to latents less `centre`."""
        evidence, precision = self.evidence(correlation)
        system = trust * precision + np.diag(1 / self.prior)
        return np.linalg.solve(system, trust * evidence.T).T

    def evidence(self, correlation: float) -> tuple[np.ndarray, np.ndarray]:
        """N^-1 W' (n_used, n_latents), of betas from which `intercept` is taken, and W N^-1 W'."""
        taken, precision = self._shrunk(correlation)
        mixed = (self.w.T - self.e.T @ (self.vectors @ (taken[:, None] * self.we.T))) / (1 - correlation)
        return mixed / self.spread[:, None], precision
