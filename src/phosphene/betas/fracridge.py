"""Ridge regression whose strength is said as a fraction: how long the coefficients are, relative to least squares.

With singular values s of a design and c the least-squares coefficients along its singular directions, ridge of strength
alpha has ``c s^2 / (s^2 + alpha)``. Its length falls from ``|c|`` to 0 as alpha grows, so each fraction belongs to one alpha.
The length is computed on a grid of alphas (steps of a fifth of a decade, as published) and ``log(1 + alpha)`` is interpolated
between them. One decomposition serves all fractions and all voxels; a study's design is block-diagonal, so the singular values
are those of all its runs.

References
----------
Rokem and Kay 2020, "Fractional ridge regression": grid and interpolation; Prince et al. 2022: cross-validation and autoscaling.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phosphene.betas.denoise import DenoiseTarget, Repeats
from phosphene.betas.glm import Factor
from phosphene.errors import ConfigError

_DECADE_STEP = 0.2  # between neighbours of the grid, so that strengths are those of the published program


def alpha_grid(s2: np.ndarray) -> np.ndarray:
    """Strengths from 0 to where everything is shrunk away, (n,) ascending.

    Parameters
    ----------
    s2 : ndarray of shape (k,)
        squared singular values of the design, more than 0
    """
    # The least strength shrinks the weakest direction by a hundredth, the greatest the strongest to a ten-thousandth.
    low = np.floor(np.log10(1e-2 * s2.min()))
    high = np.ceil(np.log10(1e4 * s2.max()))
    return np.r_[0.0, 10 ** np.arange(low, high, _DECADE_STEP)]


def strengths(s2: np.ndarray, coefficients: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """The alpha of each fraction and voxel.

    Parameters
    ----------
    s2 : ndarray of shape (k,)
        squared singular values, of all runs
    coefficients : ndarray of shape (k, n_voxels)
        least-squares coefficients along the singular directions
    fractions : ndarray of shape (n_fractions,)
        more than 0, at most 1

    Returns
    -------
    ndarray of shape (n_fractions, n_voxels), float32
        0 for a fraction of 1, and for a voxel without response
    """
    fractions = np.asarray(fractions, dtype=np.float64)
    if fractions.size == 0 or not ((fractions > 0) & (fractions <= 1)).all():
        raise ConfigError(f"fractions of ridge regression are more than 0 and at most 1; got {fractions.tolist()}.")

    grid = alpha_grid(s2)
    # Length of the coefficients at every strength of the grid, relative to least squares.
    shrink = (s2 / (s2 + grid[:, None])).astype(np.float32)  # (n_grid, k)
    power = (shrink * shrink) @ (coefficients * coefficients)  # (n_grid, n_voxels)
    full = power[0].copy()
    length = np.sqrt(power / np.where(full > 0, full, 1))
    length[0] = 1

    log = np.log1p(grid).astype(np.float32)
    out = np.zeros((len(fractions), coefficients.shape[1]), dtype=np.float32)
    columns = np.arange(coefficients.shape[1])

    for row, fraction in zip(out, fractions, strict=True):
        if fraction == 1:
            continue

        # Lengths descend along the grid: the first strength too great for this fraction, and the one before it.
        after = np.clip((length > fraction).sum(axis=0), 1, len(grid) - 1)
        high = length[after - 1, columns]
        low = length[after, columns]
        share = np.divide(high - fraction, high - low, out=np.zeros_like(high), where=high > low)
        row[:] = np.expm1(log[after - 1] + np.clip(share, 0, 1) * (log[after] - log[after - 1]))
        row[full == 0] = 0

    return out


def coefficients(factor: Factor, products: np.ndarray) -> np.ndarray:
    """Least-squares coefficients of a run along its singular directions.

    Parameters
    ----------
    factor : Factor
        of the run's design
    products : ndarray of shape (n_trials, n_voxels), float32
        ``X'y``

    Returns
    -------
    ndarray of shape (k, n_voxels), float32
    """
    return (factor.vectors / factor.s2).T.astype(np.float32) @ products  # (k, n_voxels)


def shrunk(factor: Factor, c: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Betas of a run for a strength per voxel.

    Parameters
    ----------
    factor : Factor
        of the run's design
    c : ndarray of shape (k, n_voxels), float32
        from :func:`coefficients`
    alpha : ndarray of shape (n_voxels,), float32
        strengths

    Returns
    -------
    ndarray of shape (n_trials, n_voxels), float32
    """
    return factor.vectors.astype(np.float32) @ _shrink(factor, c, alpha)  # (n_trials, n_voxels)


