"""Brain-Diffuser: ridge to a Very Deep VAE's latents and to CLIP's tokens; dual-guided diffusion refines.

Paper: Ozcelik and VanRullen 2023, Scientific Reports, "Natural scene reconstruction from fMRI signals using generative
latent diffusion".

    stage 1  betas -> first groups of VDVAE latents -> blurry picture
    stage 2  betas -> CLIP tokens of the picture, CLIP tokens of its captions
             blurry picture, both kinds of tokens -> dual-guided diffusion -> picture

Ridges are ``first``, ``vision`` and ``text``; the networks, which are not trained, are ``vdvae`` and ``generator``. The
diffusion does not start from noise but from the blurry picture, noised in part, so that the layout stays and details come from
the tokens. Where paper and code differ, docs/two_stage.md lists what is done here. Decoding only.

From top to bottom: settings; `TwoStageGenerator`, both networks as a generator that a mix can use as well; `TwoStage`, what
this paper shares with :mod:`phosphene.recipes.gru_two_stage`, which differs in the map from betas to VDVAE latents
(`fit_first`); `BrainDiffuser`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, cast

import numpy as np
from pydantic import Field, model_validator

from phosphene.align.moments import Mode
from phosphene.data.splits import inner_folds
from phosphene.errors import ConfigError
from phosphene.features import cache_folder
from phosphene.features.clip import ClipFeatures
from phosphene.features.vdvae_latents import VdvaeFeatures
from phosphene.io.config import Config
from phosphene.io.store import StoredRows
from phosphene.models import bundled
from phosphene.models import vdvae as vdvae_weights
from phosphene.models.dual_guided import DualGuided, RefineConfig, unconditional
from phosphene.models.vdvae import Vdvae, VdvaeDecoder, VdvaePart
from phosphene.recipes.base import STANDARDISE, Recipe, RecipeConfig, Stage, Weights
from phosphene.recipes.components import Generator, LatentMap
from phosphene.recipes.maps import Predictor, RidgeMap
from phosphene.types import Images, Latents, Stimuli, Trials

PAPER_CLIP = "openai/clip-vit-large-patch14"
DECODED_BYTES = 256 << 20  # of latents decoded at a time
STREAM_ABOVE = 200_000_000  # numbers, 0.8 GB in float32
TOGETHER = 40  # pictures, whole batches of both networks


class FirstStageConfig(Config):
    """VDVAE latents: which, and how they become a picture."""

    network: str = Field(default="", description="lab, or a folder with the converted public weights")
    groups: int | None = Field(
        default=None, ge=1, description="first groups that are predicted; 15 (or 31) of the public 75"
    )
    target: Literal["mean", "sample"] = Field(
        default="mean", description="of the posterior; sampled in the published code"
    )
    temperature: float = Field(default=1.0, ge=0, description="of groups that are not predicted; 0 draws nothing")
    pixels: Literal["sample", "mean"] = Field(
        default="sample", description="drawn from the mixture as published, or its mean"
    )


class TokensConfig(Config):
    """CLIP tokens and the penalties of the ridges that predict them."""

    name: str = Field(default=PAPER_CLIP, description="lab, a folder, or a name on the hub")
    revision: str | None = Field(default=None, description="commit on the hub")
    alpha_vision: float | None = Field(
        default=None, gt=0, description="penalty; chosen by leave-one-out where none is given"
    )
    alpha_text: float | None = Field(default=None, gt=0, description="likewise")


class DualGuidedSource(Config):
    """Where the diffusion network comes from."""

    source: Literal["zoo", "folder"] = Field(
        default="folder", description="the lab's, or Versatile Diffusion in a folder"
    )
    folder: str | None = Field(
        default=None, description="with image_unet, text_unet, vae and scheduler, as diffusers lays them out"
    )


class TwoStageSettings(Config):
    """Settings of both generators: the Very Deep VAE, and the diffusion after it."""

    first: FirstStageConfig = FirstStageConfig()
    tokens: TokensConfig = TokensConfig()
    generator: DualGuidedSource = DualGuidedSource()
    sampling: RefineConfig = RefineConfig()


class TwoStageConfig(RecipeConfig, TwoStageSettings):
    """What the configurations of the two-stage recipes share."""

    restandardise: Mode = Field(
        default="train_oof",
        description="mean and spread of predictions: those of left-out training rows, of the test batch (published code, "
        "setting relax), or left as they are",
    )
    n_folds: int = Field(default=5, ge=2, description="folds over training stimuli for restandardise=train_oof")
    stream_above: int = Field(
        default=STREAM_ABOVE,
        ge=0,
        description="stimuli x targets beyond which a ridge reads its targets from the feature store whenever it "
        "predicts, in place of keeping coefficients; only where PHOSPHENE_CACHE names a folder",
    )

    @model_validator(mode="after")
    def _strict_is_strict(self) -> Self:
        if self.setting == "strict" and self.restandardise == "test":
            raise ValueError(
                "restandardise 'test' looks at test responses; say so with setting=relax, or use 'train_oof'"
            )

        return self


LAB: dict[str, Any] = {
    "first": {"network": "lab", "temperature": 0.0, "pixels": "mean"},
    "tokens": {"name": "lab"},
    "generator": {"source": "zoo"},
    # Temperature, guidance and strength were chosen on 64 training pictures left out of a fit (docs/two_stage.md).
    "sampling": {"steps": 20, "strength": 0.4, "guidance": 3.0},
}
"""Values of the preset ``lab``."""

_CLIP_SIDE: dict[str, Literal["images", "captions"]] = {"vision": "images", "text": "captions"}


class TwoStageGenerator(Generator):
    """Brain-Diffuser's generators: a blurry picture from VDVAE latents, refined under CLIP tokens; or either alone.

    Parameters
    ----------
    settings : TwoStageSettings
        or any configuration with its fields
    seed : int, default 0
        of latents that are sampled
    halves : tuple of str, default ("first", "second")
        which there are: ``first`` alone draws blurry pictures, ``second`` alone starts from noise
    stream_above : int, default 200,000,000
        stimuli x targets beyond which targets are rows of a store
    """

    def __init__(
        self,
        settings: Any,
        seed: int = 0,
        halves: tuple[str, ...] = ("first", "second"),
        stream_above: int = STREAM_ABOVE,
    ) -> None:
        self.settings = settings
        self.seed = seed
        self.halves = halves
        self.stream_above = stream_above
        self.parts: dict[str, Any] = {}
        inputs: list[str] = []

        if "first" in halves:
            self.parts["vdvae"] = VdvaePart
            inputs.append("first")

        if "second" in halves:
            self.parts["generator"] = DualGuided
            inputs += ["vision", "text"]

        self.inputs = tuple(inputs)

    @cached_property
    def clip(self) -> ClipFeatures:
        """The CLIP whose tokens the second stage draws from."""
        return ClipFeatures(self.settings.tokens.name, revision=self.settings.tokens.revision, output="tokens")

    @cached_property
    def pooled(self) -> ClipFeatures:
        """The same CLIP, one latent for a picture."""
        return ClipFeatures(self.settings.tokens.name, revision=self.settings.tokens.revision)

    @cached_property
    def vdvae(self) -> VdvaeFeatures:
        """The Very Deep VAE whose latents the first stage draws from."""
        c = self.settings.first
        if not c.network:
            raise ConfigError(
                "the public Very Deep VAE is not part of phosphene; convert its checkpoint and give the folder, "
                "recipe.first.network=DIR (docs/two_stage.md says how), or use the lab's with --preset lab."
            )

        return VdvaeFeatures(c.network, groups=c.groups, target=c.target, seed=self.seed)

    @property
    def side(self) -> int:
        """Pixels along a side of its pictures."""
        if "second" not in self.halves:
            return self.vdvae.config.image_size

        return {"zoo": 32, "folder": 512}[self.settings.generator.source]

    @property
    def corpora(self) -> tuple[str, ...]:
        """Those of both stages."""
        names = []
        if "first" in self.halves and self.settings.first.network == "lab":
            names.append("lab")
        elif "first" in self.halves:
            names.append("vdvae-imagenet64")

        if "second" in self.halves:
            names.append({"zoo": "lab", "folder": "versatile-diffusion"}[self.settings.generator.source])

        return tuple(dict.fromkeys(names))

    def weights(self) -> Iterable[Weights | None]:
        """Of the networks of both halves."""
        if "first" in self.halves:
            yield self.vdvae.spec()
        if "second" in self.halves:
            yield from self.refiner_weights()

    def refiner_weights(self) -> Iterable[Weights | None]:
        """Of the second stage: the diffusion, and CLIP, whose tokens of nothing stand for no condition."""
        c = self.settings.generator
        if c.source == "zoo":
            yield from ("dual_guided", "kl")
        elif c.folder is not None:
            yield Path(c.folder)
            yield self.clip.spec()
            yield self.clip.spec("captions")

    def latent_weights(self) -> Iterable[Weights | None]:
        """Of the networks that make the latents."""
        for name in self.inputs:
            yield self.input_weights(name)

    def input_weights(self, name: str) -> Weights:
        """Of the network that makes one of `inputs`."""
        if name == "first":
            return self.vdvae.spec()

        return self.clip.spec(_CLIP_SIDE[name])

    def load(self, recipe: Recipe[Any], stimuli: Stimuli | None = None) -> dict[str, Any]:
        """The networks of both halves, as they come."""
        parts: dict[str, Any] = {}
        if "first" in self.halves:
            parts["vdvae"] = self.load_first()
        if "second" in self.halves:
            parts["generator"] = self.load_second()

        return parts

    def load_first(self) -> VdvaePart:
        """The Very Deep VAE, as it comes."""
        name = self.vdvae.name
        if name == vdvae_weights.LAB:
            return VdvaePart.of(cast(Vdvae, bundled.load("vdvae")))

        return VdvaePart.of(vdvae_weights.load_vdvae(name))

    def load_second(self) -> DualGuided:
        """The dual-guided diffusion, as it comes."""
        c = self.settings.generator
        if c.source == "zoo":
            return DualGuided.bundled()

        if c.folder is None:
            raise ConfigError(
                "Versatile Diffusion is not part of phosphene; fetch it and give its folder, recipe.generator.folder=DIR "
                "(docs/two_stage.md says from where), or use the lab's with --preset lab."
            )

        return DualGuided.from_folder(Path(c.folder), *unconditional(self.clip))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one of `inputs` for one picture."""
        if name == "first":
            return self.vdvae.shape()

        return self.clip.shape(_CLIP_SIDE[name])

    def target(
        self, name: str, stimuli: Stimuli, recipe: Recipe[Any], streams: bool = False
    ) -> np.ndarray | StoredRows:
        """What a map is to predict, a row per stimulus: (n, d) in memory, or rows of a store where they are too many.

        Parameters
        ----------
        name : str
            one of `inputs`
        stimuli : Stimuli
            with pictures, and captions for ``text``
        recipe : Recipe
            shows progress
        streams : bool, default False
            whether rows of a store will do

        Returns
        -------
        ndarray of shape (n, d) or StoredRows
        """
        if name == "first":
            store = self.vdvae.image_store
            compute = self.vdvae.transform
        elif name == "vision":
            store = self.clip.image_store
            compute = self.clip.transform
        else:
            store = self.clip.caption_mean_store
            compute = self.clip.captions

        cache = cache_folder()
        too_many = len(stimuli) * math.prod(self.shape(name)) > self.stream_above
        if streams and cache is not None and too_many:
            return store(stimuli, cache, recipe.progress).select(stimuli.ids)

        return compute(stimuli, cache).reshape(len(stimuli), -1)  # (n_stimuli, d)

    def true_inputs(self, stimuli: Stimuli) -> dict[str, np.ndarray]:
        """VDVAE latents and CLIP tokens of the pictures themselves."""
        cache = cache_folder()
        inputs = {}
        if "first" in self.halves:
            inputs["first"] = self.vdvae.transform(stimuli, cache)

        if "second" in self.halves:
            inputs["vision"] = self.clip.transform(stimuli, cache)
            inputs["text"] = self.clip.captions(stimuli, cache)

        return inputs

    def draw(
        self, parts: Mapping[str, Any], inputs: Mapping[str, np.ndarray], ids: Sequence[str], samples: int, seed: int
    ) -> np.ndarray:
        """Refined pictures; blurry ones where there is no second stage. There is one sample."""
        blurry = None
        if "first" in self.halves:
            blurry = self.blurry(parts["vdvae"], inputs["first"], ids, seed)

        if "second" not in self.halves:
            assert blurry is not None  # one half at least
            return blurry[:, None]

        refined = self.refined(parts["generator"], blurry, inputs["vision"], inputs["text"], ids, seed)
        return refined[:, None]  # (n, 1, side, side, 3)

    def blurry(self, part: VdvaePart, latents: np.ndarray, ids: Sequence[str], seed: int) -> np.ndarray:
        """Pictures of the first stage, (n, side, side, 3), 0-1.

        Parameters
        ----------
        part : VdvaePart
            the network
        latents : ndarray of shape (n, d)
            of the groups that are predicted
        ids : sequence of str
            stimulus of each row, of which the other groups' draw is a function
        seed : int
            of that draw

        Returns
        -------
        ndarray of shape (n, side, side, 3)
        """
        c = self.settings.first
        decoder = VdvaeDecoder(part.module)
        pictures = decoder.decode(latents, list(ids), seed=seed, temperature=c.temperature, pixels=c.pixels)
        return pictures.clip(0, 1)

    def refined(
        self,
        part: DualGuided,
        blurry: np.ndarray | None,
        vision: np.ndarray,
        text: np.ndarray,
        ids: Sequence[str],
        seed: int,
    ) -> np.ndarray:
        """Pictures of the second stage, 0-1, from blurry ones or, without them, from noise.

        Parameters
        ----------
        part : DualGuided
            the network
        blurry : ndarray of shape (n, height, width, 3) or None
            0-1
        vision, text : ndarray of shape (n, tokens * width)
            CLIP tokens of picture and captions
        ids : sequence of str
            stimulus of each row, of which its noise is a function
        seed : int
            of the noise

        Returns
        -------
        ndarray of shape (n, side, side, 3)
        """
        n = len(ids)
        vision = vision.reshape(n, *self.shape("vision"))  # (n, tokens, context)
        text = text.reshape(n, *self.shape("text"))  # (n, tokens, context)
        return part.refine(blurry, vision, text, list(ids), self.settings.sampling, seed)

    def steps(
        self, parts: Mapping[str, Any], inputs: Mapping[str, np.ndarray], ids: Sequence[str], seed: int
    ) -> dict[str, np.ndarray]:
        """The blurry picture, where it is refined."""
        if len(self.halves) < 2:
            return {}

        return {"first_stage": self.blurry(parts["vdvae"], inputs["first"], ids, seed)}

    def blocks(self, n: int, names: Sequence[str] = ()) -> Iterator[slice]:
        """Rows whose latents are in memory together; the networks see the same batches as without.

        Parameters
        ----------
        n : int
            rows in all
        names : sequence of str, default ()
            which of `inputs` are held; all by default
        """
        numbers = 0
        for name in names or self.inputs:
            numbers += math.prod(self.shape(name))

        together = max(1, DECODED_BYTES // (4 * TOGETHER * numbers)) * TOGETHER
        for start in range(0, max(1, n), together):
            yield slice(start, start + together)

    def spaces(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """VDVAE latents, and the class token of the CLIP tokens, which is the pooled CLIP latent and comes first."""
        arrays = {}
        if "first" in self.halves:
            arrays[self.vdvae.space] = inputs["first"]

        if "second" in self.halves:
            width = self.shape("vision")[1]
            arrays[self.pooled.space] = inputs["vision"][:, :width]  # (n, width)

        return arrays

    def true_spaces(self, stimuli: Stimuli) -> dict[str, np.ndarray]:
        """The same of the pictures themselves."""
        cache = cache_folder()
        return {feature.space: feature.transform(stimuli, cache) for feature in self._features}

    @property
    def fixed_spaces(self) -> frozenset[str]:
        """Latents of frozen networks mean the same whatever the training trials."""
        return frozenset(feature.space for feature in self._features)

    def texts(self, texts: Sequence[str]) -> dict[str, np.ndarray] | None:
        """Pooled CLIP latents of texts, where CLIP takes part."""
        if "second" not in self.halves:
            return None

        return {self.pooled.space: self.pooled.texts(list(texts))}

    def image_latents(self, stimuli: Stimuli) -> np.ndarray:
        """Pooled CLIP latents of pictures; those of the VDVAE where it stands alone."""
        return self._image_feature.transform(stimuli, cache_folder())

    def image_weights(self) -> Iterable[Weights | None]:
        """Of the network that makes `image_latents`."""
        return (self._image_feature.spec(),)

    @property
    def _image_feature(self) -> VdvaeFeatures | ClipFeatures:
        """What responses are predicted from."""
        if "second" in self.halves:
            return self.pooled

        return self.vdvae

    @property
    def _features(self) -> list[VdvaeFeatures | ClipFeatures]:
        """What makes the latents that are scored."""
        features: list[VdvaeFeatures | ClipFeatures] = []
        if "first" in self.halves:
            features.append(self.vdvae)
        if "second" in self.halves:
            features.append(self.pooled)

        return features


T = TypeVar("T", bound=TwoStageConfig)

_MOMENTS = ("restandardise", "n_folds", "setting")
_RIDGE = (*RidgeMap.uses, inner_folds)


class TwoStage(Recipe[T]):
    """A blurry picture from predicted VDVAE latents, then dual-guided diffusion under predicted CLIP tokens.

    Attributes
    ----------
    standardise_ : Standardiser
        of the voxels
    first_ : Predictor
        of VDVAE latents
    vision_, text_ : Predictor
        of CLIP tokens
    vdvae_ : VdvaePart
        latents to the blurry picture
    generator_ : DualGuided
        blurry picture and tokens to the picture
    """

    stages = (
        STANDARDISE,
        Stage(
            "first", Predictor, needs=("standardise",),
            settings=lambda config: (*_MOMENTS, *(config.first_settings)), uses=lambda config: config.first_solvers,
            weights=lambda recipe: (recipe.two_stage.input_weights("first"),),
        ),
        Stage(
            "vision", Predictor, needs=("standardise",), settings=(*_MOMENTS, "tokens.alpha_vision"), uses=_RIDGE,
            weights=lambda recipe: (recipe.two_stage.input_weights("vision"),),
        ),
        Stage(
            "text", Predictor, needs=("standardise",), settings=(*_MOMENTS, "tokens.alpha_text"), uses=_RIDGE,
            weights=lambda recipe: (recipe.two_stage.input_weights("text"),),
        ),
        Stage(
            "vdvae", VdvaePart, needs=(), settings=(), reads=(),
            weights=lambda recipe: (recipe.two_stage.input_weights("first"),),
        ),
        Stage(
            "generator", DualGuided, needs=(), settings=("generator.source",), reads=(),
            weights=lambda recipe: recipe.two_stage.refiner_weights(),
        ),
    )  # fmt: skip

    @cached_property
    def two_stage(self) -> TwoStageGenerator:
        """Both generators, and what they draw from."""
        return TwoStageGenerator(self.config, self.seed, stream_above=self.config.stream_above)

    def generators(self) -> tuple[str, ...]:
        """Those of both stages."""
        return self.two_stage.corpora

    def picture_shape(self, stimuli: Stimuli) -> tuple[int, int, int]:
        """(height, width, channels) of a decoded picture: the generator's size."""
        return self.two_stage.side, self.two_stage.side, stimuli.image_shape[2]

    # -- stages ----------------------------------------------------------------------------------------------------

    def fit_first(self, trials: Trials, stimuli: Stimuli) -> Predictor:
        """Betas to VDVAE latents."""
        raise NotImplementedError

    def fit_vision(self, trials: Trials, stimuli: Stimuli) -> Predictor:
        """Betas to CLIP tokens of the picture, by ridge."""
        return self.fitted("vision", self.ridge(self.config.tokens.alpha_vision), trials, stimuli)

    def fit_text(self, trials: Trials, stimuli: Stimuli) -> Predictor:
        """Betas to CLIP tokens of the captions (their mean), by ridge."""
        return self.fitted("text", self.ridge(self.config.tokens.alpha_text), trials, stimuli)

    def fit_vdvae(self) -> VdvaePart:
        """The network of the first stage, as it comes."""
        return self.two_stage.load_first()

    def fit_generator(self) -> DualGuided:
        """The network of the second stage, as it comes."""
        return self.two_stage.load_second()

    def ridge(self, alpha: float | None) -> RidgeMap:
        """Ridge with a given penalty, or the one that exact leave-one-out chooses."""
        return RidgeMap(alpha, self.config.restandardise, self.config.n_folds)

    def fitted(
        self, name: str, model: LatentMap, trials: Trials, stimuli: Stimuli, groups: Sequence[np.ndarray] = ()
    ) -> Any:
        """A map from standardised betas to what the generators draw from; a row is a stimulus.

        Parameters
        ----------
        name : str
            ``first``, ``vision`` or ``text``
        model : LatentMap
            which map
        trials : Trials
            training trials
        stimuli : Stimuli
            shown in them
        groups : sequence of ndarray, default ()
            voxels that belong together, for maps that walk over them
        """
        averaged = self.averaged(trials)
        targets = self.two_stage.target(name, stimuli.select(averaged.stimuli), self, model.streams)
        return model.fit(self, name, averaged, targets, groups)

    # -- the arrow -------------------------------------------------------------------------------------------------

    def decode(self, trials: Trials) -> Images:
        """Brain to image: the refined picture of each row of `trials`, 0-1."""
        return self.refine(self.first_pictures(trials), trials)

    def first_pictures(self, trials: Trials) -> np.ndarray:
        """What the second stage starts from, as it leaves the first: (n, side, side, 3) float32, 0-1."""
        betas = self._betas(trials)
        keys = list(trials.noise_keys)
        first = self.first_.among(betas)
        parts = []

        for rows in self.two_stage.blocks(len(betas), ("first",)):
            parts.append(self.two_stage.blurry(self.vdvae_, first.predict(betas[rows]), keys[rows], self.seed))

        return np.concatenate(parts)

    def refine(self, first_pictures: np.ndarray | None, trials: Trials) -> Images:
        """The second stage alone, under the tokens decoded from `trials`.

        Parameters
        ----------
        first_pictures : ndarray of shape (n, height, width, 3) or None
            floats, 0-1, of any size, to start from in place of the first stage's own; None starts from pure noise and
            takes all steps
        trials : Trials
            one row per picture

        Returns
        -------
        Images
            0-1; its noise is a function of the noise key alone, so that two first pictures differ in nothing else
        """
        betas = self._betas(trials)
        keys = list(trials.noise_keys)
        vision = self.vision_.among(betas)
        text = self.text_.among(betas)
        parts = []

        for rows in self.two_stage.blocks(len(betas), ("vision", "text")):
            if first_pictures is None:
                first = None
            else:
                first = first_pictures[rows]

            vision_tokens = vision.predict(betas[rows])  # (n_rows, tokens * width)
            text_tokens = text.predict(betas[rows])  # (n_rows, tokens * width)
            pixels = self.two_stage.refined(self.generator_, first, vision_tokens, text_tokens, keys[rows], self.seed)
            parts.append(pixels)

        return self.as_images(trials.stimuli, np.concatenate(parts))

    def first_stage(self, trials: Trials) -> Images:
        """Brain to image, without the second stage."""
        return self.as_images(list(trials.stimuli), self.first_pictures(trials))

    def decode_steps(self, trials: Trials) -> dict[str, Images]:
        """The blurry picture, which is scored as well as the refined one."""
        return {"first_stage": self.first_stage(trials)}

    def latents(self, trials: Trials) -> Latents:
        """Decoded VDVAE latents, and the class token of the decoded CLIP tokens, which is the pooled CLIP latent."""
        betas = self._betas(trials)
        class_token = slice(self.two_stage.shape("vision")[1])  # the columns of the first token
        inputs = {"first": self.first_.predict(betas), "vision": self.vision_.predict(betas, class_token)}
        return Latents(trials.stimuli, self.two_stage.spaces(inputs))

    def true_latents(self, stimuli: Stimuli) -> Latents:
        """The same of the pictures themselves."""
        return Latents(stimuli.ids, self.two_stage.true_spaces(stimuli))

    def text_latents(self, texts: Sequence[str]) -> Latents | None:
        """Pooled CLIP latents of texts."""
        latents = self.two_stage.texts(texts)
        if latents is None:
            return None

        return Latents(np.asarray(list(texts), dtype=object), latents)

    def ceiling(self, stimuli: Stimuli) -> Images:
        """Pictures made from the true latents and tokens: what is lost before any brain comes in."""
        parts = {"vdvae": self.vdvae_, "generator": self.generator_}
        inputs = self.two_stage.true_inputs(stimuli)
        pictures = self.two_stage.draw(parts, inputs, list(stimuli.ids), 1, self.seed)
        return self.as_images(stimuli.ids, pictures[:, 0])

    @property
    def fixed_spaces(self) -> frozenset[str]:
        """Latents of frozen networks mean the same whatever the training trials."""
        return self.two_stage.fixed_spaces

    def _betas(self, trials: Trials) -> np.ndarray:
        self.check_trials(trials)
        return self.standardised(trials).betas


class BrainDiffuserConfig(TwoStageConfig):
    """Configuration of `BrainDiffuser`."""

    kind: Literal["brain_diffuser"] = "brain_diffuser"
    alpha_first: float | None = Field(
        default=None, gt=0, description="penalty towards VDVAE latents (published: 50,000); chosen where none is given"
    )

    @property
    def first_settings(self) -> tuple[str, ...]:
        """Fields that the map to VDVAE latents depends on."""
        return ("alpha_first",)

    @property
    def first_solvers(self) -> tuple[Any, ...]:
        """Solvers of the map to VDVAE latents."""
        return _RIDGE


class BrainDiffuser(TwoStage[BrainDiffuserConfig]):
    """Ridge to VDVAE latents and to CLIP tokens; a blurry picture first, then dual-guided diffusion."""

    presets = {  # noqa: RUF012  a constant
        "lab": LAB,
        "paper": {  # the published penalties and 31 groups
            "first": {"groups": 31},
            "alpha_first": 50_000,
            "tokens": {"alpha_vision": 60_000, "alpha_text": 100_000},
        },
    }

    def fit_first(self, trials: Trials, stimuli: Stimuli) -> Predictor:
        """Betas to VDVAE latents, by ridge."""
        return self.fitted("first", self.ridge(self.config.alpha_first), trials, stimuli)
