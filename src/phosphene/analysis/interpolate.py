"""Interpolate: from one response to another in small steps, decoding each: does the picture change step by step as well?

    x(t) = (1 - t) a + t b,   t = 0 ... 1        decoded by the same recipe, with the same noise where it draws

A decoder that reads the response passes from one picture to the other; one that classifies and generates a picture of the class
jumps; one that ignores the response goes nowhere. All steps of a pair are decoded under the id and session of its first
response, so that what a recipe draws by chance stays the same. Each path is compared with the ends of the other pairs as well.

Paper: Lin et al. 2022 (Mind Reader), section A.9, "interpolations of two fMRI scans", shown as pictures; the numbers are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.analysis.image_stats import ImageStatsReader, ImageStatsSource
from phosphene.analysis.interface import COLUMNS, Analysis, Findings, chosen_folds
from phosphene.analysis.region_targets import standing_in
from phosphene.errors import DataError
from phosphene.io.config import Config
from phosphene.io.progress import Progress
from phosphene.metrics.statistics import bootstrap, mean_of_items, permutation_null
from phosphene.metrics.ties import grain_of, midranks, outcomes
from phosphene.run import Run
from phosphene.types import Trials

N_PICTURED = 5


class InterpolateOptions(Config):
    """How many pairs, and how finely."""

    n: int = Field(default=12, ge=2, le=200, description="pairs of test responses; fewer where there are not so many")
    steps: int = Field(default=17, ge=3, le=101, description="pictures along the way, ends included")
    fold: int = Field(default=0, ge=0, description="which fold")


@dataclass(frozen=True, eq=False)
class DecodedPath:
    """Pictures decoded on the way from one response to another.

    Attributes
    ----------
    ids : tuple of (str, str)
        of the two stimuli
    pixels : ndarray of shape (steps, h, w, c)
        0-1
    features : ndarray of shape (steps, d)
        of length 1, directions of the pictures in the space of comparison
    """

    ids: tuple[str, str]
    pixels: np.ndarray
    features: np.ndarray

    @property
    def to_start(self) -> np.ndarray:
        """(steps,) cosine with the picture decoded from the first response."""
        return self.features @ self.features[0]

    @property
    def to_end(self) -> np.ndarray:
        """(steps,) cosine with the picture decoded from the second response."""
        return self.features @ self.features[-1]


@dataclass(frozen=True, kw_only=True, eq=False)
class InterpolateFindings(Findings):
    """Whether pictures pass from one to the other as responses do.

    Attributes
    ----------
    t : ndarray of shape (steps,)
        share of the second response, 0-1
    paths : sequence of DecodedPath
        one per pair
    ends : sequence of tuple of (ndarray, ndarray)
        the two pictures seen, of the first pairs
    p : float
        of monotonicity being as large with the ends of other pairs
    source : ImageStatsSource
        what pictures were compared with
    """

    t: np.ndarray
    paths: Sequence[DecodedPath]
    ends: Sequence[tuple[np.ndarray, np.ndarray]]
    p: float
    source: ImageStatsSource


class Interpolate(Analysis[InterpolateOptions]):
    """Decode mixtures of two responses, and measure whether the pictures pass from one to the other."""

    name = "interpolate"
    title = "From one response to another"
    options_class = InterpolateOptions

    def run(self, opened: Run, progress: Progress) -> InterpolateFindings:
        """Decode mixtures of pairs of test responses.

        Parameters
        ----------
        opened : Run
            a fitted run
        progress : Progress
            where progress is shown

        Returns
        -------
        InterpolateFindings
            tables, and the facts that sentences and figures are made of
        """
        chosen_folds(opened, self.options.fold)
        recipe = opened.recipe(self.options.fold)
        train, test = opened.sides(self.options.fold)
        test = test.average_repeats()

        category = opened.stimuli.select(test.stimuli).category
        pairs = pairs_of(test, category, self.options.n, self.rng("pairs"))
        reader = ImageStatsReader(opened.dataset.name, opened.stimuli.select(train.stimulus_ids))
        t = np.linspace(0, 1, self.options.steps)
        paths = []

        for a, b in progress.each(pairs, "interpolating", unit="pair"):
            start, end = test.read(np.array([a, b]))  # (n_voxels,) each
            mixed = ((1 - t)[:, None] * start + t[:, None] * end).astype(np.float32)  # (steps, n_voxels)
            trials = standing_in(test, np.full(len(t), a), mixed, interpolated=f"towards {test.stimuli[b]}")
            pixels = np.nan_to_num(recipe.decode(trials).clipped(), nan=0.5)  # grey where a value is no number
            paths.append(DecodedPath((test.stimuli[a], test.stimuli[b]), pixels, reader.features(pixels)))

        table, p = self._table(t, paths)
        pictures = opened.stimuli.resized(recipe.image_shape_[:2])
        row = {stimulus: i for i, stimulus in enumerate(opened.stimuli.ids)}
        ends = []

        for path in paths[:N_PICTURED]:
            first, second = path.ids
            ends.append((pictures[row[first]], pictures[row[second]]))

        return InterpolateFindings(
            table=table, tables={"steps": _per_step(t, paths)}, t=t, paths=paths, ends=ends, p=p, source=reader.source
        )

    def _table(self, t: np.ndarray, paths: Sequence[DecodedPath]) -> tuple[pd.DataFrame, float]:
        """Measures of all paths, towards their own ends and towards those of every other pair; and p."""
        # Row i: the path of pair i; column j: its way from the start of pair j to the end of pair j.
        n = len(paths)
        monotonic = np.empty((n, n))
        forward = np.empty((n, n))

        for i, path in enumerate(paths):
            for j, other in enumerate(paths):
                towards = path.features @ (other.features[-1] - other.features[0])  # (steps,)
                monotonic[i, j] = monotonicity(t, towards)
                forward[i, j] = forward_share(towards)

        is_other = ~np.eye(n, dtype=bool)
        largest = [largest_step(path.features) for path in paths]
        ends = [path.to_end[0] for path in paths]
        values = {
            ("brain", "monotonic"): np.diagonal(monotonic),
            ("brain", "forward"): np.diagonal(forward),
            ("wrong", "monotonic"): (monotonic * is_other).sum(axis=1) / (n - 1),
            ("wrong", "forward"): (forward * is_other).sum(axis=1) / (n - 1),
            ("brain", "largest_step"): np.array(largest),
            ("brain", "ends"): np.array(ends),
        }
        rows = []

        for (name, measure), of_pairs in values.items():
            interval = bootstrap(mean_of_items(of_pairs), n, rng=self.rng(name, measure))
            rows.append((name, measure, *interval, int(np.isfinite(of_pairs).sum())))

        null = permutation_null(monotonic, rng=self.rng("null"))
        return pd.DataFrame(rows, columns=list(COLUMNS)), null.p


# -- numbers -----------------------------------------------------------------------------------------------------------


def pairs_of(trials: Trials, category: np.ndarray | None, n: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Rows of trials to go between: each row in one pair at most, of two categories where it can be, of one session first.

    Parameters
    ----------
    trials : Trials
        repeats averaged; statistics of the first session are used for both, hence the preference
    category : ndarray of shape (n_trials,) or None
        of each stimulus, where it has one
    n : int
        most pairs
    rng : numpy.random.Generator
        of the order in which trials are paired

    Returns
    -------
    list of tuple of (int, int)
        rows of the first and of the second response

    Raises
    ------
    DataError
        With fewer than four trials, which make two pairs.
    """
    if len(trials) < 4:
        raise DataError(f"two pairs of test responses are needed, but there are only {len(trials)} responses.")

    # Greedy, in random order: the best partner left of each row; tuples compare category before session.
    session = trials.table["session"].to_numpy()
    free = list(rng.permutation(len(trials)))
    pairs: list[tuple[int, int]] = []

    while len(free) > 1 and len(pairs) < n:
        a = free.pop(0)
        penalties = []
        for b in free:
            is_same_category = category is not None and category[a] == category[b]
            penalties.append((is_same_category, session[a] != session[b]))

        best = min(range(len(free)), key=penalties.__getitem__)
        pairs.append((int(a), int(free.pop(best))))

    return pairs


