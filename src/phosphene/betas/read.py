"""Read the runs of a subject from a BIDS folder, or from the layout OpenfMRI used before it.

===========  ==============================================================  =============================================
what         BIDS                                                            OpenfMRI
===========  ==============================================================  =============================================
images       ``sub-S/[ses-X/]func/*_bold.nii[.gz]``                          ``subS/BOLD/taskT_runR/bold*.nii.gz``
seconds      ``RepetitionTime`` of the JSON beside it or above it, else the  ``scan_key.txt``, else the image
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
import json
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from phosphene.betas.runs import BoldRun
from phosphene.betas.work import Work
from phosphene.errors import DataError, did_you_mean
from phosphene.run.reading import reads
from phosphene.types import ROI, digest_of

_STIMULUS = ("stimulus", "stim_file", "trial_type")
_PROCESSED = ("space", "desc", "res", "den")  # parts of a name that only processed images have
_MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")


@dataclass(frozen=True, eq=False)
class SubjectRuns:
    """A subject's runs as found.

    Attributes
    ----------
    subject : name, as the folder has it
    runs : in order of session and run
    voxels : table with ``i``, ``j``, ``k``, ``x``, ``y``, ``z`` (mm) and ROIs
    categories : stimulus to the trial type it came with, where events say both
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
    folder : the study
    subject : with or without ``sub-``
    mask : image above 0 inside; by default the study's
    task, sessions : which ones; all by default
    confounds : whether to read motion parameters
    pattern : of the images' file names, where a run has several, such as ``bold_1slice.nii.gz``

    Returns
    -------
    :class:`SubjectRuns`

    Raises
    ------
    DataError : when a file is missing, broken, or does not fit the others; the message names it
    """
    return locate(folder, subject, mask=mask, task=task, sessions=sessions, pattern=pattern).read(confounds)


@reads("folder")
def locate(
    folder: str | Path,
    subject: str,
    *,
    mask: str | Path | None = None,
    task: str | None = None,
    sessions: Sequence[int] | None = None,
    pattern: str | None = None,
) -> Located:
    """Find the files of a subject without reading the images; see :func:`read_runs`."""
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root} is no folder; a BIDS or OpenfMRI study was expected.")
    label = re.sub(r"^sub-?", "", str(subject))
    old, new = root / f"sub{label}", root / f"sub-{label}"
    if (old / "BOLD").is_dir():
        subject_folder, places, masks = old, _openfmri(root, old, task, pattern), _openfmri_masks(old)
    elif new.is_dir():
        subject_folder, places, masks = new, _bids(root, new, task, pattern), _bids_masks(root, new.name)
    else:
        there = sorted(p.name for p in root.glob("sub*") if p.is_dir())
        raise DataError(f"{root} has no subject '{subject}'. {did_you_mean(f'sub-{label}', there)}")
    if sessions is not None:
        known = sorted({p.session for p in places})
        absent = [s for s in sessions if s not in known]
        if absent:
            raise DataError(f"{subject_folder.name} has no session {absent[0]}; it has {', '.join(map(str, known))}.")
        places = [p for p in places if p.session in sessions]
    if mask is None and not masks[0]:
        raise DataError(f"no brain mask was found for {subject_folder.name} below {root}; give one with mask=.")
    path = Path(mask) if mask is not None else masks[0][0]
    return Located(root, subject_folder.name, sorted(places, key=lambda p: (p.session, p.run)), path, masks[1])


# -- where things are --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where one run lies."""

    image: Path
    session: int
    run: int
    tr_s: float | None
    events: Callable[[], pd.DataFrame]
    confounds: Callable[[], np.ndarray]

    @property
    def name(self) -> str:
        return f"{self.image.parent.name}/{self.image.name}"


