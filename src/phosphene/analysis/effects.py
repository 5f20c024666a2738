"""What stimulating voxels did to the decoded embeddings, against random voxel sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from phosphene.analysis.region_targets import Edit, StandIns, StimulationTarget
from phosphene.analysis.spaces import Pool, Space
from phosphene.errors import DataError

LEVEL = 0.05
"""Of every test, and of the false discovery rate."""
NEAREST = 10
"""Captions whose categories are counted."""


@dataclass(frozen=True, eq=False)
class CategoryScores:
    """Centred cosine of each response with each category.

    Attributes
    ----------
    before, after : ndarray of shape (n, k)
        of the untouched and of the stimulated responses
    null_after : ndarray of shape (repeats, n, k)
        with each random set stimulated
    """

    before: np.ndarray
    after: np.ndarray
    null_after: np.ndarray

    @property
    def excess(self) -> np.ndarray:
        """(n, k) rise of each category's score beyond the mean over random sets."""
        return self.after - self.null_after.mean(axis=0)

    @property
    def null_rise(self) -> np.ndarray:
        """(repeats, k) mean rise of each category under each random set."""
        return (self.null_after - self.before).mean(axis=1)

    @property
    def rise(self) -> np.ndarray:
        """(k,) mean rise of each category."""
        return (self.after - self.before).mean(axis=0)

    def p_rise(self) -> np.ndarray:
        """(k,) probability that a random set raises a category as much; one-sided, never 0."""
        # The target counts as one of the sets: p is never below 1 / (repeats + 1), and equal rises count against it.
        null = self.null_rise
        return (1 + np.sum(null >= self.rise - 1e-12, axis=0)) / (len(null) + 1)

    def p_fall(self) -> np.ndarray:
        """(k,) the same for lowering it."""
        null = self.null_rise
        return (1 + np.sum(null <= self.rise + 1e-12, axis=0)) / (len(null) + 1)

    def z_rise(self) -> np.ndarray:
        """(k,) mean rise in standard deviations over random sets, from their mean."""
        null = self.null_rise
        return (self.rise - null.mean(axis=0)) / np.maximum(null.std(axis=0, ddof=1), 1e-12)


@dataclass(frozen=True, eq=False)
class Effect:
    """What stimulating one target did.

    Attributes
    ----------
    target : StimulationTarget
        which voxels
    edit : Edit
        what was done to them
    matched : StandIns
        the random sets they stand against
    own : str or None
        the category the target ought to bring forth, None where there is none
    shift : ndarray of shape (d,)
        mean change of the embedding
    null_shift : ndarray of shape (repeats, d)
        that of random sets
    p_dimensions : ndarray of shape (d,)
        adjusted for the false discovery rate
    p_shift : float
        of the length of the shift being larger than that of random sets
    consistency : float
        mean cosine between the changes of two responses
    scores : CategoryScores or None
        where the space has categories
    embeddings : ndarray of shape (n, d)
        of the stimulated responses
    """

    target: StimulationTarget
    edit: Edit
    matched: StandIns
    own: str | None
    shift: np.ndarray
    null_shift: np.ndarray
    p_dimensions: np.ndarray
    p_shift: float
    consistency: float
    scores: CategoryScores | None
    embeddings: np.ndarray


