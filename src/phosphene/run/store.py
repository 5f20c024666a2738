"""Rows of numbers on disk, one per id: features computed once, by several workers, restartable, read as memory map.

::

    STORE/
      store.json          format, key (full SHA-256 of spec, ids, shape and dtype), spec, shape, dtype, unit, chunk
      ids.json            the ids, in the order of the rows
      rows.npy            (n, *shape) float16, float32 or int16
      chunks/000012.json  this chunk of rows is done: its first row, end, and SHA-256
      claims/000012       a worker is computing this chunk: process, host, start

A chunk is done when its file stands under its final name, which happens only after its rows are on the disk. Every
chunk is compared with its SHA-256 when a process first reads from it; one that differs is computed again where the
store knows how (see :meth:`RowStore.fill`), else refused.

Examples
--------
>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as cache:
...     store = cached(cache, {"what": "lengths"}, ["a", "bcd"], lambda ids: [[len(i)] for i in ids], shape=(1,))
...     store.read(["bcd", "a"])
array([[3.],
       [1.]], dtype=float32)
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np

from phosphene.errors import ConfigError, DataError, MachineError, ModelError, PhospheneWarning
from phosphene.run import atomic
from phosphene.run.claims import claimed, holder
from phosphene.run.folder import read_json
from phosphene.run.progress import Progress
from phosphene.run.reading import reads
from phosphene.run.store_files import (
    CHUNKS,
    CLAIMS,
    FORMAT,
    IDS,
    INDEX,
    ROWS,
    VERSION,
    blank_rows,
    difference,
    key_of,
    make,
    plain,
    refuse_newer,
    restore_index,
)
from phosphene.types.identity import as_slice, digest_of, positions, unique_ids

Kept = Literal["float16", "float32", "int16"]
"""How numbers are stored."""

_CHUNK_BYTES = 32_000_000  # lost at most when a worker is killed
_CHUNK_ROWS = 1024

Compute = Callable[[np.ndarray], Any]
"""From (k,) ids to (k, *shape) rows."""


@dataclass(eq=False)
class RowStore:
    """An open store. Make one with :meth:`open_or_make`, :meth:`open` or :func:`cached`.

    Parameters
    ----------
    folder : where it lies
    record : contents of store.json
    ids : (n,) str, in the order of the rows
    """

    folder: Path
    record: Mapping[str, Any]
    ids: np.ndarray
    _compute: Compute | None = field(default=None, repr=False)
    _checked: set[int] = field(default_factory=set, repr=False)

    # -- opening ---------------------------------------------------------------------------------------------------

    @classmethod
    def open_or_make(
        cls,
        folder: str | Path,
        spec: Mapping[str, Any],
        ids: Iterable[str],
        shape: Sequence[int],
        dtype: Kept = "float32",
        *,
        unit: str = "",
        chunk: int | None = None,
    ) -> Self:
        """The store of this spec and these ids, made when it is not there. Any number of processes may call this.

        Parameters
        ----------
        folder : of this one store
        spec : plain values (JSON) that say what the rows are: extractor, weights, preprocessing, content of the inputs
        ids : unique, in any order; the order of whoever made the store is kept
        shape : of one row
        dtype : what is stored; float16 halves the disk and keeps about three digits, int16 holds whole numbers exactly
        unit : for people, such as "L2-normalised CLIP embedding"
        chunk : rows that are computed, hashed and marked together; about 32 MB and at most 1024 rows by default

        Raises
        ------
        ModelError
            When the folder holds a store of another spec, ids, shape or dtype, or one of a newer phosphene.
        ConfigError
            When the folder holds something else, or the spec is not plain.
        DataError
            Without ids, or with one twice.
        MachineError
            When the rows would not fit on the disk.
        """
        folder, ids = atomic.checked_path(folder), unique_ids(ids, "row")
        shape = tuple(int(s) for s in shape)
        if not len(ids) or math.prod(shape) < 1:
            raise DataError(f"a store needs ids and rows to hold, but got {len(ids)} ids and rows of shape {shape}.")
        if dtype not in get_args(Kept):
            raise ConfigError(f"rows are stored as {', '.join(get_args(Kept))}, not as {dtype!r}.")
        chunk = chunk or _default_chunk(shape, dtype, 1)
        spec = plain(spec)
        record = {
            "format": FORMAT,
            "version": VERSION,
            "key": key_of(spec, ids, shape, dtype),
            "spec": spec,
            "n": len(ids),
            "ids_sha256": digest_of(sorted(ids)),
            "shape": list(shape),
            "dtype": dtype,
            "unit": unit,
            "chunk": min(int(chunk), len(ids)),
        }
        if not (folder / INDEX).is_file():
            if folder.is_dir() and any(folder.iterdir()):
                restore_index(folder, record)
            else:
                make(folder, record, ids)
        store = cls.open(folder)
        if store.record["key"] != record["key"]:
            raise ModelError(
                f"{folder} holds rows of something else: {difference(store.record, record)}. They are not mixed; "
                "choose another folder, or delete this one."
            )
        return store

    @classmethod
    @reads("folder", ModelError, "Delete the store; it is made again.")
    def open(cls, folder: str | Path) -> Self:
        """A store that is there, for reading what is done.

        Raises
        ------
        ModelError
            When there is none, it is damaged, or it was made by a newer phosphene.
        """
        folder = atomic.checked_path(folder)
        record = read_json(folder / INDEX)
        if record.get("format") != FORMAT:
            raise ModelError(f"{folder / INDEX} is of format {record.get('format')!r}, not {FORMAT}: this is no store.")
        refuse_newer(folder / INDEX, record)
        try:
            ids = unique_ids(json.loads((folder / IDS).read_text(encoding="utf-8")), "row")
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder / IDS} cannot be read ({error}). Delete {folder}; it is made again.") from error
        if len(ids) != record["n"] or digest_of(sorted(ids)) != record["ids_sha256"]:
            raise ModelError(
                f"{folder / IDS} holds {len(ids)} ids that are not the {record['n']} the store was made with. "
                f"Delete {folder}; it is made again."
            )
        store = cls(folder, record, ids)
        store._mend_rows()
        return store

    # -- what is in it ---------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, then the shape of one row."""
        return (len(self.ids), *self.record["shape"])

    @property
    def dtype(self) -> np.dtype:
        """float16, float32 or int16."""
        return np.dtype(self.record["dtype"]).newbyteorder("<")

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _rows(self) -> np.memmap:
        return np.load(self.folder / ROWS, mmap_mode="r", allow_pickle=False)

    @property
    def n_chunks(self) -> int:
        """Into how many pieces the rows are divided."""
        return -(-len(self.ids) // self.record["chunk"])

    def _chunk(self, number: int) -> range:
        size = self.record["chunk"]
        return range(number * size, min((number + 1) * size, len(self.ids)))

    def _number(self, rows: range) -> int:
        number = rows.start // self.record["chunk"]
        if rows != self._chunk(number) or not rows:
            raise ValueError(f"rows {rows.start} to {rows.stop} are no chunk of this store; take them from missing().")
        return number

    def _mark(self, number: int) -> Path:
        return self.folder / CHUNKS / f"{number:06d}.json"

    def missing(self) -> list[range]:
        """Chunks of rows that are not done yet, whoever may be computing them now."""
        with atomic.explained(self.folder):
            done = {entry.name for entry in os.scandir(self.folder / CHUNKS)}
        return [self._chunk(c) for c in range(self.n_chunks) if self._mark(c).name not in done]

    # -- reading ---------------------------------------------------------------------------------------------------

    def read(self, ids: Iterable[str]) -> np.ndarray:
        """Rows of these ids, (n_ids, *shape), a copy in the stored dtype.

        Raises
        ------
        DataError
            For ids that are not in the store.
        ModelError
            When a row is not computed yet, or damaged and nobody here knows how to compute it again.
        """
        return self.select(ids)[:]

    def select(self, ids: Iterable[str]) -> StoredRows:
        """Rows of these ids without reading them: indexed like an array, straight from the memory map.

        Raises like :meth:`read`; chunks are checked when something is first read from them.
        """
        return StoredRows(self, positions(self.ids, ids, "stored row"))

    def _check(self, rows: np.ndarray) -> None:
        """Compare every chunk behind these rows with its hash, once per process; mend what can be mended."""
        for number in np.unique(rows // self.record["chunk"]):
            if int(number) in self._checked:
                continue
            problem = self._problem(int(number))
            if problem is not None:
                chunk = self._chunk(int(number))
                what = f"rows {chunk.start} to {chunk.stop - 1} of {self.folder} (id '{self.ids[chunk.start]}' ...)"
                if self._compute is None:
                    raise ModelError(f"{what} {problem}. Run the command that computes them again.")
                warnings.warn(f"{what} {problem}; they are computed again.", PhospheneWarning, stacklevel=4)
                self._mark(int(number)).unlink(missing_ok=True)
                self.fill(self._compute)
                if (problem := self._problem(int(number))) is not None:
                    raise MachineError(f"{what} {problem}, just after they were written. Check the disk.")
            self._checked.add(int(number))

    def _problem(self, number: int) -> str | None:
        rows, mark = self._chunk(number), self._mark(number)
        if not mark.is_file():
            return "are not computed yet"
        try:
            known = read_json(mark)
        except ModelError:
            return f"have a damaged mark ({mark.name})"
        if known.get("key") != self.record["key"]:
            return f"belong to another store, by their mark ({mark.name})"
        if (known.get("first"), known.get("end")) != (rows.start, rows.stop):
            return f"have a mark ({mark.name}) for rows {known.get('first')} to {known.get('end')}"
        actual = hashlib.sha256(np.ascontiguousarray(self._rows[rows.start : rows.stop]).data.cast("B")).hexdigest()
        if actual != known.get("sha256"):
            return f"are damaged: SHA-256 {actual[:12]}..., {str(known.get('sha256'))[:12]}... when written"
        return None

    def verify(self) -> list[range]:
        """Compare every finished chunk with its hash. Those that differ are warned of and count as missing again.

        Returns
        -------
        the chunks that were damaged
        """
        missing = set(self.missing())
        bad = []
        for number in range(self.n_chunks):
            rows = self._chunk(number)
            if rows in missing:
                continue
            problem = self._problem(number)
            if problem is None:
                self._checked.add(number)
                continue
            bad.append(rows)
            self._checked.discard(number)
            self._mark(number).unlink(missing_ok=True)
            if len(bad) == 1:
                first = f"rows {rows.start} to {rows.stop - 1} {problem}"
        if bad:
            warnings.warn(
                f"{len(bad)} chunks of {self.folder} cannot be trusted and are computed again: {first}"
                f"{' ...' if len(bad) > 1 else ''}.",
                PhospheneWarning,
                stacklevel=2,
            )
        return bad

    def forget(self) -> None:
        """Count every row as missing again."""
        for rows in set(map(self._chunk, range(self.n_chunks))) - set(self.missing()):
            self._mark(self._number(rows)).unlink(missing_ok=True)
        self._checked.clear()

    # -- writing ---------------------------------------------------------------------------------------------------

    def write(self, rows: range, array: Any) -> None:
        """Store one chunk and mark it done, in this order.

        Parameters
        ----------
        rows : as :meth:`missing` gives them
        array : (len(rows), *shape)

        Raises
        ------
        DataError
            For another shape, NaN or infinite values (float16 ends at 65,504), or what int16 cannot hold exactly.
        MachineError
            When the disk is full; the chunk then stays missing.
        """
        number = self._number(rows)
        given = np.asarray(array)
        expected = (len(rows), *self.shape[1:])
        if given.shape != expected:
            raise DataError(f"rows {rows.start} to {rows.stop - 1} must be {expected}, but are {given.shape}.")
        with np.errstate(over="ignore", invalid="ignore"):
            stored = np.ascontiguousarray(given, dtype=self.dtype)
        if self.dtype.kind == "i" and not np.array_equal(stored, given):  # also for NaN
            at = int(np.argwhere((stored != given).reshape(len(rows), -1).any(axis=1))[0, 0])
            raise DataError(
                f"the row of '{self.ids[rows.start + at]}' holds fractions, NaN or numbers beyond 32,767 and is not stored as "
                "int16; store float32."
            )
        if not np.isfinite(stored).all():
            at = int(np.argwhere(~np.isfinite(stored).reshape(len(rows), -1).all(axis=1))[0, 0])
            hint = " float16 ends at 65,504; store float32." if np.isfinite(given).all() else ""
            raise DataError(
                f"the row of '{self.ids[rows.start + at]}' holds NaN or infinite values and is not stored.{hint}"
            )
        data = stored.data.cast("B")
        self._mark(number).unlink(missing_ok=True)
        self._checked.discard(number)
        offset = self._rows.offset + rows.start * stored[0].nbytes
        with atomic.explained(self.folder / ROWS):
            # Not through the memory map: a full disk would kill the process there instead of raising.
            handle = os.open(self.folder / ROWS, os.O_WRONLY)
            try:
                written = 0
                while written < len(data):
                    written += os.pwrite(handle, data[written:], offset + written)
                os.fsync(handle)
            finally:
                os.close(handle)
        mark = {
            "version": VERSION,
            "key": self.record["key"],
            "first": rows.start,
            "end": rows.stop,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        atomic.write_text(self._mark(number), json.dumps(mark) + "\n")

    def fill(
        self, compute: Compute, *, batch: int | None = None, progress: Progress | None = None, patience_s: float = 3600
    ) -> Self:
        """Compute what is missing. Several processes may do so at once; each chunk is computed by one of them.

        Parameters
        ----------
        compute : from (k,) ids to (k, *shape) rows; kept, so that damage found later is mended
        batch : ids that `compute` gets at most at once; a whole chunk by default
        progress : who to tell
        patience_s : how long other workers may finish no chunk before this one gives up on them

        Raises
        ------
        MachineError
            When chunks are claimed by a process that finishes none.
        """
        self._compute = compute
        progress = progress or Progress(quiet=True)
        waiting_for, since, pause = -1, time.monotonic(), 0.05
        while missing := self.missing():
            n_done = 0
            for rows in progress.each(missing, f"{self.record['unit'] or 'rows'} ({len(self.ids)} in all)"):
                with claimed(self._claim(rows)) as mine:
                    if mine and not self._mark(self._number(rows)).is_file():
                        self.write(rows, self._computed(rows, compute, batch))
                        n_done += 1
            left = len(self.missing())
            if n_done or left != waiting_for:
                waiting_for, since, pause = left, time.monotonic(), 0.05
            elif time.monotonic() - since > patience_s:
                other = holder(self._claim(missing[0]))
                raise MachineError(
                    f"{left} chunks of {self.folder} are claimed by other workers, but none was finished within "
                    f"{patience_s:.0f} s; the first is held by process {other.get('pid')} on {other.get('host')}. "
                    f"If it is dead, delete {self.folder / CLAIMS} and run again."
                )
            else:
                time.sleep(pause)
                pause = min(2 * pause, 5)
        return self

    def _computed(self, rows: range, compute: Compute, batch: int | None) -> np.ndarray:
        ids = self.ids[rows.start : rows.stop]
        step = batch or len(ids)
        parts = [np.asarray(compute(ids[i : i + step])) for i in range(0, len(ids), step)]
        for part, start in zip(parts, range(0, len(ids), step), strict=True):
            if len(part) != len(ids[start : start + step]):
                raise DataError(f"{len(ids[start : start + step])} ids were given, but {len(part)} rows came back.")
        return np.concatenate(parts)

    def _claim(self, rows: range) -> Path:
        return self.folder / CLAIMS / f"{self._number(rows):06d}"

    # -- mending ---------------------------------------------------------------------------------------------------

    def _mend_rows(self) -> None:
        """Give rows.npy its header and length again where a copy lost them; what the hashes then refuse is missing."""
        file = self.folder / ROWS
        with suppress(Exception):  # a damaged header makes numpy raise anything
            rows = np.load(file, mmap_mode="r", allow_pickle=False)
            if rows.shape == self.shape and rows.dtype == self.dtype:
                return
        with atomic.explained(file):
            (self.folder / CHUNKS).mkdir(exist_ok=True)
            (self.folder / CLAIMS).mkdir(exist_ok=True)
            blank_rows(file, self.shape, self.dtype)
        self.verify()


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


def _default_chunk(shape: Sequence[int], dtype: str, batch: int) -> int:
    """Whole batches, of 32 MB together at most where one batch is not more already."""
    fitting = _CHUNK_BYTES // max(1, math.prod(shape) * np.dtype(dtype).itemsize)
    return max(1, min(_CHUNK_ROWS, fitting) // batch) * batch


def cached(
    root: str | Path,
    spec: Mapping[str, Any],
    ids: Iterable[str],
    compute: Compute,
    *,
    shape: Sequence[int],
    dtype: Kept = "float32",
    unit: str = "",
    batch: int | None = None,
    chunk: int | None = None,
    progress: Progress | None = None,
    check: Callable[[RowStore], None] | None = None,
) -> RowStore:
    """Rows by id, computed once for all time: only what is missing in ``root/KEY`` is computed.

    Parameters
    ----------
    root : holds one store per key, named by the full SHA-256 of spec, ids, shape and dtype
    compute : from (k,) ids to (k, *shape) rows
    check : called with the opened store before anything is computed; raises to refuse it
    spec, ids, shape, dtype, unit, chunk : see :meth:`RowStore.open_or_make`
    batch, progress : see :meth:`RowStore.fill`

    Returns
    -------
    the complete store; chunks found damaged while reading are computed again
    """
    ids = unique_ids(ids, "row")
    chunk = chunk or _default_chunk(shape, dtype, batch or 1)
    folder = atomic.checked_path(root) / key_of(plain(spec), ids, shape, dtype)
    store = RowStore.open_or_make(folder, spec, ids, shape, dtype, unit=unit, chunk=chunk)
    if check is not None:
        check(store)
    return store.fill(compute, batch=batch, progress=progress)
