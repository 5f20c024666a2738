"""n-way top-k identification, exact: the expectation over every draw of distractors, without drawing.

With b of the other M - 1 candidates above the truth, drawing n - 1 of them without replacement leaves the truth among
the k best with probability

    P = sum_{j < k} C(b, j) C(M - 1 - b, n - 1 - j) / C(M - 1, n - 1)        (hypergeometric)

and t candidates tied with the truth put it at each of t + 1 places with equal probability, so P is averaged over
b ... b + t. Chance is k / n. Published scripts estimate the same number with 40 to 1,000 random draws per item.

References
----------
Chen et al. 2023 (MinD-Vis), n-way top-k classification; Lin et al. 2022 (Mind Reader), n-way identification.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import gammaln

from phosphene.errors import ConfigError, DataError
from phosphene.metrics.identification import Direction, count_above, oriented
from phosphene.metrics.ties import bounds, grain_of


def expected_top_k(n_above: np.ndarray, n_ties: np.ndarray, n_candidates: int, n: int, k: int = 1) -> np.ndarray:
    """Probability that the truth is among the k best of itself and n - 1 drawn distractors.

        score(b, t) = (P(b) + ... + P(b + t)) / (t + 1)

    with b distractors above the truth, t tied with it, and P of the module's docstring.

    Parameters
    ----------
    n_above : ndarray
        integers, distractors that score above the truth, b
    n_ties : ndarray
        integers of the same shape, distractors tied with it, t
    n_candidates : int
        the truth and all its distractors, M
    n : int
        candidates per trial, 2 to M
    k : int, default 1
        how many best count as a success, 1 to n - 1

    Returns
    -------
    ndarray
        array of the same shape, 0 to 1

    Raises
    ------
    DataError
        When n is larger than the number of candidates.
    ConfigError
        When n or k make no sense.

    Examples
    --------
    >>> expected_top_k(np.array([0, 9]), np.array([0, 0]), 1000, 50).round(8)
    array([1.        , 0.63476227])
    """
    check_n_k(n, k, n_candidates)
    total = _cumulative(n_candidates, n, k)  # (n_candidates + 1,)
    n_above = np.asarray(n_above)
    n_ties = np.asarray(n_ties)

    # The sum of P over the run b ... b + t is the difference of the running sum at its two ends.
    return (total[n_above + n_ties + 1] - total[n_above]) / (n_ties + 1)


def check_n_k(n: int, k: int, n_candidates: int) -> None:
    """Refuse an n-way trial that cannot be drawn.

    Parameters
    ----------
    n : int
        candidates per trial, 2 to `n_candidates`
    k : int
        how many best count as a success, 1 to n - 1
    n_candidates : int
        the truth and all its distractors

    Raises
    ------
    ConfigError
        When n or k make no sense.
    DataError
        When n is larger than the number of candidates.
    """
    if n < 2 or not 1 <= k < n:
        raise ConfigError(f"an n-way trial needs n of at least 2 and k from 1 to n - 1, but n is {n} and k is {k}.")

    if n > n_candidates:
        raise DataError(
            f"a {n}-way trial needs {n} candidates, but there are only {n_candidates}; "
            f"ask for n of at most {n_candidates}, or score more test items."
        )


@lru_cache(maxsize=64)
def _cumulative(n_candidates: int, n: int, k: int) -> np.ndarray:
    """Running sum of P over b = 0 ... M - 1, from 0: a mean over any run of b is a difference of two entries."""
    above = np.arange(n_candidates)  # b
    below = n_candidates - 1 - above  # M - 1 - b
    probability = np.zeros(n_candidates)

    # j of the n - 1 drawn distractors lie above the truth. In logarithms: C(1200, 600) is beyond a double.
    for j in range(k):
        possible = (above >= j) & (below >= n - 1 - j)
        b = above[possible]
        r = below[possible]
        log = log_choose(b, j) + log_choose(r, n - 1 - j) - log_choose(n_candidates - 1, n - 1)
        probability[possible] += np.exp(log)

    # The exponential of a rounded logarithm can end a hair above 1.
    total = np.concatenate([[0.0], np.cumsum(np.minimum(probability, 1))])  # (n_candidates + 1,)
    total.setflags(write=False)  # the cache hands the same array to every caller
    return total


def log_choose(n: np.ndarray | int, k: int) -> np.ndarray:
    """Natural logarithm of the number of ways to draw k of n, log C(n, k).

    Parameters
    ----------
    n : ndarray or int
        items to draw from, k or more
    k : int
        items drawn, 0 or more

    Returns
    -------
    ndarray
        of the shape of `n`

    Examples
    --------
    >>> round(float(np.exp(log_choose(5, 2))), 6)
    10.0
    """
    return gammaln(np.add(n, 1)) - gammaln(k + 1) - gammaln(np.subtract(n, k) + 1)


def n_way(
    similarity: np.ndarray, n: int, k: int = 1, truth: np.ndarray | None = None, direction: Direction = "truths"
) -> np.ndarray:
    """Exact n-way top-k identification of every item against the other items.

    Parameters
    ----------
    similarity : ndarray of shape (n_items, m)
        row = decoded, column = true
    n : int
        candidates per trial, and how many best succeed
    k : int, default 1
        see `n`
    truth : ndarray, optional
        as in ``phosphene.metrics.identification.two_way``
    direction : {"truths", "decoded"}, default "truths"
        as in ``phosphene.metrics.identification.two_way``

    Returns
    -------
    ndarray of shape (n_items,)
        0 to 1, chance k / n. ``n=2`` is two-way identification.

    Raises
    ------
    DataError
        With fewer than n true items.
    """
    above, ties, _ = count_above(similarity, truth, None, direction)
    ranked, _ = oriented(similarity, truth, direction)
    return expected_top_k(above, ties, ranked.shape[1], n, k)


def n_way_matrix(similarity: np.ndarray, n: int, k: int = 1, direction: Direction = "truths") -> np.ndarray:
    """What ``n_way`` would be for row i, were column j its truth, for permutation nulls.

    A permuted score is the mean of ``matrix[i, permutation[i]]``, as with ``rank_matrix`` of two-way identification.

    Parameters
    ----------
    similarity : ndarray of shape (n_items, m)
        row = decoded, column = true
    n : int
        candidates per trial, 2 to m
    k : int, default 1
        how many best succeed
    direction : {"truths", "decoded"}, default "truths"
        as in ``n_way``; ``decoded`` needs a square matrix

    Returns
    -------
    ndarray of shape (n_items, m)
        0 to 1; where the similarity is NaN every comparison is a tie, which scores chance, k / n
    """
    similarity = np.asarray(similarity)
    if direction == "decoded":
        similarity = similarity.T

    m = similarity.shape[1]
    check_n_k(n, k, m)

    # Each row is sorted once, so that the counts of all its m possible truths are two binary searches.
    order = np.sort(np.where(np.isnan(similarity), np.inf, similarity), axis=1)
    lowest, highest = bounds(similarity, grain_of(similarity))  # (n_items, m) each
    above = np.empty(similarity.shape, int)
    ties = np.empty(similarity.shape, int)

    for i, row in enumerate(similarity):
        missing = np.isnan(row)
        defined = order[i, : m - missing.sum()]  # NaN were sorted to the end as infinity
        n_above = len(defined) - np.searchsorted(defined, highest[i], side="right")  # (m,)
        n_below = np.searchsorted(defined, lowest[i], side="left")  # (m,)

        above[i] = n_above
        ties[i] = m - 1 - n_above - n_below
        above[i, missing] = 0
        ties[i, missing] = m - 1

    return expected_top_k(above, ties, m, n, k)


def n_way_influence(
    similarity: np.ndarray, n: int, k: int = 1, truth: np.ndarray | None = None, direction: Direction = "truths"
) -> np.ndarray:
    """How much each stimulus, as a row and as a distractor, contributes to the n-way score.

    Jackknife pseudo-values, moved so that their mean is the score; bootstrapping them gives an interval that knows
    stimuli are drawn on both sides. Drawing rows and columns directly is biased for large n, because a gallery drawn
    with replacement holds fewer different distractors: by +0.05 for 50-way among 100 items. With S the score, S(-s) that
    without stimulus s and m' the stimuli that some row shows,

        pseudo_s = m' S - (m' - 1) S(-s),    influence_s = pseudo_s - mean(pseudo) + S

    Parameters
    ----------
    similarity : ndarray of shape (n_items, m)
        row = decoded, column = true
    n : int
        candidates per trial, 2 to m
    k : int, default 1
        how many best succeed
    truth : ndarray of shape (n_items,), optional
        column of each row; rows of one stimulus share its weight
    direction : {"truths", "decoded"}, default "truths"
        as in ``n_way``

    Returns
    -------
    ndarray of shape (m',)
        one per true item that some row shows, not bounded by 0 and 1

    References
    ----------
    Efron 1982, "The jackknife, the bootstrap and other resampling plans" (pseudo-values).
    """
    similarity, truth = oriented(similarity, truth, direction)
    rows = np.arange(len(similarity))
    m = similarity.shape[1]
    per_row = n_way(similarity, n, k, truth)  # (n_items,)
    weight = 1 / np.bincount(truth, minlength=m).clip(1)[truth]  # (n_items,): rows of one stimulus share its weight
    scored = np.unique(truth)  # (m',)

    # With two stimuli, leaving one out leaves no trial to score.
    if m < 3:
        return np.bincount(truth, weight * per_row, minlength=m)[scored]

    own = similarity[rows, truth][:, None]  # (n_items, 1)
    low, high = bounds(own, grain_of(similarity))
    above = similarity > high
    below = similarity < low
    ties = ~(above | below)
    ties[rows, truth] = False  # the truth is tied with itself, but no distractor
    n_above = above.sum(axis=1, keepdims=True)
    n_ties = m - 1 - n_above - below.sum(axis=1, keepdims=True)

    # Column s now stands for the gallery without stimulus s: it counts one less where s was above or tied.
    n_above = np.minimum(n_above - above, m - 2)  # (n_items, m); touches only the truth's entry, which is dropped below
    n_ties = np.minimum(n_ties - ties, m - 2 - n_above)
    smaller = min(n, m - 1)  # n = m has no such trial in the smaller gallery
    without = expected_top_k(n_above, n_ties, m - 1, smaller, min(k, smaller - 1))
    without[rows, truth] = 0  # a stimulus left out is not scored either

    n_scored = len(scored)
    score = (weight * per_row).sum() / n_scored
    left_out = (weight @ without)[scored] / max(1, n_scored - 1)  # (m',)
    pseudo = n_scored * score - (n_scored - 1) * left_out

    # The jackknife's own estimate of bias is taken out: the mean must be the score that is reported.
    return pseudo - pseudo.mean() + score


def n_way_class(scores: np.ndarray, true_class: np.ndarray, n: int = 50, k: int = 1) -> np.ndarray:
    """Exact n-way top-k from the class scores of a classifier, the published "n-way top-k accuracy".

    Parameters
    ----------
    scores : ndarray of shape (n_items, n_classes)
        logits or probabilities of the classifier on the decoded pictures
    true_class : ndarray of shape (n_items,)
        column of the true class; the published scripts take the classifier's own argmax on the true picture
    n, k : int, optional
        classes per trial, and how many best succeed

    Returns
    -------
    ndarray of shape (n_items,)
        0 to 1, chance k / n; a row with NaN at the truth scores chance

    Notes
    -----
    Scores are tied within rounding of the true class's own score. A softmax rounds each probability in proportion to it,
    so that one of 1e-9 and one of 2e-9 differ, whatever the largest is.
    """
    above, ties, _ = count_above(scores, true_class, grain=0.0)  # (n_items,) each
    return expected_top_k(above, ties, np.shape(scores)[1], n, k)


def n_way_monte_carlo(
    similarity: np.ndarray,
    n: int,
    k: int = 1,
    truth: np.ndarray | None = None,
    *,
    n_draws: int = 1000,
    rng: np.random.Generator,
) -> np.ndarray:
    """The same by drawing distractors, as published scripts do. Only to compare with: ``n_way`` is its exact limit.

    Ties are broken at random.

    Parameters
    ----------
    similarity : ndarray of shape (n_items, m)
        row = decoded, column = true
    n : int
        candidates per trial, 2 to m
    k : int, default 1
        how many best succeed
    truth : ndarray of shape (n_items,), optional
        as in ``n_way``
    n_draws : int, default 1000
        trials per item
    rng : numpy.random.Generator
        draws distractors and breaks ties

    Returns
    -------
    ndarray of shape (n_items,)
        share of trials won, 0 to 1, with a standard error of sqrt(p (1 - p) / n_draws)
    """
    similarity, truth = oriented(similarity, truth)
    m = similarity.shape[1]
    check_n_k(n, k, m)
    score = np.empty(len(similarity))
    own = similarity[np.arange(len(similarity)), truth][:, None]  # (n_items, 1)
    low, high = bounds(own, grain_of(similarity))

    for i, row in enumerate(similarity):
        distractors = np.delete(row, truth[i])  # (m - 1,)
        columns = np.argsort(rng.random((n_draws, m - 1)), axis=1)[:, : n - 1]  # drawn without replacement
        drawn = distractors[columns]  # (n_draws, n - 1)
        above = (drawn > high[i]).sum(axis=1)  # (n_draws,)
        ties = n - 1 - above - (drawn < low[i]).sum(axis=1)
        n_before = above + rng.integers(0, ties + 1)  # the truth takes any of the t + 1 places of its tie
        score[i] = np.mean(n_before < k)

    return score
