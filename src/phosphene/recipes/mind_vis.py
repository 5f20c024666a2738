"""MinD-Vis: a masked autoencoder of responses, whose encoder then conditions a latent diffusion.

Paper: Chen et al. 2023, CVPR, "Seeing Beyond the Brain: Conditional Diffusion Model with Sparse Masked Modeling for Vision
Decoding".

    phase 1  responses, most of each hidden -> autoencoder -> what was hidden      (without pictures; other people too)
    phase 2  the same with test responses, in setting relax alone
    phase 3  betas -> its encoder -> tokens -> latent diffusion, its labels replaced by them -> picture

The last phase (section 3.2) trains the encoder, the two conditionings and the cross-attention of the U-Net by the error of the
noise. The paper does not encode; responses are predicted as in LEA's comparison (its table 2), by the decoder of phase 1
from CLIP latents.

From top to bottom: settings; the autoencoder as a brain model and the latent diffusion as a generator, components that a mix
can use; `LatentDiffusion`, what this paper shares with CAD (:mod:`phosphene.recipes.cad`); `MindVis`. A subclass of
`LatentDiffusion` has the stages ``generator``, ``brain`` and ``tuned``, and may put others between (`encoder` is the
autoencoder that the last one tunes).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from phosphene.data.standardise import Standardiser
from phosphene.errors import ConfigError
from phosphene.features import cache_folder
from phosphene.features.clip import ClipFeatures
from phosphene.io.config import Config
from phosphene.models import bundled
from phosphene.models.brain_ldm import BrainLdm, BrainToPicture, HeldOutChoice, Pictures, paired
from phosphene.models.fed_decoder import FedDecoderPart
from phosphene.models.gru import validation_rows
from phosphene.models.ldm import Ldm, LdmSampling, LdmUnet
from phosphene.models.patch_mae import PatchMaeConfig, PatchMaePart
from phosphene.models.roi_mae import subject_batches
from phosphene.models.tuned_ldm import TokensToPicture, TunedLdm, token_batches
from phosphene.recipes import lea
from phosphene.recipes.base import STANDARDISE, Recipe, RecipeConfig, Stage, Weights
from phosphene.recipes.components import BrainModel, Generator
from phosphene.recipes.lea import ClipConfig
from phosphene.training.loop import train
from phosphene.training.settings import TrainConfig
from phosphene.types import Images, Stimuli, Trials, digest_of

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vq_model import VQModel


class MaskedTraining(TrainConfig):
    """How the autoencoder is trained in phase 1; the defaults are those of MinD-Vis: 500 epochs of some 136,000 responses."""

    steps: int = Field(default=680_000, ge=1)
    batch_size: int = Field(default=100, ge=1)
    lr: float = Field(default=2.5e-4, gt=0)
    warmup: int = Field(default=54_400, ge=0, description="40 epochs")
    adam_betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.05, ge=0)
    clip_norm: float | None = Field(default=0.8, gt=0)


class TuningConfig(TrainConfig):
    """How brain and generator are tuned together in phase 3; the defaults are 500 epochs of GOD's 1,200 responses."""

    steps: int = Field(default=120_000, ge=1)
    batch_size: int = Field(default=5, ge=1)
    lr: float = Field(default=5.3e-5, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "constant"
    clip_norm: float | None = Field(default=0.5, gt=0)
    tune: Literal["cross_attention", "frozen", "all"] = Field(
        default="cross_attention",
        description="of the U-Net: section 4.2.2 and the authors' code, nothing (section 3.3), or all",
    )
    sparsify: float = Field(
        default=0.2, ge=0, lt=1, description="share of voxels zeroed (paper); the authors' code zeroes none"
    )
    crops: float = Field(
        default=0.5, ge=0, le=1, description="share of pictures that are cut by a fifth and stretched back; code"
    )


class LdmSource(Config):
    """Where the label-to-image network comes from, and how tokens take the place of labels."""

    source: Literal["zoo", "public"] = Field(default="public", description="the lab's, or the file of the public one")
    file: str | None = Field(default=None, description="model.ckpt of CompVis' cin256-v2")
    inert: tuple[str, ...] = Field(
        default=(), description="further classes of settings that file may name; never imported"
    )
    folder: str | None = Field(
        default=None, description="of ldm.json and ldm.safetensors, for another of the lab's networks"
    )
    mapped: int | None = Field(
        default=77, ge=1, description="tokens of the context; as many as the brain has, when null"
    )
    time: Literal["convolutions", "mean", "none"] = Field(
        default="convolutions",
        description="the second conditioning, beside the time: all tokens mixed, their mean, or none",
    )
    zero_time: bool = Field(
        default=False, description="start it at zero, which leaves the network as it was; code: false"
    )


class PatchMaeSettings(Config):
    """Settings of the autoencoder of patches."""

    rows: Literal["trials", "averaged"] = Field(
        default="trials", description="what is trained on: single trials, or repeats averaged"
    )
    brain: PatchMaeConfig = PatchMaeConfig()
    brain_training: MaskedTraining | None = Field(
        default=MaskedTraining(), description="none takes `init`, or noise, as it is"
    )


class LatentDiffusionSettings(Config):
    """Settings of the latent diffusion and of its tuning to tokens of a brain."""

    generator: LdmSource = LdmSource()
    tuning: TuningConfig = TuningConfig()
    sampling: LdmSampling = LdmSampling()


class LatentDiffusionConfig(RecipeConfig, PatchMaeSettings, LatentDiffusionSettings):
    """What MinD-Vis and CAD share."""

    pretrain: tuple[str, ...] = Field(
        default=(), description="other subjects whose responses phase 1 learns from as well"
    )
    resting: str | None = Field(
        default=None, description="folder of scans at rest that phase 1 learns from as well: HCP's"
    )
    own: bool = Field(default=True, description="whether phase 1 learns from the own training responses")
    init: str | None = Field(
        default=None, description="file of the public SC-MBM checkpoint that the autoencoder starts from"
    )
    init_is_clean: bool = Field(
        default=False, description="whether it is known that no test response of this subject is in it"
    )
    recompute: bool = Field(default=False, description="compute each block twice in training, to save memory")
    validation: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the training stimuli by whose loss the step is chosen; 0 takes the last",
    )
    check_every: int = Field(default=100, ge=1, description="steps between looks at the loss of those stimuli")

    @property
    def other_subjects(self) -> tuple[str, ...]:
        """Subjects whose responses phase 1 learns from as well."""
        return self.pretrain

    @model_validator(mode="after")
    def _strict_is_strict(self) -> Self:
        if self.setting == "strict" and self.init is not None and not self.init_is_clean:
            raise ValueError(
                "the public SC-MBM checkpoint has seen responses of the GOD subjects and may have seen test responses; use "
                "setting=relax, or init_is_clean=true for one that is known not to"
            )

        return self


