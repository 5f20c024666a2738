"""A bounded part of large betas, to look at before anyone waits for all of them."""

from __future__ import annotations

import math

import numpy as np

from phosphene.data.dataset_folder import ScaledRows
from phosphene.data.volumes import SessionRows
from phosphene.types import Trials

BYTES = 256 * 2**20
"""Betas up to this size, as float32, are read whole; of larger ones about a quarter of it."""

_SESSIONS = 8  # looked into, spread evenly
_FIRST = 4  # trials of each: a compressed session must be unpacked up to the last one read


def preview(trials: Trials) -> tuple[Trials, str]:
    """The trials, or some of them in memory when there are many.

    Parameters
    ----------
    trials : Trials
        of one subject

    Returns
    -------
    tuple of (Trials, str)
        trials themselves and "" when they are small; else some of them and words that say which, such as "32 of 30000
        trials were read, the first 4 of 8 sessions": files of a session on a grid are unpacked from their beginning
        only, other rows are taken evenly.
    """
    source = _files_behind(trials)
    if source is not None and sum(f.n_trials * math.prod(f.grid) * f.dtype.itemsize for f in source.files) <= BYTES:
        return trials, ""
    if source is None and len(trials) * trials.n_voxels * 4 <= BYTES:
        return trials, ""

    if source is None:
        n = max(1, min(len(trials), BYTES // 4 // max(1, trials.n_voxels * 4)))
        rows = np.unique(np.linspace(0, len(trials) - 1, n).round().astype(np.int64))
        part = trials.take(rows)
        return part.with_betas(part.betas), f"{len(rows)} of {len(trials)} trials were read, evenly taken"

    files = source.files
    n_each = source.n_per_session
    scale = getattr(trials.source, "scale", 1.0)
    first = min(_FIRST, n_each)
    sessions = np.unique(np.linspace(0, len(files) - 1, min(_SESSIONS, len(files))).round().astype(np.int64))
    blocks = []
    positions = []
    for number in sessions:
        blocks.append(files[number].read(source.voxels, first).astype(np.float32))
        positions.append(np.arange(number * n_each, number * n_each + first))

    betas = np.concatenate(blocks) * np.float32(scale)  # (n_rows, n_voxels)
    rows = np.concatenate(positions)
    words = f"{len(rows)} of {len(trials)} trials were read, the first {first} of {len(sessions)} sessions"

    return trials.take(rows).with_betas(betas), words


def _files_behind(trials: Trials) -> SessionRows | None:
    """Session files that the betas are read from one by one; None for anything else, or a selection of them."""
    if isinstance(trials.source, ScaledRows):
        source = trials.source.numbers
    else:
        source = trials.source

    whole = trials.rows is None and trials.columns is None
    if whole and isinstance(source, SessionRows):
        return source
    return None
