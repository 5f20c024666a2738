"""From a folder of runs to a folder of betas."""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from phosphene.betas.options import BetaOptions
from phosphene.betas.pipeline import BetaResult, Told, single_trial_betas
from phosphene.betas.read import read_runs
from phosphene.betas.timing import onset_shift
from phosphene.data import read_dataset, write_dataset
from phosphene.errors import ConfigError, PhospheneWarning
from phosphene.types import Dataset, Stimuli


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
    replace: bool = False,
) -> BetaResult:
    """Betas of a subject of a BIDS or OpenfMRI folder, written as a folder that opens without being read.

    Parameters
    ----------
    folder : of the study
    subject : such as ``01`` or ``sub-01``
    out : the folder to make; see :func:`phosphene.data.write_dataset`
    options : by default :class:`BetaOptions`
    progress : called with (what, share done)
    mask, task, sessions, pattern, replace : as for :func:`~phosphene.betas.read.read_runs` and ``write_dataset``

    Returns
    -------
    :class:`BetaResult`, whose trials were written. The onsets are checked by moving them; see the provenance

    Raises
    ------
    DataError : when the folder has no such subject, or its files do not fit together
    ConfigError : when `out` exists and is not to be replaced
    """
    options, out = options or BetaOptions(), Path(out)
    if not replace and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not empty. Choose another --out, or ask to replace it.")
    found = read_runs(
        folder, subject, mask=mask, task=task, sessions=sessions, confounds=options.confounds, pattern=pattern
    )
    progress("reading", 1.0)
    timing = onset_shift(found.runs) if options.onset_shift_s == 0 else None
    if timing is not None and timing.is_suspect:
        warnings.warn(f"{found.subject}: {timing}.", PhospheneWarning, stacklevel=2)
    with tempfile.TemporaryDirectory(prefix="phosphene-betas-") as spill:
        shape = sum(len(run.events) for run in found.runs), found.runs[0].n_voxels
        room = None
        if 4 * shape[0] * shape[1] > options.memory_gb * 1e9:
            room = np.memmap(Path(spill) / "betas", np.float32, "w+", shape=shape)
        result = single_trial_betas(
            found.runs, options, voxels=found.voxels, subject=found.subject, out=room, progress=progress
        )
        notes = {"source": Path(folder).name} | ({} if timing is None else {"onset_check": str(timing)})
        trials = result.trials.with_betas(result.trials.source, **notes)
        category = [found.categories.get(s, "") for s in trials.stimulus_ids] if found.categories else None
        stimuli = Stimuli(trials.stimulus_ids, category=category)
        about = {"title": f"Single-trial betas of {Path(folder).name}"}
        write_dataset(Dataset(Path(folder).name, stimuli, {found.subject: trials}, {}, about), out,
                      replace=replace, progress=progress)  # fmt: skip
    if room is not None:  # the memory map is gone
        trials = read_dataset(out).trials(found.subject)
    return dataclasses.replace(result, trials=trials)
