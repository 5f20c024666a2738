"""Trials: what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from phosphene.errors import DataError, did_you_mean
from phosphene.types.identity import HandedRows, Rows, as_slice, digest_of, few

ROI = "roi."
"""Prefix of the boolean columns of ``Trials.voxels`` that hold ROI memberships."""

NOISE = "noise"
"""Column of ``Trials.table`` that holds a `NoiseKey` per row, where stimuli stand under other names than their own."""

_ROWS_SHOWN = 5  # of the trial table, in a notebook


@dataclass(frozen=True, eq=False)
class Trials:
    """Measured (or predicted) responses of one subject, one row a trial.

    Parameters
    ----------
    source : Rows of shape (n_trials_of_file, n_voxels_of_file)
        any real dtype, array or memory map, percent signal change unless `provenance["unit"]` says otherwise. Never
        copied by selection.
    table : DataFrame
        one row per trial of this view. Column ``stimulus`` (str) is required; ``trial`` (unique), ``session``, ``run``
        and ``repeat`` (all int) are filled in when absent.
    voxels : DataFrame, optional
        one row per voxel of this view: ``x, y, z`` in mm, ``noise_ceiling`` (share of variance, 0 to 1), and one
        boolean column ``roi.NAME`` per ROI; any of them may be absent.
    subject : str, default "subject"
        name of the person
    provenance : mapping of str to Any, optional
        what was done to these numbers, readable by a person
    rows, columns : ndarray, optional
        which rows and columns of `source` this view shows; all by default

    Examples
    --------
    >>> t = Trials(np.eye(3, dtype="f4"), pd.DataFrame({"stimulus": ["a", "b", "a"]}), subject="s1")
    >>> t.average_repeats().betas
    array([[0.5, 0. , 0.5],
           [0. , 1. , 0. ]], dtype=float32)
    """

    source: Rows
    table: pd.DataFrame
    voxels: pd.DataFrame = field(default_factory=pd.DataFrame)
    subject: str = "subject"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.source.shape)
        if len(shape) != 2:
            raise DataError(f"betas of {self.subject} must be (trials, voxels), but the array has shape {shape}.")

        if self.rows is None:
            n_trials = shape[0]
        else:
            n_trials = len(self.rows)

        if self.columns is None:
            n_voxels = shape[1]
        else:
            n_voxels = len(self.columns)

        if "stimulus" not in self.table:
            raise DataError(
                f"the trial table of {self.subject} needs a column 'stimulus' that says what was shown; "
                f"it has {', '.join(map(str, self.table.columns)) or 'no columns'}."
            )

        if len(self.table) != n_trials:
            hint = ""
            if len(self.table) == n_voxels:
                hint = " The table is as long as betas is wide: the array may be transposed (voxels, trials)."

            longer = "the table"
            if n_trials > len(self.table):
                longer = "betas"

            raise DataError(
                f"betas of {self.subject} has {n_trials} rows but the trial table has {len(self.table)}: "
                f"{longer} has {abs(n_trials - len(self.table))} too many.{hint} Find the extra trial before going on; "
                "rows are never dropped to make them fit."
            )

        # A table without columns has no length of its own, whatever its index says.
        voxels = self.voxels
        if voxels.shape[1] == 0:
            voxels = pd.DataFrame(index=pd.RangeIndex(n_voxels))

        if len(voxels) != n_voxels:
            raise DataError(
                f"betas of {self.subject} has {n_voxels} voxels but the voxel table has {len(voxels)} rows; "
                "use the table of the same mask."
            )

        # Rows are counted from 0 from here on: the index of whoever made the table would align it with other rows.
        object.__setattr__(self, "voxels", voxels.reset_index(drop=True))
        object.__setattr__(self, "table", _complete_table(self.table, self.subject))

    # -- size and content ------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        if self.rois:
            rois = f", ROIs {few(self.rois, 12)}"
        else:
            rois = ""

        n_stimuli = len(self.stimulus_ids)
        return f"Trials({self.subject}: {len(self)} trials of {n_stimuli} stimuli, {self.n_voxels} voxels{rois})"

    def _repr_html_(self) -> str:
        """Counts and the first rows of the trial table, for a notebook; reads no betas."""
        first = self.table.head(_ROWS_SHOWN)

        # Escaped: names of subjects and regions come from files, and a notebook runs what it is given.
        return f"<div>{escape(repr(self))}</div>{first.to_html(index=False, border=0)}"

    @property
    def n_voxels(self) -> int:
        """Number of voxels of this view."""
        return len(self.voxels)

    @property
    def betas(self) -> np.ndarray:
        """(n_trials, n_voxels) float32. A view where nothing, or a contiguous block, is selected; else a copy."""
        return self.read(slice(None))

    def read(self, rows: slice | np.ndarray) -> np.ndarray:
        """Betas of some trials of this view, without touching the others.

        Parameters
        ----------
        rows : slice or ndarray
            which trials of this view, as a slice or (n,) int

        Returns
        -------
        ndarray of shape (n, n_voxels), float32
            in the unit of the source; a view of it where nothing has to be copied
        """
        if self.rows is None:
            index = np.arange(self.source.shape[0])
        else:
            index = self.rows

        # Slices wherever it is possible: a memory map then gives a view, and a list of rows would give a copy.
        if self.rows is not None or not _is_full(rows):
            taken = as_slice(index[rows])
        else:
            taken = slice(None)

        # Rows before columns, as they lie on the disk one after the other.
        out = self.source[taken]  # (n, n_voxels_of_file)
        if self.columns is not None:
            out = out[:, as_slice(self.columns)]  # (n, n_voxels)
        return np.asarray(out, dtype=np.float32)

    @property
    def stimuli(self) -> np.ndarray:
        """(n_trials,) object: the stimulus id of every trial."""
        return self.table["stimulus"].to_numpy(dtype=object)

    @property
    def noise_keys(self) -> np.ndarray:
        """(n_trials,) object: what the noise of each row's picture is drawn by.

        A recipe that draws with chance takes these and not `stimuli`: a flow that hides what was shown hands over a
        `NoiseKey` per row, which gives the noise of the stimulus. Where it did not, the stimulus ids themselves.
        """
        if NOISE in self.table:
            return self.table[NOISE].to_numpy(dtype=object)

        return self.stimuli

    @property
    def stimulus_ids(self) -> np.ndarray:
        """Distinct stimulus ids in order of first appearance."""
        return np.asarray(pd.unique(self.stimuli), dtype=object)

    @property
    def keys(self) -> np.ndarray:
        """(n_trials,) object: ``subject/trial``, what a lineage remembers a trial by."""
        keys = [f"{self.subject}/{trial}" for trial in self.table["trial"]]
        return np.asarray(keys, dtype=object)

    @property
    def rois(self) -> tuple[str, ...]:
        """Names of the ROIs."""
        names = []
        for column in map(str, self.voxels.columns):
            if column.startswith(ROI):
                names.append(column.removeprefix(ROI))
        return tuple(names)

    @property
    def noise_ceiling(self) -> np.ndarray | None:
        """(n_voxels,) share of single-trial variance a perfect model explains, or None when unknown."""
        if "noise_ceiling" in self.voxels:
            return self.voxels["noise_ceiling"].to_numpy(float)
        return None

    def roi(self, name: str) -> np.ndarray:
        """Membership of one ROI.

        Parameters
        ----------
        name : str
            an ROI, or several joined by ``+`` (union) or ``&`` (intersection), read from left to right

        Returns
        -------
        ndarray of shape (n_voxels,), bool
            true inside

        Raises
        ------
        DataError
            When a name does not exist, with the nearest that does.
        """
        mask: np.ndarray | None = None
        operation = "+"

        # From left to right and without brackets: nobody has to remember which of the two binds more.
        for part in name.replace("&", " & ").replace("+", " + ").split():
            if part in "+&":
                operation = part
                continue

            if part not in self.rois:
                raise DataError(f"{self.subject} has no ROI '{part}'. {did_you_mean(part, self.rois)}")

            member = self.voxels[ROI + part].to_numpy(bool)  # (n_voxels,)
            if mask is None:
                mask = member
            elif operation == "+":
                mask = mask | member
            else:
                mask = mask & member

        if mask is None:
            raise DataError(f"an ROI name was expected, but '{name}' is empty. {did_you_mean(name, self.rois)}")
        return mask

    def digest(self) -> str:
        """SHA-256 of betas, table and voxels; of every 16th row's betas above 256 MB, with all row counts.

        Returns
        -------
        str
            64 hexadecimal digits
        """
        # Above 2 ** 28 bytes, a quarter of a gigabyte, reading all of it would take longer than many a fit. A sample still
        # meets every kind of change but one of few single trials.
        n_bytes = len(self) * self.n_voxels * 4
        if n_bytes <= 2**28:
            step = 1
        else:
            step = 16
        return digest_of(self.subject, self.read(slice(None, None, step)), self.table, self.voxels)

    # -- selection: each returns a view ----------------------------------------------------------------------------

    def take(self, rows: np.ndarray) -> Trials:
        """The trials at these positions (int) or where a mask is true, as a view.

        Parameters
        ----------
        rows : ndarray
            (n,) int, counted among the trials of this view, or (n_trials,) bool

        Returns
        -------
        Trials
            in the order of `rows`
        """
        rows = np.asarray(rows)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)

        if self.rows is None:
            base = np.arange(self.source.shape[0])
        else:
            base = self.rows

        # Always rows of the source, so that a view of a view does not keep the views between.
        return replace(self, table=self.table.iloc[rows], rows=base[rows])

    def select(
        self,
        *,
        roi: str | None = None,
        stimuli: Iterable[str] | None = None,
        trials: Iterable[Any] | None = None,
        session: int | Iterable[int] | None = None,
        repeat: int | Iterable[int] | None = None,
    ) -> Trials:
        """Trials and voxels that meet every condition given, without copying betas.

        Parameters
        ----------
        roi : str, optional
            ROI expression, see `roi`
        stimuli : iterable of str, optional
            stimulus ids to keep
        trials : iterable, optional
            trial ids to keep
        session, repeat : int or iterable of int, optional
            one number or several; repeats count from 0

        Returns
        -------
        Trials
            a view, in the order of this one

        Raises
        ------
        DataError
            When nothing is left, with what was asked for.
        """
        keep = np.ones(len(self), dtype=bool)
        conditions = {"stimulus": stimuli, "trial": trials, "session": session, "repeat": repeat}
        for column, values in conditions.items():
            if values is not None:
                keep &= self.table[column].isin(_as_list(values)).to_numpy()

        if not keep.any() and len(self):
            # In the caller's words, which are not those of the table.
            asked = {"stimuli": stimuli, "trials": trials, "session": session, "repeat": repeat}
            named = ", ".join(f"{k}={_short(v)}" for k, v in asked.items() if v is not None)
            raise DataError(f"none of the {len(self)} trials of {self.subject} has {named}; nothing is left to use.")

        chosen = self.take(keep)
        if roi is None:
            return chosen
        return chosen.take_voxels(self.roi(roi), roi)

    def take_voxels(self, mask: np.ndarray, name: str = "mask") -> Trials:
        """The voxels where a mask is true, or at these positions, as a view.

        Parameters
        ----------
        mask : ndarray
            (n_voxels,) bool, or (n,) int counted among the voxels of this view
        name : str, default "mask"
            what is selected, for the message

        Returns
        -------
        Trials
            of at least one voxel

        Raises
        ------
        DataError
            When no voxel is left.
        """
        mask = np.asarray(mask)
        if mask.dtype == bool:
            columns = np.flatnonzero(mask)
        else:
            columns = mask

        if columns.size == 0:
            hint = "choose a larger region."
            if self.rois:
                hint += f" ROI sizes: {_roi_sizes(self)}"

            raise DataError(
                f"no voxel of {self.subject} is left after selecting '{name}' among {self.n_voxels}; {hint}"
            )

        if self.columns is None:
            base = np.arange(self.source.shape[1])
        else:
            base = self.columns

        return replace(self, voxels=self.voxels.iloc[columns], columns=base[columns])

    def handed(self) -> Trials:
        """The same trials, from which no other trial of their source can be reached.

        Returns
        -------
        Trials
            with the same digest; betas are read when they are asked for
        """
        source = HandedRows(self.source, self.rows, self.columns)
        return Trials(source, self.table.copy(), self.voxels.copy(), self.subject)  # what was noted of files stays here

    def average_repeats(self) -> Trials:
        """One row per stimulus: the mean over its trials, in order of first appearance.

        Returns
        -------
        Trials
            Trials whose table holds ``stimulus``, ``n_repeats`` and ``members`` (the trial ids averaged, joined by
            ``|``); session and run are those of the first trial.
        """
        order = self.stimulus_ids  # (n_stimuli,)
        group = pd.Index(order).get_indexer(self.stimuli)  # (n_trials,) which stimulus each trial showed
        counts = np.bincount(group, minlength=len(order))  # (n_stimuli,)
        first = np.unique(group, return_index=True)[1]  # (n_stimuli,) the trial that showed it first

        table = self.table.iloc[first].reset_index(drop=True)
        # Kept by name: a validity check must see which single trials stand behind a mean.
        members = self.table["trial"].astype(str).groupby(group).agg("|".join)
        table = table.assign(repeat=0, n_repeats=counts, members=members.to_numpy())

        # Nothing to average: the file stays the source, and no betas are read.
        if (counts == 1).all():
            return replace(self.take(first), table=table)

        # In float64, since a float32 sum is rounded at every trial; in blocks, so that the betas are never all in memory.
        total = np.zeros((len(order), self.n_voxels), dtype=np.float64)
        for start in range(0, len(self), 1024):
            block = slice(start, min(start + 1024, len(self)))
            np.add.at(total, group[block], self.read(block))  # unlike total[...] +=, counts a stimulus twice in a block

        means = (total / counts[:, None]).astype(np.float32)  # (n_stimuli, n_voxels)
        provenance = {**self.provenance, "averaged": f"over repeats, {counts.min()} to {counts.max()} a stimulus"}
        return replace(self, source=means, table=table, rows=None, columns=None, provenance=provenance)

    def with_betas(self, betas: Rows, **provenance: Any) -> Trials:
        """The same trials and voxels with other numbers, and a note of what made them.

        Parameters
        ----------
        betas : Rows
            (n_trials, n_voxels) in the order of this view
        **provenance : Any
            what made them, by name

        Returns
        -------
        Trials
            whose source is `betas`
        """
        return replace(self, source=betas, rows=None, columns=None, provenance={**self.provenance, **provenance})

    def member_keys(self) -> frozenset[str]:
        """Keys of every single trial behind this view, averaged ones taken apart again.

        Returns
        -------
        frozenset of str
            see `keys`
        """
        if "members" not in self.table:
            return frozenset(self.keys)

        keys = set()
        for members in self.table["members"]:
            for trial in str(members).split("|"):
                keys.add(f"{self.subject}/{trial}")
        return frozenset(keys)


def _is_full(rows: Any) -> bool:
    """Whether these are all rows; asked of a slice only, since an array compares entry by entry."""
    return isinstance(rows, slice) and rows == slice(None)


def _as_list(value: Any) -> list[Any]:
    """One value, or several, as a list; a text is one and not its letters."""
    if np.isscalar(value):
        return [value]
    return list(value)


def _short(value: Any) -> str:
    """The first three of the values asked for, for a message."""
    items = _as_list(value)
    text = ", ".join(map(str, items[:3]))
    if len(items) > 3:
        text += " ..."
    return text


def _roi_sizes(trials: Trials) -> str:
    """Every ROI with its number of voxels in this view, for a message."""
    sizes = []
    for name in trials.rois:
        n_voxels = np.count_nonzero(trials.voxels[ROI + name].to_numpy(bool))
        sizes.append(f"{name} {n_voxels}")
    return ", ".join(sizes)


def _complete_table(table: pd.DataFrame, subject: str) -> pd.DataFrame:
    """A copy of the trial table with the columns that every trial has, and ids that name one trial each."""
    table = table.reset_index(drop=True)

    # Ids are texts everywhere: a table read as numbers would not meet a split file read as texts.
    table = table.assign(stimulus=table["stimulus"].astype(str).astype(object))
    if "trial" not in table:
        table["trial"] = np.arange(len(table))

    for column in ("session", "run"):
        if column not in table:
            table[column] = 0

    # By the order of the table, which is taken for the order in which they were shown.
    if "repeat" not in table:
        table["repeat"] = table.groupby("stimulus").cumcount()

    duplicated = table["trial"].duplicated()
    if duplicated.any():
        row = int(np.flatnonzero(duplicated)[0])
        n_repeated = int(np.count_nonzero(duplicated))
        raise DataError(
            f"trial ids of {subject} must be unique, but {n_repeated} repeat, first '{table['trial'][row]}' "
            f"in row {row} of the trial table. Number the trials anew or remove the copies."
        )

    return table
