"""Are the onsets of the files early or late? Asked without knowing what was shown.

Volumes that were dropped after the events were logged, or a log that starts at the trigger and not at the first kept volume,
move all onsets of a study by the same seconds. Betas then fit the neighbours of each trial, and nothing downstream says so. One
regressor for all trials is moved against the data; whether a move is believed is decided on pieces of runs that had no say in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from phosphene.betas.glm import nuisance_basis, polynomial_degree, residuals
from phosphene.betas.hrf import HrfLibrary
from phosphene.betas.runs import BoldRun

_GAIN = 1.25  # a true shift explains much more; a response of another shape hardly
_LEAST_S = 1.5  # people's responses differ by as much
_VOXELS = 5000  # enough to tell
_PIECES = 8  # runs are cut into at least so many pieces, of which each is predicted from the others
_SURE = 2.5  # standard errors over pieces; what false alarms that leaves is counted in the tests
_AS_GOOD = 0.98  # a design that repeats itself explains as much a period later: the smaller shift is meant


@dataclass(frozen=True, eq=False)
class OnsetShift:
    """What moving all onsets does to the variance that "something is shown" explains.

    Attributes
    ----------
    shifts_s : ndarray of shape (n,)
        seconds added to every onset
    r2 : ndarray of shape (n,)
        share of variance, 0-1, pooled over runs and voxels
    strengths : ndarray of shape (n_pieces,)
        for pieces of runs, how strongly the pattern over voxels that all other pieces show is there, onsets moved as
        these ask for: a share of the standard deviation, about 0 where nothing responds
    gains : ndarray of shape (n_pieces,)
        by how much that is more than with the onsets of the files; may be negative
    choices_s : ndarray of shape (n_pieces,)
        the shift that all other pieces ask for
    """

    shifts_s: np.ndarray
    r2: np.ndarray
    strengths: np.ndarray
    gains: np.ndarray
    choices_s: np.ndarray

    @cached_property
    def best_s(self) -> float:
        """The shift that explains most; of several that do about as well, the least."""
        return float(self.shifts_s[_peak(self.shifts_s, self.r2)])

    @property
    def r2_as_filed(self) -> float:
        """Share of variance with the onsets as they are."""
        return float(self.r2[np.abs(self.shifts_s).argmin()])

    @property
    def r2_moved(self) -> float:
        """Share of variance with the onsets moved by :attr:`best_s`."""
        return float(self.r2[np.flatnonzero(self.shifts_s == self.best_s)[0]])

    @property
    def sureness(self) -> float:
        """The lesser of how surely anything is found, and found better than as filed: means over pieces in standard errors."""
        return min(_in_errors(self.strengths), _in_errors(self.gains))

    @property
    def error_s(self) -> float:
        """Standard error of the shift, by leaving out a piece at a time (jackknife), seconds."""
        n = len(self.choices_s)
        if n > 1:
            return float(np.sqrt((n - 1) * self.choices_s.var()))  # var has 1/n: (n - 1) / n of the sum of squares
        return float("nan")

    @property
    def is_suspect(self) -> bool:
        """Whether the files' onsets explain much less than moved ones, here and in pieces that had no say in it."""
        return (
            abs(self.best_s) >= _LEAST_S
            and self.r2_moved > _GAIN * self.r2_as_filed
            and self.sureness > _SURE
            and abs(self.best_s) > 2 * self.error_s  # in noise, leaving out a piece moves the peak anywhere
        )

    @property
    def at_the_edge(self) -> bool:
        """Whether the best shift is the largest tried, so that the true one may be larger."""
        return abs(self.best_s) >= np.abs(self.shifts_s).max() - 1e-9

    def __str__(self) -> str:
        text = f"onsets as filed explain {100 * self.r2_as_filed:.1f} % of variance"
        if not self.is_suspect:
            return f"{text}, moved ones at most {100 * self.r2.max():.1f} %: no sign that they are early or late"

        further = ""
        if self.at_the_edge:
            further = " or further"

        direction = "early"
        if self.best_s < 0:
            direction = "late"

        return (
            f"{text}, but moved by {self.best_s:+.2f} s{further} (± {max(self.error_s, self._step):.2g}) they explain "
            f"{100 * self.r2_moved:.1f} %: the files seem to say them too {direction}. Compare "
            f"with the study's protocol; onset_shift_s={self.best_s:g} (--shift auto) moves them"
        )

    @property
    def _step(self) -> float:
        """Seconds from one shift tried to the next, below which no error can be seen."""
        return float(np.diff(self.shifts_s).min(initial=np.inf))


def _in_errors(values: np.ndarray) -> float:
    """Mean in standard errors; 0 where there is none."""
    if len(values) < 2:
        return 0.0
    error = values.std(ddof=1) / np.sqrt(len(values))
    if error > 0:  # pieces that are all alike say nothing of their error
        return float(values.mean() / error)
    return 0.0


def _peak(shifts_s: np.ndarray, r2: np.ndarray) -> int:
    """Place of the smallest shift among the peaks that are about as high as the highest.

    Parameters
    ----------
    shifts_s : ndarray of shape (n,)
        seconds, ascending
    r2 : ndarray of shape (n,)
        what each explains, in any unit
    """
    padded = np.r_[-np.inf, r2, -np.inf]
    is_peak = (r2 >= padded[:-2]) & (r2 >= padded[2:])
    peaks = np.flatnonzero(is_peak & (r2 >= _AS_GOOD * r2.max()))
    return int(peaks[np.abs(shifts_s[peaks]).argmin()])