def _shrink(factor: Factor, c: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Coefficients times ``s^2 / (s^2 + alpha)``, as ``c / (1 + alpha / s^2)`` in the memory of the divisor."""
    divisor = np.multiply.outer((1 / factor.s2).astype(np.float32), alpha)
    divisor += 1
    return np.divide(c, divisor, out=divisor)


def fraction_badness(
    factors: Sequence[Factor], c: Sequence[np.ndarray], alphas: np.ndarray, rows: Sequence[slice], repeats: Repeats
) -> np.ndarray:
    """Cross-validated badness of every fraction, (n_fractions, n_voxels) float64; see :mod:`~phosphene.betas.denoise`.

    Parameters
    ----------
    factors : sequence of Factor
        of each run, its design decomposed
    c : sequence of ndarray
        (k, n_voxels) of each run, coefficients of least squares along its singular directions
    alphas : ndarray of shape (n_fractions, n_voxels)
        strengths
    rows : sequence of slice
        of each run, which trials of the study it has
    repeats : Repeats
        trials to be predicted from one another
    """
    betas = []
    for factor, x in zip(factors, c, strict=True):
        betas.append(factor.vectors.astype(np.float32) @ x)  # (n_trials, n_voxels)
    flat = np.concatenate(betas)
    target = DenoiseTarget.of(flat, repeats)
    out = np.tile(target.constant, (len(alphas), 1))  # (n_fractions, n_voxels)

    # Only trials with a partner in another fold are scored, and scaling is done once per run, not once per fraction.
    for factor, x, trials in zip(factors, c, rows, strict=True):
        scored = np.flatnonzero(target.root[trials] > 0)
        if len(scored) == 0:
            continue

        session = repeats.session[trials][0]
        root = target.root[trials][scored, None]
        inverse = target.inverse_sd[session]
        vectors = root * factor.vectors[scored].astype(np.float32)  # (n_scored, k)
        aim = target.aim[trials][scored] + root * (target.mean[session] * inverse)
        scaled = x * inverse

        for row, alpha in zip(out, alphas, strict=True):
            error = vectors @ _shrink(factor, scaled, alpha)  # (n_scored, n_voxels)
            error -= aim
            row += np.einsum("nv,nv->v", error, error)

    return out


def autoscale(betas: np.ndarray, least_squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset, (n_voxels,) each, that bring shrunk betas nearest to those of least squares.

    A negative scale would turn a response around; then they are 1 and 0.

    Parameters
    ----------
    betas : ndarray of shape (n_trials, n_voxels)
        shrunk
    least_squares : ndarray of shape (n_trials, n_voxels)
        the same without a penalty
    """
    mean = betas.mean(axis=0, dtype=np.float64)
    aim = least_squares.mean(axis=0, dtype=np.float64)
    centred = betas - mean.astype(np.float32)
    power = np.einsum("nv,nv->v", centred, centred).astype(np.float64)
    cross = np.einsum("nv,nv->v", centred, least_squares - aim.astype(np.float32))
    scale = np.divide(cross, power, out=np.ones_like(power), where=power > 0)
    offset = np.where(scale < 0, 0.0, aim - scale * mean)

    return np.where(scale < 0, 1.0, scale), offset
