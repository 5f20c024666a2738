"""Retrieval of the right item from a gallery of N, for every N at once and exactly.

``forward``: a decoded item looks for its picture among N true ones. ``backward``: a picture looks for its decoded item
among N decoded ones. Both are n-way top-k identification, so a score without its gallery size means nothing.

``batch_retrieval`` is the same as Mind Reader counts it, in batches whose rows may show a picture several times, and
``ensemble_weights`` puts several decoders together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import Any, Literal, NamedTuple

import numpy as np

from phosphene.errors import ConfigError, DataError
from phosphene.io.stages import versioned
from phosphene.metrics.identification import oriented
from phosphene.metrics.nway import check_n_k, expected_top_k, log_choose, n_way
from phosphene.metrics.ties import bounds, grain_of

GALLERIES = (2, 10, 50, 100, 300)  # two-way identification to MindEye's and Mind Reader's batches of 300


class Retrieval(NamedTuple):
    """Top-k accuracy at one gallery size.

    Attributes
    ----------
    size : int
        items in the gallery, the right one among them
    accuracy : float
        mean over items, 0 to 1; NaN without items
    chance : float
        k / size
    per_item : ndarray of shape (n_items,)
        expected accuracy of each item over every gallery of this size, 0 to 1
    """

    size: int
    accuracy: float
    chance: float
    per_item: np.ndarray


def retrieval_curve(
    similarity: np.ndarray,
    sizes: tuple[int, ...] = GALLERIES,
    k: int = 1,
    direction: Literal["forward", "backward"] = "forward",
    truth: np.ndarray | None = None,
) -> list[Retrieval]:
    """Expected top-k accuracy over gallery sizes, up to all items.

        accuracy(N) = mean over items of P(the right item is among the k best of a gallery of N)

    Parameters
    ----------
    similarity : ndarray of shape (n, m)
        row = decoded, column = true
    sizes : tuple of int, optional
        galleries to try; those above the number of items are left out, and the whole gallery is always last
    k : int, default 1
        how many best count as found
    direction : {"forward", "backward"}, default "forward"
        ``forward`` or ``backward``
    truth : ndarray of shape (n,), optional
        column of each row, forward only

    Returns
    -------
    list of Retrieval
        in growing size; empty with fewer than k + 1 items

    References
    ----------
    Lin et al. 2022; Scotti et al. 2023 (MindEye) report N = 300.

    Examples
    --------
    >>> [(r.size, r.accuracy, r.chance) for r in retrieval_curve(np.eye(12))]
    [(2, 1.0, 0.5), (10, 1.0, 0.1), (12, 1.0, 0.08333333333333333)]
    """
    side: Any = {"forward": "truths", "backward": "decoded"}.get(direction, direction)  # checked by `oriented`
    ranked, _ = oriented(similarity, truth, side)
    n_items = ranked.shape[1]
    candidates = {*sizes, n_items}  # the whole gallery is always asked for
    curve = []

    for size in sorted(candidates):
        if not k < size <= n_items:
            continue

        per_item = n_way(similarity, size, k, truth, side)  # (n,)
        accuracy = float("nan")
        if len(per_item):
            accuracy = float(per_item.mean())

        curve.append(Retrieval(size, accuracy, k / size, per_item))

    return curve


# -- batches, as Mind Reader counts ------------------------------------------------------------------------------------


class BatchRetrieval(NamedTuple):
    """Share of rows that find their own picture among a batch of rows, in both directions.

    Attributes
    ----------
    size : int
        rows in a batch; times a share, it is the count of hits that papers report
    forward, backward : float
        mean share of hits
    forward_std, backward_std : float
        over drawn batches; 0 where the mean is exact
    chance : float
        share of hits of a similarity that says nothing, above 1 / size where rows show the same picture
    n_batches : int
        how many were drawn; 0 for the exact mean over all
    """

    size: int
    forward: float
    backward: float
    forward_std: float
    backward_std: float
    chance: float
    n_batches: int


def batch_retrieval(similarity: np.ndarray, size: int = 300, truth: np.ndarray | None = None) -> BatchRetrieval:
    """What retrieval in batches gives on average over every batch that can be drawn, without drawing.

    A batch is `size` different rows, each a decoded item with its picture. Forward, each decoded item finds the most
    similar of the batch's pictures; backward, each picture the most similar of the batch's decoded items. A hit is any row
    that shows the right picture, so that two rows of one picture help each other. For a row with b of the other n - 1
    rows above it, the chance that a batch holds none of them is

        C(n - 1 - b, size - 1) / C(n - 1, size - 1)

    Backward, a hit is also a batch whose most similar decoded item is another row of the same picture, which is added up
    over these rows in the same way.

    Parameters
    ----------
    similarity : ndarray of shape (n, m)
        row = decoded, column = true
    size : int, default 300
        rows in a batch, 2 to n
    truth : ndarray of shape (n,), optional
        column of each row; default row i to column i

    Returns
    -------
    BatchRetrieval
        rows tied with the best share the hit, an undefined similarity is a tie

    Raises
    ------
    DataError
        With fewer than `size` rows.

    References
    ----------
    Lin et al. 2022 (Mind Reader), sections 3.2 and A.3: counts of hits in a batch of 300.

    Examples
    --------
    >>> batch_retrieval(np.eye(4), size=3).forward
    1.0
    """
    square, truth = _rows_by_rows(similarity, truth, size)
    n = len(square)
    mates = truth[:, None] == truth[None, :]  # (n, n): rows of the same picture, itself included

    # Forward, a mate in the batch is the same picture with the same similarity: a hit as well, no distractor.
    own = np.diagonal(square)
    above, ties = _against(square, own[:, None], ~mates, grain_of(square))  # (n,) each
    forward = expected_top_k(above, ties, n, size)
    backward = _backward(square, mates, size)

    # Right rows in a batch: the row itself, and each mate with the probability (size - 1) / (n - 1) of being drawn.
    n_right = 1 + (mates.sum(axis=1) - 1) * (size - 1) / max(1, n - 1)
    chance = float(np.mean(n_right) / size)
    return BatchRetrieval(size, float(forward.mean()), float(backward.mean()), 0.0, 0.0, chance, 0)


def drawn_retrieval(
    similarity: np.ndarray,
    size: int = 300,
    truth: np.ndarray | None = None,
    *,
    n_batches: int = 20,
    rng: np.random.Generator,
) -> BatchRetrieval:
    """The same by drawing batches, as published scripts do (one batch there): it says how much one batch can mislead.

    The mean over batches comes near the exact one of `batch_retrieval`. Where several rows of a batch are the most
    similar, the hit is the share of them that is right.

    Parameters
    ----------
    similarity : ndarray of shape (n, m)
        row = decoded, column = true
    size : int, default 300
        rows in a batch, 2 to n
    truth : ndarray of shape (n,), optional
        column of each row; default row i to column i
    n_batches : int, default 20
        batches to draw
    rng : numpy.random.Generator
        draws the rows of each batch, without replacement

    Returns
    -------
    BatchRetrieval
        mean and standard deviation over the batches

    Raises
    ------
    DataError
        With fewer than `size` rows.
    """
    square, truth = _rows_by_rows(similarity, truth, size)
    hits = np.empty((n_batches, 2))  # forward, backward
    chance = np.empty(n_batches)

    for i in range(n_batches):
        rows = rng.choice(len(square), size, replace=False)
        batch = square[np.ix_(rows, rows)]  # (size, size)
        mates = truth[rows][:, None] == truth[rows]  # (size, size)
        hits[i] = [_hits(batch, mates), _hits(batch.T, mates)]
        chance[i] = mates.mean()

    forward, backward = hits.mean(axis=0)
    forward_std, backward_std = hits.std(axis=0)
    return BatchRetrieval(
        size,
        float(forward),
        float(backward),
        float(forward_std),
        float(backward_std),
        float(chance.mean()),
        n_batches,
    )


def _rows_by_rows(similarity: np.ndarray, truth: np.ndarray | None, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, n): decoded item of row i with the picture of row j; and the picture of each row."""
    similarity, truth = oriented(similarity, truth)
    check_n_k(size, 1, len(similarity))
    return similarity[:, truth], truth


