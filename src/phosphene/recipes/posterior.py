"""Posterior: a linear model of the voxels, and a prior of pictures that is sampled and not linear.

Paper: none of its own. Reconstruction as a posterior over sampled pictures under an encoding model follows Naselaris et
al. 2009 and Nishimoto et al. 2011, its linear Gaussian limit Schoenmakers et al. 2013, Gaussian mixtures as prior
Schoenmakers et al. 2015. Here the sample is the training pictures and warped copies of them, so that it can be large where
the training pictures are few; no other picture and no label comes in.

    encode   picture -> principal components -> ridge -> standardised voxels -> betas
    decode   betas -> standardised voxels -> probability of every warped picture -> their mean, moved by what the voxels
             still say -> picture

How far the noise correlations are believed, how far the voxels are trusted and how far a picture may lie from those of
the sample are chosen together in folds of the training trials, by the mean of pixel correlation and SSIM; by the first
alone where pictures are too small for SSIM.
"""

from __future__ import annotations

from itertools import product
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from phosphene.align.decoders import ALPHAS, LinearGaussian, fit_encoding
from phosphene.align.mixture import MixtureDecoder
from phosphene.align.ridge import Ridge
from phosphene.data.splits import inner_folds
from phosphene.errors import ConfigError
from phosphene.features.warps import WarpConfig, WarpedPictures
from phosphene.io.config import Config
from phosphene.metrics.pixel import mse, pixcorr
from phosphene.metrics.ssim import WINDOW, ssim_2d
from phosphene.recipes.base import STANDARDISE, Recipe, RecipeConfig, Stage
from phosphene.types import Images, Latents, Stimuli, Trials

Alpha = Annotated[float, Field(gt=0, le=1e12)]
Share = Annotated[float, Field(ge=0, lt=1)]
Trust = Annotated[float, Field(gt=0)]
Spread = Annotated[float, Field(ge=0)]
Score = Literal["mse", "pixcorr", "ssim", "pixcorr+ssim"]


class PriorConfig(Config):
    """Which pictures are thought possible."""

    n_pictures: int = Field(default=5400, ge=2, description="training pictures and warped copies of them, about")
    n_components: int = Field(
        default=40, ge=1, description="principal components of these that the voxels are fitted with"
    )
    size: tuple[int, int] | None = Field(default=None, description="(height, width) to resize pictures to first")
    warp: WarpConfig = WarpConfig()


class ChoiceConfig(Config):
    """What is tried in folds of the training trials."""

    score: Score = Field(default="pixcorr+ssim", description="what decides; pixcorr+ssim is pixcorr below 11 px")
    n_folds: int = Field(default=5, ge=2)
    correlations: tuple[Share, ...] = Field(default=(0.05, 0.1, 0.2), min_length=1)
    trusts: tuple[Trust, ...] = Field(default=(0.05, 0.1, 0.15, 0.2, 0.3), min_length=1)
    spreads: tuple[Spread, ...] = Field(default=(0.0, 0.03, 0.1), min_length=1)

    def tried(self) -> list[tuple[float, float, float]]:
        """Every triple of correlation, trust and spread."""
        return list(product(self.correlations, self.trusts, self.spreads))

    def score_for(self, height: int, width: int) -> Score:
        """What decides among pictures of this size: SSIM drops out of the mean where its window does not fit.

        Raises
        ------
        ConfigError
            Where SSIM alone was to decide.
        """
        if "ssim" not in self.score or min(height, width) >= WINDOW:
            return self.score

        if self.score == "ssim":
            raise ConfigError(
                f"recipe.choice.score=ssim needs pictures of at least {WINDOW} pixels a side, the window of SSIM, but they are "
                f"{height} x {width}. Choose by pixcorr or mse, or larger pictures (recipe.prior.size=[{WINDOW},{WINDOW}])."
            )

        return "pixcorr"


class PosteriorConfig(RecipeConfig):
    """Configuration of `Posterior`."""

    kind: Literal["posterior"] = "posterior"
    prior: PriorConfig = PriorConfig()
    choice: ChoiceConfig = ChoiceConfig()
    alphas: tuple[Alpha, ...] = Field(default=ALPHAS, min_length=1, description="ridge penalties to choose among")


