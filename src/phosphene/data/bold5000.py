"""BOLD5000, release 2: GLMsingle betas of four people to 4,916 pictures of COCO, ImageNet and scenes.

::

    ROOT/
      BOLD5000_GLMsingle_ROI_betas/py/CSI1_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_allses_LHEarlyVis.npy ...  (trials, voxels)
      BOLD5000_Stimuli/Stimuli_Presentation_Lists/CSI1/CSI1_sess01/..._run01.txt ...    one picture a line, rep_ for repeats
      BOLD5000_Stimuli/Scene_Stimuli/repeated_stimuli_113_list.txt
      BOLD5000_Stimuli/Scene_Stimuli/Presented_Stimuli/{COCO,ImageNet,Scene}/*          the pictures

The release calls the LOC of CSI2 and CSI3 ``LHLO`` and ``RHLO``, and one RSC of CSI2 ``RHRRSC``. Loaders that search for
"LOC" lose it silently, as those of MinD-Vis and LEA do: 1,141 and 1,638 voxels. Here the names are aliases;
``strict_names`` gives the published loss back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.data.arrays import open_arrays, real_matrix
from phosphene.data.findings import Finding, Level
from phosphene.data.importing import read_text
from phosphene.data.pictures import is_litter, pictures_of
from phosphene.data.reader import ReaderOptions, about
from phosphene.errors import ConfigError, DataError, PhospheneError, did_you_mean
from phosphene.types import ROI, Dataset, Split, Stimuli, Trials

ROIS = ("EarlyVis", "LOC", "OPA", "PPA", "RSC")
ALIASES = {"LHLO": "LHLOC", "RHLO": "RHLOC", "RHRRSC": "RHRSC"}
"""Names in the release, and what they mean."""

SUBJECTS = ("CSI1", "CSI2", "CSI3", "CSI4")
TRIALS = {"CSI1": 5254, "CSI2": 5254, "CSI3": 5254, "CSI4": 3108}
VOXELS = {"CSI1": 1685, "CSI2": 2270, "CSI3": 3104, "CSI4": 2787}
STRICT_VOXELS = {"CSI1": 1685, "CSI2": 1129, "CSI3": 1466, "CSI4": 2787}
"""Voxels of all ROIs together, and those that the published loaders find."""

SIZES = {
    "CSI1": {"EarlyVis": 495, "LOC": 342, "OPA": 288, "PPA": 331, "RSC": 229},
    "CSI2": {"EarlyVis": 495, "OPA": 180, "PPA": 370, "RSC": 84},
    "CSI3": {"EarlyVis": 607, "OPA": 392, "PPA": 273, "RSC": 194},
    "CSI4": {"EarlyVis": 764, "LOC": 872, "OPA": 614, "PPA": 344, "RSC": 193},
}
"""Voxels of each ROI, published with LEA's code; the LOC of CSI2 and CSI3 does not appear there."""

N_SESSIONS = {"CSI1": 15, "CSI2": 15, "CSI3": 15, "CSI4": 9}
N_REPEATED = 113

_BETAS = "BOLD5000_GLMsingle_ROI_betas/py"
_LISTS = "BOLD5000_Stimuli/Stimuli_Presentation_Lists"
_REPEATED = "BOLD5000_Stimuli/Scene_Stimuli/repeated_stimuli_113_list.txt"
_PICTURES = "BOLD5000_Stimuli/Scene_Stimuli/Presented_Stimuli"
_NAME = re.compile(r"(CSI\d)_GLMbetas-(.+)_allses_([LR]H)(\w+)\.npy")


class BOLD5000Options(ReaderOptions):
    """Which betas and sessions."""

    betas: str = Field("TYPED-FITHRF-GLMDENOISE-RR", description="GLMsingle type, as in the file names")
    rois: tuple[str, ...] = Field(ROIS, description="ROIs to load, in this order, left hemisphere first in each")
    strict_names: bool = Field(
        False, description="search for ROI names as the published loaders do, and lose LOC as they do"
    )
    sessions: int | tuple[int, ...] | None = Field(
        None, description="sessions of the lists the betas cover; all of them"
    )
    image_size: int | None = Field(None, ge=8, description="side of the pictures; that of the first file by default")


