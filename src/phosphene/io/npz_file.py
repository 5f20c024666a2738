"""Archives of NumPy arrays, read only where what they announce is what they hold, in proportion, and fits into memory."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from phosphene.errors import DataError
from phosphene.io import memory

SHAPE = "If that shape is not what you expect, the file is damaged or made to exhaust the memory; do not use it."

RATIO = 100
"""Most bytes for each byte of a packed array; one of zeros reaches 1000, and measured ones 2."""

RATIO_ABOVE = 64 * 2**20
"""Bytes below which any ratio is fine."""


def npz_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of every array, after comparing what is announced with what is there.

    Parameters
    ----------
    path : Path
        a ``.npz`` file

    Returns
    -------
    dict of str to tuple
        by name, without members that are no arrays

    Raises
    ------
    DataError
        When an array announces more than the archive holds, or unpacks out of proportion.
    BadZipFile, ValueError
        When the archive or a header is damaged.
    """
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as handle:
                if handle.read(6) != np.lib.format.MAGIC_PREFIX:
                    continue

                handle.seek(0)
                shape, dtype = npy_header(handle)

            # Objects are pickled to any length; those are refused when they are read.
            n_bytes = math.prod(shape) * dtype.itemsize
            if not dtype.hasobject and n_bytes > member.file_size:
                raise DataError(
                    f"'{name}' in {path} announces shape {shape} of {dtype}, {memory.size(n_bytes)}, but the archive holds "
                    f"{memory.size(member.file_size)} of it. {SHAPE}"
                )

            check_ratio(member.file_size, member.compress_size, f"'{name}' in {path}")
            headers[name] = (shape, dtype)

    return headers


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Every array of an archive.

    Parameters
    ----------
    path : str or Path
        a ``.npz`` file

    Returns
    -------
    dict of str to ndarray
        by name

    Raises
    ------
    DataError
        See `npz_headers`.
    MachineError
        When they do not fit into memory.
    OSError, ValueError, EOFError, KeyError, BadZipFile
        When it is damaged, or holds pickled objects.
    """
    headers = npz_headers(Path(path))
    n_bytes = sum(math.prod(shape) * dtype.itemsize for shape, dtype in headers.values())
    memory.require_memory(n_bytes, f"the arrays of {path}", SHAPE)

    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in headers}


def npy_header(handle: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type from the beginning of a ``.npy`` file.

    Parameters
    ----------
    handle : file
        open for reading, at its beginning

    Returns
    -------
    tuple of (tuple of int, dtype)
        as announced

    Raises
    ------
    ValueError
        When it is damaged.
    """
    version = np.lib.format.read_magic(handle)
    if version == (1, 0):
        reader = np.lib.format.read_array_header_1_0
    else:
        reader = np.lib.format.read_array_header_2_0

    shape, _, dtype = reader(handle)
    return shape, dtype


def check_ratio(n_bytes: int, packed: int, what: str) -> None:
    """Refuse what would unpack to much more than measured numbers do.

    Parameters
    ----------
    n_bytes : int
        unpacked
    packed : int
        as stored
    what : str
        it is, as the subject of a sentence

    Raises
    ------
    DataError
        With the way out.
    """
    if n_bytes > RATIO_ABOVE and n_bytes > RATIO * packed:
        raise DataError(
            f"{what} has {memory.size(packed)} and would unpack to {memory.size(n_bytes)}, more than {RATIO} times as much: "
            "made to exhaust the memory? It is not read; if you trust it, store it without packing it."
        )
