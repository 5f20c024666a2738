"""What kind of numbers the runs hold: with or without their mean, and all in one scale? Asked before anything is fitted.

Scanners give positive numbers whose mean is many times their noise, and percent signal change is a share of that mean. Programs
remove it (demeaned, standardised, filtered series), some for a few runs only, and each may scale a run as it likes. None of that
stops a fit: it gives betas of 1e12 percent, or runs whose betas are in different units, so it is asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phosphene.betas.glm import nuisance_basis, polynomial_degree, residuals
from phosphene.betas.runs import BoldRun
from phosphene.errors import DataError, PhospheneWarning

LARGEST = 1e15
"""No scanner gives numbers beyond this, and their squares do not fit into float32."""

LEAST_MEAN = 1.0
"""Means below so many standard deviations are no measure of a voxel's signal. Noise of a magnitude image has 1.91 (Rayleigh)."""

_SAMPLE = 5000  # voxels, enough to tell
_BLOCK = 4096
_ROUNDING = 1e-6  # of the mean: a series that varies less does not vary
_MEAN_OF_BRAIN = 4.0  # standard deviations; a brain has 8 or more even below a millimetre at 7 T
_BRAIN = 95.0  # percentile that lies within the brain, however much air a mask holds
_DARK = 0.1  # of the largest means: ringing of interpolation goes no further below 0
_MANY = 0.1  # of the voxels
_OTHER_SCALE = 1.5  # means of runs differ by less between sessions of one scanner
_OTHER_SPREAD = 5.0  # even a restless run does not vary so much more than a quiet one


@dataclass(frozen=True, eq=False)
class SignalLevels:
    """What kind of numbers the runs hold.

    Attributes
    ----------
    has_mean : bool
        whether the mean of a voxel is its signal, so that a percentage of it can be taken
    scales : tuple of float
        of each run, by what its volumes are to be multiplied so that all are in one scale; 1 where nothing is to be done
    """

    has_mean: bool
    scales: tuple[float, ...]

    @property
    def are_scaled(self) -> bool:
        """Whether runs were in different scales."""
        return any(scale != 1 for scale in self.scales)


