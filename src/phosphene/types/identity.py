"""Ids, digests and rows: what the vocabulary is made of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from phosphene.errors import DataError


@runtime_checkable
class Rows(Protocol):
    """Anything that gives rows by index: an array, a memory map, an HDF5 dataset, a folder of pictures."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, then the shape of one row."""
        ...

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """The rows asked for, as an array."""
        ...


class SelectedRows:
    """Some rows of a memory map, a file or a folder, in an order of their own; nothing is read until it is indexed.

    Parameters
    ----------
    source : Rows
        all rows
    index : ndarray of shape (n,), int
        which of them

    Examples
    --------
    >>> SelectedRows(np.arange(6).reshape(3, 2), np.array([2, 0]))[:]
    array([[4, 5],
           [0, 1]])
    """

    def __init__(self, source: Rows, index: np.ndarray) -> None:
        self.source = source
        self.index = index

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of selected rows, then the shape of one row."""
        of_one_row = map(int, self.source.shape[1:])  # an HDF5 dataset may count in numpy's integers
        return (len(self.index), *of_one_row)

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f"SelectedRows({len(self)} of {self.source.shape[0]}, {size_words(self.shape[1:])})"

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        # rows[2, :10]: the first index chooses rows of this selection, the others what is inside a row.
        if isinstance(rows, tuple):
            taken = self[rows[0]]
            if isinstance(rows[0], (int, np.integer)):  # which took the axis of rows away
                return taken[rows[1:]]
            return taken[(slice(None), *rows[1:])]

        index = self.index[rows]
        if index.ndim == 0:
            return self.source[int(index)]
        return self.source[as_slice(index)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


def select_rows(source: Rows, index: np.ndarray) -> Rows:
    """Rows of `source`: an array of an array in memory, and `SelectedRows` of anything that is read from a disk.

    Parameters
    ----------
    source : Rows
        all rows
    index : ndarray of shape (n,), int
        which of them

    Returns
    -------
    Rows
        (n, ...), in the order of `index`
    """
    # One selection of the source, not a selection of a selection: a chain would be walked at every read.
    if isinstance(source, SelectedRows):
        return select_rows(source.source, source.index[index])

    # A memory map is an array as well, but indexing it would read all of these rows now.
    if isinstance(source, np.ndarray) and not isinstance(source, np.memmap):
        return source[as_slice(index)]
    return SelectedRows(source, index)


class HandedRows:
    """Rows that somebody may read and nothing else: the array, file or folder they come from cannot be reached from here.

    What `select_rows` gives leads back to all rows, by its source or as a view by its base. Whoever must not see the
    others is handed these.

    Parameters
    ----------
    source : Rows
        all rows
    index : ndarray of shape (n,), int, optional
        which of them; all by default
    columns : ndarray of shape (n_columns,), int, optional
        which entries of each row; all by default

    Examples
    --------
    >>> HandedRows(np.arange(6).reshape(3, 2), np.array([2, 0]))[:]
    array([[4, 5],
           [0, 1]])
    """

    __slots__ = ("_read", "shape")

    def __init__(self, source: Rows, index: np.ndarray | None = None, columns: np.ndarray | None = None) -> None:
        if index is None:
            index = np.arange(source.shape[0])

        # A closure and no attribute, so that nobody comes upon the source by looking at what he was given.
        self._read = _reader(source, index, columns)
        of_one_row = list(map(int, source.shape[1:]))
        if columns is not None:
            of_one_row[0] = len(columns)

        self.shape: tuple[int, ...] = (len(index), *of_one_row)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"HandedRows({size_words(self.shape)})"

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        if isinstance(rows, tuple):
            taken = self[rows[0]]
            if isinstance(rows[0], (int, np.integer)):  # which took the axis of rows away
                return taken[rows[1:]]
            return taken[(slice(None), *rows[1:])]

        return self._read(rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


def _reader(source: Rows, index: np.ndarray, columns: np.ndarray | None) -> Callable[[Any], np.ndarray]:
    def read(rows: Any) -> np.ndarray:
        wanted = index[rows]
        if wanted.ndim == 0:
            taken = np.asarray(source[int(wanted)])
        else:
            taken = np.asarray(source[as_slice(wanted)])  # (n, ...)

        if columns is not None:
            taken = taken[..., as_slice(columns)]

        if isinstance(taken, np.memmap) or taken.base is not None:  # a view, whose base holds all rows
            return np.array(taken)

        return taken

    return read


@dataclass(frozen=True)
class NoiseKey:
    """What the noise of one picture is drawn by, where the name of its stimulus must not be told.

    It gives the same noise as the name does, and does not tell the name.

    Attributes
    ----------
    digest : bytes
        SHA-256 of the name
    """

    digest: bytes

    @classmethod
    def of(cls, stimulus: Any) -> NoiseKey:
        """The key of a stimulus.

        Parameters
        ----------
        stimulus : Any
            its id, or a key, which is its own

        Returns
        -------
        NoiseKey
            the same for the same id, whatever machine or order
        """
        if isinstance(stimulus, NoiseKey):
            return stimulus

        return cls(hashlib.sha256(str(stimulus).encode()).digest())

    def __str__(self) -> str:
        return self.digest.hex()


def digest_of(*parts: Any) -> str:
    """SHA-256 of arrays, tables, texts and numbers, independent of byte order and memory layout.

    Parameters
    ----------
    *parts : Any
        arrays, DataFrames, str, numbers, None, and lists or dicts of these

    Returns
    -------
    str
        64 hexadecimal digits
    """
    h = hashlib.sha256()
    for part in parts:
        _feed(h, part)
    return h.hexdigest()


def _feed(h: Any, part: Any) -> None:
    """Add one value to a hash, with its kind and size where bytes alone would not tell two values apart.

    Every digest that runs, stores and caches were ever named by hangs on these bytes: they must not change.
    """
    if isinstance(part, np.ndarray):
        # Texts, whichever way numpy keeps them: the digest must not depend on the longest text among them.
        if part.dtype.kind in "OUT":
            _feed(h, [str(x) for x in part.ravel()])
            return

        # Little endian and row by row, as most machines have it, so that all machines agree.
        little = np.ascontiguousarray(part.astype(part.dtype.newbyteorder("<"), copy=False))
        h.update(f"array{part.shape}{little.dtype.str}".encode())
        if little.size:  # a memoryview without elements cannot be cast
            h.update(little.data.cast("B"))
    elif isinstance(part, pd.DataFrame):
        # Columns in their order, which a reader of the table sees; the index is not part of it.
        for name in part.columns:
            h.update(str(name).encode() + b"\0")
            _feed(h, part[name].to_numpy())
    elif isinstance(part, Mapping):
        for key in sorted(part, key=str):
            h.update(str(key).encode() + b"\0")
            _feed(h, part[key])
    elif isinstance(part, (list, tuple, set, frozenset)):
        # Sets have another order in every process, since texts are hashed with a random seed.
        if isinstance(part, (set, frozenset)):
            items = sorted(part, key=str)
        else:
            items = part

        h.update(f"list{len(items)}".encode())
        for item in items:
            _feed(h, item)
    else:
        h.update(repr(part).encode() + b"\0")


def positions(ids: Sequence[str] | np.ndarray, wanted: Iterable[str], what: str) -> np.ndarray:
    """Where each wanted id stands in `ids`.

    Parameters
    ----------
    ids : sequence of str or ndarray
        (n,), the ids that exist, unique
    wanted : iterable of str
        ids looked for, in the order of the result
    what : str
        word for the error message, such as "stimulus"

    Returns
    -------
    ndarray of shape (n_wanted,), int64
        places in `ids`, counted from 0

    Raises
    ------
    DataError
        When an id does not exist; the first five missing ones are named.
    """
    wanted = np.asarray([str(w) for w in wanted], dtype=object)

    # One hash table for all: 70,000 ids looked up one by one in a list would be billions of comparisons.
    where = pd.Index(np.asarray(ids, dtype=object)).get_indexer(wanted)  # (n_wanted,), -1 where there is none
    if (where < 0).any():
        missing = wanted[where < 0]
        first = ", ".join(missing[:5])
        if len(missing) > 5:
            first += " ..."

        raise DataError(
            f"{len(missing)} of {len(wanted)} {what} ids are not among the {len(ids)} that exist: "
            f"{first}. "
            f"Existing ids look like {', '.join(map(str, list(ids)[:3]))}; align by id, not by row."
        )

    return where.astype(np.int64)


def unique_ids(ids: Iterable[Any], what: str) -> np.ndarray:
    """The ids as texts, each of which stands once.

    Parameters
    ----------
    ids : iterable
        anything that has a text of its own
    what : str
        word for the error message, such as "stimulus"

    Returns
    -------
    ndarray of shape (n,), object
        str, in the order they came in

    Raises
    ------
    DataError
        When one stands twice, naming it and its row.
    """
    ids = np.asarray([str(i) for i in ids], dtype=object)
    duplicated = pd.Index(ids).duplicated()
    if duplicated.any():
        repeated = ids[duplicated]
        raise DataError(
            f"{what} ids must be unique, but {len(repeated)} of {len(ids)} appear again, first '{repeated[0]}' "
            f"(row {int(np.flatnonzero(duplicated)[0])}). Give every {what} an id of its own."
        )

    return ids


def as_slice(index: np.ndarray) -> np.ndarray | slice:
    """A slice where the index is contiguous, so that taking it copies nothing.

    Parameters
    ----------
    index : ndarray of shape (n,), int
        places among some rows

    Returns
    -------
    ndarray or slice
        which selects the same rows

    Examples
    --------
    >>> as_slice(np.array([3, 4, 5])), as_slice(np.array([3, 5]))
    (slice(3, 6, None), array([3, 5]))
    """
    # Rising by one throughout; a slice cannot repeat a row, nor leave the order.
    if index.size and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def few(names: Iterable[str], most: int = 6) -> str:
    """The first of some names, and how many more there are.

    Parameters
    ----------
    names : iterable of str
        in the order of the text
    most : int, default 6
        how many are named

    Returns
    -------
    str
        empty where there are no names

    Examples
    --------
    >>> few("abc"), few("abcdefgh", 2)
    ('a, b, c', 'a, b and 6 more')
    """
    names = list(map(str, names))
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def listed(names: Sequence[str]) -> str:
    """Names in a row, as a sentence has them.

    Parameters
    ----------
    names : sequence of str
        at least one

    Returns
    -------
    str
        with "and" before the last

    Examples
    --------
    >>> listed(["V1", "V2", "V4"]), listed(["V1"])
    ('V1, V2 and V4', 'V1')
    """
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def size_words(shape: Sequence[int]) -> str:
    """A shape for people.

    Parameters
    ----------
    shape : sequence of int
        of an array

    Returns
    -------
    str
        empty for the shape of a single number

    Examples
    --------
    >>> size_words((32, 32, 3))
    '32x32x3'
    """
    return "x".join(str(int(s)) for s in shape)
