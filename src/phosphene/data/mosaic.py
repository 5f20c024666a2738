"""MOSAIC: eight data sets of still and moving pictures brought to one cortical surface, one HDF5 file a person.

::

    ROOT/sub-01_NSD.hdf5                  also sub-01_NSD_crc32-1a2b3c4d.hdf5, and below hdf5_files/single_subject/
      betas/sub-01_NSD_stimulus-NAME_phase-train_rep-0     (91282,) one trial; attributes phase, repetition,
                                                           presented_stimulus_filename, nan_indices
      noiseceilings/..._phase-test_n-1_...                 (91282,) attributes phase, n ("1" or "avg")
    ROOT/*.dlabel.nii                     one parcellation, such as HCP-MMP 1.0 in 32k_fs_LR grayordinates
    ROOT/stimuli/**                       the pictures, each from its own source; optional

Betas are GLMsingle's on the fsLR surface (91,282 grayordinates), standardised by whoever made the file. Files say neither
session nor run, so betas cannot be standardised by session here.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.data.arrays import open_arrays
from phosphene.data.cifti import Cortex, find_parcels, read_parcels
from phosphene.data.findings import Finding
from phosphene.data.pictures import pictures_of
from phosphene.data.reader import ReaderOptions, about
from phosphene.errors import DataError, PhospheneError, PhospheneWarning, did_you_mean
from phosphene.io import memory
from phosphene.io.hdf5 import hdf5_dataset, open_hdf5
from phosphene.types import ROI, Dataset, Split, Stimuli, Trials

N_CORTEX = {"LH": 29696, "RH": 29716}
"""Vertices of 32k_fs_LR outside the medial wall, the first grayordinates of fsLR-91k; what follows lies below the cortex."""

_FILE = re.compile(r"(sub-\d+_[A-Za-z0-9]+)(?:_crc32-[0-9a-fA-F]+)?\.hdf5")
_TRIAL = re.compile(r".+_stimulus-(?P<name>.+)_phase-(?P<phase>train|test)_rep-(?P<rep>\d+)")


class MosaicOptions(ReaderOptions):
    """Which grayordinates."""

    areas: tuple[str, ...] = Field(("V1", "V2", "V3", "V4"), min_length=1, description="parcels, in order")
    parcels: str | None = Field(None, description="parcellation (.dlabel.nii); the only one of the folder by default")
    image_size: int | None = Field(None, ge=8, description="side of the pictures; that of the first file by default")


class TrialRows:
    """Trials as rows, each its own array in an HDF5 file, read when asked for.

    Parameters
    ----------
    path : Path
        the file
    names : sequence of str
        of the arrays, one a row
    columns : ndarray of shape (n,)
        which grayordinates
    """

    def __init__(self, path: Path, names: Sequence[str], columns: np.ndarray) -> None:
        self.path = path
        self.names = np.asarray(names, dtype=object)
        self.columns = columns
        self.shape = (len(self.names), len(columns))

    def __getitem__(self, rows: Any) -> np.ndarray:
        names = self.names[rows]
        several = np.atleast_1d(names)
        out = np.empty((len(several), self.shape[1]), dtype=np.float32)

        # A trial is stored in one piece: all 91,282 numbers are read, and the columns taken from memory.
        with open_hdf5(self.path) as file:
            for row, name in enumerate(several):
                try:
                    out[row] = hdf5_dataset(file, f"betas/{name}")[()][self.columns]
                except (DataError, MemoryError):
                    raise
                except Exception as error:  # whatever h5py and numpy make of damaged bytes
                    if memory.is_exhausted(error):
                        raise

                    raise DataError(
                        f"'betas/{name}' in {self.path} is damaged ({error}). Copy the file again."
                    ) from error

        if isinstance(names, np.ndarray):
            return out
        return out[0]


class Mosaic:
    """Reader of MOSAIC's files of single people."""

    title: ClassVar[str] = "MOSAIC: eight vision data sets on one cortical surface, 93 people"
    citation: ClassVar[str] = (
        "Lahner, Deb, Ratan Murty, Oliva (2025), MOSAIC, a scalable framework for fMRI dataset aggregation and modeling of "
        "human vision, bioRxiv; and the paper of each data set."
    )
    licence: ClassVar[str] = "that of each data set; pictures from their own sources"
    url: ClassVar[str] = "https://blahner.github.io/MOSAICfmri"
    files: ClassVar[str] = "mosaic/sub-XX_DATASET.hdf5 and one mosaic/*.dlabel.nii"
    options: ClassVar[type[MosaicOptions]] = MosaicOptions

    def find(self, root: Path) -> Path:
        """The folder that holds people's files, at or below `root`."""
        root = Path(root)
        for place in (root, root / "mosaic", root / "MOSAIC"):
            if place.is_dir() and _people(place):
                return place

        if root.is_dir():
            names = sorted(p.name for p in root.iterdir() if not p.name.startswith("."))
        else:
            names = []

        raise DataError(
            f"MOSAIC was looked for as sub-01_NSD.hdf5 or the like in {root}, its folder mosaic and hdf5_files/single_subject; "
            f"{root} holds {', '.join(names[:8]) or 'nothing'}. Give the folder that holds them with --root."
        )

    def subjects(self, path: Path, options: MosaicOptions) -> tuple[str, ...]:
        """Names of the people with a file, such as ``sub-01_NSD``.

        Parameters
        ----------
        path : Path
            from `find`
        options : MosaicOptions
            make no difference here
        """
        return tuple(_people(Path(path)))

    def load(self, path: Path, options: MosaicOptions, subject: str | None = None) -> Dataset:
        """Open one person or all; trials are read when asked for.

        Parameters
        ----------
        path : Path
            from `find`
        options : MosaicOptions
            which grayordinates
        subject : str, optional
            such as ``sub-01_NSD``; everyone whose file is there by default

        Returns
        -------
        Dataset
            Stimulus ids are file names without ending. Split ``mosaic``: what the data set itself tests (phase "test")
            against what it trains on; a stimulus that is "test" for one person is never training for another.

        Raises
        ------
        DataError
            No betas, trials of unequal length, names that say nothing, or a parcellation of another space.
        """
        path = Path(path)
        files = _people(path)
        if subject is not None and subject not in files:
            raise DataError(f"{path} has no file of '{subject}'. {did_you_mean(subject, files)}")

        parcels = read_parcels(find_parcels(path, options.parcels))
        people = {}
        for name, file in files.items():
            if subject in (None, name):
                people[name] = _trials(file, name, parcels, options)

        table = pd.concat([t.table for t in people.values()])
        stimuli = table["stimulus"].to_numpy(dtype=object)
        test = pd.unique(stimuli[(table["phase"] == "test").to_numpy()])
        is_test = set(test)
        train = [stimulus for stimulus in pd.unique(stimuli) if stimulus not in is_test]
        ids = [*train, *test]
        splits = {}

        if train and len(test):
            splits["mosaic"] = Split("mosaic", tuple(train), tuple(test), note="the phases that the files name")

        return Dataset("mosaic", _stimuli(path, ids, options), people, splits, about(self))

    def check(self, path: Path, options: MosaicOptions) -> list[Finding]:
        """Names and lengths of all trials of every person.

        Parameters
        ----------
        path : Path
            from `find`
        options : MosaicOptions
            which grayordinates
        """
        out = []
        people = self.subjects(path, options)
        if not people:
            return [Finding("problem", "files", f"{path} holds no file of a person.", "Fetch sub-XX_*.hdf5 into it.")]

        for name in people:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", PhospheneWarning)
                    trials = self.load(path, options, name).trials()
            except PhospheneError as error:
                out.append(Finding("problem", name, str(error)))
                continue

            sides = trials.table["phase"].value_counts()
            detail = (
                f"{len(trials)} trials of {len(trials.stimulus_ids)} stimuli ({dict(sides)}), {trials.n_voxels} voxels."
            )

            out.append(Finding("ok", name, detail))

        return out


