"""Moments matched: give predicted latents the mean and spread of true ones, dimension by dimension.

Ridge shrinks its predictions towards their mean; a generator or decoder trained on true latents then sees inputs it
does not know. LEA's code (not its paper) rescales them:

    z -> (z - mean of predictions) / spread of predictions * spread of truths + mean of truths

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
    predicted_mean_, predicted_std_ : array of shape (d,), float64
        of left-out predictions
    true_mean_, true_std_ : array of shape (d,), float64
        of the training targets; standard deviations with ddof 1

    References
    ----------
    Qian et al. 2024 (LEA): their public code; absent from the paper.
    """

    version: ClassVar[int] = 1

    def __init__(self, mode: Mode = "train_oof") -> None:
        self.mode: Mode = mode

    def fit(self, predicted: np.ndarray, true: np.ndarray) -> Self:
        """Moments of left-out predictions and of what they should have been, both (n, d) with n of at least 2."""
        return self.fit_blocks([(predicted, true)])

    def fit_blocks(self, blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> Self:
        """The same of (predicted, true) some columns at a time, in order, for more of them than memory holds."""
        parts: list[tuple[np.ndarray, ...]] = []
        for predicted, true in blocks:
            if len(predicted) < 2 or predicted.shape != true.shape:
                raise DataError(
                    f"moments need at least 2 predictions and as many truths, but came as {predicted.shape} and "
                    f"{true.shape}."
                )

            parts.append((*_moments(predicted), *_moments(true)))

        for name, found in zip(_NAMES, zip(*parts, strict=True), strict=True):
            setattr(self, f"{name}_", np.concatenate(found))

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
            A single row in mode ``test``, whose spread is undefined.
        """
        if self.mode == "none":
            return np.asarray(predicted, dtype=np.float32)

        if self.mode == "test":
            mean, std = _company(predicted)
        else:
            mean = self.predicted_mean_[columns]
            std = self.predicted_std_[columns]

        # A dimension that is predicted as a constant says nothing; it stays at the mean of the truths.
        z = np.divide(predicted - mean, std, out=np.zeros(predicted.shape), where=std > 1e-12)
        return (z * self.true_std_[columns] + self.true_mean_[columns]).astype(np.float32)

    def among(self, blocks: Iterable[np.ndarray]) -> Moments:
        """Mode ``test`` with the moments of these predictions, given some columns at a time, for any part of their rows."""
        parts = [_company(predicted) for predicted in blocks]
        fixed = Moments("train_oof")
        fixed.predicted_mean_, fixed.predicted_std_ = (np.concatenate(found) for found in zip(*parts, strict=True))
        fixed.true_mean_ = self.true_mean_
        fixed.true_std_ = self.true_std_

        return fixed

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain values, for saving."""
        return {n: getattr(self, f"{n}_") for n in _NAMES}, {"mode": self.mode}

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """The same moments again."""
        moments = cls(meta["mode"])
        for name, array in zip(_NAMES, take(tensors, _NAMES, "Moments"), strict=True):
            setattr(moments, f"{name}_", array)

        return moments


def _moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = np.asarray(rows, dtype=np.float64)
    return rows.mean(axis=0), rows.std(axis=0, ddof=1)


def _company(predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moments of the rows that come together."""
    if len(predicted) < 2:
        raise DataError(
            "moments=test takes the spread of the rows that come together, which a single row does not have. "
            "Decode several rows, or use moments=train_oof, which needs no company."
        )

    return _moments(predicted)
