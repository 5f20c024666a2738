"""Read the runs of a subject from a BIDS folder, or from the layout OpenfMRI used before it.

===========  ==============================================================  =============================================
what         BIDS                                                            OpenfMRI
===========  ==============================================================  =============================================
images       ``sub-S/[ses-X/]func/*_bold.nii[.gz]``                          ``subS/BOLD/taskT_runR/bold*.nii.gz``
seconds      ``RepetitionTime`` of the JSON with it or above it, else the   ``scan_key.txt``, else the image
             image
events       ``*_events.tsv``                                                ``bold_events.tsv``, else onsets per condition
mask         ``derivatives/*/sub-S/**/*brain_mask.nii*``                     ``subS/masks/brain.nii.gz``, else ``mask.nii.gz``
                                                                             above the study
ROIs         ``*_label-NAME_mask.nii*``                                      the other images of ``subS/masks``
confounds    ``*desc-confounds*.tsv``                                        ``bold_moest.txt``
===========  ==============================================================  =============================================

What was shown is column ``stimulus`` of the events, else ``stim_file``, else ``trial_type``. Masks say where: above 0 is in.
Preprocessed images (``*_space-T1w_desc-preproc_bold.nii.gz``) are read by giving the derivative as the folder, and as ``pattern``
which of them; events are then taken from the study above.
"""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from phosphene.betas.layouts import RunFiles, bids, bids_masks, openfmri, openfmri_masks
from phosphene.betas.runs import BoldRun
from phosphene.betas.work import WorkFolder
from phosphene.errors import DataError, PhospheneError, did_you_mean
from phosphene.io import memory
from phosphene.io.npz_file import SHAPE
from phosphene.io.reading import reads
from phosphene.types import ROI, digest_of

_STIMULUS = ("stimulus", "stim_file", "trial_type")


@dataclass(frozen=True, eq=False)
class SubjectRuns:
    """A subject's runs as found.

    Attributes
    ----------
    subject : str
        name, as the folder has it
    runs : list of BoldRun
        in order of session and run
    voxels : DataFrame
        table with ``i``, ``j``, ``k``, ``x``, ``y``, ``z`` (mm) and ROIs
    categories : dict of {str: str}
        stimulus to the trial type it came with, where events say both
    """

    subject: str
    runs: list[BoldRun]
    voxels: pd.DataFrame
    categories: dict[str, str] = field(default_factory=dict)


@reads("folder")
def read_runs(
    folder: str | Path,
    subject: str,
    *,
    mask: str | Path | None = None,
    task: str | None = None,
    sessions: Sequence[int] | None = None,
    confounds: bool = False,
    pattern: str | None = None,
) -> SubjectRuns:
    """Read all runs of a subject, masked.

    Parameters
    ----------
    folder : str or Path
        the study
    subject : str
        with or without ``sub-``
    mask : str or Path, optional
        image above 0 inside; by default the study's
    task : str, optional
        which task, where there are several
    sessions : sequence of int, optional
        which sessions; all by default
    confounds : bool, default False
        whether to read motion parameters
    pattern : str, optional
        of the images' file names, where a run has several, such as ``bold_1slice.nii.gz``

    Returns
    -------
    SubjectRuns
        runs, table of voxels, and the category of each stimulus

    Raises
    ------
    DataError
        when a file is missing, broken, or does not fit the others; the message names it
    """
    return locate_runs(folder, subject, mask=mask, task=task, sessions=sessions, pattern=pattern).read(confounds)


