"""Arrays by name from MATLAB, NPZ, NPY, HDF5 and CSV files, decided by what the file holds and never unpickled."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phosphene.data.mat5 import check_tags
from phosphene.errors import DataError, MachineError, PhospheneWarning, did_you_mean
from phosphene.io import memory
from phosphene.io.hdf5 import hdf5_dataset, open_hdf5, whole_hdf5
from phosphene.io.npz_file import SHAPE, check_ratio, npy_header, npz_headers

if TYPE_CHECKING:
    import pandas as pd

_HDF5 = b"\x89HDF\r\n\x1a\n"  # MATLAB 7.3 puts 512 bytes of its own before it


class ArrayFile:
    """The arrays of one file, read when asked for.

    Parameters
    ----------
    path : Path
        the file
    kind : str
        "mat" (MATLAB 5), "mat73" (MATLAB 7.3), "npz", "npy", "hdf5" or "csv"
    shapes : dict of {str: tuple of int}
        name to shape, as the arrays will come out
    read : callable
        gives the array of one name
    """

    def __init__(
        self, path: Path, kind: str, shapes: dict[str, tuple[int, ...]], read: Callable[[str], np.ndarray]
    ) -> None:
        self.path = path
        self.kind = kind
        self.shapes = shapes
        self._read = read

    @property
    def is_column_major(self) -> bool:
        """Whether the program that wrote it unrolls pictures column by column, as MATLAB does."""
        return self.kind in ("mat", "mat73")

    def __contains__(self, key: str) -> bool:
        return key in self.shapes or (self.kind == "mat" and "." in key and key.split(".")[0] in self.shapes)

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self:
            raise DataError(
                f"{self.path} has no array '{key}'. {did_you_mean(key, self.shapes)} "
                "Name the arrays of this file with options such as train_betas=KEY."
            )

        try:
            return self._read(key)
        except (DataError, MachineError, MemoryError):
            raise
        except Exception as error:  # bytes that are not what they should be make numpy, scipy and h5py raise anything
            if memory.is_exhausted(error):
                raise

            raise DataError(_damaged(self.path, f"while reading '{key}'", error)) from error


def _damaged(path: Path, where: str, error: BaseException) -> str:
    if str(error).strip():
        reason = str(error).strip().splitlines()[0]
    else:
        reason = type(error).__name__

    return (
        f"{path} is damaged or truncated ({where}: {reason}; the file has {path.stat().st_size} bytes). "
        "Download or copy it again and compare its size with the original."
    )


def open_arrays(path: str | Path) -> ArrayFile:
    """Open a file of arrays.

    Parameters
    ----------
    path : str or Path
        MATLAB (5 to 7.3), ``.npz``, ``.npy``, HDF5 or ``.csv``; the format is decided by the content

    Returns
    -------
    ArrayFile
        Arrays of a ``.npy`` or ``.csv`` file have the name "array". Arrays of MATLAB 7.3 files come out with the axes
        MATLAB shows, although the file stores them in reverse.

    Raises
    ------
    DataError
        Missing, empty, truncated, pickled, a web page, or of no known format.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"{path} is {'a folder, not a file' if path.is_dir() else 'not there'}; give the path of a data file."
        )

    try:
        with open(path, "rb") as handle:
            head = handle.read(520)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error

    if not head:
        raise DataError(f"{path} has 0 bytes; the download or copy never happened. Fetch it again.")

    try:
        if head.startswith(_HDF5):
            return _hdf5(path, is_matlab=False)
        if head[512:].startswith(_HDF5):
            return _hdf5(path, is_matlab=True)
        if head.startswith(b"PK\x03\x04"):
            return _npz(path)
        if head.startswith(b"\x93NUMPY"):
            return _npy(path)

        if head.startswith(b"MATLAB"):
            check_tags(path)
            return _mat(path)
    except (DataError, MachineError, MemoryError):
        raise
    except Exception as error:
        if memory.is_exhausted(error):
            raise

        raise DataError(_damaged(path, "while opening", error)) from error

    if head[:1] == b"\x80" or head[:2] in (b"(d", b"(l", b"]q"):  # pickles of protocol 2 and later, and of 0 and 1
        raise DataError(_pickled(path))
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise DataError(
            f"{path} is a web page, not data: the server sent an error or a login page under this name. "
            "Open the address in a browser, accept what it asks, and download again."
        )
    if path.suffix.lower() == ".csv":
        return _csv(path)

    if path.suffix.lower() == ".mat":  # MATLAB 4 files have no signature
        try:
            return _mat(path)
        except Exception as error:
            if memory.is_exhausted(error):
                raise

            raise DataError(_damaged(path, "while opening", error)) from error

    raise DataError(
        f"{path} is of no format phosphene knows (it begins with {head[:8]!r}). MATLAB .mat, .npz, .npy, HDF5 and .csv "
        "can be read; save it as one of these."
    )