LAB: dict[str, Any] = {
    "rows": "averaged",
    "brain": {
        "patch_size": 40, "width": 96, "depth": 2, "heads": 4, "decoder_width": 48, "decoder_depth": 2, "decoder_heads": 4,
        "filter_std": 0.2,
    },
    "brain_training": {"steps": 250, "batch_size": 64, "lr": 2e-3, "warmup": 25},
    "generator": {"source": "zoo", "mapped": 16, "zero_time": True},
    "tuning": {
        "steps": 1300, "batch_size": 32, "lr": 3e-3, "schedule": "cosine", "warmup": 25, "clip_norm": 1.0, "crops": 0.0,
        "sparsify": 0.0,
    },
    "sampling": LdmSampling.lab().model_dump(),
}  # fmt: skip
"""Values of the preset ``lab``."""


class PatchMaeBrain(BrainModel):
    """The masked autoencoder of MinD-Vis' phase 1, or the contrastive one of CAD's: a token per patch of the cortex.

    Parameters
    ----------
    settings : PatchMaeSettings
        or any configuration with its fields
    init : str, optional
        file of the public SC-MBM checkpoint that it starts from
    own : bool, default True
        whether it learns from the own training responses
    resting : str, optional
        folder of scans at rest that it learns from as well
    recompute : bool, default False
        compute each block twice in training, to save memory
    """

    uses = (train, PatchMaePart)
    has_tokens = True

    def __init__(
        self,
        settings: Any,
        init: str | None = None,
        own: bool = True,
        resting: str | None = None,
        recompute: bool = False,
    ) -> None:
        self.settings = settings
        self.init = init
        self.own = own
        self.resting = resting
        self.recompute = recompute

    def weights(self) -> Iterable[Weights | None]:
        """The checkpoint it starts from, where there is one."""
        if self.init is None:
            return ()

        return (Path(self.init),)

    def fit(self, recipe: Recipe[Any], trials: Trials, unpaired: Sequence[Trials] | None = None) -> PatchMaePart:
        """Fit to responses of everyone who is asked for, then make it ready for this subject.

        Parameters
        ----------
        recipe : Recipe
            whose stage ``standardise`` is fitted
        trials : Trials
            training trials, as measured
        unpaired : sequence of Trials, optional
            further responses to learn from; `Recipe.unpaired` by default

        Returns
        -------
        PatchMaePart
            of the subject of `trials` alone
        """
        from phosphene.models import for_subjects

        if unpaired is None:
            unpaired = recipe.unpaired

        betas = self._responses(recipe, trials, unpaired)
        this_subject = {str(trials.subject): trials.n_voxels}
        n_voxels = {name: rows.shape[1] for name, rows in betas.items()}
        network = self._network(n_voxels or this_subject, recipe.seed)
        settings = self.settings.brain_training

        if settings is not None:
            if not betas:
                raise ConfigError(
                    "phase 1 has no responses to learn from: recipe.own is false, and neither recipe.pretrain nor "
                    "recipe.resting names any. Give one, or set recipe.brain_training=null."
                )

            recipe.train(network, *subject_batches(betas), settings, data=_digest(betas), part="brain")

        return PatchMaePart.of(for_subjects(network.cpu(), this_subject))

    def features(self, part: PatchMaePart, betas: np.ndarray) -> np.ndarray:
        """(n, n_voxels) standardised responses to tokens, (n, patches, width)."""
        return part.to_tokens(betas)

    def class_token(self, part: PatchMaePart, betas: np.ndarray) -> np.ndarray:
        """(n, n_voxels) standardised responses to one vector for all of it, (n, width)."""
        return part.to_latent(betas)

    def rows(self, trials: Trials) -> np.ndarray:
        """(n, n_voxels) what is trained on, of standardised trials."""
        if self.settings.rows == "averaged":
            trials = trials.average_repeats()

        return trials.betas

    def _network(self, n_voxels: dict[str, int], seed: int) -> Any:
        """The network, untrained or from a public checkpoint."""
        from phosphene.models import DcMae, PatchMae, load_sc_mbm, read_sc_mbm

        config = self.settings.brain
        if config.kind == "dc_mae":
            kind = DcMae
        else:
            kind = PatchMae

        if self.init is None:
            weights = None
        else:
            weights = read_sc_mbm(self.init)

        # The checkpoint's position codes are of its own number of patches, besides the class token; they are stretched to ours.
        if weights is not None and "pos_embed" in weights and config.positions_of is None:
            config = config.model_copy(update={"positions_of": weights["pos_embed"].shape[1] - 1})

        network = kind.create(config, n_voxels, seed, recompute=self.recompute)
        if weights is not None:
            load_sc_mbm(network, weights)

        return network

    def _responses(self, recipe: Recipe[Any], trials: Trials, unpaired: Sequence[Trials]) -> dict[str, Any]:
        """Standardised responses to learn from, by subject: (n, n_voxels) each."""
        subject = str(trials.subject)
        rows = []
        if self.own:
            rows.append(self.rows(recipe.standardised(trials)))

        others = {}
        for responses in unpaired:
            if responses.subject == subject:
                rows.append(self.rows(recipe.standardised(responses)))
            else:
                # The recipe's Standardiser is of this subject's voxels; another person's need their own.
                others[str(responses.subject)] = Standardiser().fit(responses).transform(responses).betas

        betas: dict[str, Any] = {}
        if rows:
            betas[subject] = np.concatenate(rows)

        betas |= others
        if self.resting is not None:
            from phosphene.data.resting import resting_windows

            cache = cache_folder()
            if cache is None:
                raise ConfigError(
                    "windows of scans at rest are stored on disk once; name a folder for them in the environment variable "
                    "PHOSPHENE_CACHE."
                )

            betas["resting"] = resting_windows(
                self.resting, cache, padded_length=self.settings.brain.wrapped_length, progress=recipe.progress
            )

        return betas


