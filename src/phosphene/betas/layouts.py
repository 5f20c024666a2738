"""Where the files of a subject's runs lie: in a BIDS folder, and in the layout OpenfMRI used before it. See :mod:`read`.

Nothing is read here but small text files (``scan_key.txt``, the JSON beside an image). Tables of events and confounds are
handed on as functions, so that looking for the files of a study of a hundred runs takes no time, and a missing table of
confounds is an error only for somebody who asks for confounds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from phosphene.betas.bids_files import BidsFolder, BidsName, ImageTiming, studies_of
from phosphene.betas.events import Shown, read_events
from phosphene.errors import DataError, did_you_mean

_PROCESSED = ("space", "desc", "res", "den")  # parts of a name that only processed images have
_OLD_MOTION = ("X", "Y", "Z", "RotX", "RotY", "RotZ")
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
    session_name : str
        as the folder has it; "" without sessions
    start_s : float
        seconds after the beginning of a volume that its values stand for
    notes : tuple of str
        what should be known of its timing
    other_side : Path or None
        the other hemisphere, where each has a file of its own
    """

    image: Path
    session: int
    run: int
    tr_s: float | None
    events: Callable[[], pd.DataFrame]
    confounds: Callable[[], np.ndarray]
    session_name: str = ""
    start_s: float = 0.0
    notes: tuple[str, ...] = ()
    other_side: Path | None = None

    @property
    def images(self) -> list[Path]:
        """All files of the run's volumes."""
        if self.other_side is None:
            return [self.image]

        return [self.image, self.other_side]

    @property
    def name(self) -> str:
        """Folder and file, for messages."""
        return f"{self.image.parent.name}/{self.image.name}"


# -- BIDS --------------------------------------------------------------------------------------------------------------


def bids(
    root: Path, subject: Path, task: str | None, pattern: str | None, shown: Shown, study: Path | None = None
) -> list[RunFiles]:
    """Every run of a subject below a BIDS folder.

    Parameters
    ----------
    root : Path
        folder of the study, or of one of its derivatives
    subject : Path
        folder of the subject in it, such as ``root / "sub-01"``
    task : str or None
        which task, or several with commas between them; None where there is only one
    pattern : str or None
        of the images' file names; None for ``*_bold.nii*``
    shown : Shown
        how events are read
    study : Path, optional
        of a derivative: the folder with the events, where it lies neither above nor alone beside it

    Returns
    -------
    list of RunFiles
        in the order of sessions, tasks and runs

    Raises
    ------
    DataError
        no run, runs of several tasks where none is chosen, or images of one echo or phase
    """
    wanted = _tasks(task)
    images = []
    tasks = set()
    for path in _visible(subject.glob(f"**/func/{pattern or '*_bold.nii*'}")):
        name = BidsName.of(path)
        if name.entities.get("part", "mag") != "mag":
            continue  # phases have a magnitude beside them

        task_of_image = name.entities.get("task", "")
        tasks.add(task_of_image)
        if not wanted or task_of_image in wanted:
            images.append(name)

    _check_task(subject, task, tasks)
    if not images:
        raise DataError(
            f"{subject} has no {pattern or '*_bold.nii.gz'} in a folder func" + (f" of task '{task}'." if task else ".")
        )

    images, other_sides = _both_sides(images)
    _refuse_versions(images)
    folder = BidsFolder(root, studies_of(root, subject.name, study))
    order_of = {name: place for place, name in enumerate(wanted or sorted(tasks))}
    images = sorted(images, key=lambda name: _place(name, order_of))
    sessions = _numbered([name.entities.get("ses", "") for name in images])
    numbers = _run_numbers(images, sessions)

    runs = []
    for name, number in zip(images, numbers, strict=True):
        session = name.entities.get("ses", "")
        timing = ImageTiming.of(folder.sidecar(name.path), name.path.name)
        runs.append(
            RunFiles(
                name.path,
                sessions[session],
                number,
                timing.tr_s,
                partial(_bids_events, folder, name.path, shown.duration_s),
                partial(_bids_confounds, folder, name.path),
                session_name=session,
                start_s=timing.start_s,
                notes=timing.notes,
                other_side=other_sides.get(name.path),
            )
        )

    return runs


def _both_sides(images: Sequence[BidsName]) -> tuple[list[BidsName], dict[Path, Path]]:
    """Images without right hemispheres that belong to a left one, and the right one of each of these."""
    left = {}
    for name in images:
        if name.entities.get("hemi") == "L":
            left[name.path.name.replace("hemi-L", "hemi-R")] = name.path

    kept = []
    right = {}
    for name in images:
        other = left.get(name.path.name)
        if other is not None and other.parent == name.path.parent:
            right[other] = name.path
        else:
            kept.append(name)

    return kept, right


