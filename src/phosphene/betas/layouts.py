"""Where the files of a subject's runs lie: in a BIDS folder, and in the layout OpenfMRI used before it. See :mod:`read`.

Nothing is read here but small text files (``scan_key.txt``, the JSON beside an image). Tables of events and confounds are
handed on as functions, so that looking for the files of a study of a hundred runs takes no time, and a missing table of
confounds is an error only for somebody who asks for confounds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from phosphene.errors import DataError

_PROCESSED = ("space", "desc", "res", "den")  # parts of a name that only processed images have
_MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")


@dataclass(frozen=True)
class RunFiles:
    """Where one run lies.

    Attributes
    ----------
    image : Path
        of the scanner's volumes
    session, run : int
        numbers
    tr_s : float or None
        seconds from volume to volume; None where only the image says
    events, confounds : callable
        read the tables when called
    """

    image: Path
    session: int
    run: int
    tr_s: float | None
    events: Callable[[], pd.DataFrame]
    confounds: Callable[[], np.ndarray]

    @property
    def name(self) -> str:
        """Folder and file, for messages."""
        return f"{self.image.parent.name}/{self.image.name}"


# -- BIDS --------------------------------------------------------------------------------------------------------------


def bids(root: Path, subject: Path, task: str | None, pattern: str | None) -> list[RunFiles]:
    """Every run of a subject below a BIDS folder.

    Parameters
    ----------
    root : Path
        folder of the study, or of one of its derivatives
    subject : Path
        folder of the subject in it, such as ``root / "sub-01"``
    task : str or None
        which task; None where there is only one
    pattern : str or None
        of the images' file names; None for ``*_bold.nii*``

    Returns
    -------
    list of RunFiles
        in the order of file names

    Raises
    ------
    DataError
        no run, runs of several tasks where none is chosen, or images of one echo or phase
    """
    images = []
    tasks = set()
    for path in _visible(subject.glob(f"**/func/{pattern or '*_bold.nii*'}")):
        task_of_image = _entities(path).get("task", "")
        tasks.add(task_of_image)
        if task in (None, task_of_image):
            images.append(path)

    _check_task(subject, task, tasks)
    if not images:
        raise DataError(
            f"{subject} has no {pattern or '*_bold.nii.gz'} in a folder func" + (f" of task '{task}'." if task else ".")
        )

    runs = []
    sessions = sorted({_entities(p).get("ses", "") for p in images})

    for order, image in enumerate(images, 1):
        entities = _entities(image)
        session = entities.get("ses", "")

        # Tables are named after the raw image: sub-01_task-a_run-1_events.tsv, also for ..._space-T1w_desc-preproc_bold.nii.gz.
        parts = image.name.split("_")[:-1]
        stem = "_".join(part for part in parts if part.split("-")[0] not in _PROCESSED)

        # Magnitudes of a single echo are what the model is of; the echoes of a multi-echo run would count as runs.
        if "echo" in entities or entities.get("part", "mag") != "mag":
            raise DataError(f"{image.name} is one echo or phase of several; combine them first.")

        runs.append(
            RunFiles(
                image,
                _number(session, 1 + sessions.index(session)),
                _number(entities.get("run"), order),
                _bids_tr(root, image, entities),
                partial(_events_table, _bids_events(root, image, f"{stem}_events.tsv")),
                partial(_bids_confounds, root, subject.name, image, stem),
            )
        )

    return runs


def _bids_events(root: Path, image: Path, name: str) -> Path:
    """In the folder of the image, or where a derivative below the study has left it."""
    nearest = image.with_name(name)
    if nearest.is_file():
        return nearest

    # A derivative has the folders of its study again: STUDY/derivatives/NAME/sub-01/func beside STUDY/sub-01/func.
    for above in root.resolve().parents[:3]:
        path = above / image.parent.relative_to(root) / name
        if path.is_file():
            return path

    return nearest  # reading it will say which file is missing


def _bids_tr(root: Path, image: Path, entities: dict[str, str]) -> float | None:
    """Seconds between volumes from the JSON of the image, else from one of its task at the top of the study."""
    files = [image.with_name(re.sub(r"\.nii(\.gz)?$", ".json", image.name))]

    # BIDS's inheritance: what holds for all runs of a task may be said once, at the top.
    if "task" in entities:
        files += sorted(root.glob(f"*task-{entities['task']}*_bold.json"))

    for path in files:
        if path.is_file():
            try:
                value = json.loads(path.read_text(encoding="utf-8")).get("RepetitionTime")
            except (ValueError, AttributeError, UnicodeDecodeError) as error:
                raise DataError(f"{path} should be a JSON object; reading it gave: {error}") from error

            if value is not None:
                return float(value)

    return None


def _bids_confounds(root: Path, subject: str, image: Path, stem: str) -> np.ndarray:
    """Motion parameters of a run, (n_volumes, 6): translations, then rotations, as fMRIPrep names them."""
    name = f"{stem}*confounds*.tsv"
    files = sorted([*image.parent.glob(name), *root.glob(f"derivatives/*/{subject}/**/{name}")])
    if not files:
        raise DataError(
            f"no confounds were found for {image.name}; fit without, or add {stem}_desc-confounds_timeseries.tsv."
        )

    table = _tsv(files[0])
    missing = [column for column in _MOTION if column not in table]
    if missing:
        raise DataError(f"{files[0]} lacks {', '.join(missing)}; it has {', '.join(table.columns[:12])} ...")
    return table[list(_MOTION)].to_numpy(dtype=np.float64)


def bids_masks(root: Path, subject: str) -> tuple[list[Path], dict[str, Path]]:
    """Masks of the brain and of ROIs, of the study and of all of its derivatives.

    Parameters
    ----------
    root : Path
        folder of the study
    subject : str
        folder of the subject, such as ``sub-01``

    Returns
    -------
    tuple of (list of Path, dict of {str: Path})
        masks of the brain in the order of paths, of which the first is used; masks of ROIs by the name behind ``label-``
    """
    paths = [*root.glob(f"{subject}/**/*_mask.nii*"), *root.glob(f"derivatives/*/{subject}/**/*_mask.nii*")]
    brains = []
    rois = {}
    for path in _visible(paths):
        entities = _entities(path)
        if "label" in entities:
            rois[entities["label"]] = path
        elif "brain_mask" in path.name and "label-" not in path.name:
            brains.append(path)

    return brains, rois


# -- OpenfMRI ----------------------------------------------------------------------------------------------------------


def openfmri(root: Path, subject: Path, task: str | None, pattern: str | None) -> list[RunFiles]:
    """Every run of a subject of an OpenfMRI study, which knows no sessions: all are of session 1.

    Parameters
    ----------
    root : Path
        folder of the study
    subject : Path
        folder of the subject in it, such as ``root / "sub001"``
    task : str or None
        such as ``task001``; None where there is only one
    pattern : str or None
        of the images' file names; None for ``bold*.nii*``

    Returns
    -------
    list of RunFiles
        in the order of folder names

    Raises
    ------
    DataError
        no run, a run with several images, or runs of several tasks where none is chosen
    """
    folders = []
    tasks = set()
    for folder in _visible((subject / "BOLD").glob("task*_run*")):
        if folder.is_dir():
            task_of_run = folder.name.split("_")[0]
            tasks.add(task_of_run)
            if task in (None, task_of_run):
                folders.append(folder)

    _check_task(subject, task, tasks)
    tr_s = _openfmri_tr(root / "scan_key.txt")
    names = _conditions(root)

    runs = []
    for folder in folders:
        images = list(_visible(folder.glob(pattern or "bold*.nii*")))
        if len(images) != 1:
            raise DataError(
                f"{folder} should hold one image of BOLD; it has {len(images)}"
                f"{': ' + ', '.join(p.name for p in images) + '; say which with --pattern FILE' if images else ''}."
            )

        onsets = subject / "model" / "model001" / "onsets" / folder.name
        runs.append(
            RunFiles(
                images[0],
                1,
                _number(folder.name.split("_run")[-1], 1),
                tr_s,
                partial(_openfmri_events, folder, onsets, names),
                partial(_moved, folder / "bold_moest.txt"),
            )
        )

    if not runs:
        raise DataError(
            f"{subject / 'BOLD'} has no folder task001_run001 or the like" + (f" of {task}." if task else ".")
        )

    return runs


def _openfmri_tr(key: Path) -> float | None:
    """Seconds between volumes from the line ``TR 2.5`` of the study's key; None where it has none."""
    if not key.is_file():
        return None
    match = re.search(r"^TR\s+(\S+)", key.read_text(encoding="utf-8"), re.MULTILINE)
    if not match:
        return None

    try:
        return float(match[1])
    except ValueError as error:
        raise DataError(f"{key} should say 'TR' and seconds; it says '{match[0]}'.") from error


