"""NSD, the Natural Scenes Dataset: 7T responses of eight people to up to 10,000 pictures each.

::

    ROOT/
      nsddata/experiments/nsd/nsd_expdesign.mat | nsd_stim_info_merged.csv
      nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz, prf-visualrois.nii.gz, floc-*.nii.gz, streams.nii.gz
      nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf[_GLMdenoise_RR]/betas_sessionNN.{hdf5,nii.gz}, ncsnr.nii.gz
      nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5
      COCO_73k_annots_curated.npy                       optional: captions
      coco/annotations/{captions,instances,stuff}_*.json   optional: captions, categories

The file follows this order: the files, the design (which picture was shown when), the pictures with their captions and
categories, the voxels and trials of one subject, the splits of the papers, what `check` compares with the published
counts, and the reader that brings them together.

NSD counts pictures in two ways. Its design files, its manual and the names of its PNG files count from 1; rows of
``imgBrick`` and the column ``nsdId`` of the CSV file count from 0. Everything here counts from 0, from the first line
that reads a file on.

Reading betas from these files takes minutes a subject, as most of what is unpacked lies outside the brain. Do it once:
``phosphene data import nsd:subj01 --out FOLDER`` keeps every session it has read, goes on where it was stopped, and leaves
a folder that opens at once.
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.data.arrays import open_arrays
from phosphene.data.dataset_folder import INDEX, ScaledRows, read_dataset, write_dataset
from phosphene.data.findings import Finding
from phosphene.data.importing import read_table, read_text
from phosphene.data.pictures import PictureFolder, list_pictures, read_picture
from phosphene.data.reader import ReaderOptions, about
from phosphene.data.volumes import SessionRows, open_nifti, open_session, read_labels, read_volume
from phosphene.errors import ConfigError, DataError, PhospheneError, PhospheneWarning, did_you_mean
from phosphene.io import atomic
from phosphene.io.hdf5 import hdf5_dataset, open_hdf5
from phosphene.io.progress import Progress
from phosphene.io.store import cached
from phosphene.types import ROI, Dataset, Rows, Split, Stimuli, Trials, digest_of

DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"
STIM_INFO = "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
BRICK = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
SHARED_FOLDER = "nsddata_stimuli/stimuli/nsd/shared1000"
CAPTIONS = "COCO_73k_annots_curated.npy"
CAPTION_PLACES = ("", "annots", "nsddata_stimuli/stimuli/nsd", "nsddata/experiments/nsd")
"""Folders that hold the captions in practice: the file is no part of NSD's bucket, so people put it where they like."""
COCO = "coco/annotations"
_COCO_PARTS = ("train2017", "val2017")  # NSD took its pictures from both

SUBJECTS = tuple(f"subj{k:02d}" for k in range(1, 9))
N_SESSIONS = 40
"""Sessions the design was made for; four participants did fewer."""
N_TRIALS = 30_000  # 40 sessions of 750
N_SHARED = 1000  # pictures that all eight were to see
N_STIMULI = 73_000

SESSIONS = {f"subj{k:02d}": n for k, n in enumerate((40, 40, 32, 30, 40, 32, 40, 30), start=1)}
"""Sessions measured."""

VERSIONS = {"b2": "betas_fithrf", "b3": "betas_fithrf_GLMdenoise_RR"}
"""Folder of each version of the betas."""

VOXELS = {
    "subj01": 15724, "subj02": 14278, "subj03": 15226, "subj04": 13153,
    "subj05": 13039, "subj06": 17907, "subj07": 12682, "subj08": 14386,
}  # fmt: skip
"""Voxels of ``nsdgeneral``. Those of subjects 1, 2, 5 and 7 stand in the papers, the others in public loaders."""

LABELS: dict[str, tuple[str, ...]] = {
    "prf-visualrois": ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"),
    "floc-faces": ("OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"),
    "floc-bodies": ("EBA", "FBA-1", "FBA-2", "mTL-bodies"),
    "floc-places": ("OPA", "PPA", "RSC"),
    "floc-words": ("OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"),
    "streams": ("early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal"),
}
"""Names of the labels 1, 2, ... of each collection, as in NSD's colour tables."""

_UNIONS = {"V1": ("V1v", "V1d"), "V2": ("V2v", "V2d"), "V3": ("V3v", "V3d")}  # papers report whole areas
_SPLIT_SESSIONS = 37  # public when the four papers were written

_EXTRA_STEP = {
    "pictures": f"Fetch {BRICK} to train or test pictures.",
    "captions": f"Put {CAPTIONS}, or COCO's captions_*.json in {COCO}, there to use captions.",
    "categories": f"Put COCO's instances_*.json in {COCO}, with {STIM_INFO}, to use categories.",
}


class NSDOptions(ReaderOptions):
    """Which betas, voxels and sessions."""

    betas: Literal["b2", "b3"] = Field(
        default="b3", description="b3 is GLMsingle's type D (fithrf_GLMdenoise_RR), b2 fithrf"
    )
    mask: str = Field(default="nsdgeneral", description="voxels where this file of the roi folder is above 0")
    rois: tuple[str, ...] | None = Field(
        default=None, description="label files to read; by default every known one that is there"
    )
    sessions: int | tuple[int, ...] | None = Field(
        default=None, description="the first N, or a list; all that are there"
    )
    voxel_order: Literal["xyz", "zyx"] = Field(
        default="xyz", description="mask unrolled with z fastest, or (Mind Reader) x fastest"
    )
    scale: float | None = Field(
        default=None, gt=0, description="file value to percent signal change; found by type and range"
    )
    image_size: int | None = Field(default=None, ge=8, description="side of the pictures; 425 as in the file")
    store: str | None = Field(default=None, description="folder that keeps the masked betas of every session once read")


def beta_folder(path: Path, subject: str, options: NSDOptions) -> Path:
    """Where the betas of one subject stand.

    Parameters
    ----------
    path : Path
        folder that holds ``nsddata_betas``
    subject : str
        such as ``subj01``
    options : NSDOptions
        its ``betas`` names the version
    """
    return path / "nsddata_betas" / "ppdata" / subject / "func1pt8mm" / VERSIONS[options.betas]


def roi_folder(path: Path, subject: str) -> Path:
    """Where the masks and label files of one subject stand.

    Parameters
    ----------
    path : Path
        folder that holds ``nsddata``
    subject : str
        such as ``subj01``
    """
    return path / "nsddata" / "ppdata" / subject / "func1pt8mm" / "roi"


