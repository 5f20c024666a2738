"""Are the onsets of the files early or late? Asked without knowing what was shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phosphene.betas.glm import nuisance_basis, polynomial_degree, residuals
from phosphene.betas.hrf import HrfLibrary
from phosphene.betas.runs import BoldRun

_GAIN = 1.25  # a true shift explains much more; a response of another shape hardly
_LEAST_S = 1.5  # people's responses differ by as much
_VOXELS = 5000  # enough to tell


@dataclass(frozen=True, eq=False)
class OnsetShift:
    """What moving all onsets does to the variance that "something is shown" explains.

    Attributes
    ----------
    shifts_s : (n,) seconds added to every onset
    r2 : (n,) share of variance, 0-1, pooled over runs and voxels
    """

    shifts_s: np.ndarray
    r2: np.ndarray

    @property
    def best_s(self) -> float:
        """The shift that explains most."""
        return float(self.shifts_s[self.r2.argmax()])

    @property
    def r2_as_filed(self) -> float:
        """Share of variance with the onsets as they are."""
        return float(self.r2[np.abs(self.shifts_s).argmin()])

    @property
    def is_suspect(self) -> bool:
        """Whether the files' onsets explain much less than moved ones."""
        return abs(self.best_s) >= _LEAST_S and self.r2.max() > _GAIN * self.r2_as_filed

    def __str__(self) -> str:
        text = f"onsets as filed explain {100 * self.r2_as_filed:.1f} % of variance"
        if not self.is_suspect:
            return f"{text}, moved ones at most {100 * self.r2.max():.1f} %"
        return (
            f"{text}, but moved by {self.best_s:+.2f} s they explain {100 * self.r2.max():.1f} %: they may be "
            f"{'late' if self.best_s < 0 else 'early'}. Set onset_shift_s={self.best_s:g} if the study's timing agrees"
        )


def onset_shift(
    runs: Sequence[BoldRun],
    library: HrfLibrary | None = None,
    *,
    shape: int | None = None,
    largest_s: float = 10.0,
    step_s: float = 0.25,
) -> OnsetShift:
    """Move all onsets together and see when one regressor for all trials explains most.

    Parameters
    ----------
    runs : of one subject
    library, shape : the response assumed; ours, and the one that peaks near 5 s, by default
    largest_s, step_s : shifts tried, both ways

    Returns
    -------
    :class:`OnsetShift`
    """
    library = library or HrfLibrary()
    shape = library.canonical if shape is None else shape
    steps = round(largest_s / step_s)
    shifts = np.arange(-steps, steps + 1) * step_s
    along = np.zeros((len(shifts), min(runs[0].n_voxels, _VOXELS)))
    power, total = np.zeros(len(shifts)), np.zeros(along.shape[1])
    chosen = np.linspace(0, runs[0].n_voxels - 1, along.shape[1]).astype(int)
    for run in runs:
        n = len(run)
        basis = nuisance_basis(n, polynomial_degree(run.duration_s))
        series, _ = residuals(np.asarray(run.volumes[:, chosen]), basis)
        onset, duration = (run.events[c].to_numpy(dtype=np.float64) for c in ("onset", "duration"))
        all_onsets = (onset[:, None] + shifts).ravel()
        single = library.designs(all_onsets, np.repeat(duration, len(shifts)), n, run.tr_s)[shape]
        x = single.reshape(n, len(onset), len(shifts)).sum(axis=1)
        x -= basis @ (basis.T @ x)
        along += x.T @ series
        power += np.einsum("ts,ts->s", x, x)
        total += np.einsum("tv,tv->v", series, series)
    explained = (along**2).sum(axis=1) / np.maximum(power, 1e-300)
    return OnsetShift(shifts, explained / max(total.sum(), 1e-300))
