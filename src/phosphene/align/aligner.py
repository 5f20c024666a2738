"""Two spaces tied together by a ridge each way, with the size of predictions restored. LEA, section 3.4.

x -> ridge -> moments -> y        and        y -> ridge -> moments -> x
"""

from __future__ import annotations

from collections.abc import Sequence
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
        500.0, gt=0, description="penalty from brain to image; none: chosen by leave-one-out on training pairs"
    )
    alpha_if: float | None = Field(500.0, gt=0, description="penalty from image to brain; none: chosen likewise")
    intercept_fi: bool = Field(False, description="centre before the ridge from brain to image")
    intercept_if: bool = Field(True, description="centre before the ridge from image to brain")
    moments: Mode = Field(
        "train_oof",
        description="size and mean of predictions, from left-out training rows or, as LEA's code, from the test batch",
    )
    moments_if: Mode | None = Field(None, description="the same from image to brain; as `moments` where not given")
    n_folds: int = Field(5, ge=2, description="folds of training rows that the moments come from")


class Aligner:
    """Ridge from brain latents to image latents and back.

    Parameters
    ----------
    config : AlignConfig, optional
        see `AlignConfig`

    Attributes
    ----------
    to_image_, to_brain_ : Ridge
    image_moments_, brain_moments_ : Moments
    """

    version: ClassVar[int] = 1

    def __init__(self, config: AlignConfig | None = None) -> None:
        self.config = config or AlignConfig()

    def fit(self, brain: np.ndarray, image: np.ndarray, rng: np.random.Generator) -> Self:
        """Both maps from pairs of latents.

        Parameters
        ----------
        brain : ndarray of shape (n, d_brain)
            a row per training stimulus
        image : ndarray of shape (n, d_image)
            of the same stimuli
        rng : numpy.random.Generator
            deals rows to folds
        """
        c = self.config
        n = len(brain)
        if len(image) != n or n < 2 * c.n_folds:
            raise DataError(
                f"aligning {n} brain latents with {len(image)} image latents in {c.n_folds} folds needs equally many of "
                f"each and at least {2 * c.n_folds}. Give more training stimuli or fewer folds."
            )

        fold = rng.permutation(n) % c.n_folds
        self.to_image_, self.image_moments_ = self._one_way(brain, image, fold, c.alpha_fi, c.intercept_fi, c.moments)
        back = c.moments_if or c.moments
        self.to_brain_, self.brain_moments_ = self._one_way(image, brain, fold, c.alpha_if, c.intercept_if, back)

        return self

    def _one_way(
        self, x: np.ndarray, y: np.ndarray, fold: np.ndarray, alpha: float | None, intercept: bool, moments: Mode
    ) -> tuple[Ridge, Moments]:
        ridge = _ridge(alpha, intercept, x).fit(x, y)
        left_out = np.empty(y.shape, dtype=np.float64)

        for f in np.unique(fold):
            inner = Ridge(float(ridge.alpha_), fit_intercept=intercept).fit(x[fold != f], y[fold != f])
            left_out[fold == f] = inner.predict(x[fold == f])

        return ridge, Moments(moments).fit(left_out, y)

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
            arrays, values = getattr(self, f"{name}_").state()
            tensors |= {f"{name}.{k}": v for k, v in arrays.items()}
            meta[name] = values

        return tensors, meta

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """The same aligner again."""
        aligner = cls(AlignConfig(**meta["config"]))
        for name, kind in _PARTS.items():
            own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            setattr(aligner, f"{name}_", kind.from_state(own, meta[name]))

        return aligner


_PARTS: dict[str, Any] = {
    "to_image": Ridge,
    "image_moments": Moments,
    "to_brain": Ridge,
    "brain_moments": Moments,
}


def _ridge(alpha: float | None, intercept: bool, x: np.ndarray, grid: Sequence[float] = ALPHAS) -> Ridge:
    if alpha is not None:
        return Ridge(alpha, fit_intercept=intercept)

    # The grid is for inputs of unit variance.
    scale = float(np.mean(np.var(x, axis=0, dtype=np.float64))) or 1.0
    return Ridge([a * scale for a in grid], choose="loo", fit_intercept=intercept)
