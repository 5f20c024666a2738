"""Linear: betas to picture and picture to betas by linear maps. The honest baseline, and the template for all others.

Paper: none. Encoding by ridge and decoding by inverting it follow Naselaris et al. 2009 and Schoenmakers et al. 2013;
decoding by ridge is the common baseline of the field.

    encode   picture -> principal components of pixels -> ridge -> standardised voxels -> betas
    decode   betas -> standardised voxels -> principal components -> pixels -> output curve

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
    """Output curve, fitted on held-out training pictures."""

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
        if decoder.kind == "inverse":
            rng = self.rng("inverse folds")
            return invert(betas, latents, self.to_brain_, rng=rng, n_folds=decoder.n_folds, alphas=self.config.alphas)

        weights = np.ones(betas.shape[1], dtype=np.float32)
        if decoder.voxels != "all":
            r2 = HeldOut(self.to_brain_, latents, betas).r2_
            weights = reliable_voxels(r2).astype(np.float32)
            if decoder.voxels == "weighted":
                weights *= np.sqrt(np.maximum(r2, 0))

        return regress(betas, latents, weights, self.config.alphas)

    def fit_curve(self, trials: Trials, stimuli: Stimuli) -> OutputCurve:
        """Output curve from training pictures decoded by models that never saw them."""
        curve = self.config.curve
        if curve.kind == "none":
            return OutputCurve.none()

        decoded, true = self._held_out(trials, stimuli)
        if curve.kind == "monotone":
            return OutputCurve.monotone(decoded, true)

        return OutputCurve.contrast(decoded, lambda pictures: _score(curve.score, pictures, true))

    def _held_out(self, trials: Trials, stimuli: Stimuli) -> tuple[np.ndarray, np.ndarray]:
        """Training pictures decoded by models that never saw them, everything before the curve fitted anew."""
        fold = self.inner_folds(trials)
        uncurved = self.config.model_copy(update={"curve": CurveConfig(kind="none")})
        decoded = []
        true = []

        for held_out in np.unique(fold):
            inner = Linear(uncurved, seed=self.seed).fit(trials.take(fold != held_out), stimuli)
            test = trials.take(fold == held_out).average_repeats()
            decoded.append(inner.pixels_.inverse(inner._components(test)))
            true.append(stimuli.select(test.stimuli).resized(self.image_shape_[:2]))

        return np.concatenate(decoded), np.concatenate(true)

    # -- the arrows ------------------------------------------------------------------------------------------------

    def decode(self, trials: Trials) -> Images:
        """Brain to image: one picture per row of `trials`, 0-1."""
        self.check_trials(trials)
        return Images(trials.stimuli, self.curve_(self.pixels_.inverse(self._components(trials))))

    def encode(self, stimuli: Stimuli) -> Trials:
        """Image to brain: one predicted response per stimulus, in the units of the training betas."""
        standardised = self.to_brain_.predict(self.pixels_.transform(stimuli))
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
        return Images(stimuli.ids, self.pixels_.inverse(self.pixels_.transform(stimuli)))

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
        return self.to_pixels_.predict(self.standardised(trials).betas)

    def _pairs(self, trials: Trials, stimuli: Stimuli) -> tuple[np.ndarray, np.ndarray]:
        """Standardised betas, one row per stimulus, and the components of what was shown."""
        averaged = self.averaged(trials)
        return averaged.betas, self.pixels_.transform(stimuli.select(averaged.stimuli))


def _score(name: str, decoded: np.ndarray, true: np.ndarray) -> float:
    """Mean score of pictures, larger is better."""
    score = {"mse": mse, "pixcorr": pixcorr, "ssim": ssim_2d}[name]
    return float(np.nanmean(score(decoded, true))) * (-1 if name == "mse" else 1)
