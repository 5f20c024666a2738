"""Mixed: a brain model, a map and a generator, each from whichever paper, put together by configuration alone.

Paper: none; the parts are those of the recipes they are borrowed from, and docs/mixes.md says which mixes were tried.

    betas -> brain model -> features -> map -> what the generator draws from -> picture
    picture -> its latent -> ridge -> features -> brain model, or straight to voxels -> betas

======================  ==================================================================================================
``recipe.brain``        ``none``; ``roi_mae`` (LEA); ``contrast`` (phase one of CAD); ``masked`` (phase one of MinD-Vis)
``recipe.map``          ``ridge``; ``reduced_rank``; ``gru`` (the two-stage decoder's); ``group_gru``, over brain regions
``recipe.generator``    ``maskgit`` (LEA); ``stylegan2`` (Mind Reader); ``vdvae``; ``dual_guided`` (both Brain-Diffuser)
``recipe.pick``         ``first`` sample; or of all samples the ``closest``, by CLIP, to the decoded CLIP latent
======================  ==================================================================================================

Each part is fitted by the stage of the recipe it comes from, told the same things; what follows the brain model is fitted
to its features as it would be to voxels. CLIP tokens of ``dual_guided`` are mapped by ridge whatever the map, as in every
paper. Only LEA's autoencoder can be walked backwards: with the others, and with none, ``encode`` goes to voxels directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from phosphene.align.decoders import ALPHAS, fit_encoding
from phosphene.align.moments import Mode
from phosphene.align.reduced_rank import ReducedRankConfig
from phosphene.align.ridge import Ridge
from phosphene.data.splits import inner_folds
from phosphene.data.standardise import Standardiser
from phosphene.errors import DataError
from phosphene.features import cache_folder
from phosphene.features.captions import LIMIT, SHARE
from phosphene.io.config import Config
from phosphene.models.dc_mae import DcMaeConfig
from phosphene.models.dual_guided import RefineConfig
from phosphene.models.gru import GroupGruConfig, GruConfig, LatentTraining, voxel_runs
from phosphene.models.maskgit import MaskGitSampling
from phosphene.models.patch_mae import PatchMaeConfig
from phosphene.models.roi_mae import RoiMaeConfig
from phosphene.models.stylegan2 import StyleGan2Sampling
from phosphene.recipes import cad, lea, mind_reader
from phosphene.recipes import mind_vis as latent_diffused
from phosphene.recipes.base import Recipe, RecipeConfig, code_digest
from phosphene.recipes.brain_diffuser import (
    BrainDiffuser,
    BrainDiffuserConfig,
    FirstStageConfig,
    RefinerConfig,
    TokensConfig,
)
from phosphene.recipes.cad import Cad, CadConfig
from phosphene.recipes.lea import ClipConfig, Lea, LeaConfig, MaskGitSource
from phosphene.recipes.mind_reader import MindReader, MindReaderConfig
from phosphene.recipes.mind_vis import MindVis, MindVisConfig
from phosphene.recipes.parts import Parts
from phosphene.recipes.predictor import Predictor, Restore, fit_map, fit_ridge
from phosphene.recipes.regressor import Regressor, RegressorConfig
from phosphene.types import Images, Latents, Stimuli, Trials


class RoiMaeSection(Config):
    """LEA's autoencoder: what `Lea` can be told about it."""

    rois: tuple[str, ...] | None = Field(None, description="order in which ROIs take their voxels; as in the data")
    brain: RoiMaeConfig = RoiMaeConfig()
    brain_rows: Literal["trials", "averaged"] = Field("trials", description="single trials, or repeats averaged")
    brain_training: lea.RoiMaeTraining = lea.RoiMaeTraining()


class ContrastSection(Config):
    """Phase one of CAD: what `Cad` can be told about it."""

    rows: Literal["trials", "averaged"] = Field("trials", description="single trials, or repeats averaged")
    brain: DcMaeConfig = DcMaeConfig()
    brain_training: cad.ContrastTraining = cad.ContrastTraining()


class MaskedSection(Config):
    """Phase one of MinD-Vis: what `MindVis` can be told about it."""

    rows: Literal["trials", "averaged"] = Field("trials", description="single trials, or repeats averaged")
    brain: PatchMaeConfig = PatchMaeConfig()
    brain_training: latent_diffused.MaskedTraining = latent_diffused.MaskedTraining()


