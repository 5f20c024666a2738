"""From a folder of runs to a folder of betas: streamed, taken up again after a stop, with what was found on the way.

The result appears in one moment. Masked runs, finished blocks of voxels and the betas themselves lie in a folder of work beside
it, bound to a digest of all that they depend on; when everything is written there, it is renamed. So a folder of betas that
can be opened is complete, and the digest in its notes says whether the same call would make it again.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from phosphene._version import __version__
from phosphene.betas.design import DesignCheck, design_check
from phosphene.betas.events import Shown
from phosphene.betas.glm import blas_threads, nuisance_basis, polynomial_degree, residuals
from phosphene.betas.hrf import HrfLibrary
from phosphene.betas.options import BetaOptions
from phosphene.betas.pipeline import BetaResult, ReportProgress, single_trial_betas
from phosphene.betas.read import SubjectFiles, SubjectRuns, locate_runs
from phosphene.betas.runs import BoldRun
from phosphene.betas.split_halves import SplitHalf, split_half
from phosphene.betas.timing import onset_shift
from phosphene.betas.work import WorkFolder, open_work, work_key
from phosphene.data import read_dataset, write_dataset
from phosphene.data.dataset_folder import INDEX
from phosphene.data.pictures import match_pictures, open_pictures
from phosphene.errors import ConfigError, DataError, PhospheneWarning
from phosphene.io import atomic
from phosphene.io.inside import refuse_data_links
from phosphene.types import Dataset, Stimuli, Trials
from phosphene.types.identity import few

FOUND = "found.npz"
"""In the folder of the data set: what a report page draws, such as the onset and component curves and a carpet of the runs."""

_CARPET = (120, 1500)  # rows and columns drawn at most
_CARPET_VOXELS = 3000  # a row is the mean of 25 of them, which leaves drift and spikes and hides thermal noise


@dataclass(frozen=True, eq=False)
class FolderResult:
    """Betas of a folder, read back from where they were written.

    Attributes
    ----------
    trials : Trials
        on memory maps; see :class:`~phosphene.betas.pipeline.BetaResult` for the voxel table, which here has
        ``split_half`` too
    folder : Path
        where they lie
    check : DesignCheck or None
        of the design, with the onsets that were used; None when the folder was there already
    result : BetaResult or None
        maps and choices of the fit; None when the folder was there already
    """

    trials: Trials
    folder: Path
    check: DesignCheck | None = None
    result: BetaResult | None = None


def betas_from_folder(
    folder: str | Path,
    subject: str,
    out: str | Path,
    options: BetaOptions | None = None,
    progress: ReportProgress = lambda *_: None,
    *,
    mask: str | Path | None = None,
    task: str | None = None,
    sessions: Sequence[int | str] | None = None,
    pattern: str | None = None,
    stimulus: str | None = None,
    rows: str | None = None,
    duration_s: float | None = None,
    tr_s: float | None = None,
    study: str | Path | None = None,
    images: str | Path | None = None,
    shift: Literal["auto", "none"] = "none",
    workers: int = 1,
    replace: bool = False,
    follow_links: bool = False,
) -> FolderResult:
    """Betas of a subject of a BIDS or OpenfMRI folder, written as a folder that opens without being read.

    Unfinished work lies in ``OUT.work`` beside it: the same call after a kill goes on there, and ends with the same bytes.

    Parameters
    ----------
    folder : str or Path
        of the study
    subject : str
        such as ``01`` or ``sub-01``
    out : str or Path
        the folder to make; see :func:`phosphene.data.write_dataset`
    options : BetaOptions, optional
        by default :class:`BetaOptions`; ``onset_shift_s`` moves the onsets, ``memory_gb`` bounds working copies
    progress : ReportProgress, optional
        called with (what, share done)
    mask : str or Path, optional
        image above 0 inside the brain; by default the study's
    task : str, optional
        which task, where there are several; ``train,test`` where several belong to one experiment
    sessions : sequence of int or str, optional
        which sessions, by number or name; all by default
    pattern : str, optional
        of the images' file names, where a run has several
    stimulus : str, optional
        column of the events that says what was shown; by default the first there is of ``stimulus``, ``stim_file`` and
        ``trial_type``
    rows : str, optional
        which rows of the events are trials, such as ``event_type == 'stimulus'``; see `phosphene.betas.events.Shown`
    duration_s : float, optional
        of every trial, seconds, in place of the events'
    tr_s : float, optional
        seconds between volumes, in place of what JSON and images say
    study : str or Path, optional
        of a derivative: the folder with the events, where it lies neither above nor alone beside it
    images : str or Path, optional
        folder of the pictures shown, named after the stimuli; by default ``stimuli`` of the study, where there is one
    shift : {"auto", "none"}, default "none"
        ``auto`` moves the onsets where the design check finds them early or late; ``none`` only warns
    workers : int, default 1
        runs read, and blocks of voxels fitted, at once, as far as the memory allows
    replace : bool, default False
        whether an older data set of that name may be replaced
    follow_links : bool, default False
        whether files may be read through links that lead out of `folder`, or out of `images`

    Returns
    -------
    FolderResult
        betas as written, and the check of the design

    Raises
    ------
    DataError
        when the folder has no such subject, or its files do not fit together
    ConfigError
        when `out` holds something else, or another process works there

    Warns
    -----
    PhospheneWarning
        onsets that seem early or late, and what :func:`~phosphene.betas.single_trial_betas` warns of
    """
    options = options or BetaOptions()
    out = atomic.checked_path(out)
    if out.is_symlink():
        out = out.resolve()  # the user's own link: what it leads to is meant, and it stays a link

    if shift == "auto" and options.onset_shift_s:
        raise ConfigError(f"onsets are moved by {options.onset_shift_s:g} s or as the check finds, not both.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (out / INDEX).is_file():
        raise ConfigError(f"{out} exists and is not empty. Choose another --out.")

    refuse_data_links(folder, follow_links)
    for place in (images, study):
        if place is not None:
            refuse_data_links(place, follow_links)

    library = HrfLibrary.chosen(options)
    shown = Shown(stimulus, rows, duration_s, tr_s)
    files = locate_runs(
        folder, subject, mask=mask, task=task, sessions=sessions, pattern=pattern, shown=shown, study=study
    )
    key = _key(files, options, library, shift, images)

    # The same call after it has finished returns what it made, and does no work.
    if (out / INDEX).is_file() and not replace:
        earlier = read_dataset(out)
        if files.subject in earlier.subjects and earlier.trials(files.subject).provenance.get("key") == key:
            return FolderResult(earlier.trials(files.subject), out)

        raise ConfigError(
            f"{out} exists and is not empty. Choose another --out, or replace it with --replace (in Python replace=True)."
        )

    # One BLAS thread: sums depend on their number, and the same call is to end with the same bytes on every machine.
    with open_work(out.with_name(f"{out.name}.work"), key) as work, blas_threads(1):
        result = _fit(files, out, options, library, progress, work, workers, shift, images, key)
        work.remove()

    return result


def _key(files: SubjectFiles, options: BetaOptions, library: HrfLibrary, shift: str, images: str | Path | None) -> str:
    """Digest of everything that the betas of a folder depend on, the version of the program included."""
    return work_key(
        {
            "version": __version__,
            "options": options.model_dump(mode="json"),
            "files": files.fingerprint(options.confounds),
            "responses": library.digest,
            "shift": shift,
            "images": str(images),
        }
    )


def _fit(
    files: SubjectFiles,
    out: Path,
    options: BetaOptions,
    library: HrfLibrary,
    progress: ReportProgress,
    work: WorkFolder,
    workers: int,
    shift: str,
    images: str | Path | None,
    key: str,
) -> FolderResult:
    """Read, check, fit and write; a stop in between is taken up from `work`."""
    subject = files.subject
    runs = files.read(options.confounds, work=work, workers=workers, memory_gb=options.memory_gb)
    progress("reading", 1.0)

    # Pictures that cannot be read, or are called otherwise, are named before hours of fitting.
    stimuli = _stimuli(runs, files, images)

    # Onsets, and whether the design is fit for single trials.
    moved = onset_shift(runs.runs, library, shape=options.assumed_hrf)
    if shift == "auto" and moved.is_suspect:
        options = options.model_copy(update={"onset_shift_s": moved.best_s})
        warnings.warn(
            f"{subject}: onsets were moved by {moved.best_s:+.2f} s, as asked (--shift auto): as filed they explain "
            f"{100 * moved.r2_as_filed:.1f} % of variance, so {100 * moved.r2_moved:.1f} %.",
            PhospheneWarning,
            stacklevel=4,
        )
    elif moved.is_suspect and not options.onset_shift_s:
        warnings.warn(f"{subject}: {moved}.", PhospheneWarning, stacklevel=4)

    check = design_check(runs.runs, library, shape=options.assumed_hrf, moved_s=options.onset_shift_s, shift=moved)
    progress("design", 1.0)

    # Betas, on disk where they would take more than a quarter of the memory.
    n_trials = sum(len(run.events) for run in runs.runs)
    n_voxels = runs.runs[0].n_voxels
    room = None
    if 4 * n_trials * n_voxels > options.memory_gb * 1e9 / 4:
        room = np.memmap(work.folder / "betas.bin", np.float32, "w+", shape=(n_trials, n_voxels))

    result = single_trial_betas(
        runs.runs,
        options,
        library=library,
        voxels=runs.voxels,
        subject=subject,
        out=room,
        progress=progress,
        work=work,
        workers=workers,
    )

    # A generator of its own with a fixed seed: what the halves are must not depend on how the fit went.
    reliability = split_half(
        result.trials.source,
        result.trials.table,
        np.random.default_rng(0),
        blocks=lambda: _blocks(n_trials, n_voxels, options.memory_gb),
    )

    # The data set, complete in the folder of work before it takes its place.
    trials = _described(result, check, reliability, files, key)
    name = files.root.resolve().name
    dataset = Dataset(name, stimuli, {subject: trials}, {}, {"title": f"Single-trial betas of {name}"})
    place = write_dataset(dataset, work.folder / "done", progress=progress, replace=True)
    arrays = _page_arrays(runs.runs, check, result, reliability, options)

    with atomic.explained_write(place):
        np.savez(place / FOUND, **arrays)  # pyright: ignore[reportArgumentType]  # no array is named allow_pickle

    with atomic.folder(out) as new:  # takes the place of an older one in one moment
        # A folder is renamed onto an empty place only.
        new.rmdir()
        place.rename(new)

    trials = read_dataset(out).trials(subject)
    return FolderResult(trials, out, check, dataclasses.replace(result, trials=trials))


def _blocks(n_trials: int, n_voxels: int, memory_gb: float) -> Iterator[slice]:
    """Blocks of voxels whose betas take an eighth of the memory in double precision.

    Parameters
    ----------
    n_trials : int
        rows of the betas
    n_voxels : int
        columns, to be cut into blocks
    memory_gb : float
        that the whole fit may take
    """
    step = max(1, int(memory_gb * 1e9 / 8 / (8 * n_trials)))
    for start in range(0, n_voxels, step):
        yield slice(start, min(start + step, n_voxels))


def _described(
    result: BetaResult, check: DesignCheck, reliability: SplitHalf | None, files: SubjectFiles, key: str
) -> Trials:
    """Trials with notes on how they were made, and the reliability of each voxel."""
    notes: dict[str, Any] = {
        "source": files.root.resolve().name,
        "key": key,
        "onset_check": str(check.shift),
        "design_check": [[f.level, f.what, f.detail, f.next_step] for f in check.findings],
        "runs": len(check.table),
        "kind": result.kind,
    }

    voxels = result.trials.voxels
    if reliability is not None:
        voxels = voxels.assign(split_half=reliability.r)
        notes["split_half_bar"] = reliability.bar
        notes["split_half_share"] = reliability.share
        notes["split_half_stimuli"] = reliability.n_stimuli

    described = result.trials.with_betas(result.trials.source, **notes)
    return dataclasses.replace(described, voxels=voxels)


def _stimuli(runs: SubjectRuns, files: SubjectFiles, images: str | Path | None) -> Stimuli:
    """What was shown, with pictures where there are some; those without one are counted."""
    ids = list(dict.fromkeys(stimulus for run in runs.runs for stimulus in run.events["stimulus"]))
    names = np.asarray(ids, dtype=object)
    category = None
    if runs.categories:
        category = np.asarray([runs.categories.get(stimulus, "") for stimulus in ids], dtype=object)

    without_pictures = Stimuli(names, category=category)
    place = None
    if images is not None:
        place = Path(images)
    else:
        for folder in (files.root, *files.studies, *files.root.resolve().parents[:3]):
            if (folder / "stimuli").is_dir():
                place = folder / "stimuli"
                break

    if place is None:
        return without_pictures

    try:
        found = match_pictures(place, ids)
    except DataError as error:
        if images is not None:
            raise

        # The study's folder may hold something else.
        warnings.warn(f"the data set has no pictures: {error}", PhospheneWarning, stacklevel=5)
        return without_pictures

    missing = [stimulus for stimulus in ids if stimulus not in found]
    if missing:
        warnings.warn(
            f"{len(missing)} of {len(ids)} stimuli have no picture in {place}, such as {few(missing, 3)}; their trials can "
            "be used for nothing that needs pictures.",
            PhospheneWarning,
            stacklevel=5,
        )

    pictures, present, _ = open_pictures(found, ids)
    if present.all():
        present = None

    return Stimuli(names, pictures, category=category, present=present)


def _page_arrays(
    runs: Sequence[BoldRun], check: DesignCheck, result: BetaResult, reliability: SplitHalf | None, options: BetaOptions
) -> dict[str, np.ndarray]:
    """Small arrays that a page draws, so that drawing it never opens the runs."""
    arrays = {
        "shifts_s": check.shift.shifts_s,
        "shift_r2": check.shift.r2,
        "curve": result.curve,
        "repeats": np.array(list(check.repeats.items())).reshape(-1, 2),
    }
    for name, values in check.table.items():
        arrays[f"run_{name}"] = values.to_numpy()

    if reliability is not None:
        edges = np.linspace(-1, 1, 81)
        arrays["null_edges"] = edges
        arrays["null_counts"] = np.histogram(reliability.null, edges)[0] / len(reliability.null)

    return arrays | _carpet(runs, result.trials.voxels["on_off_r2"].to_numpy(), options)


def _carpet(runs: Sequence[BoldRun], on_off: np.ndarray, options: BetaOptions) -> dict[str, np.ndarray]:
    """Series without drift in standard deviations, means of a few voxels, most responsive above; and where runs end.

    Parameters
    ----------
    runs : sequence of BoldRun
        of the subject
    on_off : ndarray of shape (n_voxels,)
        percent of variance that the on-off model explains, by which rows are ordered
    options : BetaOptions
        how far onsets were moved
    """
    # Evenly over the mask, so that every part of the brain is in the picture.
    voxels = np.linspace(0, len(on_off) - 1, min(len(on_off), _CARPET_VOXELS))
    voxels = np.unique(voxels.round().astype(int))
    voxels = voxels[np.argsort(-on_off[voxels], kind="stable")]

    n_rows, n_columns = _CARPET
    rows = np.array_split(np.arange(len(voxels)), min(n_rows, len(voxels)))
    every = -(-sum(len(run) for run in runs) // n_columns)  # volumes in a column

    columns = []
    ends = []
    onsets = []
    end_s = 0.0
    for run in runs:
        basis = nuisance_basis(len(run), polynomial_degree(run.duration_s))
        series, _ = residuals(np.asarray(run.volumes[:, voxels]), basis)
        sd = series.std(axis=0)
        z = series * np.divide(1, sd, out=np.zeros_like(sd), where=sd > 0)
        z = np.stack([z[:, row].mean(axis=1) for row in rows])  # (n_rows, n_volumes)

        # Columns do not reach from one run into the next; the last volumes of a run that fill no column are left out.
        whole = len(run) // every * every
        columns.append(z[:, :whole].reshape(len(z), -1, every).mean(axis=2))
        onsets.append(end_s + run.events["onset"].to_numpy(dtype=np.float64) + options.onset_shift_s)
        end_s += columns[-1].shape[1] * every * run.tr_s
        ends.append(end_s)

    # Grey values, mean 128 and standard deviation 45.
    carpet = np.concatenate(columns, axis=1)  # (n_rows, n_columns)
    carpet = 128 + carpet * (45 / max(float(carpet.std()), 1e-9))

    return {
        "carpet": np.clip(carpet, 0, 255).astype(np.uint8),
        "carpet_ends_s": np.array(ends),
        "carpet_onsets_s": np.concatenate(onsets),
    }