@reads("folder")
def locate_runs(
    folder: str | Path,
    subject: str,
    *,
    mask: str | Path | None = None,
    task: str | None = None,
    sessions: Sequence[int] | None = None,
    pattern: str | None = None,
) -> SubjectFiles:
    """Find the files of a subject without reading the images.

    Parameters
    ----------
    folder : str or Path
        the study
    subject : str
        with or without ``sub-``
    mask : str or Path, optional
        image above 0 inside; by default the study's
    task : str, optional
        which task, where there are several
    sessions : sequence of int, optional
        which sessions; all by default
    pattern : str, optional
        of the images' file names, where a run has several, such as ``bold_1slice.nii.gz``

    Returns
    -------
    SubjectFiles
        where runs, mask and ROIs lie

    Raises
    ------
    DataError
        no such folder, subject, session or mask; the message says which there are
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root} is no folder; a BIDS or OpenfMRI study was expected.")

    label = re.sub(r"^sub-?", "", str(subject))
    old = root / f"sub{label}"
    new = root / f"sub-{label}"
    if (old / "BOLD").is_dir():
        subject_folder = old
        places = openfmri(root, old, task, pattern)
        masks = openfmri_masks(old)
    elif new.is_dir():
        subject_folder = new
        places = bids(root, new, task, pattern)
        masks = bids_masks(root, new.name)
    else:
        subjects = sorted(path.name for path in root.glob("sub*") if path.is_dir())
        if not subjects:
            raise DataError(
                f"{root} is no BIDS or OpenfMRI study: it holds no folder such as 'sub-{label}'. Give the folder that does."
            )

        raise DataError(f"{root} has no subject '{subject}'. {did_you_mean(f'sub-{label}', subjects)}")

    if sessions is not None:
        known = sorted({place.session for place in places})
        absent = [session for session in sessions if session not in known]
        if absent:
            raise DataError(f"{subject_folder.name} has no session {absent[0]}; it has {', '.join(map(str, known))}.")
        places = [place for place in places if place.session in sessions]

    if mask is not None:
        path = Path(mask)
    elif masks[0]:
        path = masks[0][0]
    else:
        raise DataError(f"no brain mask was found for {subject_folder.name} below {root}; give one with mask=.")

    places = sorted(places, key=lambda place: (place.session, place.run))
    return SubjectFiles(root, subject_folder.name, places, path, masks[1])


@dataclass(frozen=True, eq=False)
class SubjectFiles:
    """Where a subject's runs, mask and ROIs lie.

    Attributes
    ----------
    root : Path
        of the study
    subject : str
        name, as the folder has it
    places : list of RunFiles
        in order of session and run
    mask : Path
        image above 0 inside
    rois : dict of {str: Path}
        masks by name
    """

    root: Path
    subject: str
    places: list[RunFiles]
    mask: Path
    rois: dict[str, Path]

    def fingerprint(self, confounds: bool) -> list[str]:
        """What changes when one of the files does.

        Images count by name, size and time, because reading gigabytes would take longer than much of the fit; tables are
        small, and are often rewritten with the same content, so theirs counts.

        Parameters
        ----------
        confounds : bool
            whether motion parameters are used, and so count
        """
        parts = []
        images = [place.image for place in self.places]
        rois = [self.rois[name] for name in sorted(self.rois)]

        for path in [*images, self.mask, *rois]:
            try:
                state = path.stat()
            except OSError as error:
                raise DataError(f"{path} does not exist.") from error

            parts.append(f"{path.resolve()} {state.st_size} {state.st_mtime_ns}")

        for place in self.places:
            parts.append(f"{place.session} {place.run} {place.tr_s} {place.events().to_csv()}")
            if confounds:
                parts.append(digest_of(place.confounds()))

        return parts

    def read(
        self, confounds: bool = False, *, work: WorkFolder | None = None, workers: int = 1, memory_gb: float = 2.0
    ) -> SubjectRuns:
        """Read all runs, masked.

        Parameters
        ----------
        confounds : bool, default False
            whether to read motion parameters
        work : WorkFolder, optional
            where masked runs are kept as memory maps, so that they need not fit in memory nor be read twice
        workers : int, default 1
            runs read at once, as far as the memory allows
        memory_gb : float, default 2.0
            for runs that are read at once

        Returns
        -------
        SubjectRuns
            runs (n_volumes, n_voxels), table of voxels, and the category of each stimulus

        Raises
        ------
        DataError
            a file that is missing, broken, or does not fit the others
        """
        values, affine = _image(self.mask, 3)
        inside = values > 0  # some files mark what lies outside by -1
        if not inside.any():
            raise DataError(f"the mask {self.mask} is nowhere above 0, so no voxel is left.")

        def volumes(place: RunFiles) -> np.ndarray:
            """Masked series of a run, (n_volumes, n_voxels)."""
            name = f"run-{place.session:03d}-{place.run:03d}"
            kept = None
            if work is not None:
                kept = work.array(name)

            if kept is None:
                data, space = _image(place.image, 4)  # (x, y, z, n_volumes)
                _same_space(place.image, data.shape[:3], space, self.mask, values.shape, affine)
                kept = data[inside]  # (n_voxels, n_volumes)
                if work is not None:
                    kept = work.keep_array(name, kept)

            return kept.T  # a voxel's series lies together

        # Compressed, unpacked and masked: three copies of a run at a time.
        largest = max(_size(place.image) for place in self.places)
        at_once = min(workers, max(1, int(memory_gb * 1e9 / (3 * largest))))
        runs = []
        categories = {}

        with ThreadPoolExecutor(at_once) as pool:
            reading = [pool.submit(volumes, place) for place in self.places]
            for place, series in zip(self.places, reading, strict=True):
                try:
                    events, types = _stimuli(place.events(), place.name)
                    categories |= types

                    tr_s = place.tr_s
                    if tr_s is None:
                        tr_s = _header_tr(place.image)

                    motion = None
                    if confounds:
                        motion = place.confounds()
                    runs.append(BoldRun(series.result(), tr_s, events, place.session, place.run, motion, place.name))
                except BaseException:
                    # Runs that wait would still be read before the error is seen, minutes later.
                    pool.shutdown(cancel_futures=True)
                    raise

        # Voxels in the order of boolean indexing, which is that of argwhere: the last axis changes fastest.
        cells = np.argwhere(inside)  # (n_voxels, 3)
        voxels = pd.DataFrame(cells, columns=["i", "j", "k"])
        voxels[["x", "y", "z"]] = cells @ affine[:3, :3].T + affine[:3, 3]  # (n_voxels, 3), mm

        # ROIs in another space are left out without a word: derivatives have them in several.
        for name, file in sorted(self.rois.items()):
            roi, space = _image(file, 3)
            if roi.shape == values.shape and np.allclose(space, affine, atol=1e-3):
                voxels[ROI + name] = roi[inside] > 0

        return SubjectRuns(self.subject, runs, voxels, categories)


def _load(path: Path) -> Any:
    """An image, its values not read yet; nibabel's own type names only what all of its formats share."""
    return nib.load(path)


