"""Numbers that must not reach a fit: NaN, spikes, dead voxels, wrong scale. Found, named, and dropped on request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np

from phosphene.data.findings import Finding
from phosphene.data.standardise import row_blocks
from phosphene.data.value_ranges import SPIKE, Quality, check_type, measure
from phosphene.errors import ConfigError, DataError, ModelError, did_you_mean
from phosphene.io.stages import take
from phosphene.types import Trials
from phosphene.types.identity import few

_MOST_LISTED = 8  # voxels and trials named in one message

Policy = Literal["error", "drop", "impute"]
_POLICIES = ("error", "drop", "impute")


def check_trials(trials: Trials, *, train: Trials | None = None) -> list[Finding]:
    """Everything about one subject's betas that a person should know before fitting.

    Parameters
    ----------
    trials : Trials
        of one subject
    train : Trials, optional
        the training trials among them, to find voxels that are constant there

    Returns
    -------
    list of Finding
        what is wrong or worth knowing, each with a next step; one that says so where all is well
    """
    try:
        q = measure(trials)  # one pass over the betas; everything below reads its counts
    except DataError as error:
        return [Finding("problem", "betas", str(error))]

    who = trials.subject
    out = []
    if q.bad_trials.size:
        first = int(q.bad_trials[0])
        out.append(
            Finding(
                "problem",
                "trials without values",
                f"{q.bad_trials.size} of {len(trials)} trials of {who} have no finite value, first "
                f"'{trials.table['trial'].iloc[first]}' (row {first}).",
                "Leave them out, or fit with --set data.nan=drop, which does and says so.",
            )
        )

    for name, counts in (("NaN", q.n_nan), ("infinite values", q.n_inf), ("spikes", q.n_spike)):
        voxels = np.flatnonzero(counts)
        if voxels.size:
            more = ""
            if name == "spikes":
                more = f" beyond {SPIKE:g} times the typical magnitude {q.typical:.3g}"

            out.append(
                Finding(
                    "problem",
                    name,
                    f"{int(counts.sum())} {name}{more} in {voxels.size} of {trials.n_voxels} voxels of {who}: "
                    f"{few(voxels, _MOST_LISTED)}.",
                    "Fit with --set data.nan=drop to leave these voxels out, or data.nan=impute to use their training mean.",
                )
            )

    if not out:
        out.append(Finding("ok", "finite", f"all {len(trials)} x {trials.n_voxels} betas of {who} are finite."))

    out += _constant_findings(trials, q, train)
    out += _scale_findings(trials, q)
    if len(trials) == trials.n_voxels:
        out.append(
            Finding(
                "note",
                "square betas",
                f"{who} has as many trials as voxels ({len(trials)}), so a transposed matrix cannot be told.",
                "Make sure that rows are trials.",
            )
        )

    return out


def _constant_findings(trials: Trials, q: Quality, train: Trials | None) -> list[Finding]:
    """Voxels that never change: everywhere, or in the training trials alone."""
    who = trials.subject
    constant = q.constant_voxels
    if constant.size == trials.n_voxels:
        return [Finding("problem", "constant voxels", f"no voxel of {who} ever changes.", "Check what the file holds.")]
    out = []
    if constant.size:
        out.append(
            Finding(
                "note",
                "constant voxels",
                f"{constant.size} of {trials.n_voxels} voxels of {who} never change: {few(constant, _MOST_LISTED)}.",
                "They are divided by 1 when standardising and carry nothing; a tighter mask would leave them out.",
            )
        )

    if train is not None:
        only = np.setdiff1d(measure(train).constant_voxels, constant)
        if only.size:
            out.append(
                Finding(
                    "note",
                    "constant in training",
                    f"{only.size} voxels of {who} change in the test trials only: {few(only, _MOST_LISTED)}.",
                    "They are divided by 1 when standardising and get no weight.",
                )
            )

    return out


def _scale_findings(trials: Trials, q: Quality) -> list[Finding]:
    """What the typical sizes say: whole numbers of NSD that were not scaled, or a raw scan in place of betas."""
    who = trials.subject
    out = []
    if np.isfinite(q.sd).any():
        sd = float(np.nanmedian(q.sd))
    else:
        sd = 0.0

    if np.isfinite(q.mean).any():
        offset = float(np.nanmedian(np.abs(q.mean)))
    else:
        offset = 0.0

    if np.isfinite(q.low).any():
        top = float(np.nanmax(np.maximum(np.abs(q.low), np.abs(q.high))))
    else:
        top = 0.0

    # Percent signal change has an sd of a few; NSD's files hold 300 times as much, scattered around zero all the same.
    if sd > 30 and offset < 5 * sd:
        if q.is_whole:
            whole = "whole numbers up to"
        else:
            whole = "values up to"

        out.append(
            Finding(
                "note",
                "scale",
                f"{whole} {top:.0f} (median sd {sd:.0f}) in {who} look like NSD's int16 betas, percent signal "
                "change x 300.",
                "Set scale=1/300 (0.0033333) when reading, so that units are percent signal change.",
            )
        )
    # A raw scan lies around thousands and changes by a few percent of them.
    elif offset > 10 * sd > 0:
        out.append(
            Finding(
                "note",
                "scale",
                f"voxels of {who} lie around {offset:.3g} with an sd of {sd:.3g}: raw scanner intensities, not betas?",
                "Betas scatter around zero; estimate them first with 'phosphene betas'.",
            )
        )

    return out


class Screen:
    """Which voxels and trials may be used, decided on training trials and applied to any.

    Parameters
    ----------
    nan : {"error", "drop", "impute"}, default "error"
        what to do with NaN, infinite values and spikes

        - "error": say where they are
        - "drop": leave such voxels out, and trials without any value; test trials must be finite in the rest
        - "impute": put each voxel's mean over good training values in their place; trials without any value
          are left out

    Attributes
    ----------
    keep_ : ndarray of shape (n_kept,), int, or None
        positions of the voxels used
    fill_ : ndarray of shape (n_kept,)
        float32, training mean of each
    typical_ : float
        typical magnitude of training, from which spikes are told

    Examples
    --------
    >>> import pandas as pd
    >>> x = np.array([[1.0, np.nan, 3.0], [2.0, 5.0, 4.0]])
    >>> t = Trials(x, pd.DataFrame({"stimulus": ["a", "b"]}))
    >>> Screen("drop").fit(t).apply(t).betas
    array([[1., 3.],
           [2., 4.]], dtype=float32)
    """

    def __init__(self, nan: Policy = "error") -> None:
        if nan not in _POLICIES:
            raise ConfigError(f"nan='{nan}' is unknown. {did_you_mean(nan, _POLICIES)}")
        self.nan = nan
        self.keep_: np.ndarray | None = None

    def fit(self, trials: Trials) -> Self:
        """Decide on training trials.

        Parameters
        ----------
        trials : Trials
            training trials only: what is bad in test trials must not decide which voxels are used

        Returns
        -------
        Screen
            this one, fitted

        Raises
        ------
        DataError
            With nan="error" and any bad value (the voxels and the first trial are named), no trial or no voxel left,
            or no voxel that changes.
        """
        q = measure(trials)
        self._refuse(trials, q)
        if q.bad_trials.size == len(trials):
            raise DataError(f"none of the {len(trials)} trials of {trials.subject} has a finite value; check the file.")

        bad = q.bad_voxels
        usable = np.isfinite(q.mean)
        if self.nan == "drop":
            keep = np.setdiff1d(np.flatnonzero(usable), bad)
        else:
            keep = np.flatnonzero(usable)

        if keep.size == 0:
            raise DataError(
                f"every one of the {trials.n_voxels} voxels of {trials.subject} has a NaN, infinite value or spike in some "
                "trial, so dropping them leaves nothing. Find the trials that carry them, or use nan=impute."
            )
        if (q.low[keep] == q.high[keep]).all():
            raise DataError(
                f"none of the {keep.size} usable voxels of {trials.subject} changes over {len(trials)} training trials, "
                "so there is nothing to decode. Check that the file holds betas, one row a trial."
            )

        self.n_voxels_ = trials.n_voxels
        self.keep_ = keep
        self.fill_ = q.mean[keep].astype(np.float32)
        self.typical_ = q.typical

        return self

    def apply(self, trials: Trials) -> Trials:
        """The trials and voxels that may be used, with what was done in their provenance.

        Parameters
        ----------
        trials : Trials
            of the voxels it was fitted on

        Returns
        -------
        Trials
            a view unless values had to be put in place of bad ones

        Raises
        ------
        DataError
            Another number of voxels, or bad values where the policy allows none.
        """
        if self.keep_ is None:
            raise ModelError("this Screen is not fitted yet; call fit with training trials first.")
        if trials.n_voxels != self.n_voxels_:
            raise DataError(
                f"these betas have {trials.n_voxels} voxels (subject {trials.subject}) but the screening was fitted on "
                f"{self.n_voxels_}; use the same ROI mask."
            )

        check_type(trials)
        if self.typical_:  # of training: a test set must not say what a spike is
            limit = SPIKE * self.typical_
        else:
            limit = np.inf

        kept = trials
        if self.keep_.size < trials.n_voxels:
            kept = trials.take_voxels(self.keep_, "screening")

        dead, bad = self._where_bad(kept, limit)
        if (dead.any() and self.nan == "error") or (bad and self.nan != "impute"):
            self._refuse(kept, measure(kept), force=True)

        notes = {}
        if self.keep_.size < trials.n_voxels:
            notes["dropped voxels"] = few(np.setdiff1d(np.arange(trials.n_voxels), self.keep_), _MOST_LISTED)

        if dead.any():
            notes["dropped trials"] = ", ".join(map(str, trials.table["trial"][dead][:_MOST_LISTED]))
            kept = kept.take(~dead)
            if not len(kept):
                raise DataError(f"none of the {len(trials)} trials of {trials.subject} has a finite value.")

        if bad:
            betas = kept.betas.copy()
            is_bad = ~np.isfinite(betas) | (np.abs(np.nan_to_num(betas)) > limit)  # (n_trials, n_kept)
            betas[is_bad] = np.broadcast_to(self.fill_, betas.shape)[is_bad]
            return kept.with_betas(betas, imputed=f"{int(is_bad.sum())} values by training means", **notes)

        if notes:
            return replace(kept, provenance={**kept.provenance, **notes})
        return kept

    def _where_bad(self, trials: Trials, limit: float) -> tuple[np.ndarray, int]:
        """Trials without any finite value, and the number of bad values in the others."""
        dead = np.zeros(len(trials), bool)
        bad = 0

        for rows, block in row_blocks(trials):
            finite = np.isfinite(block)
            dead[rows] = ~finite.any(axis=1)
            good = finite & (np.abs(np.where(finite, block, 0)) <= limit)
            bad += int((~good[~dead[rows]]).sum())

        return dead, bad

    def _refuse(self, trials: Trials, q: Quality, force: bool = False) -> None:
        if (self.nan != "error" and not force) or not (q.bad_trials.size or q.bad_voxels.size):
            return
        parts = []
        if q.bad_trials.size:
            first = int(q.bad_trials[0])
            parts.append(
                f"{q.bad_trials.size} trials have no finite value, first '{trials.table['trial'].iloc[first]}' "
                f"(row {first})"
            )

        for name, counts in (("NaN", q.n_nan), ("an infinite value", q.n_inf), ("a spike", q.n_spike)):
            voxels = np.flatnonzero(counts)
            if voxels.size:
                parts.append(f"{voxels.size} of {trials.n_voxels} voxels have {name}: {few(voxels, _MOST_LISTED)}")

        if q.first_bad is not None:
            voxel, row = q.first_bad
            parts.append(f"the first is voxel {voxel} in trial '{trials.table['trial'].iloc[row]}' (row {row})")

        raise DataError(
            f"betas of {trials.subject}: {'; '.join(parts)}. Mend the file, or fit with --set data.nan=drop to leave "
            "them out, or data.nan=impute to put training means in their place; either is recorded."
        )

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays by name, and plain values beside them, from which `from_state` makes it again."""
        if self.keep_ is None:
            raise ModelError("this Screen is not fitted yet; call fit before saving it.")
        meta = {"nan": self.nan, "n_voxels": self.n_voxels_, "typical": self.typical_}
        return {"keep": self.keep_.astype(np.int64), "fill": self.fill_}, meta

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """The same screening again. Raises ModelError for missing or extra entries.

        Parameters
        ----------
        tensors : dict[str, ndarray]
            from `state`
        meta : dict[str, Any]
            from `state`
        """
        out = cls(meta["nan"])
        out.keep_, out.fill_ = take(tensors, ("keep", "fill"), "screening")
        out.n_voxels_ = meta["n_voxels"]
        out.typical_ = meta["typical"]

        return out


def ready(trials: Trials, nan: Policy = "error", *, train: Trials | None = None) -> Trials:
    """Trials that a fit can take: screened by what is bad in the training trials.

    Parameters
    ----------
    trials : Trials
        what to prepare
    nan : {"error", "drop", "impute"}, default "error"
        see `Screen`
    train : Trials, optional
        the training trials the screening is decided on; `trials` themselves when None

    Returns
    -------
    Trials
        a view unless values had to be imputed

    Raises
    ------
    DataError
        See `Screen`.
    """
    return Screen(nan).fit(trials if train is None else train).apply(trials)