# -- Which picture was shown when --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NsdDesign:
    """Order of the pictures.

    Parameters
    ----------
    shown : mapping of {str: ndarray}
        subject to (n_trials,) int, 0-based NSD id of the picture of each trial of the full design
    shared : ndarray
        0-based NSD ids of the pictures everyone was to see
    runs : ndarray
        (40, trials of a session) int, run of each trial counted from 1; zeros where the file does not say
    origin : str
        name of the file
    """

    shown: Mapping[str, np.ndarray]
    shared: np.ndarray
    runs: np.ndarray
    origin: str

    @property
    def n_trials(self) -> int:
        """Of one subject, over all 40 sessions."""
        return len(next(iter(self.shown.values())))

    @property
    def n_per_session(self) -> int:
        """Trials of one session."""
        return self.n_trials // N_SESSIONS

    @property
    def is_public(self) -> bool:
        """Whether this has the size of the public design, so that published counts must come out."""
        return self.n_trials == N_TRIALS and len(self.shared) == N_SHARED


def read_design(root: Path) -> NsdDesign:
    """The design below `root`, from the MATLAB file, else from the CSV.

    Parameters
    ----------
    root : Path
        folder that holds ``nsddata``

    Returns
    -------
    NsdDesign
        The MATLAB file comes first because it alone has the lengths of the runs.

    Raises
    ------
    DataError
        Neither is there, or what is there is no design; see `design_from_mat` and `design_from_csv`.
    """
    if (root / DESIGN).is_file():
        return design_from_mat(root / DESIGN)
    if (root / STIM_INFO).is_file():
        return design_from_csv(root / STIM_INFO)

    raise DataError(
        f"nothing below {root} says which picture was shown when: neither {DESIGN} nor {STIM_INFO} is there. "
        "Fetch one of them."
    )


def design_from_mat(path: Path) -> NsdDesign:
    """The design from ``subjectim`` (8, n_images) and ``masterordering`` (n_trials,), both counted from 1.

    Parameters
    ----------
    path : Path
        ``nsd_expdesign.mat``

    Raises
    ------
    DataError
        Arrays missing, transposed, counted from 0, pictures that repeat in a row of ``subjectim``, or that are not
        shown three times.

    References
    ----------
    NSD's data manual; papers' use: ``id(t) = subjectim[s, masterordering[t] - 1] - 1``.
    """
    file = open_arrays(path)
    images = np.asarray(file["subjectim"])
    order = np.asarray(file["masterordering"]).ravel().astype(np.int64)

    if images.ndim != 2 or images.shape[0] != len(SUBJECTS):
        if images.ndim == 2 and images.shape[1] == len(SUBJECTS):
            hint = " It is transposed."
        else:
            hint = ""
        raise DataError(f"'subjectim' in {path} has shape {images.shape}; (8, pictures) is expected.{hint}")

    images = images.astype(np.int64)  # the file holds doubles
    n = images.shape[1]
    for name, values, top in (("subjectim", images, N_STIMULI), ("masterordering", order, n)):
        if values.min() < 1 or values.max() > top:
            raise DataError(
                f"'{name}' in {path} goes from {values.min()} to {values.max()}, but must lie in 1 to {top}: the public "
                "file counts from 1. Fetch the public file again."
            )

    for subject, row in zip(SUBJECTS, images, strict=True):
        is_duplicate = pd.Index(row).duplicated()
        if is_duplicate.any():
            column = int(np.flatnonzero(is_duplicate)[0])
            raise DataError(
                f"picture {row[column]} stands twice for {subject} in 'subjectim' of {path} (column {column})."
            )

    counts = np.bincount(order, minlength=n + 1)[1:]  # (n_images,), entry 0 dropped as the file counts from 1
    if (counts != 3).any():
        image = int(np.flatnonzero(counts != 3)[0])
        raise DataError(
            f"'masterordering' in {path} shows image {image + 1} {counts[image]} times, but each is shown three times; it "
            f"has {len(order)} entries for {n} images. Fetch the public file again."
        )

    # The shared pictures stand first in every row of subjectim, so that their number is all that is needed.
    if "sharedix" in file:
        n_shared = file["sharedix"].size
    else:
        n_shared = min(N_SHARED, n)

    if not (images[:, :n_shared] == images[0, :n_shared]).all():
        raise DataError(
            f"the first {n_shared} columns of 'subjectim' in {path} differ between subjects; they are shared."
        )

    shown = {}
    for subject, row in zip(SUBJECTS, images, strict=True):
        shown[subject] = row[order - 1] - 1  # (n_trials,), from here on counted from 0

    pattern = None
    if "stimpattern" in file:
        pattern = np.asarray(file["stimpattern"])  # (40 sessions, 12 runs, slots of a run), 1 where a picture was shown

    runs = _runs(_per_session(len(order), path), pattern)
    return NsdDesign(shown, images[0, :n_shared] - 1, runs, path.name)


def design_from_csv(path: Path) -> NsdDesign:
    """The design from ``nsdId`` (from 0), ``shared1000`` and ``subjectS_repR``, the trial of showing R (from 1; 0: never).

    Parameters
    ----------
    path : Path
        ``nsd_stim_info_merged.csv``

    Raises
    ------
    DataError
        Columns missing, ids twice, or two pictures for one trial.
    """
    table = read_table(path, "the table of stimuli")
    needed = ["nsdId", "shared1000", *(f"subject{s}_rep{r}" for s in range(1, 9) for r in range(3))]
    missing = [column for column in needed if column not in table]
    if missing:
        raise DataError(f"{path} lacks the column '{missing[0]}' ({len(missing)} are missing); fetch the public file.")

    ids = table["nsdId"].astype(np.int64).to_numpy()
    is_duplicate = pd.Index(ids).duplicated()
    if is_duplicate.any():
        line = int(np.flatnonzero(is_duplicate)[0]) + 2  # counted from 1, after the header
        raise DataError(f"nsdId {ids[is_duplicate][0]} stands twice in {path} (line {line}).")

    shown = {}
    for k, subject in enumerate(SUBJECTS, start=1):
        numbers = np.stack([_numbers_shown(table[f"subject{k}_rep{r}"]) for r in range(3)], axis=1)  # (n_pictures, 3)
        row, _ = np.nonzero(numbers > 0)
        trial = numbers[numbers > 0] - 1
        is_repeated = pd.Index(trial).duplicated()

        # Distinct trials from 0 to their number less one: only then does every position of `order` get a picture.
        if is_repeated.any() or not len(trial) or trial.max() + 1 != len(trial):
            if is_repeated.any():
                mistake = f"trial {trial[is_repeated][0] + 1} twice"
            else:
                mistake = f"{len(trial)} trials with gaps between them"

            raise DataError(
                f"{path} gives {subject} {mistake}; each of its trials shows one picture. Fetch the public file."
            )

        order = np.empty(len(trial), dtype=np.int64)
        order[trial] = ids[row]
        shown[subject] = order

    shared = ids[table["shared1000"].str.lower().isin(["true", "1", "1.0"]).to_numpy()]
    sizes = {len(order) for order in shown.values()}
    if len(sizes) > 1:
        raise DataError(f"{path} has {' or '.join(map(str, sorted(sizes)))} trials a subject; all must have as many.")
    return NsdDesign(shown, shared, _runs(_per_session(sizes.pop(), path), None), path.name)


