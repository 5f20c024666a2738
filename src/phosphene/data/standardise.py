"""Standardised betas: mean 0 and variance 1 per voxel, from training trials and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from phosphene.errors import ConfigError, DataError, ModelError, PhospheneWarning
from phosphene.io.stages import take
from phosphene.types import Trials

_BLOCK_BYTES = 2**23  # of one float64 block while streaming; small enough to stay in the processor's cache
_EAGER_BYTES = 2**28  # larger results stay a view that computes the rows asked for


class Standardiser:
    """Subtract the mean and divide by the standard deviation of each voxel over the training trials.

        z = (beta - mean) / sd        sd with ddof degrees of freedom taken off

    Parameters
    ----------
    per_session : bool, default False
        statistics of each session's training trials for that session's trials. A session with fewer than `min_trials`
        training trials uses those over all training trials, with a warning: never its test trials.
    ddof : int, default 0
        0 as scikit-learn's StandardScaler, 1 as an unbiased variance
    min_trials : int, default 8
        how many training trials a session needs for statistics of its own
    pooled : bool, default False
        one mean and one standard deviation over all voxels and trials together, as MinD-Vis' and LEA's code; voxels
        keep their own offsets and sizes

    Attributes
    ----------
    mean_, scale_ : ndarray of shape (n_voxels,)
        float64, over all training trials
    sessions_ : ndarray of shape (n_sessions,), int
        numbers of the sessions with statistics of their own; empty unless `per_session`
    session_mean_, session_scale_ : ndarray of shape (n_sessions, n_voxels)
        float64, over the training trials of each of them
    constant_ : ndarray of int
        positions of the voxels that never change in training; they are divided by 1, not by 0, unless pooled
    lineage_ : frozenset of str or None
        keys of the trials it was fitted on
    subject_ : str
        whose voxels

    Examples
    --------
    >>> import pandas as pd
    >>> t = Trials(np.array([[1.0], [3.0]]), pd.DataFrame({"stimulus": ["a", "b"]}))
    >>> Standardiser().fit(t).transform(t).betas.ravel()
    array([-1.,  1.], dtype=float32)
    """

    version: ClassVar[int] = 1

    def __init__(self, per_session: bool = False, ddof: int = 0, min_trials: int = 8, *, pooled: bool = False) -> None:
        if per_session and pooled:
            raise ConfigError(
                "a standardisation takes one mean and spread for everything (pooled) or statistics of each session "
                "(per_session), and both were asked for; leave one out."
            )

        self.per_session = per_session
        self.ddof = ddof
        self.min_trials = min_trials
        self.pooled = pooled
        self.lineage_: frozenset[str] | None = None

    def fit(self, trials: Trials) -> Self:
        """Statistics of training trials, read in blocks and summed in float64.

        Parameters
        ----------
        trials : Trials
            training trials only

        Returns
        -------
        Standardiser
            this one, fitted

        Raises
        ------
        DataError
            Fewer than two trials, NaN or infinite values, or no voxel that changes.
        """
        if len(trials) < 2:
            raise DataError(
                f"{trials.subject} has {len(trials)} training trial{'s' * (len(trials) != 1)}; a voxel's spread needs at "
                "least 2. Give more training data."
            )

        sessions = trials.table["session"].to_numpy()
        if self.per_session:
            names = np.unique(sessions)
        else:
            names = np.empty(0, dtype=np.int64)

        overall = _Moments(trials.n_voxels)
        of_session = {s: _Moments(trials.n_voxels) for s in names}

        for rows, block in row_blocks(trials):
            if not np.isfinite(block).all():
                row, voxel = np.argwhere(~np.isfinite(block))[0]
                raise DataError(
                    f"voxel {voxel} of {trials.subject} is {block[row, voxel]} in trial "
                    f"'{trials.table['trial'].iloc[rows.start + row]}' (row {rows.start + row}). Drop or impute such "
                    "voxels first, for example with nan='drop'."
                )

            overall.add(block)
            for s in names:
                in_session = sessions[rows] == s
                if in_session.any():
                    of_session[s].add(block[in_session])

        self.mean_, self.scale_, constant = overall.finish(self.ddof)
        if constant.all():
            raise DataError(
                f"none of the {trials.n_voxels} voxels of {trials.subject} changes over {len(trials)} training trials, so "
                "there is nothing to decode. Check that the file holds betas, one row a trial."
            )

        self.constant_ = np.flatnonzero(constant)
        if self.pooled:
            mean, scale = overall.pooled(self.ddof)
            self.mean_ = np.full(trials.n_voxels, mean)
            self.scale_ = np.full(trials.n_voxels, scale)

        # A mean over few trials is itself a good part of each of them: subtracting it would take the signal away.
        numbers = []
        means = []
        scales = []
        for s in names:
            if of_session[s].n >= max(2, self.min_trials):
                mean, scale, _ = of_session[s].finish(self.ddof)
                numbers.append(s)
                means.append(mean)
                scales.append(scale)

        shape = (len(numbers), trials.n_voxels)  # also where no session has enough
        self.sessions_ = np.asarray(numbers, dtype=np.int64)
        self.session_mean_ = np.asarray(means, dtype=np.float64).reshape(shape)
        self.session_scale_ = np.asarray(scales, dtype=np.float64).reshape(shape)
        self.subject_ = trials.subject
        self.lineage_ = trials.member_keys()  # so that a later check can say whether a test trial was among them

        return self

    def transform(self, trials: Trials) -> Trials:
        """The same trials, standardised with what was fitted; each row depends on itself alone.

        Parameters
        ----------
        trials : Trials
            of the subject and voxels it was fitted on

        Returns
        -------
        Trials
            Trials with float32 betas; above 256 MB a view that computes the rows asked for

        Raises
        ------
        DataError
            Another number of voxels, or another subject.
        """
        self._check_fitted()
        if trials.n_voxels != self.mean_.size or trials.subject != self.subject_:
            raise DataError(
                f"these betas have {trials.n_voxels} voxels (subject {trials.subject}), but the standardisation was fitted "
                f"on {self.mean_.size} (subject {self.subject_}); use the same subject and ROI mask."
            )

        view = _StandardisedRows(trials, self, self._session_index(trials.table["session"].to_numpy()))
        if self.per_session:
            how = " per session"
        elif self.pooled:
            how = " by two scalars"
        else:
            how = ""

        note = f"z-scored{how}, training trials"
        if len(trials) * trials.n_voxels * 4 <= _EAGER_BYTES:  # 4 bytes a float32
            return trials.with_betas(view[:], standardised=note)

        return trials.with_betas(view, standardised=note)

    def inverse(self, betas: np.ndarray, sessions: np.ndarray | None = None) -> np.ndarray:
        """Back to the units of the training betas.

        Parameters
        ----------
        betas : ndarray of shape (n, n_voxels)
            standardised
        sessions : ndarray of shape (n,), optional
            session of each row; statistics over all training trials when None

        Returns
        -------
        ndarray of shape (n, n_voxels), float32
            in the units of the training betas
        """
        self._check_fitted()
        betas = np.asarray(betas)
        if betas.ndim != 2 or betas.shape[1] != self.mean_.size:
            raise DataError(f"betas has shape {betas.shape}; (n, {self.mean_.size}) was expected.")

        out = np.empty(betas.shape, dtype=np.float32)
        if sessions is None:
            index = np.full(len(betas), -1)
        else:
            index = self._session_index(np.asarray(sessions))

        for s in np.unique(index):
            mean, scale = self._statistics(s)
            out[index == s] = betas[index == s] * scale + mean

        return out

    def _check_fitted(self) -> None:
        if self.lineage_ is None:
            raise ModelError("this Standardiser is not fitted yet; call fit with training trials first.")

    def _statistics(self, s: int) -> tuple[np.ndarray, np.ndarray]:
        if s < 0:
            return (self.mean_, self.scale_)

        return (self.session_mean_[s], self.session_scale_[s])

    def _session_index(self, sessions: np.ndarray) -> np.ndarray:
        """(n,) row of `session_mean_` for each trial, -1 for the statistics over all."""
        index = np.full(len(sessions), -1, dtype=np.int64)
        for i, s in enumerate(self.sessions_):
            index[sessions == s] = i

        if self.per_session and (index < 0).any():
            without = ", ".join(map(str, np.unique(sessions[index < 0])[:5]))
            warnings.warn(
                f"session {without} of {self.subject_} has fewer than {max(2, self.min_trials)} training trials; its trials "
                "are standardised with the statistics of all training trials. Silence with per_session=False.",
                PhospheneWarning,
                stacklevel=3,
            )

        return index

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays by name, and plain values beside them, from which `from_state` makes it again."""
        self._check_fitted()
        arrays = {
            "mean": self.mean_,
            "scale": self.scale_,
            "sessions": self.sessions_,
            "session_mean": self.session_mean_,
            "session_scale": self.session_scale_,
            "constant": self.constant_.astype(np.int64),
        }

        meta = {
            "per_session": self.per_session,
            "ddof": self.ddof,
            "min_trials": self.min_trials,
            "pooled": self.pooled,
            "subject": self.subject_,
            "lineage": sorted(self.lineage_ or ()),
        }

        return arrays, meta

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """The same standardisation again. Raises ModelError for missing or extra entries.

        Parameters
        ----------
        tensors : dict[str, ndarray]
            from `state`
        meta : dict[str, Any]
            from `state`; without "pooled", which older versions did not write, statistics are per voxel
        """
        out = cls(meta["per_session"], meta["ddof"], meta["min_trials"], pooled=meta.get("pooled", False))
        names = ("mean", "scale", "sessions", "session_mean", "session_scale", "constant")
        out.mean_, out.scale_, out.sessions_, out.session_mean_, out.session_scale_, out.constant_ = take(
            tensors, names, "standardisation"
        )

        out.subject_ = meta["subject"]
        out.lineage_ = frozenset(meta["lineage"])

        return out


