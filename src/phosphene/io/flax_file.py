"""Flax checkpoints as plain arrays: a reader of MessagePack with Flax's array type, and nothing that could run code.

A value of MessagePack begins with one byte that says its kind, and for short values its length or the value itself. Flax
adds two kinds of its own, extension types, for arrays and for numbers of numpy.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from phosphene.errors import ModelError
from phosphene.io.reading import reads

__all__ = ["read_flax"]

_DEEPEST = 64  # values inside values; a real checkpoint has fewer than ten

# Flax's extension types.
_ARRAY = 1
_SCALAR = 3

# First byte of numbers: how the bytes after it are packed. First byte of what has a length: its kind, and how the length is.
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_SIZED = {
    0xC4: ("bin", ">B"), 0xC5: ("bin", ">H"), 0xC6: ("bin", ">I"), 0xC7: ("ext", ">B"), 0xC8: ("ext", ">H"),
    0xC9: ("ext", ">I"), 0xD9: ("str", ">B"), 0xDA: ("str", ">H"), 0xDB: ("str", ">I"), 0xDC: ("list", ">H"),
    0xDD: ("list", ">I"), 0xDE: ("map", ">H"), 0xDF: ("map", ">I"),
}  # fmt: skip


@reads("file", ModelError)
def read_flax(file: str | Path) -> dict[str, Any]:
    """The tree of a Flax checkpoint (``flax.serialization.msgpack_serialize``).

    Parameters
    ----------
    file : str or Path
        of MessagePack; arrays are extension type 1: shape, name of the dtype, bytes

    Returns
    -------
    dict[str, Any]
        nested dicts of arrays, read-only, and plain values; bfloat16 becomes float32 without loss

    Raises
    ------
    ModelError
        For a file that cannot be read, is damaged or truncated, or holds types that Flax does not write.
    """
    file = Path(file)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror}).") from error

    try:
        reader = _MessagePackReader(memoryview(data))  # a view, so that arrays are parts of the file and no copies
        tree = reader.value()
        if reader.position != len(data):
            raise ValueError(f"{len(data) - reader.position} bytes follow its end")
        if not isinstance(tree, dict):
            raise ValueError(f"it holds a {type(tree).__name__} instead of a tree of names")
    except (ValueError, UnicodeDecodeError, struct.error, TypeError, OverflowError) as error:
        raise ModelError(
            f"{file} is no valid Flax checkpoint: {error}. Fetch it again and compare its size."
        ) from error

    return tree


class _MessagePackReader:
    """Values from bytes, one after the other; ValueError where they are none."""

    def __init__(self, data: memoryview):
        self.data = data
        self.position = 0
        self.depth = 0

    def take(self, n: int) -> memoryview:
        """The next `n` bytes."""
        # A slice would be shorter without a word, and an array of another length would follow.
        n_left = len(self.data) - self.position
        if n > n_left:
            raise ValueError(f"{n} bytes are announced at byte {self.position}, but {n_left} are left")

        start = self.position
        self.position += n
        return self.data[start : self.position]

    def number(self, form: str) -> Any:
        """The next number, packed as :mod:`struct` writes it."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def value(self) -> Any:
        """The next value of any kind."""
        first = self.number(">B")  # MessagePack is big-endian throughout; the arrays inside it are not

        # Small integers are their own first byte, positive and negative.
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 256

        # Short maps, lists and texts have their length in it.
        if first < 0x90:
            return self.sized("map", first & 0x0F)
        if first < 0xA0:
            return self.sized("list", first & 0x0F)
        if first < 0xC0:
            return self.sized("str", first & 0x1F)

        if first in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[first]
        if first in _NUMBERS:
            return self.number(_NUMBERS[first])

        if first in _SIZED:
            kind, form = _SIZED[first]
            return self.sized(kind, self.number(form))

        if 0xD4 <= first <= 0xD8:
            return self.sized("ext", 1 << (first - 0xD4))  # 1, 2, 4, 8 or 16 bytes

        raise ValueError(f"byte {self.position - 1} is 0x{first:02x}, which MessagePack does not use")

    def sized(self, kind: str, n: int) -> Any:
        """A value of `n` bytes or entries."""
        if kind == "bin":
            return self.take(n)
        if kind == "str":
            return str(self.take(n), "utf-8")
        if kind == "ext":
            return self.extension(self.number(">b"), self.take(n))

        # Lists in lists without end would meet Python's limit of recursion, whose message says nothing of a file.
        self.depth += 1
        if self.depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} deep")

        if kind == "list":
            content: Any = [self.value() for _ in range(n)]
        else:
            content = self.mapping(n)

        self.depth -= 1
        return content

    def mapping(self, n: int) -> dict[str, Any]:
        """`n` values by name."""
        content = {}
        for _ in range(n):
            key = self.value()
            # Of two weights of one name, either could be the one that was meant.
            if not isinstance(key, str) or key in content:
                raise ValueError(f"the key {key!r} before byte {self.position} is no text or stands twice")

            content[key] = self.value()
        return content

    def extension(self, kind: int, data: memoryview) -> Any:
        """An array, or a number of numpy: shape, name of the dtype, bytes."""
        if kind not in (_ARRAY, _SCALAR):
            raise ValueError(f"it holds the extension type {kind}; 1 (array) and 3 (number) are known")

        # The bytes of the extension are MessagePack again, with a depth of its own.
        shape, name, buffer = _MessagePackReader(data).value()
        if not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError(f"an array has the shape {shape}")

        if name == "bfloat16":
            # The upper half of a float32; numpy has no such type.
            bits = np.frombuffer(buffer, dtype="<u2").astype(np.uint32) << 16
            return bits.view(np.float32).reshape(shape)

        dtype = np.dtype(name).newbyteorder("<")

        # Numbers only: an array of objects would be pickled.
        if dtype.kind not in "fiub":
            raise ValueError(f"an array has the dtype {name}")
        return np.frombuffer(buffer, dtype=dtype).reshape(shape)