class LatentDiffusionGenerator(Generator):
    """The label-to-image latent diffusion of MinD-Vis and CAD, tuned to draw from tokens of a brain.

    Tokens of a brain have no truth in a picture: no map leads to them, and the network itself is tuned to features.

    Parameters
    ----------
    settings : LatentDiffusionSettings
        or any configuration with its fields
    """

    inputs = ("tokens",)
    parts = {"generator": Ldm}  # noqa: RUF012  a constant
    tuned = True

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @property
    def folder(self) -> Path | None:
        """Of the network, where it is another of the lab's."""
        if self.settings.generator.folder is None:
            return None

        return Path(self.settings.generator.folder)

    @property
    def side(self) -> int:
        """Pixels along a side of its pictures."""
        return {"zoo": 32, "public": 256}[self.settings.generator.source]

    @property
    def corpora(self) -> tuple[str, ...]:
        """ImageNet, or the lab's worlds."""
        if self.settings.generator.source == "zoo":
            return ("lab",)

        return ("ldm-cin256",)

    @property
    def samples(self) -> int:
        """Pictures it draws for each row."""
        return self.settings.sampling.samples

    def weights(self) -> Iterable[Weights | None]:
        """Of the network and its tokenizer."""
        c = self.settings.generator
        if c.source == "zoo":
            return ({"ldm": bundled.record("ldm", self.folder)["sha256"]}, "vq")
        if c.file is None:
            return ()

        return (Path(c.file),)

    def load(self, recipe: Recipe[Any], stimuli: Stimuli | None = None) -> dict[str, Any]:
        """Labels to pictures, as it comes."""
        c = self.settings.generator
        if c.source == "zoo":
            network = cast(LdmUnet, bundled.load("ldm", folder=self.folder))
            tokenizer = cast("VQModel", bundled.load("vq"))
            return {"generator": Ldm.of(network, tokenizer)}

        if c.file is None:
            raise ConfigError(
                "the public label-to-image network is not part of phosphene; fetch cin256-v2 and give its place, "
                "recipe.generator.file=FILE (docs/cad.md says from where), or use the lab's with --preset lab."
            )

        return {"generator": Ldm.from_public(c.file, inert=c.inert)}

    def with_tokens(self, generator: Ldm, n_tokens: int, width: int, seed: int) -> Any:
        """The network with its labels replaced by tokens, and what is to be tuned of it made trainable.

        Parameters
        ----------
        generator : Ldm
            labels to pictures; not changed
        n_tokens, width : int
            of the brain
        seed : int
            of the weights that are new

        Returns
        -------
        LdmUnet
        """
        c = self.settings.generator
        network = generator.network.with_tokens(
            n_tokens, width, seed=seed, mapped=c.mapped, time=c.time, zero_time=c.zero_time
        )

        network.tune(self.settings.tuning.tune)
        return network

    def tune(
        self,
        recipe: Recipe[Any],
        parts: Mapping[str, Any],
        features: Trials,
        stimuli: Stimuli,
        shape: tuple[int, int],
    ) -> TunedLdm:
        """Both conditionings and the cross-attention, by the error of the noise in latents of the pictures.

        Parameters
        ----------
        recipe : Recipe
            trains the network
        parts : mapping of {str: Part}
            as `load` made them
        features : Trials
            (n, d), a row per stimulus
        stimuli : Stimuli
            shown in them
        shape : tuple of int
            (tokens, width) of a row of features, d numbers in all
        """
        settings = self.settings.tuning
        generator = parts["generator"]
        network = self.with_tokens(generator, *shape, recipe.seed)
        both = TokensToPicture(network, generator, settings.crops)
        pictures = Pictures.of(stimuli, generator.size)
        tokens = features.betas.reshape(len(features), *shape)  # (n, tokens, width)
        fetch = token_batches(tokens, pictures, features.stimuli)
        data = digest_of(features.betas, features.stimuli, pictures.digest)
        recipe.train(both, fetch, len(features), settings, data=data, part="tuned")

        return TunedLdm.of(both.network, shape)

    def true_inputs(self, stimuli: Stimuli) -> None:
        """None: tokens of a brain have no true counterpart in a picture."""
        return None

    def draw(
        self, parts: Mapping[str, Any], inputs: Mapping[str, np.ndarray], ids: Sequence[str], samples: int, seed: int
    ) -> np.ndarray:
        """Pictures from tokens (n, tokens, width), or from rows of features that are cut into them."""
        tuned = parts["tuned"]
        tokens = inputs["tokens"]
        if tokens.ndim == 2:
            tokens = tokens.reshape(len(tokens), *tuned.shape)  # (n, tokens, width)

        sampling = self.settings.sampling.model_copy(update={"samples": samples})
        ldm = Ldm.of(tuned.network, parts["generator"].tokenizer)
        return ldm.sample(tokens, list(ids), sampling, seed)

    def ceiling(self, parts: Mapping[str, Any], stimuli: Stimuli, seed: int) -> np.ndarray:
        """The pictures themselves through the tokenizer, (n, side, side, 3): the best that it can draw."""
        generator = parts["generator"]
        pixels = Pictures.of(stimuli, generator.size)[np.arange(len(stimuli))]
        return generator.decode(generator.encode(_tensor(pixels)))


