"""One run of BOLD with its events, and what must be true of it before betas are fitted.

Most of what goes wrong with events gives betas all the same: onsets in milliseconds, the events file of another run, two trials
at one time. So a run refuses what no study means, and says which event of which run it was.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from phosphene.errors import DataError, PhospheneWarning

_TAIL_S = 8.0  # a response has passed its peak by then


@dataclass(frozen=True, eq=False)
class BoldRun:
    """One run.

    Parameters
    ----------
    volumes : ndarray of shape (n_volumes, n_voxels)
        any real dtype, array or memory map, arbitrary units with the mean kept; volume t was taken at ``t * tr_s``
    tr_s : float
        seconds between volumes
    events : DataFrame
        one row per trial: ``onset`` and ``duration`` in seconds, ``stimulus`` (the same name is the same stimulus);
        other columns are carried along
    session, run : int, default 1
        numbers; a session's runs share their mean and standard deviation of betas when settings are chosen
    confounds : ndarray, optional
        (n_volumes, n) to be projected out, or None
    name : str, default ""
        for messages
    fold : int, optional
        of cross-validation; None for a fold of its own
    """

    volumes: np.ndarray
    tr_s: float
    events: pd.DataFrame
    session: int = 1
    run: int = 1
    confounds: np.ndarray | None = None
    name: str = ""
    fold: int | None = None

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", f"session {self.session} run {self.run}")

        if np.ndim(self.volumes) != 2:
            raise DataError(f"volumes of {self.name} must be (volumes, voxels); got shape {np.shape(self.volumes)}.")

        _check_tr(self)
        _check_events(self)
        _check_confounds(self)

    def __len__(self) -> int:
        return len(self.volumes)

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return self.volumes.shape[1]

    @property
    def duration_s(self) -> float:
        """Length of the run."""
        return len(self) * self.tr_s


def _check_tr(run: BoldRun) -> None:
    """Refuse a time between volumes that is none, or is said in milliseconds."""
    if not (np.isfinite(run.tr_s) and run.tr_s > 0):
        raise DataError(
            f"{run.name} needs the time between volumes in seconds; got {run.tr_s}. Is it in the image's header?"
        )

    if run.tr_s > 20:  # nobody scans this slowly
        raise DataError(
            f"the time between volumes of {run.name} is {run.tr_s:g}, which is in milliseconds, not seconds: "
            f"say {run.tr_s / 1000:g}."
        )


def _check_confounds(run: BoldRun) -> None:
    """Refuse confounds of another length or with holes, such as the first row of a derivative."""
    if run.confounds is None:
        return

    n_rows = len(run.confounds)
    fault = ""
    if n_rows == len(run):
        if np.isfinite(np.asarray(run.confounds, dtype=float)).all():
            return
        fault = ", some not finite"

    raise DataError(
        f"confounds of {run.name} must be finite, one row per volume ({len(run)}); got {n_rows} rows{fault}. Fill the first "
        "row of a derivative with 0."
    )


def _check_events(run: BoldRun) -> None:
    """Refuse events without the needed columns, outside of the run, or two at once."""
    for column in ("onset", "duration", "stimulus"):
        if column not in run.events:
            raise DataError(
                f"events of {run.name} need a column '{column}'; they have {', '.join(map(str, run.events.columns))}."
            )

    if len(run.events) == 0:
        raise DataError(f"{run.name} has no events. Leave the run out, or find its events file.")

    timing = run.events[["onset", "duration"]].to_numpy(dtype=np.float64)
    if not np.isfinite(timing).all() or (timing[:, 1] < 0).any():
        row = int(np.flatnonzero(~np.isfinite(timing).all(axis=1) | (timing[:, 1] < 0))[0])
        raise DataError(
            f"event {row} of {run.name} has onset {timing[row, 0]} and duration {timing[row, 1]}; both are seconds."
        )

    onset = timing[:, 0]
    late = np.flatnonzero(onset >= run.duration_s)
    if len(late):
        raise DataError(
            f"event {late[0]} of {run.name} starts at {onset[late[0]]:g} s, but the run of {len(run)} volumes ends at "
            f"{run.duration_s:g} s{f' ({len(late)} such events)' if len(late) > 1 else ''}. Events of another run, onsets in "
            "volumes or milliseconds, or a run cut short?"
        )

    # Two trials at once have the same regressor; pseudo-inverse would share the response between them silently.
    order = np.argsort(onset, kind="stable")
    same = np.flatnonzero(np.diff(onset[order]) < 1e-6)
    if len(same):
        first = order[same[0]]
        second = order[same[0] + 1]
        names = run.events["stimulus"].to_numpy()
        raise DataError(
            f"events {first} ('{names[first]}') and {second} ('{names[second]}') of {run.name} both start at "
            f"{onset[first]:g} s, so their responses cannot be told apart. Keep one, or merge them into one stimulus."
        )


def check_study(runs: Sequence[BoldRun], *, shift_s: float = 0.0) -> None:
    """Refuse runs that do not belong together; warn of what makes betas poor.

    Parameters
    ----------
    runs : sequence of BoldRun
        of one subject
    shift_s : float, default 0.0
        by how much the onsets will be moved

    Raises
    ------
    DataError
        For no run, other numbers of voxels, or two runs of the same number.
    """
    if len(runs) == 0:
        raise DataError("betas need at least one run; none was given.")

    for run in runs:
        if run.n_voxels != runs[0].n_voxels:
            raise DataError(
                f"{runs[0].name} has {runs[0].n_voxels} voxels, but {run.name} has {run.n_voxels}; use the same mask for all."
            )

    keys = [(run.session, run.run) for run in runs]
    if len(set(keys)) < len(keys):
        session, number = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"session {session} run {number} came twice; give every run a number of its own.")

    short = []
    for run in runs:
        last_onset = float(run.events["onset"].to_numpy(dtype=np.float64).max()) + shift_s
        if run.duration_s - last_onset < _TAIL_S:
            short.append(run.name)

    if short:
        others = ""
        if len(short) > 1:
            others = f" and {len(short) - 1} others"

        warnings.warn(
            f"{short[0]}{others} end less than {_TAIL_S:g} s after the last onset: the betas of the last trials rest on the "
            "beginning of their responses.",
            PhospheneWarning,
            stacklevel=3,
        )
