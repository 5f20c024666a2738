"""Scores of predicted responses, voxel by voxel, and the ceiling they are measured against.

The noise ceiling is closed form. With noise variance from the spread over repeats of a stimulus and signal variance
from what is left of the spread over stimulus means,

    ncsnr = signal SD / noise SD
    ceiling = ncsnr^2 / (ncsnr^2 + 1 / m)                 share of variance, m repeats averaged

so a perfect model reaches R2 = ceiling and Pearson r = sqrt(ceiling). Raw value, ceiling and ratio are always given
together, and a ratio above 1 is shown as it is.

References
----------
Allen et al. 2022, methods, "noise ceiling"; Lage-Castellanos et al. 2019.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import fdtrc, stdtr
from scipy.stats import false_discovery_control

from phosphene.betas.noise_ceiling import ceiling
from phosphene.errors import DataError
from phosphene.metrics.correlation import paired_correlation


class Ceiling(NamedTuple):
    """Noise ceiling per voxel.

    Attributes
    ----------
    ncsnr : ndarray of shape (n_voxels,)
        signal SD / noise SD, 0 or more; infinite without noise
    variance : ndarray of shape (n_voxels,)
        share of variance that a perfect model explains, 0 to 1
    unclipped : ndarray of shape (n_voxels,)
        the same before values below 0 become 0: over voxels without a signal its mean is 0, so that sums are not biased
    """

    ncsnr: np.ndarray
    variance: np.ndarray
    unclipped: np.ndarray


class Fraction(NamedTuple):
    """Raw scores beside their ceiling.

    Attributes
    ----------
    raw, ceiling : ndarray of shape (n_voxels,)
        as given
    ratio : ndarray of shape (n_voxels,)
        raw / ceiling, not clipped; NaN where the ceiling is not positive
    n_undefined, n_above_one : int
        how many ratios are NaN, and how many above 1
    """

    raw: np.ndarray
    ceiling: np.ndarray
    ratio: np.ndarray
    n_undefined: int
    n_above_one: int


def pearson_per_voxel(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Pearson r over stimuli, per voxel.

    Parameters
    ----------
    predicted, measured : ndarray of shape (n_stimuli, n_voxels)
        responses in any unit, the same stimuli in the same order

    Returns
    -------
    ndarray of shape (n_voxels,)
        -1 to 1; NaN where either side is constant or not finite
    """
    return paired_correlation(np.asanyarray(predicted).T, np.asanyarray(measured).T)


