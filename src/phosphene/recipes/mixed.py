"""Mixed: a brain model, a map and a generator, each from whichever paper, put together by configuration alone.

Paper: none; the parts are those of the recipes they come from, and docs/mixes.md says which mixes were tried.

    betas -> brain model -> features -> map -> what the generator draws from -> picture
    picture -> its latent -> ridge -> features -> brain model, or straight to voxels -> betas

======================  ==================================================================================================
``recipe.brain``        ``none``; ``roi_mae`` (LEA); ``contrast`` (phase one of CAD); ``masked`` (phase one of MinD-Vis)
``recipe.map``          ``ridge``; ``reduced_rank``; ``gru`` (the two-stage decoder's); ``group_gru``, over brain regions;
                        ``mapper`` (Mind Reader's convolutions, towards CLIP)
``recipe.generator``    ``maskgit`` (LEA); ``stylegan2`` (Mind Reader); ``vdvae``; ``dual_guided`` (both Brain-Diffuser);
                        ``latent_diffusion`` (CAD and MinD-Vis), tuned to the features themselves, without a map
``recipe.pick``         ``first`` sample; or of all samples the ``closest``, by CLIP, to the decoded CLIP latent
======================  ==================================================================================================

Each part is a component of :mod:`phosphene.recipes.components`, the same one with the same settings that the paper's recipe is
made of. What follows the brain model is fitted to its features as it would be to voxels. Three things hold for every mix:

- CLIP tokens of ``dual_guided`` are mapped by ridge whatever the map, as in every paper.
- Only LEA's autoencoder leads back from features to voxels: with the others, and with none, ``encode`` predicts voxels
  directly.
- ``latent_diffusion`` has no latents of pictures, so a mix with it only decodes.

The stages, in order: ``standardise``, ``brain`` (where there is a brain model), ``generator``, ``maps`` and ``to_brain``; in
place of the last two, ``tuned`` for ``latent_diffusion``. A stage depends on the settings of the parts it uses and on no
others, so that mixes share what they have in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from phosphene.align.decoders import ALPHAS, fit_encoding
from phosphene.align.moments import Mode
from phosphene.align.reduced_rank import ReducedRankConfig
from phosphene.align.ridge import Ridge
from phosphene.data.splits import inner_folds
from phosphene.data.standardise import Standardiser
from phosphene.errors import ConfigError
from phosphene.io.config import Config
from phosphene.models.gru import GroupGruConfig, GruConfig, LatentTraining, voxel_runs
from phosphene.models.mapper import MapperConfig, MapperTraining
from phosphene.models.tuned_ldm import TunedLdm
from phosphene.recipes.base import STANDARDISE, Recipe, RecipeConfig, Stage
from phosphene.recipes.brain_diffuser import BrainDiffuser, TwoStageSettings
from phosphene.recipes.cad import Cad, ContrastSettings
from phosphene.recipes.components import (
    BRAIN_MODELS,
    GENERATORS,
    LATENT_MAPS,
    BrainModel,
    Generator,
    LatentMap,
    component,
)
from phosphene.recipes.lea import Lea, MaskGitSettings, RoiMaeSettings
from phosphene.recipes.maps import RidgeMap
from phosphene.recipes.mind_reader import MindReader, StyleGan2Settings
from phosphene.recipes.mind_vis import LatentDiffusionSettings, MindVis, PatchMaeSettings
from phosphene.recipes.parts import Parts
from phosphene.training.loop import train
from phosphene.types import Images, Latents, Stimuli, Trials


class MixedConfig(RecipeConfig):
    """Configuration of `Mixed`: what is mixed, and a section for each part, read where that part is chosen."""

    kind: Literal["mixed"] = "mixed"
    brain: Literal["none", "roi_mae", "contrast", "masked"] = Field(
        default="none", description="model of responses alone"
    )
    map: Literal["ridge", "reduced_rank", "gru", "group_gru", "mapper"] = Field(
        default="ridge", description="from its features onwards"
    )
    generator: Literal["maskgit", "stylegan2", "vdvae", "dual_guided", "latent_diffusion"] = Field(
        default="maskgit", description="what draws"
    )
    start: Literal["vdvae", "noise"] = Field(default="vdvae", description="what generator=dual_guided starts from")
    pick: Literal["first", "closest"] = Field(
        default="first",
        description="which sample: the first, or the one whose CLIP latent is closest to the decoded one",
    )
    pretrain: tuple[str, ...] = Field(
        default=(), description="other subjects whose responses the brain model learns from too"
    )
    read: Literal["tokens", "mean", "class"] = Field(
        default="tokens", description="features of contrast and masked: all tokens, their mean, or the class token"
    )
    alpha: float | None = Field(
        default=None, gt=0, description="penalty of the ridge map; chosen by leave-one-out where none"
    )
    restandardise: Mode = Field(
        default="train_oof", description="mean and spread of predictions, as for brain_diffuser"
    )
    n_folds: int = Field(default=5, ge=2, description="folds over training stimuli for restandardise=train_oof")
    roi_mae: RoiMaeSettings = RoiMaeSettings()
    contrast: ContrastSettings = ContrastSettings()
    masked: PatchMaeSettings = PatchMaeSettings()
    reduced_rank: ReducedRankConfig = ReducedRankConfig()
    gru: GruConfig = GruConfig()
    group_gru: GroupGruConfig = GroupGruConfig()
    group_size: int | None = Field(default=50, ge=1, description="voxels of a step of the sequence, for map=group_gru")
    training: LatentTraining = Field(default=LatentTraining(), description="of gru and group_gru")
    mapper: MapperConfig = MapperConfig()
    mapper_training: MapperTraining = Field(default=MapperTraining(), description="of mapper")
    maskgit: MaskGitSettings = MaskGitSettings()
    stylegan2: StyleGan2Settings = StyleGan2Settings()
    dual_guided: TwoStageSettings = Field(
        default=TwoStageSettings(), description="of dual_guided, and of vdvae, its first stage alone"
    )
    latent_diffusion: LatentDiffusionSettings = LatentDiffusionSettings()

    @property
    def other_subjects(self) -> tuple[str, ...]:
        """Subjects whose responses the brain model learns from as well."""
        if self.brain == "none":
            return ()

        return self.pretrain

    @property
    def halves(self) -> tuple[str, ...]:
        """Which stages of the two-stage generator there are."""
        if self.generator == "vdvae":
            return ("first",)
        if self.start == "noise":
            return ("second",)

        return ("first", "second")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.setting == "strict" and self.restandardise == "test":
            raise ValueError(
                "restandardise 'test' looks at test responses; say so with setting=relax, or use 'train_oof'"
            )

        if self.map == "group_gru" and (self.brain == "roi_mae" or (self.brain != "none" and self.read != "tokens")):
            raise ValueError(
                "map 'group_gru' walks over groups of voxels or tokens, but one latent has none: use brain none, or "
                "contrast or masked with read=tokens"
            )

        if self.map == "mapper" and self.generator in ("vdvae", "dual_guided"):
            raise ValueError(
                "map 'mapper' learns embeddings of length one, but VDVAE latents have none: use generator maskgit or stylegan2"
            )

        if self.pick == "closest" and self.generator not in ("maskgit", "stylegan2"):
            raise ValueError("pick 'closest' chooses among samples, which generators maskgit and stylegan2 draw")

        return self


_SECTIONS: dict[str, tuple[type[Config], type[Recipe[Any]]]] = {
    "roi_mae": (RoiMaeSettings, Lea),
    "contrast": (ContrastSettings, Cad),
    "masked": (PatchMaeSettings, MindVis),
    "maskgit": (MaskGitSettings, Lea),
    "stylegan2": (StyleGan2Settings, MindReader),
    "dual_guided": (TwoStageSettings, BrainDiffuser),
    "latent_diffusion": (LatentDiffusionSettings, Cad),
}
"""Section of the configuration: its settings, and the recipe whose presets fill it."""


def _preset(name: str) -> dict[str, Any]:
    """Values of a preset: for each section those of the recipe that it comes from."""
    values: dict[str, Any] = {}
    for section, (settings, recipe) in _SECTIONS.items():
        values[section] = {}
        for key, value in recipe.preset(name).items():
            if key in settings.model_fields:
                values[section][key] = value

    if name == "lab":
        for kind in (ReducedRankConfig, GruConfig, GroupGruConfig, MapperConfig):
            values[kind.model_fields["kind"].default] = kind.preset("lab")

        values["training"] = LatentTraining.preset("lab")
        values["mapper_training"] = MapperTraining.preset("lab")

    return values


# -- components that a configuration asks for ------------------------------------------------------------------------


def brain_model(config: MixedConfig) -> BrainModel | None:
    """The model of responses; None where there is none."""
    if config.brain == "none":
        return None

    return component(BRAIN_MODELS, config.brain)(getattr(config, config.brain))


def latent_map(config: MixedConfig, name: str) -> LatentMap:
    """The map to one of the generator's inputs.

    Parameters
    ----------
    config : MixedConfig
        says which
    name : str
        one of `Generator.inputs`

    Returns
    -------
    LatentMap
    """
    moments = (config.restandardise, config.n_folds)
    if name in ("vision", "text") and config.generator == "dual_guided":
        # Tokens are mapped by ridge in every paper.
        return RidgeMap(getattr(config.dual_guided.tokens, f"alpha_{name}"), *moments)

    kind = component(LATENT_MAPS, config.map)
    if config.map == "ridge":
        return kind(config.alpha, *moments)
    if config.map == "reduced_rank":
        return kind(config.reduced_rank, *moments)
    if config.map == "mapper":
        return kind(config.mapper, config.mapper_training)

    return kind(getattr(config, config.map), config.training, *moments)


def generator(config: MixedConfig, seed: int) -> Generator:
    """What draws.

    Parameters
    ----------
    config : MixedConfig
        says which
    seed : int
        of the recipe

    Returns
    -------
    Generator
    """
    kind = component(GENERATORS, config.generator)
    if config.generator in ("vdvae", "dual_guided"):
        return kind(config.dual_guided, seed, config.halves)

    return kind(getattr(config, config.generator))


# -- what its stages depend on -----------------------------------------------------------------------------------------


def _brain_settings(config: MixedConfig) -> tuple[str, ...]:
    return ("setting", "brain", "read", "pretrain", config.brain)


def _brain_solvers(config: MixedConfig) -> tuple[Any, ...]:
    model = brain_model(config)
    assert model is not None  # there is no such stage then
    return (*model.uses, Standardiser)


def _generator_settings(config: MixedConfig) -> tuple[str, ...]:
    if config.generator == "maskgit":
        fields = ("source", "training", "flip", "crops", "ported")
        return ("generator", *(f"maskgit.generator.{field}" for field in fields))

    if config.generator == "vdvae":
        return ("generator",)
    if config.generator == "dual_guided":
        return ("generator", "start", "dual_guided.generator.source")

    return ("generator", f"{config.generator}.generator.source")


def _generator_reads(config: MixedConfig) -> tuple[Literal["stimuli"], ...]:
    if config.generator == "maskgit" and config.maskgit.generator.training is not None:
        return ("stimuli",)

    return ()


def _generator_solvers(config: MixedConfig) -> tuple[Any, ...]:
    return (*generator(config, 0).parts.values(), train)


def _map_settings(config: MixedConfig) -> tuple[str, ...]:
    fields_of_map = {
        "ridge": ("alpha",),
        "reduced_rank": ("reduced_rank",),
        "gru": ("gru", "training"),
        "group_gru": ("group_gru", "training", "group_size"),
        "mapper": ("mapper", "mapper_training"),
    }
    fields = ["generator", "start", "brain", "read", "restandardise", "n_folds", "setting", "map"]
    fields += fields_of_map[config.map]
    if config.generator == "dual_guided":
        fields += ["dual_guided.tokens.alpha_vision", "dual_guided.tokens.alpha_text"]

    return tuple(fields)


def _map_solvers(config: MixedConfig) -> tuple[Any, ...]:
    solvers: list[Any] = [inner_folds, voxel_runs]
    for name in generator(config, 0).inputs:
        solvers += latent_map(config, name).uses

    return tuple(dict.fromkeys(solvers))


_TUNED_SETTINGS = (
    "brain", "read", "latent_diffusion.tuning", "latent_diffusion.generator.mapped", "latent_diffusion.generator.time",
    "latent_diffusion.generator.zero_time",
)  # fmt: skip


def _has_maps(config: MixedConfig) -> bool:
    return config.generator != "latent_diffusion"


class Mixed(Recipe[MixedConfig]):
    """Components of any papers in one row: a brain model, maps from its features, and a generator.

    Attributes
    ----------
    standardise_ : Standardiser
        of the voxels
    brain_ : Parts
        the autoencoder ``brain`` and ``units``, the Standardiser of its features; where there is one
    generator_ : Parts
        the generator's networks
    maps_ : Parts
        a Predictor for each thing the generator draws from
    tuned_ : TunedLdm
        in place of maps, the latent diffusion tuned to features
    to_brain_ : Ridge
        image latents to voxels, or to the latent of LEA's autoencoder
    """

    stages = (
        STANDARDISE,
        Stage(
            "brain", Parts, needs=("standardise",), settings=_brain_settings, reads=("trials",), learns_unpaired=True,
            uses=_brain_solvers, weights=lambda recipe: recipe.model.weights(), when=lambda config: config.brain != "none",
        ),
        Stage(
            "generator", Parts, needs=(), settings=_generator_settings, reads=_generator_reads, uses=_generator_solvers,
            weights=lambda recipe: recipe.generator.weights(),
        ),
        Stage(
            "maps", Parts, needs=("standardise", "brain"), settings=_map_settings, uses=_map_solvers,
            weights=lambda recipe: recipe.generator.latent_weights(), when=_has_maps,
        ),
        Stage(
            "tuned", TunedLdm, needs=("standardise", "brain", "generator"), settings=_TUNED_SETTINGS, uses=(train,),
            when=lambda config: not _has_maps(config),
        ),
        Stage(
            "to_brain", Ridge, needs=("standardise", "brain"), settings=("brain",), uses=(fit_encoding,),
            weights=lambda recipe: recipe.generator.image_weights(), when=_has_maps,
        ),
    )  # fmt: skip
    presets = {"lab": _preset("lab"), "paper": _preset("paper")}  # noqa: RUF012  a constant

    @classmethod
    def can_encode(cls, config: RecipeConfig | None = None) -> bool:
        """Unless the generator is one that knows no latents of pictures."""
        return getattr(config, "generator", "") != "latent_diffusion"

    @cached_property
    def model(self) -> BrainModel | None:
        """The model of responses; None where there is none."""
        return brain_model(self.config)

    @cached_property
    def generator(self) -> Generator:
        """What draws."""
        return generator(self.config, self.seed)

    def generators(self) -> tuple[str, ...]:
        """What the generator was trained on."""
        return self.generator.corpora

    def picture_shape(self, stimuli: Stimuli) -> tuple[int, int, int]:
        """(height, width, channels) of a decoded picture: the generator's size."""
        return self.generator.side, self.generator.side, stimuli.image_shape[2]

    # -- stages, in order ------------------------------------------------------------------------------------------

    def fit_brain(self, trials: Trials) -> Parts:
        """The autoencoder, on responses alone; then units of its features."""
        assert self.model is not None  # there is no such stage then
        part = self.model.fit(self, trials)

        # Maps expect inputs of about unit variance, which features of an autoencoder need not have.
        averaged = self.averaged(trials)
        features = self._trials(averaged, self._values(part, averaged.betas))
        units = Standardiser().fit(features)

        return Parts({"brain": part, "units": units})

    def fit_generator(self, stimuli: Stimuli | None = None) -> Parts:
        """The generator, as it comes or trained on with pictures."""
        return Parts(self.generator.load(self, stimuli))

    def fit_maps(self, trials: Trials, stimuli: Stimuli) -> Parts:
        """Features to everything the generator draws from, a row per stimulus."""
        features = self._features(self.averaged(trials))
        shown = stimuli.select(features.stimuli)
        groups = self._groups(features)
        maps = {}

        for name in self.generator.inputs:
            model = latent_map(self.config, name)
            targets = self.generator.target(name, shown, self, model.streams)
            maps[name] = model.fit(self, name, features, targets, groups)

        return Parts(maps)

    def fit_tuned(self, trials: Trials, stimuli: Stimuli) -> TunedLdm:
        """The latent diffusion, tuned to features: a row per stimulus."""
        features = self._features(self.averaged(trials))
        n_tokens = self._n_tokens()
        shape = (n_tokens, features.n_voxels // n_tokens)  # (tokens, width)

        return self.generator.tune(self, self.generator_, features, stimuli, shape)

    def fit_to_brain(self, trials: Trials, stimuli: Stimuli) -> Ridge:
        """Image latents to standardised voxels, or to the latent of LEA's autoencoder, a penalty for each."""
        averaged = self.averaged(trials)
        brain = averaged.betas
        if self._is_invertible:
            assert self.model is not None  # what is not there cannot be inverted
            brain = self.model.features(self.brain_["brain"], averaged.betas)  # (n_stimuli, latent)

        latents = self._image_latents(stimuli.select(averaged.stimuli))  # (n_stimuli, d)

        # The grid is for inputs of unit variance, which coordinates of unit vectors are far from.
        variance = float(latents.var(axis=0).mean())
        alphas = [alpha * variance for alpha in ALPHAS]

        return fit_encoding(latents, brain, alphas)

    # -- the arrows ------------------------------------------------------------------------------------------------

    def decode(self, trials: Trials) -> Images:
        """Brain to image: one picture per row of `trials`, 0-1."""
        if self.config.pick == "first":
            return self._drawn(trials, samples=1)[0]

        return self.decode_samples(trials)[0]

    def decode_samples(self, trials: Trials) -> list[Images]:
        """All samples; with pick=closest, those whose CLIP latent is closest to the decoded one come first."""
        drawn = self._drawn(trials, self.generator.samples)
        if self.config.pick == "first":
            return drawn

        decoded = _unit(next(iter(self.latents(trials).arrays.values())))  # (n, d)
        cosines = []
        for images in drawn:
            latents = _unit(self.generator.embed(images.pixels.clip(0, 1)))  # (n, d)
            cosines.append((latents * decoded).sum(axis=1))  # (n,)

        order = np.argsort(-np.stack(cosines), axis=0, kind="stable")  # (samples, n)
        pixels = np.stack([images.pixels for images in drawn])  # (samples, n, side, side, channels)
        rows = np.arange(len(trials))

        return [Images(trials.stimuli, pixels[chosen, rows]) for chosen in order]

    @property
    def chooses_sample(self) -> bool:
        """Whether samples are ordered by how close they come to what was decoded."""
        return self.config.pick == "closest"

    def decode_steps(self, trials: Trials) -> dict[str, Images]:
        """The blurry first stage, where there are two."""
        steps: dict[str, list[np.ndarray]] = {}
        parts = self._parts()
        keys = list(trials.noise_keys)

        for rows, inputs in self._inputs(trials):
            for name, pixels in self.generator.steps(parts, inputs, keys[rows], self.seed).items():
                steps.setdefault(name, []).append(pixels)

        return {name: self.as_images(trials.stimuli, np.concatenate(pixels)) for name, pixels in steps.items()}

    def encode(self, stimuli: Stimuli) -> Trials:
        """Image to brain: one predicted response per stimulus, in the units of the training betas."""
        self._check_fitted()
        if not self.can_encode(self.config):
            raise ConfigError("a mix with generator=latent_diffusion only decodes; fit one with another generator.")

        predicted = self.to_brain_.predict(self._image_latents(stimuli))
        if self._is_invertible:
            assert self.model is not None  # what is not there cannot be inverted
            predicted = self.model.responses(self.brain_["brain"], predicted)

        return self.predicted_trials(stimuli, self.standardise_.inverse(predicted))

    def latents(self, trials: Trials) -> Latents:
        """What the generator draws from, one row per trial."""
        arrays: dict[str, list[np.ndarray]] = {}
        for _, inputs in self._inputs(trials):
            for space, rows in self.generator.spaces(inputs).items():
                arrays.setdefault(space, []).append(rows)

        return Latents(trials.stimuli, {space: np.concatenate(rows) for space, rows in arrays.items()})

    def true_latents(self, stimuli: Stimuli) -> Latents:
        """The same of the pictures themselves."""
        return Latents(stimuli.ids, self.generator.true_spaces(stimuli))

    def text_latents(self, texts: Sequence[str]) -> Latents | None:
        """Texts in the space of `latents`, where CLIP's is among them."""
        arrays = self.generator.texts(texts)
        if arrays is None:
            return None

        return Latents(np.asarray(list(texts), dtype=object), arrays)

    def ceiling(self, stimuli: Stimuli) -> Images | None:
        """Pictures drawn from the true latents: the first sample."""
        self._check_fitted()
        pixels = self.generator.ceiling(self._parts(), stimuli, self.seed)
        if pixels is None:
            return None

        return self.as_images(stimuli.ids, pixels)

    @property
    def fixed_spaces(self) -> frozenset[str]:
        """Latents of frozen networks mean the same whatever the training trials."""
        return self.generator.fixed_spaces

    # -- pieces ----------------------------------------------------------------------------------------------------

    @property
    def _is_invertible(self) -> bool:
        return self.model is not None and self.model.is_invertible

    def _parts(self) -> dict[str, Any]:
        """The generator's networks, the tuned one among them."""
        parts = dict(self.generator_)
        if self.generator.tuned:
            parts["tuned"] = self.tuned_

        return parts

    def _inputs(self, trials: Trials) -> Iterable[tuple[slice, Mapping[str, np.ndarray]]]:
        """What the generator draws from, for as many rows at a time as it takes."""
        self.check_trials(trials)
        features = self._features(self.standardised(trials)).betas
        if self.generator.tuned:
            yield slice(0, len(features)), {"tokens": features}
            return

        maps = {name: self.maps_[name].among(features) for name in self.generator.inputs}
        for rows in self.generator.blocks(len(features)):
            yield rows, {name: one.predict(features[rows]) for name, one in maps.items()}

    def _drawn(self, trials: Trials, samples: int) -> list[Images]:
        """Decoded pictures, a list over samples."""
        parts = self._parts()
        keys = list(trials.noise_keys)
        drawn = []

        for rows, inputs in self._inputs(trials):
            drawn.append(self.generator.draw(parts, inputs, keys[rows], samples, self.seed))

        pixels = np.concatenate(drawn)  # (n, samples, side, side, 3)
        return [self.as_images(trials.stimuli, pixels[:, s]) for s in range(pixels.shape[1])]

    def _image_latents(self, stimuli: Stimuli) -> np.ndarray:
        """Latents of pictures that responses are predicted from, (n_stimuli, d)."""
        latents = self.generator.image_latents(stimuli)
        assert latents is not None  # there is no such stage then

        return latents

    def _features(self, standardised: Trials) -> Trials:
        """What the brain model makes of standardised trials, as trials: a column per feature, of unit variance."""
        if self.model is None:
            return standardised

        features = self._trials(standardised, self._values(self.brain_["brain"], standardised.betas))
        return self.brain_["units"].transform(features)

    def _values(self, part: Any, betas: np.ndarray) -> np.ndarray:
        """(n, d) features of responses, as the brain model makes them: not yet of unit variance."""
        assert self.model is not None  # features are standardised voxels then
        if not self.model.has_tokens:
            return self.model.features(part, betas)
        if self.config.read == "class":
            return self.model.class_token(part, betas)

        tokens = self.model.features(part, betas)  # (n, n_tokens, width)
        if self.config.read == "mean":
            return tokens.mean(axis=1)  # (n, width)

        return tokens.reshape(len(tokens), -1)  # (n, n_tokens * width)

    def _trials(self, trials: Trials, values: np.ndarray) -> Trials:
        """Features (n, d) as trials of the same stimuli, so that they can be standardised as voxels are."""
        return Trials(values, trials.table, subject=trials.subject)

    def _n_tokens(self) -> int:
        """Tokens that a row of features is made of."""
        reads_tokens = self.model is not None and self.model.has_tokens and self.config.read == "tokens"
        if reads_tokens:
            return self.brain_["brain"].module.n_patches

        return 1

    def _groups(self, features: Trials) -> Sequence[np.ndarray]:
        """Features that are one step of a sequence, for the map that walks over them."""
        if self.config.map != "group_gru":
            return ()
        if self.model is None:
            return voxel_runs(features, self.config.group_size)

        return np.split(np.arange(features.n_voxels), self._n_tokens())


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length one."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
