"""Comparing values that arithmetic has rounded: what differs by no more than rounding is a tie.

Which of two similarities comes out larger in the last bits is decided by the processor's matrix kernel, not by the brain:
a decoder that predicts the same for every trial would be ranked, and scored, by it. So every score that compares or ranks
takes a value for tied with its `own` when they differ by at most

    RESOLUTION x max(|own|, grain),    grain = min(1, largest magnitude among all that is compared)

A correlation is a sum of terms of size up to 1 and is rounded like them, however small the sum is; hence the grain. It is
never above 1, so that one value that has run away cannot make ties of all others: ranks are there to withstand it.
"""

from __future__ import annotations

import numpy as np

RESOLUTION = 32 * float(np.finfo(np.float32).eps)
"""About 3.8e-6. Features, latents and similarities are float32 somewhere on their way, also where a score is float64.

Similarities of one prediction repeated with its last bits changed spread by at most 2.5 steps of float32 of size 1 (17 to
43,264 features, Pearson and cosine), and in proportion to the similarities where those are small. Thirteen times that is
still far below what any number of trials can tell apart."""


def grain_of(values: np.ndarray, axis: int | tuple[int, ...] | None = None) -> np.ndarray:
    """The size of values below which their differences are not looked at in proportion to them.

    Parameters
    ----------
    values : ndarray
        All that is compared with each other; NaN and infinite ones are left out.
    axis : int, tuple of int or None
        Axes along which values are compared with each other; None for all of them.

    Returns
    -------
    ndarray
        Float64, 0 to 1, with `axis` kept at length 1.
    """
    values = np.asarray(values)

    # fmax and fmin pass over NaN. Two reductions instead of abs() spare a copy of a large similarity.
    highest = np.fmax.reduce(values, axis=axis, keepdims=True, initial=0).astype(np.float64)
    lowest = np.fmin.reduce(values, axis=axis, keepdims=True, initial=0).astype(np.float64)
    largest = np.maximum(highest, -lowest)
    if not np.isfinite(largest).all():
        return grain_of(np.where(np.isfinite(values), values, 0), axis)
    return np.minimum(largest, 1)


def bounds(own: np.ndarray, grain: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """The ends of what is tied with `own`: a value below the first is smaller, one above the second larger.

        low, high = own -+ RESOLUTION x max(|own|, grain)

    Parameters
    ----------
    own : ndarray
        Values to compare with.
    grain : ndarray or float
        `grain_of` all that is compared; 0 for values that are rounded in proportion to themselves, as probabilities are.

    Returns
    -------
    low : ndarray
        Of the shape of `own`, and in its type where that is floating, so that comparing a large matrix with it
        converts nothing.
    high : ndarray
        The same for the upper end.
    """
    own = np.asarray(own)
    if own.dtype.kind == "f":
        kind = own.dtype
    else:
        kind = np.dtype(np.float64)

    wide = own.astype(np.float64)  # the sums below must not round once more
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.where(np.isfinite(wide), np.abs(wide), 0)  # infinity minus infinity would be NaN
        half_width = RESOLUTION * np.maximum(size, grain)
        return (wide - half_width).astype(kind), (wide + half_width).astype(kind)


def outcomes(values: np.ndarray, others: np.ndarray, grain: np.ndarray | float) -> np.ndarray:
    """1 where a value is larger than the other, 0 where it is smaller, 1/2 for a tie; NaN ties with everything.

    Parameters
    ----------
    values : ndarray
        First side of the comparison.
    others : ndarray
        Second side, of a shape that broadcasts with `values`.
    grain : ndarray or float
        `grain_of` all that is compared.

    Returns
    -------
    ndarray
        Of the broadcast shape.

    Examples
    --------
    >>> outcomes(np.array([0.3, 0.1 + 0.2, 0.2]), np.array([0.1 + 0.2]), 1.0)
    array([0.5, 0.5, 0. ])
    """
    low, high = bounds(others, grain)
    return 0.5 + 0.5 * (values > high) - 0.5 * (values < low)


def midranks(values: np.ndarray, grain: np.ndarray | float | None = None) -> np.ndarray:
    """Rank of each value along the last axis, from 1; tied values share the mean of their ranks.

        rank = 1/2 + #{values below} + #{values tied, itself included} / 2

    Parameters
    ----------
    values : ndarray of shape (..., m)
        Without NaN.
    grain : ndarray or float, optional
        Of all that is compared; by default of `values`.

    Returns
    -------
    ndarray of shape (..., m)
        Float64, 1 to m.

    Examples
    --------
    >>> midranks(np.array([0.3, 0.1 + 0.2, 0.2, 0.9]))
    array([2.5, 2.5, 1. , 4. ])
    """
    values = np.asarray(values)
    if grain is None:
        grain = grain_of(values)

    order = np.argsort(values, axis=-1)
    ascending = np.take_along_axis(values, order, axis=-1)  # (..., m)
    low, high = bounds(ascending, grain)
    places = np.empty(values.shape)
    places[:] = np.arange(1, values.shape[-1] + 1)

    # Ties are rare: only rows in which two neighbours are tied are counted value by value.
    is_tied = (ascending[..., 1:] <= high[..., :-1]) | (ascending[..., :-1] >= low[..., 1:])  # (..., m - 1)
    for at in map(tuple, np.argwhere(is_tied.any(axis=-1))):
        n_below = np.searchsorted(ascending[at], low[at], side="left")  # (m,)
        n_not_above = np.searchsorted(ascending[at], high[at], side="right")
        places[at] = 0.5 * (n_below + n_not_above + 1)

    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, places, axis=-1)
    return ranks


def first_best(values: np.ndarray, grain: float | None = None) -> np.ndarray:
    """Place of the largest value along the last axis; the first of those tied with it, whatever the rounding.

    Parameters
    ----------
    values : ndarray of shape (..., m)
        Without NaN.
    grain : float, optional
        By default of all of `values`; 1 for log odds, which may all be nothing but rounding around 0.

    Returns
    -------
    ndarray of shape (...)
        Integers, 0 to m - 1.

    Examples
    --------
    >>> int(first_best(np.array([0.2, 0.3, 0.1 + 0.2])))
    1
    """
    values = np.asarray(values)
    if grain is None:
        low, _ = bounds(values.max(axis=-1, keepdims=True), grain_of(values))
    else:
        low, _ = bounds(values.max(axis=-1, keepdims=True), grain)

    return (values >= low).argmax(axis=-1)  # argmax takes the first of them
