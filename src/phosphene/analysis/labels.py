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
from phosphene.metrics.statistics import Statistic
from phosphene.metrics.ties import grain_of, midranks, outcomes
from phosphene.recipes.base import Recipe
from phosphene.run import Run
from phosphene.types import Stimuli, Trials

THINGS = "things"
STUFF = "stuff"
_STRENGTHS = tuple(float(c) for c in np.logspace(-2, 1, 7))  # inverse penalties of logistic regression, over features


class LabelReader:
    """Reads labels off rows of features, linearly.

    Parameters
    ----------
    kind : {"ridge", "logistic"}, default "ridge"
        least squares with a penalty per label, or logistic regression

    Attributes
    ----------
    weights_ : ndarray of shape (n_features, n_labels)
        of features in units of their training standard deviation
    """

    def __init__(self, kind: Literal["ridge", "logistic"] = "ridge") -> None:
        self.kind = kind

    def fit(self, x: np.ndarray, labels: np.ndarray, folds: np.ndarray | None = None) -> LabelReader:
        """Fit one reader per label.

        Parameters
        ----------
        x : ndarray of shape (n, n_features)
            one row per stimulus
        labels : ndarray of shape (n, n_labels), bool
            which stimulus has which label
        folds : ndarray of shape (n,), optional
            inner folds in which logistic regression chooses its penalty

        Returns
        -------
        LabelReader
            itself
        """
        std = x.std(axis=0, dtype=np.float64)
        self._mean = x.mean(axis=0, dtype=np.float64)
        self._std = np.where(std > 1e-12, std, np.inf)  # what never changes says nothing
        z = self._scaled(x)  # (n, n_features)

        if self.kind == "ridge":
            ridge = fit_encoding(z, labels.astype(np.float32))  # a penalty per label, as for voxels
            self.weights_ = np.asarray(ridge.coef_, np.float64)
            self._offset = np.asarray(ridge.intercept_, np.float64)
        else:
            if folds is None:
                raise ConfigError("logistic readers choose their penalty in inner folds; give fit() these folds.")

            weights = []
            offsets = []
            for label in labels.T:
                of_label, offset = _logistic(z, label, folds)
                weights.append(of_label)
                offsets.append(offset)

            self.weights_ = np.stack(weights, axis=1)  # (n_features, n_labels)
            self._offset = np.array(offsets)  # (n_labels,)

        return self

    def read(self, x: np.ndarray) -> np.ndarray:
        """Score every label.

        Parameters
        ----------
        x : ndarray of shape (n, n_features)
            one row per stimulus

        Returns
        -------
        ndarray of shape (n, n_labels)
            larger where the label is the likelier
        """
        return self._scaled(x) @ self.weights_ + self._offset  # (n, n_labels)

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        return (x - self._mean) / self._std


