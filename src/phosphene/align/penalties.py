"""Penalties of a ridge: which are accepted, how many targets judge them cheaply, and a warning about the one chosen."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np

from phosphene.align.block_reader import BlockReader
from phosphene.errors import ConfigError, DataError, PhospheneWarning

LARGEST = 1e30
EDGE_SHARE = 0.05  # of the targets that may choose the first or last penalty before a warning
TOO_LARGE = 1e7  # largest eigenvalues: such a penalty makes every prediction the training mean


def check_penalties(alpha: float | Sequence[float] | np.ndarray) -> np.ndarray:
    """One penalty or several as an ascending float64 array without repeats.

    Raises
    ------
    ConfigError
        If there is none, or one is not a number above 0 and at most 1e30.
    """
    values = np.atleast_1d(np.asarray(alpha, dtype=object))
    if values.ndim != 1 or not values.size:
        raise ConfigError(f"alpha must be a positive number or a list of them but is {alpha!r}.")

    for value in values:
        is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        if not is_number or not 0 < value <= LARGEST:
            hint = ""
            if value == 0:
                hint = " For an almost unpenalised fit take a small number such as 1e-6."

            raise ConfigError(f"alpha must be above 0 and at most 1e30 but is {value!r}.{hint}")

    return np.unique(values.astype(np.float64))


def sketch_targets(
    blocks: Iterable[tuple[slice, slice, np.ndarray]], n: int, t: int, size: int, seed: int
) -> np.ndarray:
    """Random Gaussian combinations of targets, whose rows have on average the length of the targets' rows.

    Errors summed over the combinations are an unbiased estimate of those summed over all targets.

    Parameters
    ----------
    blocks : iterable of tuple
        (columns, rows, array), all rows of some columns before the next columns; the result is the same however the
        targets are cut
    n, t : int
        rows and columns of the targets
    size : int
        how many combinations
    seed : int
        of the combinations

    Returns
    -------
    ndarray of shape (n, size)
        in the precision of the blocks; the targets themselves if t <= size
    """
    rng = np.random.default_rng(seed)
    drawn_for = None
    weights = np.empty((0, size))
    combined = np.empty((0, size))

    for columns, rows, block in blocks:
        if drawn_for is None:
            combined = np.zeros((n, min(t, size)), block.dtype)

        if columns != drawn_for and t > size:
            weights = rng.standard_normal((block.shape[1], size), np.float32).astype(block.dtype, copy=False)

        drawn_for = columns
        if t <= size:
            combined[rows, columns] = block
        else:
            combined[rows] += block @ weights  # (rows, size)

    if t <= size:
        return combined

    return combined / combined.dtype.type(np.sqrt(size))


def check_scale(largest: float, mean: np.ndarray, alphas: np.ndarray, x: BlockReader) -> None:
    """Refuse features that do not vary, and penalties beside which they vanish.

    Parameters
    ----------
    largest : float
        largest eigenvalue of the Gram matrix
    mean : ndarray of shape (p,)
        of the features
    alphas : ndarray
        penalties, ascending
    x : BlockReader
        the features

    Raises
    ------
    DataError
        For features that are constant.
    ConfigError
        For a smallest penalty of more than 10 million times the largest eigenvalue.
    """
    n, p = x.shape
    if largest <= 1e-24 * n * max(float(mean @ mean), 1e-24):
        raise DataError(f"{x.name} does not vary: all of its {p} columns are constant over {n} rows.")

    if alphas[0] > TOO_LARGE * largest:
        raise ConfigError(
            f"alpha = {alphas[0]:g} is over 10 million times the largest eigenvalue of {x.name} ({largest:.3g}), "
            f"so every prediction would be the training mean; try penalties from {1e-4 * largest:.1g} to {largest:.1g}."
        )


def warn_at_edge(best: np.ndarray | np.integer, alphas: np.ndarray, about: str = "", stacklevel: int = 5) -> None:
    """Warn when the penalty chosen is the first or last on offer.

    Parameters
    ----------
    best : int or ndarray of int
        place of the penalty chosen, or of each target's
    alphas : ndarray
        penalties, ascending
    about : str, optional
        what it was chosen for
    stacklevel : int, default 5
        calls from here up to the user's line
    """
    for index, side, word in ((0, "smallest", "smaller"), (len(alphas) - 1, "largest", "larger")):
        share = np.mean(best == index)
        if share <= EDGE_SHARE:
            continue

        if np.ndim(best):
            subject = f"the penalty chosen for {share:.0%} of the targets"
        elif about:
            subject = f"the penalty chosen for {about}"
        else:
            subject = "the chosen penalty"

        warnings.warn(
            f"{alphas[index]:g}, {subject}, is the {side} on offer; the best may lie beyond it. Offer {word} ones.",
            PhospheneWarning,
            stacklevel=stacklevel,
        )
