"""NSD, the Natural Scenes Dataset: 7T responses of eight people to up to 10,000 pictures each.

::

    ROOT/
      nsddata/experiments/nsd/nsd_expdesign.mat | nsd_stim_info_merged.csv
      nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz, prf-visualrois.nii.gz, floc-*.nii.gz, streams.nii.gz
      nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf[_GLMdenoise_RR]/betas_sessionNN.{hdf5,nii.gz}, ncsnr.nii.gz
      nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5
      COCO_73k_annots_curated.npy                       optional: captions
      coco/annotations/{captions,instances,stuff}_*.json   optional: captions, categories

Reading betas from these files takes minutes a subject, as most of what is unpacked lies outside the brain. Do it once:
``phosphene data import nsd:subj01 --out FOLDER`` keeps every session it has read, goes on where it was stopped, and leaves
a folder that opens at once.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from phosphene.data import nsd_stimuli
from phosphene.data.findings import Finding
from phosphene.data.folder import INDEX, ScaledRows, read_dataset
from phosphene.data.folder_write import write_dataset
from phosphene.data.nsd_check import check_counts, check_design, check_extras, check_files
from phosphene.data.nsd_design import SUBJECTS, Design, read_design
from phosphene.data.nsd_stimuli import stimulus_id
from phosphene.data.nsd_subject import VERSIONS, NSDOptions, StoredSessions, beta_folder, read_trials
from phosphene.data.reader import about
from phosphene.errors import ConfigError, DataError, PhospheneError, PhospheneWarning, did_you_mean
from phosphene.run import atomic
from phosphene.run.progress import Progress
from phosphene.types import Dataset, Split, Stimuli, Trials

_SPLIT_SESSIONS = 37  # public when the four papers were written


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
        there = "is no folder"
        if root.is_dir():
            names = sorted(p.name for p in root.iterdir() if not p.name.startswith("."))
            there = f"holds {', '.join(names[:8]) or 'nothing'}{' ...' if len(names) > 8 else ''}"
        raise DataError(
            f"NSD was looked for as nsddata in {root} and {root / 'nsd'}, but {root} {there}. Keep the folders of the "
            "public bucket (nsddata, nsddata_betas, nsddata_stimuli) and give the folder that holds them with --root."
        )

    def subjects(self, path: Path, options: NSDOptions) -> tuple[str, ...]:
        """Those with a folder of betas of this version."""
        found = tuple(s for s in SUBJECTS if beta_folder(path, s, options).is_dir())
        if not found:
            raise DataError(
                f"no subject below {path} has betas {options.betas}: {beta_folder(path, 'subj01', options)} and its "
                "neighbours are not there. Fetch them, or choose the version with betas=b2."
            )
        return found

    def load(self, path: Path, options: NSDOptions, subject: str | None = None) -> Dataset:
        """Open the data set; betas are read session by session when asked for.

        Parameters
        ----------
        path : folder that holds ``nsddata``
        options : which betas, voxels, sessions
        subject : ``subj01`` to ``subj08``; all that are there by default

        Returns
        -------
        Dataset. Stimulus ids are ``nsd`` and the 0-based NSD id. Trial ids are 0-based positions in the design, and
        ``repeat`` counts earlier showings in the whole experiment. ``noise_ceiling`` is that of a single trial,
        ``noise_ceiling_3`` of the mean of three, both from ncsnr. Splits: ``nsd-982``, ``nsd-1000`` when more than 37
        sessions are read, and for one subject ``nsd-chronological`` (Mind Reader).

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
        people = {s: read_trials(path, design, s, options) for s in ([subject] if subject else known)}
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
                with warnings.catch_warnings():
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
        path, options, subject : see `load`; the option ``store`` is used in place of ``OUT.sessions``, and then kept
        out : folder to make
        replace, progress : see `write_dataset`
        say : told about every session

        Returns
        -------
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
        dataset = self.load(path, options, subject)
        for trials in dataset.subjects.values():
            stored = trials.source.numbers if isinstance(trials.source, ScaledRows) else trials.source
            if isinstance(stored, StoredSessions):
                stored.fill(say)
        write_dataset(dataset, out, replace=replace, progress=progress)
        if Path(str(options.store)) == work:
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
    root : see `NSD.find`
    subject : such as ``subj01``; None for all that are there
    out, options, replace, progress, say : see `NSD.import_to`
    """
    reader = NSD()
    path = reader.find(atomic.checked_path(root))
    return reader.import_to(path, options or NSDOptions(), subject, out, replace=replace, progress=progress, say=say)


# -- stimuli and splits ------------------------------------------------------------------------------------------------


def _stimuli(path: Path, numbers: np.ndarray, options: NSDOptions) -> Stimuli:
    images, present, rows = nsd_stimuli.pictures(path, numbers, options.image_size)
    labels = nsd_stimuli.labels(path, numbers)
    ids = np.asarray([stimulus_id(n) for n in numbers], dtype=object)
    if present is not None and not present.all():
        warnings.warn(
            f"{int((~present).sum())} of {len(ids)} NSD pictures are missing, first '{ids[~present][0]}'; their trials "
            "are kept but cannot train or test pictures.",
            PhospheneWarning,
            stacklevel=3,
        )
    return Stimuli(
        ids,
        images,
        nsd_stimuli.captions(path, numbers),
        None if labels is None else labels[0],
        None if labels is None else labels[1],
        present,
        rows,
    )


def _splits(design: Design, people: Mapping[str, Trials]) -> dict[str, Split]:
    table = pd.concat([t.table for t in people.values()])
    train = pd.unique(table["stimulus"][~table["is_shared"].to_numpy()])
    early = table["session"].to_numpy() <= _SPLIT_SESSIONS
    splits = {}
    for name, rows, note in (
        (
            "nsd-982",
            early,
            f"shared pictures of the first {_SPLIT_SESSIONS} sessions test; no other shared one is used",
        ),
        ("nsd-1000", np.ones(len(table), bool), "all shared pictures test"),
    ):
        test = pd.unique(table["stimulus"][table["is_shared"].to_numpy() & rows])
        if len(train) and len(test) and (name == "nsd-982" or not early.all()):
            splits[name] = Split(name, tuple(train), tuple(test), note=f"{note} ({len(test)} pictures).")
    if len(people) == 1:
        order = next(iter(people.values())).stimulus_ids
        n = int(0.85 * len(order))
        note = "Mind Reader: the first 85 % of the pictures by first showing train; ignores which are shared."
        if 0 < n < len(order):
            splits["nsd-chronological"] = Split("nsd-chronological", tuple(order[:n]), tuple(order[n:]), note=note)
    return splits
