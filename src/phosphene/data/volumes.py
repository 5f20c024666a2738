"""Volumes on disk: masks and labels in NIfTI, sessions of betas in HDF5 or NIfTI, read in bounded memory."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from phosphene.data.arrays import open_arrays
from phosphene.errors import DataError
from phosphene.io import memory
from phosphene.io.hdf5 import hdf5_dataset, open_hdf5
from phosphene.io.reading import reads

if TYPE_CHECKING:
    from nibabel.arrayproxy import ArrayProxy

_BLOCK_BYTES = 64_000_000  # of a session in memory at a time, beside its masked voxels
_BROKEN = (OSError, EOFError, ValueError, zlib.error)  # what reading a damaged gzip raises


def open_nifti(path: str | Path, n_axes: int) -> Any:
    """A NIfTI image whose header fits its file; nothing but the header is read.

    Parameters
    ----------
    path : str or Path
        ``.nii`` or ``.nii.gz``
    n_axes : int
        3 for a volume, 4 for volumes over time or trials

    Raises
    ------
    DataError
        Missing, no NIfTI, truncated, or with another number of axes.
    """
    import nibabel as nib
    from nibabel.spatialimages import SpatialImage

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is {'a folder' if path.is_dir() else 'not there'}; a NIfTI file is expected.")

    try:
        image = nib.load(path)
    except Exception as error:  # a broken header makes nibabel raise anything
        if memory.is_exhausted(error):
            raise

        head = path.read_bytes()[:64].lstrip().lower()
        if head.startswith((b"<!doctype", b"<html")):
            reason = "is a web page"
        else:
            reason = f"cannot be opened ({error})"

        raise DataError(f"{path} {reason}; a NIfTI file is expected. Download or copy it again.") from error

    if not isinstance(image, SpatialImage):
        raise DataError(f"{path} is a {type(image).__name__}; a NIfTI file of a volume is expected.")
    if len(image.shape) != n_axes:
        raise DataError(
            f"{path} has shape {image.shape}, but {n_axes} axes are expected; this is another kind of file."
        )

    offset = int(cast("ArrayProxy", image.dataobj).offset)
    n_bytes = offset + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    present = _n_bytes(path, n_bytes)
    if present < n_bytes:
        raise DataError(
            f"{path} is truncated: its header promises {n_bytes} bytes (unpacked), {present} are there. Download it again."
        )

    return image


def _n_bytes(path: Path, needed: int) -> int:
    """Unpacked size of a file. The last four bytes of a gzip hold it; only where they disagree is it unpacked."""
    if path.suffix != ".gz":
        return path.stat().st_size

    with open(path, "rb") as handle:
        handle.seek(-4, 2)
        if int.from_bytes(handle.read(4), "little") == needed % 2**32:  # gzip counts modulo 4 GB
            return needed

    count = 0
    try:
        with gzip.open(path) as handle:
            while part := handle.read(2**22):
                count += len(part)
    except _BROKEN:
        pass

    return count


def _volumes(path: Path, image: Any, step: int, n: int) -> Iterator[np.ndarray]:
    """The first `n` volumes, `step` at a time, (x, y, z, k), in one pass through the file.

    nibabel stops at the last number it needs, before the checksum of a gzip, and so reads flipped bytes without a word;
    here the end is read too.
    """
    stored = image.get_data_dtype()
    grid = image.shape[:3]
    size = int(np.prod(grid)) * stored.itemsize
    slope = image.dataobj.slope
    inter = image.dataobj.inter

    opener: Callable[..., Any] = open
    if path.suffix == ".gz":
        opener = gzip.open

    with opener(path, "rb") as handle:
        handle.seek(int(image.dataobj.offset))
        for start in range(0, n, step):
            k = min(step, n - start)
            data = handle.read(k * size)
            if len(data) < k * size:
                raise EOFError(f"{len(data)} bytes where {k * size} should follow")

            block = np.frombuffer(data, stored).reshape((*grid, k), order="F")  # (x, y, z, k)
            if (slope, inter) == (1.0, 0.0):
                yield block  # in the file's type: multiplying by 1.0 would make doubles of int16
            else:
                yield block * slope + inter

        n_volumes = 1
        if len(image.shape) == 4:
            n_volumes = image.shape[3]

        if n == n_volumes:
            while handle.read(2**20):
                pass


def read_volume(path: str | Path, like: Any = None) -> np.ndarray:
    """One volume of numbers.

    Parameters
    ----------
    path : str or Path
        of a 3-D NIfTI file
    like : Any, optional
        an image from `open_nifti` whose grid it must share

    Returns
    -------
    ndarray of shape (x, y, z)
        of the file's dtype

    Raises
    ------
    DataError
        Damaged, or on another grid (shape or affine).
    """
    path = Path(path)
    image = open_nifti(path, 3)
    if like is not None:
        shape = image.shape[:3]
        expected = like.shape[:3]
        if shape != expected:
            hint = ""
            if shape == expected[::-1]:
                hint = " The axes are reversed: it was transposed."

            raise DataError(
                f"{path} has shape {shape}, but {like.get_filename()} has {expected}.{hint} Use one grid for all."
            )

        # Equal shapes are not enough: the grids of two people can have the same and lie elsewhere.
        if not np.allclose(image.affine, like.affine, atol=1e-3):
            i, j = np.argwhere(~np.isclose(image.affine, like.affine, atol=1e-3))[0]
            raise DataError(
                f"{path} lies elsewhere than {like.get_filename()}: entry ({i}, {j}) of the affine is "
                f"{image.affine[i, j]:g}, not {like.affine[i, j]:g}. Resample it to the same grid."
            )

    try:
        (volume,) = _volumes(path, image, 1, 1)
        return volume[..., 0]
    except Exception as error:
        if memory.is_exhausted(error):
            raise

        raise DataError(f"{path} is damaged or truncated ({error}). Download or copy it again.") from error


def read_labels(path: str | Path, like: Any = None) -> np.ndarray:
    """Labels of a mask or parcellation: 0 and -1 mean outside, as in NSD's -1/0/1 masks.

    Parameters
    ----------
    path : str or Path
        of a 3-D NIfTI file
    like : Any, optional
        an image from `open_nifti` whose grid it must share

    Returns
    -------
    ndarray of shape (x, y, z), int64
        outside 0

    Raises
    ------
    DataError
        See `read_volume`; also values that are no whole numbers.
    """
    values = read_volume(path, like)
    whole = np.rint(values)
    if not np.array_equal(whole, values):  # also for NaN
        value = values[~(whole == values)].ravel()[0]
        raise DataError(f"{path} should hold labels (whole numbers), but holds {value:g}; it is no mask.")

    return np.maximum(whole, 0).astype(np.int64)


@dataclass(frozen=True)
class SessionFile:
    """Betas of one session on a grid: HDF5 ``betas`` (trial, z, y, x), or NIfTI (x, y, z, trial).

    Parameters
    ----------
    path : Path
        the file
    n_trials : int
        in it
    grid : tuple of (int, int, int)
        (x, y, z)
    dtype : dtype
        as the numbers come out
    """

    path: Path
    n_trials: int
    grid: tuple[int, int, int]
    dtype: np.dtype

    def read(self, voxels: np.ndarray, n_first: int | None = None) -> np.ndarray:
        """Numbers of some voxels.

        Parameters
        ----------
        voxels : ndarray of shape (n_voxels, 3), int
            i, j, k of each
        n_first : int, optional
            only the first trials; all by default

        Returns
        -------
        ndarray of shape (n_trials, n_voxels)
            of `dtype`; about 64 MB beside it are used
        """
        if n_first is None:
            n = self.n_trials
        else:
            n = min(n_first, self.n_trials)

        try:
            if self.path.suffix in (".hdf5", ".h5"):
                return self._hdf5(voxels, n)

            return self._nifti(voxels, n)
        except DataError:
            raise
        except Exception as error:
            if memory.is_exhausted(error):
                raise

            raise DataError(f"{self.path} is damaged ({error}). Download or copy it again.") from error

    def _hdf5(self, voxels: np.ndarray, n: int) -> np.ndarray:
        i, j, k = voxels.T
        low = voxels.min(0)
        high = voxels.max(0) + 1
        box = (slice(low[1], high[1]), slice(low[0], high[0]))  # y, x: the smallest box around the voxels is read
        out = np.empty((n, len(voxels)), dtype=self.dtype)

        with open_hdf5(self.path) as file:
            betas = hdf5_dataset(file, "betas")
            plane = int(np.prod(high[:2] - low[:2])) * self.dtype.itemsize
            if betas.chunks is not None and betas.chunks[0] > self.n_trials // 2:
                # Chunks run along the trials: reading trial by trial would unpack the whole file every time.
                step = max(1, _BLOCK_BYTES // (plane * n))
                for z in range(low[2], high[2], step):
                    in_slab = np.flatnonzero((k >= z) & (k < z + step))
                    if in_slab.size:
                        block = betas[:n, z : min(z + step, high[2]), box[0], box[1]]  # (n, z, y, x)
                        out[:, in_slab] = block[:, k[in_slab] - z, j[in_slab] - low[1], i[in_slab] - low[0]]

                return out

            step = max(1, _BLOCK_BYTES // (plane * int(high[2] - low[2])))
            for t in range(0, n, step):
                block = betas[t : min(t + step, n), low[2] : high[2], box[0], box[1]]
                out[t : t + step] = block[:, k - low[2], j - low[1], i - low[0]]  # (step, n_voxels)

        return out

    def _nifti(self, voxels: np.ndarray, n: int) -> np.ndarray:
        image = open_nifti(self.path, 4)
        i, j, k = voxels.T
        out = np.empty((n, len(voxels)), dtype=self.dtype)
        step = max(1, _BLOCK_BYTES // (int(np.prod(self.grid)) * image.get_data_dtype().itemsize))

        for t, block in zip(range(0, n, step), _volumes(self.path, image, step, n), strict=True):
            out[t : t + step] = block[i, j, k].T  # (step, n_voxels)

        return out


@reads("path")
def open_session(path: str | Path, grid: tuple[int, ...]) -> SessionFile:
    """A session of betas; only its header is read.

    Parameters
    ----------
    path : str or Path
        ``.hdf5``, ``.nii`` or ``.nii.gz``
    grid : tuple of int
        (x, y, z) of the mask it will be read with

    Raises
    ------
    DataError
        Missing, truncated, on another grid, transposed, or not numbers.
    """
    path = Path(path)
    grid = tuple(int(g) for g in grid)
    if path.suffix in (".hdf5", ".h5"):
        shapes = open_arrays(path).shapes  # says what is wrong with files that cannot be opened
        if "betas" not in shapes:
            raise DataError(f"{path} has no dataset 'betas'; it holds {', '.join(shapes) or 'nothing'}.")

        with open_hdf5(path) as file:
            betas = hdf5_dataset(file, "betas")
            shape = betas.shape
            dtype = betas.dtype

        file_grid: tuple[int, ...] = ()
        n = 0
        if len(shape) == 4:
            file_grid = shape[:0:-1]  # HDF5 written by MATLAB has all axes reversed
            n = shape[0]

        expected = f"(trials, {grid[2]}, {grid[1]}, {grid[0]})"
        is_turned = len(shape) == 4 and (shape[:3] == grid or shape[1:] == grid) and file_grid != grid
    else:
        image = open_nifti(path, 4)
        shape = image.shape
        dtype = image.get_data_dtype()
        if (image.dataobj.slope, image.dataobj.inter) != (1.0, 0.0):
            dtype = np.dtype(np.float32)  # the header scales the numbers

        file_grid = shape[:3]
        n = shape[3]
        expected = f"({grid[0]}, {grid[1]}, {grid[2]}, trials)"
        is_turned = file_grid != grid and (file_grid == grid[::-1] or shape[1:] in (grid, grid[::-1]))

    if file_grid != grid:
        if is_turned:
            hint = "Its axes are in another order: it was transposed."
        else:
            hint = "It belongs to another grid or person."
        raise DataError(f"{path} has shape {tuple(shape)}, but {expected} is expected. {hint}")

    if dtype.kind not in "iuf":
        raise DataError(f"{path} holds {dtype} values where numbers were expected.")
    return SessionFile(path, int(n), grid, np.dtype(dtype).newbyteorder("="))  # type: ignore[arg-type]


class SessionRows:
    """Betas of several sessions as rows, each session read whole when one of its rows is asked for, the last one kept.

    Parameters
    ----------
    files : sequence of SessionFile
        one per session, with equal numbers of trials
    voxels : ndarray of shape (n_voxels, 3)
        i, j, k of the columns
    """

    def __init__(self, files: Sequence[SessionFile], voxels: np.ndarray) -> None:
        self.files = tuple(files)
        self.voxels = voxels
        self.n_per_session = self.files[0].n_trials
        self._kept: tuple[int, np.ndarray] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(n_trials, n_voxels)."""
        return (len(self.files) * self.n_per_session, len(self.voxels))

    def session(self, number: int) -> np.ndarray:
        """(n_per_session, n_voxels) of the session at this place.

        Parameters
        ----------
        number : int
            position in `files`, from 0
        """
        if self._kept is None or self._kept[0] != number:
            self._kept = None  # free the old one before the new one is read
            self._kept = (number, self.files[number].read(self.voxels))

        return self._kept[1]

    def __getitem__(self, rows: Any) -> np.ndarray:
        index = np.arange(self.shape[0])[rows]
        flat = np.atleast_1d(index)
        out = np.empty((len(flat), len(self.voxels)), dtype=self.files[0].dtype)

        for number in np.unique(flat // self.n_per_session):  # each session is read once, in whatever order rows are
            in_session = flat // self.n_per_session == number
            out[in_session] = self.session(int(number))[flat[in_session] % self.n_per_session]

        if np.ndim(index):
            return out
        return out[0]
