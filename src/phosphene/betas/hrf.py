"""Haemodynamic response functions (HRF) to choose from: twenty derived here, or a table of your own or of GLMsingle's layout.

**The twenty.** Blood passes one compartment after the other on its way from the capillaries to the draining veins. A chain of
``a`` compartments, each of which empties exponentially with time constant ``b``, turns an impulse into the gamma density of
shape a and scale b. Its mode ``m = (a - 1) b`` says when the response peaks (delay), its standard deviation ``s = sqrt(a) b``
how wide it is (dispersion). Given these two,

    b = (sqrt(m^2 + 4 s^2) - m) / 2,        a = 1 + m / b.

The later a response the wider it is, for what delays blood disperses it: ``s = 0.2 + 0.45 m`` seconds. At m = 5 this is the
most used response there is (a = 6, b = 1). The undershoot is a second such chain, with its mode at 3 m and the width 1.6 s,
subtracted with a weight that falls from 0.30 for the earliest to 0.05 for the latest response:

    h(t) = gamma(t; a, b) - weight * gamma(t; a', b').

Member k of the library has its mode at 2.2 + 4.2 k / 19 seconds, so that three seconds of stimulation give responses that peak
between 4 and 8 seconds after onset. The response to stimulation that lasts ``d`` seconds is the difference of two distribution
functions, so it is known exactly at any time, with no grid.

**A table** (:meth:`HrfLibrary.read`) has a column for each response to an impulse, sampled in equal steps from onset. What
GLMsingle ships as ``getcanonicalhrflibrary.tsv`` (501 rows of 0.1 s, 20 columns) is such a table.

The simulated scanner of this project draws its voxels' responses from another family, none of whose members is in this library.

References
----------
Friston et al. 1998 and Glover 1999 (differences of two gamma functions); Buxton, Wong and Frank 1998 (venous compartment and
undershoot); Aguirre, Zarahn and D'Esposito 1998 and Handwerker, Ollinger and D'Esposito 2004 (responses differ by seconds between
people and areas); Lindquist et al. 2009 (what a wrong response costs); Allen et al. 2022 and Prince et al. 2022 (a library of
twenty, from early and narrow to late and wide, and its span). The numbers of the rule are our own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.special import gammainc

from phosphene.errors import ConfigError, DataError
from phosphene.io.reading import open_npy, reads

if TYPE_CHECKING:
    from phosphene.betas.options import BetaOptions

N_SHAPES = 20
"""How many responses our own library has."""

_MODES_S = (2.2, 6.4)  # of the response to an impulse
_WIDTH = (0.2, 0.45)  # seconds, and seconds per second of the mode
_UNDERSHOOT_WEIGHT = (0.30, 0.05)
_UNDERSHOOT_MODE = 3.0  # times that of the response
_UNDERSHOOT_WIDTH = 1.6  # times that of the response
_CANONICAL = 13  # the impulse response that peaks nearest 5 s

_STEP_S = 0.1  # in which a table is convolved with stimulation
_LENGTH_S = 50.0  # a response is over by then, and so is a table
_SHORTEST_S = 5.0  # a table that ends sooner ends before most responses peak
_LARGEST_STEP_S = 2.0
_PEAKS_S = (1.0, 20.0)  # where the response to an impulse can peak


def _chain(mode_s: float, width_s: float) -> tuple[float, float]:
    """Shape and scale of the gamma density with this mode and standard deviation."""
    scale = (np.sqrt(mode_s**2 + 4 * width_s**2) - mode_s) / 2
    return 1 + mode_s / scale, scale


@cache
def gamma_parameters() -> np.ndarray:
    """What our own responses are made of, from the earliest to the latest.

    Returns
    -------
    ndarray of shape (20, 5), float64
        Shape and scale of the response, shape and scale of the undershoot, weight of the undershoot; read-only.
    """
    rows = []
    for share in np.linspace(0.0, 1.0, N_SHAPES):
        mode = _MODES_S[0] + share * (_MODES_S[1] - _MODES_S[0])
        width = _WIDTH[0] + _WIDTH[1] * mode
        weight = _UNDERSHOOT_WEIGHT[0] + share * (_UNDERSHOOT_WEIGHT[1] - _UNDERSHOOT_WEIGHT[0])

        response = _chain(mode, width)
        undershoot = _chain(_UNDERSHOOT_MODE * mode, _UNDERSHOOT_WIDTH * width)
        rows.append((*response, *undershoot, weight))

    table = np.array(rows)
    table.flags.writeable = False

    return table


def _integral(time_s: np.ndarray) -> np.ndarray:
    """Integral of each of our own impulse responses from 0 to each time, (20, *time_s.shape)."""
    late = np.maximum(time_s, 0.0)
    a, b, a2, b2, weight = (column.reshape(-1, *[1] * late.ndim) for column in gamma_parameters().T)
    return gammainc(a, late / b) - weight * gammainc(a2, late / b2)


@cache
def _peaks(duration_s: float) -> np.ndarray:
    """Height of each of our own responses to stimulation of this length, (20,)."""
    time = np.arange(0.0, 15.0 + duration_s, 0.005)  # the top is flat: a hundredth of a second is 1e-5 of its height
    return (_integral(time) - _integral(time - duration_s)).max(axis=1)


def _gamma_responses(lag_s: np.ndarray, duration_s: float) -> np.ndarray:
    """Our own responses to stimulation that begins at time 0, each with its peak at 1, (20, *lag_s.shape)."""
    area = _integral(lag_s) - _integral(lag_s - duration_s)
    return area / _peaks(duration_s).reshape(-1, *[1] * lag_s.ndim)


@dataclass(frozen=True, eq=False)
class HrfLibrary:
    """A family of responses, each with its peak at 1, so that a beta is the height of the response.

    Parameters
    ----------
    name : str
        For provenance.
    table : ndarray of shape (n_times, n_shapes), optional
        float64, responses to an impulse, a row for each step from onset; None for our own twenty, which are known
        exactly at any time.
    step_s : float
        Seconds between the rows of the table.

    Raises
    ------
    DataError
        For a table that cannot be one of responses: transposed, not finite, without a peak, or sampled in other steps.
    ConfigError
        For steps that are not more than 0 and at most 2 seconds.

    Examples
    --------
    >>> HrfLibrary().responses(np.array([0.0, 4.0]), 3.0)[0].round(2)
    array([0., 1.])
    """

    name: str = "phosphene-20"
    table: np.ndarray | None = None
    step_s: float = _STEP_S

    def __post_init__(self) -> None:
        if not 0 < self.step_s <= _LARGEST_STEP_S:
            raise ConfigError(
                f"the rows of a table of responses are more than 0 and at most {_LARGEST_STEP_S:g} s apart; got "
                f"{self.step_s:g} s for {self.name}."
            )

        if self.table is not None:
            _check_table(self.table, self.step_s, self.name)

    @classmethod
    @reads("path")
    def read(cls, path: str | Path, step_s: float = _STEP_S) -> HrfLibrary:
        """Read a table of responses to an impulse, such as the one that GLMsingle ships.

        Parameters
        ----------
        path : str or Path
            ``.npy``, or text with columns apart by tabs or blanks (``.csv``: by commas) and no header: (n_times, n_shapes), the
            first row at onset. GLMsingle's ``getcanonicalhrflibrary.tsv`` has 501 rows and 20 columns.
        step_s : float
            Seconds between rows; 0.1 as in GLMsingle's table.

        Returns
        -------
        HrfLibrary
            Responses in the order of the columns.

        Raises
        ------
        DataError
            When the file cannot be read as numbers, or is no table of responses.
        ConfigError
            For steps that are not more than 0 and at most 2 seconds.
        """
        path = Path(path)
        try:
            if path.suffix == ".npy":
                table = open_npy(path)
                if table.dtype.kind not in "fiu":
                    raise ValueError(f"its dtype is {table.dtype}, not one of real numbers")
                table = table.astype(np.float64)
            else:
                if path.suffix == ".csv":
                    separator = ","
                else:
                    separator = None

                table = np.loadtxt(path, dtype=np.float64, ndmin=2, delimiter=separator)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path} should be a table of numbers without a header, a column for each response and a row every "
                f"{step_s:g} s; reading it gave: {error}"
            ) from error

        return cls(path.name, table, step_s)

    @classmethod
    def chosen(cls, options: BetaOptions) -> HrfLibrary:
        """Read the table that the options name, or take our own library where they name none.

        Parameters
        ----------
        options : BetaOptions
            ``hrf_table`` and ``hrf_step_s``

        Returns
        -------
        HrfLibrary
            with responses in the order of the table
        """
        if options.hrf_table is None:
            return cls()
        return cls.read(options.hrf_table, options.hrf_step_s)

    @property
    def digest(self) -> str:
        """SHA-256 of the responses: the name for our own, of which there is one, and the numbers of a table."""
        if self.table is None:
            return hashlib.sha256(self.name.encode()).hexdigest()
        content = np.ascontiguousarray(self.table, dtype="<f8").tobytes()
        return hashlib.sha256(f"{self.table.shape} {self.step_s!r} ".encode() + content).hexdigest()

    def __len__(self) -> int:
        if self.table is None:
            return N_SHAPES
        return self.table.shape[1]

    @property
    def peaks_s(self) -> np.ndarray:
        """(n_shapes,) float64, when each response to an impulse peaks, seconds."""
        if self.table is None:
            a, b, *_ = gamma_parameters().T
            return (a - 1) * b
        return self.table.argmax(axis=0) * self.step_s

    @property
    def canonical(self) -> int:
        """Number of the shape whose response to an impulse peaks nearest 5 s."""
        if self.table is None:
            return _CANONICAL
        return int(np.argmin(np.abs(self.peaks_s - 5.0)))

    def responses(self, lag_s: np.ndarray, duration_s: float) -> np.ndarray:
        """Every shape's response to stimulation that begins at time 0.

        Parameters
        ----------
        lag_s : ndarray
            any shape, seconds since onset; the response is 0 up to 0
        duration_s : float
            how long stimulation lasts; a table takes it in steps of 0.1 s

        Returns
        -------
        ndarray
            (n_shapes, *lag_s.shape) float64
        """
        lag = np.asarray(lag_s, dtype=np.float64)
        if not (np.isfinite(duration_s) and duration_s >= 0):
            raise ConfigError(f"A stimulus lasts 0 seconds or more; got duration_s={duration_s}.")
        if self.table is None:
            return _gamma_responses(lag, max(float(duration_s), _STEP_S))

        table = self.table
        if self.step_s != _STEP_S:
            rows_s = np.arange(len(table)) * self.step_s
            table = PchipInterpolator(rows_s, table)(np.arange(0.0, rows_s[-1] + 1e-9, _STEP_S))

        box = np.ones(max(1, int(np.floor(duration_s / _STEP_S + 0.5))))
        rows = np.array([np.convolve(column, box) for column in table.T])
        rows /= rows.max(axis=1, keepdims=True)
        time = np.arange(rows.shape[1]) * _STEP_S
        inside = (lag >= 0) & (lag <= time[-1])
        out = np.zeros((len(rows), *lag.shape))
        out[:, inside] = PchipInterpolator(time, rows, axis=1)(lag[inside])

        return out

    def designs(self, onset_s: np.ndarray, duration_s: np.ndarray, n_volumes: int, tr_s: float) -> np.ndarray:
        """What each trial of a run adds to each volume, for every shape; volume t is taken at ``t * tr_s``.

        Parameters
        ----------
        onset_s : ndarray of shape (n_trials,)
            seconds from the first volume
        duration_s : ndarray of shape (n_trials,)
            seconds
        n_volumes : int
            length of the run
        tr_s : float
            seconds between volumes

        Returns
        -------
        ndarray of shape (n_shapes, n_volumes, n_trials)
            float64, in units of each response's peak
        """
        onset_s = np.asarray(onset_s, dtype=np.float64)
        lag = np.round(np.arange(n_volumes)[:, None] * float(tr_s) - onset_s, 9)
        out = np.zeros((len(self), n_volumes, len(onset_s)))
        durations = np.broadcast_to(np.asarray(duration_s, dtype=np.float64), onset_s.shape)

        for duration in np.unique(durations):
            # Trials are copies of few lags, so each is computed once.
            responds = (lag > 0) & (lag < _LENGTH_S + duration) & (durations == duration)
            lags, place = np.unique(lag[responds], return_inverse=True)
            out[:, responds] = self._cached(lags.tobytes(), float(duration))[:, place]

        return out

    @lru_cache(maxsize=64)  # noqa: B019  a library is small and lives as long as the fit; runs mostly share their lags
    def _cached(self, lags: bytes, duration_s: float) -> np.ndarray:
        return self.responses(np.frombuffer(lags), duration_s)


def _check_table(table: np.ndarray, step_s: float, name: str) -> None:
    """Refuse what cannot be responses to an impulse, one column each."""
    wanted = f"{name} should hold responses to an impulse, a column each and a row every {step_s:g} s from onset"
    if table.ndim != 2 or 0 in table.shape:
        raise DataError(f"{wanted}; it is an array of shape {table.shape}.")

    n_times, n_shapes = table.shape
    if n_shapes > n_times:
        raise DataError(f"{wanted}; it has {n_times} rows and {n_shapes} columns. Is it transposed?")

    if n_times * step_s < _SHORTEST_S:
        raise DataError(
            f"{wanted}, for at least {_SHORTEST_S:g} s; its {n_times} rows last {n_times * step_s:g} s. Is it transposed, or "
            "sampled in other steps (hrf_step_s)?"
        )

    if not np.isfinite(table).all():
        row, column = np.argwhere(~np.isfinite(table))[0]
        raise DataError(f"{wanted}, all finite; row {row} of column {column} is {table[row, column]}.")

    heights = table.max(axis=0)
    if not (heights > 0).all():
        raise DataError(f"{wanted}, each with a positive peak; column {int((heights <= 0).argmax())} has none.")

    peaks_s = table.argmax(axis=0) * step_s
    odd = (peaks_s < _PEAKS_S[0]) | (peaks_s > _PEAKS_S[1]) | (table.argmax(axis=0) == n_times - 1)
    if odd.any():
        column = int(odd.argmax())
        raise DataError(
            f"{wanted}, which peak {_PEAKS_S[0]:g} to {_PEAKS_S[1]:g} s after onset and fall again; column {column} peaks at "
            f"{peaks_s[column]:g} s of {(n_times - 1) * step_s:g} s. Is the step right (hrf_step_s), and is it a response and "
            "not a column of times?"
        )

    late = np.abs(table[0]) > 0.5 * heights
    if late.any():
        column = int(late.argmax())
        raise DataError(
            f"{wanted}, near 0 at onset; column {column} begins at {table[0, column] / heights[column]:.0%} of its peak. The "
            "first row is the moment of the impulse."
        )
