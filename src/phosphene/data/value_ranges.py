"""One pass over betas: ranges, spreads, and the values that cannot be responses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phosphene.data.standardise import row_blocks
from phosphene.errors import DataError
from phosphene.types import Trials

SPIKE = 1e4
"""A value this many times the typical magnitude of the betas is a spike, not a response."""


@dataclass(frozen=True)
class Quality:
    """What one pass over the betas found. Counts are per voxel, over the trials that are not wholly bad.

    Parameters
    ----------
    n_nan, n_inf, n_spike : ndarray of shape (n_voxels,)
        how many values
    bad_trials : ndarray
        positions of trials without any finite value
    low, high, mean, sd : ndarray of shape (n_voxels,)
        over finite values that are no spikes; NaN where there are none
    typical : float
        median over voxels of the mean magnitude
    first_bad : tuple of (int, int) or None
        (voxel, trial row) of the first bad value outside `bad_trials`, or None
    is_whole : bool
        every value is a whole number
    """

    n_nan: np.ndarray
    n_inf: np.ndarray
    n_spike: np.ndarray
    bad_trials: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    typical: float
    first_bad: tuple[int, int] | None
    is_whole: bool

    @property
    def bad_voxels(self) -> np.ndarray:
        """Positions of voxels with any NaN, infinite value or spike."""
        return np.flatnonzero(self.n_nan + self.n_inf + self.n_spike)

    @property
    def constant_voxels(self) -> np.ndarray:
        """Positions of voxels that never change."""
        return np.flatnonzero(self.low == self.high)


def measure(trials: Trials) -> Quality:
    """Find bad values, ranges and spreads in one pass of bounded memory.

    Parameters
    ----------
    trials : Trials
        of one subject; the typical magnitude is taken from up to 512 of them, evenly spaced

    Raises
    ------
    DataError
        When the betas hold complex numbers or objects.
    """
    check_type(trials)
    typical = _typical(trials)
    if typical:
        limit = SPIKE * typical
    else:
        limit = np.inf

    n_voxels = trials.n_voxels
    counts = {name: np.zeros(n_voxels, dtype=np.int64) for name in ("nan", "inf", "spike")}
    low = np.full(n_voxels, np.inf)
    high = np.full(n_voxels, -np.inf)
    n = np.zeros(n_voxels)
    mean = np.zeros(n_voxels)
    square = np.zeros(n_voxels)
    bad_trials: list[int] = []
    first_bad = None
    whole = True

    for rows, block in row_blocks(trials):
        with np.errstate(invalid="ignore"):
            block_low = block.min(axis=0)
            block_high = block.max(axis=0)

        # Most blocks hold nothing bad: their range says so, and several passes over them are saved.
        if (block_low >= -limit).all() and (block_high <= limit).all() and np.isfinite(block_high - block_low).all():
            m = np.full(n_voxels, float(len(block)))
            safe = block
            block_mean = block.mean(axis=0)
            spread = block - block_mean
        else:
            finite = np.isfinite(block)
            dead = ~finite.any(axis=1)
            bad_trials += list(np.flatnonzero(dead) + rows.start)
            block = block[~dead]
            finite = finite[~dead]
            spike = finite & (np.abs(np.where(finite, block, 0)) > limit)
            good = finite & ~spike
            counts["nan"] += np.isnan(block).sum(axis=0)
            counts["inf"] += np.isinf(block).sum(axis=0)
            counts["spike"] += spike.sum(axis=0)

            if first_bad is None and not good.all():
                row, voxel = np.argwhere(~good)[0]
                first_bad = (int(voxel), int(np.flatnonzero(~dead)[row] + rows.start))

            block_low = np.where(good, block, np.inf).min(axis=0, initial=np.inf)
            block_high = np.where(good, block, -np.inf).max(axis=0, initial=-np.inf)
            m = good.sum(axis=0).astype(float)
            safe = np.where(good, block, 0)
            block_mean = safe.sum(axis=0) / np.maximum(m, 1)
            spread = np.where(good, block - block_mean, 0)

        whole = whole and bool((safe == np.rint(safe)).all())

        # Means and sums of squares of two parts are joined without a second pass (Chan, Golub and LeVeque 1983).
        low = np.minimum(low, block_low)
        high = np.maximum(high, block_high)
        delta = np.where(m > 0, block_mean - mean, 0)
        square += np.einsum("ij,ij->j", spread, spread) + delta**2 * n * m / np.maximum(n + m, 1)
        mean += delta * m / np.maximum(n + m, 1)
        n += m

    nothing = n == 0
    low[nothing] = np.nan
    high[nothing] = np.nan
    mean[nothing] = np.nan
    sd = np.where(nothing, np.nan, np.sqrt(square / np.maximum(n, 1)))
    bad = np.asarray(bad_trials, dtype=np.int64)

    return Quality(counts["nan"], counts["inf"], counts["spike"], bad, low, high, mean, sd, typical, first_bad, whole)


def _typical(trials: Trials) -> float:
    """Median over voxels of the mean magnitude; values beyond 1e10 are of no unit in use and stay out."""
    sample = trials.take(np.unique(np.linspace(0, len(trials) - 1, min(len(trials), 512)).astype(int)))
    total = np.zeros(trials.n_voxels)
    count = np.zeros(trials.n_voxels)

    for _, block in row_blocks(sample):
        with np.errstate(invalid="ignore"):
            good = np.abs(block) < 1e10
        total += np.abs(np.where(good, block, 0)).sum(axis=0)
        count += good.sum(axis=0)

    means = total[count > 0] / count[count > 0]
    if (means > 0).any():
        return float(np.median(means[means > 0]))
    return 0.0


def check_type(trials: Trials) -> None:
    """Raise DataError unless the betas are real numbers.

    Parameters
    ----------
    trials : Trials
        whose source may say its type; one that does not is checked when it is read
    """
    dtype = getattr(trials.source, "dtype", None)
    if dtype is not None and np.dtype(dtype).kind not in "iufb":
        what = {"c": "complex numbers", "O": "Python objects"}.get(np.dtype(dtype).kind, f"{dtype} values")
        raise DataError(
            f"betas of {trials.subject} hold {what}, but responses are real numbers; save them as float32, one row "
            "a trial."
        )
