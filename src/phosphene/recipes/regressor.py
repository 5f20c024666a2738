"""Regressor: CLIP latents to voxels and back by plain ridge; MaskGIT draws. The baseline a brain model has to beat.

Paper: none of its own; the baseline "Regressor" of Qian et al. 2024 (LEA), table 2, is its encoding half. The paper names no
penalty; here one per voxel is chosen by exact leave-one-out.

    encode   picture -> CLIP latent -> ridge -> standardised voxels -> betas
    decode   betas -> standardised voxels -> ridge -> CLIP latent -> MaskGIT -> picture
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from phosphene.align.decoders import ALPHAS, HeldOut, LinearDecoder, fit_encoding, regress, reliable_voxels
from phosphene.align.ridge import Ridge
from phosphene.recipes.base import STANDARDISE, Stage
from phosphene.recipes.lea import LAB_MASKGIT, MASKGIT, PAPER_MASKGIT, ClipToMaskGit, ClipToMaskGitConfig
from phosphene.types import Stimuli, Trials

Alpha = Annotated[float, Field(gt=0, le=1e12)]


class RegressorConfig(ClipToMaskGitConfig):
    """Configuration of `Regressor`."""

    kind: Literal["regressor"] = "regressor"
    voxels: Literal["all", "reliable", "weighted"] = Field(
        default="weighted",
        description="for decoding: all; those with held-out R2 > 0; or those, times the square root of R2",
    )
    alphas: tuple[Alpha, ...] = Field(default=ALPHAS, min_length=1, description="ridge penalties to choose among")


class Regressor(ClipToMaskGit[RegressorConfig]):
    """Ridge from voxels to CLIP latents and from CLIP latents to voxels; MaskGIT draws.

    Attributes
    ----------
    standardise_ : Standardiser
        of the voxels
    to_brain_ : Ridge
        CLIP latents to standardised voxels
    to_clip_ : LinearDecoder
        standardised voxels to CLIP latents
    generator_ : MaskGitPipeline
        CLIP latents to pictures
    """

    stages = (
        STANDARDISE,
        Stage(
            "to_brain", Ridge, needs=("standardise",), settings=("alphas",), uses=(fit_encoding,),
            weights=lambda recipe: recipe.maskgit.latent_weights(),
        ),
        Stage(
            "to_clip", LinearDecoder, needs=("standardise", "to_brain"), settings=("alphas", "voxels"),
            uses=(Ridge, HeldOut, regress, reliable_voxels), weights=lambda recipe: recipe.maskgit.latent_weights(),
        ),
        MASKGIT,
    )  # fmt: skip
    presets = {"lab": LAB_MASKGIT, "paper": PAPER_MASKGIT}  # noqa: RUF012  a constant

    # -- stages, in order ------------------------------------------------------------------------------------------

    def fit_to_brain(self, trials: Trials, stimuli: Stimuli) -> Ridge:
        """CLIP latents to standardised voxels, a penalty per voxel."""
        betas, latents = self._pairs(trials, stimuli)

        # The grid is for inputs of unit variance, which coordinates of unit vectors are far from.
        variance = float(latents.var(axis=0).mean())
        alphas = [alpha * variance for alpha in self.config.alphas]

        return fit_encoding(latents, betas, alphas)

    def fit_to_clip(self, trials: Trials, stimuli: Stimuli) -> LinearDecoder:
        """Standardised voxels to CLIP latents, one penalty."""
        betas, latents = self._pairs(trials, stimuli)
        weights = np.ones(betas.shape[1], dtype=np.float32)
        if self.config.voxels != "all":
            r2 = HeldOut(self.to_brain_, latents, betas).r2_  # (n_voxels,)
            weights = reliable_voxels(r2).astype(np.float32)
            if self.config.voxels == "weighted":
                weights *= np.sqrt(np.maximum(r2, 0))

        return regress(betas, latents, weights, self.config.alphas)

    # -- the arrows ------------------------------------------------------------------------------------------------

    def clip_latents(self, trials: Trials) -> np.ndarray:
        """Brain to CLIP latents, (n, d) float32."""
        return self.to_clip_.predict(self.standardised(trials).betas)

    def encode(self, stimuli: Stimuli) -> Trials:
        """Image to brain: one predicted response per stimulus, in the units of the training betas."""
        latents = self.maskgit.image_latents(stimuli)  # (n_stimuli, d)
        standardised = self.to_brain_.predict(latents)  # (n_stimuli, n_voxels)

        return self.predicted_trials(stimuli, self.standardise_.inverse(standardised))

    def voxel_weights(self) -> np.ndarray:
        """How much each voxel counts when decoding, 0 for unused."""
        return self.to_clip_.voxel_weights_

    def _pairs(self, trials: Trials, stimuli: Stimuli) -> tuple[np.ndarray, np.ndarray]:
        """Standardised betas (n_stimuli, n_voxels), repeats averaged, and the CLIP latents of what was shown."""
        averaged = self.averaged(trials)
        latents = self.maskgit.image_latents(stimuli.select(averaged.stimuli))  # (n_stimuli, d)

        return averaged.betas, latents
