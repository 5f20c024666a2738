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
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

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

    task: str | None = Field(None, description="which task, where a person has several")
    mask: str | None = Field(None, description="image above 0 inside the brain; the study's own by default")
    pattern: str | None = Field(None, description="of the images' names, where a run has several")
    sessions: tuple[int, ...] | None = Field(None, description="which sessions; all")
    store: str | None = Field(None, description="folder that keeps betas once made")
    image_size: int | None = Field(None, ge=8, description="side of the pictures; that of the first file by default")

    @property
    def betas(self) -> BetaOptions:
        """Only how betas are made."""
        return BetaOptions(**{name: getattr(self, name) for name in BetaOptions.model_fields})


class OpenFMRI:
    """Reader of BIDS and OpenfMRI studies."""

    title: ClassVar[str] = "A study of raw BOLD with events, in BIDS or the older OpenfMRI layout"
    citation: ClassVar[str] = ""
    licence: ClassVar[str] = "that of the study"
    url: ClassVar[str] = "https://openneuro.org"
    files: ClassVar[str] = "a study: sub-01/func/*_bold.nii.gz, or sub001/BOLD/task001_run001/bold.nii.gz"
    options: ClassVar[type[OpenFMRIOptions]] = OpenFMRIOptions

    def find(self, root: Path) -> Path:
        """The study, at `root` or in its folder ``openfmri``."""
        root = Path(root)
        for place in (root, root / "openfmri"):
            if place.is_dir() and _people(place):
                return place

        if root.is_dir():
            names = sorted(p.name for p in root.iterdir() if not p.name.startswith("."))
        else:
            names = []

        raise DataError(
            f"{root} is no study: neither sub-01/**/func nor sub001/BOLD is in it (it holds {', '.join(names[:8]) or 'nothing'}"
            "). Give the folder of one study with --root."
        )

    def subjects(self, path: Path, options: OpenFMRIOptions) -> tuple[str, ...]:
        """Names as the folders have them, such as ``sub-01``."""
        return _people(Path(path))

    def load(self, path: Path, options: OpenFMRIOptions, subject: str | None = None) -> Dataset:
        """Make betas of one person or all.

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
        known = _people(path)
        if subject is not None:
            subject = next((k for k in known if k in (subject, f"sub-{subject}", f"sub{subject}")), subject)
            if subject not in known:
                raise DataError(f"{path} has no subject '{subject}'. {did_you_mean(subject, known)}")

        people: dict[str, Trials] = {}
        categories: dict[str, str] = {}

        for name in [subject] if subject else known:
            people[name], more = _betas(path, name, options)
            categories |= more

        ids = list(dict.fromkeys(i for t in people.values() for i in t.stimulus_ids))
        return Dataset(path.name, _stimuli(path, ids, categories, options), people, {}, about(self, study=path.name))

    def check(self, path: Path, options: OpenFMRIOptions) -> list[Finding]:
        """Read every run of every person and look at its events; no beta is made."""
        out = []
        people = _people(Path(path))
        if not people:
            detail = f"{path} has no person: no folder sub01/BOLD or sub-01/func."
            return [Finding("problem", "files", detail, "Give the folder that holds them with --root.")]

        for name in people:
            try:
                found = _runs(Path(path), name, options)
                n = sum(len(r.events) for r in found.runs)
                out.append(Finding("ok", name, f"{len(found.runs)} runs, {n} events, {len(found.voxels)} voxels."))
                timing = onset_shift(found.runs)

                if timing.is_suspect and options.onset_shift_s == 0:
                    level = "problem"
                else:
                    level = "ok"

                out.append(Finding(level, f"{name} onsets", f"{timing}."))
            except PhospheneError as error:
                out.append(Finding("problem", name, str(error)))

        return out


def _people(root: Path) -> tuple[str, ...]:
    folders = [p for p in root.glob("sub*") if p.is_dir()]
    return tuple(sorted(p.name for p in folders if (p / "BOLD").is_dir() or next(p.glob("**/func"), None)))


def _runs(path: Path, subject: str, options: OpenFMRIOptions) -> SubjectRuns:
    return read_runs(
        path, subject, mask=options.mask, task=options.task, sessions=options.sessions, confounds=options.confounds,
        pattern=options.pattern,
    )  # fmt: skip


def _betas(path: Path, subject: str, options: OpenFMRIOptions) -> tuple[Trials, dict[str, str]]:
    """Betas of one person and the category of each stimulus, from the store where they are there."""
    place = None
    if options.store is not None:
        plain = options.model_dump(mode="json", exclude={"store", "image_size", "memory_gb"})
        files = [f"{p.relative_to(path)} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in _files(path, subject)]
        place = checked_path(options.store) / f"{subject}-{digest_of(json.dumps(plain, sort_keys=True), files)[:16]}"
        if place.is_dir():
            kept = read_dataset(place)
            category = kept.stimuli.category
            return kept.trials(subject), dict(
                zip(kept.stimuli.ids, category, strict=True)
            ) if category is not None else {}

    found = _runs(path, subject, options)
    if options.onset_shift_s == 0:
        timing = onset_shift(found.runs)
    else:
        timing = None

    if timing is not None and timing.is_suspect:
        warnings.warn(f"{subject}: {timing}.", PhospheneWarning, stacklevel=4)

    trials = single_trial_betas(found.runs, options.betas, voxels=found.voxels, subject=subject).trials
    trials = trials.with_betas(
        trials.source, source=path.name, **({} if timing is None else {"onset_check": str(timing)})
    )

    if place is not None:
        ids = trials.stimulus_ids
        if found.categories:
            category = [found.categories.get(i, "") for i in ids]
        else:
            category = None

        write_dataset(Dataset(path.name, Stimuli(ids, category=category), {subject: trials}), place)

    return trials, found.categories


def _files(path: Path, subject: str) -> list[Path]:
    return sorted(p for p in (path / subject).rglob("*") if p.is_file() and not p.name.startswith("."))


def _stimuli(path: Path, ids: list[str], categories: dict[str, str], options: OpenFMRIOptions) -> Stimuli:
    names = np.asarray(ids, dtype=object)
    if categories:
        category = np.asarray([categories.get(i, "") for i in ids], dtype=object)
    else:
        category = None

    folder = next((p / "stimuli" for p in (path, *path.parents[:3]) if (p / "stimuli").is_dir()), None)
    if folder is None:
        return Stimuli(names, category=category)

    images, present = pictures_of(folder, ids, options.image_size)
    return Stimuli(names, images, category=category, present=present)