def _people(folder: Path) -> dict[str, Path]:
    """Person to file. The checksum in a name is that of one release: two of them are two versions of one person."""
    files: dict[str, Path] = {}
    for place in (folder, folder / "hdf5_files" / "single_subject"):
        for path in sorted(place.glob("sub-*.hdf5")):
            match = _FILE.fullmatch(path.name)
            if match is None:
                continue

            name = match[1]
            if name in files:
                raise DataError(f"{files[name].name} and {path.name} are both {name}; remove one.")

            files[name] = path

    return files


def _trials(path: Path, subject: str, parcels: Any, options: MosaicOptions) -> Trials:
    """Trials of one person; names are read, and no beta."""
    shapes = open_arrays(path).shapes
    arrays = {name.removeprefix("betas/"): shape for name, shape in shapes.items() if name.startswith("betas/")}
    if not arrays:
        raise DataError(f"{path} has no group 'betas'; it holds {', '.join(list(shapes)[:4]) or 'nothing'}.")

    rows = []
    for name in sorted(arrays):
        match = _TRIAL.fullmatch(name)
        if match is None:
            raise DataError(
                f"'betas/{name}' in {path} should be named sub-XX_DATASET_stimulus-NAME_phase-train_rep-0 (or test)."
            )
        rows.append((name, match["name"], match["phase"], int(match["rep"])))

    first = rows[0][0]
    shape = arrays[first]
    other = next((name for name in arrays if arrays[name] != shape), first)
    if other != first or len(shape) != 1:
        raise DataError(
            f"trials of {path} must be vectors of equal length, but '{first}' is {shape} and '{other}' is {arrays[other]}."
        )

    table = pd.DataFrame(rows, columns=["name", "stimulus", "phase", "repeat"])
    trains = set(table.loc[table["phase"] == "train", "stimulus"])
    tests = set(table.loc[table["phase"] == "test", "stimulus"])
    both = sorted(trains & tests)
    if both:
        raise DataError(f"'{both[0]}' in {path} is of both phases; a picture trains or tests.")

    space = _cortex(path, shape[0], parcels.cortex)
    voxels = parcels.select(space, options.areas)
    columns = voxels["column"].to_numpy()
    for area in options.areas:
        voxels[ROI + area] = (voxels["area"] == area).to_numpy()

    ceiling = _ceiling(path, shapes)
    if ceiling is not None:
        voxels["noise_ceiling"] = ceiling[columns]  # (n_voxels,)

    provenance = {"file": path.name, "unit": "standard deviations, as in the file", "areas": ", ".join(options.areas)}
    source = TrialRows(path, table["name"].tolist(), columns)
    return Trials(source, table.drop(columns="name"), voxels.drop(columns=["area", "column"]), subject, provenance)


