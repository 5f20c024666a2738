"""Intervals and nulls over stimuli: BCa bootstrap, permutation of the pairing, paired differences.

Everything is drawn over stimuli, never over pairs of stimuli: N (N - 1) comparisons share N items, and treating them as
independent claims intervals several times too narrow. A statistic is a function of how often each stimulus was drawn,

    statistic(counts) -> values        counts: (n_draws, n_items), values: (n_draws,)

so the bootstrap and its jackknife are a few matrix products.

References
----------
Efron 1987, "Better bootstrap confidence intervals"; Phipson and Smyth 2010, "Permutation p-values should never be
zero".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from phosphene.errors import ConfigError, DataError

Statistic = Callable[[np.ndarray], np.ndarray]
_BLOCK_VALUES = 4_000_000  # about 32 MB of float64 at a time


class Interval(NamedTuple):
    """A statistic and its interval.

    Attributes
    ----------
    value : float
        the statistic of all items, each once
    low, high : float
        ends of the interval; NaN where it is not defined
    """

    value: float
    low: float
    high: float


class Null(NamedTuple):
    """A permutation null.

    Attributes
    ----------
    p : float
        one-sided, never 0
    mean : float
        of the permuted scores: the chance level that this null has in fact
    percentile_99 : float
        of the permuted scores, on their better side
    n_permutations : int
        how many were drawn
    """

    p: float
    mean: float
    percentile_99: float
    n_permutations: int


class Difference(NamedTuple):
    """Mean paired difference with its interval and a sign-flip test.

    Attributes
    ----------
    value : float
        mean of ours minus theirs
    low, high : float
        ends of its BCa interval
    p : float
        two-sided, never 0
    n : int
        pairs in which both sides are defined
    """

    value: float
    low: float
    high: float
    p: float
    n: int


def mean_of_items(per_item: np.ndarray) -> Statistic:
    """The mean of per-item values; NaN items are left out.

        statistic(counts) = sum_i counts_i x_i / sum_i counts_i

    Parameters
    ----------
    per_item : ndarray of shape (n_items,)
        what is averaged

    Returns
    -------
    Statistic
        NaN for a draw of NaN items alone
    """
    per_item = np.asarray(per_item, dtype=np.float64)
    present = ~np.isnan(per_item)
    values = np.where(present, per_item, 0)
    return lambda counts: _ratio(counts @ values, counts @ present.astype(float))  # (n_draws,)


def mean_of_pairs(wins: np.ndarray, counted: np.ndarray) -> Statistic:
    """Mean over items of the share of comparisons won, drawing rows and columns together.

        statistic(counts) = mean over i, weighted by counts_i, of sum_j counts_j wins_ij / sum_j counts_j counted_ij

    A stimulus drawn twice is never compared with its own copy: the diagonal must not be counted.

    Parameters
    ----------
    wins : ndarray of shape (n_items, n_items)
        0 to 1, 0 where not counted
    counted : ndarray of shape (n_items, n_items)
        which comparisons count

    Returns
    -------
    Statistic
        items left without a comparison in a draw do not enter its mean
    """
    wins = np.asarray(wins, dtype=np.float64)
    counted = np.asarray(counted, dtype=np.float64)

    def statistic(counts: np.ndarray) -> np.ndarray:
        per_item = _ratio(counts @ wins.T, counts @ counted.T)  # (n_draws, n_items)
        present = ~np.isnan(per_item)
        total = (counts * np.where(present, per_item, 0)).sum(axis=1)  # (n_draws,)
        return _ratio(total, (counts * present).sum(axis=1))

    return statistic


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Quotient, NaN where nothing was counted."""
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=np.asarray(bottom) > 0)


