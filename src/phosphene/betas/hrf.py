"""Haemodynamic response functions (HRF) to choose from: our own twenty, or a table in the layout that GLMsingle publishes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from phosphene.errors import ConfigError, DataError
from phosphene.io.reading import reads
from phosphene.lab import hrf_shapes

_STEP_S = 0.1  # of a table
_LENGTH_S = 50.0  # a response is over by then, and so is a table


@dataclass(frozen=True, eq=False)
class HrfLibrary:
    """A family of responses, each with its peak at 1, so that a beta is the height of the response.

    Parameters
    ----------
    name : str, default "phosphene-20"
        for provenance
    table : ndarray of shape (n_times, n_shapes), optional
        responses to an impulse every 0.1 s from onset; None for our own twenty, which are known exactly at any time
        (:mod:`phosphene.lab.hrf_shapes`)

    Examples
    --------
    >>> HrfLibrary().responses(np.array([0.0, 4.0]), 3.0)[0].round(2)
    array([0., 1.])
    """

    name: str = "phosphene-20"
    table: np.ndarray | None = None

    @classmethod
    @reads("path")
    def read(cls, path: str | Path) -> HrfLibrary:
        """Read a text table of (n_times, n_shapes), a row every 0.1 s, such as the published one of 501 x 20.

        Raises
        ------
        DataError
            when the file cannot be read as numbers, or is no table of responses
        """
        path = Path(path)
        try:
            table = np.loadtxt(path, dtype=np.float64, ndmin=2)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path} should be a table of numbers, a column per response and a row every 0.1 s; reading it gave: {error}"
            ) from error

        if len(table) < 50 or not np.isfinite(table).all() or not (table.max(axis=0) > 0).all():
            raise DataError(
                f"{path} should hold responses to an impulse, a row every 0.1 s for at least 5 s, finite and with a "
                f"positive peak in each column; it is {table.shape[0]} x {table.shape[1]}. Is it transposed?"
            )

        return cls(path.name, table)

    def __len__(self) -> int:
        if self.table is None:
            return hrf_shapes.N_SHAPES

        return self.table.shape[1]

    @property
    def canonical(self) -> int:
        """Number of the shape whose response to an impulse peaks nearest 5 s."""
        if self.table is None:
            return hrf_shapes.CANONICAL

        return int(np.argmin(np.abs(self.table.argmax(axis=0) * _STEP_S - 5.0)))

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
            return hrf_shapes.responses(lag, max(float(duration_s), _STEP_S))

        from scipy.interpolate import PchipInterpolator

        box = np.ones(max(1, int(np.floor(duration_s / _STEP_S + 0.5))))
        rows = np.array([np.convolve(column, box) for column in self.table.T])
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
        onset_s, duration_s : ndarray of shape (n_trials,)
            seconds
        n_volumes : int
            the run
        tr_s : float
            the run

        Returns
        -------
        ndarray of shape (n_shapes, n_volumes, n_trials), float64
        """
        onset_s = np.asarray(onset_s, dtype=np.float64)
        lag = np.round(np.arange(n_volumes)[:, None] * float(tr_s) - onset_s, 9)
        out = np.zeros((len(self), n_volumes, len(onset_s)))
        durations = np.broadcast_to(np.asarray(duration_s, dtype=np.float64), onset_s.shape)

        for duration in np.unique(durations):
            # Trials are copies of few lags, so each is computed once.
            here = (lag > 0) & (lag < _LENGTH_S + duration) & (durations == duration)
            lags, place = np.unique(lag[here], return_inverse=True)
            out[:, here] = self._cached(lags.tobytes(), float(duration))[:, place]

        return out

    @lru_cache(maxsize=64)  # noqa: B019  a library is small and lives as long as the fit; runs mostly share their lags
    def _cached(self, lags: bytes, duration_s: float) -> np.ndarray:
        return self.responses(np.frombuffer(lags), duration_s)
