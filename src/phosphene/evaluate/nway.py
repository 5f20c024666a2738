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
from phosphene.evaluate.identification import Direction, count_above, oriented
from phosphene.evaluate.ties import bounds, grain_of


def expected_top_k(n_above: np.ndarray, n_ties: np.ndarray, n_candidates: int, n: int, k: int = 1) -> np.ndarray:
    """Probability that the truth is among the k best of itself and n - 1 drawn distractors.

    Parameters
    ----------
    n_above : integers, distractors that score above the truth
    n_ties : integers of the same shape, distractors tied with it
    n_candidates : the truth and all its distractors, M
    n : candidates per trial, 2 to M
    k : how many best count as a success, 1 to n - 1

    Returns
    -------
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
    total = _cumulative(n_candidates, n, k)
    n_above, n_ties = np.asarray(n_above), np.asarray(n_ties)
    return (total[n_above + n_ties + 1] - total[n_above]) / (n_ties + 1)


def check_n_k(n: int, k: int, n_candidates: int) -> None:
    """Refuse an n-way trial that cannot be drawn."""
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
    above = np.arange(n_candidates)
    below = n_candidates - 1 - above
    probability = np.zeros(n_candidates)
    for j in range(k):
        possible = (above >= j) & (below >= n - 1 - j)
        b, r = above[possible], below[possible]
        log = log_choose(b, j) + log_choose(r, n - 1 - j) - log_choose(n_candidates - 1, n - 1)
        probability[possible] += np.exp(log)
    total = np.concatenate([[0.0], np.cumsum(np.minimum(probability, 1))])
    total.setflags(write=False)
    return total


def log_choose(n: np.ndarray | int, k: int) -> np.ndarray:
    """Logarithm of the number of ways to draw k of n."""
    return gammaln(np.add(n, 1)) - gammaln(k + 1) - gammaln(np.subtract(n, k) + 1)


def n_way(
    similarity: np.ndarray, n: int, k: int = 1, truth: np.ndarray | None = None, direction: Direction = "truths"
) -> np.ndarray:
    """Exact n-way top-k identification of every item against the other items.

    Parameters
    ----------
    similarity : (n_items, m), row = decoded, column = true
    n, k : candidates per trial, and how many best succeed
    truth, direction : as in ``phosphene.evaluate.identification.two_way``

    Returns
    -------
    (n_items,), 0 to 1, chance k / n. ``n=2`` is two-way identification.

    Raises
    ------
    DataError
        With fewer than n true items.
    """
    above, ties, _ = count_above(similarity, truth, None, direction)
    return expected_top_k(above, ties, oriented(similarity, truth, direction)[0].shape[1], n, k)


def n_way_matrix(similarity: np.ndarray, n: int, k: int = 1, direction: Direction = "truths") -> np.ndarray:
    """What ``n_way`` would be for row i, were column j its truth: (n_items, m), for permutation nulls."""
    similarity = np.asarray(similarity)
    similarity = similarity.T if direction == "decoded" else similarity
    m = similarity.shape[1]
    check_n_k(n, k, m)
    order = np.sort(np.where(np.isnan(similarity), np.inf, similarity), axis=1)
    lowest, highest = bounds(similarity, grain_of(similarity))
    above, ties = np.empty(similarity.shape, int), np.empty(similarity.shape, int)
    for i, row in enumerate(similarity):
        finite = order[i, : m - np.isnan(row).sum()]
        high = len(finite) - np.searchsorted(finite, highest[i], side="right")
        low = np.searchsorted(finite, lowest[i], side="left")
        above[i], ties[i] = high, m - 1 - high - low
        above[i, np.isnan(row)], ties[i, np.isnan(row)] = 0, m - 1
    return expected_top_k(above, ties, m, n, k)


def n_way_influence(
    similarity: np.ndarray, n: int, k: int = 1, truth: np.ndarray | None = None, direction: Direction = "truths"
) -> np.ndarray:
    """How much each stimulus, as a row and as a distractor, contributes to the n-way score.

    Jackknife pseudo-values, moved so that their mean is the score; bootstrapping them gives an interval that knows
    stimuli are drawn on both sides. Drawing rows and columns directly is biased for large n, because a gallery drawn
    with replacement holds fewer different distractors: by +0.05 for 50-way among 100 items.

    Arguments as ``n_way``. Returns (m,), one per true item, not bounded by 0 and 1.
    """
    similarity, truth = oriented(similarity, truth, direction)
    rows, m = np.arange(len(similarity)), similarity.shape[1]
    per_row = n_way(similarity, n, k, truth)
    share = 1 / np.bincount(truth, minlength=m).clip(1)[truth]  # rows of one stimulus share its weight
    shown = np.unique(truth)
    if m < 3:
        return np.bincount(truth, share * per_row, minlength=m)[shown]
    own = similarity[rows, truth][:, None]
    low, high = bounds(own, grain_of(similarity))
    above, below = similarity > high, similarity < low
    n_above = above.sum(axis=1, keepdims=True)
    n_ties = m - 1 - n_above - below.sum(axis=1, keepdims=True)
    ties = ~(above | below)
    ties[rows, truth] = False
    smaller = min(n, m - 1)
    n_above = np.minimum(n_above - above, m - 2)  # touches only the truth's own entry, which is dropped below
    n_ties = np.minimum(n_ties - ties, m - 2 - n_above)
    without = expected_top_k(n_above, n_ties, m - 1, smaller, min(k, smaller - 1))
    without[rows, truth] = 0  # a stimulus left out is not scored either
    n_shown = len(shown)
    score = (share * per_row).sum() / n_shown
    left_out = (share @ without)[shown] / max(1, n_shown - 1)
    pseudo = n_shown * score - (n_shown - 1) * left_out
    return pseudo - pseudo.mean() + score


def n_way_class(scores: np.ndarray, true_class: np.ndarray, n: int = 50, k: int = 1) -> np.ndarray:
    """Exact n-way top-k from the class scores of a classifier, the published "n-way top-k accuracy".

    Parameters
    ----------
    scores : (n_items, n_classes), logits or probabilities of the classifier on the decoded pictures
    true_class : (n_items,) column of the true class; the published scripts take the classifier's own argmax on the
        true picture
    n, k : classes per trial, and how many best succeed

    Returns
    -------
    (n_items,), 0 to 1, chance k / n; a row with NaN at the truth scores chance

    Notes
    -----
    Scores are tied within rounding of the true class's own score. A softmax rounds each probability in proportion to it,
    so that one of 1e-9 and one of 2e-9 differ, whatever the largest is.
    """
    above, ties, _ = count_above(scores, true_class, grain=0.0)
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

    Ties are broken at random. Arguments as ``n_way``; ``n_draws`` trials per item.
    """
    similarity, truth = oriented(similarity, truth)
    m = similarity.shape[1]
    check_n_k(n, k, m)
    score = np.empty(len(similarity))
    own = similarity[np.arange(len(similarity)), truth][:, None]
    low, high = bounds(own, grain_of(similarity))
    for i, row in enumerate(similarity):
        others = np.delete(row, truth[i])
        drawn = others[np.argsort(rng.random((n_draws, m - 1)), axis=1)[:, : n - 1]]
        above = (drawn > high[i]).sum(axis=1)
        ties = n - 1 - above - (drawn < low[i]).sum(axis=1)
        score[i] = np.mean(above + rng.integers(0, ties + 1) < k)
    return score