def _against(
    values: np.ndarray, own: np.ndarray, counted: np.ndarray, grain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of the entries of each row that count: how many lie above its own, and how many are tied (or not defined)."""
    low, high = bounds(own, grain)
    above = (values > high) & counted
    below = (values < low) & counted
    n_above = above.sum(axis=1)
    n_tied = counted.sum(axis=1) - n_above - below.sum(axis=1)  # what is neither, hence NaN as well

    return n_above, n_tied


def _backward(square: np.ndarray, mates: np.ndarray, size: int) -> np.ndarray:
    """(n,) chance that the decoded item most similar to row i's picture is one of that picture.

    The batch holds row i, and its best row is either row i itself (no better row was drawn) or a mate of row i that is
    better than row i: mate number e, counted from the best, wins with

        C(n - 2 - e - b_e, size - 2) / C(n - 1, size - 1)

    where b_e rows of other pictures lie above it.
    """
    n = len(square)
    chance = np.empty(n)
    grain = grain_of(square)[0]

    for i, column in enumerate(square.T):
        own = column[i : i + 1]
        others = column[~mates[i]][None, :]  # (1, rows of other pictures)
        _, high = bounds(own, grain)
        better = np.sort(column[mates[i] & (column > high)])[::-1]  # rows of this picture that come before its own
        above, ties = _against(others, own, np.ones(others.shape, dtype=bool), grain)
        chance[i] = expected_top_k(above + len(better), ties, n, size)[0]

        for earlier, value in enumerate(better):
            # This row is in the batch, and neither an earlier one nor one of another picture that lies above it.
            _, high = bounds(np.array([value]), grain)
            n_left = n - 2 - earlier - int((others > high).sum())
            if n_left >= size - 2:
                chance[i] += np.exp(log_choose(n_left, size - 2) - log_choose(n - 1, size - 1))

    return chance


def _hits(batch: np.ndarray, mates: np.ndarray) -> float:
    """Mean over rows of the share of their most similar entries that are right; chance where a row is not defined."""
    # A row without any number is -inf throughout, so that all its entries are the best and the share is chance.
    filled = np.where(np.isnan(batch), -np.inf, batch)
    low, _ = bounds(filled.max(axis=1, keepdims=True), grain_of(batch))  # (size, 1)
    best = filled >= low
    share_right = (best & mates).sum(axis=1) / best.sum(axis=1)  # (size,)
    return float(share_right.mean())


# -- several decoders together -----------------------------------------------------------------------------------------


class Ensemble(NamedTuple):
    """Weights of several decoders, and what they came to on the rows they were chosen on.

    Attributes
    ----------
    weights : ndarray of shape (n_decoders,)
        from 0, sum 1
    score : float
        mean of forward and backward `batch_retrieval` with these weights
    alone : ndarray of shape (n_decoders,)
        the same of each decoder alone
    """

    weights: np.ndarray
    score: float
    alone: np.ndarray


@versioned(1)
def ensemble_weights(
    similarities: Sequence[np.ndarray], size: int = 300, truth: np.ndarray | None = None, step: float = 0.1
) -> Ensemble:
    """Weights for the sum of several decoders' similarity matrices, from a grid over all that are not negative.

        S = sum_m w_m S_m,    w_m = 0, step, 2 step ... with sum 1

    Parameters
    ----------
    similarities : sequence of ndarray
        each (n, m) as for `batch_retrieval`, on rows that none of the decoders was trained on and that are not those to
        be reported
    size : int, default 300
        rows in a batch; all where there are fewer
    truth : ndarray, optional
        as for `batch_retrieval`
    step : float, default 0.1
        of the grid, one over a whole number

    Returns
    -------
    Ensemble
        among equally good weights the most even

    Raises
    ------
    DataError
        Without matrices, or with matrices of different shapes.
    ConfigError
        For a step that does not divide 1, or a grid of more than 20,000 points.

    References
    ----------
    Lin et al. 2022 (Mind Reader), appendix A.3.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> noise = [rng.standard_normal((40, 40)) for _ in range(2)]
    >>> good, useless = np.eye(40) + 0.4 * noise[0], noise[1]
    >>> bool(ensemble_weights([good, useless]).weights[0] > 0.5)
    True
    """
    shapes = {np.shape(s) for s in similarities}
    if len(shapes) != 1:
        raise DataError(
            f"an ensemble needs matrices of one shape, but {len(similarities)} came with the shapes {sorted(shapes)}."
        )

    parts = round(1 / step)
    n_decoders = len(similarities)
    n_points = comb(parts + n_decoders - 1, n_decoders - 1)
    if abs(parts * step - 1) > 1e-9 or n_points > 20_000:
        raise ConfigError(
            f"a step of {step} gives a grid of {n_points:,} weights for {n_decoders} decoders; take one over a whole number "
            "that gives at most 20,000."
        )

    size = min(size, len(similarities[0]))
    n_places = parts + n_decoders - 1
    tried = []
    alone = np.empty(n_decoders)

    # Ways to put `parts` units into as many boxes as there are decoders: where the walls between boxes stand.
    for walls in combinations(range(n_places), n_decoders - 1):
        units = np.diff([-1, *walls, n_places]) - 1  # (n_decoders,), sum `parts`
        retrieval = batch_retrieval(combined(similarities, units / parts), size, truth)
        score = (retrieval.forward + retrieval.backward) / 2
        evenness = -int(np.square(units).sum())  # among equal scores the most even weights come last in the order
        tried.append((score, evenness, tuple(units)))

        if units.max() == parts:  # one decoder has all the weight
            alone[units.argmax()] = score

    best_score, _, best_units = max(tried)
    return Ensemble(np.array(best_units) / parts, best_score, alone)


def combined(similarities: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Weighted sum of similarity matrices, in double precision.

    Parameters
    ----------
    similarities : sequence of ndarray
        matrices of one shape, (n, m) each
    weights : ndarray of shape (n_decoders,)
        one per matrix

    Returns
    -------
    ndarray of shape (n, m), float64
        sum over decoders of weight times similarity
    """
    weighted = [w * np.asarray(s, dtype=np.float64) for w, s in zip(weights, similarities, strict=True)]
    return np.asarray(sum(weighted))
