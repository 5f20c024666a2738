"""From a folder of runs to a folder of betas: streamed, taken up again after a stop, with what was found on the way."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from phosphene._version import __version__
from phosphene.betas.design import DesignCheck, design_check
from phosphene.betas.glm import blas_threads, nuisance_basis, polynomial_degree, residuals
from phosphene.betas.hrf import HrfLibrary
from phosphene.betas.options import BetaOptions
from phosphene.betas.pipeline import BetaResult, Told, single_trial_betas
from phosphene.betas.read import Located, SubjectRuns, locate
from phosphene.betas.reliability import SplitHalf, split_half
from phosphene.betas.runs import BoldRun
from phosphene.betas.timing import onset_shift
from phosphene.betas.work import Work, taken_up, work_key
from phosphene.data import read_dataset, write_dataset
from phosphene.data.folder import INDEX
from phosphene.data.pictures import match_pictures, open_pictures
from phosphene.errors import ConfigError, DataError, PhospheneWarning
from phosphene.io import atomic
from phosphene.types import Dataset, Stimuli, Trials

FOUND = "found.npz"
"""Beside the data set: what a report page draws, such as the onset curve, the component curve and a carpet of the runs."""

_CARPET = (120, 1500)  # rows and columns drawn at most
_CARPET_VOXELS = 3000


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
    progress: Told = lambda *_: None,
    *,
    mask: str | Path | None = None,
    task: str | None = None,
    sessions: Sequence[int] | None = None,
    pattern: str | None = None,
    images: str | Path | None = None,
    shift: Literal["auto", "none"] = "none",
    workers: int = 1,
    replace: bool = False,
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
    progress : Told, optional
        called with (what, share done)
    mask : str or Path, optional
        as for :func:`~phosphene.betas.read.read_runs`
    task : str, optional
        as for :func:`~phosphene.betas.read.read_runs`
    sessions : sequence of int, optional
        as for :func:`~phosphene.betas.read.read_runs`
    pattern : str, optional
        as for :func:`~phosphene.betas.read.read_runs`
    images : str or Path, optional
        folder of the pictures shown, named after the stimuli; by default ``stimuli`` of the study, where there is one
    shift : {"auto", "none"}, default "none"
        ``auto`` moves the onsets where the design check finds them early or late; ``none`` only warns
    workers : int, default 1
        runs read, and blocks of voxels fitted, at once, as far as the memory allows
    replace : bool, default False
        whether an older data set of that name may be replaced

    Returns
    -------
    FolderResult

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
    if shift == "auto" and options.onset_shift_s:
        raise ConfigError(f"onsets are moved by {options.onset_shift_s:g} s or as the check finds, not both.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (out / INDEX).is_file():
        raise ConfigError(f"{out} exists and is not empty. Choose another --out.")

    library = HrfLibrary.chosen(options)
    found = locate(folder, subject, mask=mask, task=task, sessions=sessions, pattern=pattern)
    key = _key(found, options, library, shift, images)

    if (out / INDEX).is_file() and not replace:
        done = read_dataset(out)
        if found.subject in done.subjects and done.trials(found.subject).provenance.get("key") == key:
            return FolderResult(done.trials(found.subject), out)

        raise ConfigError(
            f"{out} exists and is not empty. Choose another --out, or replace it with --replace (in Python replace=True)."
        )

    with taken_up(out.with_name(f"{out.name}.work"), key) as work, blas_threads(1):
        made = _make(found, out, options, library, progress, work, workers, shift, images, key)
        work.remove()

    return made


def _key(found: Located, options: BetaOptions, library: HrfLibrary, shift: str, images: str | Path | None) -> str:
    return work_key(
        {
            "version": __version__, "options": options.model_dump(mode="json"), "files": found.fingerprint(options.confounds),
            "responses": library.digest, "shift": shift, "images": str(images),
        }
    )  # fmt: skip


def _make(
    found: Located, out: Path, options: BetaOptions, library: HrfLibrary, progress: Told, work: Work, workers: int, shift: str,
    images: str | Path | None, key: str,
) -> FolderResult:  # fmt: skip
    runs = found.read(options.confounds, work=work, workers=workers, memory_gb=options.memory_gb)
    progress("reading", 1.0)
    seen = onset_shift(runs.runs, library, shape=options.assumed_hrf)

    if shift == "auto" and seen.is_suspect:
        options = options.model_copy(update={"onset_shift_s": seen.best_s})
        warnings.warn(
            f"{found.subject}: onsets were moved by {seen.best_s:+.2f} s, as asked (--shift auto): as filed they explain "
            f"{100 * seen.r2_as_filed:.1f} % of variance, so {100 * seen.r2_moved:.1f} %.", PhospheneWarning, stacklevel=4,
        )  # fmt: skip
    elif seen.is_suspect and not options.onset_shift_s:
        warnings.warn(f"{found.subject}: {seen}.", PhospheneWarning, stacklevel=4)

    check = design_check(runs.runs, library, shape=options.assumed_hrf, moved_s=options.onset_shift_s, shift=seen)
    progress("design", 1.0)
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
        subject=found.subject,
        out=room,
        progress=progress,
        work=work,
        workers=workers,
    )

    step = max(1, int(options.memory_gb * 1e9 / 8 / (8 * n_trials)))
    reliability = split_half(
        result.trials.source, result.trials.table, np.random.default_rng(0),
        blocks=lambda: (slice(s, min(s + step, n_voxels)) for s in range(0, n_voxels, step)),
    )  # fmt: skip

    trials = _described(result, check, reliability, found, key)
    stimuli = _stimuli(trials, runs, found.root, images)
    name = found.root.resolve().name
    dataset = Dataset(name, stimuli, {found.subject: trials}, {}, {"title": f"Single-trial betas of {name}"})
    place = write_dataset(dataset, work.folder / "done", progress=progress, replace=True)
    arrays = _drawn(runs.runs, check, result, reliability, options)

    with atomic.explained(place):
        np.savez(place / FOUND, **arrays)

    with atomic.folder(out) as new:  # takes the place of an older one in one moment
        new.rmdir()
        place.rename(new)

    trials = read_dataset(out).trials(found.subject)
    return FolderResult(trials, out, check, dataclasses.replace(result, trials=trials))


def _described(
    result: BetaResult, check: DesignCheck, reliability: SplitHalf | None, found: Located, key: str
) -> Trials:
    notes: dict[str, Any] = {
        "source": found.root.resolve().name,
        "key": key,
        "onset_check": str(check.shift),
        "design_check": [[f.level, f.what, f.detail, f.next_step] for f in check.findings],
        "runs": len(check.table),
        "kind": result.kind,
    }

    voxels = result.trials.voxels
    if reliability is not None:
        voxels = voxels.assign(split_half=reliability.r)
        notes |= {
            "split_half_bar": reliability.bar, "split_half_share": reliability.share, "split_half_stimuli": reliability.n_stimuli
        }  # fmt: skip

    described = result.trials.with_betas(result.trials.source, **notes)
    return dataclasses.replace(described, voxels=voxels)


def _stimuli(trials: Trials, runs: SubjectRuns, root: Path, images: str | Path | None) -> Stimuli:
    ids = [str(s) for s in trials.stimulus_ids]
    if runs.categories:
        category = [runs.categories.get(s, "") for s in ids]
    else:
        category = None

    if images is not None:
        place = Path(images)
    else:
        place = root / "stimuli"

    if images is None and not place.is_dir():
        return Stimuli(trials.stimulus_ids, category=category)

    try:
        files = match_pictures(place, ids)
    except DataError:
        if images is not None:
            raise

        return Stimuli(trials.stimulus_ids, category=category)  # the study's folder holds something else

    pictures, present, _ = open_pictures(files, ids)
    if present.all():
        present = None

    return Stimuli(trials.stimulus_ids, pictures, category=category, present=present)


def _drawn(
    runs: Sequence[BoldRun], check: DesignCheck, result: BetaResult, reliability: SplitHalf | None, options: BetaOptions
) -> dict[str, np.ndarray]:
    """Small arrays that a page draws."""
    out = {
        "shifts_s": check.shift.shifts_s, "shift_r2": check.shift.r2, "curve": result.curve,
        "repeats": np.array(list(check.repeats.items())).reshape(-1, 2),
        **{f"run_{name}": values.to_numpy() for name, values in check.table.items()},
    }  # fmt: skip

    if reliability is not None:
        edges = np.linspace(-1, 1, 81)
        out |= {"null_edges": edges, "null_counts": np.histogram(reliability.null, edges)[0] / len(reliability.null)}

    return out | _carpet(runs, result.trials.voxels["on_off_r2"].to_numpy(), options)


def _carpet(runs: Sequence[BoldRun], on_off: np.ndarray, options: BetaOptions) -> dict[str, np.ndarray]:
    """Series without drift in standard deviations, means of a few voxels, most responsive above; and where runs end."""
    some = np.unique(np.linspace(0, len(on_off) - 1, min(len(on_off), _CARPET_VOXELS)).round().astype(int))
    some = some[np.argsort(-on_off[some], kind="stable")]
    rows = np.array_split(np.arange(len(some)), min(_CARPET[0], len(some)))
    every = -(-sum(len(run) for run in runs) // _CARPET[1])
    columns = []
    ends = []
    onsets = []
    at = 0.0

    for run in runs:
        basis = nuisance_basis(len(run), polynomial_degree(run.duration_s))
        series, _ = residuals(np.asarray(run.volumes[:, some]), basis)
        sd = series.std(axis=0)
        z = series * np.divide(1, sd, out=np.zeros_like(sd), where=sd > 0)
        z = np.stack([z[:, row].mean(axis=1) for row in rows])
        columns.append(z[:, : len(run) // every * every].reshape(len(z), -1, every).mean(axis=2))
        onsets.append(at + run.events["onset"].to_numpy(dtype=np.float64) + options.onset_shift_s)
        at += columns[-1].shape[1] * every * run.tr_s
        ends.append(at)

    shown = np.concatenate(columns, axis=1)
    shown = 128 + shown * (45 / max(float(shown.std()), 1e-9))

    return {
        "carpet": np.clip(shown, 0, 255).astype(np.uint8), "carpet_ends_s": np.array(ends),
        "carpet_onsets_s": np.concatenate(onsets),
    }  # fmt: skip
