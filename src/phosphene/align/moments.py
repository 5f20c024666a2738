"""Moments matched: give predicted latents the mean and standard deviation of true ones, dimension by dimension.

Ridge shrinks its predictions towards their mean; a generator or decoder trained on true latents then sees inputs it
does not know. LEA's code (not its paper) rescales them:

    z -> (z - mean of predictions) / std of predictions * std of truths + mean of truths

with the first two taken from the test set itself, so that each picture depends on the others of the test set. Here the
default takes them from predictions of training rows that were left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal, Self

import numpy as np

from phosphene.errors import DataError
from phosphene.io.stages import take

Mode = Literal["train_oof", "test", "none"]
_CONSTANT = 1e-12  # standard deviation of a prediction that says nothing
_NAMES = ("predicted_mean", "predicted_std", "true_mean", "true_std")


class Moments:
    """Moment matching of predicted latents.

    Parameters
    ----------
    mode : {"train_oof", "test", "none"}, default "train_oof"
        where the moments of predictions come from. ``train_oof``: predictions of training rows by maps that were not
        fitted on them. ``test``: the rows being predicted, as LEA's code does; transductive. ``none``: nothing is done

    Attributes
    ----------
    predicted_mean_, predicted_std_ : ndarray of shape (d,), float64
        of left-out predictions
    true_mean_, true_std_ : ndarray of shape (d,), float64
        of the training targets; standard deviations with ddof 1

    References
    ----------
    Qian et al. 2024 (LEA): their public code; absent from the paper.
    """

    version: ClassVar[int] = 1

    predicted_mean_: np.ndarray
    predicted_std_: np.ndarray
    true_mean_: np.ndarray
    true_std_: np.ndarray

    def __init__(self, mode: Mode = "train_oof") -> None:
        self.mode: Mode = mode

    def fit(self, predicted: np.ndarray, true: np.ndarray) -> Self:
        """Take the moments of left-out predictions and of what they should have been.

        Parameters
        ----------
        predicted, true : ndarray of shape (n, d)
            n of at least 2
        """
        return self.fit_blocks([(predicted, true)])

    def fit_blocks(self, blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> Self:
        """The same of (predicted, true) some columns at a time, in order, for more of them than memory holds."""
        moments: dict[str, list[np.ndarray]] = {name: [] for name in _NAMES}
        for predicted, true in blocks:
            if len(predicted) < 2 or predicted.shape != true.shape:
                raise DataError(
                    f"moments need at least 2 predictions and as many truths, but came as {predicted.shape} and "
                    f"{true.shape}."
                )

            for name, values in zip(_NAMES, (*_mean_std(predicted), *_mean_std(true)), strict=True):
                moments[name].append(values)

        for name, parts in moments.items():
            setattr(self, f"{name}_", np.concatenate(parts))

        return self

    def __call__(self, predicted: np.ndarray, columns: slice = slice(None)) -> np.ndarray:
        """Predictions (n, d) with the moments of true latents, float32.

        Parameters
        ----------
        predicted : ndarray
            (n, d), or some columns of it
        columns : slice, optional
            which those are

        Raises
        ------
        DataError
            A single row in mode ``test``, whose standard deviation is undefined.
        """
        if self.mode == "none":
            return np.asarray(predicted, dtype=np.float32)

        if self.mode == "test":
            mean, std = _batch_mean_std(predicted)
        else:
            mean = self.predicted_mean_[columns]
            std = self.predicted_std_[columns]

        # A dimension that is predicted as a constant says nothing; it stays at the mean of the truths.
        z = np.divide(predicted - mean, std, out=np.zeros(predicted.shape), where=std > _CONSTANT)
        matched = z * self.true_std_[columns] + self.true_mean_[columns]

        return matched.astype(np.float32)

    def among(self, blocks: Iterable[np.ndarray]) -> Moments:
        """Mode ``test`` with the moments of these predictions, given some columns at a time, for any part of their rows."""
        means = []
        stds = []
        for predicted in blocks:
            mean, std = _batch_mean_std(predicted)
            means.append(mean)
            stds.append(std)

        fixed = Moments("train_oof")
        fixed.predicted_mean_ = np.concatenate(means)
        fixed.predicted_std_ = np.concatenate(stds)
        fixed.true_mean_ = self.true_mean_
        fixed.true_std_ = self.true_std_

        return fixed

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain values, for saving."""
        tensors = {name: getattr(self, f"{name}_") for name in _NAMES}
        return tensors, {"mode": self.mode}

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """Restore moments from what `state` gave."""
        moments = cls(meta["mode"])
        for name, array in zip(_NAMES, take(tensors, _NAMES, "Moments"), strict=True):
            setattr(moments, f"{name}_", array)

        return moments


def _mean_std(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (ddof 1) of each column, in double precision."""
    rows = np.asarray(rows, dtype=np.float64)
    return rows.mean(axis=0), rows.std(axis=0, ddof=1)


def _batch_mean_std(predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moments of the rows that are predicted together."""
    if len(predicted) < 2:
        raise DataError(
            "moments=test takes the standard deviation of the rows that are predicted together, which a single row does "
            "not have. Decode several rows, or use moments=train_oof, which needs only one."
        )

    return _mean_std(predicted)
