"""Checkpoints of other projects, read without running anything that is in them.

A ``.pt`` or ``.pth`` file of PyTorch is a pickle next to raw numbers, and a pickle can call any function of the machine
that opens it. Here a pickle may name nothing but what describes a tensor; anything else is refused with its name. Each
tensor's numbers are read from the file when that tensor is asked for, so that the optimiser state of a large checkpoint
never enters memory.

    >>> weights = read_foreign("fmri_encoder.pth", "model", inert=["config.Config_MBM_fMRI"])  # doctest: +SKIP

Two layouts are known: the zip archive of ``torch.save`` since PyTorch 1.6, and the stream of pickles before it.
"""

from __future__ import annotations

import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from phosphene.errors import ModelError, did_you_mean
from phosphene.io import memory
from phosphene.io.pickle_check import check_pickle
from phosphene.types.identity import few

if TYPE_CHECKING:
    import torch

__all__ = ["ForeignCheckpoint", "ForeignTensor", "must_fit", "read_foreign"]

# What the layout before PyTorch 1.6 begins with.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

_LARGEST_PICKLE = 256 * 2**20  # bytes of names and shapes; a real one has a few hundred kilobytes

# PyTorch's names of storages, the precision of each, and its bytes.
# Quantised and complex storages are left out: no network of ours has any, and they would need code of their own.
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1,
    "bool": 1,
}  # fmt: skip


class ForeignStorage(NamedTuple):
    """Numbers in the file that tensors are views of.

    Attributes
    ----------
    key : str
        their name in the file
    dtype : str
        their precision, such as "float32"
    size : int
        how many they are
    """

    key: str
    dtype: str
    size: int


