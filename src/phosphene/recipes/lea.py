"""LEA: an autoencoder of fMRI and CLIP, tied by ridge both ways; MaskGIT draws.

Paper: Qian et al. 2024, TMLR, "LEA: Learning Latent Embedding Alignment Model for fMRI Decoding and Encoding".

    decode   betas -> autoencoder -> latent -> ridge -> CLIP latent -> MaskGIT -> codes -> picture
    encode   picture -> CLIP latent -> ridge -> latent -> autoencoder -> betas

In the paper's order:

1. ``brain``: a masked autoencoder of responses, region by region (:mod:`phosphene.models.roi_mae`). It learns from
   responses alone; its latent is what fMRI is aligned by.
2. ``align``: one ridge from its latent to the CLIP latent of the picture shown, and one back.
3. ``generator``: MaskGIT, conditioned on CLIP latents, draws the codes of a picture, which the tokenizer turns into pixels.

Where paper and public code differ, the code is followed, but for three things. Voxels are standardised one by one from
training trials (code: two scalars, and test betas left raw). Moments of predictions come from left-out training rows
(code: from the test set). And in setting ``strict`` nothing is fitted to a test response. The preset
``lea-code`` has all three as the code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
from pydantic import Field, model_validator

from phosphene.align.aligner import AlignConfig, Aligner
from phosphene.align.moments import Moments
from phosphene.align.ridge import Ridge
from phosphene.data.standardise import Standardiser
from phosphene.errors import ConfigError
from phosphene.features import cache_folder
from phosphene.features.clip import ClipFeatures
from phosphene.io.config import Config
from phosphene.models.maskgit import MaskGitPipeline, MaskGitSampling
from phosphene.models.roi_mae import RoiMaeConfig, RoiMaePart, roi_partition, subject_batches
from phosphene.recipes.base import STANDARDISE, Recipe, RecipeConfig, Stage, Weights
from phosphene.recipes.components import BrainModel, Generator
from phosphene.training.loop import train
from phosphene.training.settings import TrainConfig
from phosphene.types import Images, Latents, Stimuli, Trials, digest_of

PAPER_CLIP = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


class ClipConfig(Config):
    """Which CLIP."""

    name: str = Field(default=PAPER_CLIP, description="lab, a folder, or a name on the hub")
    revision: str | None = Field(default=None, description="commit on the hub")


class ImageTraining(TrainConfig):
    """How MaskGIT is trained on from what it starts with; section 4.1 of the paper and its configuration."""

    steps: int = Field(default=300_000, ge=1)
    batch_size: int = Field(default=8, ge=1)
    lr: float = Field(default=5e-5, gt=0)
    warmup: int = Field(default=20_000, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "linear"
    adam_betas: tuple[float, float] = (0.9, 0.95)


class MaskGitSource(Config):
    """Where MaskGIT and its tokenizer come from, and whether training goes on."""

    source: Literal["zoo", "public"] = Field(
        default="public", description="the lab's networks, or files of the public ones"
    )
    transformer: str | None = Field(default=None, description="file of the public transformer")
    tokenizer: str | None = Field(default=None, description="file of the public tokenizer")
    training: ImageTraining | None = Field(
        default=ImageTraining(), description="on the training pictures; none leaves it as it is"
    )
    flip: bool = Field(
        default=True, description="train on mirrored pictures as well, each with the CLIP latent of its mirror"
    )
    crops: int = Field(
        default=0,
        ge=0,
        description="random crops of each training picture to train on as well, each with its own CLIP latent",
    )
    ported: bool = Field(
        default=False,
        description="public networks with epsilons and GELU of LEA's PyTorch port, not of the original JAX code",
    )


class MaskGitSettings(Config):
    """Settings of MaskGIT and of the CLIP whose latents it draws from. The defaults are LEA's."""

    clip: ClipConfig = ClipConfig()
    generator: MaskGitSource = MaskGitSource()
    sampling: MaskGitSampling = MaskGitSampling()


