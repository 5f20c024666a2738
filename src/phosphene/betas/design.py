"""Is the design fit for single-trial betas? Timing, collinearity, repeats and lengths of runs, as findings.

All of it is known from events and a few thousand voxels before anything is fitted, which is when a wrong onset or a run that
was cut off is cheap. Nothing here changes a beta.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from phosphene.betas.glm import Factor, nuisance_basis, polynomial_degree
from phosphene.betas.hrf import HrfLibrary
from phosphene.betas.runs import BoldRun
from phosphene.betas.timing import OnsetShift, onset_shift
from phosphene.data.findings import Finding

_TAIL_S = 8.0  # a response has passed its peak by then
_INFLATED = 10.0  # a beta whose variance is ten times that of a trial alone
_BRIEF = 0.7  # a run shorter than this share of the longest may have been cut off


@dataclass(frozen=True, eq=False)
class DesignCheck:
    """What the events of a study allow.

    Attributes
    ----------
    table : DataFrame
        one row per run: session, run, n_volumes, duration_s, n_trials, first_s, tail_s (after the last onset), soa_s
        (median time between onsets), rank (dimensions the trials span), inflation (median over trials of the variance
        of a beta in one model of all trials, over its variance alone)
    repeats : dict of int to int
        how many stimuli were shown 1, 2, 3 ... times: {times: stimuli}
    across_runs : int
        stimuli shown in more than one run
    shift : OnsetShift
        what moving the onsets of the files does
    moved_s : float
        by how much they were moved for all else here
    """

    table: pd.DataFrame
    repeats: dict[int, int]
    across_runs: int
    shift: OnsetShift
    moved_s: float = 0.0

    @property
    def findings(self) -> list[Finding]:
        """What to know, each with a level."""
        return [self._timing(), self._collinearity(), self._repeats(), self._lengths(), self._ends()]

    def _timing(self) -> Finding:
        """Whether onsets, as filed or as moved, are those of the responses."""
        if not self.moved_s and self.shift.is_suspect:
            return Finding("problem", "onsets", f"{self.shift}.", "Late or early onsets spoil every beta.")
        if not self.moved_s:
            return Finding("ok", "onsets", f"{self.shift}.", "")

        r2 = float(np.interp(self.moved_s, self.shift.shifts_s, self.shift.r2))
        text = (
            f"onsets were moved by {self.moved_s:+g} s: as filed they explain {100 * self.shift.r2_as_filed:.1f} % of variance, "
            f"so {100 * r2:.1f} %"
        )

        # Moved already, but to the wrong place, or without need.
        best = self.shift.best_s
        if self.shift.is_suspect and self.shift.r2_moved > 1.25 * r2:
            return Finding("problem", "onsets", f"{text}, but moved by {best:+g} s {100 * self.shift.r2_moved:.1f} %.")
        if not self.shift.is_suspect and r2 < self.shift.r2_as_filed:
            return Finding("problem", "onsets", f"{text}: nothing speaks for moving them.")
        return Finding("note", "onsets", f"{text}.", "Compare with the study's protocol.")

    def _collinearity(self) -> Finding:
        """Whether trials can be told apart, and what their overlap costs in variance."""
        short = np.flatnonzero(self.table["rank"] < self.table["n_trials"])
        middle = float(np.asarray(self.table["inflation"].median()))
        if len(short):
            n_trials = self.table["n_trials"].to_numpy()[short[0]]
            rank = self.table["rank"].to_numpy()[short[0]]
            return Finding(
                "problem",
                "collinearity",
                f"in {len(short)} of {len(self.table)} runs the trials cannot all be told apart: "
                f"{self._run(short[0])} has {n_trials} trials that span {rank} dimensions.",
                "Look for events that come twice or too close together.",
            )

        text = (
            f"responses overlap so that a beta's variance is {middle:.1f} times that of a trial standing alone "
            f"(onsets {self.table['soa_s'].median():.3g} s apart)"
        )

        if middle > _INFLATED:
            return Finding(
                "note", "collinearity", f"{text}.", "Prefer type D, or LSS, over betas of one model (lsa, B, C)."
            )

        return Finding("ok", "collinearity", f"{text}.")

    def _repeats(self) -> Finding:
        """Whether there is anything to cross-validate with."""
        n = sum(self.repeats.values())
        n_repeated = sum(stimuli for times, stimuli in self.repeats.items() if times > 1)
        text = f"{n_repeated} of {n} stimuli were shown more than once, {self.across_runs} of them in several runs"

        if self.across_runs == 0:
            return Finding(
                "problem",
                "repeats",
                f"{text}: neither noise components nor ridge can be chosen by cross-validation, and there is no noise ceiling.",
                "Types C and D fall back to B.",
            )

        if self.across_runs < 10 and n > 30:
            return Finding("note", "repeats", f"{text}: settings are chosen from these few.")
        return Finding("ok", "repeats", f"{text}.")

    def _lengths(self) -> Finding:
        """Whether a run seems to be cut off."""
        lengths = self.table["duration_s"].to_numpy()
        n_runs = len(lengths)
        shortest = float(lengths.min())
        longest = float(lengths.max())

        text = f"{n_runs} runs of {shortest:.0f} to {longest:.0f} s"
        if shortest == longest:
            text = f"{n_runs} runs of {longest:.0f} s"

        if n_runs == 1:
            text = f"1 run of {longest:.0f} s"

        brief = np.flatnonzero(lengths < _BRIEF * longest)
        if len(brief):
            text = f"{text}; {self._run(brief[0])} is much shorter."
            return Finding("note", "run lengths", text, "Was it cut off?")
        return Finding("ok", "run lengths", f"{text}, {self.table['n_trials'].sum()} trials.")

    def _ends(self) -> Finding:
        """Whether the last trials of each run have their whole response in it."""
        tails = self.table["tail_s"].to_numpy()
        n_short = int((tails < _TAIL_S).sum())
        if n_short:
            return Finding(
                "note",
                "ends of runs",
                f"{n_short} of {len(tails)} runs end less than {_TAIL_S:g} s after their last onset: the betas of their "
                "last trials rest on the beginning of the response.",
            )

        return Finding("ok", "ends of runs", f"every run goes on for {tails.min():.1f} s or more after its last onset.")

    def _run(self, row: int) -> str:
        """Name of the run in a row of the table."""
        session = self.table["session"].to_numpy()[row]
        return f"session {session} run {self.table['run'].to_numpy()[row]}"


def design_check(
    runs: Sequence[BoldRun],
    library: HrfLibrary | None = None,
    *,
    shape: int | None = None,
    moved_s: float = 0.0,
    shift: OnsetShift | None = None,
) -> DesignCheck:
    """Look at the events of a study before betas are fitted.

    Parameters
    ----------
    runs : sequence of BoldRun
        of one subject, with the onsets of the files
    library : HrfLibrary, optional
        responses; ours by default
    shape : int, optional
        the one assumed, by its number; by default the one that peaks near 5 s
    moved_s : float, default 0.0
        by how much the onsets are to be moved
    shift : OnsetShift, optional
        where :func:`~phosphene.betas.timing.onset_shift` was asked already

    Returns
    -------
    DesignCheck
        tables and findings
    """
    library = library or HrfLibrary()
    if shape is None:
        shape = library.canonical

    if shift is None:
        shift = onset_shift(runs, library, shape=shape)

    rows = []
    shown_in: dict[str, list[tuple[int, int]]] = {}  # runs of a stimulus, once for each time
    for run in runs:
        rows.append(_row(run, library, shape, moved_s))
        for stimulus in run.events["stimulus"].astype(str):
            shown_in.setdefault(stimulus, []).append((run.session, run.run))

    # How many stimuli were shown how many times.
    n_times = [len(times) for times in shown_in.values()]
    n_repeats, n_stimuli = np.unique(n_times, return_counts=True)
    repeats = dict(zip(n_repeats.tolist(), n_stimuli.tolist(), strict=True))
    across_runs = sum(len(set(times)) > 1 for times in shown_in.values())

    return DesignCheck(pd.DataFrame(rows), repeats, across_runs, shift, moved_s)


def _row(run: BoldRun, library: HrfLibrary, shape: int, moved_s: float) -> dict[str, Any]:
    """What a run's events allow: a row of `DesignCheck.table`."""
    onset = run.events["onset"].to_numpy(dtype=np.float64) + moved_s
    duration = run.events["duration"].to_numpy(dtype=np.float64)
    order = np.sort(onset)

    # The design without drift, and the variance of each trial's beta in it over that of the trial alone.
    basis = nuisance_basis(len(run), polynomial_degree(run.duration_s))
    x = library.designs(onset, duration, len(run), run.tr_s)[shape]  # (n_volumes, n_trials)
    projected = x - basis @ (basis.T @ x)
    factor = Factor.of(projected.T @ projected)
    alone = np.diag(factor.gram)  # (n_trials,); one over the variance of a beta of this trial alone
    inflation = np.diag(factor.inverse) * alone

    soa_s = np.nan
    if len(order) > 1:
        soa_s = float(np.median(np.diff(order)))

    middle = np.nan
    if (alone > 0).any():
        middle = float(np.median(inflation[alone > 0]))

    return {
        "session": run.session,
        "run": run.run,
        "n_volumes": len(run),
        "duration_s": run.duration_s,
        "n_trials": len(onset),
        "first_s": order[0],
        "tail_s": run.duration_s - order[-1],
        "soa_s": soa_s,
        "rank": len(factor.s2),
        "inflation": middle,
    }
