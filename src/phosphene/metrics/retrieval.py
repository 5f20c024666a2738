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

GALLERIES = (2, 10, 50, 100, 300)


class Retrieval(NamedTuple):
    """Top-k accuracy at one gallery size: the mean, its chance level k / size, and the value of every item."""

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
    n_items = oriented(similarity, truth, side)[0].shape[1]
    usable = sorted({size for size in sizes if k < size <= n_items} | ({n_items} if n_items > k else set()))
    curve = []

    for size in usable:
        per_item = n_way(similarity, size, k, truth, side)
        curve.append(Retrieval(size, float(per_item.mean()) if len(per_item) else float("nan"), k / size, per_item))

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
    mates = truth[:, None] == truth[None, :]
    own = np.diagonal(square)
    above, ties = _against(square, own[:, None], ~mates, grain_of(square))
    forward = expected_top_k(above, ties, n, size)
    backward = _backward(square, mates, size)
    chance = float(np.mean(1 + (mates.sum(axis=1) - 1) * (size - 1) / max(1, n - 1)) / size)

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

    Arguments as `batch_retrieval`, whose exact mean this comes near; `rng` draws `n_batches` batches. Each share is of
    the rows most similar, should there be several.
    """
    square, truth = _rows_by_rows(similarity, truth, size)
    hits = np.empty((n_batches, 2))
    chance = np.empty(n_batches)

    for i in range(n_batches):
        rows = rng.choice(len(square), size, replace=False)
        s = square[np.ix_(rows, rows)]
        mates = truth[rows][:, None] == truth[rows]
        hits[i] = [_hits(s, mates), _hits(s.T, mates)]
        chance[i] = mates.mean()

    forward, backward = hits.mean(axis=0)
    f, b = hits.std(axis=0)

    return BatchRetrieval(size, float(forward), float(backward), float(f), float(b), float(chance.mean()), n_batches)


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

    return n_above, counted.sum(axis=1) - n_above - below.sum(axis=1)


def _backward(square: np.ndarray, mates: np.ndarray, size: int) -> np.ndarray:
    """(n,) chance that the decoded item most similar to row i's picture is one of that picture."""
    n = len(square)
    out = np.empty(len(square))
    grain = grain_of(square)[0]

    for i, column in enumerate(square.T):
        others = column[~mates[i]][None, :]
        _, high = bounds(column[i : i + 1], grain)
        better = np.sort(column[mates[i] & (column > high)])[::-1]  # rows of this picture that come before its own
        above, ties = _against(others, column[i : i + 1], np.ones(others.shape, dtype=bool), grain)
        out[i] = expected_top_k(above + len(better), ties, n, size)[0]

        for earlier, value in enumerate(better):
            # This row is in the batch, and neither an earlier one nor one of another picture that lies above it.
            left = n - 2 - earlier - int((others > bounds(np.array([value]), grain)[1]).sum())
            if left >= size - 2:
                out[i] += np.exp(log_choose(left, size - 2) - log_choose(n - 1, size - 1))

    return out


def _hits(s: np.ndarray, mates: np.ndarray) -> float:
    """Mean over rows of the share of their most similar entries that are right; chance where a row is not defined."""
    known = ~np.isnan(s)
    filled = np.where(known, s, -np.inf)
    low, _ = bounds(filled.max(axis=1, keepdims=True), grain_of(s))
    best = filled >= low

    return float(((best & mates).sum(axis=1) / best.sum(axis=1)).mean())


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
    if not similarities or len({np.shape(s) for s in similarities}) > 1:
        raise DataError(
            f"an ensemble needs matrices of one shape, but {len(similarities)} came with the shapes "
            f"{sorted({np.shape(s) for s in similarities})}."
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

    def score(weights: np.ndarray) -> float:
        found = batch_retrieval(combined(similarities, weights), size, truth)
        return (found.forward + found.backward) / 2

    # Ways to put `parts` units into as many boxes as there are decoders: where the walls between boxes stand.
    walls = combinations(range(parts + n_decoders - 1), n_decoders - 1)
    grid = [np.diff([-1, *w, parts + n_decoders - 1]) - 1 for w in walls]
    found = [(score(np.array(g) / parts), -int(np.square(g).sum()), tuple(g)) for g in grid]
    best = max(found)
    alone = [next(f[0] for f in found if f[2][k] == parts) for k in range(n_decoders)]

    return Ensemble(np.array(best[2]) / parts, best[0], np.array(alone))


def combined(similarities: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Weighted sum of similarity matrices, in double precision."""
    weighted = [w * np.asarray(s, dtype=np.float64) for w, s in zip(weights, similarities, strict=True)]
    return np.asarray(sum(weighted))