LAB_MASKGIT: dict[str, Any] = {
    "clip": {"name": "lab"},
    "generator": {"source": "zoo", "training": None},
    "sampling": {"temperature": 1.5},  # the published 4.5 leaves 64 codes less sure of what they show
}
"""Values of the preset ``lab``: the zoo's networks as they are."""

PAPER_MASKGIT: dict[str, Any] = {"generator": {"crops": 4}}
"""Values of the preset ``paper``: random crops, by 20 % of each side as in MinD-Vis, because the paper gives no size. Four
crops of each picture and of its mirror are made once, each with its CLIP latent; the paper may have cut anew at each step."""


class MaskGitGenerator(Generator):
    """LEA's generator: MaskGIT, conditioned on a CLIP latent.

    Parameters
    ----------
    settings : MaskGitSettings
        or any configuration with its fields
    """

    inputs = ("clip",)
    parts = {"generator": MaskGitPipeline}  # noqa: RUF012  a constant

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.clip = ClipFeatures(settings.clip.name, revision=settings.clip.revision)

    @property
    def side(self) -> int:
        """Pixels along a side of its pictures."""
        return {"zoo": 32, "public": 256}[self.settings.generator.source]

    @property
    def corpora(self) -> tuple[str, ...]:
        """ImageNet, or the lab's worlds."""
        if self.settings.generator.source == "zoo":
            return ("lab",)

        return ("maskgit-imagenet",)

    @property
    def samples(self) -> int:
        """Pictures it draws for each row."""
        return self.settings.sampling.samples

    def weights(self) -> Iterable[Weights | None]:
        """Of both networks, and of CLIP where training goes on."""
        c = self.settings.generator
        if c.source == "zoo":
            files: list[Weights | None] = ["maskgit", "vq"]
        else:
            files = [Path(file) for file in (c.transformer, c.tokenizer) if file is not None]

        if c.training is not None:
            files.append(self.clip.spec())

        return files

    def latent_weights(self) -> Iterable[Weights | None]:
        """Of CLIP."""
        return (self.clip.spec(),)

    def load(self, recipe: Recipe[Any], stimuli: Stimuli | None = None) -> dict[str, Any]:
        """MaskGIT, as it comes or trained on with pictures."""
        c = self.settings.generator
        if c.source == "zoo":
            generator = MaskGitPipeline.bundled()
        else:
            transformer = _file(c.transformer, "transformer")
            tokenizer = _file(c.tokenizer, "tokenizer")
            generator = MaskGitPipeline.from_public(transformer, tokenizer, recipe.seed, ported=c.ported)

        if c.training is not None:
            assert stimuli is not None  # the stage reads them then
            pixels = stimuli.resized((generator.size, generator.size))
            embed = self.clip.images  # of whatever is cut from them, so that a crop has the latent of the crop
            generator.learn(pixels, embed, c.training, recipe.train, flip=c.flip, crops=c.crops, seed=recipe.seed)

        return {"generator": generator}

    def true_inputs(self, stimuli: Stimuli) -> dict[str, np.ndarray]:
        """CLIP latents of the pictures."""
        return {"clip": self.image_latents(stimuli)}

    def draw(
        self, parts: Mapping[str, Any], inputs: Mapping[str, np.ndarray], ids: Sequence[str], samples: int, seed: int
    ) -> np.ndarray:
        """Pictures from CLIP latents."""
        sampling = self.settings.sampling.model_copy(update={"samples": samples})
        return parts["generator"].sample(inputs["clip"], list(ids), sampling, seed)

    def spaces(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """CLIP latents under the name of that CLIP."""
        return {self.clip.space: inputs["clip"]}

    def true_spaces(self, stimuli: Stimuli) -> dict[str, np.ndarray]:
        """CLIP latents of the pictures themselves."""
        return {self.clip.space: self.image_latents(stimuli)}

    @property
    def fixed_spaces(self) -> frozenset[str]:
        """CLIP latents mean the same whatever the training trials."""
        return frozenset({self.clip.space})

    def texts(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """CLIP latents of texts."""
        return {self.clip.space: self.clip.texts(list(texts))}

    def image_latents(self, stimuli: Stimuli) -> np.ndarray:
        """CLIP latents of pictures, (n, d) float32."""
        return self.clip.transform(stimuli, cache_folder())

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """CLIP latents of drawn pictures."""
        return self.clip.images(pixels)


class ClipToMaskGitConfig(RecipeConfig, MaskGitSettings):
    """What the recipes share that decode CLIP latents for MaskGIT to draw from."""


P = TypeVar("P", bound=ClipToMaskGitConfig)


class ClipToMaskGit(Recipe[P]):
    """Brain to CLIP latents, from which MaskGIT draws; a subclass says how, in `clip_latents`.

    Attributes
    ----------
    generator_ : MaskGitPipeline
        CLIP latents to pictures
    """

    generator_: MaskGitPipeline

    def clip_latents(self, trials: Trials) -> np.ndarray:
        """Brain to CLIP latents, (n, d) float32; `trials` are checked already."""
        raise NotImplementedError

    @cached_property
    def maskgit(self) -> MaskGitGenerator:
        """The generator, and the CLIP whose latents it draws from."""
        return MaskGitGenerator(self.config)

    def generators(self) -> tuple[str, ...]:
        """MaskGIT, the lab's or the public one."""
        return self.maskgit.corpora

    def fit_generator(self, stimuli: Stimuli | None = None) -> MaskGitPipeline:
        """MaskGIT, as it comes or trained on with the pictures of the training stimuli."""
        return self.maskgit.load(self, stimuli)["generator"]

    # -- the arrows ------------------------------------------------------------------------------------------------

    def decode(self, trials: Trials) -> Images:
        """Brain to image: the first sample for each row of `trials`, 0-1."""
        return self._drawn(trials.noise_keys, self._decoded(trials), samples=1, ids=trials.stimuli)[0]

    def decode_samples(self, trials: Trials) -> list[Images]:
        """All samples, ``config.sampling.samples`` of them; the first is what `decode` gives."""
        return self._drawn(trials.noise_keys, self._decoded(trials), self.maskgit.samples, ids=trials.stimuli)

    def latents(self, trials: Trials) -> Latents:
        """Decoded CLIP latents, one row per trial."""
        return Latents(trials.stimuli, self.maskgit.spaces({"clip": self._decoded(trials)}))

    def true_latents(self, stimuli: Stimuli) -> Latents:
        """CLIP latents of the pictures themselves."""
        return Latents(stimuli.ids, self.maskgit.true_spaces(stimuli))

    def text_latents(self, texts: Sequence[str]) -> Latents:
        """CLIP latents of texts."""
        return Latents(np.asarray(list(texts), dtype=object), self.maskgit.texts(texts))

    def ceiling(self, stimuli: Stimuli) -> Images:
        """Pictures drawn from the true CLIP latents: what is lost before any brain comes in."""
        return self._drawn(stimuli.ids, self.maskgit.image_latents(stimuli), samples=1, ids=stimuli.ids)[0]

    @property
    def fixed_spaces(self) -> frozenset[str]:
        """CLIP latents mean the same whatever the training trials."""
        return self.maskgit.fixed_spaces

    def picture_shape(self, stimuli: Stimuli) -> tuple[int, int, int]:
        """(height, width, channels) of a decoded picture: the generator's size."""
        return self.maskgit.side, self.maskgit.side, stimuli.image_shape[2]

    def _decoded(self, trials: Trials) -> np.ndarray:
        self.check_trials(trials)
        return self.clip_latents(trials)

    def _drawn(self, keys: np.ndarray, latents: np.ndarray, samples: int, *, ids: np.ndarray) -> list[Images]:
        parts = {"generator": self.generator_}
        pictures = self.maskgit.draw(parts, {"clip": latents}, list(keys), samples, self.seed)
        return [self.as_images(ids, pictures[:, s]) for s in range(samples)]


def _reads(config: Any) -> tuple[Literal["stimuli"], ...]:
    if config.generator.training is None:
        return ()

    return ("stimuli",)


MASKGIT = Stage(
    "generator",
    MaskGitPipeline,
    needs=(),
    # Where its files lie is no matter: their contents count.
    settings=("generator.source", "generator.training", "generator.flip", "generator.crops", "generator.ported"),
    reads=_reads,
    uses=(train,),
    weights=lambda recipe: recipe.maskgit.weights(),
)
"""MaskGIT, which reads pictures where training goes on and nothing where it is taken as it comes."""


def _file(path: str | None, what: str) -> Path:
    if path is None:
        raise ConfigError(
            f"the public {what} of MaskGIT is not part of phosphene; fetch it and give its place, "
            f"recipe.generator.{what}=FILE (docs/lea.md says from where), or use the lab's with --preset lab."
        )

    return Path(path)


class RoiMaeTraining(TrainConfig):
    """How the autoencoder is trained; the defaults are those of the GOD configuration."""

    steps: int = Field(
        default=100_000, ge=1, description="100k in the paper; the BOLD5000 configuration says 120k at a lr of 5e-6"
    )
    batch_size: int = Field(default=8, ge=1)
    lr: float = Field(default=5e-5, gt=0)
    warmup: int = Field(default=8000, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "linear"
    adam_betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float | None = Field(default=0.1, gt=0)


class RoiMaeSettings(Config):
    """Settings of LEA's autoencoder."""

    rois: tuple[str, ...] | None = Field(
        default=None, description="order in which ROIs take their voxels; as in the data"
    )
    brain: RoiMaeConfig = RoiMaeConfig()
    brain_rows: Literal["trials", "averaged"] = Field(
        default="trials", description="what the autoencoder is trained on: single trials, or repeats averaged"
    )
    brain_training: RoiMaeTraining = RoiMaeTraining()


class RoiMaeBrain(BrainModel):
    """LEA's autoencoder of regions: one latent for a response, and back.

    Parameters
    ----------
    settings : RoiMaeSettings
        or any configuration with its fields
    init : str, optional
        file of the public SC-MBM checkpoint that it starts from
    recompute : bool, default False
        compute each block twice in training, to save memory
    """

    uses = (train, RoiMaePart)
    is_invertible = True

    def __init__(self, settings: Any, init: str | None = None, recompute: bool = False) -> None:
        self.settings = settings
        self.init = init
        self.recompute = recompute

    def weights(self) -> Iterable[Weights | None]:
        """The checkpoint it starts from, where there is one."""
        if self.init is None:
            return ()

        return (Path(self.init),)

    def fit(self, recipe: Recipe[Any], trials: Trials, units: Callable[[Trials], Trials] | None = None) -> RoiMaePart:
        """Fit to responses: first over all subjects that share its trunk, then on the subject of `trials`.

        Parameters
        ----------
        recipe : Recipe
            whose stage ``standardise`` is fitted
        trials : Trials
            training trials, as measured
        units : callable, optional
            puts unpaired responses of the same subject into the units of the autoencoder; standardises them by default

        Returns
        -------
        RoiMaePart
            of that subject alone
        """
        from phosphene.models import RoiMae

        c = self.settings
        subject = str(trials.subject)
        units = units or recipe.standardised
        rows = [self._rows(recipe.standardised(trials))]
        others = {}
        groups = {subject: list(roi_partition(trials, c.rois).values())}

        for responses in recipe.unpaired:
            if responses.subject == subject:
                rows.append(self._rows(units(responses)))
            else:
                # The recipe's Standardiser is of this subject's voxels; another person's need their own.
                standardiser = Standardiser(pooled=recipe.standardiser().pooled).fit(responses)
                others[str(responses.subject)] = self._rows(standardiser.transform(responses))
                groups[str(responses.subject)] = list(roi_partition(responses, c.rois).values())

        network = RoiMae.create(c.brain, groups, recipe.seed, recompute=self.recompute)
        if self.init is not None:
            from phosphene.models.sc_mbm import load_sc_mbm, read_sc_mbm

            load_sc_mbm(network, read_sc_mbm(self.init))

        betas = {subject: np.concatenate(rows)}
        if others:
            self._train(recipe, network, betas | others)
            network = network.with_subjects({subject: groups[subject]}, recipe.seed)

        self._train(recipe, network, betas)
        return RoiMaePart.of(network.cpu())

    def features(self, part: RoiMaePart, betas: np.ndarray) -> np.ndarray:
        """(n, n_voxels) standardised responses to latents, (n, latent)."""
        return part.to_latent(betas)

    def responses(self, part: RoiMaePart, features: np.ndarray) -> np.ndarray:
        """(n, latent) back to (n, n_voxels) standardised responses."""
        return part.from_latent(features)

    def _rows(self, trials: Trials) -> np.ndarray:
        if self.settings.brain_rows == "averaged":
            trials = trials.average_repeats()

        return trials.betas

    def _train(self, recipe: Recipe[Any], network: Any, betas: dict[str, np.ndarray]) -> None:
        fetch, n = subject_batches(betas)
        recipe.train(network, fetch, n, self.settings.brain_training, data=digest_of(betas), part="-".join(betas))


class LeaConfig(ClipToMaskGitConfig, RoiMaeSettings):
    """Configuration of `Lea`."""

    kind: Literal["lea"] = "lea"
    norm: Literal["voxel", "legacy"] = Field(
        default="voxel",
        description="voxels standardised one by one; or, as LEA's code for GOD, training betas by one mean and spread of "
        "all entries and what is decoded left raw",
    )
    recompute: bool = Field(default=False, description="compute each block twice in training, to save memory")
    init: str | None = Field(
        default=None, description="file of the public SC-MBM checkpoint that the autoencoder starts from"
    )
    init_is_clean: bool = Field(
        default=False, description="whether it is known that no test response of this subject is in it"
    )
    pretrain: tuple[str, ...] = Field(
        default=(), description="other subjects that share the trunk in a training before the own"
    )
    align: AlignConfig = AlignConfig()

    @property
    def other_subjects(self) -> tuple[str, ...]:
        """Subjects whose responses the trunk is trained on first."""
        return self.pretrain

    @model_validator(mode="after")
    def _strict_is_strict(self) -> Self:
        if self.setting == "strict" and "test" in (self.align.moments, self.align.moments_if):
            raise ValueError("moments 'test' looks at test responses; say so with setting=relax, or use 'train_oof'")
        if self.norm == "legacy" and self.per_session:
            raise ValueError("norm 'legacy' takes one mean and spread for all sessions; leave out per_session")

        if self.setting == "strict" and self.init is not None and not self.init_is_clean:
            raise ValueError(
                "the public SC-MBM checkpoint has seen responses of the GOD subjects and may have seen test responses; use "
                "setting=relax, or init_is_clean=true for one that is known not to"
            )

        return self


class Lea(ClipToMaskGit[LeaConfig]):
    """An autoencoder of responses and CLIP, tied by ridge both ways; MaskGIT draws from the CLIP latent.

    Attributes
    ----------
    standardise_ : Standardiser
        of the voxels
    brain_ : RoiMaePart
        standardised betas to latent and back
    align_ : Aligner
        of brain latents and CLIP latents
    generator_ : MaskGitPipeline
        CLIP latents to pictures
    """

    stages = (
        replace(STANDARDISE, settings=("norm", "per_session")),
        Stage(
            "brain", RoiMaePart, needs=("standardise",),
            settings=("setting", "rois", "brain", "brain_rows", "brain_training", "pretrain"), reads=("trials",),
            learns_unpaired=True, uses=RoiMaeBrain.uses, weights=lambda recipe: recipe.autoencoder.weights(),
        ),
        Stage(
            "align", Aligner, needs=("standardise", "brain"), settings=("align",), uses=(Ridge, Moments),
            weights=lambda recipe: recipe.maskgit.latent_weights(),
        ),
        MASKGIT,
    )  # fmt: skip
    presets = {  # noqa: RUF012  a constant
        "lab": {
            **LAB_MASKGIT,
            "brain": {
                **RoiMaeConfig.preset("lab"), "roi_heads": 2, "augment": "noise", "latent": 128,
                "width": 128, "depth": 1, "heads": 8, "decoder_width": 128, "decoder_heads": 8,
            },
            "brain_rows": "averaged",
            "brain_training": {"steps": 1600, "batch_size": 64, "lr": 3e-3, "warmup": 160, "clip_norm": 1.0},
            "align": {"alpha_fi": None, "alpha_if": None, "intercept_fi": True},
        },
        "paper": PAPER_MASKGIT,  # the sizes for GOD
        "bold": {**PAPER_MASKGIT, "brain_training": {"steps": 120_000, "lr": 5e-6}},  # BOLD5000
        "lea-code": {  # as the authors' code, which looks at test responses
            "setting": "relax",
            "norm": "legacy",
            "align": {"moments": "test"},
            "generator": {**PAPER_MASKGIT["generator"], "ported": True},
        },
    }  # fmt: skip

    @property
    def autoencoder(self) -> RoiMaeBrain:
        """The model of responses, as the configuration asks for it."""
        return RoiMaeBrain(self.config, self.config.init, self.config.recompute)

    def standardiser(self) -> Standardiser:
        """By voxel; in norm ``legacy`` by one mean and standard deviation of all voxels together."""
        return Standardiser(per_session=self.config.per_session, pooled=self.config.norm == "legacy")

    # -- stages, in order ------------------------------------------------------------------------------------------

    def fit_brain(self, trials: Trials) -> RoiMaePart:
        """The autoencoder, on responses alone: first over all subjects that share its trunk, then on this subject."""
        return self.autoencoder.fit(self, trials, self._in_brain_units)

    def fit_align(self, trials: Trials, stimuli: Stimuli) -> Aligner:
        """Ridge both ways between latents of responses (repeats averaged) and of the pictures shown."""
        averaged = self.averaged(trials)
        brain = self.brain_.to_latent(averaged.betas)  # (n_stimuli, latent)
        image = self.maskgit.image_latents(stimuli.select(averaged.stimuli))  # (n_stimuli, d)

        return Aligner(self.config.align).fit(brain, image, self.rng("moments"))

    # -- the arrows ------------------------------------------------------------------------------------------------

    def encode(self, stimuli: Stimuli) -> Trials:
        """Image to brain: one predicted response per stimulus, in the units of the training betas."""
        latents = self.align_.image_to_brain(self.maskgit.image_latents(stimuli))  # (n_stimuli, latent)
        standardised = self.brain_.from_latent(latents)  # (n_stimuli, n_voxels)

        return self.predicted_trials(stimuli, self.standardise_.inverse(standardised))

    def clip_latents(self, trials: Trials) -> np.ndarray:
        """Brain to CLIP latents, (n, d) float32."""
        latents = self.brain_.to_latent(self._in_brain_units(trials).betas)  # (n_trials, latent)
        return self.align_.brain_to_image(latents)  # (n_trials, d)

    def conditions(self) -> dict[str, str]:
        """Where mean and standard deviation of predictions come from, both ways, and how betas are standardised."""
        c = self.config
        back = self.config.align.moments_if or self.config.align.moments
        return {"moments": _MOMENTS[c.align.moments], "moments_if": _MOMENTS[back], "norm": _NORM[c.norm]}

    def _in_brain_units(self, trials: Trials) -> Trials:
        """Responses that are not for training, in the units that the autoencoder gets them in."""
        # LEA's code standardises what it decodes by the mean and standard deviation of training betas that are standardised
        # already, 0 and 1: it stays raw. Predicted responses are in the units of the training betas and have to be standardised.
        is_raw = self.config.norm == "legacy" and "predicted_by" not in trials.provenance
        if is_raw:
            return trials

        return self.standardised(trials)


_MOMENTS: dict[str, str] = {
    "train_oof": "train_oof (of left-out training rows)", "test": "test (of the test batch)", "none": "none (as they come)",
}  # fmt: skip

_NORM: dict[str, str] = {
    "voxel": "voxel (by its training mean and spread)", "legacy": "legacy (two scalars in training, test betas left raw)",
}  # fmt: skip
