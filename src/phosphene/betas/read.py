"""Read the runs of a subject from a BIDS folder, or from the layout OpenfMRI used before it.

===========  ==============================================================  =============================================
what         BIDS                                                            OpenfMRI
===========  ==============================================================  =============================================
images       ``sub-S/[ses-X/]func/*_bold.nii[.gz]``                          ``subS/BOLD/taskT_runR/bold*.nii.gz``
seconds      ``RepetitionTime`` of the JSON with it or above it, else the   ``scan_key.txt``, else the image
             image
events       ``*_events.tsv``, nearest first                                 ``bold_events.tsv``, else onsets per condition
mask         ``*desc-brain_mask.nii*`` of the runs, else one with their cells ``subS/masks/brain.nii.gz``, else ``mask.nii.gz``
                                                                             above the study
ROIs         ``*_label-NAME_mask.nii*``                                      the other images of ``subS/masks``
confounds    ``*desc-confounds*.tsv``                                        ``bold_moest.txt``
===========  ==============================================================  =============================================

What was shown is column ``stimulus`` of the events, else ``stim_file``, else ``trial_type``, or the column that is named. Masks
say where: above 0 is in. Which file belongs to which image is said in ``bids_files.py``. Preprocessed images
(``*_space-T1w_desc-preproc_bold.nii.gz``) are read by giving the derivative as the folder, and as ``pattern`` which of them;
events are then taken from the study above it, or beside it. Without a mask that has the images' cells, one is made of the first
image.
"""

from __future__ import annotations

