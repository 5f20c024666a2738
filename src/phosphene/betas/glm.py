"""General linear models of single trials: designs, drifts, least squares, and the choice of a response for each voxel.

A trial adds to the volumes of its own run only, so the design of a study is block-diagonal and is never formed: every
quantity is a sum over runs. Drifts (and confounds) are projected out of data and designs, once, before anything else. With
``X = Q S V'`` the design of one run and one response after that projection,

    betas = V S^-1 Q' y,        explained sum of squares = ||Q' y||^2,

so choosing among 20 responses takes 20 products and no fitted time series.

References
----------
Prince et al. 2022, "GLMsingle": on-off model, library of responses, polynomial drifts.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
from threadpoolctl import ThreadpoolController

_RANK = 1e-10
"""Directions of a design whose squared singular value is less than this share of the largest count as absent."""


def polynomial_degree(duration_s: float) -> int:
    """Highest degree of the polynomials that stand for drift: half the minutes of the run, halves rounded up."""
    return int(np.floor(duration_s / 60 / 2 + 0.5))


def nuisance_basis(n_volumes: int, degree: int, confounds: np.ndarray | None = None) -> np.ndarray:
    """Orthonormal basis of polynomials of degree 0 to `degree` and of confounds: (n_volumes, k) float64.

    Parameters
    ----------
    n_volumes : int
        length of the run
    degree : int
        highest power of time
    confounds : ndarray of shape (n_volumes, n), optional
        finite, in any units, or None

    Returns
    -------
    ndarray of shape (n_volumes, k), float64
        orthonormal columns; k is ``degree + 1`` and as many as the confounds add
    """
    # Legendre polynomials span the same drifts as powers of time, but powers of time are nearly parallel from degree 4 or so.
    polynomials = np.polynomial.legendre.legvander(np.linspace(-1, 1, n_volumes), degree)
    basis = np.linalg.qr(polynomials)[0]
    if confounds is None or confounds.shape[1] == 0:
        return basis

    # Of unit length before the singular values are compared: millimetres and radians are of no common size.
    extra = confounds - basis @ (basis.T @ confounds)  # (n_volumes, n)
    extra /= np.maximum(np.linalg.norm(confounds, axis=0), 1e-300)
    u, s, _ = np.linalg.svd(extra, full_matrices=False)

    return np.concatenate([basis, u[:, s > 1e-6]], axis=1)  # what polynomials hold already is left out


def residuals(volumes: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Data without drift.

    Parameters
    ----------
    volumes : ndarray of shape (n_volumes, n_voxels)
        mean kept
    basis : ndarray of shape (n_volumes, k)
        orthonormal, with the constant in it

    Returns
    -------
    tuple of (ndarray, ndarray)
        (n_volumes, n_voxels) float32, and the mean of every voxel, (n_voxels,) float64
    """
    mean = volumes.mean(axis=0, dtype=np.float64)
    centred = np.empty(volumes.shape, dtype=np.float32)

    # In double precision, because a baseline of 1000 would use up half of float32's digits.
    np.subtract(volumes, mean, out=centred, casting="unsafe")

    basis = basis.astype(np.float32)
    centred -= basis @ (basis.T @ centred)

    return centred, mean


@cache
def _threads() -> ThreadpoolController:
    """The libraries to be limited; to look for them takes milliseconds, which a call per run and response would feel."""
    return ThreadpoolController()


def blas_threads(n: int) -> AbstractContextManager:
    """At most `n` threads in matrix products, for the time of a ``with`` block.

    Parameters
    ----------
    n : int
        threads of the BLAS library; those of a thread pool of ours are not limited
    """
    return _threads().limit(limits=n, user_api="blas")


