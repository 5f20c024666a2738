"""Neighbours: the training pictures whose responses were most alike, averaged. A plug-in in one file.

Paper: none; identification by correlation follows Haxby et al. 2001.

    decode   betas -> correlation with the response to every training picture -> mean of the k nearest pictures
"""

from typing import Any, Literal, Self

import numpy as np
from pydantic import Field

from phosphene.errors import DataError
from phosphene.io.stages import take
from phosphene.recipes.base import Recipe, RecipeConfig, Stage
from phosphene.types import Images, Stimuli, Trials


class NeighboursConfig(RecipeConfig):
    """Configuration of `Neighbours`."""

    kind: Literal["neighbours"] = "neighbours"
    k: int = Field(5, ge=1, description="pictures that are averaged")


class Gallery:
    """What was seen in training: responses (n, n_voxels) and pictures (n, height, width, channels), float32."""

    def __init__(self, betas: np.ndarray, pictures: np.ndarray) -> None:
        self.betas, self.pictures = betas, pictures

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain values, for saving."""
        return {"betas": self.betas, "pictures": self.pictures}, {}

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """The same gallery again."""
        return cls(*take(tensors, ("betas", "pictures"), "gallery"))


class Neighbours(Recipe[NeighboursConfig]):
    """The training pictures whose responses correlate best with a response, averaged."""

    stages = (Stage("gallery", Gallery, settings=()),)

    def fit_gallery(self, trials: Trials, stimuli: Stimuli) -> Gallery:
        """Mean response to every training picture, and the pictures."""
        averaged = trials.average_repeats()
        return Gallery(averaged.betas, stimuli.select(averaged.stimuli).floats())

    def decode(self, trials: Trials) -> Images:
        """Brain to image: one picture per row of `trials`, 0-1."""
        self.check_trials(trials)
        if not np.isfinite(trials.betas).all():
            raise DataError("betas must be finite, but some are NaN or infinite; drop or repair such voxels.")
        usual = self.gallery_.betas.mean(axis=0)
        alike = _unit(trials.betas - usual) @ _unit(self.gallery_.betas - usual).T
        nearest = np.argsort(-alike, axis=1, kind="stable")[:, : self.config.k]
        return Images(trials.stimuli, self.gallery_.pictures[nearest].mean(axis=1))


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