def dimension_p(shift: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Two-sided p of every dimension's change, adjusted for the false discovery rate (Benjamini-Hochberg).

    Each dimension is measured in the standard deviations of its own random changes, and compared with those of all
    dimensions together, so that few random sets resolve small p.

    Parameters
    ----------
    shift : ndarray of shape (d,)
        change
    null : ndarray of shape (repeats, d)
        changes by random voxel sets

    Returns
    -------
    ndarray of shape (d,)
        above 0; 1 where a dimension never changes
    """
    b = len(null)
    middle = null.mean(axis=0)
    variance = null.var(axis=0, ddof=1)
    moves = np.sqrt(variance) > 1e-12 * max(1.0, float(np.abs(null).max(initial=0)))  # (d,)

    # Where random sets change nothing, any change at all is beyond all of them.
    p = np.where(np.abs(shift - middle) > 1e-12, 1 / (b + 1), 1.0)
    distance = np.abs(shift - middle)[moves]
    variance = variance[moves]

    # Each random set against all others, as the target is: a share of its own in mean and variance would shrink it.
    squares = np.square(null - middle)[:, moves]  # (repeats, n_moving)
    others = np.maximum((b - 1) * variance - squares * b / (b - 1), 1e-12 * variance) / (b - 2)
    pooled = np.sort(np.sqrt(squares / (others * (b - 1) / b)).ravel())
    n_as_large = len(pooled) - np.searchsorted(pooled, distance / np.sqrt(variance * (1 + 1 / b)) - 1e-12)
    p[moves] = (1 + n_as_large) / (len(pooled) + 1)

    return false_discovery_control(p)


def own_category(target: StimulationTarget, space: Space) -> str | None:
    """The category a target ought to bring forth, in the words of the space; None where there is none."""
    if space.candidates is None:
        return None

    for category in target.categories:
        if category in space.candidates.names:
            return category

    return None


def category_table(effects: Sequence[Effect], names: Sequence[str]) -> pd.DataFrame:
    """Every category's rise under every target.

    Parameters
    ----------
    effects : sequence of Effect
        with scores of categories
    names : sequence of str
        k categories

    Returns
    -------
    DataFrame
        target, category, rise, excess over random sets, z, p one- and two-sided, and p adjusted for a target's categories

    Raises
    ------
    DataError
        When an effect has no scores of categories.
    """
    parts = []
    adjusted = []

    for effect in effects:
        scores = effect.scores
        if scores is None:
            raise DataError(
                f"effects with scores of categories were expected, but '{effect.target.name}' was stimulated in a space "
                "without categories; leave the table of categories out."
            )

        p_rise = scores.p_rise()
        columns = {
            "target": effect.target.name,
            "category": names,
            "rise": scores.rise,
            "excess": scores.excess.mean(axis=0),
            "z": scores.z_rise(),
            "p_rise": p_rise,
            "p_two_sided": np.minimum(1, 2 * np.minimum(p_rise, scores.p_fall())),
        }
        parts.append(pd.DataFrame(columns))
        adjusted.append(dimension_p(scores.rise, scores.null_rise))

    return pd.concat(parts, ignore_index=True).assign(p_fdr=np.concatenate(adjusted))


def consistency(change: np.ndarray) -> float:
    """Mean cosine between two rows.

    Parameters
    ----------
    change : ndarray of shape (n, d)
        change of the embedding of each response

    Returns
    -------
    float
        -1 to 1; NaN with fewer than two rows, or where one does not change
    """
    n = len(change)
    length = np.linalg.norm(change, axis=1, keepdims=True)
    if n < 2 or (length <= 1e-12).any():
        return float("nan")

    # The squared length of a sum of unit vectors holds every pair twice, and each vector once with itself.
    total = (change / length).sum(axis=0)  # (d,)
    return float((total @ total - n) / (n * (n - 1)))


def share_of_category(pool: Pool, embeddings: np.ndarray, space: Space, category: str) -> np.ndarray:
    """Share of the ten nearest captions that describe training pictures of a category.

    Parameters
    ----------
    pool : Pool
        m captions
    embeddings : ndarray of shape (n, d)
        of decoded responses
    space : Space
        they are in
    category : str
        as the pool names it

    Returns
    -------
    ndarray of shape (n,)
        0 to 1
    """
    cosines = pool.cosines(embeddings, space.centre)  # (n, m)
    k = min(NEAREST, len(pool.texts))
    nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]  # (n, k)
    return (pool.categories[nearest] == category).mean(axis=1)