def monotonicity(t: np.ndarray, values: np.ndarray) -> float:
    """Spearman's rank correlation of values along the way with t, ties sharing ranks; 0 where nothing changes.

    Parameters
    ----------
    t : ndarray of shape (steps,)
        ascending
    values : ndarray of shape (steps,)
        one per step

    Returns
    -------
    float
        -1 to 1

    Examples
    --------
    >>> monotonicity(np.arange(5.0), np.array([0.0, 0.1, 0.5, 0.6, 1.0])), monotonicity(np.arange(3.0), np.ones(3))
    (1.0, 0.0)
    """
    a = midranks(t)
    b = midranks(values)
    a = a - a.mean()
    b = b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))

    if size > 0:
        return float(np.clip(round(a @ b / size, 12), -1, 1))

    return 0.0


def forward_share(values: np.ndarray) -> float:
    """Share of steps along which values rise; a step without change counts one half."""
    return float(outcomes(values[1:], values[:-1], grain_of(values)).mean())


def largest_step(features: np.ndarray) -> float:
    """Largest distance between neighbours over the length of the way; NaN where nothing changes."""
    steps = np.linalg.norm(np.diff(np.asarray(features, dtype=np.float64), axis=0), axis=1)
    if steps.sum() > 1e-5:  # below, steps are the rounding of features of length 1
        return float(steps.max() / steps.sum())

    return float("nan")


def _per_step(t: np.ndarray, paths: Sequence[DecodedPath]) -> pd.DataFrame:
    parts = []
    for i, path in enumerate(paths):
        columns = {
            "pair": i,
            "start": path.ids[0],
            "end": path.ids[1],
            "t": t,
            "to_start": path.to_start,
            "to_end": path.to_end,
        }
        parts.append(pd.DataFrame(columns))

    return pd.concat(parts, ignore_index=True)
