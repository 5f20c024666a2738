"""What recipes share that decode to CLIP latents and let MaskGIT draw from them: everything but brain to latent.

    pictures, texts -> CLIP latents          CLIP latents -> MaskGIT -> codes -> pictures

A subclass says how responses become CLIP latents (`clip_latents`), and has a stage ``images`` of class Painter.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import Field

from phosphene import zoo
from phosphene.errors import ConfigError
from phosphene.features import cache_folder
from phosphene.features.clip import ClipFeatures
from phosphene.generate.maskgit_config import SamplingConfig
from phosphene.generate.painter import Painter
from phosphene.recipes.base import Recipe, RecipeConfig
from phosphene.run.config import Config
from phosphene.train.settings import TrainConfig
from phosphene.types import Images, Latents, Stimuli, Trials

PAPER_CLIP = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


class ClipConfig(Config):
    """Which CLIP."""

    name: str = Field(PAPER_CLIP, description="lab, a folder, or a name on the hub")
    revision: str | None = Field(None, description="commit on the hub")


class ImageTraining(TrainConfig):
    """How MaskGIT is trained on from what it starts with; section 4.1 of the paper and its configuration."""

    steps: int = Field(300_000, ge=1)
    batch_size: int = Field(8, ge=1)
    lr: float = Field(5e-5, gt=0)
    warmup: int = Field(20_000, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "linear"
    betas: tuple[float, float] = (0.9, 0.95)


class PainterConfig(Config):
    """Where MaskGIT and its tokenizer come from, and whether training goes on."""

    source: Literal["zoo", "public"] = Field("public", description="the lab's networks, or files of the public ones")
    transformer: str | None = Field(None, description="file of the public transformer")
    tokenizer: str | None = Field(None, description="file of the public tokenizer")
    training: ImageTraining | None = Field(
        ImageTraining(), description="on the training pictures; none leaves it as it is"
    )
    flip: bool = Field(True, description="train on mirrored pictures as well, each with the CLIP latent of its mirror")
    crops: int = Field(
        0, ge=0, description="random crops of each training picture to train on as well, each with its own CLIP latent"
    )
    ported: bool = Field(
        False, description="public networks with epsilons and GELU of LEA's PyTorch port, not of the original JAX code"
    )


class ClipPaintedConfig(RecipeConfig):
    """What these recipes share. The defaults are LEA's."""

    clip: ClipConfig = ClipConfig()
    images: PainterConfig = PainterConfig()
    sampling: SamplingConfig = SamplingConfig()


LAB_PAINTER: dict[str, Any] = {
    "clip": {"name": "lab"},
    "images": {"source": "zoo", "training": None},
    "sampling": {"temperature": 1.5},  # the published 4.5 leaves 64 codes less sure of what they show
}
"""Values of the preset ``lab``: the zoo's networks as they are."""

PAPER_PAINTER: dict[str, Any] = {"images": {"crops": 4}}
"""Values of the preset ``paper``: random crops, 20 % off each side as MinD-Vis, as the paper gives no size; four a
picture and its mirror, seen by CLIP once, where the paper may have cut anew at each step."""

P = TypeVar("P", bound=ClipPaintedConfig)