def _openfmri_events(folder: Path, onsets: Path, names: dict[str, str]) -> pd.DataFrame:
    """Events of a run, from its table or from one file of onsets per condition."""
    table = folder / "bold_events.tsv"
    if table.is_file():
        return _events_table(table)

    rows = []
    for path in _visible(onsets.glob("cond*.txt")):
        condition = path.stem
        try:
            values = np.loadtxt(path, ndmin=2)
        except ValueError as error:
            raise DataError(
                f"{path} should hold onset, duration and weight of each event; reading it gave: {error}"
            ) from error

        # The third column is a weight, which a model of single trials estimates itself.
        for onset, duration in values[:, :2]:
            rows.append((onset, duration, names.get(condition, condition)))

    if not rows:
        raise DataError(f"{folder.name} has neither {table.name} nor onsets in {onsets}.")
    return pd.DataFrame(rows, columns=["onset", "duration", "trial_type"]).sort_values("onset", kind="stable")


def _conditions(root: Path) -> dict[str, str]:
    """What the conditions ``cond001`` ... show, by the key of the study's first model: lines ``task001 cond001 house``."""
    path = root / "models" / "model001" / "condition_key.txt"
    if not path.is_file():
        return {}

    names = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        parts = line.split(maxsplit=2)  # names may have blanks in them
        if len(parts) == 3:
            names[parts[1]] = parts[2].strip()

    return names


