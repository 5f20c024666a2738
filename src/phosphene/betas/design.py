"""Is the design fit for single-trial betas? Timing, collinearity, repeats, lengths of runs; said in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from phosphene.betas.glm import Factor, nuisance_basis, polynomial_degree
from phosphene.betas.hrf import HrfLibrary
from phosphene.betas.runs import BoldRun
from phosphene.betas.timing import OnsetShift, onset_shift
from phosphene.data.findings import Finding

_TAIL_S = 8.0
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
    repeats : dict of {int: int}
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
        if not self.moved_s:
            if self.shift.is_suspect:
                level = "problem"
            else:
                level = "ok"

            return Finding(
                level, "onsets", f"{self.shift}.", "Late or early onsets spoil every beta." if level != "ok" else ""
            )

        now = float(np.interp(self.moved_s, self.shift.shifts_s, self.shift.r2))
        text = (
            f"onsets were moved by {self.moved_s:+g} s: as filed they explain {100 * self.shift.r2_as_filed:.1f} % of variance, "
            f"so {100 * now:.1f} %"
        )

        best = self.shift.best_s
        if self.shift.is_suspect and self.shift.r2_moved > 1.25 * now:
            return Finding("problem", "onsets", f"{text}, but moved by {best:+g} s {100 * self.shift.r2_moved:.1f} %.")
        if not self.shift.is_suspect and now < self.shift.r2_as_filed:
            return Finding("problem", "onsets", f"{text}: nothing speaks for moving them.")

        return Finding("note", "onsets", f"{text}.", "Compare with the study's protocol.")

    def _collinearity(self) -> Finding:
        short = self.table[self.table["rank"] < self.table["n_trials"]]
        middle = float(self.table["inflation"].median())
        if len(short):
            return Finding(
                "problem", "collinearity", f"in {len(short)} of {len(self.table)} runs the trials cannot all be told apart: "
                f"session {short['session'].iloc[0]} run {short['run'].iloc[0]} has {short['n_trials'].iloc[0]} trials that span "
                f"{short['rank'].iloc[0]} dimensions.", "Look for events that come twice or too close together.",
            )  # fmt: skip

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
        n = sum(self.repeats.values())
        again = sum(v for k, v in self.repeats.items() if k > 1)
        text = f"{again} of {n} stimuli were shown more than once, {self.across_runs} of them in several runs"

        if self.across_runs == 0:
            return Finding(
                "problem", "repeats", f"{text}: neither noise components nor ridge can be chosen by cross-validation, and there "
                "is no noise ceiling.", "Types C and D fall back to B.",
            )  # fmt: skip

        if self.across_runs < 10 and n > 30:
            return Finding("note", "repeats", f"{text}: settings are chosen from these few.")

        return Finding("ok", "repeats", f"{text}.")

    def _lengths(self) -> Finding:
        lengths = self.table["duration_s"]
        text = f"{len(lengths)} runs of {lengths.min():.0f} to {lengths.max():.0f} s"
        if lengths.min() == lengths.max():
            text = f"{len(lengths)} run{'s' if len(lengths) > 1 else ''} of {lengths.max():.0f} s"

        brief = self.table[lengths < _BRIEF * lengths.max()]
        if len(brief):
            which = f"session {brief['session'].iloc[0]} run {brief['run'].iloc[0]}"
            return Finding("note", "run lengths", f"{text}; {which} is much shorter.", "Was it cut off?")

        return Finding("ok", "run lengths", f"{text}, {self.table['n_trials'].sum()} trials.")

    def _ends(self) -> Finding:
        short = self.table[self.table["tail_s"] < _TAIL_S]
        if len(short):
            return Finding(
                "note", "ends of runs", f"{len(short)} of {len(self.table)} runs end less than {_TAIL_S:g} s after their last "
                "onset: the betas of their last trials rest on the beginning of the response.",
            )  # fmt: skip

        least = self.table["tail_s"].min()
        return Finding("ok", "ends of runs", f"every run goes on for {least:.1f} s or more after its last onset.")


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
        the response assumed
    shape : int, optional
        the response assumed
    moved_s : float, default 0.0
        by how much the onsets are to be moved
    shift : OnsetShift, optional
        where :func:`~phosphene.betas.timing.onset_shift` was asked already

    Returns
    -------
    DesignCheck
    """
    library = library or HrfLibrary()
    shape = library.canonical if shape is None else shape
    rows = []
    where = {}

    for run in runs:
        onset, duration = (run.events[c].to_numpy(dtype=np.float64) for c in ("onset", "duration"))
        onset = onset + moved_s
        order = np.sort(onset)
        basis = nuisance_basis(len(run), polynomial_degree(run.duration_s))
        x = library.designs(onset, duration, len(run), run.tr_s)[shape]
        raw = x - basis @ (basis.T @ x)
        factor = Factor.of(raw.T @ raw)
        alone = np.diag(factor.gram)
        inflation = np.diag(factor.inverse) * alone
        rows.append(
            {
                "session": run.session, "run": run.run, "n_volumes": len(run), "duration_s": run.duration_s,
                "n_trials": len(onset), "first_s": order[0], "tail_s": run.duration_s - order[-1],
                "soa_s": float(np.median(np.diff(order))) if len(order) > 1 else np.nan,
                "rank": len(factor.s2), "inflation": float(np.median(inflation[alone > 0])) if (alone > 0).any() else np.nan,
            }
        )  # fmt: skip

        for stimulus in run.events["stimulus"].astype(str):
            where.setdefault(stimulus, []).append((run.session, run.run))

    times = pd.Series([len(w) for w in where.values()]).value_counts().sort_index()
    return DesignCheck(
        pd.DataFrame(rows),
        {int(k): int(v) for k, v in times.items()},
        sum(len(set(w)) > 1 for w in where.values()),
        onset_shift(runs, library, shape=shape) if shift is None else shift,
        moved_s,
    )
