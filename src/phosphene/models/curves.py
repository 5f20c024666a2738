"""Output curves: one monotone function of grey value, applied to every pixel of a decoded picture.

A linear decoder that is unsure pulls every pixel towards the mean; a curve fitted on held-out training pictures undoes
what of that is the same everywhere. There are two families: the best increasing curve (`OutputCurve.monotone`), and the
S-curve of one parameter that a score likes best (`OutputCurve.contrast`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np

from phosphene.io.stages import take

N_KNOTS = 513  # of a curve: two for each of 256 grey values, and the last
N_BINS = 8192  # of decoded values that are pooled before the regression, sixteen for each piece of the curve
CONTRASTS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0)
"""Values of c that are tried for an S-curve, from none to nearly black and white."""


class OutputCurve:
    """A piecewise linear curve from decoded to drawn grey values.

    Parameters
    ----------
    inputs, outputs : ndarray of shape (n_knots,)
        increasing grey values, nominally 0-1
    chosen : dict[str, Any]
        what was chosen, for people

    Attributes
    ----------
    inputs_, outputs_ : ndarray of shape (n_knots,)
        float32, increasing; outside them the curve is flat
    chosen_ : dict[str, Any]
        what was chosen, for people
    """

    version: ClassVar[int] = 1

    def __init__(self, inputs: np.ndarray, outputs: np.ndarray, chosen: dict[str, Any]) -> None:
        self.inputs_ = np.asarray(inputs, dtype=np.float32)
        self.outputs_ = np.asarray(outputs, dtype=np.float32)
        self.chosen_ = chosen

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels of any shape through the curve, float32, 0-1."""
        flat = np.interp(pixels.ravel(), self.inputs_, self.outputs_)
        return flat.reshape(pixels.shape).astype(np.float32)

    @classmethod
    def none(cls) -> Self:
        """Clip to 0-1 and nothing else."""
        return cls(np.array([0.0, 1.0]), np.array([0.0, 1.0]), {"kind": "none"})

    @classmethod
    def monotone(cls, decoded: np.ndarray, true: np.ndarray) -> Self:
        """The increasing curve with the least squared error (isotonic regression).

        Parameters
        ----------
        decoded, true : ndarray
            held-out decoded and true pictures of one shape, nominally 0-1

        Returns
        -------
        OutputCurve
            from the smallest to the largest decoded value
        """
        from sklearn.isotonic import IsotonicRegression

        x = decoded.ravel()
        y = true.ravel()
        low = float(x.min())
        high = float(x.max())

        # Millions of pixels, but a curve of 513 knots: pooling equal inputs first loses nothing that it could show.
        bins = ((x - low) * ((N_BINS - 1) / max(high - low, 1e-12))).astype(np.int64)  # (n_pixels,)
        count = np.bincount(bins, minlength=N_BINS)
        is_used = count > 0
        weight = count[is_used]
        mean_x = np.bincount(bins, x, minlength=N_BINS)[is_used] / weight
        mean_y = np.bincount(bins, y, minlength=N_BINS)[is_used] / weight

        model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        model.fit(mean_x, mean_y, sample_weight=weight)
        knots = np.linspace(low, high, N_KNOTS)

        return cls(knots, model.predict(knots), {"kind": "monotone"})

    @classmethod
    def contrast(cls, decoded: np.ndarray, score: Callable[[np.ndarray], float]) -> Self:
        """The S-curve of one parameter that scores best, of the values in `CONTRASTS`.

        Parameters
        ----------
        decoded : ndarray
            held-out decoded pictures, nominally 0-1
        score : callable
            of curved pictures against the truth, larger is better

        Returns
        -------
        OutputCurve
            with the score in ``chosen_["held_out_score"]``
        """
        curves = [cls.s_curve(c) for c in CONTRASTS]
        scores = [score(curve(decoded)) for curve in curves]

        best = curves[int(np.argmax(scores))]
        chosen = {**best.chosen_, "held_out_score": float(np.max(scores))}
        return cls(best.inputs_, best.outputs_, chosen)

    @classmethod
    def s_curve(cls, c: float) -> Self:
        """The S-curve that keeps black, white and middle grey.

            y = (s(c (x - 1/2)) - s(-c/2)) / (s(c/2) - s(-c/2)),    s the logistic function

        Parameters
        ----------
        c : float
            steepness, from 0, which is the identity
        """
        x = np.linspace(0.0, 1.0, N_KNOTS)

        if c == 0:
            y = x
        else:
            # tanh(c x / 4) is the same curve as the logistic one above, and exact at small c.
            y = 0.5 + 0.5 * np.tanh(c * (x - 0.5) / 2) / np.tanh(c / 4)

        return cls(x, y, {"kind": "contrast", "c": c})

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain values, for saving."""
        return {"inputs": self.inputs_, "outputs": self.outputs_}, self.chosen_

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """The same curve from what `state` gave.

        Parameters
        ----------
        tensors : dict[str, ndarray]
            inputs and outputs
        meta : dict[str, Any]
            what was chosen
        """
        inputs, outputs = take(tensors, ("inputs", "outputs"), "OutputCurve")
        return cls(inputs, outputs, chosen=meta)
