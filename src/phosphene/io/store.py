"""Rows of numbers on disk, one per id: features computed once, by several workers, restartable, read as memory map.

::

    STORE/
      store.json          format, key (full SHA-256 of spec, ids, shape and dtype), spec, shape, dtype, unit, chunk
      ids.json            the ids, in the order of the rows
      rows.npy            (n, *shape) float16, float32 or int16
      chunks/000012.json  this chunk of rows is done: its first row, end, and SHA-256
      claims/000012       a worker is computing this chunk: process, host

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
import io
import json
import math
import mmap
import os
import shutil
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
from phosphene.io import atomic
from phosphene.io.claims import claimed, holder
from phosphene.io.progress import Progress
from phosphene.io.reading import reads
from phosphene.io.run_folder import read_json
from phosphene.types.identity import as_slice, digest_of, positions, size_words, unique_ids

FORMAT = "phosphene-rows"
VERSION = 1
"""Version of the store's format that this phosphene writes; older ones are read, newer ones refused."""

INDEX = "store.json"
IDS = "ids.json"
ROWS = "rows.npy"
CHUNKS = "chunks"
CLAIMS = "claims"

_CHUNK_BYTES = 32_000_000  # lost at most when a worker is killed
_CHUNK_ROWS = 1024  # so that short rows, too, show progress and are shared between workers

Kept = Literal["float16", "float32", "int16"]
"""How numbers are stored."""