def _cortex(path: Path, n: int, parcels: Cortex) -> Cortex:
    """Places of the cortex in a vector of `n`: left, then right, in the order of the parcellation's vertices."""
    sizes = {side: len(v) for side, v in parcels.vertices.items()}
    if n < sum(sizes.values()) or (n == 91282 and sizes != N_CORTEX):
        raise DataError(
            f"trials of {path} have {n} grayordinates, which {parcels.path.name} with {sizes} vertices of cortex does not "
            f"describe. fsLR-91k has {N_CORTEX}; take a parcellation in 32k_fs_LR grayordinates, without the medial wall."
        )

    start = {"LH": 0, "RH": sizes.get("LH", 0)}
    columns = {}
    vertices = {}
    for side, numbers in parcels.vertices.items():
        columns[side] = start[side] + np.arange(sizes[side])
        vertices[side] = np.sort(numbers)  # grayordinates of a hemisphere ascend by vertex

    return Cortex(path, columns, vertices, parcels.n_vertices)


def _ceiling(path: Path, shapes: dict[str, tuple[int, ...]]) -> np.ndarray | None:
    """Noise ceiling of one trial, as a share, from the test phase where there is one."""
    names = [n for n in shapes if n.startswith("noiseceilings/") and "_n-1_" in n]
    if not names:
        return None

    names.sort(key=lambda name: "phase-test" not in name)  # they are repeated most often
    values = np.asarray(open_arrays(path)[names[0]], dtype=np.float64)  # (n_grayordinates,)

    # Some files hold percent, some a share: a share is never above 1.
    if np.nanmax(values, initial=0) > 1:
        share = values / 100
    else:
        share = values

    return np.where(np.isfinite(share), share, 0.0)


def _stimuli(path: Path, ids: list[str], options: MosaicOptions) -> Stimuli:
    names = np.asarray(ids, dtype=object)
    folder = path / "stimuli"
    if not folder.is_dir():
        return Stimuli(names)
    images, present = pictures_of(folder, ids, options.image_size)
    return Stimuli(names, images, present=present)