class _Moments:
    """Mean and variance per voxel of rows that come in blocks (Chan, Golub and LeVeque 1983)."""

    def __init__(self, n_voxels: int) -> None:
        self.n = 0
        self.mean = np.zeros(n_voxels)
        self.square = np.zeros(n_voxels)
        self.low = np.full(n_voxels, np.inf)
        self.high = np.full(n_voxels, -np.inf)

    def add(self, block: np.ndarray) -> None:
        n = len(block)
        np.minimum(self.low, block.min(axis=0), out=self.low)
        np.maximum(self.high, block.max(axis=0), out=self.high)
        mean = block.mean(axis=0)
        delta = mean - self.mean
        block = block - mean
        self.square += np.einsum("ij,ij->j", block, block) + delta**2 * (self.n * n / (self.n + n))
        self.mean += delta * (n / (self.n + n))
        self.n += n

    def finish(self, ddof: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, what to divide by, and which voxels never change (told by their range, which has no rounding)."""
        constant = self.low == self.high
        scale = np.sqrt(self.square / max(self.n - ddof, 1))
        scale[constant | (scale == 0)] = 1.0
        return np.where(constant, self.low, self.mean), scale, constant

    def pooled(self, ddof: int) -> tuple[float, float]:
        """Mean and standard deviation over all voxels together."""
        mean = float(self.mean.mean())
        square = self.square.sum() + self.n * np.square(self.mean - mean).sum()
        return mean, float(np.sqrt(square / (self.n * self.mean.size - ddof)))


@dataclass(frozen=True)
class _StandardisedRows:
    """Rows of `trials`, standardised when asked for."""

    trials: Trials
    by: Standardiser
    index: np.ndarray  # (n_trials,) session row, -1 for all

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.trials), self.trials.n_voxels

    def __len__(self) -> int:
        return len(self.trials)

    def __getitem__(self, rows: Any) -> np.ndarray:
        index = self.index[rows]
        out = np.empty((len(index), self.trials.n_voxels), dtype=np.float32)
        positions = np.arange(len(self.trials))[rows]
        step = max(1, _BLOCK_BYTES // (8 * self.trials.n_voxels))

        for start in range(0, len(index), step):
            part = slice(start, start + step)
            block = self.trials.read(positions[part]).astype(np.float64)

            for s in np.unique(index[part]):
                mean, scale = self.by._statistics(s)
                in_session = index[part] == s
                block[in_session] = (block[in_session] - mean) / scale  # (rows, n_voxels)

            out[part] = block

        return out


def row_blocks(trials: Trials) -> Iterator[tuple[slice, np.ndarray]]:
    """(rows, float64 betas) of a bounded number of rows at a time.

    Parameters
    ----------
    trials : Trials
        of any size; 8 MB of them are in memory at once
    """
    step = max(1, _BLOCK_BYTES // (8 * trials.n_voxels))
    for start in range(0, len(trials), step):
        rows = slice(start, min(start + step, len(trials)))
        yield rows, trials.read(rows).astype(np.float64)
