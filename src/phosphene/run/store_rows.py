"""Chosen rows of a row store, read when they are asked for. See :mod:`store`."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phosphene.types.identity import as_slice

if TYPE_CHECKING:
    from phosphene.run.store import RowStore


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Chosen rows of a store, read when indexed. Fits wherever ``phosphene.types.Rows`` does.

    Parameters
    ----------
    store : where they lie
    at : (n,) their places in it
    """

    store: RowStore
    at: np.ndarray

    def __repr__(self) -> str:
        return f"StoredRows({len(self)} of {self.store!r})"

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, *shape)."""
        return (len(self.at), *self.store.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """float16, float32 or int16."""
        return self.store.dtype

    def __len__(self) -> int:
        return len(self.at)

    @property
    def ids(self) -> np.ndarray:
        """(n,) their ids."""
        return self.store.ids[self.at]

    def mapped(self) -> np.ndarray:
        """The whole store as a read-only map (rows of the store, d), each row flattened, to be read in blocks at `at`.

        Chunks that hold these rows are checked before; raises like :meth:`RowStore.read`.
        """
        rows = self.store._rows
        for number in np.unique(self.at // self.store.record["chunk"]):
            self.store._check(self.at[self.at // self.store.record["chunk"] == number])
            if hasattr(mmap, "MADV_DONTNEED"):
                rows._mmap.madvise(mmap.MADV_DONTNEED)  # read once for its hash, and not to count as memory of ours
        return rows.reshape(len(self.store), -1)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Like an array of this shape: ``rows[10:20]``, ``rows[:, :768]``; what comes back is a copy in memory."""
        index = index if isinstance(index, tuple) else (index,)
        for place, part in enumerate(index):
            if part is Ellipsis:
                whole = (slice(None),) * (len(self.shape) - len(index) + 1)
                index = (*index[:place], *whole, *index[place + 1 :])
                break
        at = self.at[index[0]]
        self.store._check(np.atleast_1d(at))
        # Columns first, which copies nothing; then the rows.
        columns = self.store._rows[(slice(None), *index[1:])]
        return np.array(columns[as_slice(at) if np.ndim(at) else at])
