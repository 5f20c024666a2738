"""B6 and B7: can the targets be reached from the training set, and how many of their dimensions do the predictions use?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phosphene.evaluate.identification import similarity
from phosphene.evaluate.ties import first_best
from phosphene.evaluate.validity.base import Answer, Evidence
from phosphene.evaluate.validity.targets import Target
from phosphene.types.identity import few

FEWEST = 8  # test items
MOST_OUTSIDE = 0.5  # share of the targets' variance that no linear map can reach; a judgement
LEAST_DIMENSIONS = 0.25  # of those the truths use; a judgement
LINE = 1.1  # effective dimensions of what lies along one direction; pictures themselves may have no more than four
LEAST_VARIANCE = 0.01
MOST_ALIKE = 0.9  # mean cosine between predictions
_NEIGHBOURS = 10


# -- B6: of the data ---------------------------------------------------------------------------------------------------


def irreducible_shares(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Share of each test item that no linear map from anywhere to these training targets can predict.

    A linear map predicts combinations of training targets and nothing else. With H the training features, centred and
    scaled, the best prediction of h is its projection on their span, H' (H H')^+ H h; the share is squared residual over
    squared norm.

    Parameters
    ----------
    train : (n, d)
    test : (m, d)

    Returns
    -------
    (m,) from 0 to 1

    References
    ----------
    Otsuka et al. 2025, "Overcoming output dimension collapse".

    Examples
    --------
    >>> train = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    >>> irreducible_shares(train, np.array([[2.0, 1, 0], [0, 0, 1]])).round(6)
    array([0., 1.])
    """
    train, test = np.asarray(train, dtype=np.float64), np.asarray(test, dtype=np.float64)
    mean, scale = train.mean(axis=0), train.std(axis=0)
    varies = scale > 1e-6 * scale.max(initial=0)
    # What is constant in training has no scale of its own; it is out of reach all the same.
    scale = np.where(varies, scale, scale[varies].mean() if varies.any() else 1.0)
    train, test = (train - mean) / scale, (test - mean) / scale
    if train.shape[0] <= train.shape[1]:
        values, vectors = np.linalg.eigh(train @ train.T)
        along = test @ train.T @ vectors
    else:
        values, vectors = np.linalg.eigh(train.T @ train)
        along = test @ vectors * np.sqrt(np.maximum(values, 0))
    kept = values > 1e-10 * max(values[-1], 1e-300)
    reached = np.square(along[:, kept] / np.sqrt(values[kept])).sum(axis=1)
    power = np.square(test).sum(axis=1)
    share = 1 - np.divide(reached, power, out=np.ones_like(power), where=power > 0)
    return np.clip(share, 0, 1)


def collapse_of_data(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """B6: share of the test features outside the span of the training features. No brain takes part."""
    if not evidence.targets:
        return "not applicable", float("nan"), "No space of features to look at."
    worst, said, lost = 0.0, [], []
    for target in evidence.targets:
        share = float(irreducible_shares(target.train, target.true).mean())
        n, d = target.n_train, target.train.shape[1]
        most = " at most" if target.is_sampled and share > 0 else ""
        said.append(f"{target.space}: {100 * share:.1f} %{most} ({n} training items, {d} dimensions)")
        worst = max(worst, share)
        if share > MOST_OUTSIDE and not (target.is_sampled and n >= d):
            lost.append(target.space)
    facts = f"Of what tells test items apart, a linear map can reach nothing of this share: {'; '.join(said)}."
    if lost:
        return "flag", worst, (
            f"{facts} More than half of {few(lost)} is out of reach before any brain comes in: use more training items, "
            "or features of fewer dimensions."
        )  # fmt: skip
    return "pass", worst, facts


# -- B7: of predictions ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """How predictions are spread beside the truths they are for.

    Attributes
    ----------
    dimensions, true_dimensions : effective ones, see `participation_ratio`
    variance : of the predictions over that of the truths
    alike : mean cosine between two predictions, relative to the training mean
    nearest, true_nearest : number of distinct training items that are nearest to a prediction, and to a truth
    hubness : skewness of how often a truth is among the ten nearest to a prediction
    """

    dimensions: float
    true_dimensions: float
    variance: float
    alike: float
    nearest: int
    true_nearest: int
    hubness: float


def participation_ratio(rows: np.ndarray) -> float:
    """Effective number of dimensions, (sum of eigenvalues)^2 / sum of their squares, of the covariance of the rows.

    Examples
    --------
    >>> float(round(participation_ratio(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])), 6))
    2.0
    """
    x = np.asarray(rows, dtype=np.float64)
    x = x - x.mean(axis=0)
    gram = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
    power = np.square(gram).sum()
    return float(np.trace(gram) ** 2 / power) if power > 0 else 0.0


def spread_of(target: Target) -> Spread:
    """Measure predictions against truths. Rows that are not finite are left out of both."""
    train, true, ours = target.centred()
    finite = np.isfinite(ours).all(axis=1)
    true, ours = true[finite], ours[finite]
    n = len(ours)
    lengths = np.linalg.norm(ours, axis=1, keepdims=True)
    units = ours / np.maximum(lengths, 1e-12 * max(1.0, float(np.abs(true).max(initial=0))))
    alike = (np.square(units.sum(axis=0)).sum() - np.square(units).sum()) / max(1, n * (n - 1))
    near = np.nan_to_num(similarity(ours, true), nan=-2.0)
    k = min(_NEIGHBOURS, n // 3)
    counts = np.bincount(np.argsort(-near, axis=1, kind="stable")[:, :k].ravel(), minlength=n).astype(float)
    off = counts - counts.mean()
    return Spread(
        participation_ratio(ours),
        participation_ratio(true),
        float(ours.var(axis=0).sum() / max(true.var(axis=0).sum(), 1e-300)),
        float(alike),
        _distinct(ours, train),
        _distinct(true, train),
        float((off**3).mean() / max(np.square(off).mean(), 1e-12) ** 1.5),
    )


def _distinct(rows: np.ndarray, train: np.ndarray) -> int:
    return len(np.unique(first_best(np.nan_to_num(similarity(rows, train), nan=-2.0))))


def collapse_of_predictions(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """B7: effective dimensions, variance and variety of predictions beside those of the truths."""
    usable = [t for t in evidence.targets if np.isfinite(t.predicted).all(axis=1).sum() >= FEWEST]
    if not usable:
        return "not applicable", float("nan"), f"Fewer than {FEWEST} test items were decoded."
    said, collapsed, worst = [], [], np.inf
    for target in usable:
        s = spread_of(target)
        share = s.dimensions / max(s.true_dimensions, 1e-12)
        worst = min(worst, share)
        said.append(
            f"{target.space}: effective dimension {s.dimensions:.1f} of {s.true_dimensions:.1f}, variance "
            f"{100 * s.variance:.0f} % of the truth's, mean cosine {s.alike:.2f}, {s.nearest} distinct nearest training items "
            f"(truths: {s.true_nearest}), hubness {s.hubness:.1f}"
        )
        is_line = s.dimensions < LINE and s.true_dimensions > 2
        if share < LEAST_DIMENSIONS or is_line or s.variance < LEAST_VARIANCE or s.alike > MOST_ALIKE:
            collapsed.append(target.space)
    if collapsed:
        said.append(f"predictions have collapsed in {few(collapsed)}")
    return "flag" if collapsed else "pass", worst, f"{'; '.join(said)}."