class MaskGitSection(Config):
    """LEA's generator: what `Lea` can be told about it."""

    clip: ClipConfig = ClipConfig()
    images: MaskGitSource = MaskGitSource()
    sampling: MaskGitSampling = MaskGitSampling()


class StyleGan2Section(Config):
    """Mind Reader's generator: what `MindReader` can be told about it."""

    clip: ClipConfig = ClipConfig(name=mind_reader.PAPER_CLIP)
    screening: float = Field(SHARE, ge=0, lt=1, description="see the recipe mind_reader; 0 keeps all captions")
    clamp: float | None = Field(LIMIT, gt=0, description="largest value of a raw embedding; none: as they are")
    images: mind_reader.StyleGan2Source = mind_reader.StyleGan2Source()
    sampling: StyleGan2Sampling = StyleGan2Sampling()


class TwoStageSection(Config):
    """The generators of Brain-Diffuser: what `BrainDiffuser` can be told about them."""

    first: FirstStageConfig = FirstStageConfig()
    tokens: TokensConfig = TokensConfig()
    refiner: RefinerConfig = RefinerConfig()
    sampling: RefineConfig = RefineConfig()


class MixedConfig(RecipeConfig):
    """Configuration of `Mixed`: what is mixed, and a section for each part, read where that part is chosen."""

    kind: Literal["mixed"] = "mixed"
    brain: Literal["none", "roi_mae", "contrast", "masked"] = Field("none", description="model of responses alone")
    map: Literal["ridge", "reduced_rank", "gru", "group_gru"] = Field("ridge", description="from its features onwards")
    generator: Literal["maskgit", "stylegan2", "vdvae", "dual_guided"] = Field("maskgit", description="what draws")
    start: Literal["vdvae", "noise"] = Field("vdvae", description="what generator=dual_guided starts from")
    pick: Literal["first", "closest"] = Field(
        "first", description="which sample: the first, or the one whose CLIP latent is closest to the decoded one"
    )
    per_session: bool = Field(False, description="standardise voxels by the training trials of each session")
    pretrain: tuple[str, ...] = Field((), description="other subjects whose responses the brain model learns from too")
    read: Literal["tokens", "mean", "class"] = Field(
        "tokens", description="features of contrast and masked: all tokens, their mean, or the class token"
    )
    alpha: float | None = Field(None, gt=0, description="penalty of the ridge map; chosen by leave-one-out where none")
    restandardise: Mode = Field("train_oof", description="mean and spread of predictions, as for brain_diffuser")
    n_folds: int = Field(5, ge=2, description="folds over training stimuli for restandardise=train_oof")
    roi_mae: RoiMaeSection = RoiMaeSection()
    contrast: ContrastSection = ContrastSection()
    masked: MaskedSection = MaskedSection()
    reduced_rank: ReducedRankConfig = ReducedRankConfig()
    gru: GruConfig = GruConfig()
    group_gru: GroupGruConfig = GroupGruConfig()
    group_size: int | None = Field(50, ge=1, description="voxels of a step of the sequence, for map=group_gru")
    training: LatentTraining = Field(LatentTraining(), description="of gru and group_gru")
    maskgit: MaskGitSection = MaskGitSection()
    stylegan2: StyleGan2Section = StyleGan2Section()
    two_stage: TwoStageSection = Field(TwoStageSection(), description="of vdvae and dual_guided")

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

        if self.pick == "closest" and self.generator not in ("maskgit", "stylegan2"):
            raise ValueError("pick 'closest' chooses among samples, which generators maskgit and stylegan2 draw")

        return self


_BORROWED: dict[str, tuple[type[Config], type[Recipe]]] = {
    "roi_mae": (RoiMaeSection, Lea),
    "contrast": (ContrastSection, Cad),
    "masked": (MaskedSection, MindVis),
    "maskgit": (MaskGitSection, Lea),
    "stylegan2": (StyleGan2Section, MindReader),
    "two_stage": (TwoStageSection, BrainDiffuser),
}


"""By section, the recipe whose presets fill it."""


_MAPS = {
    "maskgit": ("to_clip",),
    "stylegan2": ("image_mapper", "text_mapper"),
    "vdvae": ("first",),
    "dual_guided": ("first", "vision", "text"),
}


_NETWORKS = {
    "maskgit": ("images",), "stylegan2": ("images",), "vdvae": ("vdvae",), "dual_guided": ("vdvae", "refiner"),
}  # fmt: skip


_FIRST = ("first", "vdvae")


