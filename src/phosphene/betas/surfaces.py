"""BOLD on the cortical surface, as three families of programs write it.

==========  =====================================  ==================================================================
format      name                                   what it holds
==========  =====================================  ==================================================================
CIFTI       ``*_bold.dtseries.nii``                vertices of both hemispheres, voxels below the cortex
GIFTI       ``*_hemi-L_*_bold.func.gii``           vertices of one hemisphere, an array for each volume (or one for all)
FreeSurfer  ``*_hemi-L_*_bold.mgh``, ``.mgz``      vertices of one hemisphere along the first axis
==========  =====================================  ==================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.cifti2.cifti2_axes import BrainModelAxis, SeriesAxis

from phosphene.data.cifti import open_cifti
from phosphene.errors import DataError, PhospheneError
from phosphene.io import memory

_CIFTI = (".dtseries.nii", ".ptseries.nii", ".dscalar.nii", ".pscalar.nii", ".dlabel.nii")
_GIFTI = (".gii", ".gii.gz")
_FREESURFER = (".mgh", ".mgz")
_SIDES = {"CORTEX_LEFT": "L", "CORTEX_RIGHT": "R"}
_STRUCTURES = {"L": "CORTEX_LEFT", "R": "CORTEX_RIGHT"}
_INSIDE = {"CortexLeft": "L", "CortexRight": "R"}  # what GIFTI files say of themselves
_IN_NAMES = {"hemi-L": "L", "hemi-R": "R", "L": "L", "R": "R", "lh": "L", "rh": "R"}
_MILLISECONDS = (
    20.0  # a time between volumes beyond this is in milliseconds, as GIFTI asks for; some programs write seconds
)


@dataclass(frozen=True, eq=False)
class SurfaceSeries:
    """A run on the surface, whose values are read when they are asked for.

    Attributes
    ----------
    places : DataFrame
        ``hemisphere`` (L, R or ""), ``vertex`` (number on its mesh, -1 for a voxel), ``structure``; where the file has voxels
        below the cortex also ``voxel_i``, ``voxel_j``, ``voxel_k`` (-1 for a vertex)
    tr_s : float or None
        seconds between volumes, where the file says
    load : callable
        reads the values
    """

    places: pd.DataFrame
    tr_s: float | None
    load: Callable[[], np.ndarray]

    @property
    def values(self) -> np.ndarray:
        """(n_places, n_volumes) float32, vertices, then voxels below the cortex where the file has some."""
        return self.load()


def is_surface(image: Path) -> bool:
    """Whether an image is one of the surface, by its name.

    Parameters
    ----------
    image : Path
        of a run

    Returns
    -------
    bool
        True for CIFTI, GIFTI and FreeSurfer's format
    """
    return image.name.endswith((*_CIFTI, *_FREESURFER, *_GIFTI))


def read_surface(images: Sequence[Path]) -> SurfaceSeries:
    """Read a run.

    Parameters
    ----------
    images : sequence of Path
        one CIFTI file, or a file of each hemisphere

    Returns
    -------
    SurfaceSeries
        hemispheres one after the other

    Raises
    ------
    DataError
        For a file that is missing, damaged, or holds something else than a series, and for two files of one hemisphere.
    """
    if images[0].name.endswith(_CIFTI):
        return _cifti(images[0])

    parts = []
    for image in images:
        if image.name.endswith(_FREESURFER):
            parts.append(_freesurfer(image))
        else:
            parts.append(_gifti(image))

    if len(parts) == 1:
        return parts[0]

    side, other_side = (part.places["hemisphere"].iloc[0] for part in parts)
    if side == other_side:
        raise DataError(f"{images[0].name} and {images[1].name} are both of hemisphere {side or 'unknown'}.")

    places = pd.concat([part.places for part in parts], ignore_index=True)
    return SurfaceSeries(places, parts[0].tr_s, partial(_both, images, parts))


def _both(images: Sequence[Path], parts: Sequence[SurfaceSeries]) -> np.ndarray:
    """(n_places, n_volumes) of two hemispheres."""
    values = [part.values for part in parts]
    lengths = [part.shape[1] for part in values]
    if len(set(lengths)) > 1:
        raise DataError(f"{images[0].name} and {images[1].name} have different numbers of volumes ({lengths}).")

    return np.concatenate(values)


def _opened(path: Path) -> Any:
    """An image; nibabel's own type names only what all of its formats share."""
    try:
        return nib.load(path)
    except Exception as error:
        raise _explained(path, error) from error


def _explained(path: Path, error: Exception) -> Exception:
    """What to raise for an error of nibabel, zlib or the XML parser, each of which has its own way to say it."""
    if isinstance(error, PhospheneError) or memory.is_exhausted(error):
        return error

    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} does not exist.")

    return DataError(f"{path} cannot be read: {error}. It may be cut short or damaged; copy it again.")


# -- CIFTI -------------------------------------------------------------------------------------------------------------