@dataclass(frozen=True, eq=False)
class Located:
    """Where a subject's runs, mask and ROIs lie."""

    root: Path
    subject: str
    places: list[_Place]
    mask: Path
    rois: dict[str, Path]

    def fingerprint(self, confounds: bool) -> list[str]:
        """What changes when one of the files does: name, size and time of images, content of tables."""
        out = []
        for path in [*(p.image for p in self.places), self.mask, *(self.rois[r] for r in sorted(self.rois))]:
            try:
                state = path.stat()
            except OSError as error:
                raise DataError(f"{path} does not exist.") from error
            out.append(f"{path.resolve()} {state.st_size} {state.st_mtime_ns}")
        for place in self.places:
            out.append(f"{place.session} {place.run} {place.tr_s} {place.events().to_csv()}")
            out += [digest_of(place.confounds())] if confounds else []
        return out

    def read(
        self, confounds: bool = False, *, work: Work | None = None, workers: int = 1, memory_gb: float = 2.0
    ) -> SubjectRuns:
        """Read all runs, masked.

        Parameters
        ----------
        confounds : whether to read motion parameters
        work : where masked runs are kept as memory maps, so that they need not fit in memory nor be read twice
        workers : runs read at once, as far as the memory allows
        memory_gb : for these
        """
        values, affine = _image(self.mask, 3)
        inside = values > 0  # some files mark what lies outside by -1
        if not inside.any():
            raise DataError(f"the mask {self.mask} is nowhere above 0, so no voxel is left.")

        def volumes(place: _Place) -> np.ndarray:
            name = f"run-{place.session:03d}-{place.run:03d}"
            kept = work.array(name) if work is not None else None
            if kept is None:
                data, here = _image(place.image, 4)
                _same_space(place.image, data.shape[:3], here, self.mask, values.shape, affine)
                kept = data[inside]
                if work is not None:
                    kept = work.keep_array(name, kept)
            return kept.T  # a voxel's series lies together

        at_once = min(workers, max(1, int(memory_gb * 1e9 / (3 * max(_size(p.image) for p in self.places)))))
        runs, categories = [], {}
        with ThreadPoolExecutor(at_once) as pool:
            reading = [pool.submit(volumes, place) for place in self.places]
            for place, kept in zip(self.places, reading, strict=True):
                try:
                    events, types = _stimuli(place.events(), place.name)
                    categories |= types
                    tr_s = place.tr_s if place.tr_s is not None else _header_tr(place.image)
                    moved = place.confounds() if confounds else None
                    run = BoldRun(kept.result(), tr_s, events, place.session, place.run, moved, place.name)
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
                runs.append(run)
        cells = np.argwhere(inside)
        voxels = pd.DataFrame(cells, columns=["i", "j", "k"])
        voxels[["x", "y", "z"]] = cells @ affine[:3, :3].T + affine[:3, 3]
        for name, file in sorted(self.rois.items()):
            roi, space = _image(file, 3)
            if roi.shape == values.shape and np.allclose(space, affine, atol=1e-3):
                voxels[ROI + name] = roi[inside] > 0
        return SubjectRuns(self.subject, runs, voxels, categories)


def _size(path: Path) -> int:
    """Bytes of an image's values, from its header; 1 where that cannot be read, which reading will say."""
    import nibabel as nib

    try:
        image = nib.load(path)
        return max(1, int(np.prod(image.shape)) * image.get_data_dtype().itemsize)
    except Exception:  # named when the image is read
        return 1


def _number(text: str | None, default: int) -> int:
    digits = re.sub(r"\D", "", text or "")
    return int(digits) if digits else default


def _entities(path: Path) -> dict[str, str]:
    return dict(part.split("-", 1) for part in path.name.split("_") if "-" in part)


def _bids(root: Path, subject: Path, task: str | None, pattern: str | None) -> list[_Place]:
    images = _visible(subject.glob(f"**/func/{pattern or '*_bold.nii*'}"))
    tasks = {_entities(p).get("task", "") for p in images}
    if task is None and len(tasks) > 1:
        raise DataError(f"{subject.name} has runs of several tasks ({', '.join(sorted(tasks))}); say which with task=.")
    images = [p for p in images if task in (None, _entities(p).get("task"))]
    if not images:
        raise DataError(f"{subject} has no *_bold.nii.gz in a folder func" + (f" of task '{task}'." if task else "."))
    places = []
    sessions = sorted({_entities(p).get("ses", "") for p in images})
    for order, image in enumerate(images, 1):
        entities = _entities(image)
        stem = "_".join(p for p in image.name.split("_")[:-1] if p.split("-")[0] not in _PROCESSED)
        session = entities.get("ses", "")
        if "echo" in entities or entities.get("part", "mag") != "mag":
            raise DataError(f"{image.name} is one echo or phase of several; combine them first.")
        places.append(
            _Place(
                image,
                _number(session, 1 + sessions.index(session)),
                _number(entities.get("run"), order),
                _bids_tr(root, image, entities),
                partial(_events_table, _bids_events(root, image, f"{stem}_events.tsv")),
                partial(_bids_confounds, root, subject.name, image, stem),
            )
        )
    return places


