"""What a scanner adds to the answer of the brain, in parts whose sizes are known.

A part that voxels share is a pair: time courses (n_volumes, k) and maps (k, n_voxels), whose product is in percent.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from phosphene.lab.exact import exact_product

MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
"""Names of the motion parameters: millimetres, then radians."""

MOTION_STEP = np.array([0.012] * 3 + [0.0002] * 3)
"""Standard deviation of the change of each motion parameter from one volume to the next."""

# volumes with a jump, and its size in steps
_JUMP_SHARE = 0.01
_JUMP = 12.0
_RATES_HZ = ((1.05, 0.06), (0.28, 0.02))  # heart and breath: mean and standard deviation over runs
# relative, and how long a deviation lasts
_RATE_WANDER = 0.02
_WANDER_S = 10.0


def sized(time: np.ndarray, space: np.ndarray, rms: float) -> tuple[np.ndarray, np.ndarray]:
    """Centre time courses and scale maps so that their product has this root mean square.

    Parameters
    ----------
    time : ndarray of shape (n_volumes, k)
        time courses
    space : ndarray of shape (k, n_voxels)
        maps
    rms : float
        over voxels and volumes, percent

    Returns
    -------
    tuple of (ndarray, ndarray)
        The pair, float32
    """
    time = time - time.mean(axis=0)
    space = space.astype(np.float64)

    # Sum of the squared product without forming it: tr(T'T S S').
    power = np.sum(exact_product(time.T, time) * exact_product(space, space.T))
    square = power / (len(time) * space.shape[1])

    return time.astype(np.float32), (space * (rms / np.sqrt(max(square, 1e-30)))).astype(np.float32)


def slow_basis(n_volumes: int, tr_s: float, period_s: float) -> np.ndarray:
    """Slow time courses: a line, and cosines of 1, 2 ... half cycles a run, at least one.

    Parameters
    ----------
    n_volumes : int
        length of the run
    tr_s : float
        seconds between volumes
    period_s : float
        of the fastest cosine

    Returns
    -------
    ndarray of shape (n_volumes, k), float64
        mean 0
    """
    count = max(1, int(2 * n_volumes * tr_s / period_s))
    phase = np.pi * (np.arange(n_volumes) + 0.5) / n_volumes
    courses = [phase]
    for k in range(1, count + 1):
        courses.append(np.cos(k * phase))
    time = np.stack(courses, axis=1)  # (n_volumes, count + 1)
    return time - time.mean(axis=0)


def drift(time: np.ndarray, weights: np.ndarray, sd: float) -> tuple[np.ndarray, np.ndarray]:
    """Drift of which every voxel has the same size.

    Parameters
    ----------
    time : ndarray of shape (n_volumes, k)
        slow time courses, the line first
    weights : ndarray of shape (k, n_voxels)
        of each voxel, to be scaled
    sd : float
        percent

    Returns
    -------
    tuple of (ndarray, ndarray)
        The pair, float32; the standard deviation over the run is `sd` in every voxel
    """
    space = weights / np.r_[1.0, np.arange(1, len(weights))][:, None]  # the slower the larger
    covariance = exact_product(time.T, time) / len(time)  # (k, k)
    size = np.sqrt((space * exact_product(covariance, space)).sum(axis=0))
    return time.astype(np.float32), (sd * space / np.maximum(size, 1e-12)).astype(np.float32)


def autoregressive(n_volumes: int, coefficient: float, sd: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stationary first-order series, independent between voxels.

    Parameters
    ----------
    n_volumes : int
        length of the run
    coefficient : float
        correlation of a volume with the next, -1 to 1
    sd : ndarray of shape (n_voxels,)
        standard deviation
    rng : numpy.random.Generator
        draws the series

    Returns
    -------
    ndarray of shape (n_volumes, n_voxels), float32
    """
    fresh = rng.standard_normal((n_volumes, len(sd)), dtype=np.float32)
    fresh[1:] *= np.float32(np.sqrt(1 - coefficient**2))  # the first volume has the full variance
    series = lfilter(np.ones(1, np.float32), np.array([1, -coefficient], np.float32), fresh, axis=0)
    return series * sd.astype(np.float32)


def pulse(n_volumes: int, tr_s: float, rng: np.random.Generator) -> tuple[tuple[float, float], np.ndarray]:
    """Heart beat and breathing, seen once a volume.

    Parameters
    ----------
    n_volumes : int
        length of the run
    tr_s : float
        seconds between volumes
    rng : numpy.random.Generator
        draws rates and phases

    Returns
    -------
    tuple of (tuple of (float, float), ndarray)
        Mean rates of heart and breath in Hz, and (n_volumes, 4) float64: cosine and sine of each, of variance about 1.
        A rate above half the sampling rate appears at its alias
    """
    keep = np.exp(-tr_s / _WANDER_S)
    waves = []
    rates = []
    for mean, spread in _RATES_HZ:
        rate = rng.normal(mean, spread)
        steps = rng.normal(size=n_volumes) * np.sqrt(1 - keep**2)
        wander = np.asarray(lfilter([1.0], [1.0, -keep], steps))
        phase = 2 * np.pi * (rng.uniform() + np.cumsum(rate * (1 + _RATE_WANDER * wander) * tr_s))
        waves += [np.cos(phase), np.sin(phase)]
        rates.append(float(rate))

    return (rates[0], rates[1]), np.sqrt(2) * np.stack(waves, axis=1)


def random_walk(n_volumes: int, rng: np.random.Generator) -> np.ndarray:
    """Motion since the first volume: slow wandering, and now and then a jump of all six parameters.

    Parameters
    ----------
    n_volumes : int
        length of the run
    rng : numpy.random.Generator
        draws the steps

    Returns
    -------
    ndarray of shape (n_volumes, 6), float64
        0 in the first volume
    """
    steps = rng.normal(size=(n_volumes, 6))
    steps[rng.uniform(size=n_volumes) < _JUMP_SHARE] *= _JUMP
    steps[0] = 0
    return np.cumsum(steps, axis=0) * MOTION_STEP