def _moved(path: Path) -> np.ndarray:
    """Motion parameters of a run, (n_volumes, n)."""
    if not path.is_file():
        raise DataError(f"{path} is missing; fit without confounds.")
    return np.loadtxt(path, ndmin=2)


def openfmri_masks(subject: Path) -> tuple[list[Path], dict[str, Path]]:
    """Masks of the brain, the subject's own before the study's, and those of ROIs by name."""
    masks = {path.name.split(".")[0]: path for path in _visible((subject / "masks").glob("*.nii*"))}
    brain = masks.pop("brain", None)
    masks.pop("voxels", None)  # counts and ceilings are no masks
    masks.pop("ceiling", None)

    above = subject.parent.parent / "mask.nii.gz"
    brains = []
    for path in (brain, above):
        if path is not None and path.is_file():
            brains.append(path)
    return brains, masks


# -- both --------------------------------------------------------------------------------------------------------------


def _check_task(subject: Path, task: str | None, tasks: set[str]) -> None:
    """Refuse runs of several tasks where none is chosen."""
    if task is None and len(tasks) > 1:
        raise DataError(f"{subject.name} has runs of several tasks ({', '.join(sorted(tasks))}); say which with task=.")


def _number(text: str | None, default: int) -> int:
    """The digits of a text as a number."""
    digits = re.sub(r"\D", "", text or "")
    if digits:
        return int(digits)
    return default


def _entities(path: Path) -> dict[str, str]:
    """Parts of a BIDS name, such as ``task`` of ``sub-01_task-scenes_bold.nii.gz``."""
    return dict(part.split("-", 1) for part in path.name.split("_") if "-" in part)


def _visible(paths: Iterable[Path]) -> list[Path]:
    """Without what file managers and interrupted downloads leave behind."""
    visible = []
    for path in paths:
        if not path.name.startswith((".", "~")) and not path.name.endswith((".part", ".lock", ".tmp")):
            visible.append(path)
    return sorted(visible)


def _tsv(path: Path) -> pd.DataFrame:
    """A table as BIDS writes it: tabs, and ``n/a`` where there is no value."""
    try:
        return pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=True)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing.") from error
    except (ValueError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise DataError(f"{path} should be a table with tabs; reading it gave: {error}") from error


def _events_table(path: Path) -> pd.DataFrame:
    """Events with at least onset and duration; what was shown is sought later, in :mod:`read`."""
    table = _tsv(path)
    for column in ("onset", "duration"):
        if column not in table:
            raise DataError(f"{path} needs a column '{column}'; it has {', '.join(map(str, table.columns))}.")
    return table
