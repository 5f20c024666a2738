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
"""Values of c, how far the noise correlations seen are believed; see `invert`."""

TRUSTS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Values of t, how far the encoding model is trusted against the prior; see `invert`."""

LEAST_VARIANCE = 1e-12  # of a latent in the prior, whose inverse is taken


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
        return (betas - self.mean_) @ self.weights_ + self.offset_  # (n, n_latents)

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
    """Ridge from latents to voxels, a penalty for each voxel by exact leave-one-out.

    Parameters
    ----------
    latents : ndarray of shape (n, n_latents)
        a row per stimulus
    betas : ndarray of shape (n, n_voxels)
        standardised
    alphas : sequence of float, optional
        penalties to choose among
    """
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
        centred = (latents - latents.mean(axis=0)).astype(np.float64)
        u, s, _ = np.linalg.svd(centred, full_matrices=False)
        alpha = np.broadcast_to(encoding.alpha_, betas.shape[1])
        shrink = s[:, None] ** 2 / (s[:, None] ** 2 + alpha)  # (n_latents, n_voxels)
        leverage = 1 / len(latents) + (u**2) @ shrink  # (n, n_voxels)

        # The error of a row left out is its residual over 1 - leverage.
        error = (betas - encoding.predict(latents)) / np.maximum(1 - leverage, 1e-6)
        unexplained = (error**2).sum(axis=0)
        total = ((betas - betas.mean(axis=0)) ** 2).sum(axis=0, dtype=np.float64)
        r2 = np.where(total > 0, 1 - unexplained / np.where(total > 0, total, 1), 0)

        self.residuals_ = error.astype(np.float32)
        self.r2_ = r2.astype(np.float32)


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
        of the same rows
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
    root_mean_square = np.sqrt(np.mean(voxel_weights[used] ** 2))
    scale = (voxel_weights[used] / root_mean_square).astype(np.float32)
    ridge = Ridge(alphas, choose="loo", per_target=False).fit(betas[:, used] * scale, latents)

    weights = np.zeros((betas.shape[1], latents.shape[1]), dtype=np.float32)
    weights[used] = ridge.coef_ * scale[:, None]
    mean = np.zeros(betas.shape[1], dtype=np.float32)
    chosen = {"alpha": float(np.ravel(ridge.alpha_)[0])}

    return LinearDecoder(weights, mean, ridge.intercept_, voxel_weights, chosen)


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

    for number in range(fold.max() + 1):
        inside = fold != number
        outside = fold == number
        inner = fit_encoding(latents[inside], betas[inside], alphas)
        model = LinearGaussian(inner, latents[inside], betas[inside])

        for i, correlation in enumerate(correlations):
            for j, trust in enumerate(trusts):
                predicted = model.decode(betas[outside], correlation, trust)
                error[i, j] += ((predicted - latents[outside]) ** 2).sum()

    best = np.unravel_index(int(error.argmin()), error.shape)
    correlation = correlations[int(best[0])]
    trust = trusts[int(best[1])]

    model = LinearGaussian(encoding, latents, betas)
    weights = np.zeros((betas.shape[1], latents.shape[1]), dtype=np.float32)
    weights[model.used] = model.weights(correlation, trust)
    mean = np.zeros(betas.shape[1], dtype=np.float32)
    mean[model.used] = model.intercept
    voxel_weights = np.where(model.used, np.maximum(model.r2, 0), 0)
    chosen = {"correlation": correlation, "trust": trust, "n_voxels_used": int(model.used.sum())}

    return LinearDecoder(weights, mean, model.centre, voxel_weights, chosen)


class LinearGaussian:
    """The linear Gaussian model of some training rows, ready for any c and t of `invert`.

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
    used : ndarray of shape (n_voxels,), bool
        voxels with held-out R2 > 0
    r2 : ndarray of shape (n_voxels,), float32
        held-out R2
    centre : ndarray of shape (n_latents,)
        mean of the latents
    intercept : ndarray of shape (n_used,)
        response predicted there
    """

    version: ClassVar[int] = 1

    def __init__(self, encoding: Ridge, latents: np.ndarray, betas: np.ndarray) -> None:
        held_out = HeldOut(encoding, latents, betas)
        self.r2 = held_out.r2_
        self.used = reliable_voxels(self.r2)

        # The prior, and the encoding model of the voxels used.
        self.centre = latents.mean(axis=0)
        self.prior = np.maximum(latents.var(axis=0, dtype=np.float64), LEAST_VARIANCE)
        coef = encoding.coef_[:, self.used]  # (n_latents, n_used)
        self.intercept = encoding.intercept_[self.used] + self.centre @ coef

        # In units of the noise of each voxel, so that the noise covariance is (1 - c) I + c E'E / n.
        residuals = held_out.residuals_[:, self.used]
        self.noise_std = np.sqrt((residuals**2).mean(axis=0))
        self.w = coef / self.noise_std  # (n_latents, n_used)
        self.e = residuals / self.noise_std  # (n, n_used)

        # What every c and t need of W and E.
        self.ww = (self.w @ self.w.T).astype(np.float64)  # (n_latents, n_latents)
        values, vectors = np.linalg.eigh((self.e @ self.e.T).astype(np.float64))
        self.values = np.maximum(values, 0)
        self.vectors = vectors
        self.we = (self.w @ self.e.T).astype(np.float64) @ vectors  # (n_latents, n)

    def _precision(self, correlation: float) -> tuple[np.ndarray, np.ndarray]:
        """W N^-1 W', and what the correlated part of the noise takes away along its eigenvectors (Woodbury's identity)."""
        c = correlation / (len(self.values) * (1 - correlation))
        taken = c / (1 + c * self.values)  # (n,)
        precision = (self.ww - (self.we * taken) @ self.we.T) / (1 - correlation)  # (n_latents, n_latents)

        return precision, taken

    def decode(self, betas: np.ndarray, correlation: float, trust: float) -> np.ndarray:
        """Most probable latents.

        Parameters
        ----------
        betas : ndarray of shape (n, n_voxels)
            standardised
        correlation, trust : float
            c and t of `invert`

        Returns
        -------
        ndarray of shape (n, n_latents)
        """
        precision, taken = self._precision(correlation)
        x = (betas[:, self.used] - self.intercept) / self.noise_std
        along = (x @ self.e.T).astype(np.float64) @ self.vectors  # (n, n_train)
        evidence = ((x @ self.w.T) - (along * taken) @ self.we.T) / (1 - correlation)  # (n, n_latents)
        system = trust * precision + np.diag(1 / self.prior)

        return np.linalg.solve(system, trust * evidence.T).T + self.centre

    def weights(self, correlation: float, trust: float) -> np.ndarray:
        """(n_used, n_latents), from betas less `intercept` to latents less `centre`; c and t of `invert`."""
        evidence, precision = self.evidence(correlation)
        system = trust * precision + np.diag(1 / self.prior)
        return np.linalg.solve(system, trust * evidence.T).T

    def evidence(self, correlation: float) -> tuple[np.ndarray, np.ndarray]:
        """N^-1 W' (n_used, n_latents), of betas from which `intercept` is taken, and W N^-1 W'."""
        precision, taken = self._precision(correlation)
        correlated = self.e.T @ (self.vectors @ (taken[:, None] * self.we.T))  # (n_used, n_latents)
        mixed = (self.w.T - correlated) / (1 - correlation)

        return mixed / self.noise_std[:, None], precision