def _numbers_shown(column: Any) -> np.ndarray:
    """(n_pictures,) which trial showed each picture, from 1; 0 where it was not shown."""
    numbers = pd.Series(pd.to_numeric(column))
    return numbers.fillna(0).to_numpy().astype(np.int64)


def _per_session(n_trials: int, path: Path) -> int:
    if n_trials % N_SESSIONS:
        raise DataError(f"{path} orders {n_trials} trials, which are no {N_SESSIONS} sessions of equal length.")
    return n_trials // N_SESSIONS


def _runs(n: int, pattern: np.ndarray | None) -> np.ndarray:
    """(40, n) run of each trial. Without ``stimpattern`` the public design has 63 and 62 trials in turn."""
    if pattern is not None and pattern.ndim == 3 and len(pattern) == N_SESSIONS:
        lengths = pattern.astype(bool).sum(axis=2)
        if (lengths.sum(axis=1) == n).all():
            return np.stack([np.repeat(np.arange(1, len(row) + 1), row) for row in lengths])  # (40, n)

    if n == N_TRIALS // N_SESSIONS:
        return np.tile(np.repeat(np.arange(1, 13), [63, 62] * 6), (N_SESSIONS, 1))
    return np.zeros((N_SESSIONS, n), dtype=np.int64)


# -- Pictures, captions, categories ------------------------------------------------------------------------------------


def stimulus_id(number: int) -> str:
    """``nsd00000`` to ``nsd72999``: the 0-based row of ``imgBrick``.

    Examples
    --------
    >>> stimulus_id(2950)
    'nsd02950'
    """
    return f"nsd{int(number):05d}"


class BrickRows:
    """Rows of ``imgBrick``, read from the HDF5 file when asked for.

    Parameters
    ----------
    path : Path
        ``nsd_stimuli.hdf5``
    size : int, optional
        side of the pictures that come out, resized with Pillow's antialiased Lanczos kernel; that of the file by
        default
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        shapes = open_arrays(path).shapes
        if "imgBrick" not in shapes:
            raise DataError(f"{path} has no dataset 'imgBrick'; it holds {', '.join(shapes) or 'nothing'}.")

        with open_hdf5(path) as file:
            brick = hdf5_dataset(file, "imgBrick")
            shape = brick.shape
            dtype = brick.dtype

        if len(shape) != 4 or shape[3] not in (1, 3) or dtype != np.uint8:
            raise DataError(
                f"'imgBrick' in {path} is {shape} of {dtype}; (pictures, height, width, 3) of uint8 is expected."
            )

        self.path = path
        self.size = size
        self.n = shape[0]
        if size is None:
            self.shape = shape
        else:
            self.shape = (shape[0], size, size, shape[3])

    def __getitem__(self, rows: Any) -> np.ndarray:
        index = np.arange(self.n)[rows]
        numbers, position = np.unique(np.atleast_1d(index), return_inverse=True)  # each read once, in the file's order
        try:
            with open_hdf5(self.path) as file:
                brick = hdf5_dataset(file, "imgBrick")
                if numbers.size:
                    pictures = np.stack([brick[int(i)] for i in numbers])  # (n, height, width, channels)
                else:
                    pictures = np.empty((0, *brick.shape[1:]))
        except DataError:
            raise
        except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.path} is damaged ({error}). Download it again.") from error

        if self.size is not None and pictures.shape[1:3] != (self.size, self.size):
            pictures = np.stack([_resized(np.asarray(picture), self.size) for picture in pictures])

        out = pictures[position.ravel()].astype(np.uint8, copy=False)
        if np.ndim(index):
            return out
        return out[0]


def _resized(picture: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    if picture.shape[2] == 3:
        plane = picture
    else:
        plane = picture[:, :, 0]

    out = np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.LANCZOS))
    if out.ndim == 3:
        return out
    return out[..., None]


def stimulus_pictures(
    root: Path, numbers: np.ndarray, size: int | None
) -> tuple[Rows | None, np.ndarray | None, np.ndarray | None]:
    """Pictures of these NSD ids: from the HDF5 file, else the PNG files of ``shared1000``, else none.

    Parameters
    ----------
    root : Path
        folder of the data set
    numbers : ndarray of shape (n,)
        0-based NSD ids
    size : int or None
        see `BrickRows`

    Returns
    -------
    tuple of (Rows or None, ndarray or None, ndarray or None)
        images, present, rows as `Stimuli` takes them

    Raises
    ------
    DataError
        A file with fewer pictures than the design uses.
    """
    if (root / BRICK).is_file():
        brick = BrickRows(root / BRICK, size)
        if numbers.max() >= brick.n:
            raise DataError(
                f"'imgBrick' in {root / BRICK} holds {brick.n} pictures, but the design shows number {numbers.max()} "
                "(counted from 0). It is not the public file of 73,000; download it again."
            )
        return brick, None, numbers

    if (root / SHARED_FOLDER).is_dir():
        files = {}
        for path in list_pictures(root / SHARED_FOLDER):
            match = re.search(r"nsd(\d{5})$", path.stem)
            if match:
                files[int(match[1]) - 1] = path  # these names count from 1

        paths = [files.get(int(n)) for n in numbers]
        present = np.asarray([path is not None for path in paths])  # (n,)
        if present.any():
            first = next(path for path in paths if path is not None)
            side = size or read_picture(first).pixels.shape[0]
            return PictureFolder(paths, (len(paths), side, side, 3)), present, None

    return None, None, None


def coco_ids(root: Path) -> dict[int, int]:
    """0-based NSD id to COCO id, from ``nsd_stim_info_merged.csv``; empty where it is absent.

    The MATLAB file of the design has no COCO ids: without the CSV file, COCO's own annotations cannot be used.
    """
    if not (root / STIM_INFO).is_file():
        return {}
    table = read_table(root / STIM_INFO, "the table of stimuli")
    if "cocoId" not in table:
        return {}
    return dict(zip(table["nsdId"].astype(int), table["cocoId"].astype(int), strict=True))


def stimulus_captions(root: Path, numbers: Iterable[int]) -> tuple[tuple[str, ...], ...] | None:
    """Captions of these NSD ids: ``COCO_73k_annots_curated.npy``, or COCO's own ``captions_*.json``; None without.

    Parameters
    ----------
    root : Path
        folder of the data set
    numbers : iterable of int
        0-based NSD ids

    Raises
    ------
    DataError
        The array holds pickled objects (the public file holds plain text), or has too few rows.
    """
    numbers = [int(n) for n in numbers]
    for place in CAPTION_PLACES:
        path = root / place / CAPTIONS
        if path.is_file():
            return _from_array(path, numbers)

    files = _annotation_files(root, "captions")
    known = coco_ids(root)
    if not files or not known:
        return None
    texts: dict[int, list[str]] = {known[n]: [] for n in numbers if n in known}
    for path in files:
        for entry in _json(path)["annotations"]:
            if entry["image_id"] in texts:
                texts[entry["image_id"]].append(" ".join(str(entry["caption"]).split()))

    return tuple(tuple(texts.get(known.get(n, -1), ())) for n in numbers)


def _annotation_files(root: Path, kind: str) -> list[Path]:
    """Those of COCO's files of this kind (captions, instances, stuff) that are there."""
    files = []
    for part in _COCO_PARTS:
        file = root / COCO / f"{kind}_{part}.json"
        if file.is_file():
            files.append(file)

    return files