class ClipPainted(Recipe[P]):
    """See the top of this file.

    Attributes
    ----------
    images_ : Painter, CLIP latents to pictures
    """

    images_: Painter

    def clip_latents(self, trials: Trials) -> np.ndarray:
        """Brain to CLIP latents, (n, d) float32; `trials` are checked already."""
        raise NotImplementedError

    uses: ClassVar[dict[str, tuple[str, ...]]] = {}
    """By stage, the parts of the configuration it depends on; all of it where a stage is not named."""

    def stage_config(self, name: str) -> dict[str, Any]:
        """Values a stage depends on, with the weights of the frozen networks it learns from."""
        c = self.config.model_dump(mode="json")
        values = {k: c[k] for k in {"images": ("clip", "images"), **self.uses}.get(name, tuple(c))}
        if "clip" in values:
            values["clip"] = self._clip.spec()
        if "images" in values and c["images"]["source"] == "zoo":
            values["networks"] = [zoo.fingerprint(network) for network in ("maskgit", "vq")]
        return values

    @property
    def fixed_spaces(self) -> frozenset[str]:
        """CLIP latents mean the same whatever the training trials."""
        return frozenset({self._clip.space})

    def generators(self) -> tuple[str, ...]:
        """MaskGIT, the lab's or the public one."""
        return ("lab" if self.config.images.source == "zoo" else "maskgit-imagenet",)

    def fit_images(self, trials: Trials, stimuli: Stimuli) -> Painter:
        """MaskGIT, as it comes or trained on with the pictures of the training stimuli."""
        c = self.config.images
        if c.source == "zoo":
            painter = Painter.from_zoo()
        else:
            painter = Painter.from_public(
                _file(c.transformer, "transformer"), _file(c.tokenizer, "tokenizer"), self.seed, ported=c.ported
            )
        if c.training is not None:
            pixels = stimuli.resized((painter.size, painter.size))
            see = self._clip.images
            painter.learn(pixels, see, c.training, self.train, flip=c.flip, crops=c.crops, seed=self.seed)
        return painter

    # -- the arrows ------------------------------------------------------------------------------------------------

    def decode(self, trials: Trials) -> Images:
        """Brain to image: the first sample for each row of `trials`, 0-1."""
        return self._paint(trials.stimuli, self._to_clip(trials), samples=1)[0]

    def decode_samples(self, trials: Trials) -> list[Images]:
        """All samples, ``config.sampling.samples`` of them; the first is what `decode` gives."""
        return self._paint(trials.stimuli, self._to_clip(trials), self.config.sampling.samples)

    def latents(self, trials: Trials) -> Latents:
        """Decoded CLIP latents, one row per trial."""
        return Latents(trials.stimuli, {self._clip.space: self._to_clip(trials)})

    def true_latents(self, stimuli: Stimuli) -> Latents:
        """CLIP latents of the pictures themselves."""
        return Latents(stimuli.ids, {self._clip.space: self._see(stimuli)})

    def text_latents(self, texts: Sequence[str]) -> Latents:
        """CLIP latents of texts."""
        return Latents(np.asarray(list(texts), dtype=object), {self._clip.space: self._clip.texts(list(texts))})

    def ceiling(self, stimuli: Stimuli) -> Images:
        """Pictures drawn from the true CLIP latents: what is lost before any brain comes in."""
        return self._paint(stimuli.ids, self._see(stimuli), samples=1)[0]

    # -- pieces ----------------------------------------------------------------------------------------------------

    @cached_property
    def _clip(self) -> ClipFeatures:
        return ClipFeatures(self.config.clip.name, revision=self.config.clip.revision)

    def _see(self, stimuli: Stimuli) -> np.ndarray:
        return self._clip.transform(stimuli, cache_folder())

    def _to_clip(self, trials: Trials) -> np.ndarray:
        self.check_trials(trials)
        return self.clip_latents(trials)

    def _paint(self, ids: np.ndarray, latents: np.ndarray, samples: int) -> list[Images]:
        sampling = self.config.sampling.model_copy(update={"samples": samples})
        pictures = self.images_.paint(latents, list(ids), sampling, self.seed)
        if self.image_shape_[2] == 1:
            pictures = pictures.mean(axis=-1, keepdims=True)
        return [Images(ids, pictures[:, s]) for s in range(samples)]

    def _fitted_on(self, trials: Trials, stimuli: Stimuli) -> None:
        super()._fitted_on(trials, stimuli)
        side = {"zoo": 32, "public": 256}[self.config.images.source]
        self.image_shape_ = (side, side, self.image_shape_[2])


def _file(path: str | None, what: str) -> Path:
    if path is None:
        raise ConfigError(
            f"the public {what} of MaskGIT is not part of phosphene; fetch it and give its place, "
            f"recipe.images.{what}=FILE (docs/lea.md says from where), or use the lab's with --preset lab."
        )
    return Path(path)