def onset_shift(
    runs: Sequence[BoldRun],
    library: HrfLibrary | None = None,
    *,
    shape: int | None = None,
    largest_s: float = 10.0,
    step_s: float = 0.25,
) -> OnsetShift:
    """Move all onsets together and see when one regressor for all trials explains most.

    That regressor knows nothing of what was shown, so nothing that is decoded later has been used. A shift is believed when
    pieces of runs are predicted better with it though they took no part in choosing it. An assumed response that is
    later than the true one looks like onsets that are late by as much: a second or so cannot be told from it.

    Parameters
    ----------
    runs : sequence of BoldRun
        of one subject
    library : HrfLibrary, optional
        the response assumed; ours, and the one that peaks near 5 s, by default
    shape : int, optional
        its number in the library
    largest_s : float, default 10.0
        largest shift tried, both ways
    step_s : float, default 0.25
        from one shift to the next

    Returns
    -------
    OnsetShift
        what each shift explains, and whether the files' onsets are to be doubted
    """
    library = library or HrfLibrary()
    if shape is None:
        shape = library.canonical

    steps = round(largest_s / step_s)
    shifts = np.arange(-steps, steps + 1) * step_s
    chosen = np.linspace(0, runs[0].n_voxels - 1, min(runs[0].n_voxels, _VOXELS)).astype(int)
    cuts = -(-_PIECES // len(runs))  # of each run, rounded up
    along = []
    power = []
    total = []
    for run in runs:
        n = len(run)
        basis = nuisance_basis(n, polynomial_degree(run.duration_s))
        series, _ = residuals(np.asarray(run.volumes[:, chosen]), basis)

        # Voxels of equal variance: vessels would outweigh the rest.
        length = np.sqrt(np.einsum("tv,tv->v", series, series))
        series *= np.divide(np.sqrt(n), length, out=np.zeros_like(length), where=length > 0)

        # The on-off regressor of every shift, (n_volumes, n_shifts).
        onset = run.events["onset"].to_numpy(dtype=np.float64)
        duration = run.events["duration"].to_numpy(dtype=np.float64)
        all_onsets = (onset[:, None] + shifts).ravel()
        single = library.designs(all_onsets, np.repeat(duration, len(shifts)), n, run.tr_s)[shape]
        x = single.reshape(n, len(onset), len(shifts)).sum(axis=1)  # (n_volumes, n_shifts)
        x -= basis @ (basis.T @ x)
        x = x.astype(np.float32)

        for piece in np.array_split(np.arange(n), min(cuts, n)):
            along.append(x[piece].T @ series[piece])  # (n_shifts, n_voxels)
            power.append(np.einsum("ts,ts->s", x[piece], x[piece]))
            total.append(float(np.einsum("tv,tv->", series[piece], series[piece])))

    return _judged(shifts, along, np.array(power, dtype=np.float64), np.array(total))


def _judged(shifts: np.ndarray, along: list[np.ndarray], power: np.ndarray, total: np.ndarray) -> OnsetShift:
    """What each shift explains, and how well the shift that all other pieces choose does in the piece left out.

    Parameters
    ----------
    shifts : ndarray of shape (n_shifts,)
        seconds
    along : list of ndarray
        ``x'y`` (n_shifts, n_voxels) of each piece
    power : ndarray of shape (n_pieces, n_shifts)
        ``x'x``
    total : ndarray of shape (n_pieces,)
        ``y'y``, over all voxels
    """
    all_along = np.sum(along, axis=0, dtype=np.float64)
    all_power = power.sum(axis=0)
    filed = int(np.abs(shifts).argmin())
    strengths = []
    gains = []
    choices = []
    for piece, piece_power in zip(along, power, strict=True):
        others = all_along - piece  # (n_shifts, n_voxels)
        others_power = np.maximum(all_power - piece_power, 1e-300)
        explained = np.einsum("sv,sv->s", others, others) / others_power
        best = _peak(shifts, explained)

        # How strongly the other pieces' pattern over voxels is there, moved and as filed.
        moved_strength = _strength(piece[best], others[best], piece_power[best])
        filed_strength = _strength(piece[filed], others[filed], piece_power[filed])
        strengths.append(moved_strength)
        gains.append(moved_strength - filed_strength)
        choices.append(shifts[best])

    r2 = np.einsum("sv,sv->s", all_along, all_along) / np.maximum(all_power, 1e-300) / max(total.sum(), 1e-300)
    scale = np.sqrt(max(total.mean(), 1e-300))

    return OnsetShift(shifts, r2, np.array(strengths) / scale, np.array(gains) / scale, np.array(choices))


def _strength(along: np.ndarray, pattern: np.ndarray, power: float) -> float:
    """Projection of a piece's response (n_voxels,) on a pattern over voxels, in units of its regressor."""
    size = np.linalg.norm(pattern) * np.sqrt(power)
    if size > 0:
        return float(pattern @ along / size)
    return 0.0