def _logistic(z: np.ndarray, label: np.ndarray, folds: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights and offset at the penalty with the least log loss over inner folds."""
    from sklearn.linear_model import LogisticRegression

    # A label that all or none has, as a shuffled one may, cannot be read: every stimulus gets the same score.
    if len(set(label)) < 2:
        return np.zeros(z.shape[1]), 0.0

    strengths = [strength / z.shape[1] for strength in _STRENGTHS]
    loss = np.zeros(len(_STRENGTHS))

    for fold in np.unique(folds):
        is_train = folds != fold
        is_held_out = folds == fold
        if len(set(label[is_train])) < 2:
            continue

        for i, strength in enumerate(strengths):
            model = LogisticRegression(C=strength, max_iter=500).fit(z[is_train], label[is_train])
            score = model.decision_function(z[is_held_out])
            # log(1 + exp(-margin)), which does not overflow where a separable label drives scores far out.
            loss[i] += np.logaddexp(0, np.where(label[is_held_out], -score, score)).sum()

    fitted = LogisticRegression(C=strengths[int(loss.argmin())], max_iter=500).fit(z, label)
    return fitted.coef_[0], float(fitted.intercept_[0])


# -- what is read, and off what ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Material:
    """One fold, ready for reading labels.

    Attributes
    ----------
    recipe : Recipe
        fitted
    train, test : Trials
        repeats averaged, one row per stimulus
    names, groups : ndarray of shape (n_labels,)
        labels that can be scored, and ``things`` or ``stuff``
    train_labels, test_labels : ndarray of shape (n, n_labels), bool
        which stimulus has which label
    n_dropped : int
        labels with too few test stimuli with or without them
    standardise : Standardiser
        of voxels, as the recipe does where it says so
    folds : ndarray of shape (n_train,)
        inner folds
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


def prepare(opened: Run, fold: int, rng: np.random.Generator, min_positives: int = 3) -> Material:
    """Trials and labels of a fold.

    Parameters
    ----------
    opened : Run
        a fitted run
    fold : int
        counted from 0
    rng : numpy.random.Generator
        of the inner folds
    min_positives : int, default 3
        test stimuli with, and without, a label that is scored

    Returns
    -------
    Material

    Raises
    ------
    ConfigError
        When there is no such fold.
    DataError
        When stimuli have neither labels nor categories, or no label can be scored.
    """
    if fold >= len(opened.folds):
        raise ConfigError(f"there is no fold {fold}: this run has {len(opened.folds)}, counted from 0.")

    train, test = opened.sides(fold)
    standardise = Standardiser(per_session=getattr(opened.config.recipe, "per_session", False)).fit(train)
    train = train.average_repeats()
    test = test.average_repeats()
    train_labels = labels_of(opened.stimuli.select(train.stimuli))
    test_labels = labels_of(opened.stimuli.select(test.stimuli))

    if train_labels is None or test_labels is None:
        raise DataError(
            f"the stimuli of {opened.dataset.name} have neither labels nor categories, so there is nothing to read. NSD's "
            "come with COCO's annotations (docs/data.md says where they belong)."
        )

    names = [name for name in train_labels.columns if name in test_labels.columns]
    n_tested = test_labels[names].sum().to_numpy()  # (n_names,)
    n_trained = train_labels[names].sum().to_numpy()
    # Where a fit leaves a stimulus out to choose its penalty, another one with the label, and one without, must remain.
    can_test = np.minimum(n_tested, len(test) - n_tested) >= min_positives
    can_train = np.minimum(n_trained, len(train) - n_trained) >= 2
    is_scored = can_test & can_train

    if not is_scored.any():
        raise DataError(
            f"none of {len(names)} labels has {min_positives} test stimuli with it and as many without among {len(test)}; "
            "give more test stimuli, or ask for fewer with min_positives."
        )

    scored = np.asarray(names, dtype=object)[is_scored]
    # The categories of a data set are its things; what its labels name besides (sky, grass) is stuff.
    main = set()
    if opened.stimuli.category is not None:
        main = set(opened.stimuli.category)

    groups = np.array([THINGS if name in main else STUFF for name in scored])
    return Material(
        recipe=opened.recipe(fold),
        train=train,
        test=test,
        names=scored,
        groups=groups,
        train_labels=train_labels[list(scored)].to_numpy(bool),
        test_labels=test_labels[list(scored)].to_numpy(bool),
        n_dropped=int((~is_scored).sum()),
        standardise=standardise,
        folds=inner_folds(train, 3, rng),
    )


def labels_of(stimuli: Stimuli) -> pd.DataFrame | None:
    """(n, n_labels) bool: the labels of stimuli, or else their categories; None without either."""
    if stimuli.labels is not None:
        return stimuli.labels

    if stimuli.category is None:
        return None

    return pd.get_dummies(pd.Series(stimuli.category), dtype=bool)


def area(score: np.ndarray, label: np.ndarray) -> float:
    """Area under the ROC curve, ties within rounding one half; NaN unless both classes are there.

    Parameters
    ----------
    score : ndarray of shape (n,)
        larger where the label is the likelier
    label : ndarray of shape (n,), bool
        which stimulus has it

    Returns
    -------
    float
        0 to 1

    Examples
    --------
    >>> area(np.array([1.0, 2, 2, 3]), np.array([False, False, True, True]))
    0.875
    """
    n = int(label.sum())
    if not 0 < n < len(label):
        return float("nan")

    # Mann and Whitney: the ranks of those with the label, less the least that n ranks can sum to.
    return float((midranks(score)[label].sum() - n * (n + 1) / 2) / (n * (len(label) - n)))


def mean_area(scores: np.ndarray, labels: np.ndarray) -> Statistic:
    """Mean over labels of the area, as a function of how often each stimulus is drawn (see ``metrics.statistics``).

    Parameters
    ----------
    scores : ndarray
        (n, n_labels), or (n_readings, n, n_labels), whose areas are averaged
    labels : ndarray of shape (n, n_labels), bool
        a label that a draw has all or none of is left out of it

    Returns
    -------
    Statistic
        (n_draws, n) counts to (n_draws,) means
    """
    readings = np.asarray(scores)
    if readings.ndim == 2:
        readings = readings[None]  # (n_readings, n, n_labels)

    grain = grain_of(readings, axis=1)[:, :, :, None]  # (n_readings, 1, n_labels, 1)
    wins = []

    for j, label in enumerate(labels.T):
        with_it = readings[:, label, j][:, :, None]  # (n_readings, n_with, 1)
        without = readings[:, ~label, j][:, None]  # (n_readings, 1, n_without)
        wins.append((label, outcomes(with_it, without, grain[:, :, j]).mean(axis=0)))

    def statistic(counts: np.ndarray) -> np.ndarray:
        total = np.zeros(len(counts))
        n_defined = np.zeros(len(counts))

        for label, won in wins:
            with_it = counts[:, label]  # (n_draws, n_with)
            without = counts[:, ~label]  # (n_draws, n_without)
            pairs = with_it.sum(axis=1) * without.sum(axis=1)
            wins_of_pairs = ((with_it @ won) * without).sum(axis=1)  # (n_draws,)
            total = total + np.divide(wins_of_pairs, pairs, out=np.zeros(len(pairs)), where=pairs > 0)
            n_defined = n_defined + (pairs > 0)

        return np.divide(total, n_defined, out=np.full(len(total), np.nan), where=n_defined > 0)

    return statistic
