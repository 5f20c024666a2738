"""A study of raw BOLD with events as a data set: ``--data openfmri:01 --root STUDY``.

::

    STUDY/sub-01/func/sub-01_task-scenes_run-01_bold.nii.gz, ..._events.tsv      BIDS, or a derivative of it
    STUDY/sub001/BOLD/task001_run001/bold.nii.gz, ../model/model001/onsets/      the layout OpenfMRI used before it
    STUDY/stimuli/**                                                             pictures named in the events, optional

Single-trial betas are made whenever the study is opened, which takes minutes for a whole brain: keep them with ``store``, or
copy the data set once with ``phosphene data import openfmri:01 --out FOLDER`` or ``phosphene betas``. ``read.py`` says which
files are read.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from phosphene.betas.events import Shown
from phosphene.betas.options import BetaOptions
from phosphene.betas.pipeline import single_trial_betas
from phosphene.betas.read import SubjectRuns, read_runs
from phosphene.betas.timing import onset_shift
from phosphene.data import read_dataset, write_dataset
from phosphene.data.findings import Finding
from phosphene.data.pictures import pictures_of
from phosphene.data.reader import ReaderOptions, about
from phosphene.errors import DataError, PhospheneError, PhospheneWarning, did_you_mean
from phosphene.io.atomic import checked_path
from phosphene.types import Dataset, Stimuli, Trials, digest_of


class OpenFMRIOptions(ReaderOptions, BetaOptions):
    """Which runs, and how betas are made of them (the rest, see `BetaOptions`)."""

    task: str | None = Field(default=None, description="which task, or several: NAME,NAME")
    mask: str | None = Field(default=None, description="image above 0 inside the brain; the study's own by default")
    pattern: str | None = Field(default=None, description="of the images' names, where a run has several")
    sessions: tuple[int | str, ...] | None = Field(default=None, description="which sessions, by number or name; all")
    stimulus: str | None = Field(default=None, description="column of the events that says what was shown")
    rows: str | None = Field(default=None, description="rows of the events that are trials: event_type == 'stimulus'")
    duration_s: float | None = Field(default=None, gt=0, description="of every trial, in place of the events'")
    tr_s: float | None = Field(
        default=None, gt=0, description="seconds between volumes, in place of what the files say"
    )
    study: str | None = Field(default=None, description="of a derivative: folder with the events")
    store: str | None = Field(default=None, description="folder that keeps betas once made")
    image_size: int | None = Field(
        default=None, ge=8, description="side of the pictures; that of the first file by default"
    )

    @property
    def betas(self) -> BetaOptions:
        """Only how betas are made."""
        values = {}
        for name in BetaOptions.model_fields:
            values[name] = getattr(self, name)

        return BetaOptions(**values)


class OpenFMRI:
    """Reader of BIDS and OpenfMRI studies."""

    title: ClassVar[str] = "A study of raw BOLD with events, in BIDS or the older OpenfMRI layout"
    citation: ClassVar[str] = ""
    licence: ClassVar[str] = "that of the study"
    url: ClassVar[str] = "https://openneuro.org"
    files: ClassVar[str] = "a study: sub-01/func/*_bold.nii.gz, or sub001/BOLD/task001_run001/bold.nii.gz"
    options: ClassVar[type[ReaderOptions]] = OpenFMRIOptions

    def find(self, root: Path) -> Path:
        """The study, at `root` or in its folder ``openfmri``."""
        root = Path(root)
        for place in (root, root / "openfmri"):
            if place.is_dir() and _people(place):
                return place
        names = []
        if root.is_dir():
            for path in root.iterdir():
                if not path.name.startswith("."):
                    names.append(path.name)

        names.sort()

        raise DataError(
            f"{root} is no study: neither sub-01/**/func nor sub001/BOLD is in it (it holds {', '.join(names[:8]) or 'nothing'}"
            "). Give the folder of one study with --root."
        )

    def subjects(self, path: Path, options: OpenFMRIOptions) -> tuple[str, ...]:
        """Names as the folders have them, such as ``sub-01``.

        Parameters
        ----------
        path : Path
            the study
        options : OpenFMRIOptions
            not needed: they choose runs, not people
        """
        return _people(Path(path))

    def load(self, path: Path, options: OpenFMRIOptions, subject: str | None = None) -> Dataset:
        """Make betas of one person or all.

        Parameters
        ----------
        path : Path
            the study
        options : OpenFMRIOptions
            which runs, and how betas are made
        subject : str, optional
            such as ``01`` or ``sub-01``; all by default

        Returns
        -------
        Dataset
            Stimulus ids are what the events name; pictures of that name below ``stimuli`` are theirs, others leave
            holes. It has no split of its own: use ``kfold:K`` (``kfold:K,run`` where stimuli do not repeat across
            runs).

        Raises
        ------
        DataError
            Files missing, broken, or that do not fit together; see `read_runs`.
        """
        path = Path(path)
        names = _people(path)
        if subject is not None:
            spellings = (subject, f"sub-{subject}", f"sub{subject}")
            chosen = [name for name in names if name in spellings]
            if not chosen:
                raise DataError(f"{path} has no subject '{subject}'. {did_you_mean(subject, names)}")
            names = (chosen[0],)

        people: dict[str, Trials] = {}
        categories: dict[str, str] = {}
        for name in names:
            people[name], more = _betas(path, name, options)
            categories |= more

        ids: dict[str, None] = {}  # in order, each once
        for trials in people.values():
            ids |= dict.fromkeys(trials.stimulus_ids)
        stimuli = _stimuli(path, list(ids), categories, options)
        return Dataset(path.name, stimuli, people, {}, about(self, study=path.name))

    def check(self, path: Path, options: OpenFMRIOptions) -> list[Finding]:
        """Read every run of every person and look at its events; no beta is made.

        Parameters
        ----------
        path : Path
            the study
        options : OpenFMRIOptions
            which runs

        Returns
        -------
        list of Finding
            of each person, whether the runs can be read, and whether the onsets seem early or late
        """
        findings = []
        people = _people(Path(path))
        if not people:
            detail = f"{path} has no person: no folder sub01/BOLD or sub-01/func."
            return [Finding("problem", "files", detail, "Give the folder that holds them with --root.")]

        for name in people:
            try:
                runs = _runs(Path(path), name, options)
                n_events = sum(len(run.events) for run in runs.runs)
                detail = f"{len(runs.runs)} runs, {n_events} events, {len(runs.voxels)} voxels."
                findings.append(Finding("ok", name, detail))

                level = "ok"
                timing = onset_shift(runs.runs)
                if timing.is_suspect and options.onset_shift_s == 0:
                    level = "problem"
                findings.append(Finding(level, f"{name} onsets", f"{timing}."))
            except PhospheneError as error:
                findings.append(Finding("problem", name, str(error)))

        return findings


def _people(root: Path) -> tuple[str, ...]:
    """Folders of subjects, in order."""
    names = []
    for folder in root.glob("sub*"):
        if folder.is_dir() and ((folder / "BOLD").is_dir() or any(folder.glob("**/func"))):
            names.append(folder.name)
    return tuple(sorted(names))


def _runs(path: Path, subject: str, options: OpenFMRIOptions) -> SubjectRuns:
    """The runs that the options ask for."""
    return read_runs(
        path,
        subject,
        mask=options.mask,
        task=options.task,
        sessions=options.sessions,
        confounds=options.confounds,
        pattern=options.pattern,
        shown=Shown(options.stimulus, options.rows, options.duration_s, options.tr_s),
        study=options.study,
    )


def _betas(path: Path, subject: str, options: OpenFMRIOptions) -> tuple[Trials, dict[str, str]]:
    """Betas of one person and the category of each stimulus, from the store where they are there."""
    place = None
    if options.store is not None:
        # What betas depend on: options that change them, and every file of the subject by size and time.
        plain = options.model_dump(mode="json", exclude={"store", "image_size", "memory_gb"})
        files = []
        for file in _files(path, subject):
            state = file.stat()
            files.append(f"{file.relative_to(path)} {state.st_size} {state.st_mtime_ns}")
        place = checked_path(options.store) / f"{subject}-{digest_of(json.dumps(plain, sort_keys=True), files)[:16]}"
        if place.is_dir():
            kept = read_dataset(place)
            return kept.trials(subject), _by_stimulus(kept.stimuli)

    runs = _runs(path, subject, options)
    notes = {"source": path.name}
    if options.onset_shift_s == 0:
        timing = onset_shift(runs.runs)
        notes["onset_check"] = str(timing)
        if timing.is_suspect:
            warnings.warn(f"{subject}: {timing}.", PhospheneWarning, stacklevel=4)

    trials = single_trial_betas(runs.runs, options.betas, voxels=runs.voxels, subject=subject).trials
    trials = trials.with_betas(trials.source, **notes)

    if place is not None:
        ids = trials.stimulus_ids
        stimuli = Stimuli(ids, category=_in_order(ids, runs.categories))
        write_dataset(Dataset(path.name, stimuli, {subject: trials}), place)

    return trials, runs.categories


def _by_stimulus(stimuli: Stimuli) -> dict[str, str]:
    """Category of each stimulus, where they are known."""
    if stimuli.category is None:
        return {}
    return dict(zip(stimuli.ids, stimuli.category, strict=True))


def _in_order(ids: Iterable[str], categories: dict[str, str]) -> np.ndarray | None:
    """Categories of stimuli, '' where one is not known; None where none is."""
    if not categories:
        return None
    return np.asarray([categories.get(stimulus, "") for stimulus in ids], dtype=object)


def _files(path: Path, subject: str) -> list[Path]:
    """Every file of a subject, in order, but for those that start with a dot."""
    files = []
    for file in (path / subject).rglob("*"):
        if file.is_file() and not file.name.startswith("."):
            files.append(file)
    return sorted(files)


def _stimuli(path: Path, ids: list[str], categories: dict[str, str], options: OpenFMRIOptions) -> Stimuli:
    """What was shown, with the pictures of a folder ``stimuli`` of the study or above it."""
    names = np.asarray(ids, dtype=object)
    category = _in_order(ids, categories)

    # A derivative is opened by its own folder, STUDY/derivatives/NAME; pictures lie with the study.
    for above in (path, *path.parents[:3]):
        folder = above / "stimuli"
        if folder.is_dir():
            images, present = pictures_of(folder, ids, options.image_size)
            return Stimuli(names, images, category=category, present=present)

    return Stimuli(names, category=category)
