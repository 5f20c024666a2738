"""What the two-stage decoders share: a blurry picture first, then a refined one, all from betas.

    betas -> first groups of VDVAE latents -> blurry picture
    betas -> CLIP tokens of the picture, CLIP tokens of its captions
    blurry picture, both kinds of tokens -> dual-guided diffusion -> picture

They differ in the map from betas to VDVAE latents (`fit_first`). Decoding only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from pydantic import Field, model_validator

from phosphene.align.moments import Mode
from phosphene.data.splits import inner_folds
from phosphene.data.standardise import Standardiser
from phosphene.errors import ConfigError
from phosphene.features import cache_folder
from phosphene.features.clip import ClipFeatures
from phosphene.features.vdvae import VdvaeFeatures
from phosphene.io.config import Config
from phosphene.io.store import RowStore, StoredRows
from phosphene.models import bundled
from phosphene.models.dual_guided import DualGuided, RefineConfig, unconditional
from phosphene.models.vdvae import VdvaeDecoder, VdvaePart
from phosphene.recipes.base import Recipe, RecipeConfig
from phosphene.recipes.predictor import Predictor, Restore, fit_ridge
from phosphene.types import Images, Latents, Stimuli, Trials

PAPER_CLIP = "openai/clip-vit-large-patch14"


DECODED_BYTES = 256 << 20  # of latents decoded at a time


TOGETHER = 40  # pictures, whole batches of both networks


class FirstStageConfig(Config):
    """VDVAE latents: which, and how they become a picture."""

    network: str = Field("", description="lab, or a folder with the converted public weights")
    groups: int | None = Field(None, ge=1, description="first groups that are predicted; 15 (or 31) of the public 75")
    target: Literal["mean", "sample"] = Field("mean", description="of the posterior; sampled in the published code")
    temperature: float = Field(1.0, ge=0, description="of groups that are not predicted; 0 draws nothing")
    pixels: Literal["sample", "mean"] = Field("sample", description="drawn from the mixture as published, or its mean")


class TokensConfig(Config):
    """CLIP tokens and the penalties of the ridges that predict them."""

    name: str = Field(PAPER_CLIP, description="lab, a folder, or a name on the hub")
    revision: str | None = Field(None, description="commit on the hub")
    alpha_vision: float | None = Field(None, gt=0, description="penalty; chosen by leave-one-out where none is given")
    alpha_text: float | None = Field(None, gt=0, description="likewise")


class RefinerConfig(Config):
    """Where the diffusion network comes from."""

    source: Literal["zoo", "folder"] = Field("folder", description="the lab's, or Versatile Diffusion in a folder")
    folder: str | None = Field(
        None, description="with image_unet, text_unet, vae and scheduler, as diffusers lays them out"
    )


class TwoStageConfig(RecipeConfig):
    """What these recipes can be told."""

    per_session: bool = Field(False, description="standardise voxels by the training trials of each session")
    first: FirstStageConfig = FirstStageConfig()
    tokens: TokensConfig = TokensConfig()
    restandardise: Mode = Field(
        "train_oof",
        description="mean and spread of predictions: those of left-out training rows, of the test batch (published code, "
        "setting relax), or left as they are",
    )
    n_folds: int = Field(5, ge=2, description="folds over training stimuli for restandardise=train_oof")
    stream_above: int = Field(
        200_000_000,
        ge=0,
        description="stimuli x targets beyond which a ridge reads its targets from the feature store whenever it "
        "predicts, in place of keeping coefficients; only where PHOSPHENE_CACHE names a folder",
    )
    refiner: RefinerConfig = RefinerConfig()
    sampling: RefineConfig = RefineConfig()

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
    "refiner": {"source": "zoo"},
    # Temperature, guidance and strength were chosen on 64 training pictures left out of a fit (docs/two_stage.md).
    "sampling": {"steps": 20, "strength": 0.4, "guidance": 3.0},
}


"""Values of the preset ``lab``."""


T = TypeVar("T", bound=TwoStageConfig)


class TwoStage(Recipe[T]):
    """See the top of this file.

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
    refiner_ : DualGuided
    """

    stages: ClassVar = {
        "standardise": Standardiser,
        "first": Predictor,
        "vision": Predictor,
        "text": Predictor,
        "vdvae": VdvaePart,
        "refiner": DualGuided,
    }
    halves: tuple[str, ...] = ("first", "second")
    """What there is of it; where one is borrowed, either half may be absent."""
    needs: ClassVar = {
        "first": ("standardise",), "vision": ("standardise",), "text": ("standardise",), "vdvae": (), "refiner": (),
    }  # fmt: skip

    def stage_config(self, name: str) -> dict[str, Any]:
        """Values a stage depends on, with the weights of the frozen networks it learns from."""
        c = self.config.model_dump(mode="json")
        moments = {k: c[k] for k in ("restandardise", "n_folds", "setting")}
        if name == "standardise":
            return {"per_session": c["per_session"]}

        if name in ("vision", "text"):
            if name == "vision":
                what = "images"
            else:
                what = "captions"

            return {**moments, "alpha": c["tokens"][f"alpha_{name}"], "clip": self._clip.spec(what)}

        if name == "vdvae":
            return {"network": self._vdvae.spec()}

        if name == "refiner":
            lab = c["refiner"]["source"] == "zoo"
            return {**c["refiner"], "networks": [bundled.fingerprint(n) for n in ("dual_guided", "kl")] if lab else []}

        own = {k: v for k, v in c.items() if k not in ("tokens", "refiner", "sampling", "first", "stream_above")}
        return {**own, "targets": self._vdvae.spec()}

    def generators(self) -> tuple[str, ...]:
        """Those of both stages."""
        names = {
            "first": "lab" if self.config.first.network == "lab" else "vdvae-imagenet64",
            "second": "lab" if self.config.refiner.source == "zoo" else "versatile-diffusion",
        }

        return tuple(dict.fromkeys(names[half] for half in self.halves))

    # -- stages ----------------------------------------------------------------------------------------------------

    def fit_standardise(self, trials: Trials, stimuli: Stimuli) -> Standardiser:
        """Mean and spread of every voxel over the training trials."""
        return Standardiser(per_session=self.config.per_session).fit(trials)

    def fit_first(self, trials: Trials, stimuli: Stimuli) -> Predictor:
        """Betas to VDVAE latents."""
        raise NotImplementedError

    def fit_vision(self, trials: Trials, stimuli: Stimuli) -> Predictor:
        """Betas to CLIP tokens of the picture, by ridge."""
        betas, shown = self._rows(trials, stimuli)
        tokens = self.targets(shown, self._clip.shape("images"), self._clip.image_store, self._clip.transform)
        return self.ridge(trials, betas, tokens, self.config.tokens.alpha_vision)

    def fit_text(self, trials: Trials, stimuli: Stimuli) -> Predictor:
        """Betas to CLIP tokens of the captions (their mean), by ridge."""
        betas, shown = self._rows(trials, stimuli)
        tokens = self.targets(shown, self._clip.shape("captions"), self._clip.caption_mean_store, self._clip.captions)
        return self.ridge(trials, betas, tokens, self.config.tokens.alpha_text)

    def fit_vdvae(self, trials: Trials, stimuli: Stimuli) -> VdvaePart:
        """The network of the first stage, as it comes."""
        from phosphene.models import vdvae as vdvae_weights

        name = self._vdvae.name
        return VdvaePart.of(bundled.load("vdvae") if name == vdvae_weights.LAB else vdvae_weights.load(name))

    def fit_refiner(self, trials: Trials, stimuli: Stimuli) -> DualGuided:
        """The network of the second stage, as it comes."""
        c = self.config.refiner
        if c.source == "zoo":
            return DualGuided.bundled()

        if c.folder is None:
            raise ConfigError(
                "Versatile Diffusion is not part of phosphene; fetch it and give its folder, recipe.refiner.folder=DIR "
                "(docs/two_stage.md says from where), or use the lab's with --preset lab."
            )

        return DualGuided.from_folder(Path(c.folder), *unconditional(self._clip))

    def targets(
        self, shown: Stimuli, shape: Sequence[int], store: Callable[..., RowStore], compute: Callable[..., np.ndarray]
    ) -> np.ndarray | StoredRows:
        """What a ridge is to predict, a row per stimulus: (n, d) in memory, or rows of a store where they are too many.

        Parameters
        ----------
        shown : Stimuli
            stimuli
        shape : sequence of int
            of one row
        store, compute : callable
            from stimuli and a cache to its store, or to the rows
        """
        cache = cache_folder()
        if cache is not None and len(shown) * math.prod(shape) > self.config.stream_above:
            return store(shown, cache, self.progress).select(shown.ids)

        return compute(shown, cache).reshape(len(shown), -1)

    def ridge(
        self, trials: Trials, betas: np.ndarray, targets: np.ndarray | StoredRows, alpha: float | None
    ) -> Predictor:
        """Ridge with a given penalty, or the one that exact leave-one-out chooses (rows are stimuli)."""
        return fit_ridge(betas, targets, alpha, self.restore(trials))

    def restore(self, trials: Trials) -> Restore:
        """Moments of predictions as the configuration asks for; rows are stimuli, so that whole stimuli are left out."""

        def folds() -> np.ndarray:
            return inner_folds(trials.average_repeats(), self.config.n_folds, self.rng("moments"))

        return Restore(self.config.restandardise, folds)

    # -- the arrow -------------------------------------------------------------------------------------------------

    def decode(self, trials: Trials) -> Images:
        """Brain to image: the refined picture of each row of `trials`, 0-1."""
        if "second" not in self.halves:
            return self.first_stage(trials)

        return self.refine(self.first_pictures(trials) if "first" in self.halves else None, trials)

    def first_pictures(self, trials: Trials) -> np.ndarray:
        """What the second stage starts from, as it leaves the first: (n, side, side, 3) float32, 0-1."""
        x = self._betas(trials)
        ids = list(trials.stimuli)
        first = self.first_.among(x)
        return np.concatenate([self._blurry(ids[r], first.predict(x[r])) for r in self._parts(x, self._vdvae.shape())])

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
            0-1; its noise is a function of the stimulus id alone, so that two first pictures differ in nothing else
        """
        x = self._betas(trials)
        ids = list(trials.stimuli)
        vision = self.vision_.among(x)
        text = self.text_.among(x)
        parts = []

        for rows in self._parts(x, self._clip.shape("images"), self._clip.shape("captions")):
            if first_pictures is None:
                first = None
            else:
                first = first_pictures[rows]

            parts.append(self._refined(ids[rows], first, vision.predict(x[rows]), text.predict(x[rows])))

        return self._images(ids, np.concatenate(parts))

    def first_stage(self, trials: Trials) -> Images:
        """Brain to image, without the second stage."""
        return self._images(list(trials.stimuli), self.first_pictures(trials))

    def decode_steps(self, trials: Trials) -> dict[str, Images]:
        """The blurry picture, scored beside the refined one."""
        if len(self.halves) == 2:
            return {"first_stage": self.first_stage(trials)}

        return {}

    def latents(self, trials: Trials) -> Latents:
        """Decoded VDVAE latents, and the class token of the decoded CLIP tokens, which is the pooled CLIP latent."""
        x = self._betas(trials)
        arrays = {}
        if "first" in self.halves:
            arrays[self._vdvae.space] = self.first_.predict(x)

        if "second" in self.halves:
            arrays[self._pooled.space] = self.vision_.predict(x, slice(self._clip.shape("images")[1]))

        return Latents(trials.stimuli, arrays)

    def true_latents(self, stimuli: Stimuli) -> Latents:
        """The same of the pictures themselves."""
        return Latents(stimuli.ids, {f.space: f.transform(stimuli, cache_folder()) for f in self._spaces})

    def text_latents(self, texts: Sequence[str]) -> Latents | None:
        """Pooled CLIP latents of texts."""
        if "second" not in self.halves:
            return None

        return Latents(np.asarray(list(texts), dtype=object), {self._pooled.space: self._pooled.texts(list(texts))})

    def ceiling(self, stimuli: Stimuli) -> Images:
        """Pictures made from the true latents and tokens: what is lost before any brain comes in."""
        ids = list(stimuli.ids)
        cache = cache_folder()
        blurry = None

        if "first" in self.halves:
            blurry = self._blurry(ids, self._vdvae.transform(stimuli, cache))

        if "second" not in self.halves:
            return self._images(ids, blurry)

        tokens = self._clip.transform(stimuli, cache), self._clip.captions(stimuli, cache)
        return self._images(ids, self._refined(ids, blurry, *tokens))

    @property
    def fixed_spaces(self) -> frozenset[str]:
        """Latents of frozen networks mean the same whatever the training trials."""
        return frozenset(f.space for f in self._spaces)

    # -- pieces ----------------------------------------------------------------------------------------------------

    @cached_property
    def _clip(self) -> ClipFeatures:
        return ClipFeatures(self.config.tokens.name, revision=self.config.tokens.revision, output="tokens")

    @cached_property
    def _pooled(self) -> ClipFeatures:
        return ClipFeatures(self.config.tokens.name, revision=self.config.tokens.revision)

    @cached_property
    def _vdvae(self) -> VdvaeFeatures:
        c = self.config.first
        if not c.network:
            raise ConfigError(
                "the public Very Deep VAE is not part of phosphene; convert its checkpoint and give the folder, "
                "recipe.first.network=DIR (docs/two_stage.md says how), or use the lab's with --preset lab."
            )

        return VdvaeFeatures(c.network, groups=c.groups, target=c.target, seed=self.seed)

    @property
    def _spaces(self) -> list[VdvaeFeatures | ClipFeatures]:
        return [self._vdvae if half == "first" else self._pooled for half in self.halves]

    def _rows(self, trials: Trials, stimuli: Stimuli) -> tuple[np.ndarray, Stimuli]:
        """Standardised betas, a row per stimulus, and what was shown."""
        averaged = self.standardise_.transform(trials).average_repeats()
        return averaged.betas, stimuli.select(averaged.stimuli)

    def _betas(self, trials: Trials) -> np.ndarray:
        self.check_trials(trials)
        return self.standardise_.transform(trials).betas

    def _blurry(self, ids: list[str], latents: np.ndarray) -> np.ndarray:
        c = self.config.first
        decoder = VdvaeDecoder(self.vdvae_.module)
        return decoder.decode(latents, ids, seed=self.seed, temperature=c.temperature, pixels=c.pixels).clip(0, 1)

    def _refined(self, ids: list[str], blurry: np.ndarray | None, vision: np.ndarray, text: np.ndarray) -> np.ndarray:
        n = len(ids)
        vision, text = (v.reshape(n, *self._clip.shape(w)) for v, w in ((vision, "images"), (text, "captions")))
        return self.refiner_.refine(blurry, vision, text, ids, self.config.sampling, self.seed)

    def _parts(self, betas: np.ndarray, *shapes: tuple[int, ...]) -> Iterator[slice]:
        """Rows whose latents of these shapes are in memory together; the networks see the same batches as without."""
        together = max(1, DECODED_BYTES // (4 * TOGETHER * sum(map(math.prod, shapes)))) * TOGETHER
        for start in range(0, max(1, len(betas)), together):
            yield slice(start, start + together)

    def _images(self, ids: list[str], pixels: np.ndarray) -> Images:
        grey = self.image_shape_[2] == 1
        return Images(np.asarray(ids, dtype=object), pixels.mean(axis=-1, keepdims=True) if grey else pixels)

    def _fitted_on(self, trials: Trials, stimuli: Stimuli) -> None:
        super()._fitted_on(trials, stimuli)
        side = {"zoo": 32, "folder": 512}[self.config.refiner.source]
        if "second" not in self.halves:
            side = self._vdvae.config.image_size

        self.image_shape_ = (side, side, self.image_shape_[2])


class BrainDiffuserConfig(TwoStageConfig):
    """Configuration of `BrainDiffuser`."""

    kind: Literal["brain_diffuser"] = "brain_diffuser"
    alpha_first: float | None = Field(
        None, gt=0, description="penalty towards VDVAE latents (published: 50,000); chosen where none is given"
    )


class BrainDiffuser(TwoStage[BrainDiffuserConfig]):
    """See the top of this file."""

    config_class = BrainDiffuserConfig
    paper = "brain_diffuser"

    @classmethod
    def preset(cls, name: str) -> dict[str, Any]:
        """``paper``: the published penalties and 31 groups. ``lab``: the zoo's networks, penalties chosen."""
        if name == "lab":
            return LAB

        tokens = {"alpha_vision": 60_000, "alpha_text": 100_000}
        return {"first": {"groups": 31}, "alpha_first": 50_000, "tokens": tokens}

    def fit_first(self, trials: Trials, stimuli: Stimuli) -> Predictor:
        """Betas to VDVAE latents, by ridge."""
        betas, shown = self._rows(trials, stimuli)
        latents = self.targets(shown, self._vdvae.shape(), self._vdvae.image_store, self._vdvae.transform)
        return self.ridge(trials, betas, latents, self.config.alpha_first)