def varies(spread: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Whether series vary by more than rounding.

    Parameters
    ----------
    spread : ndarray
        standard deviation, in any units
    mean : ndarray
        mean, in the same units and of the same shape

    Returns
    -------
    ndarray of bool
        of that shape
    """
    return spread > _ROUNDING * np.abs(mean)


def signal_levels(runs: Sequence[BoldRun], *, percent: bool) -> SignalLevels:
    """Look at some thousand voxels of every run.

    Parameters
    ----------
    runs : sequence of BoldRun
        of one subject, with the same voxels
    percent : bool
        whether percent of the mean are asked for; else the units of the file

    Returns
    -------
    SignalLevels
        whether there is a mean, and by what runs are to be multiplied

    Raises
    ------
    DataError
        For a run that never changes, and, where percent are asked for, for runs with and runs without their mean.

    Warns
    -----
    PhospheneWarning
        no mean where percent are asked for; runs in different scales
    """
    n_voxels = runs[0].n_voxels
    chosen = np.unique(np.linspace(0, n_voxels - 1, min(n_voxels, _SAMPLE)).astype(int))
    levels = [_levels(run, chosen) for run in runs]
    mean = np.stack([mean_of_run for mean_of_run, _ in levels])  # (n_runs, n_chosen)
    spread = np.stack([spread_of_run for _, spread_of_run in levels])  # (n_runs, n_chosen)

    with_mean = []
    without_mean = []
    for run, run_mean, run_spread in zip(runs, mean, spread, strict=True):
        usable = varies(run_spread, run_mean)  # not where either is NaN
        if not usable.any():
            _refuse_if_constant(run)
        elif _is_signal(run_mean[usable], run_spread[usable]):
            with_mean.append(run.name)
        else:
            without_mean.append(run.name)

    if percent and with_mean and without_mean:
        raise DataError(
            f"{_named(without_mean)} without a mean (it was removed, or the series were standardised), but {_named(with_mean)} "
            "with it, so their betas would be in different units. Give all runs with their mean, or all without; where nothing "
            "but the mean was removed, take the units of the file: --set percent=false (in Python percent=False)."
        )

    has_mean = not without_mean
    if percent and not has_mean:
        warnings.warn(
            "the signals have no mean (it was removed, or they were standardised), so no percentage of it can be taken: "
            "betas are in the units of the file. Give data with their mean for percent signal change.",
            PhospheneWarning,
            stacklevel=3,
        )

    scales = np.ones(len(runs))
    if percent and has_mean:
        scales = _scales(runs, mean, spread)

    _warn_of_spread(runs, mean * scales[:, None], spread * scales[:, None])
    return SignalLevels(has_mean, tuple(float(scale) for scale in scales))


def _levels(run: BoldRun, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation without drift of some voxels, each (n_chosen,) float64; NaN where a value is no signal."""
    volumes = np.asarray(run.volumes[:, chosen])  # (n_volumes, n_chosen)
    is_sound = np.ones(len(chosen), dtype=bool)
    if volumes.dtype.kind == "f":
        is_sound = largest(volumes) <= LARGEST  # not where it is NaN

    basis = nuisance_basis(len(run), polynomial_degree(run.duration_s))
    series, mean_of_sound = residuals(volumes[:, is_sound], basis)
    power = np.einsum("tv,tv->v", series, series, dtype=np.float64)  # (n_sound,)

    mean = np.full(len(chosen), np.nan)
    spread = np.full(len(chosen), np.nan)
    mean[is_sound] = mean_of_sound
    spread[is_sound] = np.sqrt(power / len(run))

    return mean, spread


def largest(volumes: np.ndarray) -> np.ndarray:
    """Largest absolute value of each voxel, NaN where one is NaN.

    Parameters
    ----------
    volumes : ndarray of shape (n_volumes, n_voxels)
        of floating point

    Returns
    -------
    ndarray of shape (n_voxels,)
        in the units of the volumes
    """
    return np.maximum(volumes.max(axis=0), -volumes.min(axis=0))


def _is_signal(mean: np.ndarray, spread: np.ndarray) -> bool:
    """Whether means (n_voxels,) are as scanners give them: far above the noise for the bright voxels, and nowhere far below 0."""
    is_bright = np.percentile(np.abs(mean) / spread, _BRAIN) >= _MEAN_OF_BRAIN
    is_dark = mean < -_DARK * np.percentile(np.abs(mean), 99)  # (n_voxels,): the mean of the image was removed
    return bool(is_bright and is_dark.mean() <= _MANY)


def _refuse_if_constant(run: BoldRun) -> None:
    """Refuse a run of which no voxel at all changes; the sample may have missed those that do."""
    for start in range(0, run.n_voxels, _BLOCK):
        volumes = np.asarray(run.volumes[:, start : start + _BLOCK])
        if (volumes != volumes[:1]).any():  # NaN differs from itself, and is named where it is met
            return

    raise DataError(
        f"no voxel of {run.name} changes from volume to volume, so the run holds no signal. Leave it out, or copy it again."
    )


def _scales(runs: Sequence[BoldRun], mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """By what runs (n_runs,) are to be multiplied so that their means (n_runs, n_chosen) are alike; 1 where they are."""
    stands_out = np.all(mean > LEAST_MEAN * spread, axis=0)  # (n_chosen,), in every run
    levels = _relative(mean, np.asarray(stands_out))
    highest = int(levels.argmax())
    lowest = int(levels.argmin())
    ratio = levels[highest] / levels[lowest]
    if ratio <= _OTHER_SCALE:
        return np.ones(len(runs))

    warnings.warn(
        f"the mean signal of {runs[highest].name} is {ratio:.3g} times that of {runs[lowest].name}, so runs were scaled "
        "differently: all were brought to one scale, and betas are percent of it.",
        PhospheneWarning,
        stacklevel=4,
    )
    return 1 / levels


def _warn_of_spread(runs: Sequence[BoldRun], mean: np.ndarray, spread: np.ndarray) -> None:
    """Warn of runs that vary so much more than others that they seem to be in other units."""
    in_every_run = np.all(varies(spread, mean), axis=0)  # (n_chosen,)
    levels = _relative(spread, np.asarray(in_every_run))
    highest = int(levels.argmax())
    lowest = int(levels.argmin())
    ratio = levels[highest] / levels[lowest]
    if ratio > _OTHER_SPREAD:
        warnings.warn(
            f"{runs[highest].name} varies {ratio:.3g} times as much as {runs[lowest].name}: if their series were scaled or "
            "standardised differently, their betas cannot be compared. Prepare all runs alike.",
            PhospheneWarning,
            stacklevel=4,
        )


def _relative(values: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """(n_runs,) of values (n_runs, n_voxels), beside those of the middle run at the same voxels; 1 where none is usable."""
    if not usable.any():
        return np.ones(len(values))

    chosen = values[:, usable]
    return np.median(chosen / np.median(chosen, axis=0), axis=1)


def _named(names: Sequence[str]) -> str:
    """One run, or some with their number, as the beginning of a sentence."""
    if len(names) == 1:
        return f"{names[0]} is"

    return f"{len(names)} runs, such as {names[0]}, are"
