"""How much of single trials is signal, from stimuli shown more than once."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

from phosphene.errors import DataError


def ncsnr(betas: np.ndarray, table: pd.DataFrame) -> np.ndarray:
    """Standard deviation of the signal over that of the noise.

    Betas are standardised in each session, so that their variance is 1; the noise variance is that of repeats of a
    stimulus, pooled over stimuli; the signal's is what is left, or 0.

    Parameters
    ----------
    betas : ndarray of shape (n_trials, n_voxels)
        in any unit
    table : DataFrame
        with ``stimulus`` and ``session`` of each trial

    Returns
    -------
    ndarray of shape (n_voxels,), float64
        0 or more

    Raises
    ------
    DataError
        when no stimulus is shown twice: noise cannot be told from signal

    References
    ----------
    Allen et al. 2022, methods, "noise ceiling estimation".
    """
    stimuli = table["stimulus"].to_numpy(dtype=str)
    _, codes, counts = np.unique(stimuli, return_inverse=True, return_counts=True)
    if not (counts > 1).any():
        raise DataError(
            f"a noise ceiling needs stimuli shown more than once, but all {len(counts)} of these {len(table)} trials differ. "
            "Repeat some stimuli, or give the ceiling of another session of the same person."
        )

    z = np.array(betas, dtype=np.float64)
    if "session" in table:
        session = table["session"].to_numpy()
    else:
        session = np.zeros(len(table), dtype=int)

    for number in np.unique(session):
        trials = session == number
        z[trials] -= z[trials].mean(axis=0)
        sd = z[trials].std(axis=0, ddof=min(1, int(trials.sum()) - 1))
        z[trials] /= np.where(sd > 0, sd, 1)

    member = sparse.csr_array((np.ones(len(codes)), (codes, np.arange(len(codes)))))
    means = member @ z / counts[:, None]  # (n_stimuli, n_voxels)
    apart = z - means[codes]
    noise = np.einsum("nv,nv->v", apart, apart) / np.sum(counts - 1)
    signal = np.clip(z.var(axis=0, ddof=1) - noise, 0, None)

    return np.sqrt(np.divide(signal, noise, out=np.zeros_like(signal), where=noise > 0))


def ceiling(ncsnr: np.ndarray, n_repeats: int = 1) -> np.ndarray:
    """Share of variance of the mean of `n_repeats` trials that a perfect model explains: ``q^2 / (q^2 + 1 / n)``.

    Parameters
    ----------
    ncsnr : ndarray of shape (n_voxels,)
        standard deviation of the signal over that of the noise
    n_repeats : int, default 1
        trials in the mean

    Returns
    -------
    ndarray of shape (n_voxels,), float64
        0 to 1

    Raises
    ------
    DataError
        For a mean over no trial.

    Examples
    --------
    >>> ceiling(np.array([0.0, 1.0]), 3)
    array([0.  , 0.75])
    """
    if n_repeats < 1:
        raise DataError(f"a mean is over at least one trial; got n_repeats={n_repeats}.")
    square = np.asarray(ncsnr, dtype=np.float64) ** 2
    return square / (square + 1 / n_repeats)
