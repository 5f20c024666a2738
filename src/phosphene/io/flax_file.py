"""Flax checkpoints as plain arrays: a reader of MessagePack with Flax's array type, and nothing that could run code."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from phosphene.errors import ModelError
from phosphene.io.reading import reads

_DEEPEST = 64
_ARRAY = 1
_SCALAR = 3
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
    dict of {str: Any}
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
        reader = _Reader(memoryview(data))
        tree = reader.value()
        if reader.at != len(data):
            raise ValueError(f"{len(data) - reader.at} bytes follow its end")
        if not isinstance(tree, dict):
            raise ValueError(f"it holds a {type(tree).__name__} instead of a tree of names")
    except (ValueError, UnicodeDecodeError, struct.error, TypeError, OverflowError) as error:
        raise ModelError(
            f"{file} is no valid Flax checkpoint: {error}. Fetch it again and compare its size."
        ) from error

    return tree


class _Reader:
    def __init__(self, data: memoryview):
        self.data = data
        self.at = 0
        self.depth = 0

    def take(self, n: int) -> memoryview:
        if self.at + n > len(self.data):
            raise ValueError(f"{n} bytes are announced at byte {self.at}, but {len(self.data) - self.at} are left")

        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def value(self) -> Any:
        first = self.number(">B")
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 256
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
            return self.sized("ext", 1 << (first - 0xD4))

        raise ValueError(f"byte {self.at - 1} is 0x{first:02x}, which MessagePack does not use")

    def sized(self, kind: str, n: int) -> Any:
        if kind == "bin":
            return self.take(n)
        if kind == "str":
            return str(self.take(n), "utf-8")
        if kind == "ext":
            return self.extension(self.number(">b"), self.take(n))

        self.depth += 1
        if self.depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} deep")

        if kind == "list":
            out: Any = [self.value() for _ in range(n)]
        else:
            out = {}
            for _ in range(n):
                key = self.value()
                if not isinstance(key, str) or key in out:
                    raise ValueError(f"the key {key!r} before byte {self.at} is no text or stands twice")

                out[key] = self.value()

        self.depth -= 1
        return out

    def extension(self, kind: int, data: memoryview) -> Any:
        if kind not in (_ARRAY, _SCALAR):
            raise ValueError(f"it holds the extension type {kind}; 1 (array) and 3 (number) are known")

        inner = _Reader(data)
        shape, name, buffer = inner.value()
        if not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError(f"an array has the shape {shape}")

        if name == "bfloat16":
            bits = np.frombuffer(buffer, dtype="<u2").astype(np.uint32) << 16
            return bits.view(np.float32).reshape(shape)

        dtype = np.dtype(name).newbyteorder("<")
        if dtype.kind not in "fiub":
            raise ValueError(f"an array has the dtype {name}")

        return np.frombuffer(buffer, dtype=dtype).reshape(shape)
