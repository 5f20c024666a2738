"""Matrices larger than memory, read in blocks, checked on the way and let go of afterwards."""

from __future__ import annotations

import mmap
import numbers
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from phosphene.errors import ConfigError, DataError, MachineError

Precision = type[np.float32] | type[np.float64]
ALL = slice(None)
MAPPED = 64 << 20  # bytes of a map that may count as memory of ours at one time
LARGEST = 1e15  # beyond, products of ordinary sums overflow or round to nothing
SCRATCH = 2 << 20  # bytes read from a file at a time: they are still in the cache when they are converted


class BlockReader:
    """A matrix (rows, columns) that is only ever read block by block.

    Parameters
    ----------
    source : array-like of shape (n, p)
        array, memory map or HDF5 data set of real numbers; anything with a shape that can be sliced
    name : str
        what messages call it

    Raises
    ------
    DataError
        If it is not two-dimensional, is empty, or holds objects, text or complex numbers.
    """

    def __init__(self, source: ArrayLike, name: str):
        self.name = name
        self.array: Any = source  # anything that slices, not only arrays

        # Maps and HDF5 data sets stay where they are; lists, data frames and tensors become arrays.
        is_lazy = isinstance(getattr(source, "dtype", None), np.dtype) and not hasattr(source, "toarray")
        if not is_lazy:
            try:
                self.array = np.asarray(source)
            except ValueError as error:
                raise DataError(f"{name} must be a matrix with rows of equal length: {error}") from None

        shape = tuple(self.array.shape)
        dtype = self.array.dtype

        if len(shape) != 2:
            raise DataError(
                f"{name} must be a matrix (rows, columns) but has shape {shape}; "
                f"reshape it, for one column with {name}[:, None]."
            )

        if 0 in shape:
            raise DataError(f"{name} is empty: shape {shape}. Look at the selection or split that made it.")

        if dtype.kind not in "fiub":
            raise DataError(f"{name} must hold real numbers but {_what_is_wrong(self.array)}.")

        self.shape: tuple[int, int] = shape
        self._file = None
        if isinstance(self.array, np.ndarray):
            self._file = _mapped_file(self.array)

    def block(
        self,
        rows: slice | ArrayLike = ALL,
        columns: slice = ALL,
        minus: np.ndarray | None = None,
        dtype: DTypeLike = np.float32,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """A contiguous copy of a block.

        Parameters
        ----------
        rows : slice or array-like of int, optional
            ascending row numbers; all by default
        columns : slice, optional
            all by default
        minus : ndarray of shape (columns,), optional
            taken off every row, before values are rounded to `dtype`
        dtype : dtype-like, default float32
            of the copy, in native byte order
        out : ndarray of shape (rows, columns), optional
            to write to instead of new memory

        Returns
        -------
        ndarray of shape (rows, columns)
        """
        if isinstance(rows, slice):
            rows = np.arange(self.shape[0])[rows]
        else:
            rows = np.asarray(rows)

        columns = slice(*columns.indices(self.shape[1]))
        if out is None:
            out = np.empty((len(rows), columns.stop - columns.start), dtype)

        for part, raw in self._read(rows, columns):
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found by `check`
                if minus is None:
                    np.copyto(out[part], raw, casting="unsafe")
                else:
                    np.subtract(raw, minus, out=out[part], casting="unsafe")

        return out

    def _read(self, rows: np.ndarray, columns: slice) -> Iterator[tuple[slice, np.ndarray]]:
        """Rows in the source's own format, some at a time, each good until the next."""
        if self._file is not None:
            # Reading from the file costs a third of touching its map, whose pages would all count as memory of ours.
            descriptor = self._file.open()
            if descriptor is not None:
                yield from self._read_file(self._file, descriptor, rows, columns)
                return

        is_run = rows[-1] - rows[0] + 1 == len(rows)  # a slice is not copied in between
        at_once = len(rows)
        if self.is_mapped:
            at_once = max(1, MAPPED // (self.shape[1] * self.array.dtype.itemsize))

        for part in spans(len(rows), at_once):
            picked = rows[part]
            if is_run:
                picked = slice(int(picked[0]), int(picked[-1]) + 1)

            yield part, self.array[picked, columns]
            if at_once < len(rows):
                self.forget()

    def _read_file(
        self, file: _MappedFile, descriptor: int, rows: np.ndarray, columns: slice
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """The same from the file behind a memory map, whose descriptor is closed at the end."""
        item = self.array.dtype.itemsize
        stride = self.array.strides[0]
        width = columns.stop - columns.start
        parts = list(spans(len(rows), SCRATCH // (width * item)))
        scratch = np.empty((parts[0].stop, width), self.array.dtype)

        try:
            for part in parts:
                picked = rows[part]
                for row, line in zip(picked.tolist(), scratch, strict=False):
                    offset = file.offset + row * stride + columns.start * item
                    n_read = os.preadv(descriptor, [line.view(np.uint8).data], offset)
                    if n_read != width * item:
                        raise MachineError(f"{self.name}: row {row} could not be read; {file.path} has been cut short.")

                yield part, scratch[: len(picked)]
        finally:
            os.close(descriptor)

    def mean(self, budget: int) -> np.ndarray:
        """Mean of every column (p,) in float64; the one pass in which every value is checked.

        Raises
        ------
        DataError
            As `check`.
        """
        total = np.zeros(self.shape[1])
        for rows in spans(self.shape[0], budget // (8 * self.shape[1])):
            block = self.block(rows)
            self.check(block, rows.start, 0)
            total += block.sum(axis=0, dtype=np.float64)

        self.forget()
        mean = total / self.shape[0]  # (p,)

        # A second pass on what is left corrects the rounding of wide sources to float32.
        if self.array.dtype.itemsize > 4:
            rest = np.zeros_like(total)
            for rows in spans(self.shape[0], budget // (8 * self.shape[1])):
                rest += self.block(rows, minus=mean, dtype=np.float64).sum(axis=0)

            mean += rest / self.shape[0]
            self.forget()

        return mean

    def check(self, block: np.ndarray, row: int, column: int) -> None:
        """Refuse a block that holds a value that cannot be used, by naming the first.

        Parameters
        ----------
        block : ndarray
            part of the matrix
        row, column : int
            where it starts

        Raises
        ------
        DataError
            For values that are not finite, or beyond 1e15.
        """
        if is_ordinary(block):
            return

        bad = ~np.isfinite(block)
        kind = "is not a finite number"
        if not bad.any():
            bad = np.abs(block) > LARGEST
            kind = "is beyond the 1e15 that arithmetic here is good for"

        if not bad.any():
            return

        i, j = np.argwhere(bad)[0]
        value = float(self.array[int(row + i), int(column + j)])
        raise DataError(
            f"{self.name} must hold finite numbers of ordinary size, but row {row + i}, column {column + j} is "
            f"{value:g}, which {kind}; {bad.any(axis=1).sum()} rows and {bad.any(axis=0).sum()} columns of this block "
            f"are affected. "
            f"Drop or repair them before fitting; nothing was replaced."
        )

    @property
    def is_mapped(self) -> bool:
        """Whether the values live in a file rather than in memory."""
        return isinstance(_owner(self.array), mmap.mmap) or not isinstance(self.array, np.ndarray)

    def forget(self) -> None:
        """Give the pages of a read-only or shared memory map back; the file keeps them."""
        array = self.array
        mode = None

        while isinstance(array, np.ndarray):
            mode = getattr(array, "mode", mode) or mode
            array = array.base

        if isinstance(array, mmap.mmap) and mode in ("r", "r+", "w+") and hasattr(mmap, "MADV_DONTNEED"):
            array.madvise(mmap.MADV_DONTNEED)


def is_ordinary(block: np.ndarray) -> bool:
    """False if a contiguous block holds NaN, infinity or absurd values; one pass at the speed of memory."""
    flat = block.reshape(-1)  # a view
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.dot(flat, flat) < LARGEST**2)


def spans(size: int, width: int) -> Iterator[slice]:
    """Slices of about equal width, at most ``width`` (at least 1), that cover ``range(size)``."""
    count = -(-size // max(1, int(width)))
    width = -(-size // count)

    for start in range(0, size, width):
        yield slice(start, min(start + width, size))


@dataclass(frozen=True)
class _MappedFile:
    """The file behind a memory map, and where in it an array begins."""

    path: str
    device: int
    inode: int
    offset: int

    def open(self) -> int | None:
        """A descriptor to read from, or None if another file has taken the name since."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError:
            return None

        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) == (self.device, self.inode):
            return descriptor

        os.close(descriptor)
        return None


def _mapped_file(array: np.ndarray) -> _MappedFile | None:
    """The file a shared map of rows comes from, as the kernel tells it (Linux); None where that is not known."""
    if array.strides[1] != array.dtype.itemsize or array.strides[0] <= 0 or type(_owner(array)) is not mmap.mmap:
        return None

    address = array.__array_interface__["data"][0]
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None

    for line in lines:
        span, mode, offset, device, inode, *path = line.split(maxsplit=5)
        start, stop = (int(part, 16) for part in span.split("-"))
        if start <= address < stop and mode.endswith("s") and path:  # a private map may differ from its file
            major, minor = (int(part, 16) for part in device.split(":"))
            return _MappedFile(path[0], os.makedev(major, minor), int(inode), int(offset, 16) + address - start)

    return None


def _owner(array: Any) -> Any:
    """What the memory of an array belongs to in the end."""
    while isinstance(array, np.ndarray):
        array = array.base

    return array


def destination(out: np.ndarray | None, shape: tuple[int, int], dtype: DTypeLike = np.float32) -> np.ndarray:
    """A new array in memory, or `out` if its shape and dtype are right.

    Raises
    ------
    ConfigError
        If they are not.
    """
    if out is None:
        return np.empty(shape, dtype)

    if tuple(out.shape) != shape or out.dtype != dtype:
        raise ConfigError(
            f"out must have shape {shape} and dtype {np.dtype(dtype)} but has {tuple(out.shape)} and {out.dtype}."
        )

    return out


def _what_is_wrong(array: Any) -> str:
    dtype = array.dtype
    if dtype.kind == "c":
        return f"is complex ({dtype}); give its real part, or magnitude and phase as separate columns"

    if dtype.kind == "O":
        for i, row in enumerate(array):
            for j, value in enumerate(row):
                if not isinstance(value, numbers.Real):
                    return (
                        f"is an object array whose row {i}, column {j} is {value!r} of type {type(value).__name__}; "
                        f"clean it and convert with .astype('float32')"
                    )

        return "is an object array; convert it with .astype('float32')"

    return f"has dtype {dtype}; convert it with .astype('float32')"