def _bids_events(root: Path, image: Path, name: str) -> Path:
    """Beside the image, or where a derivative below the study has left it."""
    places = [image.with_name(name), *(p / image.parent.relative_to(root) / name for p in root.resolve().parents[:3])]
    return next((p for p in places if p.is_file()), places[0])


def _bids_tr(root: Path, image: Path, entities: dict[str, str]) -> float | None:
    beside = image.with_name(re.sub(r"\.nii(\.gz)?$", ".json", image.name))
    above = sorted(root.glob(f"*task-{entities.get('task', '')}*_bold.json")) if "task" in entities else []
    for path in [beside, *above]:
        if path.is_file():
            try:
                value = json.loads(path.read_text(encoding="utf-8")).get("RepetitionTime")
            except (ValueError, AttributeError, UnicodeDecodeError) as error:
                raise DataError(f"{path} should be a JSON object; reading it gave: {error}") from error
            if value is not None:
                return float(value)
    return None


def _bids_confounds(root: Path, subject: str, image: Path, stem: str) -> np.ndarray:
    name = f"{stem}*confounds*.tsv"
    found = sorted([*image.parent.glob(name), *root.glob(f"derivatives/*/{subject}/**/{name}")])
    if not found:
        raise DataError(
            f"no confounds were found for {image.name}; fit without, or add {stem}_desc-confounds_timeseries.tsv."
        )
    table = _tsv(found[0])
    missing = [c for c in _MOTION if c not in table]
    if missing:
        raise DataError(f"{found[0]} lacks {', '.join(missing)}; it has {', '.join(table.columns[:12])} ...")
    return table[list(_MOTION)].to_numpy(dtype=np.float64)


def _bids_masks(root: Path, subject: str) -> tuple[list[Path], dict[str, Path]]:
    own = [*root.glob(f"{subject}/**/*_mask.nii*"), *root.glob(f"derivatives/*/{subject}/**/*_mask.nii*")]
    own = list(_visible(own))
    rois = {e["label"]: p for p in own if "label" in (e := _entities(p))}
    return [p for p in own if "brain_mask" in p.name and "label-" not in p.name], rois


def _openfmri(root: Path, subject: Path, task: str | None, pattern: str | None) -> list[_Place]:
    folders = [p for p in _visible((subject / "BOLD").glob("task*_run*")) if p.is_dir()]
    tasks = {p.name.split("_")[0] for p in folders}
    if task is None and len(tasks) > 1:
        raise DataError(f"{subject.name} has runs of several tasks ({', '.join(sorted(tasks))}); say which with task=.")
    key = root / "scan_key.txt"
    match = re.search(r"^TR\s+(\S+)", key.read_text(encoding="utf-8"), re.MULTILINE) if key.is_file() else None
    try:
        tr_s = float(match[1]) if match else None
    except ValueError as error:
        raise DataError(f"{key} should say 'TR' and seconds; it says '{match[0]}'.") from error
    names = _conditions(root)
    places = []
    for folder in folders:
        if task not in (None, folder.name.split("_")[0]):
            continue
        images = list(_visible(folder.glob(pattern or "bold*.nii*")))
        if len(images) != 1:
            raise DataError(
                f"{folder} should hold one image of BOLD; it has {len(images)}"
                f"{': ' + ', '.join(p.name for p in images) + '; say which with --pattern FILE' if images else ''}."
            )
        onsets = subject / "model" / "model001" / "onsets" / folder.name
        places.append(
            _Place(
                images[0],
                1,
                _number(folder.name.split("_run")[-1], 1),
                tr_s,
                partial(_openfmri_events, folder, onsets, names),
                partial(_moved, folder / "bold_moest.txt"),
            )
        )
    if not places:
        raise DataError(
            f"{subject / 'BOLD'} has no folder task001_run001 or the like" + (f" of {task}." if task else ".")
        )
    return places


def _openfmri_events(folder: Path, onsets: Path, names: dict[str, str]) -> pd.DataFrame:
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
        rows += [(on, duration, names.get(condition, condition)) for on, duration in values[:, :2]]
    if not rows:
        raise DataError(f"{folder.name} has neither {table.name} nor onsets in {onsets}.")
    return pd.DataFrame(rows, columns=["onset", "duration", "trial_type"]).sort_values("onset", kind="stable")


