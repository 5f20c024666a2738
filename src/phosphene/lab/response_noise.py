"""Noise of simulated betas: correlated between voxels, from trial to trial, and slowly within a run; its covariance is known.

References
----------
Kenet et al. 2003: spontaneous activity of visual cortex runs through the patterns that pictures evoke. That part of the
noise, the echo, cannot be averaged away over voxels: it bounds what any decoder can reach, however many voxels there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import linalg

from phosphene.lab.exact import exact_product, rounded

_NEAR_MM = 6.0  # how far neighbours share noise
_FAR_MM = 60.0
# shares of the noise that is no echo
_WHITE = 0.45
_LOCAL = 0.30
_SHARED = 0.12
_SLOW = 0.13
_ECHO_PATTERNS = 60
_ECHO_ITERATIONS = 16
_ECHO_SEED = 0x4543484F
_CARRY_OVER = 0.15  # correlation of one trial's noise with the next, the slow part aside


def _smooth(xyz: np.ndarray, reach_mm: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth random patterns, (n, count) with rows of unit length: their products approach exp(-d^2 / (2 reach^2))."""
    waves = rng.normal(0.0, 1.0 / reach_mm, (3, count // 2))
    angle = exact_product(xyz, waves)  # (n, count // 2)
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1) / np.sqrt(count // 2)


def smooth_map(xyz: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth map over the cortex, about normal with unit variance.

    Parameters
    ----------
    xyz : ndarray of shape (n_voxels, 3)
        places of the voxels, millimetres
    rng : numpy.random.Generator
        decides the map

    Returns
    -------
    ndarray of shape (n_voxels,), float64
    """
    pattern = _smooth(xyz, 15.0, 64, rng)
    weights = rng.normal(size=(pattern.shape[1], 1))
    return exact_product(pattern, weights)[:, 0]  # (n_voxels,)


@dataclass(frozen=True)
class NoiseModel:
    """Gaussian noise of single trials, mean 0, stationary within a run and independent between runs.

    Across voxels its covariance is ``diag(sd) (diag(white) + F F') diag(sd)``, where the rows of F have squared length 1 - white,
    so that each voxel's variance is sd^2 exactly.

    Attributes
    ----------
    sd : ndarray of shape (n_voxels,), float32
        percent signal change
    white : ndarray of shape (n_voxels,), float32
        share of the variance that a voxel shares with no other
    local, shared, slow : ndarray of shape (n_voxels, k), float32
        patterns: noise shared by neighbours, by wide regions (breathing, arousal), and slow drift within a run
    echo : ndarray of shape (n_voxels, k), float32
        patterns that pictures evoke too
    xyz : ndarray of shape (n_voxels, 3)
        where the voxels are, mm
    """

    sd: np.ndarray
    white: np.ndarray
    local: np.ndarray
    shared: np.ndarray
    slow: np.ndarray
    echo: np.ndarray
    xyz: np.ndarray

    @classmethod
    def draw(
        cls, xyz: np.ndarray, sd: np.ndarray, responses: np.ndarray, echo: np.ndarray, rng: np.random.Generator
    ) -> NoiseModel:
        """Draw a subject's noise.

        Parameters
        ----------
        xyz : ndarray of shape (n_voxels, 3)
            where the voxels are, mm
        sd : ndarray of shape (n_voxels,)
            percent signal change
        responses : ndarray of shape (n_pictures, n_voxels)
            what pictures evoke, which the noise echoes
        echo : ndarray of shape (n_voxels,)
            share of the noise variance that is echo, 0 where `responses` is constant
        rng : numpy.random.Generator
            draws the patterns

        Returns
        -------
        NoiseModel
        """
        # What is no echo: three kinds of smooth patterns, and noise of each voxel's own.
        rest = np.sqrt(1.0 - echo)[:, None]
        local = rest * np.sqrt(_LOCAL) * _smooth(xyz, _NEAR_MM, 160, rng)
        shared = rest * np.sqrt(_SHARED) * _smooth(xyz, _FAR_MM, 4, rng)
        slow = rest * np.sqrt(_SLOW) * _smooth(xyz, _FAR_MM, 6, rng)

        # The echo: the main patterns of what pictures evoke, each as large as it is there.
        response_sd = responses.std(axis=0)
        standard = (responses - responses.mean(axis=0)) / np.where(response_sd > 0, response_sd, 1.0)
        similarity = exact_product(standard, standard.T)  # (n_pictures, n_pictures)
        mixed = exact_product(_main_directions(similarity), standard)  # (k, n_voxels)
        length = np.sqrt((mixed**2).sum(axis=0))
        echoes = (np.sqrt(echo) * mixed / np.where(length > 0, length, 1.0)).T  # (n_voxels, k)

        return cls(
            sd=np.ascontiguousarray(sd, dtype=np.float32),
            white=np.ascontiguousarray(_WHITE * (1.0 - echo), dtype=np.float32),
            local=np.ascontiguousarray(local, dtype=np.float32),
            shared=np.ascontiguousarray(shared, dtype=np.float32),
            slow=np.ascontiguousarray(slow, dtype=np.float32),
            echo=np.ascontiguousarray(echoes, dtype=np.float32),
            xyz=np.asarray(xyz, dtype=np.float64),
        )

    @property
    def factors(self) -> np.ndarray:
        """(n_voxels, k) float64: all shared patterns, of noise in percent signal change."""
        patterns = np.concatenate([self.local, self.shared, self.slow, self.echo], axis=1)  # (n_voxels, k)
        return patterns * self.sd[:, None].astype(np.float64)

    @property
    def own_variance(self) -> np.ndarray:
        """(n_voxels,) float64: variance of what a voxel shares with no other."""
        return self.white * self.sd.astype(np.float64) ** 2

    def covariance(self, voxels: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Covariance of one trial's noise among some voxels, (m, m) float64."""
        factors = self.factors[voxels]
        return factors @ factors.T + np.diag(self.own_variance[voxels])

    def whiten(self, values: np.ndarray) -> np.ndarray:
        """Apply the inverse covariance to rows of `values` (n, n_voxels), without forming it (Woodbury): float64."""
        factors = self.factors
        own = self.own_variance
        scaled = values / own  # (n, n_voxels)
        inner = np.eye(factors.shape[1]) + factors.T @ (factors / own[:, None])  # (k, k)
        shared = linalg.solve(inner, (scaled @ factors).T, assume_a="pos").T  # (n, k)

        return scaled - (shared @ factors.T) / own  # (n, n_voxels)

    @cached_property
    def _quick_patterns(self) -> np.ndarray:
        """(k, n_voxels) float64: the patterns whose size changes from trial to trial, ready for an exact product."""
        patterns = np.concatenate([self.local, self.shared, self.echo], axis=1)
        return rounded(patterns, axis=1).T

    def sample(self, n_trials: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the noise of one run.

        Parameters
        ----------
        n_trials : int
            in the run
        rng : numpy.random.Generator
            draws it

        Returns
        -------
        ndarray of shape (n_trials, n_voxels), float32
            percent signal change
        """
        white = _carry_over(n_trials, len(self.sd), rng)
        white *= np.sqrt(self.white)
        series = _carry_over(n_trials, len(self._quick_patterns), rng)
        white += rounded(series, axis=1) @ self._quick_patterns  # (n_trials, n_voxels)

        # Slow drift: half a cycle to two cycles a run. A random phase makes the variance the same at every trial.
        cycles = rng.uniform(0.5, 2.0, self.slow.shape[1])
        phase = rng.uniform(0.0, 2 * np.pi, self.slow.shape[1])
        time = (np.arange(n_trials)[:, None] + 0.5) / max(n_trials, 1)
        drift = np.sqrt(2.0) * np.cos(2 * np.pi * cycles * time + phase)
        white += exact_product(drift, self.slow.T)  # (n_trials, n_voxels)
        white *= self.sd

        return white


def _main_directions(similarity: np.ndarray) -> np.ndarray:
    """Directions of the largest eigenvalues of a symmetric matrix (n, n), by subspace iteration: (k, n), orthonormal rows.

    LAPACK's eigenvectors have arbitrary signs, and those of nearly equal eigenvalues turn with the last bit; here the start is
    fixed and every operation is the same on every machine. Sixteen iterations leave the edge of the subspace soft, by a few of
    its sixty directions. That is of no matter: the covariance of the noise is computed from the patterns as they come.
    """
    count = min(_ECHO_PATTERNS, len(similarity))
    rows = np.random.default_rng(_ECHO_SEED).normal(size=(count, len(similarity)))

    for _ in range(_ECHO_ITERATIONS):
        rows = _orthonormal(exact_product(rows, similarity))  # (k, n)
    return rows


def _orthonormal(rows: np.ndarray) -> np.ndarray:
    """Gram-Schmidt, row by row, without BLAS; a row that depends on those before it becomes 0."""
    rows = rows.copy()
    length = np.sqrt((rows**2).sum(axis=1))

    for k in range(len(rows)):
        left = np.sqrt((rows[k] ** 2).sum())
        if left <= 1e-6 * length[k]:
            rows[k] = 0.0
            continue

        rows[k] /= left
        shares = (rows[k + 1 :] * rows[k]).sum(axis=1)
        rows[k + 1 :] -= shares[:, None] * rows[k]

    return rows


def _carry_over(n_trials: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """First-order autoregressive series of unit variance, (n_trials, count) float32."""
    fresh = rng.standard_normal((n_trials, count), dtype=np.float32)
    step = np.float32(np.sqrt(1 - _CARRY_OVER**2))

    for trial in range(1, n_trials):
        fresh[trial] = np.float32(_CARRY_OVER) * fresh[trial - 1] + step * fresh[trial]
    return fresh
