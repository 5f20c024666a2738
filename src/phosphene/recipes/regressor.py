"""Regressor: CLIP latents to voxels and back by plain ridge; MaskGIT draws. The baseline a brain model has to beat.

Paper: none of its own; the baseline "Regressor" of Qian et al. 2024 (LEA), table 2, is its encoding half. The paper names no
penalty; here one per voxel is chosen by exact leave-one-out.

    encode   picture -> CLIP latent -> ridge -> standardised voxels -> betas
    decode   betas -> standardised voxels -> ridge -> CLIP latent -> MaskGIT -> picture
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from phosphene.align.decoders import ALPHAS, HeldOut, LinearDecoder, fit_encoding, regress, reliable_voxels
from phosphene.align.ridge import Ridge
from phosphene.data.standardise import Standardiser
from phosphene.models.maskgit import MaskGitPipeline
from phosphene.recipes.lea import LAB_MASKGIT, PAPER_MASKGIT, ClipToMaskGit, ClipToMaskGitConfig
from phosphene.types import Stimuli, Trials

Alpha = Annotated[float, Field(gt=0, le=1e12)]


class RegressorConfig(ClipToMaskGitConfig):
    """Configuration of `Regressor`."""

    kind: Literal["regressor"] = "regressor"
    per_session: bool = Field(False, description="standardise voxels by the training trials of each session")
    voxels: Literal["all", "reliable", "weighted"] = Field(
        "weighted", description="for decoding: all; those with held-out R2 > 0; or those, times the square root of R2"
    )
    alphas: tuple[Alpha, ...] = Field(ALPHAS, min_length=1, description="ridge penalties to choose among")


class Regressor(ClipToMaskGit[RegressorConfig]):
    """See the top of this file.

    Attributes
    ----------
    standardise_ : Standardiser
        of the voxels
    to_brain_ : Ridge
        CLIP latents to standardised voxels
    to_clip_ : LinearDecoder
        standardised voxels to CLIP latents
    images_ : MaskGitPipeline
        Painter, CLIP latents to pictures
    """

    config_class = RegressorConfig
    stages = {"standardise": Standardiser, "to_brain": Ridge, "to_clip": LinearDecoder, "images": MaskGitPipeline}  # noqa: RUF012
    needs = {"images": ()}  # noqa: RUF012
    uses = {  # noqa: RUF012
        "standardise": ("per_session",),
        "to_brain": ("clip", "alphas"),
        "to_clip": ("clip", "alphas", "voxels"),
    }

    @classmethod
    def preset(cls, name: str) -> dict[str, Any]:
        """``paper``: LEA's CLIP and generator. ``lab``: the zoo's."""
        if name == "lab":
            return LAB_MASKGIT

        return PAPER_MASKGIT

    # -- stages, in order ------------------------------------------------------------------------------------------

    def fit_standardise(self, trials: Trials, stimuli: Stimuli) -> Standardiser:
        """Mean and spread of every voxel over the training trials."""
        return Standardiser(per_session=self.config.per_session).fit(trials)

    def fit_to_brain(self, trials: Trials, stimuli: Stimuli) -> Ridge:
        """CLIP latents to standardised voxels, a penalty per voxel."""
        betas, latents = self._pairs(trials, stimuli)
        # The grid is for inputs of unit variance, which coordinates of unit vectors are far from.
        return fit_encoding(latents, betas, [a * float(latents.var(axis=0).mean()) for a in self.config.alphas])

    def fit_to_clip(self, trials: Trials, stimuli: Stimuli) -> LinearDecoder:
        """Standardised voxels to CLIP latents, one penalty."""
        betas, latents = self._pairs(trials, stimuli)
        weights = np.ones(betas.shape[1], dtype=np.float32)
        if self.config.voxels != "all":
            r2 = HeldOut(self.to_brain_, latents, betas).r2_
            weights = reliable_voxels(r2).astype(np.float32)
            if self.config.voxels == "weighted":
                weights *= np.sqrt(np.maximum(r2, 0))

        return regress(betas, latents, weights, self.config.alphas)

    # -- the arrows ------------------------------------------------------------------------------------------------

    def clip_latents(self, trials: Trials) -> np.ndarray:
        """Brain to CLIP latents, (n, d) float32."""
        return self.to_clip_.predict(self.standardise_.transform(trials).betas)

    def encode(self, stimuli: Stimuli) -> Trials:
        """Image to brain: one predicted response per stimulus, in the units of the training betas."""
        return self.predicted_trials(stimuli, self.standardise_.inverse(self.to_brain_.predict(self._see(stimuli))))

    def voxel_weights(self) -> np.ndarray:
        """How much each voxel counts when decoding, 0 for unused."""
        return self.to_clip_.voxel_weights_

    def _pairs(self, trials: Trials, stimuli: Stimuli) -> tuple[np.ndarray, np.ndarray]:
        averaged = self.standardise_.transform(trials).average_repeats()
        return averaged.betas, self._see(stimuli.select(averaged.stimuli))