class BOLD5000:
    """Reader of the ROI betas of release 2."""

    title: ClassVar[str] = "BOLD5000 release 2: 3T responses of four people to 4,916 pictures"
    citation: ClassVar[str] = (
        "Chang et al. (2019), BOLD5000, a public fMRI dataset while viewing 5000 visual images, Scientific Data 6, 49; "
        "betas: Prince et al. (2022), eLife 11, e77599."
    )
    licence: ClassVar[str] = "CC0 for the responses; pictures under the terms of COCO, ImageNet and SUN"
    url: ClassVar[str] = "https://bold5000-dataset.github.io"
    files: ClassVar[str] = "bold5000/BOLD5000_GLMsingle_ROI_betas and bold5000/BOLD5000_Stimuli"
    options: ClassVar[type[BOLD5000Options]] = BOLD5000Options

    def find(self, root: Path) -> Path:
        """The folder that holds both, at or below `root`."""
        root = Path(root)
        for place in (root, root / "bold5000", root / "BOLD5000"):
            if (place / _BETAS).is_dir():
                return place

        names = []
        if root.is_dir():
            names = sorted(p.name for p in root.iterdir() if not p.name.startswith("."))

        raise DataError(
            f"BOLD5000 was looked for as {_BETAS} in {root} and {root / 'bold5000'}, but {root} holds "
            f"{', '.join(names[:8]) or 'nothing'}. Unpack the archive of ROI betas there."
        )

    def subjects(self, path: Path, options: BOLD5000Options) -> tuple[str, ...]:
        """Those with betas of this type.

        Parameters
        ----------
        path : Path
            from `find`
        options : BOLD5000Options
            its ``betas`` names the type
        """
        folder = Path(path) / _BETAS
        if not folder.is_dir():
            raise DataError(f"{path} has no folder {_BETAS}. Unpack the archive of ROI betas there.")

        subjects = set()
        for file in folder.iterdir():
            match = _NAME.fullmatch(file.name)
            if match and match[2] == options.betas:
                subjects.add(match[1])

        if not subjects:
            raise DataError(f"{folder} has no CSIk_GLMbetas-{options.betas}_allses_*.npy; fetch them.")

        return tuple(sorted(subjects))

    def load(self, path: Path, options: BOLD5000Options, subject: str | None = None) -> Dataset:
        """Open one subject or all; betas are memory maps.

        Parameters
        ----------
        path : Path
            from `find`
        options : BOLD5000Options
            which betas, ROIs and sessions
        subject : str, optional
            ``CSI1`` to ``CSI4``; all that are there by default

        Returns
        -------
        Dataset
            Stimulus ids are the names in the presentation lists without ``rep_``; ``category`` is the collection (COCO,
            ImageNet, Scene). Voxels stand ROI by ROI, left hemisphere first. The split ``bold5000-113`` tests the
            repeated pictures that were shown, all their trials, and trains on the others.

        Raises
        ------
        DataError
            ROI or list files missing, a hemisphere missing, or as many rows as the lists do not have.
        """
        path = Path(path)
        known = self.subjects(path, options)
        if subject is not None and subject not in known:
            raise DataError(f"{path} has no subject '{subject}'. {did_you_mean(subject, known)}")

        people = {}
        ids: dict[str, None] = {}
        for name in known:
            if subject in (None, name):
                people[name] = _trials(path, name, options)
                ids |= dict.fromkeys(people[name].stimulus_ids)

        repeated = _repeated(path)
        test = [i for i in repeated if i in ids]
        if not test:
            raise DataError(
                f"none of the {len(repeated)} pictures in {path / _REPEATED} was shown: they look like '{repeated[0]}', those "
                f"in the lists like '{next(iter(ids))}'. Fetch list and lists from one release."
            )

        train = [i for i in ids if i not in repeated]
        note = f"{len(test)} of {len(repeated)} repeated pictures were shown and test; the others train."
        splits = {"bold5000-113": Split("bold5000-113", tuple(train), tuple(test), note=note)}

        stimuli = _stimuli(path, list(ids), options)
        return Dataset("bold5000", stimuli, people, splits, about(self, betas=options.betas))

    def check(self, path: Path, options: BOLD5000Options) -> list[Finding]:
        """Trials and voxels of every subject, compared with the published counts.

        Parameters
        ----------
        path : Path
            from `find`
        options : BOLD5000Options
            which betas, ROIs and sessions
        """
        path = Path(path)
        out = []

        try:
            names = self.subjects(path, options)
            repeated = _repeated(path)
        except PhospheneError as error:
            return [Finding("problem", "files", str(error))]

        if len(repeated) != N_REPEATED:
            detail = f"{path / _REPEATED} names {len(repeated)} pictures; {N_REPEATED} are published."
            out.append(Finding("problem", "repeated pictures", detail, "Fetch the list again."))

        for name in names:
            try:
                trials = _trials(path, name, options)
            except PhospheneError as error:
                out.append(Finding("problem", name, str(error)))
                continue
            out += _check_counts(trials, repeated, options)

        if not (path / _PICTURES).is_dir():
            # People who have the folder of MinD-Vis have the pictures in a file that runs code when it is opened.
            hint = ""
            if list((path / _PICTURES).parent.rglob("img_dict.npy")):
                hint = " img_dict.npy of MinD-Vis is a pickle and is never opened."
            out.append(
                Finding("note", "pictures", f"{path / _PICTURES} is not there.{hint}", "Fetch the stimulus pictures.")
            )

        return out


