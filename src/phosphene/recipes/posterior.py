"""Posterior: a linear model of the voxels, and a prior of pictures that is sampled and not linear.

Paper: none of its own. Reconstruction as a posterior over sampled pictures under an encoding model follows Naselaris et
al. 2009 and Nishimoto et al. 2011, its linear Gaussian limit Schoenmakers et al. 2013, Gaussian mixtures as prior
Schoenmakers et al. 2015. Here the sample is the training pictures and warped copies of them, so that it can be large where
the training pictures are few; no other picture and no label comes in.

    encode   picture -> principal components -> ridge -> standardised voxels -> betas
    decode   betas -> standardised voxels -> probability of every warped picture -> their mean, moved by what the voxels
             still say -> picture

The stages, in order:

1. ``standardise``: mean and standard deviation of every voxel.
2. ``prior``: the sample of pictures, and the principal components that the voxels are fitted with.
3. ``to_brain``: ridge from components to voxels. With Gaussian noise it gives the likelihood of a response to any picture.
4. ``decoder``: Bayes' rule. Each picture of the sample is the centre of a Gaussian, so the prior is a mixture of as many
   Gaussians (Schoenmakers et al. 2015); the posterior weighs them and moves their centres.

Three values of the decoder are chosen together in folds of the training trials: ``correlation``, how far the noise
correlations are believed; ``trust``, how far the voxels are trusted against the prior; ``spread``, how far a picture may
lie from those of the sample. The mean of pixel correlation and SSIM decides; pixel correlation alone where pictures are too
small for SSIM.
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
    """Which pictures are possible."""

    n_pictures: int = Field(default=5400, ge=2, description="training pictures and warped copies of them, about")
    n_components: int = Field(
        default=40, ge=1, description="principal components of these that the voxels are fitted with"
    )
    size: tuple[int, int] | None = Field(default=None, description="(height, width) to resize pictures to first")
    warp: WarpConfig = WarpConfig()


class ChoiceConfig(Config):
    """Values to choose among, in folds of the training trials, and the score that decides."""

    score: Score = Field(default="pixcorr+ssim", description="what decides; pixcorr+ssim is pixcorr below 11 px")
    n_folds: int = Field(default=5, ge=2)
    correlations: tuple[Share, ...] = Field(default=(0.05, 0.1, 0.2), min_length=1)
    trusts: tuple[Trust, ...] = Field(default=(0.05, 0.1, 0.15, 0.2, 0.3), min_length=1)
    spreads: tuple[Spread, ...] = Field(default=(0.0, 0.03, 0.1), min_length=1)

    def grid(self) -> list[tuple[float, float, float]]:
        """Every triple of correlation, trust and spread, the last varying fastest."""
        return list(product(self.correlations, self.trusts, self.spreads))

    def score_for(self, height: int, width: int) -> Score:
        """Score that decides among pictures of this size: SSIM drops out of the mean where its window does not fit.

        Parameters
        ----------
        height, width : int
            pixels of a decoded picture

        Returns
        -------
        str

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
    """The mean of many pictures, each weighed by how well an encoding model explains the response with it.

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
        """The training pictures and warped copies, as many per picture as make ``prior.n_pictures``."""
        c = self.config.prior
        prior = WarpedPictures(c.n_pictures, c.n_components, c.size, c.warp)

        return prior.fit(stimuli, self.rng("warps"))

    def fit_to_brain(self, trials: Trials, stimuli: Stimuli) -> Ridge:
        """Components to standardised voxels, a penalty per voxel."""
        betas, latents = self._pairs(trials, stimuli)

        return fit_encoding(latents, betas, self.config.alphas)

    def fit_decoder(self, trials: Trials, stimuli: Stimuli) -> MixtureDecoder:
        """The encoding model inverted under the prior, with the values that decode held-out training trials best."""
        c = self.config.choice
        grid = c.grid()

        if len(grid) > 1:
            scores = self._held_out_scores(trials, stimuli, grid)
        else:
            scores = np.zeros(1)  # nothing to choose

        correlation, trust, spread = grid[int(np.argmax(scores))]

        betas, latents = self._pairs(trials, stimuli)
        model = LinearGaussian(self.to_brain_, latents, betas)
        decoder = MixtureDecoder.fit(model, self.prior_.latents(), correlation=correlation, trust=trust, spread=spread)
        score = c.score_for(*self.image_shape_[:2])
        decoder.chosen_ |= {"score": score, "held_out_score": float(np.max(scores)), "n_tried": len(grid)}

        return decoder

    def _held_out_scores(self, trials: Trials, stimuli: Stimuli, grid: list[tuple[float, float, float]]) -> np.ndarray:
        """Mean score of each triple over training pictures decoded by models that never saw them.

        Parameters
        ----------
        trials : Trials
            training trials
        stimuli : Stimuli
            shown in them
        grid : list of tuple of float
            correlation, trust and spread

        Returns
        -------
        ndarray of shape (n_triples,)
        """
        folds = self.inner_folds(trials)
        score = self.config.choice.score_for(*self.image_shape_[:2])
        total = np.zeros(len(grid))

        # A grid of one triple, so that the models of the folds choose nothing themselves. Their
        # encoding model and prior do not depend on it.
        single = ChoiceConfig(correlations=(0.1,), trusts=(0.1,), spreads=(0.0,))
        without_choice = self.config.model_copy(update={"choice": single})

        for fold in np.unique(folds):
            # The prior is fitted anew as well: a sample that holds the true pictures would favour the smallest spread.
            inside = trials.take(folds != fold)
            inner = Posterior(without_choice, seed=self.seed).fit(inside, stimuli)
            inside_betas, inside_latents = inner._pairs(inside, stimuli)
            model = LinearGaussian(inner.to_brain_, inside_latents, inside_betas)
            latents = inner.prior_.latents()  # (n_pictures, n_components)
            pictures = inner.prior_.floats()  # (n_pictures, height, width, channels)

            held_out = trials.take(folds == fold).average_repeats()
            betas = inner.standardised(held_out).betas
            true = stimuli.select(held_out.stimuli).resized(inner.prior_.image_shape_[:2])

            for i, (correlation, trust, spread) in enumerate(grid):
                decoder = MixtureDecoder.fit(model, latents, correlation=correlation, trust=trust, spread=spread)
                probabilities, moved = decoder.posterior(betas)
                decoded = inner.prior_.mixed(probabilities, moved, pictures)
                total[i] += _scores(score, decoded, true).sum()

        return total / len(stimuli)

    # -- the arrows ------------------------------------------------------------------------------------------------

    def decode(self, trials: Trials) -> Images:
        """Brain to image: one picture per row of `trials`, 0-1."""
        self.check_trials(trials)
        probabilities, moved = self.decoder_.posterior(self.standardised(trials).betas)

        return Images(trials.stimuli, self.prior_.mixed(probabilities, moved))

    def encode(self, stimuli: Stimuli) -> Trials:
        """Image to brain: one predicted response per stimulus, in the units of the training betas."""
        standardised = self.to_brain_.predict(self.prior_.transform(stimuli))  # (n_stimuli, n_voxels)

        return self.predicted_trials(stimuli, self.standardise_.inverse(standardised))

    def latents(self, trials: Trials) -> Latents:
        """Posterior mean of the components, one row per trial."""
        self.check_trials(trials)
        components = self.decoder_.predict(self.standardised(trials).betas)  # (n_trials, n_components)

        return Latents(trials.stimuli, {WarpedPictures.space: components})

    def true_latents(self, stimuli: Stimuli) -> Latents:
        """Components of the pictures themselves."""
        return Latents(stimuli.ids, {WarpedPictures.space: self.prior_.transform(stimuli)})

    def ceiling(self, stimuli: Stimuli) -> Images:
        """Pictures drawn from their own components, an upper bound of what the voxels are asked for."""
        pixels = self.prior_.inverse(self.prior_.transform(stimuli))  # (n_stimuli, height, width, channels)

        return Images(stimuli.ids, np.clip(pixels, 0, 1))

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
        """Standardised betas (n_stimuli, n_voxels), repeats averaged, and the components of what was shown."""
        averaged = self.averaged(trials)
        components = self.prior_.transform(stimuli.select(averaged.stimuli))  # (n_stimuli, n_components)

        return averaged.betas, components


def _scores(name: str, decoded: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Score of each picture, (n,) float64, larger is better; a picture without contrast correlates with nothing."""
    if name == "pixcorr+ssim":
        return (_scores("pixcorr", decoded, true) + _scores("ssim", decoded, true)) / 2

    score = {"mse": mse, "pixcorr": pixcorr, "ssim": ssim_2d}[name]
    scores = np.nan_to_num(np.asarray(score(decoded, true), dtype=np.float64))
    if name == "mse":
        return -scores

    return scores