def _from_array(path: Path, numbers: list[int]) -> tuple[tuple[str, ...], ...]:
    """Captions of these rows of the curated array, without the empty texts that fill up its rows."""
    try:
        array = open_arrays(path)["array"]
    except DataError as error:
        if "pickled" not in str(error):
            raise
        raise DataError(
            f"{path} holds pickled Python objects, which can run any code when opened, so it is not opened. The public "
            "file holds plain text: download it again, or save yours with array.astype(str)."
        ) from error

    if array.dtype.kind not in "US" or array.ndim != 2:
        raise DataError(f"{path} is {array.shape} of {array.dtype}; (pictures, captions) of text is expected.")
    if max(numbers) >= len(array):
        raise DataError(f"{path} has captions of {len(array)} pictures, but number {max(numbers)} is shown.")

    if array.dtype.kind == "S":
        rows = np.char.decode(array[numbers], "utf-8")
    else:
        rows = array[numbers]

    captions = []
    for row in rows:
        texts = [" ".join(str(text).split()) for text in row]
        captions.append(tuple(filter(None, texts)))

    return tuple(captions)


def stimulus_labels(root: Path, numbers: Iterable[int]) -> tuple[pd.DataFrame, np.ndarray] | None:
    """COCO categories of these NSD ids, from ``instances_*.json`` and ``stuff_*.json``; None where they are absent.

    Parameters
    ----------
    root : Path
        folder of the data set, with the annotation files in ``coco/annotations``
    numbers : iterable of int
        0-based NSD ids

    Returns
    -------
    tuple of (DataFrame, ndarray) or None
        (n, categories) bool, and (n,) the category that covers most of the uncropped picture, "none" without any
    """
    numbers = [int(n) for n in numbers]
    files = [*_annotation_files(root, "instances"), *_annotation_files(root, "stuff")]
    known = coco_ids(root)
    if not files or not known:
        return None

    row = {known[n]: i for i, n in enumerate(numbers) if n in known}
    area: dict[str, np.ndarray] = {}
    for path in files:
        content = _json(path)
        names = {c["id"]: str(c["name"]) for c in content["categories"]}
        for name in names.values():
            area.setdefault(name, np.zeros(len(numbers)))
        for entry in content["annotations"]:
            if entry["image_id"] in row:
                # An annotation without any area still says that the category is in the picture.
                covered = max(float(entry.get("area", 1)), 1e-9)
                area[names[entry["category_id"]]][row[entry["image_id"]]] += covered

    table = pd.DataFrame(area)  # (n, categories), square pixels
    main = np.asarray(table.columns, dtype=object)[table.to_numpy().argmax(axis=1)]  # (n,)
    main[(table.to_numpy() == 0).all(axis=1)] = "none"

    return table > 0, main


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_text(path, "the annotations"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is no JSON (line {error.lineno}: {error.msg}); download it again.") from error

    if not isinstance(value, dict) or "annotations" not in value:
        raise DataError(f"{path} has no 'annotations'; COCO's own annotation file is expected.")
    return value


def _stimuli(path: Path, numbers: np.ndarray, options: NSDOptions) -> Stimuli:
    images, present, rows = stimulus_pictures(path, numbers, options.image_size)
    labels = stimulus_labels(path, numbers)
    ids = np.asarray([stimulus_id(n) for n in numbers], dtype=object)
    if present is not None and not present.all():
        warnings.warn(
            f"{int((~present).sum())} of {len(ids)} NSD pictures are missing, first '{ids[~present][0]}'; their trials "
            "are kept but cannot train or test pictures.",
            PhospheneWarning,
            stacklevel=3,
        )

    table = category = None
    if labels is not None:
        table, category = labels

    return Stimuli(ids, images, stimulus_captions(path, numbers), table, category, present, rows)


# -- Voxels and trials of one subject ----------------------------------------------------------------------------------


def read_trials(path: Path, design: NsdDesign, subject: str, options: NSDOptions) -> Trials:
    """Trials of one subject. Headers are read and four trials of its first session, to find the scale.

    Parameters
    ----------
    path : Path
        folder that holds ``nsddata``
    design : NsdDesign
        from `read_design`
    subject : str
        such as ``subj01``
    options : NSDOptions
        which betas, voxels and sessions

    Returns
    -------
    Trials
        (n_trials, n_voxels) betas in percent signal change, read when asked for

    Raises
    ------
    DataError
        See `NSD.load`.
    """
    like, voxels, table = _voxels(path, subject, options)
    files = _session_files(beta_folder(path, subject, options), options, subject)
    sessions = {k: open_session(f, like.shape[:3]) for k, f in files.items()}
    for k, session in sessions.items():
        if session.n_trials != design.n_per_session:
            raise DataError(
                f"{session.path} holds {session.n_trials} trials, but session {k} has {design.n_per_session} in "
                f"{design.origin}. Which trials are missing cannot be told; download it again."
            )

    # The public files hold int16 (percent x 300), converted ones may hold floats: one scale must do for all sessions.
    dtypes = {session.dtype.name: k for k, session in reversed(sessions.items())}
    if len(dtypes) > 1:
        (b, j), (a, i) = sorted(dtypes.items(), key=lambda entry: -entry[1])[:2]
        raise DataError(
            f"session {i} of {subject} is {a} but session {j} is {b}, so their scales may differ. Use files of one kind."
        )

    rows: Any = SessionRows(list(sessions.values()), voxels)
    scale = options.scale or find_scale(rows.files[0].read(voxels, 4), rows.files[0].path)
    n = design.n_per_session
    positions = np.concatenate([np.arange((k - 1) * n, k * n) for k in sessions])  # (n_trials,) in the whole design
    if options.store is not None:
        # Name and size of every file: betas fetched anew under the same name must not meet the rows of the old ones.
        spec = {
            "what": "masked betas of NSD", "subject": subject, "voxels": digest_of(voxels),
            "files": [[str(s.path.name), s.path.stat().st_size] for s in sessions.values()], "betas": options.betas,
        }  # fmt: skip
        rows = StoredSessions(rows, atomic.checked_path(options.store), spec, [f"trial{t:05d}" for t in positions])

    order = design.shown[subject]  # (n_trials of the whole design,)
    repeats = pd.Series(order).groupby(order).cumcount().to_numpy()  # counted over all 40 sessions, read or not
    numbers = order[positions]
    trials = pd.DataFrame(
        {
            "trial": positions,
            "stimulus": [stimulus_id(i) for i in numbers],
            "session": positions // n + 1,
            "run": design.runs.ravel()[positions],
            "repeat": repeats[positions],
            "nsd_id": numbers,
            "is_shared": np.isin(numbers, design.shared),
        }
    )

    provenance = {
        "betas": VERSIONS[options.betas],
        "mask": f"{options.mask} > 0",
        "voxel_order": f"boolean mask over ({', '.join(options.voxel_order)}), last axis fastest",
        "unit": f"percent signal change (file x {scale:g})",
        "sessions": _ranges(sessions),
    }

    if scale != 1:
        rows = ScaledRows(rows, scale)

    return Trials(rows, trials, table, subject, provenance)


def _ranges(numbers: Iterable[int]) -> str:
    numbers = list(numbers)
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def find_scale(numbers: np.ndarray, path: Path) -> float:
    """What turns file values into percent signal change: 1/300 for NSD's int16, 1 for percent.

    Parameters
    ----------
    numbers : ndarray
        a sample of betas
    path : Path
        for the message

    Returns
    -------
    float
        1/300 or 1. Betas of cortex are a few percent, so that a typical one of 30 or more cannot be percent.

    Raises
    ------
    DataError
        Whole numbers as small as percent: the fractions were cut off.

    Examples
    --------
    >>> find_scale(np.array([450, -220, 610], dtype="i2"), Path("x")), find_scale(np.array([1.5, -0.7]), Path("x"))
    (0.0033333333333333335, 1.0)
    """
    values = np.abs(numbers[numbers != 0].astype(np.float64))  # voxels outside the scanned slab are exactly 0
    if values.size:
        typical = float(np.nanmedian(values))
    else:
        typical = 0.0

    if numbers.dtype.kind in "iu" and 0 < typical < 5:
        raise DataError(
            f"{path} holds whole numbers with a median of {typical:g}; NSD's are percent signal change x 300, a few "
            "hundred. They were probably divided by 300 and rounded; fetch the file again, or give scale=."
        )
    if numbers.dtype.kind in "iu" or typical >= 30:
        return 1 / 300
    return 1.0


def _session_files(folder: Path, options: NSDOptions, subject: str) -> dict[int, Path]:
    """Session number to file; HDF5 before NIfTI where both are there."""
    files: dict[int, Path] = {}
    for ending in (
        ".nii",
        ".nii.gz",
        ".hdf5",
    ):  # the last to set a session wins: HDF5 is read without unpacking it whole
        for file in folder.glob(f"betas_session*{ending}"):
            match = re.fullmatch(r"betas_session(\d\d)" + re.escape(ending), file.name)
            if match:
                files[int(match[1])] = file

    files = dict(sorted(files.items()))
    if not files:
        names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
        raise DataError(
            f"{folder} holds no betas_sessionNN.hdf5 or .nii.gz (but {', '.join(names[:5]) or 'nothing'}). Fetch them."
        )

    # By default everything up to the last file: a gap in between is a broken download, not a choice.
    sessions = options.sessions
    if sessions is None:
        sessions = tuple(range(1, max(files) + 1))
    elif isinstance(sessions, int):
        sessions = tuple(range(1, sessions + 1))

    impossible = [k for k in sessions if not 1 <= k <= N_SESSIONS]
    if impossible or not sessions or len(set(sessions)) < len(sessions):
        raise ConfigError(f"sessions must be different numbers from 1 to {N_SESSIONS}, but are {options.sessions}.")

    missing = [k for k in sessions if k not in files]
    if missing:
        raise DataError(
            f"{subject} lacks session {', '.join(map(str, missing[:8]))}{' ...' if len(missing) > 8 else ''} in {folder} "
            f"(found {_ranges(files)}). Fetch betas_session{missing[0]:02d}, or name the sessions to use, such as "
            f"sessions={[k for k in sessions if k in files][:3]}."
        )

    return {k: files[k] for k in sorted(sessions)}


def _voxels(path: Path, subject: str, options: NSDOptions) -> tuple[Any, np.ndarray, pd.DataFrame]:
    """An image with the grid, (n, 3) indices, and the table of voxels."""
    folder = roi_folder(path, subject)
    like, mask = _read_roi(folder, options.mask, None)
    # The order of the columns is part of a trained decoder: weights of one order do not fit betas of the other.
    if options.voxel_order == "xyz":
        ijk = np.argwhere(mask > 0)  # (n_voxels, 3)
    else:
        ijk = np.argwhere(mask.T > 0)[:, ::-1]  # (n_voxels, 3)

    if not len(ijk):
        raise DataError(f"no voxel of {subject} is above 0 in {options.mask} ({folder}); it is not the public mask.")

    xyz = ijk @ like.affine[:3, :3].T + like.affine[:3, 3]  # (n_voxels, 3), mm
    columns: dict[str, np.ndarray] = {}
    for names, values in (("xyz", xyz), ("ijk", ijk)):
        for axis, name in enumerate(names):
            columns[name] = values[:, axis]

    # ncsnr is the ratio of standard deviations, signal over noise of one trial. The mean of n trials has the noise
    # variance 1/n, hence ncsnr^2 / (ncsnr^2 + 1/n).
    ncsnr = beta_folder(path, subject, options) / "ncsnr.nii.gz"
    if ncsnr.is_file():
        ratio = read_volume(ncsnr, like).astype(np.float64)[tuple(ijk.T)] ** 2  # (n_voxels,)
        columns |= {"noise_ceiling": ratio / (ratio + 1), "noise_ceiling_3": ratio / (ratio + 1 / 3)}

    if options.rois is None:
        collections = tuple(LABELS)
    else:
        collections = options.rois

    for name in collections:
        if options.rois is None and not roi_files(folder, name):
            warnings.warn(
                f"{subject} has no {name}.nii.gz in {folder}; its ROIs are left out.", PhospheneWarning, stacklevel=4
            )
            continue

        values = _read_roi(folder, name, like)[1][tuple(ijk.T)]  # (n_voxels,)
        known = LABELS.get(name, ())
        areas = dict(enumerate(known, start=1))
        for label in sorted(set(np.unique(values)) - set(range(len(known) + 1))):
            areas[int(label)] = f"{name}-{label}"

        if name == "streams":  # its areas are called "early", "ventral" ..., which say little alone
            prefix = "streams-"
        else:
            prefix = ""

        for label, area in areas.items():
            columns[ROI + prefix + area] = values == label

        if name == "prf-visualrois":
            for union, (a, b) in _UNIONS.items():
                columns[ROI + union] = columns[ROI + a] | columns[ROI + b]

    return like, ijk, pd.DataFrame(columns)


def roi_files(folder: Path, name: str) -> list[Path]:
    """``NAME.nii.gz``, or one file for each half of the brain.

    Parameters
    ----------
    folder : Path
        from `roi_folder`
    name : str
        of the collection, such as "prf-visualrois"

    Returns
    -------
    list of Path
        one or two files; none where the collection is absent
    """
    for stems in ((name,), (f"lh.{name}", f"rh.{name}")):
        candidates = [folder / f"{stem}{ending}" for stem in stems for ending in (".nii.gz", ".nii")]
        files = [file for file in candidates if file.is_file()]
        if files:
            return files

    return []


def _read_roi(folder: Path, name: str, like: Any) -> tuple[Any, np.ndarray]:
    files = roi_files(folder, name)
    if not files:
        there = {p.name.split(".nii")[0].removeprefix("lh.").removeprefix("rh.") for p in folder.glob("*.nii*")}
        raise DataError(f"{folder} has no {name}.nii.gz. {did_you_mean(name, sorted(there))}")

    if len(files) == 1 and files[0].name.startswith(("lh.", "rh.")):
        raise DataError(f"{folder} has {files[0].name} but not the other hemisphere; fetch {name}.nii.gz.")

    if like is None:
        like = open_nifti(files[0], 3)

    # Each file marks voxels of its own hemisphere and is 0 elsewhere, so that the larger label is the one that counts.
    labels = np.zeros(like.shape[:3], dtype=np.int64)
    for file in files:
        labels = np.maximum(labels, read_labels(file, like))

    return like, labels


class StoredSessions:
    """Sessions in a row store, one chunk a session, made when first needed.

    Parameters
    ----------
    sessions : SessionRows
        where the betas come from
    root : Path
        folder of stores
    spec : mapping of {str: Any}
        what the rows are
    ids : list of str
        one per row
    """

    def __init__(self, sessions: SessionRows, root: Path, spec: Mapping[str, Any], ids: list[str]) -> None:
        self.sessions = sessions
        self.root = root
        self.spec = spec
        self.ids = ids
        self.shape = sessions.shape
        self._rows: Rows | None = None

    def fill(self, progress: Progress | None = None) -> Rows:
        """The rows, those missing read now. The store holds the file's numbers as they are, int16 at half the size."""
        if self._rows is None:
            n = self.sessions.n_per_session
            place = {name: i for i, name in enumerate(self.ids)}

            def compute(ids: np.ndarray) -> np.ndarray:
                return self.sessions[np.asarray([place[i] for i in ids])]

            # A batch is a session: the file of a session is opened once and read as a whole.
            store = cached(
                self.root, self.spec, self.ids, compute, shape=self.shape[1:], unit="numbers of the file",
                dtype="int16" if self.sessions.files[0].dtype == np.int16 else "float32",
                batch=n, chunk=n, progress=progress,
            )  # fmt: skip

            self._rows = store.select(self.ids)

        assert self._rows is not None
        return self._rows

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.fill()[rows]


# -- Splits of the papers ----------------------------------------------------------------------------------------------


def _splits(design: NsdDesign, people: Mapping[str, Trials]) -> dict[str, Split]:
    """``nsd-982``, ``nsd-1000``, and for one subject ``nsd-chronological``; those that would be empty are left out."""
    table = pd.concat([t.table for t in people.values()])
    stimuli = table["stimulus"].to_numpy(dtype=object)  # (n_trials of all people,)
    is_shared = table["is_shared"].to_numpy(dtype=bool)
    train = pd.unique(stimuli[~is_shared])
    is_early = table["session"].to_numpy() <= _SPLIT_SESSIONS
    splits = {}

    for name, rows, note in (
        (
            "nsd-982",
            is_early,
            f"shared pictures of the first {_SPLIT_SESSIONS} sessions test; no other shared one is used",
        ),
        ("nsd-1000", np.ones(len(table), bool), "all shared pictures test"),
    ):
        test = pd.unique(stimuli[is_shared & rows])
        if len(train) and len(test) and (name == "nsd-982" or not is_early.all()):
            splits[name] = Split(name, tuple(train), tuple(test), note=f"{note} ({len(test)} pictures).")

    if len(people) == 1:
        order = next(iter(people.values())).stimulus_ids
        n = int(0.85 * len(order))
        note = "Mind Reader: the first 85 % of the pictures by first showing train; ignores which are shared."
        if 0 < n < len(order):
            splits["nsd-chronological"] = Split("nsd-chronological", tuple(order[:n]), tuple(order[n:]), note=note)

    return splits


# -- What is absent or not as published --------------------------------------------------------------------------------


def check_extras(path: Path) -> list[Finding]:
    """What may be absent, and what is lost then."""
    coco = path / COCO
    places = {
        "pictures": [path / BRICK, path / SHARED_FOLDER],
        "captions": [
            *(path / p / CAPTIONS for p in CAPTION_PLACES),
            *coco.glob("captions_*.json"),
        ],
        "categories": list(coco.glob("instances_*.json")),
    }

    findings = []
    for extra, candidates in places.items():
        if not any(candidate.exists() for candidate in candidates):
            findings.append(Finding("note", extra, f"{path} has no {extra}.", _EXTRA_STEP[extra]))

    return findings


def check_design(path: Path, design: NsdDesign) -> Finding:
    """Size of the design, and whether its two files agree.

    Parameters
    ----------
    path : Path
        folder that holds ``nsddata``
    design : NsdDesign
        as read; compared with the CSV file where it came from the MATLAB file and both are there
    """
    size = f"{design.n_trials} trials a subject, {len(design.shared)} shared pictures"
    if design.origin != Path(STIM_INFO).name and (path / STIM_INFO).is_file():
        try:
            other = design_from_csv(path / STIM_INFO)
        except PhospheneError as error:
            return Finding("problem", "design", str(error))

        for subject, shown in design.shown.items():
            if not np.array_equal(shown, other.shown[subject]):
                detail = f"{design.origin} and {other.origin} show {subject} different pictures."
                return Finding("problem", "design", detail, "Fetch both again from the public bucket.")

    if not design.is_public:
        detail = f"{design.origin} has {size}; the public design has 30000 and 1000."
        return Finding("note", "design", detail, "Published counts do not apply.")

    return Finding("ok", "design", f"{design.origin}: {size}, as published.")


def check_counts(design: NsdDesign, trials: Trials, options: NSDOptions) -> list[Finding]:
    """Trials, voxels and pictures of one subject, compared with the published counts.

    Parameters
    ----------
    design : NsdDesign
        where it is not the public one, nothing is compared
    trials : Trials
        of the subject
    options : NSDOptions
        which voxels and sessions were read
    """
    name = trials.subject
    table = trials.table
    n_sessions = len(table["session"].unique())
    n_shown = len(trials.stimulus_ids)
    out = [
        Finding(
            "ok", name, f"{len(trials)} trials in sessions {trials.provenance['sessions']}, {trials.n_voxels} voxels."
        )
    ]

    if not design.is_public:
        return out

    if options.mask == "nsdgeneral":
        right = bool(trials.n_voxels == VOXELS[name])
        detail = f"{trials.n_voxels} in nsdgeneral{', as published' if right else f'; {VOXELS[name]} are published'}."
        out.append(
            Finding("ok" if right else "problem", f"{name} voxels", detail, "" if right else "Fetch the mask again.")
        )

    if n_sessions < SESSIONS[name]:
        detail = f"{n_sessions} of the {SESSIONS[name]} measured sessions are read."
        out.append(Finding("note", f"{name} sessions", detail, "Compare only with results on as many sessions."))

    # The papers' 8,859 and 982 pictures are those of the people with 40 sessions, of which 37 were public.
    if n_sessions == _SPLIT_SESSIONS and SESSIONS[name] == N_SESSIONS:
        shared = len(set(table["stimulus"][table["is_shared"]]))
        right = (n_shown - shared, shared) == (8859, 982)
        if right:
            verdict = ", as published"
        else:
            verdict = "; published: 8859, 982"

        detail = f"{n_shown - shared} training and {shared} test pictures{verdict}."
        out.append(Finding("ok" if right else "problem", f"{name} pictures", detail))

    return out


def check_files(path: Path, name: str, options: NSDOptions) -> list[Finding]:
    """ROIs and noise ceilings that are not there.

    Parameters
    ----------
    path : Path
        folder that holds ``nsddata``
    name : str
        of the subject
    options : NSDOptions
        which betas are read
    """
    missing = [c for c in LABELS if not roi_files(roi_folder(path, name), c)]
    out = []
    if missing:
        detail = f"{', '.join(missing)} are not in {roi_folder(path, name)}."
        out.append(Finding("note", f"{name} ROIs", detail, "Fetch them to select or report by region."))

    if not (beta_folder(path, name, options) / "ncsnr.nii.gz").is_file():
        detail = "ncsnr.nii.gz is missing, so there is no noise ceiling."
        out.append(Finding("note", f"{name} noise ceiling", detail, "Fetch it from the folder of betas."))

    return out


# -- The reader --------------------------------------------------------------------------------------------------------


class NSD:
    """Reader of NSD's 1.8 mm betas."""

    title: ClassVar[str] = "Natural Scenes Dataset: 7T betas of eight people, 73,000 COCO pictures"
    citation: ClassVar[str] = (
        "Allen et al. (2022), A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence, "
        "Nature Neuroscience 25, 116-126."
    )
    licence: ClassVar[str] = "NSD data use agreement; not for redistribution"
    url: ClassVar[str] = "https://naturalscenesdataset.org"
    files: ClassVar[str] = "nsd/nsddata, nsd/nsddata_betas and nsd/nsddata_stimuli"
    options: ClassVar[type[NSDOptions]] = NSDOptions

    def find(self, root: Path) -> Path:
        """The folder that holds ``nsddata``: `root` itself, or one of that name below it."""
        root = Path(root)
        for place in (root, root / "nsd", root / "NSD", root / "natural-scenes-dataset"):
            if (place / "nsddata").is_dir():
                return place

        contents = "is no folder"
        if root.is_dir():
            names = sorted(p.name for p in root.iterdir() if not p.name.startswith("."))
            contents = f"holds {', '.join(names[:8]) or 'nothing'}{' ...' if len(names) > 8 else ''}"

        raise DataError(
            f"NSD was looked for as nsddata in {root} and {root / 'nsd'}, but {root} {contents}. Keep the folders of the "
            "public bucket (nsddata, nsddata_betas, nsddata_stimuli) and give the folder that holds them with --root."
        )

    def subjects(self, path: Path, options: NSDOptions) -> tuple[str, ...]:
        """Those with a folder of betas of this version."""
        names = tuple(s for s in SUBJECTS if beta_folder(path, s, options).is_dir())
        if not names:
            raise DataError(
                f"no subject below {path} has betas {options.betas}: {beta_folder(path, 'subj01', options)} and its "
                "neighbours are not there. Fetch them, or choose the version with betas=b2."
            )

        return names

    def load(self, path: Path, options: NSDOptions, subject: str | None = None) -> Dataset:
        """Open the data set; betas are read session by session when asked for.

        Parameters
        ----------
        path : Path
            folder that holds ``nsddata``
        options : NSDOptions
            which betas, voxels, sessions
        subject : str, optional
            ``subj01`` to ``subj08``; all that are there by default

        Returns
        -------
        Dataset
            Stimulus ids are ``nsd`` and the 0-based NSD id. Trial ids are 0-based positions in the design, and
            ``repeat`` counts earlier showings in the whole experiment. ``noise_ceiling`` is that of a single trial,
            ``noise_ceiling_3`` of the mean of three, both from ncsnr. Splits: ``nsd-982``, ``nsd-1000`` when more than
            37 sessions are read, and for one subject ``nsd-chronological`` (Mind Reader).

        Raises
        ------
        DataError
            Files missing, truncated, transposed, or on unequal grids; see `check` for a list of everything.
        """
        path = Path(path)
        known = self.subjects(path, options)
        if subject is not None and subject not in known:
            raise DataError(f"{path} has no betas {options.betas} of '{subject}'. {did_you_mean(subject, known)}")

        design = read_design(path)
        people = {}
        for name in known:
            if subject in (None, name):
                people[name] = read_trials(path, design, name, options)

        numbers = np.unique(np.concatenate([t.table["nsd_id"].to_numpy() for t in people.values()]))

        return Dataset(
            "nsd",
            _stimuli(path, numbers, options),
            people,
            _splits(design, people),
            about(self, betas=VERSIONS[options.betas], design=design.origin),
        )

    def check(self, path: Path, options: NSDOptions) -> list[Finding]:
        """Headers of every file, and the counts against the published ones; no beta is read but a few per subject."""
        path = Path(path)
        try:
            design = read_design(path)
            names = self.subjects(path, options)
        except PhospheneError as error:
            return [Finding("problem", "design", str(error))]

        out = [check_design(path, design)]
        for name in names:
            try:
                with warnings.catch_warnings():  # what they say comes as findings, once
                    warnings.simplefilter("ignore", PhospheneWarning)
                    trials = read_trials(path, design, name, options.model_copy(update={"store": None}))
            except PhospheneError as error:
                out.append(Finding("problem", name, str(error)))
                continue

            out += check_counts(design, trials, options) + check_files(path, name, options)

        return out + check_extras(path)

    def import_to(
        self,
        path: Path,
        options: NSDOptions,
        subject: str | None,
        out: str | Path,
        *,
        replace: bool = False,
        progress: Callable[[str, float], None] = lambda *_: None,
        say: Progress | None = None,
    ) -> Dataset:
        """Read once, in bounded memory, into a folder that opens without being read.

        Every session is kept in ``OUT.sessions`` as soon as it is read; the same command goes on there after an
        interrupt. That folder is removed at the end.

        Parameters
        ----------
        path : Path
            see `load`; the option ``store`` is used in place of ``OUT.sessions``, and then kept
        options : NSDOptions
            see `path`
        subject : str or None
            see `path`
        out : str or Path
            folder to make
        replace : bool, default False
            see `write_dataset`
        progress : callable, optional
            see `write_dataset`
        say : Progress, optional
            told about every session

        Returns
        -------
        Dataset
            Dataset as read back from `out`; betas are int16 on disk where the files hold int16

        Raises
        ------
        ConfigError
            `out` exists; said before anything is read.
        DataError, MachineError
            See `load` and `write_dataset`.
        """
        out = atomic.checked_path(out)
        if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (replace and (out / INDEX).is_file()):
            raise ConfigError(
                f"{out} exists; choose another --out, or replace the data set that stands there with --replace."
            )

        work = out.with_name(f"{out.name}.sessions")
        if options.store is None:
            options = options.model_copy(update={"store": str(work)})

        # Sessions first, each kept once read; the folder is then written from what is kept, picture by picture.
        dataset = self.load(path, options, subject)
        for trials in dataset.subjects.values():
            if isinstance(trials.source, ScaledRows):
                stored = trials.source.numbers
            else:
                stored = trials.source
            if isinstance(stored, StoredSessions):
                stored.fill(say)

        write_dataset(dataset, out, replace=replace, progress=progress)
        if Path(str(options.store)) == work:  # a store that the caller named is theirs to keep
            shutil.rmtree(work, ignore_errors=True)

        return read_dataset(out)


def import_subject(
    root: str | Path,
    subject: str | None,
    out: str | Path,
    options: NSDOptions | None = None,
    *,
    replace: bool = False,
    progress: Callable[[str, float], None] = lambda *_: None,
    say: Progress | None = None,
) -> Dataset:
    """Read one subject once, in bounded memory, into a folder that opens without being read.

    Parameters
    ----------
    root : str or Path
        see `NSD.find`
    subject : str or None
        such as ``subj01``; None for all that are there
    out : str or Path
        see `NSD.import_to`
    options : NSDOptions, optional
        see `NSD.import_to`
    replace : bool, default False
        see `NSD.import_to`
    progress : callable, optional
        see `NSD.import_to`
    say : Progress, optional
        see `NSD.import_to`
    """
    reader = NSD()
    path = reader.find(atomic.checked_path(root))
    return reader.import_to(path, options or NSDOptions(), subject, out, replace=replace, progress=progress, say=say)
