"""CAD: contrast responses, let them attend to pictures, and tune latent diffusion to draw from what they became.

Paper: Sun et al. 2023, NeurIPS, "Contrast, Attend and Diffuse to Decode High-Resolution Images from Brain Activities".

    phase 1  contrast  two maskings of each response are told from those of others (`phosphene.models.dc_mae`)
    phase 2  attend    responses and the pictures shown, both hidden in part, predict each other's hidden patches
                       (`phosphene.models.cross_modal`)
    phase 3  diffuse   the encoder and a label-to-image latent diffusion are tuned together

Where paper and public code differ, each choice is a named option; docs/cad.md lists them. Nothing is ever chosen by a test
response or a test picture.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from phosphene.errors import ConfigError
from phosphene.io.config import Config
from phosphene.models import bundled, pretrained
from phosphene.models.brain_ldm import Pictures
from phosphene.models.cross_modal import CrossModalConfig
from phosphene.models.dc_mae import DcMaeConfig
from phosphene.models.patch_mae import PatchMaePart
from phosphene.recipes.base import STANDARDISE, Stage, Weights
from phosphene.recipes.mind_vis import (
    BRAIN,
    CHOSEN,
    GENERATOR,
    LAB,
    TUNED,
    LatentDiffusion,
    LatentDiffusionConfig,
    MaskedTraining,
    PatchMaeSettings,
)
from phosphene.training.settings import TrainConfig
from phosphene.types import Stimuli, Trials


class ContrastTraining(MaskedTraining):
    """How phase 1 is trained; the defaults are 140 epochs of the 133,560 responses that HCP's 1,113 subjects give."""

    steps: int = Field(default=74_800, ge=1)
    batch_size: int = Field(default=250, ge=1)
    warmup: int = Field(default=10_685, ge=0, description="20 epochs")


class CrossTraining(TrainConfig):
    """How phase 2 is trained; the defaults are 60 epochs of GOD's 1,200 responses."""

    steps: int = Field(default=4500, ge=1)
    batch_size: int = Field(default=16, ge=1)
    lr: float = Field(default=5.3e-5, gt=0)
    warmup: int = Field(default=150, ge=0, description="2 epochs")
    adam_betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.05, ge=0)
    clip_norm: float | None = Field(
        default=0.8, gt=0, description="of both sides together; the authors' code clips each by itself"
    )


class ImageMaeSource(Config):
    """Where the autoencoder of pictures comes from."""

    source: Literal["zoo", "public"] = Field(
        default="public", description="the lab's, or facebook/vit-mae-base in a folder"
    )
    folder: str | None = Field(default=None, description="with config.json and weights, as transformers lays them out")
    mean: tuple[float, float, float] = Field(
        default=(0.485, 0.456, 0.406), description="of its pixels, by channel: ImageNet's"
    )
    spread: tuple[float, float, float] = Field(
        default=(0.229, 0.224, 0.225), description="likewise; the lab's has its own"
    )


class ContrastSettings(PatchMaeSettings):
    """What the contrastive autoencoder of phase 1 can be told."""

    brain: DcMaeConfig = DcMaeConfig()
    brain_training: ContrastTraining | None = Field(default=ContrastTraining(), description="none takes noise as it is")


class CadConfig(LatentDiffusionConfig):
    """Configuration of `Cad`."""

    kind: Literal["cad"] = "cad"
    brain: DcMaeConfig = DcMaeConfig()
    brain_training: ContrastTraining | None = Field(
        default=ContrastTraining(), description="phase 1; none takes `init`, or noise, as it is"
    )
    attend: bool = Field(default=True, description="whether there is a phase 2")
    cross: CrossModalConfig = CrossModalConfig()
    cross_training: CrossTraining = CrossTraining()
    picture: ImageMaeSource = ImageMaeSource()

    @property
    def cross_settings(self) -> tuple[str, ...]:
        """Fields that phase 2 depends on."""
        if not self.attend:
            return ("attend",)

        return (
            "rows", "attend", "cross", "cross_training", "picture.source", "picture.mean", "picture.spread", "validation",
            "check_every",
        )  # fmt: skip

    @property
    def picture_weights(self) -> tuple[Weights, ...]:
        """Of the autoencoder of pictures."""
        if not self.attend:
            return ()
        if self.picture.source == "zoo":
            return ("mae",)
        if self.picture.folder is None:
            return ()

        return (Path(self.picture.folder),)


class Cad(LatentDiffusion[CadConfig]):
    """A contrastive autoencoder of responses that attends to pictures, then conditions a latent diffusion.

    Attributes
    ----------
    cross_ : PatchMaePart
        the autoencoder after phase 2; all of that phase that decoding needs
    """

    stages = (
        STANDARDISE,
        GENERATOR,
        BRAIN,
        Stage(
            "cross", PatchMaePart, needs=("standardise", "brain"), settings=lambda config: config.cross_settings,
            uses=CHOSEN, weights=lambda recipe: recipe.config.picture_weights,
        ),
        replace(TUNED, needs=("standardise", "generator", "cross")),
    )  # fmt: skip
    presets = {  # noqa: RUF012  a constant
        "lab": {
            **LAB,
            "cross": CrossModalConfig.preset("lab"),
            "cross_training": {"steps": 150, "batch_size": 16, "lr": 1e-3, "warmup": 15},
            "picture": {"source": "zoo"},
        },
        "paper": {"own": False},
    }
    cross_: PatchMaePart

    @property
    def encoder(self) -> PatchMaePart:
        """The autoencoder whose encoder the last phase tunes."""
        return self.cross_

    def fit_cross(self, trials: Trials, stimuli: Stimuli) -> PatchMaePart:
        """Phase 2: the autoencoder and one of pictures, each with what the other sees; the brain side is kept."""
        from phosphene.models import CrossModal

        c = self.config
        brain = self.brain_.module
        if not c.attend:
            return PatchMaePart.of(brain)

        brain.recompute = c.recompute
        image, units = self._picture()
        network = CrossModal.create(c.cross, brain, image, self.seed)
        pictures = Pictures.of(stimuli, image.config.image_size, **units)
        chosen = self.learn(network, trials, pictures, c.cross_training, "cross")
        part = PatchMaePart.of(network.brain)
        part.config["chosen"] = chosen

        return part

    def _picture(self) -> tuple[Any, dict[str, tuple[float, ...]]]:
        """The autoencoder of pictures, and the units it takes them in."""
        c = self.config.picture
        if c.source == "zoo":
            return bundled.load("mae"), {}

        if c.folder is None or not Path(c.folder).is_dir():
            raise ConfigError(
                f"the public autoencoder of pictures is not part of phosphene, and recipe.picture.folder is {c.folder}; fetch "
                "facebook/vit-mae-base and give its folder (docs/cad.md says how), use the lab's with --preset lab, or leave "
                "phase 2 out with recipe.attend=false."
            )

        return pretrained.load(Path(c.folder), "ViTMAEForPreTraining"), {"mean": c.mean, "spread": c.spread}