def _conditions(root: Path) -> dict[str, str]:
    path = root / "models" / "model001" / "condition_key.txt"
    if not path.is_file():
        return {}
    parts = [line.split(maxsplit=2) for line in path.read_text(encoding="utf-8").splitlines()]
    return {p[1]: p[2].strip() for p in parts if len(p) == 3}


def _moved(path: Path) -> np.ndarray:
    if not path.is_file():
        raise DataError(f"{path} is missing; fit without confounds.")
    return np.loadtxt(path, ndmin=2)


def _openfmri_masks(subject: Path) -> tuple[list[Path], dict[str, Path]]:
    own = {p.name.split(".")[0]: p for p in _visible((subject / "masks").glob("*.nii*"))}
    brain = own.pop("brain", None)
    own.pop("voxels", None)
    own.pop("ceiling", None)
    above = subject.parent.parent / "mask.nii.gz"
    return [p for p in (brain, above) if p is not None and p.is_file()], own


def _visible(paths: Iterable[Path]) -> list[Path]:
    """Without what file managers and interrupted downloads leave behind."""
    return sorted(
        p for p in paths if not p.name.startswith((".", "~")) and not p.name.endswith((".part", ".lock", ".tmp"))
    )


# -- reading -----------------------------------------------------------------------------------------------------------


def _image(path: Path, n_dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Values as stored where no scaling is needed, else float32; and the affine."""
    import nibabel as nib

    try:
        image = nib.load(path)
        if path.suffix == ".gz":  # the whole file: the checksum is at its end, where nibabel does not look
            image = type(image).from_bytes(gzip.decompress(path.read_bytes()))
        data = np.asanyarray(image.dataobj)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    except Exception as error:  # gzip, zlib, nibabel and numpy each have their own way to say it
        raise DataError(
            f"{path} cannot be read whole: {error}. It may be cut short or damaged; copy it again."
        ) from error
    if data.ndim == n_dimensions + 1 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != n_dimensions:
        raise DataError(f"{path} should have {n_dimensions} dimensions; its shape is {data.shape}.")
    return (data if data.dtype.kind in "iu" else data.astype(np.float32, copy=False)), image.affine


def _same_space(
    path: Path,
    shape: tuple[int, ...],
    affine: np.ndarray,
    mask: Path,
    mask_shape: tuple[int, ...],
    mask_affine: np.ndarray,
) -> None:
    if shape != mask_shape:
        raise DataError(f"{path} has cells {shape}, but the mask {mask} {mask_shape}; resample one to the other.")
    if not np.allclose(affine, mask_affine, atol=1e-2):
        away = float(np.abs(affine - mask_affine).max())
        raise DataError(
            f"{path} and the mask {mask} have as many cells but lie elsewhere: their affines differ by up to {away:.2f}. "
            "Resample the mask to the image."
        )


def _header_tr(path: Path) -> float:
    import nibabel as nib

    header = nib.load(path).header
    value = float(header.get_zooms()[3])
    return value * {"msec": 1e-3, "usec": 1e-6}.get(header.get_xyzt_units()[1], 1.0)


def _tsv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=True)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing.") from error
    except (ValueError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise DataError(f"{path} should be a table with tabs; reading it gave: {error}") from error


def _events_table(path: Path) -> pd.DataFrame:
    table = _tsv(path)
    for column in ("onset", "duration"):
        if column not in table:
            raise DataError(f"{path} needs a column '{column}'; it has {', '.join(map(str, table.columns))}.")
    return table


def _stimuli(events: pd.DataFrame, name: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Events with a column ``stimulus``, and the category of each."""
    column = next((c for c in _STIMULUS if c in events), None)
    if column is None:
        raise DataError(
            f"events of {name} need a column 'stimulus', 'stim_file' or 'trial_type' that says what was shown; they have "
            f"{', '.join(map(str, events.columns))}."
        )
    shown = events[events[column].notna()]
    shown = shown.assign(stimulus=shown[column].astype(str)).reset_index(drop=True)
    keep = ["onset", "duration", "stimulus", *[c for c in ("trial", "trial_type") if c in shown and c != column]]
    types = dict(zip(shown["stimulus"], shown["trial_type"].astype(str), strict=True)) if "trial_type" in shown else {}
    return shown[keep].sort_values("onset", kind="stable").reset_index(drop=True), types
