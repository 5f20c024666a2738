"""One subject of NSD: which voxels, which sessions, which trials."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.data.folder import ScaledRows
from phosphene.data.nsd_design import N_SESSIONS, Design
from phosphene.data.nsd_stimuli import stimulus_id
from phosphene.data.reader import ReaderOptions
from phosphene.data.volumes import SessionRows, open_nifti, open_session, read_labels, read_volume
from phosphene.errors import ConfigError, DataError, PhospheneWarning, did_you_mean
from phosphene.run import atomic
from phosphene.run.progress import Progress
from phosphene.run.store import cached
from phosphene.types import ROI, Rows, Trials, digest_of

VERSIONS = {"b2": "betas_fithrf", "b3": "betas_fithrf_GLMdenoise_RR"}

VOXELS = {
    "subj01": 15724, "subj02": 14278, "subj03": 15226, "subj04": 13153,
    "subj05": 13039, "subj06": 17907, "subj07": 12682, "subj08": 14386,
}  # fmt: skip
"""Voxels of ``nsdgeneral``. Those of subjects 1, 2, 5 and 7 stand in the papers, the others in public loaders."""

SESSIONS = {f"subj{k:02d}": n for k, n in enumerate((40, 40, 32, 30, 40, 32, 40, 30), start=1)}
"""Sessions measured."""

LABELS: dict[str, tuple[str, ...]] = {
    "prf-visualrois": ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"),
    "floc-faces": ("OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"),
    "floc-bodies": ("EBA", "FBA-1", "FBA-2", "mTL-bodies"),
    "floc-places": ("OPA", "PPA", "RSC"),
    "floc-words": ("OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"),
    "streams": ("early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal"),
}
"""Names of the labels 1, 2, ... of each collection, as in NSD's colour tables."""

_UNIONS = {"V1": ("V1v", "V1d"), "V2": ("V2v", "V2d"), "V3": ("V3v", "V3d")}


class NSDOptions(ReaderOptions):
    """Which betas, voxels and sessions."""

    betas: Literal["b2", "b3"] = Field("b3", description="b3 is GLMsingle's type D (fithrf_GLMdenoise_RR), b2 fithrf")
    mask: str = Field("nsdgeneral", description="voxels where this file of the roi folder is above 0")
    rois: tuple[str, ...] | None = Field(
        None, description="label files to read; by default every known one that is there"
    )
    sessions: int | tuple[int, ...] | None = Field(None, description="the first N, or a list; all that are there")
    voxel_order: Literal["xyz", "zyx"] = Field(
        "xyz", description="mask unrolled with z fastest, or (Mind Reader) x fastest"
    )
    scale: float | None = Field(None, gt=0, description="file value to percent signal change; found by type and range")
    image_size: int | None = Field(None, ge=8, description="side of the pictures; 425 as in the file")
    store: str | None = Field(None, description="folder that keeps the masked betas of every session once read")


def beta_folder(path: Path, subject: str, options: NSDOptions) -> Path:
    """Where the betas of one subject stand."""
    return path / "nsddata_betas" / "ppdata" / subject / "func1pt8mm" / VERSIONS[options.betas]


def roi_folder(path: Path, subject: str) -> Path:
    """Where the masks and label files of one subject stand."""
    return path / "nsddata" / "ppdata" / subject / "func1pt8mm" / "roi"


