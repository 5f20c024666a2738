"""HCP, the Human Connectome Project: 3T scans at rest of 1,113 people, as responses without pictures to pretrain on.

::

    ROOT/
      100307/MNINonLinear/Results/rfMRI_REST1_LR/rfMRI_REST1_LR_Atlas_MSMAll_hp2000_clean.dtseries.nii
      100307/rfMRI_REST1_LR_Atlas_MSMAll_hp2000_clean.dtseries.nii        or without the folders between
      *.dlabel.nii                                                        one parcellation, HCP-MMP 1.0 in 32k_fs_LR

As in CAD and MinD-Vis: every grayordinate is standardised over the run's 1,200 frames, V1 to V4 are taken (4,183
grayordinates), and every ten frames (7.2 s) are averaged. Only the columns of these areas are read from disk, one person
at a time; ``phosphene.data.resting.resting_windows`` makes them a store for pretraining.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.data.cifti import Cortex, Parcels, find_parcels, open_cifti, read_parcels
from phosphene.data.findings import Finding
from phosphene.data.reader import ReaderOptions, about
from phosphene.errors import DataError, PhospheneError, did_you_mean
from phosphene.types import ROI, Dataset, Stimuli, Trials

FILE = "rfMRI_REST1_LR_Atlas_MSMAll_hp2000_clean.dtseries.nii"
AREAS = ("V1", "V2", "V3", "V4")
SIZES = {"V1": 1618, "V2": 1220, "V3": 684, "V4": 661}
"""Grayordinates of each area of HCP-MMP 1.0 in 32k_fs_LR, both hemispheres."""

N_FRAMES = 1200  # of 0.72 s, 14.4 minutes


class HCPOptions(ReaderOptions):
    """Which run, which areas, which windows."""

    file: str = Field(FILE, description="file of a person; its run is what stands before _Atlas")
    parcels: str | None = Field(None, description="parcellation (.dlabel.nii); the only one of the folder by default")
    areas: tuple[str, ...] = Field(AREAS, min_length=1, description="parcels, in the order their voxels take")
    frames: int = Field(10, ge=1, description="frames a window is the mean of")
    normalise: bool = Field(True, description="standardise every grayordinate over the run first")


class Scan:
    """A time series of some areas, read when asked for.

    Parameters
    ----------
    path : Path
        ``.dtseries.nii``
    parcels : Parcels
        which grayordinates belong to which area
    areas : sequence of str
        areas to read, in this order
    normalise : bool, default True
        standardise every grayordinate over the frames; one that never changes becomes 0
    """

    kind = "cifti"

    def __init__(self, path: Path, parcels: Parcels, areas: Sequence[str], normalise: bool = True) -> None:
        from nibabel.cifti2.cifti2_axes import BrainModelAxis, SeriesAxis

        image = open_cifti(path)
        frames = image.header.get_axis(0)
        space = image.header.get_axis(1)
        if not isinstance(frames, SeriesAxis) or not isinstance(space, BrainModelAxis):
            kinds = f"{type(frames).__name__} by {type(space).__name__}"
            raise DataError(f"{path} is {kinds}; a dense time series (frames by grayordinates) is expected.")

        if image.get_data_dtype().kind not in "iuf":
            raise DataError(f"{path} holds {image.get_data_dtype()} values where numbers were expected.")

        self.path = path
        self.normalise = normalise
        self.step_s = float(frames.step)
        self.table = parcels.select(Cortex.of(path, space), areas)
        self._data = image.dataobj
        self.n_frames = int(image.shape[0])
        self.shapes: dict[str, tuple[int, int]] = {}
        for area in self.table["area"].drop_duplicates():
            n_grayordinates = int(np.count_nonzero(self.table["area"] == area))
            self.shapes[str(area)] = (self.n_frames, n_grayordinates)

    def __contains__(self, area: str) -> bool:
        return area in self.shapes

    def __getitem__(self, area: str) -> np.ndarray:
        """(n_frames, n_grayordinates) float32 of one area."""
        columns = self.table["column"].to_numpy()[(self.table["area"] == area).to_numpy()]
        out = np.empty((self.n_frames, len(columns)), dtype=np.float32)
        order = np.argsort(columns)

        # A grayordinate's frames lie together in the file: neighbours are read in one piece, nothing else is.
        starts = np.flatnonzero(np.diff(columns[order], prepend=-2) != 1)
        try:
            for block in np.split(order, starts[1:]):
                out[:, block] = self._data[:, int(columns[block[0]]) : int(columns[block[-1]]) + 1]
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{self.path} is damaged ({error}). Copy it again.") from error

        bad = ~np.isfinite(out).all(axis=0)
        if bad.any():
            raise DataError(f"{int(bad.sum())} grayordinates of {area} in {self.path} hold NaN; frames must be finite.")

        if self.normalise:
            sd = out.std(
                axis=0, dtype=np.float64
            )  # (n_grayordinates,); near 10,000 in the file: float32 sums lose digits
            out -= out.mean(axis=0, dtype=np.float64).astype(np.float32)
            out /= np.where(sd > 0, sd, np.inf).astype(np.float32)  # by infinity: what never changes becomes 0

        return out

    def fingerprint(self) -> str:
        """What tells this scan from another without reading it all: size, header, 64 samples, and what is taken of it."""
        digest = hashlib.sha256(f"{self.path.stat().st_size} {self.normalise} {self.shapes}".encode())
        digest.update(self.table["column"].to_numpy(np.int64).tobytes())

        with open(self.path, "rb") as handle:
            for offset in np.linspace(0, max(0, self.path.stat().st_size - 4096), 64).astype(int):
                handle.seek(int(offset))
                digest.update(handle.read(4096))

        return digest.hexdigest()


class WindowRows:
    """Means of windows of frames, computed when first asked for and then kept.

    Parameters
    ----------
    scan : Scan
        where the frames come from
    frames : int
        frames of a window; those left over at the end are shared out among the windows
    """

    def __init__(self, scan: Scan, frames: int) -> None:
        self.scan = scan
        self.frames = frames
        self.shape = (scan.n_frames // frames, len(scan.table))
        self._kept: np.ndarray | None = None

    def __getitem__(self, rows: Any) -> np.ndarray:
        if self._kept is None:
            parts = []
            for area in self.scan.shapes:
                windows = np.array_split(self.scan[area], self.shape[0])
                parts.append(np.stack([window.mean(axis=0) for window in windows]))  # (n_windows, n_grayordinates)

            self._kept = np.concatenate(parts, axis=1)

        return self._kept[rows]


class HCP:
    """Reader of scans at rest on the cortical surface."""

    title: ClassVar[str] = "Human Connectome Project: 3T scans at rest of 1,113 people, to pretrain on"
    citation: ClassVar[str] = (
        "Van Essen et al. (2013), The WU-Minn Human Connectome Project, NeuroImage 80, 62-79; parcels: Glasser et al. "
        "(2016), A multi-modal parcellation of human cerebral cortex, Nature 536, 171-178."
    )
    licence: ClassVar[str] = "HCP open access data use terms (registered account); not for redistribution"
    url: ClassVar[str] = "https://www.humanconnectome.org/study/hcp-young-adult"
    files: ClassVar[str] = "hcp/SUBJECT/.../*.dtseries.nii and one hcp/*.dlabel.nii"
    options: ClassVar[type[HCPOptions]] = HCPOptions

    def find(self, root: Path) -> Path:
        """The folder of the people's folders, at or below `root`."""
        root = Path(root)
        for place in (root, root / "hcp", root / "HCP", root / "HCP_1200"):
            for pattern in ("*/MNINonLinear/Results/*/*.dtseries.nii", "*/*.dtseries.nii"):
                if next(place.glob(pattern), None):  # one is enough: listing 1,113 people takes long on a network drive
                    return place

        names = []
        if root.is_dir():
            names = sorted(p.name for p in root.iterdir() if not p.name.startswith("."))

        raise DataError(
            f"HCP was looked for as SUBJECT/MNINonLinear/Results/RUN/*.dtseries.nii in {root} and {root / 'hcp'}; {root} "
            f"holds {', '.join(names[:8]) or 'nothing'}. Give the folder that holds the people's folders with --root."
        )

    def subjects(self, path: Path, options: HCPOptions) -> tuple[str, ...]:
        """Those with a file of this run.

        Parameters
        ----------
        path : Path
            from `find`
        options : HCPOptions
            its ``file`` names the run
        """
        return tuple(scan_files(Path(path), options.file))

    def load(self, path: Path, options: HCPOptions, subject: str | None = None) -> Dataset:
        """Open one person or all; each is read when asked for.

        Parameters
        ----------
        path : Path
            from `find`
        options : HCPOptions
            which run, areas and windows
        subject : str, optional
            such as "100307"; everyone by default

        Returns
        -------
        Dataset
            Dataset without pictures. A trial is a window of frames whose stimulus is "rest"; ROIs are the areas; the
            voxel table has ``hemisphere`` and ``vertex``. There is nothing to decode here: it is for pretraining.

        Raises
        ------
        DataError
            Files missing, truncated, of one hemisphere, or on another surface than the parcellation.
        """
        path = Path(path)
        files = scan_files(path, options.file)
        if subject is not None and subject not in files:
            raise DataError(f"{path} has no '{options.file}' of '{subject}'. {did_you_mean(subject, files)}")

        if subject is not None:
            files = {subject: files[subject]}

        parcels = read_parcels(find_parcels(path, options.parcels))
        people = _People(files, parcels, options)
        facts = about(self, note="scans at rest: no pictures, for pretraining", areas=", ".join(options.areas))

        return Dataset("hcp", Stimuli(np.asarray(["rest"], dtype=object)), people, {}, facts)

    def check(self, path: Path, options: HCPOptions) -> list[Finding]:
        """Headers of every file, and the counts against the published ones.

        Parameters
        ----------
        path : Path
            from `find`
        options : HCPOptions
            which run and areas
        """
        path = Path(path)
        out = []

        try:
            parcels = read_parcels(find_parcels(path, options.parcels))
            files = scan_files(path, options.file)
        except PhospheneError as error:
            return [Finding("problem", "files", str(error))]

        for name, file in files.items():
            try:
                scan = Scan(file, parcels, options.areas)
            except PhospheneError as error:
                out.append(Finding("problem", name, str(error)))
                continue

            sizes = {area: n for area, (_, n) in scan.shapes.items()}
            is_published = scan.n_frames == N_FRAMES
            for area, n in sizes.items():
                is_published = is_published and n == SIZES.get(area, n)  # other areas than V1 to V4 have no count here

            detail = f"{scan.n_frames} frames; {_listed(sizes)}"
            if is_published:
                out.append(Finding("ok", name, f"{detail}; as published."))
            else:
                published = f"published: {N_FRAMES} frames, {_listed(SIZES)}"
                out.append(Finding("note", name, f"{detail}; {published}."))

        return out


