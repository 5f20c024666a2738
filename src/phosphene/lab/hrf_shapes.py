"""Haemodynamic responses of simulated voxels: sums of three inverse logit functions, another one for every voxel.

An inverse logit ``L(x) = 1 / (1 + exp(-x))`` is a smooth step. Three of them make a response to an impulse: one rises, one
falls below the baseline, and one returns to it,

    h(t) = S(t; rise) - (1 + u) S(t; fall) + u S(t; return),

where ``S(t; T, D) = (L((t - T) / D) - L(-T / D)) / (1 - L(-T / D))`` is the step at time T of width D, which begins at 0 at
onset and ends at 1, and u is the depth of the undershoot. The integral of a step is known in closed form, so the response to
stimulation that lasts ``d`` seconds, a difference of two integrals, is known at any time with no grid.

Five numbers between 0 and 1, drawn for each voxel, say where it lies in these ranges:

===============  ========================================================================================================
``delay``        the rise reaches its middle after 1.2 to 3.6 s
``smoothness``   the widths of rise and fall, 0.16 to 0.26 of the time they take
``duration``     the middle of the fall comes ``1 + 1.45 rise`` seconds later, times 0.8 to 1.25: late responses last longer
``depth``        of the undershoot, 0 to 0.3
``recovery``     the undershoot lasts 3 to 8 s, and its return is 1 to 2 s wide
===============  ========================================================================================================

Three seconds of stimulation then give responses that peak about 4 to 8 seconds after onset.

This is deliberately not the family from which :mod:`phosphene.betas` chooses (differences of two gamma functions along one
path): betas that are judged against the lab's truth must not have been given the truth's shapes. No voxel's response is in
that library.

References
----------
Lindquist and Wager 2007 (three inverse logit functions); Aguirre, Zarahn and D'Esposito 1998 and Handwerker, Ollinger and
D'Esposito 2004 (responses differ by seconds between people and areas); Allen et al. 2022 (peaks of the Natural Scenes
Dataset). The ranges above are our own.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from phosphene.errors import ConfigError

SHARES = ("delay", "smoothness", "duration", "depth", "recovery")
"""What is drawn for each voxel, each between 0 and 1."""

PARAMETERS = ("rise_s", "rise_width_s", "fall_s", "fall_width_s", "return_s", "return_width_s", "undershoot")
"""What a response is made of."""

LENGTH_S = 60.0
"""A response to an impulse is over by then."""

# Elementary functions differ in their last bits from one processor to the next; rounded, they are the same everywhere.
_DECIMALS = 6


def parameters(shares: np.ndarray) -> np.ndarray:
    """Parameters of the responses that lie at given places in the ranges of the family.

    Parameters
    ----------
    shares : ndarray of shape (n_voxels, 5), float
        Between 0 and 1, in the order of :data:`SHARES`.

    Returns
    -------
    ndarray of shape (n_voxels, 7), float64
        In the order of :data:`PARAMETERS`, rounded to a millionth.

    Examples
    --------
    >>> parameters(np.full((1, 5), 0.5)).round(2).tolist()
    [[2.4, 0.5, 6.99, 0.96, 12.49, 1.5, 0.15]]
    """
    shares = np.asarray(shares, dtype=np.float64)
    if shares.ndim != 2 or shares.shape[1] != len(SHARES) or not ((shares >= 0) & (shares <= 1)).all():
        raise ConfigError(
            f"A response is drawn by {len(SHARES)} numbers between 0 and 1 ({', '.join(SHARES)}), a row for each voxel; "
            f"got an array of shape {shares.shape}, from {shares.min(initial=0):g} to {shares.max(initial=0):g}."
        )

    delay, smoothness, duration, depth, recovery = shares.T

    rise = 1.2 + 2.4 * delay
    hold = (1.0 + 1.45 * rise) * (0.8 + 0.45 * duration)
    relative_width = 0.16 + 0.10 * smoothness
    fall = rise + hold
    back = fall + 3.0 + 5.0 * recovery

    columns = [rise, relative_width * rise, fall, relative_width * hold, back, 1.0 + recovery, 0.3 * depth]
    return np.round(np.stack(columns, axis=1), _DECIMALS)  # (n_voxels, 7)


def _step_integral(time_s: np.ndarray, centre_s: np.ndarray, width_s: np.ndarray) -> np.ndarray:
    """Integral from 0 to each time, 0 or more, of a smooth step that is exactly 0 at time 0 and ends at 1."""
    at_onset = expit(-centre_s / width_s)
    area = np.logaddexp(0.0, (time_s - centre_s) / width_s) - np.logaddexp(0.0, -centre_s / width_s)
    return (width_s * area - at_onset * time_s) / (1.0 - at_onset)


def _integral(time_s: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """Integral of every impulse response from 0 to each time, (n_voxels, n_times); 0 before onset."""
    late = np.maximum(time_s, 0.0)
    rise, rise_width, fall, fall_width, back, back_width, undershoot = voxels.T[:, :, None]  # each (n_voxels, 1)

    total = _step_integral(late, rise, rise_width)
    total -= (1.0 + undershoot) * _step_integral(late, fall, fall_width)
    total += undershoot * _step_integral(late, back, back_width)

    return total


def _area(time_s: np.ndarray, voxels: np.ndarray, duration_s: float) -> np.ndarray:
    """Response to stimulation from 0 to `duration_s`, not scaled: a difference of two integrals, (n_voxels, n_times)."""
    return _integral(time_s, voxels) - _integral(time_s - duration_s, voxels)


def peaks(voxels: np.ndarray, duration_s: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """When each response to stimulation of this length is largest, and how large before it is scaled to 1.

    Parameters
    ----------
    voxels : ndarray of shape (n_voxels, 7), float64
        As :func:`parameters` gives them.
    duration_s : float
        How long the stimulation lasts, more than 0 seconds.

    Returns
    -------
    time_s : ndarray of shape (n_voxels,), float64
        Seconds since onset, to 0.005 s.
    height : ndarray of shape (n_voxels,), float64
        Seconds: the area of the impulse response that stimulation gathers.
    """
    # On a coarse grid first, then on a fine one round the place found there.
    coarse = np.arange(0.0, 20.0 + duration_s, 0.1)
    near = coarse[_area(coarse, voxels, duration_s).argmax(axis=1)]

    fine = np.arange(-0.1, 0.1025, 0.005)  # the top is flat: a hundredth of a second is 1e-5 of its height
    time = near[:, None] + fine  # (n_voxels, n_fine)
    heights = _area(time, voxels, duration_s)
    best = heights.argmax(axis=1)
    rows = np.arange(len(voxels))

    return time[rows, best], heights[rows, best]


def responses(time_s: np.ndarray, voxels: np.ndarray, duration_s: float = 3.0) -> np.ndarray:
    """Responses of voxels to stimulation that begins at time 0.

    Parameters
    ----------
    time_s : ndarray, float
        Seconds since onset, of any shape; the response is 0 up to time 0.
    voxels : ndarray of shape (n_voxels, 7), float64
        As :func:`parameters` gives them.
    duration_s : float
        How long the stimulation lasts, more than 0 seconds.

    Returns
    -------
    ndarray of shape (n_voxels, *time_s.shape), float64
        Each with its peak at 1, so that a beta of 1 % is a response that peaks at 1 %; rounded to a millionth, so that it is the
        same on every machine.

    Raises
    ------
    ConfigError
        For stimulation that does not last.

    Examples
    --------
    >>> early = parameters(np.zeros((1, 5)))
    >>> responses(np.array([-1.0, 0.0, 4.0, 12.0]), early).round(2)
    array([[0., 0., 1., 0.]])
    """
    if not duration_s > 0:
        raise ConfigError(f"Stimulation lasts more than 0 seconds; got duration_s={duration_s}.")

    time = np.asarray(time_s, dtype=np.float64)
    _, height = peaks(voxels, float(duration_s))

    values = _area(time.reshape(-1), voxels, float(duration_s)) / height[:, None]  # (n_voxels, n_times)
    return np.round(values, _DECIMALS).reshape(len(voxels), *time.shape) + 0.0  # no minus zero


def convolve(
    onsets_s: np.ndarray, betas: np.ndarray, voxels: np.ndarray, n_volumes: int, tr_s: float, duration_s: float = 3.0
) -> np.ndarray:
    """What the trials of one run evoke: betas times responses, summed trial by trial in the order of the table.

    There is no matrix product, whose last bits would depend on the number of threads.

    Parameters
    ----------
    onsets_s : ndarray of shape (n_trials,), float
        Seconds after the start of the first volume.
    betas : ndarray of shape (n_trials, n_voxels), float
        Heights of the responses.
    voxels : ndarray of shape (n_voxels, 7), float64
        As :func:`parameters` gives them.
    n_volumes : int
        Length of the run.
    tr_s : float
        Seconds between volumes; volume t is taken at the instant ``t * tr_s``.
    duration_s : float
        How long a stimulus is shown, seconds.

    Returns
    -------
    ndarray of shape (n_volumes, n_voxels), float32
        In the unit of the betas.
    """
    onsets = np.asarray(onsets_s, dtype=np.float64)
    lag = np.round(np.arange(n_volumes)[:, None] * float(tr_s) - onsets, 9)  # (n_volumes, n_trials)
    is_on = (lag > 0) & (lag < LENGTH_S + duration_s)
    lags, place = np.unique(lag[is_on], return_inverse=True)  # trials are copies of few lags
    column = np.zeros(lag.shape, dtype=np.int64)
    column[is_on] = place

    evoked = np.zeros((n_volumes, len(voxels)), dtype=np.float32)
    for start in range(0, len(voxels), 512):
        block = slice(start, start + 512)
        kernel = responses(lags, voxels[block], duration_s).T  # (n_lags, n_block)
        total = np.zeros((n_volumes, kernel.shape[1]))
        for trial, beta in enumerate(betas[:, block]):
            volumes = np.flatnonzero(is_on[:, trial])
            total[volumes] += kernel[column[volumes, trial]] * beta
        evoked[:, block] = total

    return evoked
