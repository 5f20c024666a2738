"""The skeleton of a MATLAB 5 file, walked before scipy reads it: a tag of no known type makes its compiled reader crash.

A file is a header of 128 bytes and a row of elements. An element has a tag, which says type and bytes, and what it says
is there; a variable is one of them that holds others, a compressed one a variable in zlib's format (MATLAB, "MAT-File
Format", level 5).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from phosphene.errors import DataError

_HEADER = 128
_MATRIX = 14
_COMPRESSED = 15
_PLAIN = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18}
_DEEPEST = 64  # cells in cells
_CHUNK = 1 << 20

Read = Callable[[int], bytes]
"""The next bytes: at most so many, fewer only at the end."""


def check_tags(path: Path) -> None:
    """Refuse a file whose elements do not have types that exist, or do not end where they say.

    Parameters
    ----------
    path : Path
        MATLAB 5 to 7.2

    Raises
    ------
    DataError
        Naming the place.
    """
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(126)
        order = {b"IM": "<", b"MI": ">"}.get(file.read(2), "")
        if not order:
            raise DataError(f"{path} is no MATLAB 5 file: its header does not say how its bytes are ordered.")
        place = _HEADER
        while place + 8 <= size:
            file.seek(place)
            kind, length = struct.unpack(f"{order}II", file.read(8))
            try:
                if kind not in (_MATRIX, _COMPRESSED) or length > size - place - 8:
                    raise ValueError(f"an element of type {kind} with {length} bytes, where a variable was expected")
                if kind == _COMPRESSED:
                    _variable_in(_unzipped(file, length), order)
                else:
                    _walk(file.read, length, order, 0)
            except (ValueError, struct.error, zlib.error) as error:
                raise DataError(
                    f"{path} is damaged or truncated (variable at byte {place}: {error}; the file has {size} bytes). "
                    "Download or copy it again and compare its size with the original."
                ) from error

            place += 8 + length


def _variable_in(read: Read, order: str) -> None:
    kind, length = struct.unpack(f"{order}II", read(8))
    if kind != _MATRIX:
        raise ValueError(f"an element of type {kind} in a compressed one, where a variable was expected")
    _walk(read, length, order, 0)


def _walk(read: Read, left: int, order: str, depth: int) -> None:
    """The elements of a variable; what the last of them holds is read only where more variables follow in the same one."""
    if depth > _DEEPEST:
        raise ValueError(f"variables in variables, {_DEEPEST} deep")

    while left > 0:
        kind, length = struct.unpack(f"{order}II", read(8))
        left -= 8
        if kind >> 16:  # up to four bytes, within the tag
            kind = kind & 0xFFFF
            length = 0

        if kind not in _PLAIN and kind != _MATRIX:
            raise ValueError(f"an element of type {kind}, which there is not")

        if kind == _MATRIX:
            padded = length
        else:
            padded = -(-length // 8) * 8

        if length > left:
            raise ValueError(f"an element of {length} bytes where {left} are left")

        if kind == _MATRIX:
            _walk(read, length, order, depth + 1)
        elif depth or padded < left:
            _skip(read, min(padded, left))

        left -= padded


def _skip(read: Read, n: int) -> None:
    while n > 0:
        got = len(read(min(n, _CHUNK)))
        if not got:
            raise ValueError(f"the file ends {n} bytes early")
        n -= got


def _unzipped(file: BinaryIO, left: int) -> Read:
    """What `left` bytes of a file hold, unpacked as it is asked for."""
    stream = zlib.decompressobj()
    ready = b""

    def read(n: int) -> bytes:
        nonlocal left, ready
        while len(ready) < n and not stream.eof:
            packed = stream.unconsumed_tail or file.read(min(left, 1 << 14))
            if not packed:
                break

            if stream.unconsumed_tail:
                left -= 0
            else:
                left -= len(packed)

            ready += stream.decompress(packed, _CHUNK)

        out = ready[:n]
        ready = ready[n:]
        return out

    return read