@dataclass(frozen=True)
class Factor:
    """A design of one run and response, after projection, as ``X = Q diag(s) V'``.

    Made from the Gram matrix, which components change by a product of thin matrices, and not from X. That squares the
    condition number: with float64 and a cut at 1e-10 of the squared singular values, directions keep five digits or more.

    Attributes
    ----------
    gram : ndarray of shape (n_trials, n_trials)
        ``X'X``
    vectors : ndarray of shape (n_trials, rank)
        V
    s2 : ndarray of shape (rank,)
        squared singular values
    """

    gram: np.ndarray
    vectors: np.ndarray
    s2: np.ndarray

    @classmethod
    def of(cls, gram: np.ndarray) -> Factor:
        """From ``X'X``.

        Parameters
        ----------
        gram : ndarray of shape (n_trials, n_trials), float64
            symmetric, without negative eigenvalues but for rounding
        """
        with blas_threads(1):  # so small that more threads only wait for one another
            s2, vectors = np.linalg.eigh(gram)

        keep = s2 > _RANK * max(s2[-1], 1e-300)  # eigenvalues ascend; 1e-300 is for a design of zeros
        return cls(gram, vectors[:, keep], s2[keep])

    @cached_property
    def inverse(self) -> np.ndarray:
        """(n_trials, n_trials) pseudo-inverse of the Gram matrix."""
        return (self.vectors / self.s2) @ self.vectors.T

    @property
    def is_deficient(self) -> bool:
        """Whether some trials cannot be told from others."""
        return len(self.s2) < len(self.gram)


@dataclass(frozen=True, eq=False)
class RunDesign:
    """Designs of one run for every response, drift projected out.

    Attributes
    ----------
    basis : ndarray of shape (n_volumes, k)
        orthonormal nuisance
    designs : ndarray of shape (n_shapes, n_volumes, n_trials), float64
        projected
    rows : slice
        which trials of the study these are
    """

    basis: np.ndarray
    designs: np.ndarray
    rows: slice
    _factors: dict[int, Factor] = field(default_factory=dict, repr=False)
    _whitened: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    @classmethod
    def build(cls, designs: np.ndarray, basis: np.ndarray, rows: slice) -> RunDesign:
        """Project drift and confounds out of designs.

        Parameters
        ----------
        designs : ndarray of shape (n_shapes, n_volumes, n_trials), float64
            as the library makes them
        basis : ndarray of shape (n_volumes, k)
            orthonormal nuisance
        rows : slice
            which trials of the study these are
        """
        n_shapes, n_volumes, n_trials = designs.shape
        flat = designs.transpose(1, 0, 2).reshape(n_volumes, -1)  # (n_volumes, n_shapes * n_trials)
        flat = flat - basis @ (basis.T @ flat)
        projected = flat.reshape(n_volumes, n_shapes, n_trials).transpose(1, 0, 2)
        return cls(basis, np.ascontiguousarray(projected), rows)

    def factor(self, shape: int) -> Factor:
        """Of the design with this response."""
        if shape not in self._factors:
            x = self.designs[shape]
            self._factors[shape] = Factor.of(x.T @ x)
        return self._factors[shape]

    def q(self, shape: int) -> np.ndarray:
        """(n_volumes, rank) float32, orthonormal: what the trials can explain."""
        if shape not in self._whitened:
            factor = self.factor(shape)
            q = self.designs[shape] @ (factor.vectors / np.sqrt(factor.s2))  # (n_volumes, rank)
            self._whitened[shape] = q.astype(np.float32)

        return self._whitened[shape]

    def on_off(self, shape: int) -> np.ndarray:
        """(n_volumes,) the regressor that only knows that something is shown."""
        return self.designs[shape].sum(axis=1)

    def products(self, shape: int, y: np.ndarray) -> np.ndarray:
        """``X'y``, all that least squares needs of the data.

        Parameters
        ----------
        shape : int
            which response
        y : ndarray of shape (n_volumes, n_voxels), float32
            series of this run, without drift

        Returns
        -------
        ndarray of shape (n_trials, n_voxels), float32
        """
        return self.designs[shape].T.astype(np.float32) @ y  # (n_trials, n_voxels)


def on_off_r2(designs: Sequence[RunDesign], series: Sequence[np.ndarray], shape: int) -> np.ndarray:
    """Share of variance, in percent, that one regressor for all trials explains, pooled over runs.

    Parameters
    ----------
    designs : sequence of RunDesign
        of each run
    series : sequence of ndarray
        (n_volumes, n_voxels) of each run, without drift
    shape : int
        which response is assumed

    Returns
    -------
    ndarray of shape (n_voxels,), float64
        0 for a voxel that never changes
    """
    n_voxels = series[0].shape[1]
    power = 0.0
    along = np.zeros(n_voxels, dtype=np.float32)
    for design, y in zip(designs, series, strict=True):
        x = design.on_off(shape)  # (n_volumes,)
        power += float(x @ x)
        along = along + x.astype(np.float32) @ y  # (n_voxels,)

    explained = along.astype(np.float64) ** 2 / max(power, 1e-300)
    return _percent(explained, total_power(series))


