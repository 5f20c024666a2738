"""What stimulating voxels did to the decoded embeddings, against random voxel sets. Nothing here draws or speaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from phosphene.analysis.spaces import Pool, Space
from phosphene.analysis.targets import Edit, StandIns, StimulationTarget

LEVEL = 0.05
"""Of every test, and of the false discovery rate."""
NEAREST = 10
"""Captions whose categories are counted."""


@dataclass(frozen=True)
class Effect:
    """What stimulating one target did.

    Attributes
    ----------
    target : StimulationTarget
        what was done, and its random sets
    edit : Edit
        see `target`
    matched : StandIns
        see `target`
    shift : ndarray of shape (d,)
        mean change of the embedding; ``null_shift`` (repeats, d) that of random sets
    p_dimensions : ndarray of shape (d,)
        adjusted for the false discovery rate
    p_shift : float
        of the length of the shift being larger than that of random sets
    consistency : float
        mean cosine between the changes of two responses
    before, after : ndarray of shape (n, k) or None
        score of each category, or None; ``null_after`` (repeats, n, k)
    embeddings : ndarray of shape (n, d)
        of the stimulated responses
    """

    target: StimulationTarget
    edit: Edit
    matched: StandIns
    shift: np.ndarray
    null_shift: np.ndarray
    p_dimensions: np.ndarray
    p_shift: float
    consistency: float
    before: np.ndarray | None
    after: np.ndarray | None
    null_after: np.ndarray | None
    embeddings: np.ndarray

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
    moves = np.sqrt(variance) > 1e-12 * max(1.0, float(np.abs(null).max(initial=0)))
    p = np.where(np.abs(shift - middle) > 1e-12, 1 / (b + 1), 1.0)
    away = np.abs(shift - middle)[moves]
    variance = variance[moves]

    # Each random set against all others, as the target is: a share of its own in mean and spread would shrink it.
    squares = np.square(null - middle)[:, moves]
    others = np.maximum((b - 1) * variance - squares * b / (b - 1), 1e-12 * variance) / (b - 2)
    pooled = np.sort(np.sqrt(squares / (others * (b - 1) / b)).ravel())
    reached = len(pooled) - np.searchsorted(pooled, away / np.sqrt(variance * (1 + 1 / b)) - 1e-12)
    p[moves] = (1 + reached) / (len(pooled) + 1)

    return false_discovery_control(p)


def own_category(target: StimulationTarget, space: Space) -> str | None:
    """The category a target ought to bring forth, in the words of the space; None where there is none."""
    if space.candidates is None:
        names = ()
    else:
        names = space.candidates.names

    return next((c for c in target.categories if c in names), None)


def category_table(effects: list[Effect], space: Space) -> pd.DataFrame:
    """Every category's rise under every target: rise, excess over random sets, z, p, and p adjusted for a target's categories."""
    names = list(space.candidates.names)
    parts = [
        pd.DataFrame({
            "target": e.target.name, "category": names, "rise": e.rise, "excess": e.excess.mean(axis=0), "z": e.z_rise(),
            "p_rise": e.p_rise(), "p_two_sided": np.minimum(1, 2 * np.minimum(e.p_rise(), e.p_fall())),
        })
        for e in effects
    ]  # fmt: skip

    table = pd.concat(parts, ignore_index=True)
    return table.assign(p_fdr=np.concatenate([dimension_p(e.rise, e.null_rise) for e in effects]))


def consistency(change: np.ndarray) -> float:
    """Mean cosine between two rows."""
    n = len(change)
    length = np.linalg.norm(change, axis=1, keepdims=True)
    if n < 2 or (length <= 1e-12).any():
        return float("nan")

    total = (change / length).sum(axis=0)
    return float((total @ total - n) / (n * (n - 1)))


def share_of_category(pool: Pool, embeddings: np.ndarray, space: Space, own: str) -> np.ndarray:
    """(n,) share of the ten nearest captions that describe training pictures of a category."""
    cosines = pool.cosines(embeddings, space.centre)
    k = min(NEAREST, len(pool.texts))
    nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    return (pool.categories[nearest] == own).mean(axis=1)