# -- betas -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JoinedRows:
    """Matrices side by side, read when asked for.

    Parameters
    ----------
    parts : sequence of ndarray
        each (n, voxels of one file)
    """

    parts: Sequence[np.ndarray]

    @property
    def shape(self) -> tuple[int, int]:
        """(n, voxels of all)."""
        return (len(self.parts[0]), sum(p.shape[1] for p in self.parts))

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.concatenate([np.asarray(p[rows]) for p in self.parts], axis=-1)


def _roi_files(path: Path, subject: str, options: BOLD5000Options) -> dict[tuple[str, str], Path]:
    """(ROI, hemisphere) to file, in the order of the columns."""
    files: dict[tuple[str, str], Path] = {}
    for file in sorted((path / _BETAS).glob(f"{subject}_GLMbetas-*.npy")):
        match = _NAME.fullmatch(file.name)
        if match is None or match[2] != options.betas:
            continue

        name = match[3] + match[4]
        side = match[3]
        if options.strict_names:
            roi = next((r for r in ROIS if r in name), match[4])  # "LOC" is not in "LHLO": this is how it gets lost
        else:
            roi = ALIASES.get(name, name)[2:]

        if (roi, side) in files:
            raise DataError(
                f"{files[roi, side].name} and {file.name} are both the {side} {roi} of {subject}; remove one."
            )

        files[roi, side] = file

    out = {}
    for roi in options.rois:
        left = files.get((roi, "LH"))
        right = files.get((roi, "RH"))
        if left and right:
            out[roi, "LH"] = left
            out[roi, "RH"] = right
        elif left:
            raise DataError(f"{subject} has {left.name} but no RH{roi}; fetch the other hemisphere.")
        elif right:
            raise DataError(f"{subject} has {right.name} but no LH{roi}; fetch the other hemisphere.")
        elif not (options.strict_names and roi in ROIS):  # the published loaders go on without
            known = sorted({name for name, _ in files})
            raise DataError(f"{subject} has no files of the ROI {roi} in {path / _BETAS}. {did_you_mean(roi, known)}")

    if not out:
        raise DataError(f"{subject} has no files of the ROIs {', '.join(options.rois)} in {path / _BETAS}.")
    return out