class Mixed(Recipe[MixedConfig]):
    """See the top of this file.

    Attributes
    ----------
    standardise_ : Standardiser
        of the voxels
    brain_ : Parts
        Parts: the autoencoder ``brain`` and ``units``, the Standardiser of its features; nothing without one
    networks_ : Parts
        the generator
    maps_ : Parts
        a Predictor for each thing the generator draws from
    to_brain_ : Ridge
        image latents to voxels, or to the latent of LEA's autoencoder
    """

    config_class = MixedConfig
    stages: ClassVar = {
        "standardise": Standardiser, "brain": Parts, "networks": Parts, "maps": Parts, "to_brain": Ridge,
    }  # fmt: skip
    needs: ClassVar = {
        "brain": ("standardise",), "networks": (), "maps": ("standardise", "brain"), "to_brain": ("standardise", "brain"),
    }  # fmt: skip
    self_supervised: ClassVar = frozenset({"brain"})

    @classmethod
    def preset(cls, name: str) -> dict[str, Any]:
        """``paper``: the published sizes of each part. ``lab``: the same classes at tiny size, with the zoo's networks."""
        values: dict[str, Any] = {}
        for section, (fields, lender) in _BORROWED.items():
            values[section] = {k: v for k, v in lender.preset(name).items() if k in fields.model_fields}

        if name == "lab":
            for kind in (ReducedRankConfig, GruConfig, GroupGruConfig):
                values[kind.model_fields["kind"].default] = kind.preset("lab")

            values["training"] = LatentTraining.preset("lab")

        return values

    @classmethod
    def other_subjects(cls, config: MixedConfig) -> tuple[str, ...]:
        """Subjects whose responses the brain model learns from as well."""
        if config.brain == "none":
            return ()

        return config.pretrain

    def stage_config(self, name: str) -> dict[str, Any]:
        """Values a stage depends on, and the code of the recipes it is borrowed from."""
        c = self.config.model_dump(mode="json")
        tail = self._tail
        lender = self._lender

        if name == "standardise":
            return {"per_session": c["per_session"]}

        if name == "brain":
            if lender is None:
                return {"brain": "none"}

            return {**lender.stage_config("brain"), "code": code_digest(type(lender), lender.stages["brain"])}

        if name == "networks":
            return {n: [tail.stage_config(n), code_digest(type(tail), tail.stages[n])] for n in self._networks}
        if name == "to_brain":
            return {"brain": c["brain"], "targets": self._seen.spec()}

        own = {k: c[k] for k in ("generator", "start", "brain", "read", "alpha", "restandardise", "n_folds", "setting")}
        own |= {k: c[k] for k in (c["map"], "training", "group_size") if c["map"] != "ridge"}
        code = {n: [tail.stage_config(n), code_digest(type(tail), tail.stages[n])] for n in self._maps}

        return {**own, "map": c["map"], "borrowed": code}

    def generators(self) -> tuple[str, ...]:
        """Those of the recipe the generator is borrowed from."""
        return self._tail.generators()

    # -- stages, in order ------------------------------------------------------------------------------------------

    def fit_standardise(self, trials: Trials, stimuli: Stimuli) -> Standardiser:
        """Mean and spread of every voxel over the training trials."""
        return Standardiser(per_session=self.config.per_session).fit(trials)

    def fit_brain(self, trials: Trials, stimuli: Stimuli) -> Parts:
        """The autoencoder, on responses alone, as the recipe it is borrowed from trains it; then units of its features."""
        if self._lender is None:
            return Parts()

        part = self._lend(self._lender, standardise=self.standardise_).fit_brain(trials, stimuli)
        self.brain_ = Parts({"brain": part})
        return Parts({"brain": part, "units": Standardiser().fit(self._features(self._averaged(trials)))})

    def fit_networks(self, trials: Trials, stimuli: Stimuli) -> Parts:
        """The generator, as the recipe it is borrowed from makes it."""
        tail = self._lend(self._tail)
        return Parts({name: getattr(tail, f"fit_{name}")(trials, stimuli) for name in self._networks})

    def fit_maps(self, trials: Trials, stimuli: Stimuli) -> Parts:
        """Features to everything the generator draws from, a row per stimulus."""
        given = self._features(self._averaged(trials))
        tail = self._lend(self._tail)
        shown = stimuli.select(given.stimuli)

        if self._is_two_stage:
            # tokens are mapped by ridge in every paper
            if self.config.map != "ridge":
                own = {"first"}
            else:
                own = set()

            fitted = {n: getattr(tail, f"fit_{n}")(given, stimuli) for n in self._maps if n not in own}
            return Parts({n: self._map(n, given, tail._vdvae.transform(shown)) for n in own} | fitted)

        truths = list(tail.true_latents(shown).arrays.values())
        if len(truths) < len(self._maps):
            raise DataError("generator stylegan2 draws from captions too, but some training pictures have none.")

        return Parts({n: self._map(n, given, y) for n, y in zip(self._maps, truths, strict=True)})

    def _map(self, name: str, given: Trials, targets: np.ndarray) -> Predictor:
        c = self.config
        restore = Restore(c.restandardise, lambda: inner_folds(given, c.n_folds, self.rng("moments")))
        if c.map == "ridge":
            return fit_ridge(given.betas, targets, c.alpha, restore)

        groups: Sequence[np.ndarray] = ()
        if c.map == "group_gru":
            groups = voxel_runs(given, c.group_size)
            if len(self.brain_):
                groups = np.split(np.arange(given.n_voxels), self.brain_["brain"].module.n_patches)

        return fit_map(
            getattr(c, c.map),
            given.betas,
            targets,
            given.stimuli.astype(str),
            c.training,
            restore,
            seed=self.seed,
            trainer=self.trainer,
            groups=groups,
            folder=self._training_folder(name),
            progress=self.progress,
        )

    def fit_to_brain(self, trials: Trials, stimuli: Stimuli) -> Ridge:
        """Image latents to standardised voxels, or to the latent of LEA's autoencoder, a penalty for each."""
        averaged = self._averaged(trials)
        if self.config.brain == "roi_mae":
            brain = self.brain_["brain"].to_latent(averaged.betas)
        else:
            brain = averaged.betas

        seen = self._seen.transform(stimuli.select(averaged.stimuli), cache_folder())
        # The grid is for inputs of unit variance, which coordinates of unit vectors are far from.
        return fit_encoding(seen, brain, [a * float(seen.var(axis=0).mean()) for a in ALPHAS])

    # -- the arrows ------------------------------------------------------------------------------------------------

    def decode(self, trials: Trials) -> Images:
        """Brain to image: one picture per row of `trials`, 0-1."""
        tail, given = self._ready(trials)
        if self.config.pick == "first":
            return tail.decode(given)

        return self.decode_samples(trials)[0]

    def decode_samples(self, trials: Trials) -> list[Images]:
        """All samples; with pick=closest, those that look most like the decoded latent come first."""
        tail, given = self._ready(trials)
        drawn = tail.decode_samples(given)
        if self.config.pick == "first":
            return drawn

        wanted = _unit(next(iter(tail.latents(given).arrays.values())))
        near = [(_unit(tail._clip.images(d.pixels.clip(0, 1))) * wanted).sum(axis=1) for d in drawn]
        order = np.argsort(-np.stack(near), axis=0, kind="stable")  # (samples, n)
        pixels = np.stack([d.pixels for d in drawn])
        rows = np.arange(len(given))

        return [Images(given.stimuli, pixels[chosen, rows]) for chosen in order]

    def decode_steps(self, trials: Trials) -> dict[str, Images]:
        """The blurry first stage, where there are two."""
        tail, given = self._ready(trials)
        return tail.decode_steps(given)

    def encode(self, stimuli: Stimuli) -> Trials:
        """Image to brain: one predicted response per stimulus, in the units of the training betas."""
        self._check_fitted()
        predicted = self.to_brain_.predict(self._seen.transform(stimuli, cache_folder()))
        if self.config.brain == "roi_mae":
            predicted = self.brain_["brain"].from_latent(predicted)

        return self.predicted_trials(stimuli, self.standardise_.inverse(predicted))

    def latents(self, trials: Trials) -> Latents:
        """What the generator draws from, one row per trial."""
        tail, given = self._ready(trials)
        return tail.latents(given)

    def true_latents(self, stimuli: Stimuli) -> Latents:
        """The same of the pictures themselves."""
        return self._tail.true_latents(stimuli)

    def text_latents(self, texts: Sequence[str]) -> Latents | None:
        """Texts in the space of `latents`, where CLIP's is among them."""
        return self._tail.text_latents(texts)

    def ceiling(self, stimuli: Stimuli) -> Images | None:
        """Pictures drawn from the true latents: the first sample."""
        self._check_fitted()
        return self._lend(self._tail, **self.networks_).ceiling(stimuli)

    @property
    def fixed_spaces(self) -> frozenset[str]:
        """Latents of frozen networks mean the same whatever the training trials."""
        return self._tail.fixed_spaces

    # -- pieces ----------------------------------------------------------------------------------------------------

    @property
    def _is_two_stage(self) -> bool:
        return self.config.generator in ("vdvae", "dual_guided")

    @property
    def _halves(self) -> tuple[str, ...]:
        if self.config.generator == "vdvae":
            return ("first",)
        if self.config.start == "noise":
            return ("second",)

        return ("first", "second")

    def _present(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(n for n in names if not self._is_two_stage or "first" in self._halves or n not in _FIRST)

    @property
    def _maps(self) -> tuple[str, ...]:
        return self._present(_MAPS[self.config.generator])

    @property
    def _networks(self) -> tuple[str, ...]:
        return self._present(_NETWORKS[self.config.generator])

    @cached_property
    def _lender(self) -> Any:
        """The recipe whose brain model is borrowed."""
        c = self.config
        if c.brain == "none":
            return None

        shared = {**dict(getattr(c, c.brain)), "pretrain": c.pretrain, "setting": c.setting}
        if c.brain == "roi_mae":
            return Lea(LeaConfig(**shared), seed=self.seed)
        if c.brain == "contrast":
            return Cad(CadConfig(**shared), seed=self.seed)

        return MindVis(MindVisConfig(adapt_training=None, **shared), seed=self.seed)

    @cached_property
    def _tail(self) -> Any:
        """The recipe whose generator is borrowed; it takes features as if they were standardised voxels."""
        c = self.config
        if c.generator == "maskgit":
            return Regressor(RegressorConfig(**dict(c.maskgit)), seed=self.seed)
        if c.generator == "stylegan2":
            return MindReader(MindReaderConfig(**dict(c.stylegan2)), seed=self.seed)

        moments = {k: getattr(c, k) for k in ("restandardise", "n_folds", "setting")}
        tail = BrainDiffuser(BrainDiffuserConfig(alpha_first=c.alpha, **moments, **dict(c.two_stage)), seed=self.seed)
        tail.halves = self._halves

        return tail

    @property
    def _seen(self) -> Any:
        """What makes latents of pictures for `encode`: CLIP, or the VDVAE where it stands alone."""
        if not self._is_two_stage:
            return self._tail._clip
        if "second" in self._halves:
            return self._tail._pooled

        return self._tail._vdvae

    def _lend(self, other: Any, /, standardise: Any = None, **parts: Any) -> Any:
        """Another recipe with this one's data and place for checkpoints, and parts under the names of its stages."""
        other.unpaired = self.unpaired
        other.progress = self.progress
        other.trainer = self.trainer
        other._training = self._training
        other.subject_ = self.subject_
        other.image_shape_ = self.image_shape_

        for name, part in {"standardise": standardise or _AsTheyAre(), **parts}.items():
            setattr(other, f"{name}_", part)

        return other

    def _averaged(self, trials: Trials) -> Trials:
        return self.standardise_.transform(trials).average_repeats()

    def _features(self, standardised: Trials) -> Trials:
        """What the brain model makes of standardised trials, as trials: a column per feature, of unit variance."""
        if not len(self.brain_):
            return standardised

        part = self.brain_["brain"]
        read = self.config.read

        if self.config.brain == "roi_mae" or read == "class":
            values = part.to_latent(standardised.betas)
        else:
            tokens = part.to_tokens(standardised.betas)
            if read == "mean":
                values = tokens.mean(axis=1)
            else:
                values = tokens.reshape(len(tokens), -1)

        features = Trials(values, standardised.table, subject=standardised.subject)
        if "units" in self.brain_:
            return self.brain_["units"].transform(features)

        return features

    def _ready(self, trials: Trials) -> tuple[Any, Trials]:
        """The recipe that draws, with its fitted parts, and features of `trials`."""
        self.check_trials(trials)
        given = self._features(self.standardise_.transform(trials))
        tail = self._lend(self._tail, **self.networks_, **self.maps_)
        tail.n_voxels_ = given.n_voxels

        return tail, given

    def _fitted_on(self, trials: Trials, stimuli: Stimuli) -> None:
        super()._fitted_on(trials, stimuli)
        self._tail._fitted_on(trials, stimuli)
        self.image_shape_ = self._tail.image_shape_


class _AsTheyAre:
    """In place of a Standardiser, where rows are in their units already."""

    def transform(self, trials: Trials) -> Trials:
        return trials


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