L = TypeVar("L", bound=LatentDiffusionConfig)

# Fields of the configuration that each phase depends on.
_PHASE_1 = ("setting", "rows", "pretrain", "resting", "own", "brain", "brain_training")
_PHASE_3 = (
    "rows", "generator.mapped", "generator.time", "generator.zero_time", "tuning", "validation", "check_every",
)  # fmt: skip
CHOSEN = (train, HeldOutChoice, validation_rows)
"""Solvers of a phase whose step may be chosen by training stimuli that are left out."""

GENERATOR = Stage(
    "generator", Ldm, needs=(), settings=("generator.source",), reads=(),
    weights=lambda recipe: recipe.diffusion.weights(),
)  # fmt: skip
BRAIN = Stage(
    "brain", PatchMaePart, needs=("standardise",), settings=_PHASE_1, reads=("trials",), learns_unpaired=True,
    uses=PatchMaeBrain.uses, weights=lambda recipe: recipe.autoencoder.weights(),
)  # fmt: skip
TUNED = Stage("tuned", BrainLdm, needs=("standardise", "generator", "brain"), settings=_PHASE_3, uses=CHOSEN)


class LatentDiffusion(Recipe[L]):
    """An autoencoder of responses whose encoder is tuned together with a latent diffusion that draws from its tokens.

    Attributes
    ----------
    standardise_ : Standardiser
        of the voxels
    generator_ : Ldm
        labels to pictures, as it comes
    brain_ : PatchMaePart
        the autoencoder after phase 1
    tuned_ : BrainLdm
        betas to tokens to latents
    """

    stages = (STANDARDISE, GENERATOR, BRAIN, TUNED)
    demo = {"data.options.n_subjects": 4, "recipe.pretrain": ["sub-02", "sub-03", "sub-04"]}  # noqa: RUF012  a constant

    brain_: PatchMaePart
    generator_: Ldm
    tuned_: BrainLdm

    @property
    def encoder(self) -> PatchMaePart:
        """The autoencoder whose encoder the last phase tunes."""
        return self.brain_

    @property
    def autoencoder(self) -> PatchMaeBrain:
        """The model of responses, as the configuration asks for it."""
        c = self.config
        return PatchMaeBrain(c, init=c.init, own=c.own, resting=c.resting, recompute=c.recompute)

    @cached_property
    def diffusion(self) -> LatentDiffusionGenerator:
        """What draws."""
        return LatentDiffusionGenerator(self.config)

    def inner_folds(self, trials: Trials) -> np.ndarray | None:
        """0 for trials of the stimuli by which the step is chosen, 1 for the others; None where the last step is taken."""
        if not self.config.validation:
            return None

        folds = np.ones(len(trials), dtype=np.int64)
        folds[self._sides(trials)[1]] = 0
        return folds

    def generators(self) -> tuple[str, ...]:
        """The latent diffusion, the lab's or the public one."""
        return self.diffusion.corpora

    def picture_shape(self, stimuli: Stimuli) -> tuple[int, int, int]:
        """(height, width, channels) of a decoded picture: the generator's size."""
        return self.diffusion.side, self.diffusion.side, stimuli.image_shape[2]

    # -- stages ----------------------------------------------------------------------------------------------------

    def fit_generator(self) -> Ldm:
        """Labels to pictures, as it comes."""
        return self.diffusion.load(self)["generator"]

    def fit_brain(self, trials: Trials) -> PatchMaePart:
        """Phase 1: the autoencoder, on responses alone, of everyone who is asked for; then made ready for this subject."""
        return self.autoencoder.fit(self, trials)

    def fit_tuned(self, trials: Trials, stimuli: Stimuli) -> BrainLdm:
        """Phase 3: brain encoder, conditionings and cross-attention, by the error of the noise in latents of the pictures."""
        from phosphene.models import for_subjects

        settings = self.config.tuning
        before = self.encoder.module
        before.recompute = self.config.recompute

        # A network of its own: the stage before keeps the encoder as it left it.
        brain = for_subjects(before, before.n_voxels, sparsify=settings.sparsify)
        network = self.diffusion.with_tokens(self.generator_, brain.n_patches, brain.config.width, self.seed)
        both = BrainToPicture(brain, network, self.generator_, settings.crops)
        best_step = self.learn(both, trials, Pictures.of(stimuli, self.generator_.size), settings, "tuned")

        return BrainLdm.of(both.brain, both.network, best_step)

    def learn(
        self, network: Any, trials: Trials, pictures: Pictures, settings: TrainConfig, part: str
    ) -> dict[str, float]:
        """Train a network on responses with the pictures they belong to, and leave it at the last step, or at the best.

        Parameters
        ----------
        network : Any
            changed in place; left on the CPU
        trials : Trials
            training trials
        pictures : Pictures
            what the network takes, with the ids of the stimuli
        settings : TrainConfig
            how
        part : str
            name of this training

        Returns
        -------
        dict of {str: float}
            step and loss of the best step, where ``config.validation`` asks for one
        """
        rows, held_out = self._sides(trials)
        standardised = self.standardised(trials)
        sides = []
        for rows_of_side in (rows, held_out):
            side = standardised.take(rows_of_side)
            if self.config.rows == "averaged" and len(rows_of_side):  # no rows have no average
                side = side.average_repeats()

            sides.append(side)

        fetches = [paired(str(trials.subject), side, pictures) for side in sides]
        data = digest_of([digest_of(side.betas, side.stimuli) for side in sides], pictures.digest)
        if not len(held_out):  # nothing to choose by, so the last step
            self.train(network, *fetches[0], settings, data=data, part=part)
            network.cpu()
            return {}

        choice = HeldOutChoice(network, *fetches[1], settings.batch_size, self.seed, self.training_folder(part))
        more = {"log_every": self.config.check_every, "watch": choice.look}
        self.train(network, *fetches[0], settings, data=data, part=part, **more)

        return choice.take()

    # -- the arrow -------------------------------------------------------------------------------------------------

    def decode(self, trials: Trials) -> Images:
        """Brain to image: the first sample for each row of `trials`, 0-1."""
        return self._draw(trials, samples=1)[0]

    def decode_samples(self, trials: Trials) -> list[Images]:
        """All samples, ``config.sampling.samples`` of them; the first is what `decode` gives."""
        return self._draw(trials, self.config.sampling.samples)

    def ceiling(self, stimuli: Stimuli) -> Images:
        """The pictures themselves through the tokenizer: what is lost before any brain or diffusion comes in.

        Tokens of a brain have no truth to draw from, and labels say less than a brain could; but every picture drawn is one
        that the tokenizer can make.
        """
        return self.as_images(stimuli.ids, self.diffusion.ceiling({"generator": self.generator_}, stimuli, self.seed))

    def tokens(self, trials: Trials) -> np.ndarray:
        """Brain to the tokens that pictures are drawn from, (n, patches, width) float32."""
        self.check_trials(trials)
        return self.tuned_.to_tokens(self.standardised(trials).betas)

    # -- pieces ----------------------------------------------------------------------------------------------------

    def _sides(self, trials: Trials) -> tuple[np.ndarray, np.ndarray]:
        """Trials to train on and trials to choose the step by, no stimulus on both sides."""
        return validation_rows(trials.stimuli.astype(str), self.config.validation, self.rng("validation"))

    def _draw(self, trials: Trials, samples: int) -> list[Images]:
        parts = {"generator": self.generator_, "tuned": self.tuned_}
        inputs = {"tokens": self.tokens(trials)}
        pictures = self.diffusion.draw(parts, inputs, list(trials.noise_keys), samples, self.seed)
        return [self.as_images(trials.stimuli, pictures[:, s]) for s in range(samples)]