def _trials(path: Path, subject: str, options: BOLD5000Options) -> Trials:
    """Trials of one subject: one row for every line of its presentation lists."""
    table = _presented(path, subject, options)
    parts = []
    columns = []

    for (roi, side), file in _roi_files(path, subject, options).items():
        matrix = real_matrix(open_arrays(file)["array"], str(file))  # (n_trials, n_voxels), a memory map
        if len(matrix) != len(table):
            counts = table.groupby("session").size()
            listed = ", ".join(f"{s}: {n}" for s, n in counts.items())
            hint = (
                f"Trials in the lists by session: {listed}. If the betas cover some sessions only, say sessions=[...]."
            )

            if matrix.shape[1] == len(table):
                hint = "It is transposed (voxels, trials)."

            raise DataError(
                f"{file.name} has {len(matrix)} rows (shape {matrix.shape}), but the presentation lists of {subject} have "
                f"{len(table)} trials. {hint}"
            )

        parts.append(matrix)
        columns.append(pd.DataFrame({"roi": roi, "hemisphere": side}, index=range(matrix.shape[1])))

    voxels = pd.concat(columns, ignore_index=True)
    for roi in dict.fromkeys(voxels["roi"]):
        voxels[ROI + roi] = voxels["roi"] == roi

    if options.strict_names:
        names = "strict"
    else:
        names = "aliased"

    provenance = {"betas": options.betas, "unit": "percent signal change", "names": names}
    return Trials(JoinedRows(parts), table, voxels.drop(columns="roi"), subject, provenance)


def _presented(path: Path, subject: str, options: BOLD5000Options) -> pd.DataFrame:
    """The trial table, from the presentation lists."""
    folder = path / _LISTS / subject
    if not folder.is_dir():
        raise DataError(f"{folder} is not there, so nothing says what {subject} saw; fetch the presentation lists.")

    sessions = [f for f in folder.iterdir() if f.is_dir() and not is_litter(f.relative_to(folder))]
    folders = dict(sorted((_number(f.name, "sess"), f) for f in sessions))  # by number: sess10 comes after sess9
    if len(folders) < len(sessions):
        raise DataError(f"two of the {len(sessions)} folders in {folder} are of one session; remove one of them.")

    numbers = options.sessions
    if isinstance(numbers, int):
        numbers = tuple(range(1, numbers + 1))

    if numbers is not None:
        missing = sorted(set(numbers) - set(folders))
        if missing or not numbers:
            raise ConfigError(f"{folder} has no session {missing[:1]}; it has {list(folders)}.")

        folders = {number: place for number, place in folders.items() if number in numbers}
    else:
        gaps = sorted(set(range(1, max(folders, default=0) + 1)) - set(folders))
        if gaps:
            raise DataError(
                f"session {', '.join(map(str, gaps))} of {subject} is missing in {folder}, so rows of betas and lists would "
                "not match. Fetch it, or name the sessions that the betas cover with sessions=[...]."
            )

    rows = []
    for session, place in folders.items():
        files = [f for f in place.iterdir() if f.suffix == ".txt" and not is_litter(f.relative_to(place))]
        for run, file in sorted((_number(f.stem, "run"), f) for f in files):
            for line in read_text(file, "the presentation list").splitlines():
                name = line.strip()
                if name:  # a list may end in an empty line
                    rows.append((name.removeprefix("rep_"), session, run, name.startswith("rep_")))

    if not rows:
        raise DataError(
            f"{folder} holds no presentation list (.txt); it has {len(sessions)} session folders. Fetch them."
        )

    return pd.DataFrame(rows, columns=["stimulus", "session", "run", "is_repeat"])


def _number(name: str, word: str) -> int:
    match = re.search(rf"{word}(\d+)", name)
    if match is None:
        raise DataError(f"'{name}' should hold {word} and a number, as {word}01; rename or remove it.")
    return int(match[1])