def bootstrap(
    statistic: Statistic,
    n_items: int,
    *,
    rng: np.random.Generator,
    n_draws: int = 2000,
    level: float = 0.95,
    groups: np.ndarray | None = None,
) -> Interval:
    """Bias-corrected and accelerated (BCa) bootstrap interval over stimuli.

        end(q) = quantile of the draws at  Phi(z0 + (z0 + z_q) / (1 - a (z0 + z_q)))        (Efron 1987)

    with z0 from the share of draws below the value and the acceleration a from the skewness of the jackknife. Scores
    near their bounds have skewed draws; plain percentiles would then cover too little.

    Parameters
    ----------
    statistic : Statistic
        function of draw counts, such as ``mean_of_items`` or ``mean_of_pairs``
    n_items : int
        number of stimuli
    rng : numpy.random.Generator
        numpy Generator
    n_draws : int, default 2000
        bootstrap draws
    level : float, default 0.95
        coverage
    groups : ndarray of shape (n_items,), optional
        labels of items that depend on each other, such as sizes of one figure: groups are then drawn, not items

    Returns
    -------
    Interval
        NaN bounds with fewer than two items. Without any spread among the items the bounds are the value itself, which
        says nothing about items not seen.

    Examples
    --------
    >>> bootstrap(mean_of_items(np.ones(5)), 5, rng=np.random.default_rng(0))
    Interval(value=1.0, low=1.0, high=1.0)
    """
    if n_draws < 100 or not 0 < level < 1:
        raise ConfigError(
            f"an interval needs 100 draws or more and a level between 0 and 1, not {n_draws} and {level}."
        )

    if n_items < 1:
        return Interval(float("nan"), float("nan"), float("nan"))

    everything_once = np.ones((1, n_items))
    value = float(statistic(everything_once)[0])
    if n_items < 2 or np.isnan(value):
        return Interval(value, float("nan"), float("nan"))

    unit = np.arange(n_items)  # (n_items,): which unit an item is drawn with
    if groups is not None:
        _, unit = np.unique(np.asarray(groups).astype(str), return_inverse=True)

    n_units = int(unit.max()) + 1
    if n_units < 2:
        return Interval(value, float("nan"), float("nan"))

    step = max(1, _BLOCK_VALUES // n_items)
    draws = []
    jackknife = []
    for start in range(0, n_draws, step):
        counts = _draw_counts(min(step, n_draws - start), n_units, rng)  # (up to step, n_units)
        draws.append(statistic(_of_items(counts, unit)))

    for start in range(0, n_units, step):
        counts = _leave_one_out(start, min(start + step, n_units), n_units)
        jackknife.append(statistic(_of_items(counts, unit)))

    drawn = np.concatenate(draws)  # (n_draws,)
    left_out = np.concatenate(jackknife)  # (n_items,)
    drawn = drawn[~np.isnan(drawn)]
    left_out = left_out[~np.isnan(left_out)]

    # Too few draws hold a defined item for a quantile of them to mean anything.
    if len(drawn) < 100:
        return Interval(value, float("nan"), float("nan"))

    low, high = _bca(value, drawn, left_out, level)
    return Interval(value, low, high)


def _of_items(counts: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """(n_draws, n_items) counts of items from those of the units they are drawn with."""
    if counts.shape[1] == len(unit):  # every item is its own unit, in order
        return counts

    return counts[:, unit]


def widened(interval: Interval, n_folds: int) -> Interval:
    """An interval of scores out of fold, as wide as the dependence between folds makes it.

    Decoders of different folds share most of their training items, and each item that tests one trains all the others, so
    that the items' scores vary together. The variance is that of independent items times

        1 + n_folds * n_test / n_train  =  1 + n_folds / (n_folds - 1)        (Nadeau and Bengio 2003)

    Parameters
    ----------
    interval : Interval
        of `bootstrap`
    n_folds : int
        1 for a single split, which changes nothing

    Returns
    -------
    Interval
        the same value; its ends moved away from it

    References
    ----------
    Nadeau and Bengio 2003, "Inference for the generalization error"

    Examples
    --------
    >>> low, high = widened(Interval(0.5, 0.4, 0.6), 2)[1:]
    >>> round(low, 3), round(high, 3)
    (0.327, 0.673)
    """
    if n_folds < 2:
        return interval

    factor = np.sqrt(1 + n_folds / (n_folds - 1))
    low = interval.value - factor * (interval.value - interval.low)
    high = interval.value + factor * (interval.high - interval.value)
    return Interval(interval.value, float(low), float(high))


def _draw_counts(n_draws: int, n_items: int, rng: np.random.Generator) -> np.ndarray:
    """(n_draws, n_items): how often each item comes in n_items draws with replacement."""
    drawn = rng.integers(0, n_items, (n_draws, n_items))
    drawn += np.arange(n_draws)[:, None] * n_items  # one range of numbers per draw, so that one count serves them all
    counts = np.bincount(drawn.ravel(), minlength=n_draws * n_items)
    return counts.reshape(n_draws, n_items).astype(np.float64)


def _leave_one_out(start: int, stop: int, n_items: int) -> np.ndarray:
    """(stop - start, n_items): every item once but for items start, start + 1 ... stop - 1 in turn."""
    counts = np.ones((stop - start, n_items))
    counts[np.arange(stop - start), np.arange(start, stop)] = 0
    return counts


def _bca(value: float, drawn: np.ndarray, left_out: np.ndarray, level: float) -> tuple[float, float]:
    """Ends of the interval from bootstrap draws (n_draws,) and jackknife values (n_items,)."""
    # Draws equal to the value count one half, else scores with few values are taken for biased. The clip keeps z0 finite.
    tolerance = 1e-12 * max(1.0, abs(value))  # the same items summed in another order
    below = np.mean(drawn < value - tolerance)
    equal = np.mean(np.abs(drawn - value) <= tolerance)
    bias = ndtri(np.clip(below + equal / 2, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))  # z0

    if len(left_out):
        deviation = left_out.mean() - left_out
    else:
        deviation = np.zeros(1)

    sum_of_squares = np.square(deviation).sum()
    if sum_of_squares > 1e-24:  # items that differ by more than rounding
        acceleration = (deviation**3).sum() / (6 * sum_of_squares**1.5)
    else:
        acceleration = 0.0

    shifted = bias + ndtri([(1 - level) / 2, (1 + level) / 2])  # (2,): low, high
    scale = 1 - acceleration * shifted

    # Beyond its pole the correction turns over; the outermost draw is then the only honest bound.
    quantiles = np.where(scale > 0, ndtr(bias + shifted / np.where(scale > 0, scale, 1)), shifted > 0)
    low, high = np.quantile(drawn, quantiles)
    return float(low), float(high)


def pairings(
    seed: int, n_items: int, n_permutations: int, groups: np.ndarray | None = None, blocks: np.ndarray | None = None
) -> np.ndarray:
    """Random pairings for `permutation_null`, the same ones for the same arguments: drawn once, and used for every score.

    Parameters
    ----------
    seed : int
        of the draws
    n_items, n_permutations : int
        how many
    groups, blocks : ndarray of shape (n_items,), optional
        see `permutation_null`

    Returns
    -------
    ndarray of shape (n_permutations, n_items), uint16 or int32
        item whose truth each item is given; not to be written to
    """
    key = []
    for labels in (groups, blocks):
        if labels is None:
            key.append(None)
        else:
            _, codes = np.unique(np.asarray(labels).astype(str), return_inverse=True)
            key.append(codes.astype(np.int32).tobytes())

    return _drawn_pairings(seed, n_items, n_permutations, key[0], key[1])


@lru_cache(maxsize=3)
def _drawn_pairings(
    seed: int, n_items: int, n_permutations: int, groups: bytes | None, blocks: bytes | None
) -> np.ndarray:
    labels = [None if one is None else np.frombuffer(one, dtype=np.int32) for one in (groups, blocks)]
    small = np.uint16
    if n_items > np.iinfo(small).max:
        small = np.int32

    orders = np.empty((n_permutations, n_items), dtype=small)
    rng = np.random.default_rng([seed, n_items])
    step = max(1, _BLOCK_VALUES // max(1, n_items))
    for start in range(0, n_permutations, step):
        stop = min(start + step, n_permutations)
        orders[start:stop] = _permutations(stop - start, n_items, labels[0], labels[1], rng)

    orders.setflags(write=False)
    return orders


def permutation_null(
    scores: np.ndarray,
    *,
    rng: np.random.Generator | None = None,
    n_permutations: int = 10_000,
    groups: np.ndarray | None = None,
    blocks: np.ndarray | None = None,
    larger_is_better: bool = True,
    orders: np.ndarray | None = None,
) -> Null:
    """How often a random pairing of decoded and true items scores as well as the true one.

        score(permutation) = mean over i of scores[i, permutation(i)]
        p = (1 + #{permuted scores as good as the true one}) / (1 + n_permutations)        (Phipson and Smyth 2010)

    Permuting the pairing, rather than the trials before the fit, keeps the decoder's own preferences: one that always
    decodes the same few pictures has them under the null as well.

    Parameters
    ----------
    scores : ndarray of shape (n_items, n_items)
        what item i would score were j its truth; the observed score is the mean diagonal. NaN entries are left out of
        each mean
    rng : numpy.random.Generator, optional
        numpy Generator; needed without `orders`
    n_permutations : int, default 10000
        random pairings
    groups : ndarray of shape (n_items,), optional
        labels; pairings are then permuted only inside each group (sessions, classes, or blocks of a matrix of which
        only the blocks were computed)
    blocks : ndarray of shape (n_items,), optional
        labels of items that depend on each other: these stay together when pairings are permuted
    larger_is_better : bool, default True
        False for errors such as MSE
    orders : ndarray of shape (n_permutations, n_items), optional
        pairings that were drawn before, of `pairings`; then `groups` and `blocks` play no part

    Returns
    -------
    Null
        p is one-sided and never 0; 1 without items

    Raises
    ------
    DataError
        When ``scores`` is not square or ``groups`` has another length.

    Examples
    --------
    >>> permutation_null(np.eye(9), rng=np.random.default_rng(0), n_permutations=999).p
    0.001
    """
    scores = np.asarray(scores, dtype=np.float64)
    n_items = len(scores)
    if scores.shape != (n_items, n_items):
        raise DataError(f"a permutation null needs a square matrix of scores, but got {scores.shape}.")
    if orders is not None:
        n_permutations = len(orders)
    elif rng is None:
        raise ConfigError("a permutation null needs a random generator, or pairings that were drawn before.")

    if n_permutations < 1:
        raise ConfigError(f"a permutation null needs at least one permutation, not {n_permutations}.")

    if n_items == 0:
        return Null(1.0, float("nan"), float("nan"), n_permutations)

    present = ~np.isnan(scores)
    n_present = np.diagonal(present).sum()
    flat = np.where(present, scores, 0).ravel()  # (n_items * n_items,)
    flat_present = present.ravel()
    offsets = np.arange(n_items) * n_items  # where each row starts in `flat`
    null = np.empty(n_permutations)
    step = max(1, _BLOCK_VALUES // n_items)

    for start in range(0, n_permutations, step):
        stop = min(start + step, n_permutations)
        if orders is not None:
            order = orders[start:stop]
        else:
            assert rng is not None  # as was asked above
            order = _permutations(stop - start, n_items, groups, blocks, rng)

        places = order + offsets  # (stop - start, n_items)
        total = flat[places].sum(axis=1)  # (stop - start,)
        if present.all():
            null[start:stop] = total / n_items
        else:
            null[start:stop] = _ratio(total, flat_present[places].sum(axis=1))

    if n_present == 0:
        return Null(1.0, float("nan"), float("nan"), n_permutations)

    observed = np.diagonal(np.where(present, scores, 0)).sum() / n_present
    null = null[~np.isnan(null)]
    sign = 1
    if not larger_is_better:
        sign = -1
        observed = -observed
        null = -null

    # A permutation whose mean is not defined counts against the decoder: leaving it out would lower p.
    tolerance = 1e-10 * max(1.0, abs(observed))  # sums of the same numbers in another order are equal
    count = np.sum(null >= observed - tolerance) + (n_permutations - len(null))
    p = float((1 + count) / (n_permutations + 1))

    mean = float("nan")
    high = float("nan")
    if len(null):
        mean = float(null.mean())
        high = float(np.quantile(null, 0.99))

    return Null(p, sign * mean, sign * high, n_permutations)


def _permutations(
    n: int, n_items: int, groups: np.ndarray | None, blocks: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """(n, n_items): random orders of the items, in which each stays inside its group, and those of a block stay together."""
    order = np.tile(np.arange(n_items), (n, 1))
    if groups is None and blocks is None:
        return rng.permuted(order, axis=1, out=order)

    if groups is None:
        groups = np.zeros(n_items, int)

    for name, labels in (("groups", groups), ("blocks", blocks)):
        if labels is not None and np.shape(labels) != (n_items,):
            raise DataError(f"{name} should be one per item, {n_items} of them, but have shape {np.shape(labels)}.")

    groups = np.asarray(groups)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        if blocks is None:
            order[:, members] = rng.permuted(order[:, members], axis=1)  # (n, members)
        else:
            order[:, members] = members[_block_orders(n, np.asarray(blocks)[members], rng)]

    return order


def _block_orders(n: int, blocks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, n_members): whole blocks in random order, laid upon the members block after block, shuffled inside.

    Blocks of one size change places; of several sizes, most neighbours stay neighbours.
    """
    _, block = np.unique(blocks.astype(str), return_inverse=True)
    n_blocks = int(block.max()) + 1
    by_block = np.argsort(block, kind="stable")  # members, block after block
    rank = np.argsort(rng.random((n, n_blocks)), axis=1)  # (n, n_blocks): place of each block in a random order
    within = rng.random((n, len(block)))  # (n, n_members)
    keys = rank[:, block] + within
    laid = np.argsort(keys, axis=1)  # (n, n_members): members in the order of shuffled blocks

    orders = np.empty_like(laid)
    orders[:, by_block] = laid
    return orders


def paired_difference(
    ours: np.ndarray,
    theirs: np.ndarray,
    *,
    rng: np.random.Generator,
    n_draws: int = 2000,
    n_flips: int = 10_000,
    groups: np.ndarray | None = None,
    n_folds: int = 1,
) -> Difference:
    """Mean difference between two scores of the same items, BCa interval and sign-flip test.

        p = (1 + #{flips with |mean(sign_i d_i)| >= |mean(d)|}) / (1 + n_flips),    d = ours - theirs

    Were the two equally good, each difference could as well have the other sign; nothing else is assumed of them.

    Parameters
    ----------
    ours, theirs : ndarray of shape (n_items,)
        in the same order; items that are NaN on either side are left out of both
    rng : numpy.random.Generator
        numpy Generator
    n_draws, n_flips : int, optional
        bootstrap draws and random sign flips
    groups : ndarray of shape (n_items,), optional
        labels of items that depend on each other: groups are drawn, and change sign, as a whole
    n_folds : int, default 1
        folds that the items were tested in, see `widened`

    Returns
    -------
    Difference
        ``value`` is ours minus theirs; p is two-sided and never 0
    """
    ours = np.asarray(ours, dtype=np.float64)
    theirs = np.asarray(theirs, dtype=np.float64)
    if ours.shape != theirs.shape or ours.ndim != 1:
        raise DataError(
            f"a paired difference needs the same items on both sides, but got {ours.shape} and {theirs.shape}."
        )

    difference = ours - theirs
    is_there = ~np.isnan(difference)
    difference = difference[is_there]
    n = len(difference)
    if n == 0:
        return Difference(float("nan"), float("nan"), float("nan"), 1.0, 0)

    sums = difference  # (n_units,): what changes sign as a whole
    if groups is not None:
        groups = np.asarray(groups).astype(str)[is_there]
        _, unit = np.unique(groups, return_inverse=True)
        sums = np.bincount(unit, weights=difference)

    interval = widened(bootstrap(mean_of_items(difference), n, rng=rng, n_draws=n_draws, groups=groups), n_folds)
    observed = abs(difference.mean())
    tolerance = 1e-12 * max(1.0, observed)  # sums of the same numbers in another order are equal
    step = max(1, _BLOCK_VALUES // n)
    count = 0

    for start in range(0, n_flips, step):
        signs = rng.integers(0, 2, (min(step, n_flips - start), len(sums))) * 2.0 - 1  # (up to step, n_units), -1 or 1
        flipped = np.abs(signs @ sums) / n  # (up to step,)
        count += np.sum(flipped >= observed - tolerance)

    p = float((1 + count) / (n_flips + 1))
    return Difference(*interval, p, n)


def holm(p: np.ndarray) -> np.ndarray:
    """Adjust p values for being many: below alpha only where, with that certainty, no true null is rejected among all.

        adjusted_(i) = max over j <= i of min(1, (n - j + 1) p_(j)),    p_(1) <= p_(2) <= ... <= p_(n)

    Parameters
    ----------
    p : ndarray of shape (n,)
        p values; NaN is no test and stays NaN

    Returns
    -------
    ndarray of shape (n,)
        adjusted p, at most 1

    References
    ----------
    Holm 1979, "A simple sequentially rejective multiple test procedure"

    Examples
    --------
    >>> holm(np.array([0.01, 0.04, 0.03])).round(3)
    array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)  # (n_tested,): the smallest times n, the next times n - 1 ...
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))  # never below the adjusted p of a smaller one

    return adjusted