def _size(path: Path) -> int:
    """Bytes of an image's values, from its header; 1 where that cannot be read, which reading will say."""
    try:
        image = _load(path)
        return max(1, int(np.prod(image.shape)) * image.get_data_dtype().itemsize)
    except Exception:  # named when the image is read
        return 1


# -- reading -----------------------------------------------------------------------------------------------------------


def _unpacked(path: Path, image: Any) -> bytes:
    """All bytes of a packed image, which are as many as its header says; what goes on behind them is refused."""
    expected = int(image.dataobj.offset) + math.prod(image.shape) * image.get_data_dtype().itemsize
    memory.require_memory(expected, f"the image {path}, announced as {image.shape},", SHAPE)

    with gzip.open(path, "rb") as stream:
        data = stream.read(expected)
        behind = stream.read(2**20)  # its checksum stands at the end, and is compared there
        if stream.read(1):
            raise DataError(f"{path} unpacks to more than the {memory.size(expected)} of its header. {SHAPE}")

    return data + behind


def _image(path: Path, n_dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Values as stored where no scaling is needed, else float32; and the affine."""
    try:
        image = _load(path)
        if path.suffix == ".gz":  # the whole file: the checksum is at its end, where nibabel does not look
            image = type(image).from_bytes(_unpacked(path, image))
        data = np.asanyarray(image.dataobj)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    except PhospheneError:
        raise
    except Exception as error:  # gzip, zlib, nibabel and numpy each have their own way to say it
        if memory.is_exhausted(error):
            raise

        raise DataError(
            f"{path} cannot be read whole: {error}. It may be cut short or damaged; copy it again."
        ) from error

    if data.ndim == n_dimensions + 1 and data.shape[-1] == 1:
        data = data[..., 0]  # some programs write a mask as a series of one volume
    if data.ndim != n_dimensions:
        raise DataError(f"{path} should have {n_dimensions} dimensions; its shape is {data.shape}.")

    # Integers stay as they are: half the memory of float32, and the mean is taken in float64 anyway.
    if data.dtype.kind not in "iu":
        data = data.astype(np.float32, copy=False)
    return data, image.affine


def _same_space(
    path: Path,
    shape: tuple[int, ...],
    affine: np.ndarray,
    mask: Path,
    mask_shape: tuple[int, ...],
    mask_affine: np.ndarray,
) -> None:
    """Refuse an image whose cells are not those of the mask."""
    if shape != mask_shape:
        raise DataError(f"{path} has cells {shape}, but the mask {mask} {mask_shape}; resample one to the other.")

    # A hundredth of a millimetre: affines that were stored as quaternions come back with such rounding.
    if not np.allclose(affine, mask_affine, atol=1e-2):
        away = float(np.abs(affine - mask_affine).max())
        raise DataError(
            f"{path} and the mask {mask} have as many cells but lie elsewhere: their affines differ by up to {away:.2f}. "
            "Resample the mask to the image."
        )


def _header_tr(path: Path) -> float:
    """Seconds between volumes as the image's header says; a unit that is not given counts as seconds."""
    header = _load(path).header
    value = float(header.get_zooms()[3])
    unit = header.get_xyzt_units()[1]
    return value * {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)


def _stimuli(events: pd.DataFrame, name: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Events with a column ``stimulus``, and the category of each."""
    columns = [name for name in _STIMULUS if name in events]
    if not columns:
        raise DataError(
            f"events of {name} need a column 'stimulus', 'stim_file' or 'trial_type' that says what was shown; they have "
            f"{', '.join(map(str, events.columns))}."
        )

    # Rows without a stimulus are button presses, rest and the like; they are no trials.
    column = columns[0]
    trials = pd.DataFrame(events[events[column].notna()])
    trials = trials.assign(stimulus=trials[column].astype(str)).reset_index(drop=True)

    keep = ["onset", "duration", "stimulus"]
    for extra in ("trial", "trial_type"):
        if extra in trials and extra != column:
            keep.append(extra)
    types = {}
    if "trial_type" in trials:
        types = dict(zip(trials["stimulus"], trials["trial_type"].astype(str), strict=True))

    ordered = pd.DataFrame(trials[keep]).sort_values("onset", kind="stable")
    return ordered.reset_index(drop=True), types
