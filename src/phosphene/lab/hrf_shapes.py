"""A family of twenty haemodynamic responses, from early and narrow to late and wide.

Blood passes one compartment after the other on its way from the capillaries to the draining veins. A chain of ``a``
compartments, each of which empties exponentially with time constant ``b``, turns an impulse into the gamma density of
shape a and scale b. Its mode ``m = (a - 1) b`` says when the response peaks, its standard deviation ``s = sqrt(a) b``
how wide it is. Given these two,

    b = (sqrt(m^2 + 4 s^2) - m) / 2,        a = 1 + m / b.

The later a response the wider it is, for what delays blood disperses it: ``s = 0.2 + 0.45 m`` seconds. At m = 5 this is the
most used response there is (a = 6, b = 1). The undershoot is a second such chain, with its mode at 3 m and the
width ``1.6 s``, subtracted with a weight that falls from 0.30 for the earliest to 0.05 for the latest response:

    h(t) = gamma(t; a, b) - weight * gamma(t; a', b').

Member k of the family has its mode at 2.2 + 4.2 k / 19 seconds, so that three seconds of stimulation give responses that peak
between 4 and 8 seconds after onset, as those of the Natural Scenes Dataset do. The response to stimulation that lasts
``d`` seconds is the difference of two distribution functions, so it is known exactly at any time, with no grid.

References
----------
Friston et al. 1998 (two gamma functions); Buxton, Wong and Frank 1998 (venous compartment and undershoot); Allen et al. 2022 and
Prince et al. 2022 (a library of twenty responses, and their span). The numbers above are our own.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.special import gammainc

from phosphene.errors import ConfigError

N_SHAPES = 20
_MODES_S = (2.2, 6.4)  # of the response to an impulse
_WIDTH = (0.2, 0.45)  # seconds, and seconds per second of the mode
_UNDERSHOOT_WEIGHT = (0.30, 0.05)
# times those of the response
_UNDERSHOOT_MODE = 3.0
_UNDERSHOOT_WIDTH = 1.6
CANONICAL = 13
"""Number of the shape whose impulse response peaks nearest 5 s."""


def _chain(mode_s: float, width_s: float) -> tuple[float, float]:
    """Shape and scale of the gamma density with this mode and standard deviation."""
    scale = (np.sqrt(mode_s**2 + 4 * width_s**2) - mode_s) / 2
    return 1 + mode_s / scale, scale


@cache
def parameters() -> np.ndarray:
    """(20, 5) float64: shape and scale of the response, shape and scale of the undershoot, weight of the undershoot."""
    share = np.linspace(0.0, 1.0, N_SHAPES)
    rows = []

    for k in share:
        mode = _MODES_S[0] + k * (_MODES_S[1] - _MODES_S[0])
        width = _WIDTH[0] + _WIDTH[1] * mode
        weight = _UNDERSHOOT_WEIGHT[0] + k * (_UNDERSHOOT_WEIGHT[1] - _UNDERSHOOT_WEIGHT[0])
        rows.append((*_chain(mode, width), *_chain(_UNDERSHOOT_MODE * mode, _UNDERSHOOT_WIDTH * width), weight))

    table = np.array(rows)
    table.flags.writeable = False

    return table


def _integral(time_s: np.ndarray) -> np.ndarray:
    """Integral of every impulse response from 0 to each time: (20, *time_s.shape)."""
    late = np.maximum(np.asarray(time_s, dtype=np.float64), 0.0)
    a, b, a2, b2, weight = (column.reshape(-1, *[1] * late.ndim) for column in parameters().T)
    return gammainc(a, late / b) - weight * gammainc(a2, late / b2)


@cache
def _peaks(duration_s: float) -> np.ndarray:
    """Height of every response to stimulation of this length, (20,)."""
    time = np.arange(0.0, 15.0 + duration_s, 0.005)  # the top is flat: a hundredth of a second is 1e-5 of its height
    return (_integral(time) - _integral(time - duration_s)).max(axis=1)


def responses(time_s: np.ndarray, duration_s: float = 3.0) -> np.ndarray:
    """Responses of all shapes to stimulation that begins at time 0.

    Parameters
    ----------
    time_s : ndarray
        any shape, seconds since onset; the response is 0 up to time 0
    duration_s : float, default 3.0
        how long the stimulation lasts, more than 0

    Returns
    -------
    ndarray
        (20, *time_s.shape) float64, each with its peak at 1: a beta of 1 % is a response that peaks at 1 %

    Examples
    --------
    >>> responses(np.array([-1.0, 0.0, 4.0]))[0].round(2)  # the earliest peaks four seconds after onset
    array([0., 0., 1.])
    """
    if not duration_s > 0:
        raise ConfigError(f"Stimulation lasts more than 0 seconds; got duration_s={duration_s}.")

    time = np.asarray(time_s, dtype=np.float64)
    area = _integral(time) - _integral(time - duration_s)
    return area / _peaks(float(duration_s)).reshape(-1, *[1] * time.ndim)


def designs(onsets_s: np.ndarray, n_volumes: int, tr_s: float, duration_s: float = 3.0) -> np.ndarray:
    """Single-trial designs of one run: what each trial adds to each volume, for every shape.

    Parameters
    ----------
    onsets_s : ndarray of shape (n_trials,)
        seconds after the start of the first volume
    n_volumes : int
        the run; volume t is taken at the instant t * tr_s
    tr_s : float
        see `n_volumes`
    duration_s : float, default 3.0
        how long a stimulus is shown

    Returns
    -------
    ndarray of shape (20, n_volumes, n_trials), float64
    """
    volumes = np.arange(n_volumes) * tr_s
    return responses(volumes[:, None] - np.asarray(onsets_s, dtype=np.float64)[None, :], duration_s)
