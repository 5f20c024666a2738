"""Ids, digests and rows: what the vocabulary is made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
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
        return (len(self.index), *(int(n) for n in self.source.shape[1:]))

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f"SelectedRows({len(self)} of {self.source.shape[0]}, {size_words(self.shape[1:])})"

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        if isinstance(rows, tuple):
            taken = self[rows[0]]
            if isinstance(rows[0], (int, np.integer)):
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
    """
    if isinstance(source, SelectedRows):
        return select_rows(source.source, source.index[index])
    if isinstance(source, np.ndarray) and not isinstance(source, np.memmap):
        return source[as_slice(index)]

    return SelectedRows(source, index)


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
    if isinstance(part, np.ndarray):
        if part.dtype.kind in "OUT":
            _feed(h, [str(x) for x in part.ravel()])
            return

        little = np.ascontiguousarray(part.astype(part.dtype.newbyteorder("<"), copy=False))
        h.update(f"array{part.shape}{little.dtype.str}".encode())
        h.update(little.data.cast("B") if little.size else b"")
    elif isinstance(part, pd.DataFrame):
        for name in part.columns:
            h.update(str(name).encode() + b"\0")
            _feed(h, part[name].to_numpy())
    elif isinstance(part, Mapping):
        for key in sorted(part, key=str):
            h.update(str(key).encode() + b"\0")
            _feed(h, part[key])
    elif isinstance(part, (list, tuple, set, frozenset)):
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

    Raises
    ------
    DataError
        When an id does not exist; the first five missing ones are named.
    """
    wanted = np.asarray([str(w) for w in wanted], dtype=object)
    where = pd.Index(np.asarray(ids, dtype=object)).get_indexer(wanted)
    if (where < 0).any():
        missing = wanted[where < 0]
        raise DataError(
            f"{len(missing)} of {len(wanted)} {what} ids are not among the {len(ids)} that exist: "
            f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}. "
            f"Existing ids look like {', '.join(map(str, list(ids)[:3]))}; align by id, not by row."
        )

    return where.astype(np.int64)


def unique_ids(ids: Iterable[Any], what: str) -> np.ndarray:
    """The ids as texts. Raises DataError when one stands twice, naming it and its row."""
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
    """A slice where the index is contiguous, so that taking it copies nothing."""
    if index.size and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)

    return index


def few(names: Iterable[str], most: int = 6) -> str:
    """The first of some names, and how many more there are.

    Examples
    --------
    >>> few("abc"), few("abcdefgh", 2)
    ('a, b, c', 'a, b and 6 more')
    """
    names = [str(n) for n in names]
    if len(names) <= most:
        return ", ".join(names)

    return f"{', '.join(names[:most])} and {len(names) - most} more"


def listed(names: Sequence[str]) -> str:
    """Names in a row, as a sentence has them.

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

    Examples
    --------
    >>> size_words((32, 32, 3))
    '32x32x3'
    """
    return "x".join(str(int(s)) for s in shape)
