"""The one door to HDF5 files, those of MATLAB 7.3 included: a file may hold numbers, and point at nothing outside itself.

An HDF5 file can say that the numbers of a data set lie in another file (external storage, virtual data sets), and that a
group stands in another file (external links). The library follows both in silence, so that a data file from a stranger could
name any file of this machine, whose contents would then stand among somebody's betas. No published fMRI data set needs either.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene.errors import DataError
from phosphene.io import memory
from phosphene.io.npz_file import SHAPE, check_ratio

if TYPE_CHECKING:
    import h5py

_sound: set[tuple[int, ...]] = set()
"""Files that were looked through, by what the system says of the very bytes that are open."""


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """An HDF5 file, open for reading, in which nothing points at another file.

    Parameters
    ----------
    path : str or Path
        of the file

    Yields
    ------
    h5py.File
        closed when the block ends

    Raises
    ------
    DataError
        When anything in the file leads to another file, or the file is open for writing elsewhere.
    OSError
        When it is no HDF5 file, or damaged.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except BlockingIOError as error:
        raise DataError(
            f"{path} is open for writing in another program. Close it there, then run the command again."
        ) from error

    with file:
        # By the open file and not by its name, which could be given to another file in between.
        state = os.fstat(file.id.get_vfd_handle())
        key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        if key not in _sound:
            _refuse_pointers(file)
            _sound.add(key)

        yield file


def hdf5_dataset(file: h5py.File, name: Any) -> h5py.Dataset:
    """A dataset of an open HDF5 file.

    Parameters
    ----------
    file : h5py.File
        open for reading
    name : str or h5py.Reference
        of the dataset

    Returns
    -------
    h5py.Dataset
        whose numbers lie in this file

    Raises
    ------
    DataError
        Where a group or a type stands under that name, or its numbers lie in another file.
    """
    import h5py

    item = file[name]
    if not isinstance(item, h5py.Dataset):
        raise DataError(f"'{name}' in {file.filename} is a {type(item).__name__} where an array is expected.")

    # Once more: a reference can lead to a dataset that no group names.
    way = _way_out(item.id)
    if way:
        raise _refusal(file, str(name), way)
    return item


def whole_hdf5(item: h5py.Dataset) -> Any:
    """All numbers of a dataset, after asking whether they fit into memory.

    Parameters
    ----------
    item : h5py.Dataset
        a file of a few bytes can announce any shape, the rest of which HDF5 fills with zeros

    Returns
    -------
    ndarray or scalar
        as h5py gives it

    Raises
    ------
    MachineError
        When it announces more than there is memory for.
    """
    n_bytes = math.prod(item.shape or ()) * item.dtype.itemsize
    what = f"the array '{item.name}' of {item.file.filename}, announced as {item.shape},"
    memory.require_memory(n_bytes, what, SHAPE)
    check_ratio(n_bytes, item.id.get_storage_size(), f"'{item.name}' in {item.file.filename}")
    return item[()]


def _refuse_pointers(file: h5py.File) -> None:
    """Raise DataError at the first link or dataset that leads out of the file. No link is followed to find out."""
    h5d = _part("h5d")
    h5l = _part("h5l")
    h5o = _part("h5o")

    # Listed first and opened afterwards: within the library's own walk no error gets through.
    links: list[tuple[bytes, int]] = []
    file.id.links.visit(lambda name, info: links.append((name, info.type)), info=True)

    for name, kind in links:
        way = ""
        if kind == h5l.TYPE_EXTERNAL:
            way = f"is a link to another file, {_shown(file.id.links.get_val(name)[0])}"
        elif kind not in (h5l.TYPE_HARD, h5l.TYPE_SOFT):
            way = "is a link of a kind that another program defined"
        elif kind == h5l.TYPE_HARD and h5o.get_info(file.id, name).type == h5o.TYPE_DATASET:
            way = _way_out(h5d.open(file.id, name))

        # A soft link stays within the file, where whatever it leads to is looked at under its own name.
        if way:
            raise _refusal(file, name.decode("utf-8", "replace"), way)


def _way_out(dataset: Any) -> str:
    """How the numbers of a dataset lie outside its file; "" where they do not."""
    h5d = _part("h5d")
    made = dataset.get_create_plist()
    if made.get_external_count():
        return f"keeps its numbers in another file, {_shown(made.get_external(0)[0])}"
    if made.get_layout() == h5d.VIRTUAL:
        if made.get_virtual_count():
            return f"is put together from other data sets, of {_shown(made.get_virtual_filename(0))}"
        return "is put together from other data sets"
    return ""


def _part(name: str) -> Any:
    """A compiled module of h5py, whose contents type checkers do not know."""
    return import_module(f"h5py.{name}")


def _shown(name: bytes | str) -> str:
    """A file name from a file, fit for a message."""
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    return repr(name[:200])


def _refusal(file: h5py.File, name: str, way: str) -> DataError:
    return DataError(
        f"'{name[:200]}' in {file.filename} {way}. Such a file could copy any file of this machine into a data set, so nothing "
        "of it is read. If you trust it, write its numbers into one file (h5repack, or h5py: new['name'] = old['name'][()])."
    )
