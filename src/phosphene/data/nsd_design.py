"""What NSD's participants saw, trial by trial, from ``nsd_expdesign.mat`` or ``nsd_stim_info_merged.csv``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from phosphene.data.arrays import open_arrays
from phosphene.data.importing import read_table
from phosphene.errors import DataError

DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"
STIM_INFO = "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
SUBJECTS = tuple(f"subj{k:02d}" for k in range(1, 9))
N_SESSIONS = 40
"""Sessions the design was made for; four participants did fewer."""
N_TRIALS, N_SHARED, N_STIMULI = 30_000, 1000, 73_000


@dataclass(frozen=True)
class Design:
    """Order of the pictures.

    Parameters
    ----------
    shown : subject to (n_trials,) int, 0-based NSD id of the picture of each trial of the full design
    shared : 0-based NSD ids of the pictures everyone was to see
    runs : (40, trials of a session) int, run of each trial counted from 1; zeros where the file does not say
    origin : name of the file
    """

    shown: Mapping[str, np.ndarray]
    shared: np.ndarray
    runs: np.ndarray
    origin: str

    @property
    def n_trials(self) -> int:
        """Of one subject, over all 40 sessions."""
        return len(next(iter(self.shown.values())))

    @property
    def n_per_session(self) -> int:
        """Trials of one session."""
        return self.n_trials // N_SESSIONS

    @property
    def is_public(self) -> bool:
        """Whether this has the size of the public design, so that published counts must come out."""
        return self.n_trials == N_TRIALS and len(self.shared) == N_SHARED


def read_design(root: Path) -> Design:
    """The design below `root`, from the MATLAB file, else from the CSV.

    Raises
    ------
    DataError
        Neither is there, or what is there is no design; see `design_from_mat` and `design_from_csv`.
    """
    if (root / DESIGN).is_file():
        return design_from_mat(root / DESIGN)
    if (root / STIM_INFO).is_file():
        return design_from_csv(root / STIM_INFO)
    raise DataError(
        f"nothing below {root} says which picture was shown when: neither {DESIGN} nor {STIM_INFO} is there. "
        "Fetch one of them."
    )


def design_from_mat(path: Path) -> Design:
    """``subjectim`` (8, n_images) and ``masterordering`` (n_trials,), both counted from 1.

    Raises
    ------
    DataError
        Arrays missing, transposed, counted from 0, pictures that repeat in a row of ``subjectim``, or that are not
        shown three times.

    References
    ----------
    NSD's data manual; papers' use: ``id(t) = subjectim[s, masterordering[t] - 1] - 1``.
    """
    file = open_arrays(path)
    images, order = np.asarray(file["subjectim"]), np.asarray(file["masterordering"]).ravel().astype(np.int64)
    if images.ndim != 2 or images.shape[0] != len(SUBJECTS):
        hint = " It is transposed." if images.ndim == 2 and images.shape[1] == len(SUBJECTS) else ""
        raise DataError(f"'subjectim' in {path} has shape {images.shape}; (8, pictures) is expected.{hint}")
    images = images.astype(np.int64)
    n = images.shape[1]
    for name, values, top in (("subjectim", images, N_STIMULI), ("masterordering", order, n)):
        if values.min() < 1 or values.max() > top:
            raise DataError(
                f"'{name}' in {path} goes from {values.min()} to {values.max()}, but must lie in 1 to {top}: the public "
                "file counts from 1. Fetch the public file again."
            )
    for subject, row in zip(SUBJECTS, images, strict=True):
        again = pd.Index(row).duplicated()
        if again.any():
            at = int(np.flatnonzero(again)[0])
            raise DataError(f"picture {row[at]} stands twice for {subject} in 'subjectim' of {path} (column {at}).")
    counts = np.bincount(order, minlength=n + 1)[1:]
    if (counts != 3).any():
        odd = int(np.flatnonzero(counts != 3)[0])
        raise DataError(
            f"'masterordering' in {path} shows image {odd + 1} {counts[odd]} times, but each is shown three times; it has "
            f"{len(order)} entries for {n} images. Fetch the public file again."
        )
    n_shared = file["sharedix"].size if "sharedix" in file else min(N_SHARED, n)
    if not (images[:, :n_shared] == images[0, :n_shared]).all():
        raise DataError(
            f"the first {n_shared} columns of 'subjectim' in {path} differ between subjects; they are shared."
        )
    shown = {s: row[order - 1] - 1 for s, row in zip(SUBJECTS, images, strict=True)}
    pattern = np.asarray(file["stimpattern"]) if "stimpattern" in file else None
    return Design(shown, images[0, :n_shared] - 1, _runs(_per_session(len(order), path), pattern), path.name)


def design_from_csv(path: Path) -> Design:
    """Columns ``nsdId`` (from 0), ``shared1000`` and ``subjectS_repR``, the trial (from 1; 0 for never) of showing R.

    Raises
    ------
    DataError
        Columns missing, ids twice, or two pictures for one trial.
    """
    table = read_table(path, "the table of stimuli")
    needed = ["nsdId", "shared1000", *(f"subject{s}_rep{r}" for s in range(1, 9) for r in range(3))]
    lacking = [c for c in needed if c not in table]
    if lacking:
        raise DataError(f"{path} lacks the column '{lacking[0]}' ({len(lacking)} are missing); fetch the public file.")
    ids = table["nsdId"].astype(np.int64).to_numpy()
    again = pd.Index(ids).duplicated()
    if again.any():
        raise DataError(f"nsdId {ids[again][0]} stands twice in {path} (line {int(np.flatnonzero(again)[0]) + 2}).")
    shown = {}
    for k, subject in enumerate(SUBJECTS, start=1):
        at = np.stack([pd.to_numeric(table[f"subject{k}_rep{r}"]).fillna(0).astype(np.int64) for r in range(3)], axis=1)
        row, _ = np.nonzero(at > 0)
        trial = at[at > 0] - 1
        twice = pd.Index(trial).duplicated()
        if twice.any() or not len(trial) or trial.max() + 1 != len(trial):
            what = (
                f"trial {trial[twice][0] + 1} twice" if twice.any() else f"{len(trial)} trials with gaps between them"
            )
            raise DataError(
                f"{path} gives {subject} {what}; each of its trials shows one picture. Fetch the public file."
            )
        order = np.empty(len(trial), dtype=np.int64)
        order[trial] = ids[row]
        shown[subject] = order
    shared = ids[table["shared1000"].str.lower().isin(["true", "1", "1.0"]).to_numpy()]
    sizes = {len(v) for v in shown.values()}
    if len(sizes) > 1:
        raise DataError(f"{path} has {' or '.join(map(str, sorted(sizes)))} trials a subject; all must have as many.")
    return Design(shown, shared, _runs(_per_session(sizes.pop(), path), None), path.name)


def _per_session(n_trials: int, path: Path) -> int:
    if n_trials % N_SESSIONS:
        raise DataError(f"{path} orders {n_trials} trials, which are no {N_SESSIONS} sessions of equal length.")
    return n_trials // N_SESSIONS


def _runs(n: int, pattern: np.ndarray | None) -> np.ndarray:
    """(40, n) run of each trial. Without ``stimpattern`` the public design has 63 and 62 trials in turn."""
    if pattern is not None and pattern.ndim == 3 and len(pattern) == N_SESSIONS:
        lengths = pattern.astype(bool).sum(axis=2)
        if (lengths.sum(axis=1) == n).all():
            return np.stack([np.repeat(np.arange(1, len(row) + 1), row) for row in lengths])
    if n == N_TRIALS // N_SESSIONS:
        return np.tile(np.repeat(np.arange(1, 13), [63, 62] * 6), (N_SESSIONS, 1))
    return np.zeros((N_SESSIONS, n), dtype=np.int64)