import gzip
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from phosphene.betas.bids_files import studies_of
from phosphene.betas.events import Shown, Told, trials_of
from phosphene.betas.layouts import RunFiles, bids, bids_masks, openfmri, openfmri_masks
from phosphene.betas.runs import BoldRun
from phosphene.betas.signals import LARGEST
from phosphene.betas.surfaces import SurfaceSeries, is_surface, read_surface
from phosphene.betas.work import WorkFolder
from phosphene.errors import DataError, NotAvailable, PhospheneError, PhospheneWarning, did_you_mean
from phosphene.io import memory
from phosphene.io.npz_file import SHAPE
from phosphene.io.reading import reads
from phosphene.types import ROI, digest_of


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
    sessions: Sequence[int | str] | None = None,
    confounds: bool = False,
    pattern: str | None = None,
    shown: Shown | None = None,
    study: str | Path | None = None,
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
    sessions : sequence of int or str, optional
        which sessions, by number or name; all by default
    confounds : bool, default False
        whether to read motion parameters
    pattern : str, optional
        of the images' file names, where a run has several, such as ``bold_1slice.nii.gz``
    shown : Shown, optional
        which rows of the events are trials, and which column says what was shown
    study : str or Path, optional
        of a derivative: the folder with the events, where it lies neither above it nor alone beside it

    Returns
    -------
    SubjectRuns
        runs, table of voxels, and the category of each stimulus

    Raises
    ------
    DataError
        when a file is missing, broken, or does not fit the others; the message names it
    """
    files = locate_runs(
        folder, subject, mask=mask, task=task, sessions=sessions, pattern=pattern, shown=shown, study=study
    )
    return files.read(confounds)


@reads("folder")
def locate_runs(
    folder: str | Path,
    subject: str,
    *,
    mask: str | Path | None = None,
    task: str | None = None,
    sessions: Sequence[int | str] | None = None,
    pattern: str | None = None,
    shown: Shown | None = None,
    study: str | Path | None = None,
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
    sessions : sequence of int or str, optional
        which sessions, by number or name; all by default
    pattern : str, optional
        of the images' file names, where a run has several, such as ``bold_1slice.nii.gz``
    shown : Shown, optional
        which rows of the events are trials, and which column says what was shown
    study : str or Path, optional
        of a derivative: the folder with the events, where it lies neither above it nor alone beside it

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

    shown = shown or Shown()
    label = re.sub(r"^sub-?", "", str(subject))
    old = root / f"sub{label}"
    new = root / f"sub-{label}"
    studies: tuple[Path, ...] = ()
    if (old / "BOLD").is_dir():
        subject_folder = old
        places = openfmri(root, old, task, pattern, shown)
        brains, rois = openfmri_masks(old)
        brains = brains[:1]
    elif new.is_dir():
        subject_folder = new
        if study is not None:
            study = Path(study)

        places = bids(root, new, task, pattern, shown, study)
        brains, rois = bids_masks(root, new.name, [place.image for place in places])
        studies = studies_of(root, new.name, study)
    else:
        subjects = sorted(path.name for path in root.glob("sub*") if path.is_dir())
        if not subjects:
            raise DataError(
                f"{root} is no BIDS or OpenfMRI study: it holds no folder such as 'sub-{label}'. Give the folder that does."
            )

        raise DataError(f"{root} has no subject '{subject}'. {did_you_mean(f'sub-{label}', subjects)}")

    if sessions is not None:
        places = _of_sessions(places, sessions, subject_folder.name)

    mask_from = "the brain mask of the study"
    if mask is not None:
        brains = [Path(mask)]
        mask_from = ""
    elif not brains:
        mask_from = "the brightness of the first image"

    places = sorted(places, key=lambda place: (place.session, place.run))
    return SubjectFiles(root, subject_folder.name, places, tuple(brains), rois, shown, studies, mask_from)


def _of_sessions(places: list[RunFiles], sessions: Sequence[int | str], subject: str) -> list[RunFiles]:
    """Runs of these sessions, which are numbers or names."""
    wanted = [str(session).removeprefix("ses-") for session in sessions]
    chosen = []
    met = set()
    for place in places:
        for session in wanted:
            if session == place.session_name or session == str(place.session):
                chosen.append(place)
                met.add(session)
                break

    absent = [session for session in wanted if session not in met]
    if absent:
        known = dict.fromkeys(place.session_name or str(place.session) for place in places)
        raise DataError(f"{subject} has no session {absent[0]}; it has {', '.join(known)}.")

    return chosen


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
    masks : tuple of Path
        images above 0 inside; a voxel is used where all are. Empty where one is to be made of the first image
    rois : dict of {str: Path}
        masks by name
    shown : Shown
        how events are read
    studies : tuple of Path
        folders with what a derivative does not say
    mask_from : str
        what voxels are chosen by; "" where the user gave a mask
    """

    root: Path
    subject: str
    places: list[RunFiles]
    masks: tuple[Path, ...]
    rois: dict[str, Path]
    shown: Shown = field(default_factory=Shown)
    studies: tuple[Path, ...] = ()
    mask_from: str = ""

    def fingerprint(self, confounds: bool) -> list[str]:
        """What changes when one of the files does.

        Images count by name, size and time, because reading gigabytes would take longer than much of the fit; tables are
        small, and are often rewritten with the same content, so theirs counts.

        Parameters
        ----------
        confounds : bool
            whether motion parameters are used, and so count
        """
        parts = [str(self.shown)]
        images = [image for place in self.places for image in place.images]
        rois = [self.rois[name] for name in sorted(self.rois)]

        for path in [*images, *self.masks, *rois]:
            try:
                state = path.stat()
            except OSError as error:
                raise DataError(f"{path} does not exist.") from error

            parts.append(f"{path.resolve()} {state.st_size} {state.st_mtime_ns}")

        for place in self.places:
            parts.append(f"{place.session} {place.run} {place.tr_s} {place.start_s} {place.events().to_csv()}")
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
        on_surface = is_surface(self.places[0].image)
        if on_surface and self.masks and not self.mask_from:
            _warn(
                f"{self.subject}: the mask {self.masks[0]} has voxels and the images vertices, so all vertices are used."
            )

        surface = None
        if on_surface:
            surface = read_surface(self.places[0].images)
            inside = np.ones(len(surface.places), dtype=bool)
            affine = np.eye(4)
        else:
            inside, affine = self._inside()

        def volumes(place: RunFiles) -> np.ndarray:
            """Masked series of a run, (n_volumes, n_voxels)."""
            name = f"run-{place.session:03d}-{place.run:03d}"
            kept = None
            if work is not None:
                kept = work.array(name)

            if kept is None and surface is not None:
                kept = _of_surface(place, surface)
                if work is not None:
                    kept = work.keep_array(name, kept)

            if kept is None:
                data, space = _image(place.image, 4)  # (x, y, z, n_volumes)
                _same_space(place.image, data.shape[:3], space, self._mask_name, inside.shape, affine)
                kept = data[inside]  # (n_voxels, n_volumes)
                if work is not None:
                    kept = work.keep_array(name, kept)

            return kept.T  # a voxel's series lies together

        # Compressed, unpacked and masked: three copies of a run at a time.
        largest = max(_size(place.image) for place in self.places)
        at_once = min(workers, max(1, int(memory_gb * 1e9 / (3 * largest))))
        gathered = []  # (series, events, seconds between volumes, motion) of each run
        types: dict[str, set[str]] = {}
        told = Told()
        notes: dict[str, list[str]] = {}

        with ThreadPoolExecutor(at_once) as pool:
            reading = [pool.submit(volumes, place) for place in self.places]
            for place, series in zip(self.places, reading, strict=True):
                try:
                    events, of_run = trials_of(place.events(), self.shown, place.name, told)
                    for stimulus, kinds in of_run.items():
                        types.setdefault(stimulus, set()).update(kinds)

                    tr_s = _tr(place, self.shown.tr_s)
                    for note in place.notes:
                        notes.setdefault(note, []).append(place.name)

                    events = events.assign(onset=events["onset"] - place.start_s)
                    if place.session_name and place.session_name != str(place.session):
                        events = events.assign(session_name=place.session_name)

                    motion = None
                    if confounds:
                        motion = place.confounds()
                    gathered.append((series.result(), events, tr_s, motion))
                except BaseException:
                    # Runs that wait would still be read before the error is seen, minutes later.
                    pool.shutdown(cancel_futures=True)
                    raise

        for note, names in notes.items():
            _warn(f"{self.subject}: {note} ({_few(names)}).")

        for sentence in told.sentences():
            _warn(f"{self.subject}: {sentence}.")

        categories = self._categories(types)
        is_finite = self._finite([series for series, _, _, _ in gathered])
        if not is_finite.all():
            inside[inside] = is_finite

        runs = []
        for place, (series, events, tr_s, motion) in zip(self.places, gathered, strict=True):
            if not is_finite.all():
                series = _only(series, is_finite, f"finite-{place.session:03d}-{place.run:03d}", work)

            runs.append(BoldRun(series, tr_s, events, place.session, place.run, motion, place.name))

        if surface is not None:
            return SubjectRuns(self.subject, runs, surface.places.loc[inside].reset_index(drop=True), categories)

        # Voxels in the order of boolean indexing, which is that of argwhere: the last axis changes fastest.
        cells = np.argwhere(inside)  # (n_voxels, 3)
        voxels = pd.DataFrame(cells, columns=["i", "j", "k"])
        voxels[["x", "y", "z"]] = cells @ affine[:3, :3].T + affine[:3, 3]  # (n_voxels, 3), mm

        # ROIs in another space are left out without a word: derivatives have them in several.
        for name, file in sorted(self.rois.items()):
            roi, space = _image(file, 3)
            if roi.shape == inside.shape and np.allclose(space, affine, atol=1e-3):
                voxels[ROI + name] = roi[inside] > 0

        return SubjectRuns(self.subject, runs, voxels, categories)

    @property
    def _mask_name(self) -> str:
        """For messages."""
        if self.masks:
            return f"the mask {self.masks[0]}"

        return f"the mask made of {self.places[0].name}"

    def _inside(self) -> tuple[np.ndarray, np.ndarray]:
        """(x, y, z) bool, where all masks are above 0, and the affine."""
        if not self.masks:
            return _made_mask(self.places[0].image, self.subject)

        inside, affine = _image(self.masks[0], 3)
        inside = inside > 0  # some files mark what lies outside by -1
        for path in self.masks[1:]:
            other, space = _image(path, 3)
            _same_space(path, other.shape, space, self._mask_name, inside.shape, affine)
            inside &= other > 0

        if not inside.any():
            raise DataError(f"{self._mask_name} is nowhere above 0, so no voxel is left.")

        return inside, affine

    def _finite(self, series: Sequence[np.ndarray]) -> np.ndarray:
        """(n_voxels,) bool, voxels that are finite in every run; refused where none is, and counted where some are not."""
        is_finite = np.ones(series[0].shape[1], dtype=bool)
        for place, one in zip(self.places, series, strict=True):
            if one.dtype.kind != "f":
                continue

            # NaN is not at most anything.
            of_run = np.concatenate(
                [(np.abs(block) <= LARGEST).all(axis=1) for block in _in_blocks(one.T)]
            )  # (n_voxels,)
            if not of_run.any():
                t = int(np.flatnonzero(~np.isfinite(np.asarray(one)).any(axis=1))[0:1].sum())
                raise DataError(
                    f"no voxel of {place.image} is finite in every volume (look at volume {t}, counted from 0): NaN or infinite "
                    "values stand in the image. Repair the preprocessing, or leave the run out."
                )

            is_finite &= of_run

        n_lost = int((~is_finite).sum())
        if n_lost == len(is_finite):
            raise DataError(
                f"no voxel of {self.subject} is finite in every run; the runs have NaN in different places."
            )

        if n_lost:
            _warn(
                f"{self.subject}: {n_lost} of {len(is_finite)} voxels of the mask are NaN or infinite in some volume, or "
                f"beyond {LARGEST:g} (as outside of the brain in SPM's images) and were left out."
            )

        return is_finite

    def _categories(self, types: dict[str, set[str]]) -> dict[str, str]:
        """Stimulus to its trial type; "" where a stimulus came with several."""
        several = sorted(stimulus for stimulus, kinds in types.items() if len(kinds) > 1)
        if several:
            kinds = ", ".join(sorted(kind or "n/a" for kind in types[several[0]]))
            _warn(
                f"{self.subject}: {len(several)} of {len(types)} stimuli came with several trial types (such as '{several[0]}': "
                f"{kinds}) and get no category. The table of trials keeps what each trial was."
            )

        return {stimulus: next(iter(kinds)) if len(kinds) == 1 else "" for stimulus, kinds in types.items()}


