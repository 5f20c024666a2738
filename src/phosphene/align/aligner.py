"""Two spaces tied together by a ridge each way, with the size of predictions restored. LEA, section 3.4.

x -> ridge -> moments -> y        and        y -> ridge -> moments -> x
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field

from phosphene.align.decoders import ALPHAS
from phosphene.align.moments import Mode, Moments
from phosphene.align.ridge import Ridge
from phosphene.errors import DataError
from phosphene.io.config import Config


class AlignConfig(Config):
    """Ridge both ways. The defaults are those of LEA's code, but for the moments (its code: ``test``)."""

    alpha_fi: float | None = Field(
        default=500.0, gt=0, description="penalty from brain to image; none: chosen by leave-one-out on training pairs"
    )
    alpha_if: float | None = Field(
        default=500.0, gt=0, description="penalty from image to brain; none: chosen likewise"
    )
    intercept_fi: bool = Field(default=False, description="centre before the ridge from brain to image")
    intercept_if: bool = Field(default=True, description="centre before the ridge from image to brain")
    moments: Mode = Field(
        default="train_oof",
        description="size and mean of predictions, from left-out training rows or, as LEA's code, from the test batch",
    )
    moments_if: Mode | None = Field(
        default=None, description="the same from image to brain; as `moments` where not given"
    )
    n_folds: int = Field(default=5, ge=2, description="folds of training rows that the moments come from")


class Aligner:
    """Ridge from brain latents to image latents and back.

    Parameters
    ----------
    config : AlignConfig, optional
        penalties, intercepts and moments; LEA's by default

    Attributes
    ----------
    to_image_, to_brain_ : Ridge
        the maps
    image_moments_, brain_moments_ : Moments
        of what the maps predict
    """

    version: ClassVar[int] = 1

    to_image_: Ridge
    image_moments_: Moments
    to_brain_: Ridge
    brain_moments_: Moments

    def __init__(self, config: AlignConfig | None = None) -> None:
        self.config = config or AlignConfig()

    def fit(self, brain: np.ndarray, image: np.ndarray, rng: np.random.Generator) -> Self:
        """Fit both maps on pairs of latents.

        Parameters
        ----------
        brain : ndarray of shape (n, d_brain)
            a row per training stimulus
        image : ndarray of shape (n, d_image)
            of the same stimuli
        rng : numpy.random.Generator
            deals rows to folds

        Raises
        ------
        DataError
            For another number of rows on either side, or fewer than two for each fold.
        """
        config = self.config
        n = len(brain)
        if len(image) != n or n < 2 * config.n_folds:
            raise DataError(
                f"aligning {n} brain latents with {len(image)} image latents in {config.n_folds} folds needs equally many "
                f"of each and at least {2 * config.n_folds}. Give more training stimuli or fewer folds."
            )

        fold = rng.permutation(n) % config.n_folds
        self.to_image_, self.image_moments_ = _fit_one_way(
            brain, image, fold, config.alpha_fi, config.intercept_fi, config.moments
        )
        self.to_brain_, self.brain_moments_ = _fit_one_way(
            image, brain, fold, config.alpha_if, config.intercept_if, config.moments_if or config.moments
        )

        return self

    def brain_to_image(self, latents: np.ndarray) -> np.ndarray:
        """(n, d_brain) to (n, d_image) float32."""
        return self.image_moments_(self.to_image_.predict(latents))

    def image_to_brain(self, latents: np.ndarray) -> np.ndarray:
        """(n, d_image) to (n, d_brain) float32."""
        return self.brain_moments_(self.to_brain_.predict(latents))

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain values, for saving."""
        tensors: dict[str, np.ndarray] = {}
        meta: dict[str, Any] = {"config": self.config.model_dump(mode="json")}

        for name in _PARTS:
            arrays, meta[name] = getattr(self, f"{name}_").state()
            for key, array in arrays.items():
                tensors[f"{name}.{key}"] = array

        return tensors, meta

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """Restore an aligner from what `state` gave."""
        aligner = cls(AlignConfig(**meta["config"]))
        for name, kind in _PARTS.items():
            prefix = f"{name}."
            arrays = {key.removeprefix(prefix): array for key, array in tensors.items() if key.startswith(prefix)}
            setattr(aligner, f"{name}_", kind.from_state(arrays, meta[name]))

        return aligner


_PARTS: dict[str, Any] = {
    "to_image": Ridge,
    "image_moments": Moments,
    "to_brain": Ridge,
    "brain_moments": Moments,
}


def _fit_one_way(
    x: np.ndarray, y: np.ndarray, fold: np.ndarray, alpha: float | None, fit_intercept: bool, mode: Mode
) -> tuple[Ridge, Moments]:
    """A ridge on all rows, and the moments of what ridges of its penalty predict for rows they were not fitted on."""
    ridge = _ridge(alpha, fit_intercept, x).fit(x, y)
    left_out = np.empty(y.shape, dtype=np.float64)

    for number in np.unique(fold):
        inside = fold != number
        outside = fold == number
        inner = Ridge(float(ridge.alpha_), fit_intercept=fit_intercept).fit(x[inside], y[inside])
        left_out[outside] = inner.predict(x[outside])

    return ridge, Moments(mode).fit(left_out, y)


def _ridge(alpha: float | None, fit_intercept: bool, x: np.ndarray) -> Ridge:
    """A ridge of this penalty, or of one to be chosen."""
    if alpha is not None:
        return Ridge(alpha, fit_intercept=fit_intercept)

    # The grid is for inputs of unit variance.
    scale = float(np.mean(np.var(x, axis=0, dtype=np.float64))) or 1.0
    return Ridge([a * scale for a in ALPHAS], choose="loo", fit_intercept=fit_intercept)
