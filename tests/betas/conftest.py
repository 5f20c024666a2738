"""A small study as a plain linear model would write it down, beside the same as runs."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from phosphene.betas import BoldRun, HrfLibrary
from phosphene.betas.denoise import Repeats
from phosphene.betas.glm import RunDesign, nuisance_basis, residuals

LENGTHS, TRIALS, TR_S, SHAPES = (90, 100, 84), 16, 1.5, (3, 13)


@pytest.fixture(scope="session")
def small():
    """Three runs of unequal length, 16 trials each of 20 stimuli, 12 voxels, two sessions."""
    rng = np.random.default_rng(0)
    library = HrfLibrary()
    shown = [rng.permutation(20)[:TRIALS] for _ in LENGTHS]
    drawn = SimpleNamespace(runs=[], designs=[], series=[], explicit=[], drift=[], shown=np.concatenate(shown))
    start = 0
    for number, (n, conditions) in enumerate(zip(LENGTHS, shown, strict=True)):
        onset = np.sort(rng.choice(np.arange(2, int(n * TR_S) - 12, 3), TRIALS, replace=False)) + 0.4
        x = library.designs(onset, np.full(TRIALS, 2.0), n, TR_S)
        drift = np.linspace(-1, 1, n)[:, None] ** np.arange(2)
        y = 500 + drift @ rng.normal(size=(2, 12)) * 5 + x[13] @ rng.normal(size=(TRIALS, 12)) * 4
        y = (
            y + 3 * np.cumsum(rng.normal(size=(n, 1)), axis=0) * rng.normal(size=12) / 5 + rng.normal(size=y.shape)
        ).astype("f4")
        y[:, 11] = 500  # never changes
        events = pd.DataFrame({"onset": onset, "duration": 2.0, "stimulus": [f"s{c}" for c in conditions]})
        drawn.runs.append(BoldRun(y, TR_S, events, 1 + (number == 2), number + 1))
        basis = nuisance_basis(n, 1)
        drawn.designs.append(RunDesign.build(x, basis, slice(start, start := start + TRIALS)))
        drawn.series.append(residuals(y, basis)[0])
        drawn.explicit.append(x)
        drawn.drift.append(drift)
    drawn.n_trials = start
    drawn.fold = np.repeat(np.arange(3), TRIALS)
    drawn.session = np.repeat([1, 1, 2], TRIALS)
    drawn.repeats = Repeats.of(drawn.shown.astype(str), drawn.fold, drawn.session)
    return drawn


def whole_design(small, shape: int, extra=None) -> np.ndarray:
    """One matrix for the whole study: a column for each trial, then drifts (and `extra`) of each run."""
    blocks = [[x[shape], d] if extra is None else [x[shape], d, e] for x, d, e in
              zip(small.explicit, small.drift, extra or small.drift, strict=True)]  # fmt: skip
    n = sum(LENGTHS)
    columns = [np.zeros((n, 0))]
    for part in range(len(blocks[0])):
        wide = np.zeros((n, sum(b[part].shape[1] for b in blocks)))
        row = column = 0
        for block in blocks:
            wide[row : row + len(block[part]), column : column + block[part].shape[1]] = block[part]
            row, column = row + len(block[part]), column + block[part].shape[1]
        columns.append(wide)
    return np.concatenate(columns, axis=1)


def whole_data(small) -> np.ndarray:
    return np.concatenate([run.volumes for run in small.runs]).astype(np.float64)


def slow_badness(small, levels: list[np.ndarray]) -> np.ndarray:
    """The published score with two loops over trials: (n_levels, n_voxels)."""
    scaled = []
    for level in levels:
        z = np.array(level, dtype=np.float64)
        for s in np.unique(small.session):
            here = small.session == s
            mean, sd = levels[0][here].mean(axis=0), levels[0][here].std(axis=0, ddof=1)
            z[here] = np.where(sd > 1e-8, (z[here] - mean) / np.where(sd > 1e-8, sd, 1), 0)
        scaled.append(z)
    out = np.zeros((len(levels), levels[0].shape[1]))
    for row, z in zip(out, scaled, strict=True):
        for i in range(len(z)):
            for j in range(len(z)):
                if small.shown[i] == small.shown[j] and small.fold[i] != small.fold[j]:
                    row += (z[j] - scaled[0][i]) ** 2
    return out