Compute = Callable[[np.ndarray], Any]
"""From (k,) ids to (k, *shape) rows."""


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
    root : str or Path
        holds one store per key, named by the full SHA-256 of spec, ids, shape and dtype
    compute : Compute
        from (k,) ids to (k, *shape) rows
    check : callable, optional
        called with the opened store before anything is computed; raises to refuse it
    spec : mapping of str to Any
        see :meth:`RowStore.open_or_make`
    ids : iterable of str
        see :meth:`RowStore.open_or_make`
    shape : sequence of int
        see :meth:`RowStore.open_or_make`
    dtype : {"float16", "float32", "int16"}, default "float32"
        see :meth:`RowStore.open_or_make`
    unit : str, default ""
        see :meth:`RowStore.open_or_make`
    chunk : int, optional
        see :meth:`RowStore.open_or_make`
    batch : int, optional
        see :meth:`RowStore.fill`
    progress : Progress, optional
        see :meth:`RowStore.fill`

    Returns
    -------
    RowStore
        the complete store; chunks found damaged while reading are computed again
    """
    ids = unique_ids(ids, "row")
    chunk = chunk or _default_chunk(shape, dtype, batch or 1)
    folder = atomic.checked_path(root) / key_of(_plain(spec), ids, shape, dtype)
    store = RowStore.open_or_make(folder, spec, ids, shape, dtype, unit=unit, chunk=chunk)

    if check is not None:
        check(store)
    return store.fill(compute, batch=batch, progress=progress)


def key_of(spec: Mapping[str, Any], ids: Iterable[str], shape: Sequence[int], dtype: str) -> str:
    """Full SHA-256 of what a store holds, independent of the order of the ids.

    Parameters
    ----------
    spec : mapping of str to Any
        plain values that say what the rows are
    ids : iterable of str
        in any order
    shape : sequence of int
        of one row
    dtype : str
        how they are stored

    Returns
    -------
    str
        64 hexadecimal digits
    """
    # The same bytes whatever the order of keys and ids, since both are an accident of whoever asks. Every cache of every user
    # is named by this line: change it, and all features are computed again.
    text = json.dumps(spec, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return digest_of(FORMAT, text, sorted(str(i) for i in ids), [int(s) for s in shape], str(dtype))


def _plain(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec as JSON would give it back. Raises ConfigError for anything that JSON has no word for."""
    try:
        return json.loads(json.dumps(spec, sort_keys=True, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"what rows are must be said in plain values (JSON), but: {error}.") from error


def cache_folder() -> Path | None:
    """Folder that keeps stores between runs, named by PHOSPHENE_CACHE; None where that is not set.

    Returns
    -------
    Path or None
        which need not exist yet
    """
    folder = os.environ.get("PHOSPHENE_CACHE")
    if folder:
        return Path(folder)
    return None


def _default_chunk(shape: Sequence[int], dtype: str, batch: int) -> int:
    """Whole batches, of 32 MB together at most where one batch is not more already."""
    # At least one batch, however large, and never part of one: a worker would compute the rest for nothing.
    fitting = _CHUNK_BYTES // max(1, math.prod(shape) * np.dtype(dtype).itemsize)
    return max(1, min(_CHUNK_ROWS, fitting) // batch) * batch


@dataclass(eq=False)
class RowStore:
    """An open store. Make one with :meth:`open_or_make`, :meth:`open` or :func:`cached`.

    Parameters
    ----------
    folder : Path
        where it lies
    record : mapping of str to Any
        contents of store.json
    ids : ndarray of shape (n,), str
        in the order of the rows
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
        folder : str or Path
            of this one store
        spec : mapping of str to Any
            plain values (JSON) that say what the rows are: extractor, weights, preprocessing, content of the inputs
        ids : iterable of str
            unique, in any order; the order of whoever made the store is kept
        shape : sequence of int
            of one row
        dtype : {"float16", "float32", "int16"}, default "float32"
            what is stored; float16 halves the disk and keeps about three digits, int16 holds whole numbers exactly
        unit : str, default ""
            for people, such as "L2-normalised CLIP embedding"
        chunk : int, optional
            rows that are computed, hashed and marked together; about 32 MB and at most 1024 rows by default

        Returns
        -------
        RowStore
            with its ids in the order of whoever made it

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
        folder = atomic.checked_path(folder)
        ids = unique_ids(ids, "row")
        shape = tuple(map(int, shape))
        if not len(ids) or math.prod(shape) < 1:
            raise DataError(f"a store needs ids and rows to hold, but got {len(ids)} ids and rows of shape {shape}.")
        if dtype not in get_args(Kept):
            raise ConfigError(f"rows are stored as {', '.join(get_args(Kept))}, not as {dtype!r}.")

        # Through JSON and back, so that what is compared later is what the file will hold: tuples are lists there.
        chunk = chunk or _default_chunk(shape, dtype, 1)
        spec = _plain(spec)
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

        # A store is made under another name, so a folder that holds something but no index lost it, or is not ours.
        if not (folder / INDEX).is_file():
            if folder.is_dir() and any(folder.iterdir()):
                _restore_index(folder, record)
            else:
                _make(folder, record, ids)

        store = cls.open(folder)
        if store.record["key"] != record["key"]:
            raise ModelError(
                f"{folder} holds rows of something else: {_difference(store.record, record)}. They are not mixed; "
                "choose another folder, or delete this one."
            )

        return store

    @classmethod
    @reads("folder", ModelError, "Delete the store; it is made again.")
    def open(cls, folder: str | Path) -> Self:
        """A store that is there, for reading what is done.

        Parameters
        ----------
        folder : str or Path
            of this one store

        Returns
        -------
        RowStore
            which may still have chunks missing

        Raises
        ------
        ModelError
            When there is none, it is damaged, or it was made by a newer phosphene.
        """
        folder = atomic.checked_path(folder)
        record = read_json(folder / INDEX)
        if record.get("format") != FORMAT:
            raise ModelError(f"{folder / INDEX} is of format {record.get('format')!r}, not {FORMAT}: this is no store.")

        # Before anything else is read: a newer format may have other files.
        _refuse_newer(folder / INDEX, record)
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
        return np.dtype(self.record["dtype"]).newbyteorder("<")  # a store may be copied to any machine

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _rows(self) -> np.memmap:
        """(n, *shape) of the file; what another process writes there is seen here."""
        return np.load(self.folder / ROWS, mmap_mode="r", allow_pickle=False)

    @cached_property
    def _chunks(self) -> Chunks:
        return Chunks(self.folder, self.record)

    @property
    def n_chunks(self) -> int:
        """Into how many pieces the rows are divided."""
        return len(self._chunks)

    def missing(self) -> list[range]:
        """Chunks of rows that are not done yet, whoever may be computing them now.

        Returns
        -------
        list of range
            first and end of each chunk, in the order of the rows
        """
        return self._chunks.missing()

    # -- reading ---------------------------------------------------------------------------------------------------

    def read(self, ids: Iterable[str]) -> np.ndarray:
        """Rows of these ids, as a copy in the stored dtype.

        Parameters
        ----------
        ids : iterable of str
            in the order of the result; an id may come twice

        Returns
        -------
        ndarray of shape (n_ids, *shape)
            float16, float32 or int16, as stored

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

        Chunks are checked when something is first read from them, which raises as :meth:`read` does.

        Parameters
        ----------
        ids : iterable of str
            in the order of the result

        Returns
        -------
        StoredRows
            of shape (n_ids, *shape)

        Raises
        ------
        DataError
            For ids that are not in the store.
        """
        return StoredRows(self, positions(self.ids, ids, "stored row"))

    def _check(self, rows: np.ndarray) -> None:
        """Compare every chunk behind these rows with its hash, once per process; mend what can be mended."""
        for number in map(int, np.unique(rows // self.record["chunk"])):
            # Hashing reads the whole chunk, so once is enough for a process; the disk may of course fail later.
            if number in self._checked:
                continue

            problem = self._chunks.problem(number, self._rows)
            if problem is not None:
                chunk = self._chunks.rows(number)
                what = f"rows {chunk.start} to {chunk.stop - 1} of {self.folder} (id '{self.ids[chunk.start]}' ...)"
                if self._compute is None:  # opened for reading, without a way to compute
                    raise ModelError(f"{what} {problem}. Run the command that computes them again.")

                warnings.warn(f"{what} {problem}; they are computed again.", PhospheneWarning, stacklevel=4)
                self._chunks.unmark(number)
                self.fill(self._compute)

                # Once only: a disk that damages what it was just given would be written to forever.
                if (problem := self._chunks.problem(number, self._rows)) is not None:
                    raise MachineError(f"{what} {problem}, just after they were written. Check the disk.")

            self._checked.add(number)

    def verify(self) -> list[range]:
        """Compare every finished chunk with its hash. Those that differ are warned of and count as missing again.

        Returns
        -------
        list of range
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
        # The marks go and the rows stay: without its mark a row is never read.
        for number in self._chunks.done():
            self._chunks.unmark(number)
        self._checked.clear()

    # -- writing ---------------------------------------------------------------------------------------------------

    def write(self, rows: range, array: Any) -> None:
        """Store one chunk and mark it done, in this order.

        Parameters
        ----------
        rows : range
            as :meth:`missing` gives them
        array : Any
            (len(rows), *shape)

        Raises
        ------
        DataError
            For another shape, NaN or infinite values (float16 ends at 65,504), or what int16 cannot hold exactly.
        MachineError
            When the disk is full; the chunk then stays missing.
        """
        number = self._chunks.number(rows)
        stored = _storable(array, self.ids[rows.start : rows.stop], self.shape[1:], self.dtype)
        self._checked.discard(number)
        with atomic.explained_write(self.folder / ROWS):
            offset = self._rows.offset  # bytes of the header

        self._chunks.write(number, stored, offset)

    def fill(
        self, compute: Compute, *, batch: int | None = None, progress: Progress | None = None, patience_s: float = 3600
    ) -> Self:
        """Compute what is missing. Several processes may do so at once; each chunk is computed by one of them.

        Parameters
        ----------
        compute : Compute
            from (k,) ids to (k, *shape) rows; kept, so that damage found later is mended
        batch : int, optional
            ids that `compute` gets at most at once; a whole chunk by default
        progress : Progress, optional
            who to tell
        patience_s : float, default 3600
            how long other workers may finish no chunk before this one gives up on them

        Returns
        -------
        RowStore
            this one, complete

        Raises
        ------
        MachineError
            When chunks are claimed by a process that finishes none.
        """
        self._compute = compute
        progress = progress or Progress(quiet=True)
        waiting_for = -1  # chunks missing after the last round; none was counted yet
        since = time.monotonic()
        pause = 0.05

        while missing := self.missing():
            n_done = 0
            for rows in progress.each(missing, f"{self.record['unit'] or 'rows'} ({len(self.ids)} in all)"):
                number = self._chunks.number(rows)
                # A kill inside leaves a chunk without a mark, whose claim the system drops: the next worker takes it.
                with claimed(self._chunks.claim(number)) as mine:
                    # Asked again: another worker may have finished it between the list of missing ones and this claim.
                    if mine and not self._chunks.is_done(number):
                        self.write(rows, self._computed(rows, compute, batch))
                        n_done += 1

            # Patience starts anew whenever anybody gets on, here or elsewhere.
            left = len(self.missing())
            if n_done or left != waiting_for:
                waiting_for = left
                since = time.monotonic()
                pause = 0.05
            elif time.monotonic() - since > patience_s:
                other = holder(self._chunks.claim(self._chunks.number(missing[0])))
                raise MachineError(
                    f"{left} chunks of {self.folder} are claimed by other workers, but none was finished within "
                    f"{patience_s:.0f} s; the first is held by process {other.get('pid')} on {other.get('host')}. "
                    "Run again: what a lost machine held is free by then."
                )
            else:
                # All the rest is being computed by others: look again, less and less often.
                time.sleep(pause)
                pause = min(2 * pause, 5)

        return self

    def _computed(self, rows: range, compute: Compute, batch: int | None) -> np.ndarray:
        """(k, *shape) rows of one chunk, computed in batches."""
        ids = self.ids[rows.start : rows.stop]
        step = batch or len(ids)
        parts = []

        for start in range(0, len(ids), step):
            asked = ids[start : start + step]
            part = np.asarray(compute(asked))
            # One by one: rows that are missing in one batch and too many in the next would add up and be shifted.
            if len(part) != len(asked):
                raise DataError(f"{len(asked)} ids were given, but {len(part)} rows came back.")

            parts.append(part)
        return np.concatenate(parts)  # (k, *shape)

    # -- mending ---------------------------------------------------------------------------------------------------

    def _mend_rows(self) -> None:
        """Give rows.npy its header and length again where a copy lost them; what the hashes then refuse is missing."""
        file = self.folder / ROWS
        with suppress(Exception):  # a damaged header makes numpy raise anything
            rows = np.load(file, mmap_mode="r", allow_pickle=False)
            if rows.shape == self.shape and rows.dtype == self.dtype:
                return

        # Copies leave out empty folders, and cut files off. Length and header are known without the rows.
        with atomic.explained_write(file):
            (self.folder / CHUNKS).mkdir(exist_ok=True)
            (self.folder / CLAIMS).mkdir(exist_ok=True)
            _blank_rows(file, self.shape, self.dtype)

        self.verify()


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Chosen rows of a store, read when indexed. Fits wherever ``phosphene.types.Rows`` does.

    Parameters
    ----------
    store : RowStore
        where they lie
    at : ndarray of shape (n,)
        their places in it
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

        Chunks that hold these rows are checked before.

        Returns
        -------
        ndarray of shape (n_rows_of_store, d)
            read-only
        """
        rows = self.store._rows
        for number in np.unique(self.at // self.store.record["chunk"]):
            self.store._check(self.at[self.at // self.store.record["chunk"] == number])
            if hasattr(mmap, "MADV_DONTNEED"):
                # Read once for its hash, and not to count as memory of ours. numpy has no public name for the map.
                rows._mmap.madvise(mmap.MADV_DONTNEED)  # pyright: ignore[reportAttributeAccessIssue]
        return rows.reshape(len(self.store), -1)  # (n_rows_of_store, d), still the map

    def __getitem__(self, index: Any) -> np.ndarray:
        """Like an array of this shape: ``rows[10:20]``, ``rows[:, :768]``; what comes back is a copy in memory."""
        if not isinstance(index, tuple):
            index = (index,)

        # The rows are chosen by `at` and the rest by the memory map, so an ellipsis has to be spelled out.
        for place, part in enumerate(index):
            if part is Ellipsis:
                whole = (slice(None),) * (len(self.shape) - len(index) + 1)
                index = (*index[:place], *whole, *index[place + 1 :])
                break

        at = self.at[index[0]]  # (k,), or one number
        self.store._check(np.atleast_1d(at))

        # Columns first, which copies nothing; then the rows.
        columns = self.store._rows[(slice(None), *index[1:])]  # (n_rows_of_store, ...)
        if np.ndim(at):
            at = as_slice(at)
        return np.array(columns[at])  # (k, ...), or one row


# -- a store on the disk: made, recognised, mended ---------------------------------------------------------------------


def _make(folder: Path, record: Mapping[str, Any], ids: np.ndarray) -> None:
    """A blank store. Of several processes that make one, the first to rename wins and the others use its store."""
    shape = (record["n"], *record["shape"])
    dtype = np.dtype(record["dtype"]).newbyteorder("<")
    size = math.prod(shape) * dtype.itemsize
    temporary = atomic.partial_name(folder)

    with atomic.explained_write(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
        # The file is made sparse, and would be accepted by any disk now, to fail hours later.
        if size > free:
            raise MachineError(
                f"{shape} rows of {record['dtype']} take {size / 1e9:.1f} GB, but {folder.parent} has "
                f"{free / 1e9:.1f} GB free. Free some space, choose another folder, or store float16."
            )

        try:
            (temporary / CHUNKS).mkdir(parents=True)
            (temporary / CLAIMS).mkdir()
            _blank_rows(temporary / ROWS, shape, dtype)
            atomic.write_text(temporary / IDS, json.dumps(list(ids), ensure_ascii=False) + "\n")
            atomic.write_text(temporary / INDEX, json.dumps(record, indent=1, ensure_ascii=False) + "\n")

            # Fails where a folder of that name holds anything: who comes second sees the first one's store.
            try:
                os.rename(temporary, folder)
            except OSError:
                if not (folder / INDEX).is_file():  # else another process made it in this moment
                    raise

            atomic.fsync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _blank_rows(file: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Header and length of an array file; bytes that are there stay. Doing it twice changes nothing."""
    # numpy can make such a file, but would overwrite the rows of one that is there.
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )

    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        os.pwrite(handle, header.getvalue(), 0)
        os.ftruncate(handle, len(header.getvalue()) + math.prod(shape) * dtype.itemsize)
        os.fsync(handle)
    finally:
        os.close(handle)


def _restore_index(folder: Path, record: dict[str, Any]) -> None:
    """Write store.json again where it is gone and everything else is there; the hashes of the rows stay in force."""
    try:
        held = json.loads((folder / IDS).read_text(encoding="utf-8"))
        marks = sorted(p for p in (folder / CHUNKS).iterdir() if p.suffix == ".json" and not p.name.startswith("."))
    except (OSError, ValueError) as error:
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:5])
        raise ConfigError(
            f"{folder} should hold a store or nothing, but holds {found}. Choose another folder."
        ) from error

    # The marks know what the index knew: whose rows these are, and how many make a chunk (all but the last say that).
    chunk = record["chunk"]
    for mark in marks:
        try:
            known = read_json(mark)
        except ModelError:
            continue  # a damaged mark counts as missing later

        _refuse_newer(mark, known)
        if known.get("key") != record["key"]:
            raise ModelError(
                f"{folder} lost its {INDEX}, and its rows were made from something else than what is asked for "
                f"(key {str(known.get('key'))[:12]}..., not {record['key'][:12]}...). Choose another folder."
            )

        if known["end"] != record["n"]:
            chunk = known["end"] - known["first"]

    if digest_of(sorted(map(str, held))) != record["ids_sha256"]:
        raise ModelError(f"{folder} lost its {INDEX}, and its ids are not those asked for. Choose another folder.")

    warnings.warn(
        f"{folder / INDEX} was gone and is written again; {len(marks)} finished chunks are kept and checked.",
        PhospheneWarning,
        stacklevel=3,
    )

    atomic.write_text(folder / INDEX, json.dumps({**record, "chunk": chunk}, indent=1, ensure_ascii=False) + "\n")