def _pickled(path: Path, key: str = "") -> str:
    place = str(path)
    if key:
        place += f", array {key!r},"

    return (
        f"{place} holds pickled Python objects. Opening a pickle can run any code, so phosphene never does. Save "
        "plain numeric arrays: numpy.savez(file, name=array.astype('float32'))."
    )


def _mat(path: Path) -> ArrayFile:
    import scipy.io
    from scipy.io.matlab import MatReadError

    def quietly(function: Callable[..., Any], **options: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whatever the reader grumbles about either raises or does not matter
            try:
                return function(path, **options)
            except MatReadError as error:
                raise ValueError(str(error)) from error

    shapes = {name: tuple(shape) for name, shape, _ in quietly(scipy.io.whosmat)}

    def read(key: str) -> np.ndarray:
        first = key
        fields: list[str] = []
        if key not in shapes:  # "struct.field", unless an array has this very name
            first, *fields = key.split(".")

        # A byte an entry at least; what is packed could be any number of them.
        n_entries = math.prod(shapes.get(first, ()))
        memory.require_memory(n_entries, f"the array '{first}' of {path}, announced as {shapes.get(first)},", SHAPE)
        check_ratio(n_entries, path.stat().st_size, f"'{first}' in {path}")

        value = quietly(scipy.io.loadmat, variable_names=[first])[first]
        for name in fields:
            if value.dtype.names is None or name not in value.dtype.names:
                raise DataError(
                    f"'{first}' in {path} has no field '{name}'. {did_you_mean(name, value.dtype.names or ())}"
                )

            value = value[name].ravel()[0]  # a struct is an array of one record

        if hasattr(value, "toarray"):  # sparse: a file of a few bytes may unfold to any size
            memory.require_memory(
                math.prod(value.shape) * 8, f"the sparse array '{key}' of {path}, {value.shape},", SHAPE
            )
            value = value.toarray()

        return np.asarray(value)

    return ArrayFile(path, "mat", shapes, read)


def _npz(path: Path) -> ArrayFile:
    if not zipfile.is_zipfile(path):
        raise DataError(_damaged(path, "while opening", ValueError("the end of the archive is missing")))

    headers = npz_headers(path)
    shapes = {name: shape for name, (shape, _) in headers.items()}
    if not shapes:
        raise DataError(f"{path} is a zip archive without NumPy arrays; save it with numpy.savez.")

    def read(key: str) -> np.ndarray:
        n_bytes = math.prod(shapes[key]) * headers[key][1].itemsize
        memory.require_memory(n_bytes, f"the array '{key}' of {path}, announced as {shapes[key]},", SHAPE)
        with np.load(path, allow_pickle=False) as archive:
            try:
                return archive[key]
            except ValueError as error:
                raise DataError(_pickled(path, key) if "pickle" in str(error) else str(error)) from error

    return ArrayFile(path, "npz", shapes, read)


def _npy(path: Path) -> ArrayFile:
    with open(path, "rb") as handle:
        shape, dtype = npy_header(handle)

    if dtype.hasobject:
        raise DataError(_pickled(path))
    array = np.load(path, mmap_mode="r", allow_pickle=False)  # a memory map; raises when the file is too short
    return ArrayFile(path, "npy", {"array": shape}, lambda _: array)


def _hdf5(path: Path, is_matlab: bool) -> ArrayFile:
    import h5py

    shapes: dict[str, tuple[int, ...]] = {}

    def visit(name: str, item: Any) -> None:
        nonlocal is_matlab
        if isinstance(item, h5py.Dataset) and not name.startswith("#"):
            is_matlab = is_matlab or "MATLAB_class" in item.attrs
            shapes[name] = item.shape or ()

    with open_hdf5(path) as file:
        file.visititems(visit)

    if is_matlab:
        shapes = {name: shape[::-1] for name, shape in shapes.items()}

    def read(key: str) -> np.ndarray:
        with open_hdf5(path) as file:
            item = hdf5_dataset(file, key)
            if h5py.check_ref_dtype(item.dtype) is not None:  # a MATLAB cell
                references = np.ravel(whole_hdf5(item))
                texts = [_text(whole_hdf5(hdf5_dataset(file, reference))) for reference in references]
                value = np.array(texts, dtype=object)
            elif h5py.check_string_dtype(item.dtype) is not None:
                memory.require_memory(math.prod(item.shape or ()) * 8, f"the texts '{key}' of {path}", SHAPE)
                value = item.asstr()[()]
            else:
                value = whole_hdf5(item)

        if is_matlab:
            return np.asarray(value).T
        return np.asarray(value)

    return ArrayFile(path, "mat73" if is_matlab else "hdf5", shapes, read)


def as_numbers(values: Any) -> pd.Series:
    """A column as numbers; NaN where a cell is none.

    Parameters
    ----------
    values : Series
        texts or numbers
    """
    import pandas as pd

    return pd.Series(pd.to_numeric(values, errors="coerce"), index=values.index)


def _text(codes: np.ndarray) -> str:
    return "".join(chr(int(c)) for c in np.ravel(codes))


def _csv(path: Path) -> ArrayFile:
    import pandas as pd

    try:
        with open(path, encoding="utf-8-sig") as handle:
            first = handle.readline()

        if all(_is_number(cell) for cell in first.strip().split(",")):
            header = None
        else:
            header = 0

        frame = pd.read_csv(path, header=header, encoding="utf-8-sig")
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path} is no readable table of numbers: {str(error).strip()}") from error

    for name in frame.columns:
        if frame[name].dtype.kind not in "iufb":
            is_bad = as_numbers(frame[name]).isna() & frame[name].notna()
            bad_rows = np.flatnonzero(is_bad)
            if bad_rows.size:
                row = int(bad_rows[0])
            else:
                row = 0

            raise DataError(
                f"column '{name}' of {path} should be numbers, but row {row} (from 0, below the header) holds "
                f"{frame[name].iloc[row]!r}. Keep only the betas in this file, one row a trial."
            )

    array = frame.to_numpy()
    return ArrayFile(path, "csv", {"array": array.shape}, lambda _: array)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return not text.strip()

    return True