class ForeignTensor(NamedTuple):
    """Where a tensor lies in its file; its numbers are not read yet.

    Attributes
    ----------
    storage : ForeignStorage
        what it is a view of
    offset : int
        of its first value, in values
    shape : tuple of int
        of the tensor
    stride : tuple of int
        values from one entry of each axis to the next
    """

    storage: ForeignStorage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class ForeignCheckpoint:
    """What a foreign checkpoint says it holds, with tensors that are read on demand.

    Parameters
    ----------
    file : str or Path
        a file of ``torch.save``
    inert : collection of str, default ()
        full names, such as ``"config.Settings"``, of further classes the file may name. Their instances become empty
        shells that only keep their attributes; the classes themselves are never imported.

    Attributes
    ----------
    file : Path
        as given
    content : object
        what was saved: dicts, lists, plain values, and `ForeignTensor` in place of tensors

    Raises
    ------
    ModelError
        When the file names anything that is not on the list, is damaged, or is no such file.
    """

    def __init__(self, file: str | Path, inert: Collection[str] = ()) -> None:
        self.file = Path(file)
        self._root = ""  # in a zip archive: the folder that all is in
        self._sizes: dict[str, int] = {}  # in the older layout: bytes of a value, by storage
        self._places: dict[str, tuple[int, int]] = {}  # likewise: where its numbers begin, and their bytes

        try:
            self._is_zip = zipfile.is_zipfile(self.file)
            if self._is_zip:
                self.content = self._open_zip(inert)
            else:
                self.content = self._open_legacy(inert)
        except OSError as error:
            raise ModelError(f"the checkpoint {self.file} cannot be read ({error.strerror or error}).") from error

    def tensors(self, *path: str) -> dict[str, torch.Tensor]:
        """The tensors of one mapping of the checkpoint, on the CPU, in their own precision.

        Parameters
        ----------
        *path : str
            keys that lead to the mapping, such as ``"model"``; the whole content by default

        Returns
        -------
        dict[str, Tensor]
            by name

        Raises
        ------
        ModelError
            When there is no such mapping, it holds something other than tensors, or its numbers are damaged.
        """
        entry: Any = self.content
        for key in path:
            known = []
            if isinstance(entry, Mapping):
                known = [name for name in entry if isinstance(name, str)]

            if key not in known:
                raise ModelError(f"{self.file} has no entry '{key}'. {did_you_mean(key, known)}")
            entry = entry[key]

        where = ".".join(path) or "the content"
        if not isinstance(entry, Mapping):
            raise ModelError(f"{where} of {self.file} should be tensors by name but is of type {type(entry).__name__}.")

        for name, value in entry.items():
            if not (isinstance(name, str) and isinstance(value, ForeignTensor)):
                raise ModelError(
                    f"{where} of {self.file} should hold tensors by name, but {name!r} is of type {type(value).__name__}; "
                    "name the entry that holds the weights."
                )

        cache: dict[str, bytearray] = {}
        return {name: self._read(name, value, cache) for name, value in entry.items()}

    def every_tensor(self) -> dict[str, torch.Tensor]:
        """Every tensor at the top of the content, by its name; a single one that was saved alone has the name ``""``.

        Returns
        -------
        dict[str, Tensor]
            on the CPU, in their own precision; entries that are no tensors are left out

        Raises
        ------
        ModelError
            When their numbers are damaged.
        """
        entries: dict[str, ForeignTensor] = {}
        if isinstance(self.content, ForeignTensor):
            entries[""] = self.content
        elif isinstance(self.content, Mapping):
            for name, value in self.content.items():
                if isinstance(value, ForeignTensor):
                    entries[str(name)] = value

        cache: dict[str, bytearray] = {}
        return {name: self._read(name, value, cache) for name, value in entries.items()}

    # -- the two layouts -------------------------------------------------------------------------------------------

    def _open_zip(self, inert: Collection[str]) -> Any:
        """Content of a zip archive: one pickle of names and shapes, and one stored file for each storage."""
        try:
            with zipfile.ZipFile(self.file) as archive:
                listed = {info.filename: info for info in archive.infolist()}
                pickles = [name for name in listed if name == "data.pkl" or name.endswith("/data.pkl")]
                roots = {name.removesuffix("data.pkl") for name in pickles}

                # Exactly one pickle, and no code: TorchScript has constants next to its code.
                if len(roots) != 1 or any(f"{root}constants.pkl" in listed for root in roots):
                    if roots:
                        what = "TorchScript code"
                    else:
                        what = "no data.pkl"

                    raise ModelError(
                        f"{self.file} is a zip archive with {what}, not the weights of a torch.save; ask its authors for "
                        "a state dictionary or a safetensors file."
                    )

                self._root = roots.pop()

                # torch.save packs nothing, so what is packed could unfold to any size.
                n_bytes = self.file.stat().st_size
                packed = []
                for name, info in listed.items():
                    if info.compress_type != zipfile.ZIP_STORED or info.file_size > n_bytes:
                        packed.append(name)

                if packed or listed[pickles[0]].file_size > _LARGEST_PICKLE:
                    raise ModelError(f"{self.file} is packed in a way torch.save never does; it is refused.")
                if f"{self._root}byteorder" in listed and archive.read(f"{self._root}byteorder").strip() != b"little":
                    raise ModelError(f"{self.file} was written on a big-endian machine, which is not supported.")

                with archive.open(pickles[0]) as stream:
                    return self._unpickle(stream, inert)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise ModelError(f"{self.file} is damaged or cut short ({error}); download it again.") from error

    def _open_legacy(self, inert: Collection[str]) -> Any:
        """Content of the older layout: five pickles one after the other, then the numbers of each storage."""
        with open(self.file, "rb") as stream:
            # Two numbers that torch.save wrote first. They are compared before anything that could be of use is read.
            if self._unpickle(stream, ()) != _LEGACY_MAGIC or self._unpickle(stream, ()) != _LEGACY_PROTOCOL:
                raise ModelError(
                    f"{self.file} is a bare pickle or another kind of file, not a checkpoint of torch.save. A pickle can "
                    "run any command and is not opened; ask its authors for a state dictionary or a safetensors file."
                )

            info = self._unpickle(stream, ())
            if not isinstance(info, dict) or not info.get("little_endian", False):
                raise ModelError(f"{self.file} was not written on a little-endian machine; it is not supported.")

            content = self._unpickle(stream, inert)
            keys = self._unpickle(stream, ())
            end = self.file.stat().st_size
            if not isinstance(keys, list):
                keys = []

            # Behind the pickles: for each storage how many values it has, in eight bytes, and then the values.
            for key in keys:
                head = stream.read(8)
                count = -1
                if len(head) == 8:
                    count = struct.unpack("<q", head)[0]

                n_bytes = 0
                if isinstance(key, str):
                    n_bytes = count * self._sizes.get(key, 0)

                if count < 0 or n_bytes > end - stream.tell():
                    raise ModelError(f"{self.file} is damaged or cut short at its storage '{key}'; download it again.")

                # Noted and passed over; a tensor reads its own when it is asked for.
                self._places[key] = (stream.tell(), n_bytes)
                stream.seek(n_bytes, 1)
            return content

    # -- numbers ---------------------------------------------------------------------------------------------------

    def _read(self, name: str, record: ForeignTensor, cache: dict[str, bytearray]) -> torch.Tensor:
        """One tensor, after checking that it lies within its storage."""
        import torch

        storage = record.storage
        shape = record.shape
        stride = record.stride
        count = math.prod(shape)
        if count:
            steps = [(n - 1) * s for n, s in zip(shape, stride, strict=True)]
            last = record.offset + sum(steps) + 1
        else:
            last = 0

        # Said here with the tensor's name, which torch would not know. With strides of 0 a tensor of any size would pass the
        # second test, and take that much memory when it is copied; hence the first.
        if count > storage.size or last > storage.size:
            raise ModelError(
                f"'{name}' of {self.file} claims shape {shape} at offset {record.offset}, but its storage has "
                f"{storage.size} values; the file is damaged."
            )

        dtype = getattr(torch, storage.dtype)
        if not count:
            return torch.empty(shape, dtype=dtype)  # frombuffer refuses an empty buffer

        if storage.key not in cache:
            cache.clear()  # tensors that share a storage follow each other; hold one at a time
            cache[storage.key] = self._bytes(name, storage)

        whole = torch.frombuffer(cache[storage.key], dtype=dtype, count=storage.size)
        tensor = whole.as_strided(shape, stride, record.offset)

        # A view of part of a storage would keep all of it in memory.
        if count < storage.size or not tensor.is_contiguous():
            return tensor.clone()
        return tensor

    def _bytes(self, name: str, storage: ForeignStorage) -> bytearray:
        """All numbers of a storage."""
        # What the pickle says, against what the file has: a storage that is shorter was cut off.
        needed = storage.size * _BYTES[storage.dtype]
        damaged = f"the numbers of '{name}' in {self.file} are damaged or cut short; download it again."

        try:
            if self._is_zip:
                with zipfile.ZipFile(self.file) as archive:
                    info = archive.getinfo(f"{self._root}data/{storage.key}")
                    if info.file_size < needed or info.compress_type != zipfile.ZIP_STORED:
                        raise ModelError(damaged)

                    with archive.open(info) as stream:
                        return _read_into(bytearray(info.file_size), stream, damaged)

            start, n_bytes = self._places[storage.key]
            if n_bytes < needed:
                raise ModelError(damaged)

            with open(self.file, "rb") as stream:
                stream.seek(start)
                return _read_into(bytearray(n_bytes), stream, damaged)
        except (OSError, KeyError, zipfile.BadZipFile, EOFError) as error:
            raise ModelError(f"{damaged} ({error})") from error

    # -- the pickle ------------------------------------------------------------------------------------------------

    def _unpickle(self, stream: Any, inert: Collection[str]) -> Any:
        """The next pickle of a stream, which may name nothing but what is allowed."""
        try:
            check_pickle(stream, self.file.stat().st_size)
            return _TorchUnpickler(stream, _allowed(inert), self._sizes, self.file).load()
        except ModelError:
            raise
        except Exception as error:  # a broken or hostile pickle can raise anything
            if memory.is_exhausted(error):
                raise

            raise ModelError(
                f"{self.file} is no checkpoint of torch.save, or is damaged ({type(error).__name__}: {error})."
            ) from error


