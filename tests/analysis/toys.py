"""Recipes that ought to be found out: they ignore the brain, look at the batch, or carry the picture past the brain."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np

from phosphene.errors import DataError
from phosphene.recipes.base import Recipe, RecipeConfig, Stage
from phosphene.types import Images, Latents, Stimuli, Trials


class Gallery:
    """The training pictures."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return {"pixels": self.pixels}, {}

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Gallery:
        return cls(tensors["pixels"])


class DeafConfig(RecipeConfig):
    kind: Literal["deaf"] = "deaf"


class Deaf(Recipe[DeafConfig]):
    """Deaf: a training picture for every response, chosen by a hash of its bytes: perfect pictures of nothing.

    Paper: none.
    """

    config_class = DeafConfig
    stages = (Stage("gallery", Gallery),)

    def fit_gallery(self, trials: Trials, stimuli: Stimuli) -> Gallery:
        """Keep the training pictures."""
        return Gallery(stimuli.floats())

    def decode(self, trials: Trials) -> Images:
        hashes = [int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:4], "little") for row in self._read(trials)]
        return Images(trials.stimuli, self.gallery_.pixels[np.array(hashes) % len(self.gallery_.pixels)])

    def _read(self, trials: Trials) -> np.ndarray:
        return np.round(trials.betas, 3)


class DiceConfig(DeafConfig):
    kind: Literal["dice"] = "dice"


class Dice(Deaf):
    """Dice: a training picture at random, drawn anew each time.

    Paper: none.
    """

    config_class = DiceConfig
    _calls = 0

    def decode(self, trials: Trials) -> Images:
        Dice._calls += 1
        rows = np.random.default_rng(Dice._calls).integers(0, len(self.gallery_.pixels), len(trials))
        return Images(trials.stimuli, self.gallery_.pixels[rows])


class HazeConfig(DeafConfig):
    kind: Literal["haze"] = "haze"


class Haze(Deaf):
    """Haze: what the deaf one draws, mixed with the mean picture: a prior alone, and a poor one, which fools no eye.

    Paper: none.
    """

    config_class = HazeConfig

    def decode(self, trials: Trials) -> Images:
        drawn = super().decode(trials)
        return Images(trials.stimuli, (0.3 * drawn.pixels + 0.7 * self.gallery_.pixels.mean(axis=0)).astype(np.float32))


class CrowdConfig(DeafConfig):
    kind: Literal["crowd"] = "crowd"


class Crowd(Deaf):
    """Crowd: standardises by the rows that come together.

    Paper: none.
    """

    config_class = CrowdConfig

    def _read(self, trials: Trials) -> np.ndarray:
        return np.round(trials.betas - trials.betas.mean(axis=0), 3)


class MirrorConfig(RecipeConfig):
    kind: Literal["mirror"] = "mirror"


class Mirror(Deaf):
    """Mirror: writes the pixels into the voxels and reads them back; needs as many voxels as a picture has values.

    Paper: none.
    """

    config_class = MirrorConfig

    def encode(self, stimuli: Stimuli) -> Trials:
        return self.predicted_trials(stimuli, 100 * stimuli.floats().reshape(len(stimuli), -1))

    def decode(self, trials: Trials) -> Images:
        return Images(trials.stimuli, trials.betas.reshape(len(trials), *self.image_shape_) / 100)

    def latents(self, trials: Trials) -> Latents:
        return Latents(trials.stimuli, {"voxels": trials.betas})


class HerdConfig(RecipeConfig):
    kind: Literal["herd"] = "herd"


class Herd(Mirror):
    """Herd: the mirror, but responses are centred by those that come together, and one alone is refused.

    Paper: none; LEA's code takes the moments of the test batch.
    """

    config_class = HerdConfig

    def decode(self, trials: Trials) -> Images:
        if len(trials) < 2:
            raise DataError("a single row has no company.")
        return super().decode(trials.with_betas(trials.betas - trials.betas.mean(axis=0) + 50))


class BrokenConfig(DeafConfig):
    kind: Literal["broken"] = "broken"


class Broken(Deaf):
    """Broken: the first picture of every batch is no number.

    Paper: none.
    """

    config_class = BrokenConfig

    def decode(self, trials: Trials) -> Images:
        pixels = super().decode(trials).pixels.copy()
        pixels[:1] = np.nan
        return Images(trials.stimuli, pixels)