def _tasks(task: str | None) -> list[str]:
    """Names of tasks, with or without ``task-`` before them."""
    if task is None:
        return []

    return [one.strip().removeprefix("task-") for one in task.split(",") if one.strip()]


def _place(name: BidsName, order_of: dict[str, int]) -> tuple:
    """By which images are put into order: session, task as asked for, run by its number, then the rest of the name."""
    run = name.entities.get("run", "")
    number = 0
    if run.isdigit():
        number = int(run)

    task = order_of.get(name.entities.get("task", ""), 0)
    return _natural(name.entities.get("ses", "")), task, number, run, name.path.name


def _natural(text: str) -> list[tuple[int, str]]:
    """A text with its numbers as numbers: 2 comes before 10."""
    parts = []
    for part in re.split(r"(\d+)", text):
        if part.isdigit():
            parts.append((int(part), part))
        else:
            parts.append((-1, part))

    return parts


def _numbered(names: Sequence[str]) -> dict[str, int]:
    """A number for each session: its own where all are numbers, else its place in the order of names."""
    distinct = sorted(set(names), key=_natural)
    own = [int(name) for name in distinct if name.isdigit()]
    if len(own) == len(distinct) == len(set(own)):
        return dict(zip(distinct, own, strict=True))

    return {name: place for place, name in enumerate(distinct, 1)}


def _run_numbers(images: Sequence[BidsName], sessions: Mapping[str, int]) -> list[int]:
    """A number for each run: that of its name, or its place in the session where two would have one number."""
    own = []
    for name in images:
        run = name.entities.get("run", "")
        own.append((sessions[name.entities.get("ses", "")], int(run) if run.isdigit() else -1))

    if len(set(own)) == len(own) and all(number >= 0 for _, number in own):
        return [number for _, number in own]

    count: dict[int, int] = {}
    numbers = []
    for session, _ in own:
        count[session] = count.get(session, 0) + 1
        numbers.append(count[session])

    return numbers


def _refuse_versions(images: Sequence[BidsName]) -> None:
    """Refuse several images of one run: spaces of a derivative, echoes; each would count as a run."""
    of_run: dict[tuple, BidsName] = {}
    for name in images:
        if "echo" in name.entities:
            raise DataError(f"{name.path.name} is one echo of several; combine them first.")

        key = tuple((key, value) for key, value in name.entities.items() if key not in _PROCESSED)
        other = of_run.setdefault(key, name)
        if other is not name:
            raise DataError(
                f"{other.path.name} and {name.path.name} are one run, processed in two ways. Choose one with --pattern, such as "
                f"'*{name.path.name[name.path.name.index('_task') :] if '_task' in name.path.name else name.path.name}'."
            )


def _bids_events(folder: BidsFolder, image: Path, duration_s: float | None) -> pd.DataFrame:
    """Events of a run: of its own, of its session, its subject or of the whole study, nearest first."""
    path = folder.table(image, ("events",))
    if path is None:
        looked = " and ".join(str(place) for place in (folder.root, *folder.studies))
        raise DataError(
            f"no table of events belongs to {image.name}, below {looked}. It should be called as the run is, with _events.tsv at "
            "its end; where the study lies elsewhere, name it with --study FOLDER."
        )

    return read_events(path, duration_s)


def _bids_confounds(folder: BidsFolder, image: Path) -> np.ndarray:
    """Motion parameters of a run, (n_volumes, 6): translations, then rotations, as fMRIPrep names them."""
    path = None
    for place in (folder, *_derivatives(folder)):
        path = place.table(
            _within(image, folder, place), ("timeseries", "regressors", "confounds"), ("desc",), ("confounds",)
        )
        if path is not None:
            break

    if path is None:
        raise DataError(
            f"no confounds were found for {image.name}; fit without, or add a table that is called as the run is, with "
            "_desc-confounds_timeseries.tsv at its end."
        )

    table = _tsv(path)
    columns = _MOTION
    if not set(_MOTION) <= set(table) and set(_OLD_MOTION) <= set(table):
        columns = _OLD_MOTION  # before fMRIPrep 1.2

    missing = [column for column in columns if column not in table]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; it has {', '.join(table.columns[:12])} ...")
    return table[list(columns)].to_numpy(dtype=np.float64)


