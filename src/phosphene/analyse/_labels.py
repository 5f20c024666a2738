"""Labels of stimuli, and linear readers of them off voxels or latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from phosphene.align.decoders import fit_encoding
from phosphene.data.splits import inner_folds
from phosphene.data.standardise import Standardiser
from phosphene.errors import ConfigError, DataError
from phosphene.evaluate.statistics import Statistic
from phosphene.evaluate.ties import grain_of, midranks, outcomes
from phosphene.flow.opened import Opened
from phosphene.recipes.base import Recipe
from phosphene.types import Stimuli, Trials

THINGS, STUFF = "things", "stuff"
_STRENGTHS = tuple(float(c) for c in np.logspace(-2, 1, 7))  # inverse penalties of logistic regression, over features


class LabelReader:
    """Reads labels off rows of features, linearly.

    Parameters
    ----------
    kind : ``ridge`` or ``logistic``

    Attributes
    ----------
    weights_ : (n_features, n_labels), of features in units of their training spread
    """

    def __init__(self, kind: Literal["ridge", "logistic"] = "ridge") -> None:
        self.kind = kind

    def fit(self, x: np.ndarray, labels: np.ndarray, folds: np.ndarray | None = None) -> LabelReader:
        """Fit one reader per label.

        Parameters
        ----------
        x : (n, n_features), one row per stimulus
        labels : (n, n_labels) bool
        folds : (n,) inner folds in which logistic regression chooses its penalty
        """
        self._mean, spread = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
        self._spread = np.where(spread > 1e-12, spread, np.inf)  # what never changes says nothing
        z = self._scaled(x)
        if self.kind == "ridge":
            ridge = fit_encoding(z, labels.astype(np.float32))  # a penalty per label, as for voxels
            self.weights_, self._offset = np.asarray(ridge.coef_, np.float64), np.asarray(ridge.intercept_, np.float64)
        else:
            pairs = [_logistic(z, labels[:, j], folds) for j in range(labels.shape[1])]
            self.weights_ = np.stack([w for w, _ in pairs], axis=1)
            self._offset = np.array([b for _, b in pairs])
        return self

    def read(self, x: np.ndarray) -> np.ndarray:
        """(n, n_labels) scores, larger where the label is the likelier."""
        return self._scaled(x) @ self.weights_ + self._offset

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        return (x - self._mean) / self._spread


def _logistic(z: np.ndarray, label: np.ndarray, folds: np.ndarray | None) -> tuple[np.ndarray, float]:
    from sklearn.linear_model import LogisticRegression

    if len(set(label)) < 2:
        return np.zeros(z.shape[1]), 0.0
    strengths, loss = [c / z.shape[1] for c in _STRENGTHS], np.zeros(len(_STRENGTHS))
    for f in np.unique(folds):
        inside, outside = folds != f, folds == f
        if len(set(label[inside])) < 2:
            continue
        for i, c in enumerate(strengths):
            score = LogisticRegression(C=c, max_iter=500).fit(z[inside], label[inside]).decision_function(z[outside])
            loss[i] += np.logaddexp(0, np.where(label[outside], -score, score)).sum()
    fitted = LogisticRegression(C=strengths[int(loss.argmin())], max_iter=500).fit(z, label)
    return fitted.coef_[0], float(fitted.intercept_[0])


# -- what is read, and off what ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Material:
    """One fold, ready for reading labels.

    Attributes
    ----------
    recipe : fitted
    train, test : repeats averaged, one row per stimulus
    names, groups : (n_labels,) labels that can be scored, and ``things`` or ``stuff``
    train_labels, test_labels : (n, n_labels) bool
    n_dropped : labels with too few test stimuli with or without them
    standardise : of voxels, as the recipe does where it says so
    folds : (n_train,) inner folds
    """

    recipe: Recipe
    train: Trials
    test: Trials
    names: np.ndarray
    groups: np.ndarray
    train_labels: np.ndarray
    test_labels: np.ndarray
    n_dropped: int
    standardise: Standardiser
    folds: np.ndarray

    def voxels(self, trials: Trials) -> np.ndarray:
        """(n, n_voxels) standardised by training trials."""
        return self.standardise.transform(trials).betas

    @property
    def spaces(self) -> list[str]:
        """Spaces of latents, a vector each, that the recipe decodes to."""
        few = self.recipe.latents(self.test.take(np.arange(min(2, len(self.test)))))
        return [name for name, array in few.arrays.items() if np.ndim(array) == 2]


def prepare(opened: Opened, fold: int, rng: np.random.Generator, min_positives: int = 3) -> Material:
    """Trials and labels of a fold.

    Raises
    ------
    ConfigError
        When there is no such fold.
    DataError
        When stimuli have neither labels nor categories, or no label can be scored.
    """
    if fold >= len(opened.folds):
        raise ConfigError(f"there is no fold {fold}: this run has {len(opened.folds)}, counted from 0.")
    sides = opened.sides(fold)
    standardise = Standardiser(per_session=getattr(opened.config.recipe, "per_session", False)).fit(sides[0])
    train, test = (t.average_repeats() for t in sides)
    shown = [opened.stimuli.select(t.stimuli) for t in (train, test)]
    table = [labels_of(s) for s in shown]
    if table[0] is None or table[1] is None:
        raise DataError(
            f"the stimuli of {opened.dataset.name} have neither labels nor categories, so there is nothing to read. NSD's "
            "come with COCO's annotations (docs/data.md says where they belong)."
        )
    names = [n for n in table[0].columns if n in table[1].columns]
    counts, n = table[1][names].sum().to_numpy(), len(test)
    trained = table[0][names].sum().to_numpy()
    kept = (np.minimum(counts, n - counts) >= min_positives) & (np.minimum(trained, len(train) - trained) >= 2)
    if not kept.any():
        raise DataError(
            f"none of {len(names)} labels has {min_positives} test stimuli with it and as many without among {n}; give "
            "more test stimuli, or ask for fewer with min_positives."
        )
    chosen = np.asarray(names, dtype=object)[kept]
    main = set() if opened.stimuli.category is None else set(opened.stimuli.category)
    groups = np.array([THINGS if name in main else STUFF for name in chosen])
    return Material(
        opened.recipe(fold), train, test, chosen, groups, *(t[list(chosen)].to_numpy(bool) for t in table),
        int((~kept).sum()), standardise, inner_folds(train, 3, rng),
    )  # fmt: skip


def labels_of(stimuli: Stimuli) -> pd.DataFrame | None:
    """(n, n_labels) bool: the labels of stimuli, or else their categories; None without either."""
    if stimuli.labels is not None:
        return stimuli.labels
    return None if stimuli.category is None else pd.get_dummies(pd.Series(stimuli.category), dtype=bool)


def area(score: np.ndarray, label: np.ndarray) -> float:
    """Area under the ROC curve, ties within rounding one half; NaN unless both classes are there.

    Examples
    --------
    >>> area(np.array([1.0, 2, 2, 3]), np.array([False, False, True, True]))
    0.875
    """
    n = int(label.sum())
    if not 0 < n < len(label):
        return float("nan")
    return float((midranks(score)[label].sum() - n * (n + 1) / 2) / (n * (len(label) - n)))


def mean_area(scores: np.ndarray, labels: np.ndarray) -> Statistic:
    """Mean over labels of the area, as a function of how often each stimulus is drawn (see ``evaluate.statistics``).

    Parameters
    ----------
    scores : (n, n_labels), or (n_readings, n, n_labels), whose areas are averaged
    labels : (n, n_labels) bool; a label that a draw has all or none of is left out of it
    """
    scores = np.asarray(scores)
    readings = scores[None] if scores.ndim == 2 else scores
    grain = grain_of(readings, axis=1)[:, :, :, None]  # (n_readings, 1, n_labels, 1)
    wins = []
    for j, label in enumerate(labels.T):
        a, b = readings[:, label, j][:, :, None], readings[:, ~label, j][:, None]
        wins.append((label, outcomes(a, b, grain[:, :, j]).mean(axis=0)))

    def statistic(counts: np.ndarray) -> np.ndarray:
        total, there = np.zeros(len(counts)), np.zeros(len(counts))
        for label, won in wins:
            with_it, without = counts[:, label], counts[:, ~label]
            pairs = with_it.sum(axis=1) * without.sum(axis=1)
            value = np.divide(((with_it @ won) * without).sum(axis=1), pairs, out=np.zeros(len(pairs)), where=pairs > 0)
            total, there = total + value, there + (pairs > 0)
        return np.divide(total, there, out=np.full(len(total), np.nan), where=there > 0)

    return statistic
