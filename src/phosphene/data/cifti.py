"""CIFTI files: time series on the cortical surface, and which grayordinate belongs to which parcel.

Columns are found by structure and vertex, never by their place in the file, so that files with other orders agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from phosphene.errors import DataError, did_you_mean
from phosphene.io import memory
from phosphene.io.reading import reads

if TYPE_CHECKING:
    from nibabel.arrayproxy import ArrayProxy

CORTEX = {"LH": "CIFTI_STRUCTURE_CORTEX_LEFT", "RH": "CIFTI_STRUCTURE_CORTEX_RIGHT"}


@dataclass(frozen=True)
class Cortex:
    """Which grayordinates of a file lie where on the cortex.

    Parameters
    ----------
    path : Path
        of the file, for messages
    columns, vertices : dict of {str: ndarray}
        hemisphere to (n,) int, place in the file and vertex on the surface
    n_vertices : dict of {str: int}
        hemisphere to the number of vertices of the surface
    """

    path: Path
    columns: dict[str, np.ndarray]
    vertices: dict[str, np.ndarray]
    n_vertices: dict[str, int]

    @classmethod
    def of(cls, path: Path, axis: Any) -> Cortex:
        """From the axis of brain models of a CIFTI file.

        Parameters
        ----------
        path : Path
            of the file, for messages
        axis : nibabel.cifti2.BrainModelAxis
            of its header
        """
        columns = {}
        vertices = {}
        n_vertices = {}

        for side, structure in CORTEX.items():
            places = np.flatnonzero(axis.name == structure)
            if places.size:
                columns[side] = places
                vertices[side] = np.asarray(axis.vertex[places], dtype=np.int64)
                n_vertices[side] = int(axis.nvertices[structure])

        return cls(path, columns, vertices, n_vertices)


@dataclass(frozen=True)
class Parcels:
    """A parcellation of both hemispheres.

    Parameters
    ----------
    cortex : Cortex
        of its file
    names : dict of {str: ndarray}
        hemisphere to (n_vertices,) name of the parcel of each vertex, without hemisphere; empty outside
    """

    cortex: Cortex
    names: dict[str, np.ndarray]

    def select(self, cortex: Cortex, areas: Sequence[str]) -> pd.DataFrame:
        """The grayordinates of some parcels in another file.

        Parameters
        ----------
        cortex : Cortex
            of that file
        areas : sequence of str
            names of parcels, in the order their grayordinates take; in each the left hemisphere first, by vertex

        Returns
        -------
        DataFrame
            table with the columns ``area``, ``hemisphere``, ``vertex`` and ``column``, the place in that file

        Raises
        ------
        DataError
            A surface of another resolution, a hemisphere missing, or a parcel that does not exist or has no vertex.
        """
        missing = sorted(set(self.names) - set(cortex.columns))
        if missing:
            raise DataError(
                f"{cortex.path} has no cortex of {' and '.join(missing)}, which {self.cortex.path.name} parcels. It needs "
                "both hemispheres; fetch the whole file."
            )

        known = set()
        for names in self.names.values():
            known |= set(np.unique(names)) - {""}  # "" is outside every parcel

        rows = []
        for area in areas:
            if area not in known:
                raise DataError(f"{self.cortex.path} has no parcel '{area}'. {did_you_mean(area, sorted(known))}")

            for side, names in self.names.items():
                if cortex.n_vertices[side] != len(names):
                    raise DataError(
                        f"{cortex.path} lies on a surface of {cortex.n_vertices[side]} vertices ({side}), but "
                        f"{self.cortex.path} on one of {len(names)}. Take both in one resolution, such as 32k_fs_LR."
                    )

                order = np.argsort(cortex.vertices[side], kind="stable")
                vertices = cortex.vertices[side][order]
                in_area = names[vertices] == area
                part = {"area": area, "hemisphere": side, "vertex": vertices[in_area]}
                rows.append(pd.DataFrame({**part, "column": cortex.columns[side][order][in_area]}))

            if not sum(len(r) for r in rows[-len(self.names) :]):
                raise DataError(f"no grayordinate of {cortex.path} is in the parcel '{area}' of {self.cortex.path}.")

        return pd.concat(rows, ignore_index=True)


def open_cifti(path: str | Path) -> Any:
    """A CIFTI-2 image whose header fits its file; nothing but the header is read.

    Parameters
    ----------
    path : str or Path
        ``.dtseries.nii`` or ``.dlabel.nii``

    Raises
    ------
    DataError
        Missing, no CIFTI, or truncated.
    """
    import nibabel as nib

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is {'a folder' if path.is_dir() else 'not there'}; a CIFTI file is expected.")

    try:
        image = nib.load(path)
    except Exception as error:  # a broken header makes nibabel raise anything
        if memory.is_exhausted(error):
            raise

        raise DataError(f"{path} cannot be opened ({error}); a CIFTI file is expected. Copy it again.") from error

    if not isinstance(image, nib.Cifti2Image):
        raise DataError(f"{path} is a {type(image).__name__}, no CIFTI-2 file; fetch the .dtseries.nii or .dlabel.nii.")

    offset = int(cast("ArrayProxy", image.dataobj).offset)
    n_bytes = offset + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    present = path.stat().st_size
    if present < n_bytes:
        raise DataError(
            f"{path} is truncated: its header promises {n_bytes} bytes, {present} are there. Copy it again."
        )

    return image


@reads("path")
def read_parcels(path: str | Path) -> Parcels:
    """A parcellation in grayordinates, such as HCP-MMP 1.0: a ``.dlabel.nii``.

    Names such as ``L_V1_ROI`` and ``R_V1_ROI`` become V1 of either hemisphere; ``???`` is nothing.

    Parameters
    ----------
    path : str or Path
        ``.dlabel.nii``

    Raises
    ------
    DataError
        See `open_cifti`; also a file without labels or without cortex.
    """
    from nibabel.cifti2.cifti2_axes import LabelAxis

    path = Path(path)
    image = open_cifti(path)
    axis = image.header.get_axis(0)
    if not isinstance(axis, LabelAxis):
        raise DataError(f"{path} holds no labels but {type(axis).__name__}; a parcellation (.dlabel.nii) is expected.")

    table = {int(key): _bare(name) for key, (name, _) in axis.label[0].items()}
    keys = np.rint(np.asarray(image.dataobj[0])).astype(np.int64)
    unknown = sorted(set(np.unique(keys)) - set(table))
    if unknown:
        raise DataError(f"{path} uses the label {unknown[0]}, which its table does not name. Fetch it again.")
    cortex = Cortex.of(path, image.header.get_axis(1))
    if not cortex.columns:
        raise DataError(f"{path} has no cortical surface; a parcellation of the cortex is expected.")
    names = {}
    for side, columns in cortex.columns.items():
        names[side] = np.full(cortex.n_vertices[side], "", dtype=object)
        names[side][cortex.vertices[side]] = [table[k] for k in keys[columns]]

    return Parcels(cortex, names)


def find_parcels(folder: Path, named: str | None) -> Path:
    """The parcellation that was named, or the only ``.dlabel.nii`` of a folder.

    Parameters
    ----------
    folder : Path
        of the data set
    named : str or None
        a path, or a name in the folder; None for the only one there

    Raises
    ------
    DataError
        None, or several.
    """
    if named is not None:
        path = Path(named)
        if path.is_absolute() or path.is_file():
            return path
        return folder / named

    files = sorted(p for p in folder.glob("*.dlabel.nii") if not p.name.startswith("."))
    if len(files) != 1:
        listed = ", ".join(p.name for p in files[:4]) or "none"
        raise DataError(
            f"{folder} should hold one parcellation (.dlabel.nii, such as that of HCP-MMP 1.0 in 32k_fs_LR); it holds "
            f"{listed}. Put it there, or name it with parcels=FILE."
        )

    return files[0]


def _bare(name: str) -> str:
    """V1 of ``L_V1_ROI``."""
    name = name.removesuffix("_ROI")
    for prefix in ("L_", "R_", "lh_", "rh_", "LH_", "RH_"):
        name = name.removeprefix(prefix)

    if name in ("???", "unknown", "Unknown", "Medial_Wall"):
        return ""
    return name
