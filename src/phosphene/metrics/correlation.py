"""Pearson correlation, row against row, that knows when it is undefined."""

from __future__ import annotations

import numpy as np

from phosphene.errors import DataError

FLAT = 1e-6  # spread over size below which a float32 row is rounding noise around one value
_BLOCK_VALUES = 4_000_000  # about 32 MB of float64 at a time


def paired_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson r of row i of ``x`` with row i of ``y``.

    Parameters
    ----------
    x, y : ndarray of shape (n, n_values)
        real; read in blocks, so memory maps stay on disk

    Returns
    -------
    ndarray of shape (n,), float64
        -1 to 1; NaN where a row is constant or holds a value that is not finite

    Raises
    ------
    DataError
        When the shapes differ.

    Examples
    --------
    >>> paired_correlation([[1.0, 2, 3], [1, 1, 1]], [[2.0, 4, 6], [1, 2, 3]])
    array([ 1., nan])
    """
    x = np.asanyarray(x)
    y = np.asanyarray(y)
    if x.shape != y.shape or x.ndim != 2:
        raise DataError(
            f"paired correlation needs two matrices of one shape, but got {x.shape} and {y.shape}; "
            "give the same items in the same order on both sides."
        )

    r = np.full(len(x), np.nan)
    step = max(1, _BLOCK_VALUES // max(1, x.shape[1]))
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(x), step):
            rows = slice(start, start + step)
            a, a_norm, a_flat = _centred(x[rows])
            b, b_norm, b_flat = _centred(y[rows])
            defined = ~(a_flat | b_flat)
            dot = np.einsum("ij,ij->i", a, b)
            np.divide(dot, a_norm * b_norm, out=r[rows], where=defined)

    return np.clip(r, -1, 1)


def _centred(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows without their means, their lengths, and which of them have no direction."""
    rows = np.asarray(rows, dtype=np.float64)
    if rows.shape[1]:
        mean = rows.mean(axis=1, keepdims=True)
    else:
        mean = np.zeros((len(rows), 1))

    rows = rows - mean
    norm = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return rows, norm, is_flat(norm, mean[:, 0], rows.shape[1])


def is_flat(norm: np.ndarray, mean: np.ndarray, n_values: int) -> np.ndarray:
    """Which rows are constant or not finite, told from centred length and mean.

    Parameters
    ----------
    norm : ndarray of shape (n,)
        length of each centred row
    mean : ndarray of shape (n,)
        mean of each row
    n_values : int
        values per row

    Returns
    -------
    ndarray of shape (n,), bool
    """
    size = np.sqrt(np.square(norm) / max(1, n_values) + np.square(mean))
    return ~(norm > FLAT * size * np.sqrt(max(1, n_values)))