def total_power(series: Sequence[np.ndarray]) -> np.ndarray:
    """Sum of squares of every voxel over runs, (n_voxels,) float64."""
    total = np.zeros(series[0].shape[1], dtype=np.float32)
    for y in series:
        total = total + np.einsum("tv,tv->v", y, y)
    return total.astype(np.float64)


def _percent(explained: np.ndarray, total: np.ndarray) -> np.ndarray:
    """100 * explained / total, 0 where a voxel never changes."""
    return 100 * np.divide(explained, total, out=np.zeros_like(total), where=total > 0)


def choose_hrf(designs: Sequence[RunDesign], series: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """For each voxel the response with which single trials explain most.

    Parameters
    ----------
    designs : sequence of RunDesign
        of each run
    series : sequence of ndarray
        (n_volumes, n_voxels) of each run, without drift

    Returns
    -------
    tuple of (ndarray, ndarray)
        (n_voxels,) int64, and the percent of variance explained with each response, (n_shapes, n_voxels) float64
    """
    explained = np.zeros((len(designs[0].designs), series[0].shape[1]))
    for design, y in zip(designs, series, strict=True):
        for shape, row in enumerate(explained):
            along = design.q(shape).T @ y  # (rank, n_voxels)
            row += np.einsum("kv,kv->v", along, along)

    # Every response has as many regressors, so the largest R2 needs no correction for their number.
    total = np.broadcast_to(total_power(series), explained.shape)
    return explained.argmax(axis=0), _percent(explained, total)


def least_squares(design: RunDesign, shape: int, products: np.ndarray) -> np.ndarray:
    """Betas of all trials of a run in one model (LSA), by the pseudo-inverse of the normal equations.

    Parameters
    ----------
    design : RunDesign
        of the run
    shape : int
        which response
    products : ndarray of shape (n_trials, n_voxels)
        ``X'y``

    Returns
    -------
    ndarray of shape (n_trials, n_voxels), float32
        of trials that cannot be told apart, each an equal share of what they explain together
    """
    return design.factor(shape).inverse.astype(np.float32) @ products  # (n_trials, n_voxels)


def least_squares_separate(design: RunDesign, shape: int, products: np.ndarray) -> np.ndarray:
    """Betas of trials each in a model of its own, with one regressor for all others (LSS).

    For trial i with design x and u the sum of the others, ``beta = (u'u x'y - x'u u'y) / (u'u x'x - (x'u)^2)``.

    Parameters
    ----------
    design : RunDesign
        of the run
    shape : int
        which response
    products : ndarray of shape (n_trials, n_voxels)
        ``X'y``

    Returns
    -------
    ndarray of shape (n_trials, n_voxels), float32
        of a run with one trial, its least squares
    """
    gram = design.factor(shape).gram
    if len(gram) == 1:
        return least_squares(design, shape, products)

    # x'x, x'u and u'u of every trial
    power = np.diag(gram)
    cross = gram.sum(axis=1) - power
    others = gram.sum() - 2 * gram.sum(axis=1) + power
    determinant = power * others - cross**2
    determinant = np.where(determinant > _RANK * power * others, determinant, np.inf)  # not to be told apart: 0

    rest = products.sum(axis=0) - products  # u'y, (n_trials, n_voxels)
    weights = np.stack([others, -cross], axis=1) / determinant[:, None]  # (n_trials, 2)

    return (weights[:, :1] * products + weights[:, 1:] * rest).astype(np.float32)


def explained_r2(
    designs: Sequence[RunDesign],
    shape: int,
    betas: Sequence[np.ndarray],
    products: Sequence[np.ndarray],
    total: np.ndarray,
) -> np.ndarray:
    """Percent of variance that betas explain in data without drift, (n_voxels,): ``2 b'X'y - b'X'X b`` over ``y'y``.

    Parameters
    ----------
    designs : sequence of RunDesign
        of each run
    shape : int
        which response
    betas : sequence of ndarray
        (n_trials, n_voxels) of each run
    products : sequence of ndarray
        ``X'y`` (n_trials, n_voxels) of each run
    total : ndarray of shape (n_voxels,)
        ``y'y`` over all runs
    """
    explained = np.zeros(len(total))
    for design, b, xy in zip(designs, betas, products, strict=True):
        gram = design.factor(shape).gram.astype(np.float32)  # (n_trials, n_trials)
        explained += np.einsum("nv,nv->v", b, 2 * xy - gram @ b)
    return _percent(explained, total)