def _refuse_newer(file: Path, record: Mapping[str, Any]) -> None:
    """Raise ModelError for a file of a newer format."""
    # An index without a version, or with a text for one, was not written by any phosphene so far.
    version = record.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise ModelError(
            f"{file} is of version {version}, but this phosphene reads and writes up to {VERSION}; it was made by a "
            "newer one. Upgrade phosphene, or choose another folder; this one is left as it is."
        )


def _difference(held: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """What differs between two stores, for people."""
    old = dict(held.get("spec", {}))
    new = dict(asked["spec"])
    for key in ("shape", "dtype", "n", "ids_sha256"):
        old[key] = held.get(key)
        new[key] = asked[key]

    parts = []
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            parts.append(f"{key} is {old.get(key)!r} there, {new.get(key)!r} here")
    return "; ".join(parts[:4]) or f"key {held['key'][:12]}... there, {asked['key'][:12]}... here"


# -- its chunks: written, marked, compared with their hashes -----------------------------------------------------------


class Chunks:
    """The chunks of one store, by number.

    Parameters
    ----------
    folder : Path
        of the store
    record : mapping of str to Any
        contents of its store.json
    """

    def __init__(self, folder: Path, record: Mapping[str, Any]) -> None:
        self.folder = folder
        self.key = record["key"]
        self.size = record["chunk"]
        self.n = record["n"]

    def __len__(self) -> int:
        return -(-self.n // self.size)  # rounded up: the last may be shorter

    def rows(self, number: int) -> range:
        """Rows of a chunk; the last may have fewer.

        Parameters
        ----------
        number : int
            from 0

        Returns
        -------
        range
            first row and end
        """
        return range(number * self.size, min((number + 1) * self.size, self.n))

    def number(self, rows: range) -> int:
        """Which chunk these rows are.

        Parameters
        ----------
        rows : range
            as `missing` gives them

        Returns
        -------
        int
            from 0

        Raises
        ------
        ValueError
            Where they are no chunk.
        """
        number = rows.start // self.size
        if rows != self.rows(number) or not rows:
            raise ValueError(f"rows {rows.start} to {rows.stop} are no chunk of this store; take them from missing().")
        return number

    def claim(self, number: int) -> Path:
        """The file by which a worker keeps others from a chunk.

        Parameters
        ----------
        number : int
            of the chunk, from 0

        Returns
        -------
        Path
            which is there while somebody holds it
        """
        return self.folder / CLAIMS / f"{number:06d}"

    # -- what is done ----------------------------------------------------------------------------------------------

    def _mark(self, number: int) -> Path:
        return self.folder / CHUNKS / f"{number:06d}.json"

    def is_done(self, number: int) -> bool:
        """Whether a chunk is marked.

        Parameters
        ----------
        number : int
            of the chunk, from 0

        Returns
        -------
        bool
            by the mark alone; `problem` compares the rows
        """
        return self._mark(number).is_file()

    def unmark(self, number: int) -> None:
        """Count a chunk as missing again.

        Parameters
        ----------
        number : int
            of the chunk, from 0
        """
        self._mark(number).unlink(missing_ok=True)

    def done(self) -> list[int]:
        """Numbers of the marked chunks."""
        with atomic.explained_write(self.folder):
            # One listing for all: asking for thousands of files one by one takes seconds on a network disk.
            names = {entry.name for entry in os.scandir(self.folder / CHUNKS)}
        return [number for number in range(len(self)) if self._mark(number).name in names]

    def missing(self) -> list[range]:
        """Rows of the chunks that are not marked.

        Returns
        -------
        list of range
            in the order of the rows
        """
        done = set(self.done())
        missing = []
        for number in range(len(self)):
            if number not in done:
                missing.append(self.rows(number))
        return missing

    def problem(self, number: int, array: np.ndarray) -> str | None:
        """Why the rows of a chunk are not what was written, for people; None where they are.

        Parameters
        ----------
        number : int
            of the chunk
        array : ndarray
            (n, ...) of all rows
        """
        rows = self.rows(number)
        mark = self._mark(number)
        if not mark.is_file():
            return "are not computed yet"

        try:
            known = read_json(mark)
        except ModelError:
            return f"have a damaged mark ({mark.name})"

        if known.get("key") != self.key:
            return f"belong to another store, by their mark ({mark.name})"
        if (known.get("first"), known.get("end")) != (rows.start, rows.stop):
            return f"have a mark ({mark.name}) for rows {known.get('first')} to {known.get('end')}"

        actual = _sha256(np.ascontiguousarray(array[rows.start : rows.stop]))
        if actual != known.get("sha256"):
            return f"are damaged: SHA-256 {actual[:12]}..., {str(known.get('sha256'))[:12]}... when written"
        return None

    def write(self, number: int, stored: np.ndarray, offset: int) -> None:
        """Put rows on the disk and mark them done, in this order.

        Parameters
        ----------
        number : int
            of the chunk
        stored : ndarray
            (k, ...) contiguous, as they are stored
        offset : int
            bytes before the first row of the file

        Raises
        ------
        MachineError
            When the disk is full; the chunk then stays missing.
        """
        rows = self.rows(number)
        data = stored.data.cast("B")

        # Without a mark from here to the end: a kill in between leaves rows that nobody reads.
        self.unmark(number)
        start = offset + rows.start * stored[0].nbytes

        with atomic.explained_write(self.folder / ROWS):
            # Not through a memory map: a full disk would kill the process there instead of raising.
            handle = os.open(self.folder / ROWS, os.O_WRONLY)
            try:
                written = 0
                while written < len(data):  # Linux takes 2 GB at most at once, and a signal may cut it short
                    written += os.pwrite(handle, data[written:], start + written)

                os.fsync(handle)
            finally:
                os.close(handle)

        mark = {"version": VERSION, "key": self.key, "first": rows.start, "end": rows.stop, "sha256": _sha256(stored)}
        atomic.write_text(self._mark(number), json.dumps(mark) + "\n")


def _storable(array: Any, ids: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Rows as they are stored, contiguous.

    Parameters
    ----------
    array : Any
        (k, *shape)
    ids : ndarray of shape (k,)
        of the rows
    shape : tuple of int
        of one row, and of the store
    dtype : dtype
        see `shape`

    Raises
    ------
    DataError
        For another shape, NaN or infinite values (float16 ends at 65,504), or what int16 cannot hold exactly.
    """
    given = np.asarray(array)  # (k, *shape)
    expected = (len(ids), *shape)
    if given.shape != expected:
        raise DataError(f"the rows from '{ids[0]}' to '{ids[-1]}' must be {expected}, but are {given.shape}.")

    # What does not fit becomes infinite or another number here, and is refused below with the id it belongs to.
    with np.errstate(over="ignore", invalid="ignore"):
        stored = np.ascontiguousarray(given, dtype=dtype)

    if dtype.kind == "i" and not np.array_equal(stored, given):  # also for NaN
        is_bad = (stored != given).reshape(len(ids), -1).any(axis=1)  # (k,)
        at = int(np.argwhere(is_bad)[0, 0])
        raise DataError(
            f"the row of '{ids[at]}' holds fractions, NaN or numbers beyond 32,767 and is not stored as int16; store float32."
        )

    if not np.isfinite(stored).all():
        is_bad = ~np.isfinite(stored).reshape(len(ids), -1).all(axis=1)  # (k,)
        at = int(np.argwhere(is_bad)[0, 0])
        if np.isfinite(given).all():
            hint = " float16 ends at 65,504; store float32."
        else:
            hint = ""

        raise DataError(f"the row of '{ids[at]}' holds NaN or infinite values and is not stored.{hint}")

    return stored


def _sha256(rows: np.ndarray) -> str:
    """Hash of contiguous rows, without a copy of them."""
    return hashlib.sha256(rows.data.cast("B")).hexdigest()
