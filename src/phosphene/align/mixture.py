"""From voxels to a mixture: which of many candidates was seen, and how far from it.

The prior of the latents is a mixture of Gaussians, one around every candidate; the likelihood is a linear Gaussian
encoding model. The posterior is then a mixture as well, in closed form.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np

from phosphene.align.decoders import LinearGaussian
from phosphene.io.stages import take


class MixtureDecoder:
    """Posterior of latents z under a mixture prior, given responses x.

        x = m + W'z + noise,   noise ~ N(0, N / t),   z ~ mean over k of N(z_k, R)
        e = t W N^-1 (x - m),  P = t W N^-1 W',       G = (I + R P)^-1
        log p(k | x) = e'G z_k - z_k'P G z_k / 2 + constant
        E[z | x]     = G sum_k p(k | x) z_k + G R e

    With R = 0 this is the posterior over the candidates alone; with one candidate, linear Gaussian decoding.

    Parameters
    ----------
    to_evidence : ndarray of shape (n_voxels, n_latents)
        t N^-1 W', rows of unused voxels zero
    mean : ndarray of shape (n_voxels,)
        m
    precision : ndarray of shape (n_latents, n_latents)
        P
    candidates : ndarray of shape (n_candidates, n_latents)
        z_k, measured from `centre`
    spread : ndarray of shape (n_latents, n_latents)
        R
    centre : ndarray of shape (n_latents,)
        where latents are measured from
    voxel_weights : ndarray of shape (n_voxels,)
        how much a voxel counts, 0 for unused
    chosen : dict of {str: Any}, optional
        for people

    References
    ----------
    Naselaris et al. 2009, Neuron 63, and Nishimoto et al. 2011, Current Biology 21 (a sampled prior of pictures under
    an encoding model); Schoenmakers et al. 2013, NeuroImage 83 (linear Gaussian); Schoenmakers et al. 2015, Frontiers
    in Computational Neuroscience 8 (Gaussian mixtures).
    """

    version: ClassVar[int] = 1

    _TENSORS = ("to_evidence", "mean", "precision", "candidates", "spread", "centre", "voxel_weights")

    def __init__(
        self,
        to_evidence: np.ndarray,
        mean: np.ndarray,
        precision: np.ndarray,
        candidates: np.ndarray,
        spread: np.ndarray,
        centre: np.ndarray,
        voxel_weights: np.ndarray,
        chosen: dict[str, Any] | None = None,
    ) -> None:
        self.to_evidence_ = np.asarray(to_evidence, dtype=np.float32)
        self.mean_ = np.asarray(mean, dtype=np.float32)
        self.precision_ = np.asarray(precision, dtype=np.float64)
        self.candidates_ = np.asarray(candidates, dtype=np.float32)
        self.spread_ = np.asarray(spread, dtype=np.float64)
        self.centre_ = np.asarray(centre, dtype=np.float32)
        self.voxel_weights_ = np.asarray(voxel_weights, dtype=np.float32)
        self.chosen_ = chosen or {}

    def posterior(self, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities of the candidates, and how far the mean of the latents lies from theirs.

        Parameters
        ----------
        betas : ndarray of shape (n, n_voxels)
            standardised

        Returns
        -------
        probabilities : ndarray of shape (n, n_candidates), float64
            rows sum to 1
        moved : ndarray of shape (n, n_latents), float64
            E[z | x] minus the mean of the candidates under these probabilities
        """
        evidence = ((betas - self.mean_) @ self.to_evidence_).astype(np.float64)  # (n, n_latents)
        return posterior(evidence, self.precision_, self.candidates_.astype(np.float64), self.spread_)

    def predict(self, betas: np.ndarray) -> np.ndarray:
        """Posterior mean of the latents, (n, n_latents) float32."""
        probabilities, moved = self.posterior(betas)
        mean = probabilities @ self.candidates_ + moved + self.centre_  # (n, n_latents)
        return mean.astype(np.float32)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain values, for saving."""
        return {name: getattr(self, f"{name}_") for name in self._TENSORS}, self.chosen_

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """The same decoder again."""
        return cls(*take(tensors, cls._TENSORS, "MixtureDecoder"), chosen=meta)

    @classmethod
    def fit(
        cls, model: LinearGaussian, candidates: np.ndarray, *, correlation: float, trust: float, spread: float
    ) -> Self:
        """The decoder for given values.

        Parameters
        ----------
        model : LinearGaussian
            of the voxels, given the latents
        candidates : ndarray of shape (n_candidates, n_latents)
            latents of what may have been seen
        correlation : float
            how far the noise correlations seen are believed, 0 to less than 1
        trust : float
            t, how far the likelihood is believed
        spread : float
            R as a share of the covariance of the candidates
        """
        to_evidence, precision = model.evidence(correlation)
        n_voxels = len(model.used)
        weights = np.zeros((n_voxels, len(precision)), np.float32)
        weights[model.used] = trust * to_evidence
        mean = np.zeros(n_voxels, np.float32)
        mean[model.used] = model.intercept

        centred = candidates - model.centre
        covariance = spread * np.atleast_2d(np.cov(centred.T.astype(np.float64)))  # R, (n_latents, n_latents)
        voxel_weights = np.where(model.used, np.maximum(model.r2, 0), 0)
        chosen = {"correlation": correlation, "trust": trust, "spread": spread, "n_voxels_used": int(model.used.sum())}

        return cls(weights, mean, trust * precision, centred, covariance, model.centre, voxel_weights, chosen)


def posterior(
    evidence: np.ndarray, precision: np.ndarray, candidates: np.ndarray, spread: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The posterior of :class:`MixtureDecoder`.

    Parameters
    ----------
    evidence : ndarray of shape (n, n_latents)
        e
    precision : ndarray of shape (n_latents, n_latents)
        P
    candidates : ndarray of shape (n_candidates, n_latents)
        z_k
    spread : ndarray of shape (n_latents, n_latents)
        R

    Returns
    -------
    probabilities : ndarray of shape (n, n_candidates)
        p(k | x)
    moved : ndarray of shape (n, n_latents)
        E[z | x] minus the mean of the candidates under these probabilities
    """
    g = np.linalg.inv(np.eye(len(precision)) + spread @ precision)
    offset = 0.5 * ((candidates @ (precision @ g)) * candidates).sum(axis=1)  # (n_candidates,)
    log = evidence @ g @ candidates.T - offset  # (n, n_candidates)
    log -= log.max(axis=1, keepdims=True)  # the largest is 0: no overflow

    probabilities = np.exp(log)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    mean = probabilities @ candidates  # (n, n_latents)

    return probabilities, mean @ g.T + evidence @ (g @ spread).T - mean
