"""Do voxels answer to the same picture alike? Halves of the showings against each other, and against shuffled pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from phosphene.types import Rows


@dataclass(frozen=True, eq=False)
class SplitHalf:
    """Correlation over stimuli between the means of two halves of their showings.

    Attributes
    ----------
    r : ndarray of shape (n_voxels,)
        between -1 and 1; 0 for a voxel without variance
    null : ndarray of shape (n_null, n_voxels)
        float32, the same with the stimuli of one half shuffled
    n_stimuli : int
        shown at least twice
    """

    r: np.ndarray
    null: np.ndarray
    n_stimuli: int

    @property
    def bar(self) -> float:
        """95th percentile of the null, all voxels together."""
        return float(np.quantile(self.null, 0.95))

    @property
    def share(self) -> float:
        """Share of voxels above the bar; 0.05 is expected by chance."""
        return float((self.r > self.bar).mean())


def halves(table: pd.DataFrame) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Weights (n_stimuli, n_trials) that average the even and the odd showings of every stimulus shown twice or more."""
    turn = table.groupby("stimulus", sort=True).cumcount().to_numpy() % 2
    stimuli = table["stimulus"].to_numpy(dtype=str)
    _, codes, counts = np.unique(stimuli, return_inverse=True, return_counts=True)
    is_repeated = counts > 1
    row = np.cumsum(is_repeated) - 1
    n_repeated = int(is_repeated.sum())

    def average(half: int) -> sparse.csr_array:
        trials = np.flatnonzero((turn == half) & is_repeated[codes])
        rows = row[codes[trials]]
        weights = 1 / np.bincount(rows, minlength=n_repeated)[rows]
        return sparse.csr_array((weights, (rows, trials)), shape=(n_repeated, len(table)))

    return average(0), average(1)


def split_half(
    betas: Rows,
    table: pd.DataFrame,
    rng: np.random.Generator,
    *,
    n_null: int = 20,
    blocks: Callable[[], Iterator[slice]] | None = None,
) -> SplitHalf | None:
    """Split-half reliability of every voxel, and what it is when nothing is shared but chance.

    Parameters
    ----------
    betas : ndarray or Rows of shape (n_trials, n_voxels)
        in the order of the table
    table : DataFrame
        with ``stimulus`` and ``run`` (and ``session``) of each trial, in the order of time
    rng : numpy.random.Generator
        shuffles the stimuli of one half
    n_null : int, default 20
        shuffles
    blocks : callable, optional
        of voxels, for betas larger than memory

    Returns
    -------
    SplitHalf or None
        None with fewer than three stimuli shown twice. Each run's mean is taken from its betas first: it is the same
        for all stimuli of a run
    """
    even, odd = halves(table)
    n = even.shape[0]  # pyright: ignore[reportOptionalSubscript]  # scipy's own inference
    if n < 3:
        return None

    keys = [column for column in ("session", "run") if column in table]
    runs = table.groupby(keys).ngroup().to_numpy()

    # Each run's mean is taken off, for it is the same for all stimuli of the run.
    member = sparse.csr_array((1 / np.bincount(runs)[runs], (runs, np.arange(len(runs)))))
    orders = np.array([rng.permutation(n) for _ in range(n_null)])
    r = np.zeros(betas.shape[1])
    null = np.zeros((n_null, betas.shape[1]), dtype=np.float32)

    whole = iter([slice(0, betas.shape[1])])
    if blocks is not None:
        whole = blocks()

    for block in whole:
        part = np.asarray(betas[:, block], dtype=np.float64)
        part = part - (member @ part)[runs]
        a = _standard(even @ part)  # (n_stimuli, n_voxels)
        b = _standard(odd @ part)
        r[block] = np.einsum("sv,sv->v", a, b)

        for row, order in zip(null, orders, strict=True):
            row[block] = np.einsum("sv,sv->v", a[order], b)

    return SplitHalf(r, null, n)


def _standard(x: np.ndarray) -> np.ndarray:
    """Columns less their means, of length one; zeros for constant ones."""
    x = x - x.mean(axis=0)
    length = np.sqrt(np.einsum("sv,sv->v", x, x))
    return x * np.divide(1, length, out=np.zeros_like(length), where=length > 1e-12)