def _repeated(path: Path) -> list[str]:
    file = path / _REPEATED
    if not file.is_file():
        raise DataError(f"{file} is not there; without it training and test cannot be told apart. Fetch it.")
    lines = read_text(file, "the repeated pictures").splitlines()
    names = [line.strip().removeprefix("rep_") for line in lines]
    names = [name for name in names if name]
    is_duplicate = pd.Index(names).duplicated()
    if is_duplicate.any():
        raise DataError(f"'{names[int(np.flatnonzero(is_duplicate)[0])]}' stands twice in {file}; fetch it again.")

    return names


# -- pictures and checks -----------------------------------------------------------------------------------------------


def collection(name: str) -> str:
    """COCO, ImageNet or Scene, from a picture's name.

    Parameters
    ----------
    name : str
        file name of the picture, as in the presentation lists

    Examples
    --------
    >>> collection("COCO_train2014_000000000036.jpg"), collection("n01440764_7716.JPEG"), collection("airport1.jpg")
    ('COCO', 'ImageNet', 'Scene')
    """
    if name.startswith("COCO_"):
        return "COCO"
    if re.match(r"n\d{8}_", name):
        return "ImageNet"
    return "Scene"


def _stimuli(path: Path, ids: list[str], options: BOLD5000Options) -> Stimuli:
    names = np.asarray(ids, dtype=object)
    category = np.asarray([collection(i) for i in ids], dtype=object)
    if not (path / _PICTURES).is_dir():
        return Stimuli(names, category=category)
    images, present = pictures_of(path / _PICTURES, ids, options.image_size)
    return Stimuli(names, images, category=category, present=present)


def _check_counts(trials: Trials, repeated: list[str], options: BOLD5000Options) -> list[Finding]:
    """Trials, repeats and voxels of one subject, compared with what is published."""
    name = trials.subject
    out = []
    expected = TRIALS.get(name)
    n_sessions = len(trials.table["session"].unique())
    level: Level
    if len(trials) == expected:
        level = "ok"
        verdict = "as published"
    else:
        level = "problem"
        verdict = f"{expected} are published"

    out.append(Finding(level, f"{name} trials", f"{len(trials)} in {n_sessions} sessions; {verdict}."))
    if n_sessions < 15:  # CSI4 did only nine
        stimuli = set(trials.stimuli)
        n_unseen = sum(i not in stimuli for i in repeated)
        detail = f"{n_sessions} of 15 sessions; {n_unseen} of {len(repeated)} repeated pictures were never shown."
        out.append(Finding("note", f"{name} sessions", detail, "They are left out of the test set."))

    ids, counts = np.unique(np.asarray(trials.stimuli, dtype=str), return_counts=True)
    unlisted = sorted(set(ids[counts > 1].tolist()) - set(repeated))
    if unlisted:
        detail = f"{len(unlisted)} pictures repeat but are not in the list of repeated ones, first '{unlisted[0]}'."
        out.append(Finding("note", f"{name} repeats", detail, "They train, each showing as a trial of its own."))

    if options.rois == ROIS:
        total = (STRICT_VOXELS if options.strict_names else VOXELS).get(name)
        sizes = {r: int(trials.roi(r).sum()) for r in trials.rois}
        wrong = [r for r, n in SIZES.get(name, {}).items() if sizes.get(r) != n]
        if trials.n_voxels == total and not wrong:
            level = "ok"
            verdict = "as published"
        else:
            level = "problem"
            verdict = f"{total} are published"

        if wrong:
            verdict += f"; {', '.join(f'{roi} has {SIZES[name][roi]} there' for roi in wrong)}"

        listed = ", ".join(f"{roi} {n}" for roi, n in sizes.items())
        out.append(Finding(level, f"{name} voxels", f"{trials.n_voxels}: {listed}; {verdict}."))

    return out
