"""Which of two is it? Similarity of every decoded item with every true one, and two-way identification from it.

    similarity[i, j] = r(decoded i, true j)
    two_way[i]       = share of distractors j that are less similar than the truth, ties counting one half

Two directions exist and differ. ``truths`` (what the published scripts compute): for each decoded item, the distractors
are the other true items, so a row is ranked. ``decoded``: for each true item, the distractors are the other decoded
ones, so a column is ranked. Chance is 1/2 in both.

Similarities that differ by no more than rounding are tied: `phosphene.metrics.ties` says what that is.

A similarity that is not defined (a constant or non-finite row) is NaN and every comparison with it is a tie: such an
item scores chance, is never dropped, and ``undefined_items`` lists it.

Rows may repeat stimuli (single trials, several samples per trial): ``truth[i]`` is the column that belongs to row i.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from phosphene.errors import ConfigError, DataError, did_you_mean
from phosphene.metrics.correlation import is_flat
from phosphene.metrics.ties import bounds, grain_of, midranks

Kind = Literal["pearson", "cosine", "neg_mse"]
Direction = Literal["truths", "decoded"]
_BLOCK = 4096  # features at a time: two float32 buffers of 16 MB each for 982 items


def similarity(decoded: np.ndarray, true: np.ndarray, kind: Kind = "pearson") -> np.ndarray:
    """Similarity of every row of ``decoded`` with every row of ``true``, streamed over blocks of features.

        pearson:  sum_f (x_f - mean x) (y_f - mean y) / (|x - mean x| |y - mean y|)
        cosine:   sum_f x_f y_f / (|x| |y|)
        neg_mse:  -mean_f (x_f - y_f)^2

    Products are float32; each block is centred by its own row means and the part between blocks is added in float64,
    so features with a large common offset lose nothing, and memory maps are read once.

    Parameters
    ----------
    decoded : ndarray of shape (n, n_features)
        one row per decoded item
    true : ndarray of shape (m, n_features)
        one row per true item
    kind : {"pearson", "cosine", "neg_mse"}, default "pearson"
        ``pearson``, ``cosine``, or ``neg_mse`` (minus the mean squared difference)

    Returns
    -------
    ndarray of shape (n, m), float32
        higher is more alike. NaN in the row (column) of an item that is constant (zero, for cosine; spread below a
        millionth of its size) or not finite. Identical rows get identical similarities.

    Raises
    ------
    DataError
        When the number of features differs.

    Examples
    --------
    >>> similarity(np.array([[1.0, 2, 3]]), np.array([[2.0, 4, 6], [3, 2, 1]])).round(3)
    array([[ 1., -1.]], dtype=float32)
    """
    if kind not in ("pearson", "cosine", "neg_mse"):
        raise ConfigError(
            f"unknown kind of similarity {kind!r}. {did_you_mean(kind, ['pearson', 'cosine', 'neg_mse'])}"
        )

    decoded = np.asanyarray(decoded)
    true = np.asanyarray(true)
    if decoded.ndim != 2 or true.ndim != 2 or decoded.shape[1] != true.shape[1]:
        raise DataError(
            f"similarity needs two matrices with the same number of features, but got {decoded.shape} and "
            f"{true.shape}; flatten each item to one row of the same feature space."
        )

    n_features = decoded.shape[1]
    rows = _Side(decoded)
    columns = _Side(true)
    dot = np.zeros((len(decoded), len(true)))  # float64, as many float32 products are added up in it

    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        for start in range(0, n_features, _BLOCK):
            part = slice(start, min(start + _BLOCK, n_features))
            if kind == "pearson":
                dot += rows.centred(part) @ columns.centred(part).T  # (n, m)
            else:
                # A common shift leaves differences as they are, and small numbers lose less in float32.
                shift = 0.0
                if kind == "neg_mse":
                    shift = columns.block(part).mean(axis=0)  # (n_features of the block,)

                dot += rows.shifted(part, shift) @ columns.shifted(part, shift).T  # (n, m)

        if kind == "pearson":
            dot += rows.add_between() @ columns.add_between().T  # (n, m)
            result = dot / np.sqrt(np.outer(rows.power, columns.power))
        elif kind == "cosine":
            result = dot / np.sqrt(np.outer(rows.power, columns.power))
        else:
            result = (2 * dot - rows.power[:, None] - columns.power) / max(1, n_features)  # 2 x.y - |x|^2 - |y|^2
            result = np.minimum(result, 0, out=result)

    # Rounding can carry a correlation past 1.
    if kind != "neg_mse":
        np.clip(result, -1, 1, out=result)

    result[rows.undefined(kind)] = np.nan
    result[:, columns.undefined(kind)] = np.nan

    # A matrix product may round equal rows differently, by their place in it: copies must tie exactly.
    for copy, original in rows.duplicates():
        result[copy] = result[original]

    for copy, original in columns.duplicates():
        result[:, copy] = result[:, original]

    return result.astype(np.float32)


class _Side:
    """One side of a similarity: hands out blocks of features and gathers the moments of its rows.

    Attributes
    ----------
    values : ndarray of shape (n, n_features)
        may be a memory map
    buffer : ndarray of shape (n, block), float32
        holds the block handed out last
    power : ndarray of shape (n,)
        sum of squares of what was handed out
    means : list of ndarray of shape (n,)
        row means of each block, for Pearson
    sizes : list of int
        features in each of these blocks
    """

    def __init__(self, values: np.ndarray):
        self.values = values
        self.buffer = np.empty((len(values), min(_BLOCK, values.shape[1])), np.float32)
        self.power = np.zeros(len(values))
        self.means: list[np.ndarray] = []
        self.sizes: list[int] = []

    def block(self, part: slice) -> np.ndarray:
        """(n, block): these features in the type they have, but integers and float16 as float32."""
        values = self.values[:, part]
        if values.dtype in (np.float32, np.float64):
            return values
        return values.astype(np.float32)

    def shifted(self, part: slice, shift: np.ndarray | float) -> np.ndarray:
        """(n, block) float32: these features less `shift`, which is taken off in their own precision."""
        out = self.buffer[:, : part.stop - part.start]
        np.subtract(self.block(part), shift, out=out, casting="same_kind")
        self.power += np.vecdot(out, out)  # (n,)
        return out

    def centred(self, part: slice) -> np.ndarray:
        """(n, block) float32: these features less their own mean in each row, which is kept for `add_between`."""
        mean = self.block(part).mean(axis=1)  # (n,)
        self.means.append(mean.astype(np.float64))
        self.sizes.append(part.stop - part.start)
        return self.shifted(part, mean[:, None])

    def add_between(self) -> np.ndarray:
        """(n, n_blocks): deviations of the block means from the row means, whose product completes the sum.

        As in an analysis of variance, a sum of products about the row means is that about the block means, and

            sum_b size_b (mean_xb - mean_x) (mean_yb - mean_y)
        """
        if not self.means:
            return np.zeros((len(self.values), 0))

        means = np.stack(self.means, axis=1)  # (n, n_blocks)
        sizes = np.array(self.sizes)
        self.mean = means @ sizes / sizes.sum()  # (n,)
        between = (means - self.mean[:, None]) * np.sqrt(sizes)
        self.power += np.square(between).sum(axis=1)
        return between

    def undefined(self, kind: Kind) -> np.ndarray:
        """(n,) bool: rows whose similarity means nothing."""
        if kind == "pearson":
            if self.means:
                mean = self.mean
            else:
                mean = np.zeros(len(self.values))

            return is_flat(np.sqrt(self.power), mean, self.values.shape[1])

        return ~np.isfinite(self.power) | ((self.power == 0) & (kind == "cosine"))

    def duplicates(self) -> list[tuple[int, int]]:
        """(row, earlier row) of exact copies: equal moments first, then every value."""
        second_moments = self.power.tolist()
        first_moments = second_moments
        if self.means:
            first_moments = self.mean.tolist()

        first = {}
        copies = []
        for row, key in enumerate(zip(second_moments, first_moments, strict=True)):
            original = first.setdefault(key, row)
            if original != row and np.array_equal(self.values[original], self.values[row]):
                copies.append((row, original))

        return copies


def undefined_items(similarity: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
    """Rows that have no defined similarity with their own truth; they count as chance.

    Parameters
    ----------
    similarity : ndarray of shape (n, m)
        row = decoded item, column = true item
    truth : ndarray of shape (n,), optional
        column that belongs to each row; default row i to column i

    Returns
    -------
    ndarray of shape (n_undefined,)
        row numbers
    """
    similarity, truth = as_square_or_mapped(similarity, truth)
    own = similarity[np.arange(len(similarity)), truth]  # (n,)
    return np.flatnonzero(np.isnan(own))


def two_way(
    similarity: np.ndarray,
    truth: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    direction: Direction = "truths",
) -> np.ndarray:
    """Two-way identification of every item, exact over all distractors.

        score = (#{distractors below the truth} + #{tied} / 2) / #{distractors}

    Parameters
    ----------
    similarity : ndarray of shape (n, m)
        row = decoded item, column = true item
    truth : ndarray of shape (n,), optional
        column that belongs to each row; default row i to column i
    labels : ndarray of shape (m,), optional
        class of each true item. When given, only distractors of the truth's own class count: what is left when knowing
        the class is worth nothing
    direction : {"truths", "decoded"}, default "truths"
        ``truths`` ranks the true items for each decoded one, ``decoded`` the other way round

    Returns
    -------
    ndarray of shape (n,)
        between 0 and 1, ties one half, chance 1/2; NaN for an item without any distractor

    References
    ----------
    Ozcelik and VanRullen 2023 and Takagi and Nishimoto 2023 (``truths``; there ties and NaN count as failures).

    Examples
    --------
    >>> two_way(np.array([[0.9, 0.1, 0.9], [0.2, 0.1, 0.3], [0.0, 0.1, 0.8]]))
    array([0.75, 0.  , 1.  ])
    """
    above, ties, n_distractors = count_above(similarity, truth, labels, direction)  # (n,) each
    score = np.full(len(above), np.nan)
    np.divide(n_distractors - above - 0.5 * ties, n_distractors, out=score, where=n_distractors > 0)
    return score


def count_above(
    similarity: np.ndarray,
    truth: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    direction: Direction = "truths",
    grain: float | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each item: distractors more similar than the truth, distractors tied with it, and all its distractors.

    Parameters
    ----------
    similarity : ndarray of shape (n, m)
        row = decoded item, column = true item
    truth : ndarray of shape (n,), optional
        as in ``two_way``
    labels : ndarray of shape (m,), optional
        as in ``two_way``
    direction : {"truths", "decoded"}, default "truths"
        as in ``two_way``
    grain : float, optional
        of the values (`phosphene.metrics.ties`), by default that of the whole matrix

    Returns
    -------
    above : ndarray of shape (n,)
        distractors more similar than the truth
    ties : ndarray of shape (n,)
        distractors tied with it; a comparison that involves NaN is a tie
    n_distractors : ndarray of shape (n,)
        all of them
    """
    similarity, truth = oriented(similarity, truth, direction)
    rows = np.arange(len(similarity))
    own = similarity[rows, truth][:, None]  # (n, 1)

    if grain is None:
        low, high = bounds(own, grain_of(similarity))
    else:
        low, high = bounds(own, grain)

    above = similarity > high  # (n, m)
    below = similarity < low
    if labels is None:
        n_distractors = np.full(len(rows), similarity.shape[1] - 1)
        n_above = _count(above)
        n_below = _count(below)
    else:
        labels = as_labels(labels, similarity.shape[1])
        mates = labels[truth][:, None] == labels[None, :]  # (n, m)
        n_distractors = _count(mates) - 1
        n_above = _count(above & mates)
        n_below = _count(below & mates)

    # Neither above nor below: within rounding, or NaN. The truth is neither as well, and is no distractor.
    return n_above, n_distractors - n_above - n_below, n_distractors


def _count(mask: np.ndarray) -> np.ndarray:
    """True entries per row. Adding bytes in the narrowest integer that fits is four times faster than numpy's own sum."""
    if mask.shape[1] < 2**16:
        narrow = np.uint16
    else:
        narrow = np.uint64

    return np.add.reduce(mask.view(np.uint8), axis=1, dtype=narrow).astype(np.intp)  # (n,)


def rank_matrix(
    similarity: np.ndarray,
    labels: np.ndarray | None = None,
    direction: Direction = "truths",
) -> np.ndarray:
    """What two-way identification would be for row i, were column j its truth.

        ranks[i, j] = (midrank of similarity[i, j] in row i - 1) / (m - 1)

    The permutation null needs nothing else: a permuted score is the mean of ``ranks[i, permutation[i]]``.

    Parameters
    ----------
    similarity : ndarray of shape (n, m)
        row = decoded item, column = true item
    labels : ndarray of shape (m,), optional
        classes, as in ``two_way``; ranks are then taken among the columns of one class
    direction : {"truths", "decoded"}, default "truths"
        as in ``two_way``; ``decoded`` needs a square matrix

    Returns
    -------
    ndarray of shape (n, m)
        between 0 and 1, one half where undefined, NaN in columns whose class has one item

    Examples
    --------
    >>> rank_matrix(np.array([[0.9, 0.1, 0.9]]))
    array([[0.75, 0.  , 0.75]])
    """
    similarity = np.asarray(similarity)
    if direction == "decoded":
        similarity = similarity.T

    n, m = similarity.shape
    grain = grain_of(similarity)
    ranks = np.full((n, m), np.nan)
    if labels is None:
        groups = np.zeros(m, int)
    else:
        groups = as_labels(labels, m)

    for label in np.unique(groups):
        columns = np.flatnonzero(groups == label)
        if len(columns) < 2:
            continue

        values = similarity[:, columns]  # (n, items of the class)
        missing = np.isnan(values)
        if missing.any():
            values = np.where(missing, np.inf, values)  # ranked last, then every comparison with them made a tie

        beaten = midranks(values, grain) - 1  # distractors below, and half of those tied
        if missing.any():
            beaten += 0.5 * missing.sum(axis=1, keepdims=True)
            beaten[missing] = 0.5 * (len(columns) - 1)

        ranks[:, columns] = beaten / (len(columns) - 1)

    return ranks


def comparisons(
    similarity: np.ndarray,
    truth: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    direction: Direction = "truths",
) -> tuple[np.ndarray, np.ndarray]:
    """Outcome of every single comparison, for bootstraps that draw rows and columns together.

    Parameters
    ----------
    similarity : ndarray of shape (n, m)
        row = decoded item, column = true item
    truth : ndarray of shape (n,), optional
        as in ``two_way``
    labels : ndarray of shape (m,), optional
        as in ``two_way``
    direction : {"truths", "decoded"}, default "truths"
        as in ``two_way``

    Returns
    -------
    wins : ndarray of shape (n, m)
        1 where the truth of row i beats column j, 1/2 for a tie, 0 otherwise and where not counted
    counted : ndarray of shape (n, m), bool
        False for the truth itself and for columns of another class
    """
    similarity, truth = oriented(similarity, truth, direction)
    n, m = similarity.shape
    own = similarity[np.arange(n), truth][:, None]  # (n, 1)
    low, high = bounds(own, grain_of(similarity))
    wins = np.full((n, m), 0.5, np.float32)  # NaN stays a tie: it is neither below nor above
    wins[similarity < low] = 1
    wins[similarity > high] = 0

    counted = np.ones((n, m), bool)
    if labels is not None:
        labels = as_labels(labels, m)
        counted = labels[truth][:, None] == labels[None, :]  # (n, m)

    counted[np.arange(n), truth] = False
    wins[~counted] = 0
    return wins, counted


def oriented(
    similarity: np.ndarray, truth: np.ndarray | None, direction: Direction = "truths"
) -> tuple[np.ndarray, np.ndarray]:
    """The matrix with the side to be ranked along its rows, and the truth of each row.

    Parameters
    ----------
    similarity : ndarray of shape (n, m)
        row = decoded item, column = true item
    truth : ndarray of shape (n,), optional
        column that belongs to each row; default row i to column i
    direction : {"truths", "decoded"}, default "truths"
        ``decoded`` transposes, and needs a square matrix in the same order on both sides

    Returns
    -------
    similarity : ndarray of shape (n, m)
        a view
    truth : ndarray of shape (n,)
        column numbers

    Raises
    ------
    ConfigError
        For another direction.
    DataError
        For a matrix or a truth that does not say which column belongs to which row.
    """
    if direction not in ("truths", "decoded"):
        raise ConfigError(f"unknown direction {direction!r}. {did_you_mean(direction, ['truths', 'decoded'])}")

    similarity, truth = as_square_or_mapped(similarity, truth)
    if direction == "truths":
        return similarity, truth

    if similarity.shape[0] != similarity.shape[1] or not np.array_equal(truth, np.arange(len(truth))):
        raise DataError(
            f"ranking decoded items for each true one needs one decoded item per true item in the same order, but the "
            f"similarity has shape {similarity.shape}; average the rows of one stimulus first."
        )

    return similarity.T, truth


def as_square_or_mapped(similarity: np.ndarray, truth: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The similarity as a matrix and the truth of each row, checked.

    Parameters
    ----------
    similarity : ndarray of shape (n, m)
        row = decoded item, column = true item
    truth : ndarray of shape (n,) or None
        column that belongs to each row; None for row i to column i

    Returns
    -------
    similarity : ndarray of shape (n, m)
        as it came
    truth : ndarray of shape (n,)
        column numbers

    Raises
    ------
    DataError
        Without a truth for a matrix that is not square, or with columns that the matrix does not have.
    """
    similarity = np.asarray(similarity)
    if similarity.ndim != 2 or (truth is None and similarity.shape[0] != similarity.shape[1]):
        raise DataError(
            f"a similarity of shape {similarity.shape} does not say which column is the truth of which row; give a "
            "square matrix in the same order on both sides, or pass truth."
        )

    if truth is None:
        return similarity, np.arange(len(similarity))

    truth = np.asarray(truth)
    is_per_row = truth.shape == (len(similarity),)
    if not is_per_row or (len(truth) and not (truth.min() >= 0 and truth.max() < similarity.shape[1])):
        raise DataError(
            f"truth should give one of {similarity.shape[1]} columns for each of {len(similarity)} rows, but has shape "
            f"{truth.shape} and runs from {truth.min(initial=0)} to {truth.max(initial=0)}."
        )

    return similarity, truth


def as_labels(labels: np.ndarray, n: int) -> np.ndarray:
    """Labels as integers, one per item.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        of any type that can be sorted
    n : int
        items

    Returns
    -------
    ndarray of shape (n,)
        0 to the number of classes - 1, in their sorted order

    Raises
    ------
    DataError
        For another number of labels.
    """
    labels = np.asarray(labels)
    if labels.shape != (n,):
        raise DataError(f"labels should be one per true item, {n} of them, but have shape {labels.shape}.")

    _, codes = np.unique(labels, return_inverse=True)
    return codes