def real_matrix(array: Any, what: str) -> np.ndarray:
    """`array` as a 2-D matrix of real numbers; layout and byte order may be any.

    Parameters
    ----------
    array : Any
        whatever a file held
    what : str
        file and field, for the message

    Returns
    -------
    ndarray of shape (n, m)
        integer or floating

    Raises
    ------
    DataError
        Object, text, complex or structured values, or another number of axes.
    """
    kind = array.dtype.kind
    if kind == "O":
        raise DataError(
            f"{what} holds Python objects ({type(array.ravel()[0]).__name__ if array.size else 'empty'} first), not "
            "numbers; usually rows of unequal length. Make every row as long as the others and save numbers."
        )

    if kind == "c":
        if not np.any(array.imag):
            part = "its imaginary part is zero throughout, so save array.real"
        else:
            part = "save the real part or the magnitude, whichever you mean"
        raise DataError(f"{what} holds complex numbers, but responses are real; {part}.")

    if kind not in "iufb":
        raise DataError(f"{what} holds {array.dtype} values where numbers were expected; save it as float32.")
    if array.ndim != 2:
        raise DataError(f"{what} must have two axes (trials, voxels), but has shape {tuple(array.shape)}.")
    if 0 in array.shape:
        raise DataError(
            f"{what} is empty: its shape is {tuple(array.shape)}, and at least one row and column are needed."
        )

    return array


def single_array(file: ArrayFile, key: str | None) -> np.ndarray:
    """The array named `key`, or the only matrix of the file.

    Parameters
    ----------
    file : ArrayFile
        from `open_arrays`
    key : str or None
        name of the array; None for the only one with two axes

    Raises
    ------
    DataError
        When several could be meant; they are listed.
    """
    if key is None:
        matrices = [k for k, shape in file.shapes.items() if len(shape) == 2]
        if len(matrices) != 1:
            listed = ", ".join(f"{k} {shape}" for k, shape in file.shapes.items()) or "none"
            if matrices:
                step = "Say which one with --key NAME."
            else:
                step = "Save betas as one array (trials, voxels)."

            raise DataError(f"{file.path} holds {len(matrices)} arrays of two axes, not one. It has: {listed}. {step}")

        key = matrices[0]

    return file[key]


def narrow(array: np.ndarray, what: str) -> np.ndarray:
    """float32 copy in native order; warns when finite values overflow to infinity.

    Parameters
    ----------
    array : ndarray of shape (n, m)
        of any real type
    what : str
        file and field, for the message
    """
    with np.errstate(over="ignore"):
        out = np.asarray(array, dtype=np.float32)

    if array.dtype.kind == "f" and array.dtype.itemsize > 4:
        lost = np.isinf(out) & np.isfinite(array)
        if lost.any():
            row, column = np.argwhere(lost)[0]
            warnings.warn(
                f"{what} holds {int(lost.sum())} values beyond the range of float32, first {array[row, column]:g} in row "
                f"{row}, column {column}; they are treated as infinite.",
                PhospheneWarning,
                stacklevel=3,
            )

    return out
