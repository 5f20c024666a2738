"""Rows of numbers on disk, one per id: features computed once, by several workers, restartable, read as memory map.

::

    STORE/
      store.json          format, key (full SHA-256 of spec, ids, shape and dtype), spec, shape, dtype, unit, chunk
      ids.json            the ids, in the order of the rows
      rows.npy            (n, *shape) float16 or float32
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
import os
import socket
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from phosphene.errors import ConfigError, DataError, MachineError, ModelError, PhospheneWarning
from phosphene.run import atomic
from phosphene.run.folder import _is_alive, _read_lock, _started, read_json
from phosphene.run.progress import Progress
from phosphene.types.identity import as_slice, digest_of, positions, unique_ids

FORMAT = "phosphene-rows"
VERSION = 1
"""Version of the store's format that this phosphene writes; older ones are read, newer ones refused."""

INDEX, IDS, ROWS, CHUNKS, CLAIMS = "store.json", "ids.json", "rows.npy", "chunks", "claims"
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
        dtype: Literal["float16", "float32"] = "float32",
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
        dtype : what is stored; float16 halves the disk and keeps about three digits
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
        if dtype not in ("float16", "float32"):
            raise ConfigError(f"rows are stored as float16 or float32, not as {dtype!r}.")
        row_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        chunk = chunk or max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // row_bytes))
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
        if not (folder / INDEX).is_file():
            if folder.is_dir() and any(folder.iterdir()):
                _restore_index(folder, record, ids)
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
        """float16 or float32."""
        return np.dtype(self.record["dtype"]).newbyteorder("<")

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _rows(self) -> np.memmap:
        return np.load(self.folder / ROWS, mmap_mode="r", allow_pickle=False)

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
        n_chunks = -(-len(self.ids) // self.record["chunk"])
        return [self._chunk(c) for c in range(n_chunks) if self._mark(c).name not in done]

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
        for number in range(-(-len(self.ids) // self.record["chunk"])):
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
        for rows in set(map(self._chunk, range(-(-len(self.ids) // self.record["chunk"])))) - set(self.missing()):
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
            For another shape, NaN or infinite values (float16 ends at 65,504).
        MachineError
            When the disk is full; the chunk then stays missing.
        """
        number = self._number(rows)
        given = np.asarray(array)
        expected = (len(rows), *self.shape[1:])
        if given.shape != expected:
            raise DataError(f"rows {rows.start} to {rows.stop - 1} must be {expected}, but are {given.shape}.")
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(given, dtype=self.dtype)
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
        waiting_for, since = -1, time.monotonic()
        while missing := self.missing():
            n_done = 0
            for rows in progress.each(missing, f"{self.record['unit'] or 'rows'} ({len(self.ids)} in all)"):
                with self._claimed(rows) as mine:
                    if mine and not self._mark(self._number(rows)).is_file():
                        self.write(rows, self._computed(rows, compute, batch))
                        n_done += 1
            left = len(self.missing())
            if n_done or left != waiting_for:
                waiting_for, since = left, time.monotonic()
            elif time.monotonic() - since > patience_s:
                holder = _read_lock(self._claim(self._number(self.missing()[0])))
                raise MachineError(
                    f"{left} chunks of {self.folder} are claimed by other workers, but none was finished within "
                    f"{patience_s:.0f} s; the first is held by process {holder.get('pid')} on {holder.get('host')}. "
                    f"If it is dead, delete {self.folder / CLAIMS} and run again."
                )
            else:
                time.sleep(0.1)
        return self

    def _computed(self, rows: range, compute: Compute, batch: int | None) -> np.ndarray:
        ids = self.ids[rows.start : rows.stop]
        step = batch or len(ids)
        parts = [np.asarray(compute(ids[i : i + step])) for i in range(0, len(ids), step)]
        for part, start in zip(parts, range(0, len(ids), step), strict=True):
            if len(part) != len(ids[start : start + step]):
                raise DataError(f"{len(ids[start : start + step])} ids were given, but {len(part)} rows came back.")
        return np.concatenate(parts)

    def _claim(self, number: int) -> Path:
        return self.folder / CLAIMS / f"{number:06d}"

    @contextmanager
    def _claimed(self, rows: range) -> Iterator[bool]:
        """Whether this process may compute a chunk; a claim of a dead process of this machine is taken over."""
        claim = self._claim(self._number(rows))
        mine = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": _started(os.getpid()),
            "token": uuid.uuid4().hex,
        }
        if not _take(claim, mine):
            yield False
            return
        try:
            yield True
        finally:
            if _read_lock(claim).get("token") == mine["token"]:
                claim.unlink(missing_ok=True)

    # -- mending ---------------------------------------------------------------------------------------------------

    def _mend_rows(self) -> None:
        """Make rows.npy again, or longer, where a copy lost it; what the hashes then refuse is missing."""
        file, size = self.folder / ROWS, math.prod(self.shape) * self.dtype.itemsize
        try:
            rows = np.load(file, mmap_mode="r", allow_pickle=False)
            if rows.shape == self.shape and rows.dtype == self.dtype:
                return
        except (OSError, ValueError):
            pass
        (self.folder / CHUNKS).mkdir(exist_ok=True)
        (self.folder / CLAIMS).mkdir(exist_ok=True)
        blank = atomic.partial_name(file)
        with atomic.explained(file):
            try:
                offset = np.lib.format.open_memmap(blank, "w+", self.dtype, self.shape).offset
                if file.is_file():
                    # Keep the rows there are; the header is what a damaged file cannot be trusted for.
                    with open(blank, "r+b") as new, open(file, "rb") as old:
                        new.write(new.read(offset)[:0])
                        old.seek(offset)
                        new.seek(offset)
                        left = size
                        while left and (block := old.read(min(left, 1 << 24))):
                            new.write(block)
                            left -= len(block)
                        os.fsync(new.fileno())
                os.replace(blank, file)
            finally:
                with suppress(OSError):
                    blank.unlink(missing_ok=True)
        self.__dict__.pop("_rows", None)
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
        """float16 or float32."""
        return self.store.dtype

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Like an array of this shape: ``rows[10:20]``, ``rows[:, :768]``; what comes back is a copy in memory."""
        first, *rest = index if isinstance(index, tuple) else (index,)
        at = self.at[first]
        self.store._check(np.atleast_1d(at))
        where = at if np.ndim(at) == 0 else as_slice(at)
        block = self.store._rows[(where, *rest)] if isinstance(where, slice) else self.store._rows[where][_all(at, rest)]
        return np.array(block)


def cached(
    root: str | Path,
    spec: Mapping[str, Any],
    ids: Iterable[str],
    compute: Compute,
    *,
    shape: Sequence[int],
    dtype: Literal["float16", "float32"] = "float32",
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
    folder = atomic.checked_path(root) / key_of(_plain(spec), ids, shape, dtype)
    store = RowStore.open_or_make(folder, spec, ids, shape, dtype, unit=unit, chunk=chunk)
    if check is not None:
        check(store)
    return store.fill(compute, batch=batch, progress=progress)


def key_of(spec: Mapping[str, Any], ids: Iterable[str], shape: Sequence[int], dtype: str) -> str:
    """Full SHA-256 of what a store holds, independent of the order of the ids."""
    text = json.dumps(spec, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return digest_of(FORMAT, text, sorted(str(i) for i in ids), [int(s) for s in shape], str(dtype))


# -- files -------------------------------------------------------------------------------------------------------------


def _make(folder: Path, record: Mapping[str, Any], ids: np.ndarray) -> None:
    """A blank store. Of several processes that make one, the first to rename wins and the others use his."""
    shape = (record["n"], *record["shape"])
    size = math.prod(shape) * np.dtype(record["dtype"]).itemsize
    with atomic.explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = atomic._free_bytes(folder)
        if size > free:
            raise MachineError(
                f"{shape} rows of {record['dtype']} take {size / 1e9:.1f} GB, but {folder.parent} has "
                f"{free / 1e9:.1f} GB free. Free some space, choose another folder, or store float16."
            )
        temporary = atomic.partial_name(folder)
        try:
            (temporary / CHUNKS).mkdir(parents=True)
            (temporary / CLAIMS).mkdir()
            np.lib.format.open_memmap(temporary / ROWS, "w+", np.dtype(record["dtype"]).newbyteorder("<"), shape)
            atomic.write_text(temporary / IDS, json.dumps(list(ids), ensure_ascii=False) + "\n")
            atomic.write_text(temporary / INDEX, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
            try:
                os.rename(temporary, folder)
                atomic.fsync_folder(folder.parent)
            except OSError:
                if not (folder / INDEX).is_file():  # nobody else made it meanwhile: a true failure
                    raise
        finally:
            import shutil

            shutil.rmtree(temporary, ignore_errors=True)


def _restore_index(folder: Path, record: dict[str, Any], ids: np.ndarray) -> None:
    """store.json is gone: write it again if the marks say that the rows are these; their hashes stay in force."""
    if not (folder / CHUNKS).is_dir() or not (folder / IDS).is_file():
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:5])
        raise ConfigError(f"{folder} should hold a store or nothing, but holds {held}. Choose another folder.")
    marks = sorted((folder / CHUNKS).glob("[0-9]*.json"))
    chunk = record["chunk"]
    for mark in marks:
        with suppress(ModelError):
            known = read_json(mark)
            _refuse_newer(mark, known)
            if known.get("key") != record["key"]:
                raise ConfigError(
                    f"{folder} lost its {INDEX}, and its rows were made from something else than what is asked for "
                    f"(key {str(known.get('key'))[:12]}..., not {record['key'][:12]}...). Choose another folder."
                )
            if known["end"] != record["n"]:
                chunk = known["end"] - known["first"]
    with suppress(OSError, ValueError):
        if digest_of(sorted(json.loads((folder / IDS).read_text(encoding="utf-8")))) != record["ids_sha256"]:
            raise ConfigError(f"{folder} lost its {INDEX}, and its ids are not those asked for. Choose another folder.")
    warnings.warn(
        f"{folder / INDEX} was gone and is written again; {len(marks)} finished chunks are kept and checked.",
        PhospheneWarning,
        stacklevel=3,
    )
    atomic.write_text(folder / INDEX, json.dumps({**record, "chunk": chunk}, indent=1, ensure_ascii=False) + "\n")


def _take(claim: Path, mine: Mapping[str, Any]) -> bool:
    for _ in range(2):
        with atomic.explained(claim):
            try:
                handle = os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                holder = _read_lock(claim)
                if _is_alive(holder):
                    return False
                # Taken away by renaming: of two that find it dead, one succeeds. A fresh claim caught by mistake
                # goes back to its place.
                grave = atomic.partial_name(claim)
                with suppress(FileNotFoundError):
                    os.rename(claim, grave)
                    if _read_lock(grave) != holder:
                        with suppress(OSError):
                            os.link(grave, claim)
                    grave.unlink(missing_ok=True)
                continue
        with os.fdopen(handle, "w") as file:
            json.dump(mine, file)
        return True
    return False


def _refuse_newer(file: Path, record: Mapping[str, Any]) -> None:
    version = record.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise _NewerFormat(
            f"{file} is of version {version}, but this phosphene reads and writes up to {VERSION}; it was made by a "
            "newer one. Upgrade phosphene, or choose another folder; this one is left as it is."
        )


class _NewerFormat(ModelError):
    pass


def _plain(spec: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(spec, sort_keys=True, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"what rows are must be said in plain values (JSON), but: {error}.") from error


def _difference(held: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """What differs between two stores, for people."""
    old = {**held.get("spec", {}), **{k: held.get(k) for k in ("shape", "dtype", "n", "ids_sha256")}}
    new = {**asked["spec"], **{k: asked[k] for k in ("shape", "dtype", "n", "ids_sha256")}}
    parts = [f"{k} is {old.get(k)!r} there, {new.get(k)!r} here" for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    return "; ".join(parts[:4]) or f"key {held['key'][:12]}... there, {asked['key'][:12]}... here"


def _all(at: np.ndarray, rest: list[Any]) -> tuple[Any, ...]:
    return tuple(rest) if np.ndim(at) == 0 else (slice(None), *rest)
