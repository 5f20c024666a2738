"""Do voxels answer to the same picture alike? Halves of the showings against each other, and against shuffled pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse


@dataclass(frozen=True, eq=False)
class SplitHalf:
    """Correlation over stimuli between the means of two halves of their showings.

    Attributes
    ----------
    r : ndarray of shape (n_voxels,)
        between -1 and 1; 0 for a voxel without variance
    null : ndarray of shape (n_null, n_voxels), float32
        the same with the stimuli of one half shuffled
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
    codes, counts = np.unique(table["stimulus"].to_numpy(dtype=str), return_inverse=True, return_counts=True)[1:]
    row = np.cumsum(counts > 1) - 1
    out = []

    for half in (0, 1):
        trials = np.flatnonzero((turn == half) & (counts[codes] > 1))
        rows = row[codes[trials]]
        weights = 1 / np.bincount(rows, minlength=int((counts > 1).sum()))[rows]
        out.append(sparse.csr_array((weights, (rows, trials)), shape=(int((counts > 1).sum()), len(table))))

    return out[0], out[1]


def split_half(
    betas: np.ndarray,
    table: pd.DataFrame,
    rng: np.random.Generator,
    *,
    n_null: int = 20,
    blocks: Callable[[], Iterator[slice]] | None = None,
) -> SplitHalf | None:
    """Split-half reliability of every voxel, and what it is when nothing is shared but chance.

    Parameters
    ----------
    betas : ndarray of shape (n_trials, n_voxels)
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
        or None with fewer than three stimuli shown twice. Each run's mean is taken from its betas first: it is the same
        for all stimuli of a run
    """
    even, odd = halves(table)
    n = even.shape[0]
    if n < 3:
        return None

    keys = [c for c in ("session", "run") if c in table]
    runs = table.groupby(keys).ngroup().to_numpy()
    member = sparse.csr_array((1 / np.bincount(runs)[runs], (runs, np.arange(len(runs)))))
    orders = np.array([rng.permutation(n) for _ in range(n_null)])
    r = np.zeros(betas.shape[1])
    null = np.zeros((n_null, betas.shape[1]), dtype=np.float32)

    for block in blocks() if blocks is not None else [slice(0, betas.shape[1])]:
        part = np.asarray(betas[:, block], dtype=np.float64)
        part = part - (member @ part)[runs]
        a, b = (_standard(w @ part) for w in (even, odd))
        r[block] = np.einsum("sv,sv->v", a, b)

        for row, order in zip(null, orders, strict=True):
            row[block] = np.einsum("sv,sv->v", a[order], b)

    return SplitHalf(r, null, n)


def _standard(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(axis=0)
    length = np.sqrt(np.einsum("sv,sv->v", x, x))
    return x * np.divide(1, length, out=np.zeros_like(length), where=length > 1e-12)