def scan_files(folder: Path, file: str = FILE) -> dict[str, Path]:
    """Person to file, in the order of names.

    Parameters
    ----------
    folder : Path
        holds a folder for each person
    file : str
        name of the file of one run

    Raises
    ------
    DataError
        None has it.
    """
    run = file.split("_Atlas")[0]
    files = {}
    for pattern in (f"*/MNINonLinear/Results/{run}/{file}", f"*/{file}"):
        for path in folder.glob(pattern):
            if not path.name.startswith("."):  # macOS puts ._NAME next to a file on foreign disks
                files[path.relative_to(folder).parts[0]] = path

    if not files:
        names = sorted({path.name for path in folder.rglob("*.dtseries.nii")})
        raise DataError(f"no person below {folder} has {file}. {did_you_mean(file, names)} Name it with file=.")

    return dict(sorted(files.items()))


def open_scans(
    folder: Path, areas: Sequence[str], file: str = FILE, parcels: str | None = None, normalise: bool = True
) -> dict[str, Scan]:
    """Scans of all people of a folder, opened and not read.

    Parameters
    ----------
    folder : Path
        holds a folder for each person
    areas : sequence of str
        areas to read, in this order
    file : str
        name of the file of one run
    parcels : str, optional
        parcellation; the only one of the folder by default
    normalise : bool, default True
        see `Scan`
    """
    files = scan_files(folder, file)
    parcellation = read_parcels(find_parcels(folder, parcels))
    return {name: Scan(path, parcellation, areas, normalise) for name, path in files.items()}


class _People(Mapping[str, Trials]):
    """People, each opened when asked for."""

    def __init__(self, files: dict[str, Path], parcels: Parcels, options: HCPOptions) -> None:
        self._files = files
        self._parcels = parcels
        self._options = options

    def __getitem__(self, name: str) -> Trials:
        options = self._options
        scan = Scan(self._files[name], self._parcels, options.areas, options.normalise)
        rows = WindowRows(scan, options.frames)
        if not rows.shape[0]:
            raise DataError(f"{scan.path} has {scan.n_frames} frames, fewer than the {options.frames} of one window.")

        voxels = scan.table.drop(columns=["area", "column"])
        for area in scan.shapes:
            voxels[ROI + area] = (scan.table["area"] == area).to_numpy()

        if options.normalise:
            unit = "standard deviations of the run"
        else:
            unit = "as in the file"

        notes = {
            "file": scan.path.name,
            "unit": unit,
            "windows": f"means of {options.frames} frames of {scan.step_s:g} s",
        }
        return Trials(rows, pd.DataFrame({"stimulus": ["rest"] * rows.shape[0]}), voxels, name, notes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{a} {n}" for a, n in sizes.items())