def read_foreign(file: str | Path, *path: str, inert: Collection[str] = ()) -> dict[str, torch.Tensor]:
    """Tensors by name from a foreign checkpoint, read without running anything in it.

    Parameters
    ----------
    file : str or Path
        a file of ``torch.save``
    *path : str
        keys that lead to the weights, such as ``"model"``
    inert : collection of str, default ()
        full names of further classes the file may name; they become empty shells

    Returns
    -------
    dict[str, Tensor]
        on the CPU, in their own precision

    Raises
    ------
    ModelError
        When the file wants to run anything, is damaged, or holds no tensors there.

    See Also
    --------
    ForeignCheckpoint : the whole of such a file.
    """
    return ForeignCheckpoint(file, inert).tensors(*path)


def must_fit(tensors: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Refuse a public file that is not, whole and sound, what a network of this size needs.

    Parameters
    ----------
    tensors : mapping[str, Any]
        tensors or arrays by public name; of those on the device "meta" only shapes are checked
    expected : mapping[str, tuple[int, ...]]
        shape by public name
    what : str
        what they ought to be, such as "the public VQ-f4"

    Raises
    ------
    ModelError
        Naming tensors that are missing, too many, of another shape, or not finite.
    """
    import torch

    # Both ways: a tensor too many is as sure a sign of another network as one too few.
    missing = sorted(set(expected) - set(tensors))
    extra = sorted(set(tensors) - set(expected))
    if missing or extra:
        raise ModelError(
            f"{what} has {len(expected)} tensors at this size, but {len(tensors)} came: missing {few(missing, 3) or 'nothing'}, "
            f"unexpected {few(extra, 3) or 'nothing'}. Pass the whole file, without optimiser state, and the configuration it "
            "was trained with."
        )

    for name, shape in expected.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != tuple(shape):
            raise ModelError(
                f"'{name}' of {what} has shape {tuple(tensor.shape)}, but {tuple(shape)} is needed at this size; the file or "
                "the configuration is of another network."
            )

        # No network was published with NaN in it: here it is damage, which would spread through every layer.
        if isinstance(tensor, np.ndarray):
            sound = bool(np.isfinite(tensor).all())
        else:
            sound = tensor.is_meta or bool(torch.isfinite(tensor).all())

        if not sound:
            raise ModelError(f"'{name}' of {what} holds NaN or infinite values; the file is damaged, fetch it again.")


def _read_into(buffer: bytearray, stream: Any, damaged: str) -> bytearray:
    """A buffer filled from a stream, 16 MiB at a time."""
    view = memoryview(buffer)
    position = 0
    while position < len(buffer):
        n_read = stream.readinto(view[position : position + 2**24])
        if not n_read:
            raise ModelError(damaged)

        position += n_read

    stream.read(1)  # past the end a zip member checks its sum
    return buffer


def _allowed(inert: Collection[str]) -> dict[str, Any]:
    """Everything a pickle may name. Made anew for each file: a pickle can set attributes of what it was given."""

    # These stand in for functions of torch. Each takes whatever more a later version may pass, and believes nothing.
    def tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> ForeignTensor:
        numbers = [offset, *shape, *stride]
        if not isinstance(storage, ForeignStorage) or len(shape) != len(stride):
            raise ValueError("a tensor without its storage")
        # The very type: True is an int as well.
        if not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError("a tensor with a shape that is none")
        return ForeignTensor(storage, offset, tuple(shape), tuple(stride))

    def parameter(data: Any, *_: Any) -> Any:
        return data

    def text(name: Any = "", *_: Any) -> str:
        if type(name) in (str, int):
            return str(name)
        return ""

    def shape(values: Any = ()) -> tuple[Any, ...]:
        return tuple(values)

    names: dict[str, Any] = {
        "collections.OrderedDict": OrderedDict,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_parameter": parameter,
        "torch.Size": shape,
        "torch.device": text,
    }

    for storage, dtype in _STORAGES.items():
        names[f"torch.{storage}"] = dtype

    for dtype in _BYTES:
        names[f"torch.{dtype}"] = dtype

    for name in inert:
        names[name] = type(name.rpartition(".")[2], (), {})  # an empty class of that name; the real one is not imported
    return names


class _TorchUnpickler(pickle.Unpickler):
    """A pickle reader that knows a short list of names and nothing else."""

    def __init__(self, stream: Any, allowed: Mapping[str, Any], sizes: dict[str, int], file: Path) -> None:
        super().__init__(stream, encoding="utf-8")
        self._allowed = allowed
        self._sizes = sizes
        self._file = file

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """What a name of the pickle stands for; the one door through which a pickle reaches code."""
        full = f"{module}.{name}"
        if full not in self._allowed:
            raise ModelError(
                f"{self._file} wants to call '{full}' when it is opened. A checkpoint needs tensors only, and this could "
                "run any command on this machine, so it is not opened. Ask its authors for a safetensors file; a "
                "harmless class of settings can be let through as an empty shell with inert=['MODULE.CLASS']."
            )
        return self._allowed[full]

    def persistent_load(self, pid: Any) -> ForeignStorage:
        """A storage, which torch.save writes as a reference to numbers outside the pickle."""
        kind, dtype, key, _, size, *view = pid
        if kind != "storage" or dtype not in _BYTES or type(key) is not str or type(size) is not int or size < 0:
            raise ValueError("a storage of an unknown kind")
        if view and view[0] is not None:
            raise ValueError("a storage that is a view of another, as PyTorch before 0.4 wrote it")

        # For the older layout, where the numbers themselves do not say how wide they are.
        self._sizes[key] = _BYTES[dtype]
        return ForeignStorage(key, dtype, size)