def r2_per_voxel(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Share of variance explained, per voxel.

        R2 = 1 - sum_s (measured_s - predicted_s)^2 / sum_s (measured_s - mean measured)^2

    Parameters
    ----------
    predicted, measured : ndarray of shape (n_stimuli, n_voxels)
        responses in one unit, the same stimuli in the same order

    Returns
    -------
    ndarray of shape (n_voxels,)
        at most 1 and below 0 when worse than the mean; NaN where the measured voxel is constant

    Raises
    ------
    DataError
        When the shapes differ.
    """
    predicted = np.asarray(predicted, dtype=np.float64)
    measured = np.asarray(measured, dtype=np.float64)
    if predicted.shape != measured.shape or measured.ndim != 2:
        raise DataError(f"predicted responses have shape {predicted.shape} but measured ones {measured.shape}.")

    centred = measured - measured.mean(axis=0)
    total = np.square(centred).sum(axis=0)  # (n_voxels,)
    residual = np.square(measured - predicted).sum(axis=0)  # (n_voxels,)

    # A spread below a millionth of the voxel's size is float32 rounding around one value.
    flat = total <= len(measured) * np.square(1e-6 * np.abs(measured).max(axis=0, initial=0))
    unexplained = np.full(measured.shape[1], np.nan)
    np.divide(residual, total, out=unexplained, where=~flat)
    return 1 - unexplained


def pearson_p(r: np.ndarray, n_stimuli: int) -> np.ndarray:
    """One-sided p of Pearson r above 0 by the t distribution.

        t = r sqrt((n - 2) / (1 - r^2)),    p = P(T_{n - 2} > t)

    Parameters
    ----------
    r : ndarray of shape (n_voxels,)
        Pearson r, -1 to 1
    n_stimuli : int
        pairs behind each r

    Returns
    -------
    ndarray of shape (n_voxels,)
        at least 1e-300, so that its logarithm exists; NaN where r is NaN or there are fewer than three stimuli
    """
    r = np.clip(np.asarray(r, dtype=np.float64), -1 + 1e-16, 1 - 1e-16)  # 1 - r^2 must not be 0
    if n_stimuli < 3:
        return np.full(r.shape, np.nan)

    # The lower tail at -t: one minus the distribution at t would round small p to 0.
    minus_t = -r * np.sqrt((n_stimuli - 2) / (1 - r**2))
    return np.maximum(stdtr(n_stimuli - 2, minus_t), 1e-300)


def fdr(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg adjusted p values.

        adjusted_(i) = min over j >= i of min(1, n p_(j) / j),    p_(1) <= p_(2) <= ... <= p_(n)

    Parameters
    ----------
    p : ndarray of shape (n,)
        p values; NaN is no test and stays NaN

    Returns
    -------
    ndarray of shape (n,)
        adjusted p, at most 1: below q where the expected share of false discoveries is at most q

    References
    ----------
    Benjamini and Hochberg 1995, "Controlling the false discovery rate".

    Examples
    --------
    >>> fdr(np.array([0.01, 0.04, 0.03, np.nan]))
    array([0.03, 0.04, 0.04,  nan])
    """
    p = np.asarray(p, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        adjusted[tested] = false_discovery_control(p[tested])

    return adjusted


def noise_ceiling(betas: np.ndarray, stimuli: np.ndarray | None = None, n_averaged: int | None = None) -> Ceiling:
    """Noise ceiling per voxel from repeats, for averages of ``n_averaged`` repeats.

        within  = sum over trials of (beta - mean of its stimulus)^2 / (n_trials - n_stimuli)
        between = sum_s r_s (mean_s - mean)^2 / (n_stimuli - 1)
        signal  = max(between - within, 0) / r0,    r0 = (n_trials - sum_s r_s^2 / n_trials) / (n_stimuli - 1)
        ceiling = signal / (signal + within / n_averaged)

    with r_s repeats of stimulus s.

    Parameters
    ----------
    betas : ndarray
        (n_stimuli, n_repeats, n_voxels), or (n_trials, n_voxels) with ``stimuli``
    stimuli : ndarray of shape (n_trials,), optional
        stimulus id of each trial; repeats may differ in number
    n_averaged : int, optional
        repeats that will be averaged before scoring; default the number of repeats when all are equal

    Returns
    -------
    Ceiling
        0 where the estimated signal variance is not positive; NaN for voxels that never vary or hold NaN

    Raises
    ------
    DataError
        Without any repeated stimulus, or with a single stimulus: noise cannot be told from signal.

    Examples
    --------
    >>> noise_ceiling(np.ones((3, 2, 1)) * np.arange(3.0)[:, None, None]).variance
    array([1.])
    """
    betas = np.asarray(betas)
    if betas.ndim == 3 and stimuli is None:
        stimuli = np.repeat(np.arange(betas.shape[0]), betas.shape[1])  # (n_trials,)
        betas = betas.reshape(-1, betas.shape[2])  # (n_trials, n_voxels)

    if betas.ndim != 2 or stimuli is None or len(stimuli) != len(betas):
        if stimuli is None:
            ids = "no ids"
        else:
            ids = f"{len(stimuli)} ids"

        raise DataError(
            "a noise ceiling needs betas (stimuli, repeats, voxels), or (trials, voxels) with one stimulus id per "
            f"trial, but got {betas.shape} and {ids}."
        )

    _, which, repeats = np.unique(np.asarray(stimuli), return_inverse=True, return_counts=True)
    n_trials = len(betas)
    n_stimuli = len(repeats)
    if n_stimuli < 2 or n_trials == n_stimuli:
        raise DataError(
            f"a noise ceiling needs two stimuli or more with at least one shown twice, but there are {n_trials} trials "
            f"of {n_stimuli} stimuli; without repeats noise cannot be told from signal."
        )

    if n_averaged is None and repeats.min() != repeats.max():
        raise DataError(
            f"stimuli were shown between {repeats.min()} and {repeats.max()} times; "
            "say how many repeats will be averaged."
        )

    if n_averaged is None:
        m = repeats[0]  # all are equal, as was checked above
    else:
        m = n_averaged

    betas = betas.astype(np.float64)
    order = np.argsort(which, kind="stable")
    starts = np.concatenate([[0], np.cumsum(repeats)[:-1]])  # (n_stimuli,): first trial of each stimulus
    sums = np.add.reduceat(betas[order], starts, axis=0)  # (n_stimuli, n_voxels)
    means = sums / repeats[:, None]
    within = np.square(betas - means[which]).sum(axis=0) / (n_trials - n_stimuli)  # (n_voxels,)
    between = (repeats[:, None] * np.square(means - betas.mean(axis=0))).sum(axis=0) / (n_stimuli - 1)

    # One-way random effects with unequal group sizes; with equal ones this divisor is the number of repeats.
    divisor = (n_trials - np.square(repeats).sum() / n_trials) / (n_stimuli - 1)
    signal = np.maximum(between - within, 0) / divisor

    # Variances below the square of a millionth of the voxel's size are rounding of float32 betas.
    tiny = np.square(1e-6 * np.abs(betas).max(axis=0))
    signal = np.where(signal > tiny, signal, 0)
    within = np.where(within > tiny, within, 0)

    known = signal + within > 0  # False for NaN as well
    variance = np.full(betas.shape[1], np.nan)
    ncsnr = np.full(betas.shape[1], np.nan)
    np.divide(signal, signal + within / m, out=variance, where=known)
    np.divide(np.sqrt(signal), np.sqrt(within), out=ncsnr, where=within > 0)
    ncsnr[known & (within == 0)] = np.inf

    # 1 - within / between without bias: the mean of 1 / F is freedom / (freedom - 2) where there is no signal.
    freedom = n_stimuli - 1
    unclipped = np.full(betas.shape[1], np.nan)
    if freedom > 2:
        np.divide(within * (freedom - 2), between * freedom, out=unclipped, where=known & (between > tiny))
        unclipped = 1 - unclipped
        single = unclipped * between / divisor  # signal variance, of which an average of other length has another share
        if m != divisor:
            np.divide(single, single + within / m, out=unclipped, where=single + within / m > 0)

    return Ceiling(ncsnr, variance, unclipped)


def voxels_with_signal(betas: np.ndarray, stimuli: np.ndarray, level: float = 0.01) -> np.ndarray:
    """Voxels that answer alike to repeats of a stimulus, by an F test of one-way analysis of variance.

    Parameters
    ----------
    betas : ndarray of shape (n_trials, n_voxels)
        single trials
    stimuli : ndarray of shape (n_trials,)
        stimulus id of each; repeats may differ in number
    level : float, default 0.01
        p below which a voxel counts as reliable

    Returns
    -------
    ndarray of shape (n_voxels,), bool
        False for voxels that never vary
    """
    betas = np.asarray(betas, dtype=np.float64)
    _, which, repeats = np.unique(np.asarray(stimuli).astype(str), return_inverse=True, return_counts=True)
    n_trials = len(betas)
    n_stimuli = len(repeats)
    order = np.argsort(which, kind="stable")
    starts = np.concatenate([[0], np.cumsum(repeats)[:-1]])  # (n_stimuli,): first trial of each stimulus
    means = np.add.reduceat(betas[order], starts, axis=0) / repeats[:, None]  # (n_stimuli, n_voxels)
    within = np.square(betas - means[which]).sum(axis=0) / max(1, n_trials - n_stimuli)
    between = (repeats[:, None] * np.square(means - betas.mean(axis=0))).sum(axis=0) / max(1, n_stimuli - 1)

    ratio = np.divide(between, within, out=np.zeros_like(within), where=within > 0)
    return fdtrc(max(1, n_stimuli - 1), max(1, n_trials - n_stimuli), ratio) < level


def ceiling_from_ncsnr(ncsnr: np.ndarray, n_averaged: int) -> np.ndarray:
    """Share of variance from a published ncsnr map, for averages of ``n_averaged`` repeats.

        ceiling = ncsnr^2 / (ncsnr^2 + 1 / n_averaged)

    Parameters
    ----------
    ncsnr : ndarray of shape (n_voxels,)
        signal SD / noise SD
    n_averaged : int
        repeats averaged before scoring

    Returns
    -------
    ndarray of shape (n_voxels,)
        noise ceiling, 0 to 1

    Examples
    --------
    >>> ceiling_from_ncsnr(np.array([0.0, 1.0]), 3)
    array([0.  , 0.75])
    """
    return ceiling(ncsnr, n_averaged)


def split_half_ceiling(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Share of variance from the correlation of two half averages, stepped up by Spearman and Brown.

    For data that come only as two halves. With all repeats at hand ``noise_ceiling`` uses them better.

    Parameters
    ----------
    first, second : ndarray of shape (n_stimuli, n_voxels)
        averages over two halves of the repeats

    Returns
    -------
    ndarray of shape (n_voxels,)
        reliability 2 r / (1 + r) of the average of both halves; 0 where r is negative, NaN where undefined
    """
    r = np.maximum(pearson_per_voxel(first, second), 0)  # (n_voxels,); below 0 the formula runs to minus infinity
    return 2 * r / (1 + r)


def fraction_of_ceiling(raw: np.ndarray, ceiling: np.ndarray) -> Fraction:
    """Raw scores over their ceiling, never clipped.

    Parameters
    ----------
    raw : ndarray of shape (n_voxels,)
        Pearson r or R2
    ceiling : ndarray of shape (n_voxels,)
        in the same unit: ``sqrt(variance)`` for r, ``variance`` for R2

    Returns
    -------
    Fraction
        ratio NaN where the ceiling is 0 or NaN, counted in ``n_undefined``

    Examples
    --------
    >>> fraction_of_ceiling(np.array([0.3, 0.6, 0.1]), np.array([0.6, 0.5, 0.0])).ratio
    array([0.5, 1.2, nan])
    """
    raw = np.asarray(raw, dtype=np.float64)
    ceiling = np.asarray(ceiling, dtype=np.float64)
    if raw.shape != ceiling.shape:
        raise DataError(f"there are {raw.shape} scores but {ceiling.shape} ceilings; give one of each per voxel.")

    ratio = np.full(raw.shape, np.nan)
    np.divide(raw, ceiling, out=ratio, where=ceiling > 0)
    n_undefined = int(np.isnan(ratio).sum())
    n_above_one = int((ratio > 1).sum())
    return Fraction(raw, ceiling, ratio, n_undefined, n_above_one)
