"""BOLD on the cortical surface: CIFTI dense series (``*.dtseries.nii``), GIFTI with a file a hemisphere (``*.func.gii``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.cifti2.cifti2_axes import BrainModelAxis, SeriesAxis

from phosphene.errors import DataError
from phosphene.io import memory

_CIFTI = ".dtseries.nii"
_GIFTI = ".func.gii"
_SIDES = {"CORTEX_LEFT": "L", "CORTEX_RIGHT": "R"}


class SurfaceSeries(NamedTuple):
    """A run on the surface.

    Attributes
    ----------
    values : ndarray of shape (n_places, n_volumes), float32
        vertices, then voxels below the cortex where the file has some
    places : DataFrame
        ``hemisphere`` (L, R or ""), ``vertex`` (number on its mesh, -1 for a voxel), ``structure``
    tr_s : float or None
        seconds between volumes, where the file says
    """

    values: np.ndarray
    places: pd.DataFrame
    tr_s: float | None


def is_surface(image: Path) -> bool:
    """Whether an image is one of the surface, by its name.

    Parameters
    ----------
    image : Path
        of a run
    """
    return image.name.endswith((_CIFTI, _GIFTI))


def read_surface(images: Sequence[Path]) -> SurfaceSeries:
    """Read a run.

    Parameters
    ----------
    images : sequence of Path
        one CIFTI file, or a GIFTI file of each hemisphere

    Returns
    -------
    SurfaceSeries
        hemispheres one after the other

    Raises
    ------
    DataError
        For a file that is missing, damaged, or holds something else than a series.
    """
    if images[0].name.endswith(_CIFTI):
        return _cifti(images[0])

    parts = [_gifti(image) for image in images]
    lengths = {part.values.shape[1] for part in parts}
    if len(lengths) > 1:
        raise DataError(f"{images[0].name} and {images[1].name} have different numbers of volumes ({sorted(lengths)}).")

    values = np.concatenate([part.values for part in parts])  # (n_places, n_volumes)
    places = pd.concat([part.places for part in parts], ignore_index=True)
    return SurfaceSeries(values, places, parts[0].tr_s)


def _opened(path: Path) -> Any:
    try:
        return nib.load(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    except Exception as error:  # nibabel, zlib and the XML parser each have their own way to say it
        if memory.is_exhausted(error):
            raise

        raise DataError(f"{path} cannot be read: {error}. It may be cut short or damaged; copy it again.") from error


def _cifti(path: Path) -> SurfaceSeries:
    image = _opened(path)
    if not isinstance(image, nib.Cifti2Image):
        raise DataError(f"{path} should be a CIFTI dense series, but is a {type(image).__name__}.")

    series = image.header.get_axis(0)
    places = image.header.get_axis(1)
    if not isinstance(series, SeriesAxis) or not isinstance(places, BrainModelAxis):
        raise DataError(f"{path} should hold a series (rows) of vertices and voxels (columns); it holds other axes.")

    names = [str(name).removeprefix("CIFTI_STRUCTURE_") for name in np.asarray(places.name)]
    table = pd.DataFrame(
        {"hemisphere": [_SIDES.get(name, "") for name in names], "vertex": places.vertex, "structure": names}
    )
    tr_s = None
    if str(series.unit).upper() == "SECOND" and series.step > 0:
        tr_s = float(series.step)

    values = np.asarray(image.dataobj, dtype=np.float32).T  # (n_places, n_volumes)
    return SurfaceSeries(values, table, tr_s)


def _gifti(path: Path) -> SurfaceSeries:
    image = _opened(path)
    if not isinstance(image, nib.GiftiImage) or not image.darrays:
        raise DataError(f"{path} should be a GIFTI series with one array for each volume; it holds none.")

    arrays = [np.asarray(array.data, dtype=np.float32) for array in image.darrays]
    if len(arrays) == 1 and arrays[0].ndim == 2:
        values = arrays[0]  # (n_vertices, n_volumes), as some programs write it
    elif all(array.shape == arrays[0].shape and array.ndim == 1 for array in arrays):
        values = np.stack(arrays, axis=1)  # (n_vertices, n_volumes)
    else:
        raise DataError(f"{path} should hold one array of vertices for each volume; its arrays have several shapes.")

    side = ""
    for part in path.name.split("_"):
        if part.startswith("hemi-"):
            side = part.removeprefix("hemi-")

    step = image.darrays[0].meta.get("TimeStep", image.meta.get("TimeStep"))
    tr_s = None
    if step:
        tr_s = float(step) / 1000  # GIFTI has milliseconds

    table = pd.DataFrame({"hemisphere": side, "vertex": np.arange(len(values)), "structure": f"CORTEX {side}".strip()})
    return SurfaceSeries(values, table, tr_s)
