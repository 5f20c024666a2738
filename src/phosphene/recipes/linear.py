"""Linear: betas to picture and picture to betas by linear maps. The honest baseline, and the template for all others.

Paper: none. Encoding by ridge and decoding by inverting it follow Naselaris et al. 2009 (Neuron 63) and Schoenmakers et
al. 2013 (NeuroImage 83); decoding by ridge is the common baseline of the field.

    encode   picture -> principal components of pixels -> ridge -> standardised voxels -> betas
    decode   betas -> standardised voxels -> principal components -> pixels -> output curve

The stages, in order:

1. ``standardise``: mean and standard deviation of every voxel.
2. ``pixels``: principal components of the training pictures, the latents of this recipe.
3. ``to_brain``: ridge from components to voxels, the encoding model.
4. ``to_pixels``: from voxels back to components, by a second ridge or by inverting the encoding model.
5. ``curve``: a curve from decoded to true pixel values. Least squares shrinks towards the mean picture, so decoded
   pictures have too little contrast.

Repeats are averaged, so a row is a stimulus. Everything is fitted, and everything chosen, inside the training trials.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from phosphene.align.decoders import ALPHAS, HeldOut, LinearDecoder, fit_encoding, invert, regress, reliable_voxels
from phosphene.align.ridge import Ridge
from phosphene.data.splits import inner_folds
from phosphene.features.pixels import PixelPca
from phosphene.io.config import Config
from phosphene.metrics.pixel import mse, pixcorr
from phosphene.metrics.ssim import ssim_2d
from phosphene.models.curves import OutputCurve
from phosphene.recipes.base import STANDARDISE, Recipe, RecipeConfig, Stage
from phosphene.types import Images, Latents, Stimuli, Trials

Alpha = Annotated[float, Field(gt=0, le=1e12)]


class PixelsConfig(Config):
    """Principal components of pixels."""

    n_components: int | None = Field(default=None, ge=1, description="all that the training pictures span by default")
    size: tuple[int, int] | None = Field(default=None, description="(height, width) to resize pictures to first")


class InverseConfig(Config):
    """Invert the encoding model."""

    kind: Literal["inverse"] = "inverse"
    n_folds: int = Field(
        default=5, ge=2, description="folds over training stimuli that choose trust and noise correlation"
    )


class RidgeConfig(Config):
    """Regress components on voxels."""

    kind: Literal["ridge"] = "ridge"
    voxels: Literal["all", "reliable", "weighted"] = Field(
        default="weighted", description="all; those with held-out R2 > 0; or those, times the square root of R2"
    )


class CurveConfig(Config):
    """Output curve, fitted to held-out training pictures."""

    kind: Literal["none", "monotone", "contrast"] = "monotone"
    score: Literal["mse", "pixcorr", "ssim"] = Field(default="ssim", description="what a contrast curve is chosen by")
    n_folds: int = Field(default=5, ge=2)


class LinearConfig(RecipeConfig):
    """Configuration of `Linear`."""

    kind: Literal["linear"] = "linear"
    pixels: PixelsConfig = PixelsConfig()
    decoder: Annotated[InverseConfig | RidgeConfig, Field(discriminator="kind")] = RidgeConfig()
    curve: CurveConfig = CurveConfig()
    alphas: tuple[Alpha, ...] = Field(default=ALPHAS, min_length=1, description="ridge penalties to choose among")


class Linear(Recipe[LinearConfig]):
    """Ridge from voxels to principal components of pixels, and from components to voxels.

    Each method ``fit_NAME`` fits the stage of that name and returns its part, which then is the attribute ``NAME_``. It is
    given the training trials, not standardised and not averaged, and the stimuli shown in them.

    Attributes
    ----------
    standardise_ : Standardiser
        of the voxels
    pixels_ : PixelPca
        of the training pictures
    to_brain_ : Ridge
        components to standardised voxels
    to_pixels_ : LinearDecoder
        standardised voxels to components
    curve_ : OutputCurve
        of decoded pixels
    """

    stages = (
        STANDARDISE,
        # Reads trials for the order of their stimuli, which the last bits of the components depend on.
        Stage("pixels", PixelPca, needs=(), settings=("pixels",)),
        Stage(
            "to_brain", Ridge, needs=("standardise", "pixels"), settings=("alphas",), uses=(fit_encoding,)
        ),
        Stage(
            "to_pixels", LinearDecoder, needs=("standardise", "pixels", "to_brain"), settings=("alphas", "decoder"),
            uses=(Ridge, HeldOut, regress, invert, reliable_voxels),
        ),
        Stage("curve", OutputCurve, uses=(PixelPca, Ridge, LinearDecoder, regress, invert, inner_folds)),
    )  # fmt: skip
    presets = {  # noqa: RUF012  a constant
        "lab": {"pixels": {"n_components": 256}},
        "paper": {"pixels": {"n_components": 1000, "size": [64, 64]}},  # for data of NSD's size
    }

    # -- stages, in order ------------------------------------------------------------------------------------------

    def fit_pixels(self, trials: Trials, stimuli: Stimuli) -> PixelPca:
        """Principal components of the training pictures."""
        return PixelPca(self.config.pixels.n_components, self.config.pixels.size).fit(stimuli)

    def fit_to_brain(self, trials: Trials, stimuli: Stimuli) -> Ridge:
        """Components to standardised voxels, a penalty per voxel."""
        betas, latents = self._pairs(trials, stimuli)

        return fit_encoding(latents, betas, self.config.alphas)

    def fit_to_pixels(self, trials: Trials, stimuli: Stimuli) -> LinearDecoder:
        """Standardised voxels to components."""
        betas, latents = self._pairs(trials, stimuli)
        decoder = self.config.decoder
        alphas = self.config.alphas

        if decoder.kind == "inverse":
            rng = self.rng("inverse folds")
            return invert(betas, latents, self.to_brain_, rng=rng, n_folds=decoder.n_folds, alphas=alphas)

        weights = self._weights(betas, latents, decoder.voxels)
        return regress(betas, latents, weights, alphas)

    def _weights(self, betas: np.ndarray, latents: np.ndarray, voxels: str) -> np.ndarray:
        """How much each voxel counts in the regression, (n_voxels,) float32."""
        if voxels == "all":
            return np.ones(betas.shape[1], dtype=np.float32)

        # Exact leave-one-out: the response to a stimulus is predicted by an encoding model fitted without it.
        r2 = HeldOut(self.to_brain_, latents, betas).r2_  # (n_voxels,)
        weights = reliable_voxels(r2).astype(np.float32)

        if voxels == "weighted":
            # The square root of R2 is about the correlation of a voxel with its prediction.
            weights *= np.sqrt(np.maximum(r2, 0))

        return weights

    def fit_curve(self, trials: Trials, stimuli: Stimuli) -> OutputCurve:
        """Output curve from training pictures decoded by models that never saw them."""
        curve = self.config.curve
        if curve.kind == "none":
            return OutputCurve.none()

        decoded, true = self._held_out(trials, stimuli)  # (n_stimuli, height, width, channels) each
        if curve.kind == "monotone":
            return OutputCurve.monotone(decoded, true)

        # The monotone curve is the best by squared error; one parameter can be chosen by any score.
        return OutputCurve.contrast(decoded, lambda pictures: _score(curve.score, pictures, true))

    def _held_out(self, trials: Trials, stimuli: Stimuli) -> tuple[np.ndarray, np.ndarray]:
        """Training pictures decoded by models that never saw them, and the pictures themselves.

        A picture decoded by a model that was fitted on it lies closer to the truth than any new one will, so a curve fitted to
        such pictures would add too little contrast.
        """
        folds = self.inner_folds(trials)
        without_curve = self.config.model_copy(update={"curve": CurveConfig(kind="none")})
        decoded = []
        true = []

        for fold in np.unique(folds):
            inner = Linear(without_curve, seed=self.seed).fit(trials.take(folds != fold), stimuli)
            held_out = trials.take(folds == fold).average_repeats()
            decoded.append(inner.pixels_.inverse(inner._components(held_out)))
            true.append(stimuli.select(held_out.stimuli).resized(self.image_shape_[:2]))

        return np.concatenate(decoded), np.concatenate(true)

    # -- the arrows ------------------------------------------------------------------------------------------------

    def decode(self, trials: Trials) -> Images:
        """Brain to image: one picture per row of `trials`, 0-1."""
        self.check_trials(trials)
        pixels = self.pixels_.inverse(self._components(trials))  # (n_trials, height, width, channels)

        return Images(trials.stimuli, self.curve_(pixels))

    def encode(self, stimuli: Stimuli) -> Trials:
        """Image to brain: one predicted response per stimulus, in the units of the training betas."""
        standardised = self.to_brain_.predict(self.pixels_.transform(stimuli))  # (n_stimuli, n_voxels)

        return self.predicted_trials(stimuli, self.standardise_.inverse(standardised))

    def latents(self, trials: Trials) -> Latents:
        """Decoded components, one row per trial."""
        self.check_trials(trials)
        return Latents(trials.stimuli, {PixelPca.space: self._components(trials)})

    def true_latents(self, stimuli: Stimuli) -> Latents:
        """Components of the pictures themselves."""
        return Latents(stimuli.ids, {PixelPca.space: self.pixels_.transform(stimuli)})

    def ceiling(self, stimuli: Stimuli) -> Images:
        """Pictures drawn from their own components: what is lost before any brain comes in."""
        components = self.pixels_.transform(stimuli)  # (n_stimuli, n_components)

        return Images(stimuli.ids, self.pixels_.inverse(components))

    def picture_shape(self, stimuli: Stimuli) -> tuple[int, int, int]:
        """(height, width, channels) of a decoded picture: of the size that pictures are resized to."""
        height, width = self.config.pixels.size or stimuli.image_shape[:2]
        return height, width, stimuli.image_shape[2]

    def inner_folds(self, trials: Trials) -> np.ndarray:
        """Folds of the training trials that the output curve was fitted in, whole stimuli together."""
        return inner_folds(trials, self.config.curve.n_folds, self.rng("inner folds"))

    def voxel_weights(self) -> np.ndarray:
        """How much each voxel counts when decoding, 0 for unused."""
        return self.to_pixels_.voxel_weights_

    def _components(self, trials: Trials) -> np.ndarray:
        """Decoded components, (n_trials, n_components) float32."""
        return self.to_pixels_.predict(self.standardised(trials).betas)

    def _pairs(self, trials: Trials, stimuli: Stimuli) -> tuple[np.ndarray, np.ndarray]:
        """Standardised betas (n_stimuli, n_voxels), repeats averaged, and the components of what was shown."""
        averaged = self.averaged(trials)
        components = self.pixels_.transform(stimuli.select(averaged.stimuli))  # (n_stimuli, n_components)

        return averaged.betas, components


def _score(name: str, decoded: np.ndarray, true: np.ndarray) -> float:
    """Mean score of pictures (n, height, width, channels), larger is better; without those whose score is undefined."""
    if name == "mse":
        return -float(np.nanmean(mse(decoded, true)))

    score = {"pixcorr": pixcorr, "ssim": ssim_2d}[name]
    return float(np.nanmean(score(decoded, true)))