def _cifti(path: Path) -> SurfaceSeries:
    """A dense series; only its header is read here."""
    image = open_cifti(path)
    try:
        series = image.header.get_axis(0)
        places = image.header.get_axis(1)
    except Exception as error:  # axes that the file describes in part
        raise _explained(path, error) from error

    if not isinstance(series, SeriesAxis) or not isinstance(places, BrainModelAxis):
        raise DataError(
            f"{path} should be a dense series (*.dtseries.nii), volumes by vertices and voxels; its axes are "
            f"{type(series).__name__} and {type(places).__name__}."
        )

    if series.size < 2:
        raise DataError(f"{path} holds {len(places)} vertices and voxels in {series.size} volumes, which is no series.")

    tr_s = None
    if str(series.unit).upper() == "SECOND" and series.step > 0:
        tr_s = float(series.step)

    return SurfaceSeries(_grayordinates(places), tr_s, partial(_cifti_values, path, image))


def _cifti_values(path: Path, image: Any) -> np.ndarray:
    """(n_places, n_volumes) float32."""
    try:
        return np.asarray(image.dataobj, dtype=np.float32).T
    except Exception as error:
        raise _explained(path, error) from error


def _grayordinates(axis: BrainModelAxis) -> pd.DataFrame:
    """Vertices by hemisphere and number, voxels by structure and cell."""
    names = [str(name).removeprefix("CIFTI_STRUCTURE_") for name in np.asarray(axis.name)]
    hemispheres = [_SIDES.get(name, "") for name in names]
    places = pd.DataFrame({"hemisphere": hemispheres, "vertex": axis.vertex, "structure": names})

    # Without its cell a voxel would be known by its structure only, and runs that cover other voxels of it would seem alike.
    cells = np.asarray(axis.voxel)  # (n_places, 3)
    if (cells >= 0).any():
        places[["voxel_i", "voxel_j", "voxel_k"]] = cells

    return places


# -- a file for each hemisphere ----------------------------------------------------------------------------------------


def _gifti(path: Path) -> SurfaceSeries:
    """Arrays of a GIFTI file, which is XML and can only be read whole."""
    image = _opened(path)
    if not isinstance(image, nib.GiftiImage) or not image.darrays:
        raise DataError(f"{path} should be a GIFTI series with one array for each volume; it holds none.")

    arrays = []
    for array in image.darrays:
        values = np.asarray(array.data, dtype=np.float32)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        arrays.append(values)

    if len(arrays) == 1 and arrays[0].ndim == 2:
        series = arrays[0]  # (n_vertices, n_volumes), as some programs write it
    elif all(array.shape == arrays[0].shape and array.ndim == 1 for array in arrays):
        series = np.stack(arrays, axis=1)  # (n_vertices, n_volumes)
    else:
        shapes = sorted({array.shape for array in arrays})
        raise DataError(
            f"{path} should hold one array of vertices for each volume; its arrays have the shapes {shapes}."
        )

    n_vertices, n_volumes = series.shape
    if n_vertices == 0 or n_volumes < 2:
        raise DataError(f"{path} holds {n_vertices} vertices in {n_volumes} volumes, which is no series.")

    metas = (image.darrays[0].meta, image.meta)
    side = _side(path, *(meta.get("AnatomicalStructurePrimary", "") for meta in metas))
    tr_s = None
    for meta in metas:
        tr_s = tr_s or _step_s(meta.get("TimeStep"))

    return SurfaceSeries(_vertices(side, len(series)), tr_s, lambda: series)


def _freesurfer(path: Path) -> SurfaceSeries:
    """A series of FreeSurfer, whose first axis holds the vertices; only its header is read here."""
    image = _opened(path)
    shape = tuple(int(n) for n in image.shape)
    if len(shape) != 4 or shape[1:3] != (1, 1):
        raise DataError(
            f"{path} should hold a series of vertices, (n, 1, 1, volumes); its shape is {shape}. Convert volumes to NIfTI: "
            "mri_convert FILE FILE.nii.gz."
        )

    zooms = image.header.get_zooms()
    return SurfaceSeries(_vertices(_side(path), shape[0]), _step_s(zooms[3]), partial(_freesurfer_values, path, image))


def _freesurfer_values(path: Path, image: Any) -> np.ndarray:
    """(n_vertices, n_volumes) float32."""
    try:
        return np.asarray(image.dataobj, dtype=np.float32)[:, 0, 0, :]
    except Exception as error:
        raise _explained(path, error) from error


def _vertices(side: str, n: int) -> pd.DataFrame:
    """Table of all vertices of one hemisphere."""
    return pd.DataFrame({"hemisphere": side, "vertex": np.arange(n), "structure": _STRUCTURES.get(side, "")})


def _side(path: Path, *inside: str) -> str:
    """L, R or "" for the hemisphere of a file, by its name and by what stands inside; refused where these differ."""
    told = {}
    for part in path.name.replace(".", "_").split("_"):
        if part in _IN_NAMES:
            told[_IN_NAMES[part]] = f"its name says {part}"

    for text in inside:
        if text in _INSIDE:
            told[_INSIDE[text]] = f"inside it says {text}"

    if len(told) > 1:
        raise DataError(f"{path} is of one hemisphere, but {' and '.join(told.values())}. Rename it, or copy it again.")

    return next(iter(told), "")


def _step_s(step: object) -> float | None:
    """Seconds between volumes, from milliseconds; None for what is no such number."""
    try:
        value = float(str(step))
    except ValueError:
        return None

    if not np.isfinite(value) or value <= 0:
        return None

    if value > _MILLISECONDS:
        return value / 1000

    return value