def _tensor(pixels: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(pixels)


def _digest(betas: dict[str, Any]) -> str:
    """Digest of arrays by their values, and of stores by the key of their rows, which are too many to be read for it."""
    contents = {}
    for name, rows in betas.items():
        if isinstance(rows, np.ndarray):
            contents[name] = rows
        else:
            contents[name] = rows.store.record["key"]

    return digest_of(contents)


class AdaptTraining(MaskedTraining):
    """How phase 2 is trained; the defaults are 15 epochs of GOD's 1,800 test responses."""

    steps: int = Field(default=1690, ge=1)
    batch_size: int = Field(default=16, ge=1)
    lr: float = Field(default=5.3e-5, gt=0)
    warmup: int = Field(default=225, ge=0, description="2 epochs")


class EncodingTraining(lea.RoiMaeTraining):
    """How the decoder learns to predict responses. LEA says nothing of it; the defaults are those of its own autoencoder."""


class MindVisConfig(LatentDiffusionConfig):
    """Configuration of `MindVis`."""

    kind: Literal["mind_vis"] = "mind_vis"
    adapt_training: AdaptTraining | None = Field(
        default=AdaptTraining(),
        description="on the test responses, in setting relax; none lets phase 1 learn from them",
    )
    clip: ClipConfig = Field(default=ClipConfig(), description="whose latents responses are predicted from")
    encoding: EncodingTraining | None = Field(
        default=EncodingTraining(),
        description="on pairs, to predict responses; none for decoding only, which needs no CLIP",
    )


class MindVis(LatentDiffusion[MindVisConfig]):
    """A masked autoencoder of responses whose encoder conditions a latent diffusion; its decoder predicts responses.

    Attributes
    ----------
    encoding_ : FedDecoderPart
        CLIP latents to standardised betas, where it is asked for
    """

    stages = (
        STANDARDISE,
        GENERATOR,
        replace(BRAIN, settings=(*_PHASE_1, "adapt_training")),
        TUNED,
        Stage(
            "encoding", FedDecoderPart, needs=("standardise", "brain"), settings=("rows", "encoding"), uses=(train,),
            weights=lambda recipe: (recipe.clip.spec(),), when=lambda config: config.encoding is not None,
        ),
    )  # fmt: skip
    presets = {  # noqa: RUF012  a constant
        "lab": {
            **LAB,
            "adapt_training": {"steps": 60, "batch_size": 16, "lr": 5e-4, "warmup": 6},
            "clip": {"name": "lab"},
            "encoding": {"steps": 800, "batch_size": 64, "lr": 2e-3, "warmup": 80, "clip_norm": 1.0},
        },
        "paper": {"brain": {"sparsify": 0.2}},
    }
    encoding_: FedDecoderPart

    @classmethod
    def can_encode(cls, config: RecipeConfig | None = None) -> bool:
        """Unless ``config.encoding`` is left out."""
        return getattr(config, "encoding", True) is not None

    def fit_brain(self, trials: Trials) -> PatchMaePart:
        """Phases 1 and 2: the autoencoder on responses alone, then on the test responses that setting relax lets it see."""
        settings = self.config.adapt_training
        if settings is None:
            return self.autoencoder.fit(self, trials)

        # Unpaired responses of this subject are those to the test pictures; they are kept for phase 2.
        others = [responses for responses in self.unpaired if responses.subject != trials.subject]
        test = [responses for responses in self.unpaired if responses.subject == trials.subject]
        part = self.autoencoder.fit(self, trials, others)

        for responses in test:
            betas = {str(trials.subject): self.autoencoder.rows(self.standardised(responses))}
            network = part.module
            self.train(network, *subject_batches(betas), settings, data=digest_of(betas), part="adapt")
            part = PatchMaePart.of(network.cpu())

        return part

    def fit_encoding(self, trials: Trials, stimuli: Stimuli) -> FedDecoderPart:
        """The decoder of phase 1, fed with CLIP latents of the pictures shown."""
        import torch

        from phosphene.models import FedDecoder

        settings = self.config.encoding
        assert settings is not None  # there is no such stage then

        responses = self.standardised(trials)
        if self.config.rows == "averaged":
            responses = responses.average_repeats()

        # CLIP embeds each picture once, however often it was shown.
        ids = responses.stimulus_ids
        latents = self.clip.transform(stimuli.select(ids), cache_folder())  # (n_stimuli, d)
        latents = latents[pd.Index(ids).get_indexer(responses.stimuli)]  # (n_trials, d)
        network = FedDecoder.of(self.brain_.module, latents.shape[1], self.seed)

        def fetch(rows: np.ndarray) -> dict[str, Any]:
            return {"latents": torch.from_numpy(latents[rows]), "betas": torch.from_numpy(responses.betas[rows])}

        data = digest_of(responses.betas, latents)
        self.train(network, fetch, len(responses), settings, data=data, part="encoding")

        return FedDecoderPart.of(network.cpu())

    def encode(self, stimuli: Stimuli) -> Trials:
        """Image to brain: one predicted response per stimulus, in the units of the training betas."""
        if not self.can_encode(self.config):
            raise ConfigError("this run only decodes: recipe.encoding is null. Fit again with a training there.")

        predicted = self.encoding_.from_latent(self.clip.transform(stimuli, cache_folder()))
        return self.predicted_trials(stimuli, self.standardise_.inverse(predicted))

    @property
    def clip(self) -> ClipFeatures:
        """The CLIP whose latents responses are predicted from."""
        return ClipFeatures(self.config.clip.name, revision=self.config.clip.revision)