def _of_surface(place: RunFiles, first: SurfaceSeries) -> np.ndarray:
    """(n_places, n_volumes) series of a run, whose vertices must be those of the first run."""
    series = read_surface(place.images)
    if not series.places.equals(first.places):
        raise DataError(
            f"{place.image} has {len(series.places)} vertices and voxels, and not those of the first run ({len(first.places)}). "
            "Resample all runs to one surface."
        )

    return series.values


def _in_blocks(values: np.ndarray, step: int = 4096) -> Iterator[np.ndarray]:
    for start in range(0, len(values), step):
        yield np.asarray(values[start : start + step])


def _only(series: np.ndarray, chosen: np.ndarray, name: str, work: WorkFolder | None) -> np.ndarray:
    """(n_volumes, n_chosen) columns of a series, kept in the folder of work where there is one."""
    if work is None:
        return series[:, chosen]

    kept = work.array(name)
    if kept is None:
        kept = work.keep_array(name, series.T[chosen])  # (n_chosen, n_volumes)

    return kept.T


def _warn(text: str) -> None:
    warnings.warn(text, PhospheneWarning, stacklevel=4)


def _few(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]

    return f"{len(names)} runs, such as {names[0]}"


def _tr(place: RunFiles, known_s: float | None) -> float:
    """Seconds between volumes; refused where the files disagree about it and nobody says which is true."""
    if known_s is not None:
        return known_s

    filed = _header_tr(place.image)
    if place.tr_s is None or place.tr_s > 20:  # milliseconds, which the run refuses
        return place.tr_s or filed

    # 1 stands in many images whose converter did not know, and milliseconds under the unit of seconds.
    ratio = filed / place.tr_s
    is_same = any(abs(ratio / factor - 1) < 0.01 for factor in (1, 1000, 1_000_000))
    if filed > 0 and filed != 1 and not is_same:
        raise DataError(
            f"{place.name}: the JSON says {place.tr_s:g} s between volumes, the image {filed:g} s. Betas of the wrong one are "
            "wrong without a sign: say which is true with --tr SECONDS (in Python tr_s=)."
        )

    return place.tr_s


