"""Brain-Diffuser: ridge to a Very Deep VAE's latents and to CLIP's tokens; dual-guided diffusion refines.

Paper: Ozcelik and VanRullen 2023, Scientific Reports, "Natural scene reconstruction from fMRI signals using generative latent
diffusion": the ancestor and rival of the two-stage GRU decoder. Its penalties are the presets `alpha`; left open, each is
chosen by leave-one-out over training stimuli. Its code restores the spread of predictions from the test batch, which is
``restandardise=test`` here and needs ``setting=relax``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from phosphene.recipes.two_stage import LAB, Predictor, TwoStage, TwoStageConfig
from phosphene.types import Stimuli, Trials


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
