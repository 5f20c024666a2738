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

import json
import math
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
from phosphene.run.store_chunks import Chunks
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
    storable,
)
from phosphene.run.store_rows import StoredRows
from phosphene.types.identity import digest_of, positions, size_words, unique_ids

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

    def __repr__(self) -> str:
        return f"RowStore({self.folder}: {len(self)} rows of {size_words(self.shape[1:])} {self.dtype.name})"

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

    @cached_property
    def _chunks(self) -> Chunks:
        return Chunks(self.folder, self.record)

    @property
    def n_chunks(self) -> int:
        """Into how many pieces the rows are divided."""
        return len(self._chunks)

    def missing(self) -> list[range]:
        """Chunks of rows that are not done yet, whoever may be computing them now."""
        return self._chunks.missing()

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
        for number in map(int, np.unique(rows // self.record["chunk"])):
            if number in self._checked:
                continue
            problem = self._chunks.problem(number, self._rows)
            if problem is not None:
                chunk = self._chunks.rows(number)
                what = f"rows {chunk.start} to {chunk.stop - 1} of {self.folder} (id '{self.ids[chunk.start]}' ...)"
                if self._compute is None:
                    raise ModelError(f"{what} {problem}. Run the command that computes them again.")
                warnings.warn(f"{what} {problem}; they are computed again.", PhospheneWarning, stacklevel=4)
                self._chunks.unmark(number)
                self.fill(self._compute)
                if (problem := self._chunks.problem(number, self._rows)) is not None:
                    raise MachineError(f"{what} {problem}, just after they were written. Check the disk.")
            self._checked.add(number)

    def verify(self) -> list[range]:
        """Compare every finished chunk with its hash. Those that differ are warned of and count as missing again.

        Returns
        -------
        the chunks that were damaged
        """
        bad = {}
        for number in self._chunks.done():
            problem = self._chunks.problem(number, self._rows)
            if problem is None:
                self._checked.add(number)
                continue
            bad[number] = problem
            self._checked.discard(number)
            self._chunks.unmark(number)
        damaged = [self._chunks.rows(number) for number in bad]
        if bad:
            warnings.warn(
                f"{len(bad)} chunks of {self.folder} cannot be trusted and are computed again: rows {damaged[0].start} to "
                f"{damaged[0].stop - 1} {next(iter(bad.values()))}{' ...' if len(bad) > 1 else ''}.",
                PhospheneWarning,
                stacklevel=2,
            )
        return damaged

    def forget(self) -> None:
        """Count every row as missing again."""
        for number in self._chunks.done():
            self._chunks.unmark(number)
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
        number = self._chunks.number(rows)
        stored = storable(array, self.ids[rows.start : rows.stop], self.shape[1:], self.dtype)
        self._checked.discard(number)
        self._chunks.write(number, stored, self._rows.offset)

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
                number = self._chunks.number(rows)
                with claimed(self._chunks.claim(number)) as mine:
                    if mine and not self._chunks.is_done(number):
                        self.write(rows, self._computed(rows, compute, batch))
                        n_done += 1
            left = len(self.missing())
            if n_done or left != waiting_for:
                waiting_for, since, pause = left, time.monotonic(), 0.05
            elif time.monotonic() - since > patience_s:
                other = holder(self._chunks.claim(self._chunks.number(missing[0])))
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