def _made_mask(image: Path, subject: str) -> tuple[np.ndarray, np.ndarray]:
    """(x, y, z) bool brain of an image's mean volume, as nilearn cuts it out, and the affine."""
    try:
        from nilearn.masking import compute_epi_mask
    except ImportError as error:
        raise NotAvailable(
            f"no mask of {subject} has the cells of {image.name}. Give one with --mask FILE (in Python mask=), or have one made: "
            "pip install 'phosphene[brain]'."
        ) from error

    data, affine = _image(image, 4)  # (x, y, z, n_volumes)
    mean = np.nan_to_num(data.mean(axis=3, dtype=np.float64)).astype(np.float32)  # (x, y, z)
    inside = np.zeros(mean.shape, dtype=bool)
    with warnings.catch_warnings(), suppress(ValueError, RuntimeError):
        warnings.simplefilter("ignore")  # what it thinks of the mask is said below in our words
        inside = np.asarray(compute_epi_mask(nib.Nifti1Image(mean, affine)).dataobj) > 0

    how = "nilearn's compute_epi_mask"
    if not inside.any():  # nothing around the brain that it could stand out from
        inside = np.ptp(data, axis=3) > 0
        how = "all that vary, as no brain stands out"

    if not inside.any():
        raise DataError(f"{image} is the same in all volumes, so it holds no signal.")

    _warn(
        f"{subject}: no mask has the cells of the images, so one was made of {image.name} ({int(inside.sum())} of {inside.size} "
        f"voxels: {how}). A mask of your preprocessing is better: --mask FILE."
    )
    return inside, affine


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
    mask: str,
    mask_shape: tuple[int, ...],
    mask_affine: np.ndarray,
) -> None:
    """Refuse an image whose cells are not those of the mask."""
    if shape != mask_shape:
        raise DataError(f"{path} has cells {shape}, but {mask} {mask_shape}; resample one to the other.")

    # A hundredth of a millimetre: affines that were stored as quaternions come back with such rounding.
    if not np.allclose(affine, mask_affine, atol=1e-2):
        away = float(np.abs(affine - mask_affine).max())
        raise DataError(
            f"{path} and {mask} have as many cells but lie elsewhere: their affines differ by up to {away:.2f}. "
            "Resample the mask to the image."
        )


def _header_tr(path: Path) -> float:
    """Seconds between volumes as the image's header says; a unit that is not given counts as seconds."""
    if is_surface(path):
        return read_surface([path]).tr_s or 0.0

    header = _load(path).header
    value = float(header.get_zooms()[3])
    unit = header.get_xyzt_units()[1]
    return value * {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)