class Posterior(Recipe[PosteriorConfig]):
    """The mean of the pictures thought possible, weighed by how well an encoding model explains the response with each.

    Attributes
    ----------
    standardise_ : Standardiser
        of the voxels
    prior_ : WarpedPictures
        of the training pictures
    to_brain_ : Ridge
        components to standardised voxels
    decoder_ : MixtureDecoder
        standardised voxels to probabilities and components
    """

    stages = (
        STANDARDISE,
        Stage("prior", WarpedPictures, needs=(), settings=("prior",), reads=("stimuli",)),
        Stage("to_brain", Ridge, needs=("standardise", "prior"), settings=("alphas",), uses=(fit_encoding,)),
        Stage(
            "decoder", MixtureDecoder, settings=("choice", "prior", "alphas", "per_session"),
            uses=(LinearGaussian, Ridge, WarpedPictures, fit_encoding, inner_folds),
        ),
    )  # fmt: skip
    presets = {  # noqa: RUF012  a constant
        "lab": {},
        "paper": {"prior": {"size": [64, 64], "n_pictures": 20000, "n_components": 200}},  # for data of NSD's size
    }

    # -- stages, in order ------------------------------------------------------------------------------------------

    def fit_prior(self, stimuli: Stimuli) -> WarpedPictures:
        """The training pictures and warped copies, as many per picture as make the number asked for."""
        c = self.config.prior
        prior = WarpedPictures(c.n_pictures, c.n_components, c.size, c.warp)
        return prior.fit(stimuli, self.rng("warps"))

    def fit_to_brain(self, trials: Trials, stimuli: Stimuli) -> Ridge:
        """Components to standardised voxels, a penalty per voxel."""
        betas, latents = self._pairs(trials, stimuli)
        return fit_encoding(latents, betas, self.config.alphas)

    def fit_decoder(self, trials: Trials, stimuli: Stimuli) -> MixtureDecoder:
        """The encoding model turned round, with the values that decode held-out training trials best."""
        c = self.config.choice
        tried = c.tried()

        if len(tried) > 1:
            scores = self._held_out_scores(trials, stimuli, tried)
        else:
            scores = np.zeros(1)

        correlation, trust, spread = tried[int(np.argmax(scores))]
        betas, latents = self._pairs(trials, stimuli)
        model = LinearGaussian(self.to_brain_, latents, betas)
        decoder = MixtureDecoder.fit(model, self.prior_.latents(), correlation=correlation, trust=trust, spread=spread)
        score = c.score_for(*self.image_shape_[:2])
        decoder.chosen_ |= {"score": score, "held_out_score": float(np.max(scores)), "n_tried": len(tried)}

        return decoder

    def _held_out_scores(self, trials: Trials, stimuli: Stimuli, tried: list[tuple[float, float, float]]) -> np.ndarray:
        """Mean score of each triple over training pictures decoded by models that never saw them, prior included."""
        fold = self.inner_folds(trials)
        total = np.zeros(len(tried))
        score = self.config.choice.score_for(*self.image_shape_[:2])
        one = ChoiceConfig(correlations=(0.1,), trusts=(0.1,), spreads=(0.0,))
        single = self.config.model_copy(update={"choice": one})

        for held_out in np.unique(fold):
            inside = trials.take(fold != held_out)
            inner = Posterior(single, seed=self.seed).fit(inside, stimuli)
            test = trials.take(fold == held_out).average_repeats()
            true = stimuli.select(test.stimuli).resized(inner.prior_.image_shape_[:2])
            model = LinearGaussian(inner.to_brain_, *reversed(inner._pairs(inside, stimuli)))
            latents = inner.prior_.latents()
            pictures = inner.prior_.floats()
            betas = inner.standardised(test).betas

            for i, (correlation, trust, spread) in enumerate(tried):
                values = {"correlation": correlation, "trust": trust, "spread": spread}
                decoder = MixtureDecoder.fit(model, latents, **values)
                decoded = inner.prior_.mixed(*decoder.posterior(betas), pictures)
                total[i] += _scores(score, decoded, true).sum()

        return total / len(stimuli)

    # -- the arrows ------------------------------------------------------------------------------------------------

    def decode(self, trials: Trials) -> Images:
        """Brain to image: one picture per row of `trials`, 0-1."""
        self.check_trials(trials)
        return Images(trials.stimuli, self.prior_.mixed(*self.decoder_.posterior(self.standardised(trials).betas)))

    def encode(self, stimuli: Stimuli) -> Trials:
        """Image to brain: one predicted response per stimulus, in the units of the training betas."""
        standardised = self.to_brain_.predict(self.prior_.transform(stimuli))
        return self.predicted_trials(stimuli, self.standardise_.inverse(standardised))

    def latents(self, trials: Trials) -> Latents:
        """Posterior mean of the components, one row per trial."""
        self.check_trials(trials)
        return Latents(trials.stimuli, {WarpedPictures.space: self.decoder_.predict(self.standardised(trials).betas)})

    def true_latents(self, stimuli: Stimuli) -> Latents:
        """Components of the pictures themselves."""
        return Latents(stimuli.ids, {WarpedPictures.space: self.prior_.transform(stimuli)})

    def ceiling(self, stimuli: Stimuli) -> Images:
        """Pictures drawn from their own components, an upper bound of what the voxels are asked for."""
        return Images(stimuli.ids, np.clip(self.prior_.inverse(self.prior_.transform(stimuli)), 0, 1))

    def picture_shape(self, stimuli: Stimuli) -> tuple[int, int, int]:
        """(height, width, channels) of a decoded picture: of the size that pictures are resized to."""
        height, width = self.config.prior.size or stimuli.image_shape[:2]
        self.config.choice.score_for(height, width)  # refused before anything is fitted
        return height, width, stimuli.image_shape[2]

    def inner_folds(self, trials: Trials) -> np.ndarray:
        """Folds of the training trials that everything was chosen in, whole stimuli together."""
        return inner_folds(trials, self.config.choice.n_folds, self.rng("inner folds"))

    def voxel_weights(self) -> np.ndarray:
        """How much each voxel counts when decoding, 0 for unused."""
        return self.decoder_.voxel_weights_

    def _pairs(self, trials: Trials, stimuli: Stimuli) -> tuple[np.ndarray, np.ndarray]:
        """Standardised betas, one row per stimulus, and the components of what was shown."""
        averaged = self.averaged(trials)
        return averaged.betas, self.prior_.transform(stimuli.select(averaged.stimuli))


def _scores(name: str, decoded: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Score of each picture, larger is better; a picture without contrast correlates with nothing."""
    if name == "pixcorr+ssim":
        return (_scores("pixcorr", decoded, true) + _scores("ssim", decoded, true)) / 2

    score = {"mse": mse, "pixcorr": pixcorr, "ssim": ssim_2d}[name]
    return np.nan_to_num(np.asarray(score(decoded, true), dtype=np.float64)) * (-1 if name == "mse" else 1)
