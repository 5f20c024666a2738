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

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from phosphene.data.standardise import Standardiser
from phosphene.errors import ConfigError
from phosphene.io.config import Config
from phosphene.models import bundled, pretrained
from phosphene.models.brain_ldm import BrainLdm, Pictures
from phosphene.models.cross_modal import CrossModalConfig
from phosphene.models.dc_mae import DcMaeConfig
from phosphene.models.ldm import Ldm
from phosphene.models.patch_mae import PatchMaePart
from phosphene.recipes.mind_vis import LAB, LatentDiffusion, LatentDiffusionConfig, MaskedTraining
from phosphene.training.settings import TrainConfig
from phosphene.types import Stimuli, Trials


class ContrastTraining(MaskedTraining):
    """How phase 1 is trained; the defaults are 140 epochs of the 133,560 responses that HCP's 1,113 subjects give."""

    steps: int = Field(74_800, ge=1)
    batch_size: int = Field(250, ge=1)
    warmup: int = Field(10_685, ge=0, description="20 epochs")


class CrossTraining(TrainConfig):
    """How phase 2 is trained; the defaults are 60 epochs of GOD's 1,200 responses."""

    steps: int = Field(4500, ge=1)
    batch_size: int = Field(16, ge=1)
    lr: float = Field(5.3e-5, gt=0)
    warmup: int = Field(150, ge=0, description="2 epochs")
    adam_betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.05, ge=0)
    clip_norm: float | None = Field(
        0.8, gt=0, description="of both sides together; the authors' code clips each by itself"
    )


class ImageMaeSource(Config):
    """Where the autoencoder of pictures comes from."""

    source: Literal["zoo", "public"] = Field("public", description="the lab's, or facebook/vit-mae-base in a folder")
    folder: str | None = Field(None, description="with config.json and weights, as transformers lays them out")
    mean: tuple[float, float, float] = Field((0.485, 0.456, 0.406), description="of its pixels, by channel: ImageNet's")
    spread: tuple[float, float, float] = Field((0.229, 0.224, 0.225), description="likewise; the lab's has its own")


class CadConfig(LatentDiffusionConfig):
    """Configuration of `Cad`."""

    kind: Literal["cad"] = "cad"
    brain: DcMaeConfig = DcMaeConfig()
    brain_training: ContrastTraining | None = Field(
        ContrastTraining(), description="phase 1; none takes `init`, or noise, as it is"
    )
    attend: bool = Field(True, description="whether there is a phase 2")
    cross: CrossModalConfig = CrossModalConfig()
    cross_training: CrossTraining = CrossTraining()
    picture: ImageMaeSource = ImageMaeSource()


class Cad(LatentDiffusion[CadConfig]):
    """See the top of this file.

    Attributes
    ----------
    cross_ : PatchMaePart
        PatchMaePart, the autoencoder after phase 2; all of that phase that decoding needs
    """

    config_class = CadConfig
    stages = {  # noqa: RUF012
        "standardise": Standardiser,
        "generator": Ldm,
        "brain": PatchMaePart,
        "cross": PatchMaePart,
        "tuned": BrainLdm,
    }
    needs = LatentDiffusion.needs | {
        "cross": ("standardise", "brain"),
        "tuned": ("standardise", "generator", "cross"),
    }
    uses = LatentDiffusion.uses | {
        "cross": ("rows", "attend", "cross", "cross_training", "picture", "validation", "check_every"),
    }
    paper = "cad"
    cross_: PatchMaePart

    @classmethod
    def preset(cls, name: str) -> dict[str, Any]:
        """``paper``: the published sizes. ``lab``: the same classes at tiny size, with the zoo's networks."""
        if name == "paper":
            return {"own": False}

        return {
            **LAB,
            "cross": CrossModalConfig.preset("lab"),
            "cross_training": {"steps": 150, "batch_size": 16, "lr": 1e-3, "warmup": 15},
            "picture": {"source": "zoo"},
        }

    @property
    def encoder(self) -> PatchMaePart:
        """The autoencoder whose encoder the last phase tunes."""
        return self.cross_

    def stage_config(self, name: str) -> dict[str, Any]:
        """Values a stage depends on, with the weights of the frozen networks it starts from."""
        values = super().stage_config(name)
        if name == "cross" and not self.config.attend:
            return {"attend": False}

        if name == "cross" and self.config.picture.source == "zoo":
            values["networks"] = [bundled.fingerprint("mae")]

        return values

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