def read_trials(path: Path, design: Design, subject: str, options: NSDOptions) -> Trials:
    """Trials of one subject. Headers are read and four trials of its first session, to find the scale.

    Raises
    ------
    DataError
        See `NSD.load`.
    """
    like, voxels, table = _voxels(path, subject, options)
    files = _session_files(beta_folder(path, subject, options), options, subject)
    sessions = {k: open_session(f, like.shape[:3]) for k, f in files.items()}
    for k, s in sessions.items():
        if s.n_trials != design.n_per_session:
            raise DataError(
                f"{s.path} holds {s.n_trials} trials, but session {k} has {design.n_per_session} in {design.origin}. "
                "Which trials are missing cannot be told; download it again."
            )
    dtypes = {s.dtype.name: k for k, s in reversed(sessions.items())}
    if len(dtypes) > 1:
        (b, j), (a, i) = sorted(dtypes.items(), key=lambda entry: -entry[1])[:2]
        raise DataError(
            f"session {i} of {subject} is {a} but session {j} is {b}, so their scales may differ. Use files of one kind."
        )
    rows: Any = SessionRows(list(sessions.values()), voxels)
    scale = options.scale or find_scale(rows.files[0].read(voxels, 4), rows.files[0].path)
    n = design.n_per_session
    at = np.concatenate([np.arange((k - 1) * n, k * n) for k in sessions])
    if options.store is not None:
        spec = {
            "what": "masked betas of NSD", "subject": subject, "voxels": digest_of(voxels),
            "files": [[str(s.path.name), s.path.stat().st_size] for s in sessions.values()], "betas": options.betas,
        }  # fmt: skip
        rows = StoredSessions(rows, atomic.checked_path(options.store), spec, [f"trial{t:05d}" for t in at])
    shown = design.shown[subject]
    trials = pd.DataFrame(
        {
            "trial": at,
            "stimulus": [stimulus_id(i) for i in shown[at]],
            "session": at // n + 1,
            "run": design.runs.ravel()[at],
            "repeat": pd.Series(shown).groupby(shown).cumcount().to_numpy()[at],
            "nsd_id": shown[at],
            "is_shared": np.isin(shown[at], design.shared),
        }
    )
    provenance = {
        "betas": VERSIONS[options.betas],
        "mask": f"{options.mask} > 0",
        "voxel_order": f"boolean mask over ({', '.join(options.voxel_order)}), last axis fastest",
        "unit": f"percent signal change (file x {scale:g})",
        "sessions": _ranges(sessions),
    }
    return Trials(rows if scale == 1 else ScaledRows(rows, scale), trials, table, subject, provenance)


