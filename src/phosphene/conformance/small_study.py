"""A simulated study small enough for every check, and rows that say when a part reads what it must not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from phosphene.errors import DataError
from phosphene.types import Dataset, Rows, Stimuli, Trials, positions

_ENOUGH = 6  # test pictures: the first is compared alone, the others say whether order matters


@dataclass(frozen=True)
class TinyStudy:
    """One person, a training side and a test side.

    Attributes
    ----------
    train, test : Trials
        single trials; `averaged` has one row for each of the first test pictures, repeats averaged
    stimuli : Stimuli
        pictures of both sides, with captions
    """

    train: Trials
    test: Trials
    stimuli: Stimuli

    @classmethod
    def of(cls, dataset: Dataset, subject: str | None = None, split: str | None = None) -> TinyStudy:
        """A subject of a data set and one of its splits.

        Parameters
        ----------
        dataset : Dataset
            small enough to be fitted many times
        subject : str, optional
            the first by default
        split : str, optional
            the first by default

        Returns
        -------
        TinyStudy
            with the pictures of all subjects
        """
        train, test = dataset.split(split).apply(dataset.trials(subject))
        return cls(train, test, dataset.stimuli)

    @cached_property
    def averaged(self) -> Trials:
        """Test trials of the first pictures, repeats averaged: enough to hold a decoder to its promises."""
        every = self.test.average_repeats()
        return every.take(np.arange(min(len(every), _ENOUGH)))

    def guarded(self) -> TinyStudy:
        """The same, where reading a response or a picture of the test side raises DataError."""
        responses = Guarded(self.train.source, _rows_of(self.train), "a response")
        allowed = positions(self.stimuli.ids, self.train.stimulus_ids, "stimulus")
        if self.stimuli.images is None:
            pictures = None
        else:
            pictures = Guarded(self.stimuli.images, allowed, "a picture")

        train = replace(self.train, source=responses, rows=_rows_of(self.train))
        return TinyStudy(train, self.test, replace(self.stimuli, images=pictures))


class Guarded:
    """Rows of which only some may be read.

    Parameters
    ----------
    rows : Rows
        all of them
    allowed : ndarray
        numbers of those that may be read
    what : str
        a row, for the error message

    Examples
    --------
    >>> Guarded(np.arange(6).reshape(3, 2), np.array([0, 1]), "a response")[:2]
    array([[0, 1],
           [2, 3]])
    """

    def __init__(self, rows: Rows, allowed: np.ndarray, what: str) -> None:
        self._rows = rows
        self._what = what
        self._allowed = np.zeros(rows.shape[0], dtype=bool)
        self._allowed[allowed] = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all rows."""
        return tuple(self._rows.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, tuple):
            first = rows[0]
        else:
            first = rows

        asked = np.arange(len(self))[first]
        if not self._allowed[asked].all():
            raise DataError(
                f"{self._what} of the test side was read while fitting; read through the trials and stimuli that are "
                "given (trials.betas, stimuli.select(trials.stimuli)), not through what lies behind them."
            )

        return np.asarray(self._rows[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


def tiny_study(n_train: int = 40, n_test: int = 8, n_voxels: int = 60, seed: int = 0) -> TinyStudy:
    """A simulated person who sees small pictures, test pictures several times.

    Parameters
    ----------
    n_train, n_test : int, optional
        pictures of each side
    n_voxels : int, default 60
        at least 50
    seed : int, default 0
        of the simulation

    Returns
    -------
    TinyStudy
        Study; pictures of 32 x 32 in colour with captions, voxels with ROIs, coordinates and noise ceilings
    """
    from phosphene.data.registry import open_dataset

    options = {"n_train": n_train, "n_test": n_test, "n_voxels": n_voxels, "seed": seed}
    return TinyStudy.of(open_dataset("insilico", options=options))


def _rows_of(trials: Trials) -> np.ndarray:
    if trials.rows is None:
        return np.arange(trials.source.shape[0])

    return trials.rows
