"""CAD: contrast responses, let them attend to pictures, and tune latent diffusion to draw from what they became.

Paper: Sun et al. 2023, NeurIPS, "Contrast, Attend and Diffuse to Decode High-Resolution Images from Brain Activities".

    phase 1  contrast  what two maskings leave of a response is matched, among those of others; without pictures
                       (:mod:`phosphene.models.dc_mae`)
    phase 2  attend    response and picture, both hidden in part, help to predict each other's hidden patches (eqs. 4-6)
                       (:mod:`phosphene.models.cross_modal`)
    phase 3  diffuse   encoder and label-to-image latent diffusion are tuned together (section 3.3), as in MinD-Vis
                       (:mod:`phosphene.models.brain_ldm`)

Phases 1 and 3 are stages of `LatentDiffusion`, shared with :mod:`phosphene.recipes.mind_vis`; phase 2, the stage ``cross``, is
put between them. Where paper and public code differ, each choice is a named option; docs/cad.md lists them. Nothing is ever
chosen by a test response or a test picture. Decoding only.
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
    """Settings of the contrastive autoencoder of phase 1."""

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
        """Phase 2: the autoencoder of responses and one of pictures attend to each other; the former alone is kept.

        Parameters
        ----------
        trials : Trials
            training trials
        stimuli : Stimuli
            shown in them

        Returns
        -------
        PatchMaePart
            the autoencoder of phase 1, trained on; as it was, without phase 2
        """
        from phosphene.models import CrossModal

        c = self.config
        brain = self.brain_.module
        if not c.attend:
            return PatchMaePart.of(brain)

        brain.recompute = c.recompute
        image, units = self._image_mae()
        network = CrossModal.create(c.cross, brain, image, self.seed)
        pictures = Pictures.of(stimuli, image.config.image_size, **units)
        best_step = self.learn(network, trials, pictures, c.cross_training, "cross")

        part = PatchMaePart.of(network.brain)
        part.config["chosen"] = best_step

        return part

    def _image_mae(self) -> tuple[Any, dict[str, tuple[float, ...]]]:
        """The autoencoder of pictures, and mean and spread of the pixels it takes; those of `Pictures` where empty."""
        c = self.config.picture
        if c.source == "zoo":
            return bundled.load("mae"), {}

        if c.folder is None or not Path(c.folder).is_dir():
            raise ConfigError(
                f"the public autoencoder of pictures is not part of phosphene, and recipe.picture.folder is {c.folder}; fetch "
                "facebook/vit-mae-base and give its folder (docs/cad.md says how), use the lab's with --preset lab, or leave "
                "phase 2 out with recipe.attend=false."
            )

        return pretrained.load_pretrained(Path(c.folder), "ViTMAEForPreTraining"), {"mean": c.mean, "spread": c.spread}