def _ranges(numbers: Iterable[int]) -> str:
    numbers = list(numbers)
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def find_scale(numbers: np.ndarray, path: Path) -> float:
    """What turns file values into percent signal change: 1/300 for NSD's int16, 1 for percent.

    Parameters
    ----------
    numbers : a sample of betas
    path : for the message

    Returns
    -------
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
    values = np.abs(numbers[numbers != 0].astype(np.float64))
    typical = float(np.nanmedian(values)) if values.size else 0.0
    if numbers.dtype.kind in "iu" and 0 < typical < 5:
        raise DataError(
            f"{path} holds whole numbers with a median of {typical:g}; NSD's are percent signal change x 300, a few "
            "hundred. They were probably divided by 300 and rounded; fetch the file again, or give scale=."
        )
    return 1 / 300 if numbers.dtype.kind in "iu" or typical >= 30 else 1.0


def _session_files(folder: Path, options: NSDOptions, subject: str) -> dict[int, Path]:
    """Session number to file; HDF5 before NIfTI where both are there."""
    found: dict[int, Path] = {}
    for ending in (".nii", ".nii.gz", ".hdf5"):
        for file in folder.glob(f"betas_session*{ending}"):
            if match := re.fullmatch(r"betas_session(\d\d)" + re.escape(ending), file.name):
                found[int(match[1])] = file
    found = dict(sorted(found.items()))
    if not found:
        names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
        raise DataError(
            f"{folder} holds no betas_sessionNN.hdf5 or .nii.gz (but {', '.join(names[:5]) or 'nothing'}). Fetch them."
        )
    wanted = options.sessions
    if wanted is None:
        wanted = tuple(range(1, max(found) + 1))
    elif isinstance(wanted, int):
        wanted = tuple(range(1, wanted + 1))
    odd = [k for k in wanted if not 1 <= k <= N_SESSIONS]
    if odd or not wanted or len(set(wanted)) < len(wanted):
        raise ConfigError(f"sessions must be different numbers from 1 to {N_SESSIONS}, but are {options.sessions}.")
    missing = [k for k in wanted if k not in found]
    if missing:
        raise DataError(
            f"{subject} lacks session {', '.join(map(str, missing[:8]))}{' ...' if len(missing) > 8 else ''} in {folder} "
            f"(found {_ranges(found)}). Fetch betas_session{missing[0]:02d}, or name the sessions to use, such as "
            f"sessions={[k for k in wanted if k in found][:3]}."
        )
    return {k: found[k] for k in sorted(wanted)}


def _voxels(path: Path, subject: str, options: NSDOptions) -> tuple[Any, np.ndarray, pd.DataFrame]:
    """An image with the grid, (n, 3) indices, and the table of voxels."""
    folder = roi_folder(path, subject)
    like, mask = _read_roi(folder, options.mask, None)
    ijk = np.argwhere(mask > 0) if options.voxel_order == "xyz" else np.argwhere(mask.T > 0)[:, ::-1]
    if not len(ijk):
        raise DataError(f"no voxel of {subject} is above 0 in {options.mask} ({folder}); it is not the public mask.")
    xyz = ijk @ like.affine[:3, :3].T + like.affine[:3, 3]
    columns: dict[str, np.ndarray] = {c: xyz[:, a] for a, c in enumerate("xyz")}
    columns |= {c: ijk[:, a] for a, c in enumerate("ijk")}
    ncsnr = beta_folder(path, subject, options) / "ncsnr.nii.gz"
    if ncsnr.is_file():
        ratio = read_volume(ncsnr, like).astype(np.float64)[tuple(ijk.T)] ** 2
        columns |= {"noise_ceiling": ratio / (ratio + 1), "noise_ceiling_3": ratio / (ratio + 1 / 3)}
    wanted = tuple(LABELS) if options.rois is None else options.rois
    for name in wanted:
        if options.rois is None and not roi_files(folder, name):
            warnings.warn(
                f"{subject} has no {name}.nii.gz in {folder}; its ROIs are left out.", PhospheneWarning, stacklevel=4
            )
            continue
        values = _read_roi(folder, name, like)[1][tuple(ijk.T)]
        known = LABELS.get(name, ())
        extra = sorted(set(np.unique(values)) - set(range(len(known) + 1)))
        prefix = "streams-" if name == "streams" else ""
        for label, area in [*enumerate(known, start=1), *((int(v), f"{name}-{v}") for v in extra)]:
            columns[ROI + prefix + area] = values == label
        if name == "prf-visualrois":
            columns |= {ROI + union: columns[ROI + a] | columns[ROI + b] for union, (a, b) in _UNIONS.items()}
    return like, ijk, pd.DataFrame(columns)


def roi_files(folder: Path, name: str) -> list[Path]:
    """``NAME.nii.gz``, or one file for each half of the brain."""
    for names in ((name,), (f"lh.{name}", f"rh.{name}")):
        files = [p for n in names for e in (".nii.gz", ".nii") if (p := folder / f"{n}{e}").is_file()]
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
    like = like if like is not None else open_nifti(files[0], 3)
    labels = np.zeros(like.shape[:3], dtype=np.int64)
    for file in files:
        labels = np.maximum(labels, read_labels(file, like))
    return like, labels


class StoredSessions:
    """Sessions in a row store, one chunk a session, made when first needed.

    Parameters
    ----------
    sessions : where the betas come from
    root : folder of stores
    spec : what the rows are
    ids : one per row
    """

    def __init__(self, sessions: SessionRows, root: Path, spec: Mapping[str, Any], ids: list[str]) -> None:
        self.sessions, self.root, self.spec, self.ids, self.shape = sessions, root, spec, ids, sessions.shape
        self._rows: Rows | None = None

    def fill(self, progress: Progress | None = None) -> Rows:
        """The rows, those missing read now. The store holds the file's numbers as they are, int16 at half the size."""
        if self._rows is None:
            n, place = self.sessions.n_per_session, {name: i for i, name in enumerate(self.ids)}

            def compute(ids: np.ndarray) -> np.ndarray:
                return self.sessions[np.asarray([place[i] for i in ids])]

            store = cached(
                self.root, self.spec, self.ids, compute, shape=self.shape[1:], unit="numbers of the file",
                dtype="int16" if self.sessions.files[0].dtype == np.int16 else "float32",
                batch=n, chunk=n, progress=progress,
            )  # fmt: skip
            self._rows = store.select(self.ids)
        return self._rows

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.fill()[rows]