def _derivatives(folder: BidsFolder) -> list[BidsFolder]:
    """Derivatives within a study, each as a folder of its own."""
    return [BidsFolder(path) for path in sorted(folder.root.glob("derivatives/*")) if path.is_dir()]


def _within(image: Path, folder: BidsFolder, other: BidsFolder) -> Path:
    """The place that an image would have in another folder."""
    return other.root / image.relative_to(folder.root)


def bids_masks(root: Path, subject: str, images: Sequence[Path]) -> tuple[list[Path], dict[str, Path]]:
    """Masks of the brain and of ROIs, of the study and of all of its derivatives.

    Parameters
    ----------
    root : Path
        folder of the study
    subject : str
        folder of the subject, such as ``sub-01``
    images : sequence of Path
        whose voxels are to be masked

    Returns
    -------
    tuple of (list of Path, dict of {str: Path})
        masks of the brain that together cover the images (one for each run, or one for all), empty where none has their cells;
        masks of ROIs by the name behind ``label-``
    """
    places = [root / subject, *sorted(root.glob(f"derivatives/*/{subject}"))]
    rois = {}
    own: dict[Path, Path] = {}  # of each image, the mask that was made of it
    others = []
    for place in places:
        for path in _visible(place.glob("**/*mask.nii*")):
            name = BidsName.of(path)
            what = name.entities.get("desc", name.entities.get("label", ""))
            if name.suffix == "brainmask" or what == "brain":
                others.append(name)
            elif "label" in name.entities and name.suffix == "mask":
                rois[name.entities["label"]] = path

    for image in images:
        of_image = BidsName.of(image)
        fitting = [one for one in others if "task" in one.entities and one.applies_to(of_image, ("desc", "label"))]
        fitting = [one for one in fitting if one.entities.get("space") == of_image.entities.get("space")]
        if fitting:
            own[image] = max(fitting, key=lambda one: len(one.entities)).path

    if len(own) == len(images):
        return list(dict.fromkeys(own.values())), rois

    space = BidsName.of(images[0]).entities.get("space")
    for one in sorted(others, key=lambda one: one.entities.get("space") != space):
        if "task" not in one.entities and have_same_cells(one.path, images[0]):
            return [one.path], rois

    return [], rois


def have_same_cells(a: Path, b: Path) -> bool:
    """Whether two images have the same cells in the same place, by their headers; not where one cannot be read."""
    import nibabel as nib

    try:
        first = nib.load(a)
        second = nib.load(b)
        same_shape = first.shape[:3] == second.shape[:3]  # pyright: ignore[reportAttributeAccessIssue]
        return same_shape and np.allclose(first.affine, second.affine, atol=1e-2)  # pyright: ignore[reportAttributeAccessIssue]
    except Exception:  # whatever it is, reading the image will name it
        return False


# -- OpenfMRI ----------------------------------------------------------------------------------------------------------


def openfmri(root: Path, subject: Path, task: str | None, pattern: str | None, shown: Shown) -> list[RunFiles]:
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
    shown : Shown
        how events are read

    Returns
    -------
    list of RunFiles
        in the order of folder names

    Raises
    ------
    DataError
        no run, a run with several images, or runs of several tasks where none is chosen
    """
    wanted = _tasks(task)
    folders = []
    tasks = set()
    for folder in _visible((subject / "BOLD").glob("task*_run*")):
        if folder.is_dir():
            task_of_run = folder.name.split("_")[0]
            tasks.add(task_of_run)
            if not wanted or task_of_run in wanted:
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
                partial(_openfmri_events, folder, onsets, names, shown.duration_s),
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


def _openfmri_events(folder: Path, onsets: Path, names: dict[str, str], duration_s: float | None) -> pd.DataFrame:
    """Events of a run, from its table or from one file of onsets per condition."""
    table = folder / "bold_events.tsv"
    if table.is_file():
        return read_events(table, duration_s)

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
        raise DataError(
            f"{subject.name} has runs of several tasks ({', '.join(sorted(tasks))}); say which with --task NAME, or with "
            "--task NAME,NAME where they belong to one experiment (in Python task=)."
        )

    absent = [one for one in _tasks(task) if one not in tasks]
    if absent:
        raise DataError(f"{subject.name} has no task '{absent[0]}'. {did_you_mean(absent[0], tasks)}")


def _number(text: str | None, default: int) -> int:
    """The digits of a text as a number."""
    digits = re.sub(r"\D", "", text or "")
    if digits:
        return int(digits)
    return default


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
