"""MinD-Vis: responses hidden in part and predicted make a brain encoder; latent diffusion is tuned to draw from it.

Paper: Chen et al. 2023, CVPR, "Seeing Beyond the Brain: Conditional Diffusion Model with Sparse Masked Modeling for Vision
Decoding": the ancestor of CAD, and the baseline its paper calls DC-LDM.

    phase 1  masked modelling of responses (SC-MBM), of other people and of scans at rest as well
    phase 2  only in setting relax: more of it on the test responses of the person to be decoded
    phase 3  encoder and latent diffusion tuned together, with two conditionings (DC-LDM)

What is shared with CAD, and where paper and code differ, is in ``latent_diffused.py`` and docs/cad.md.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from phosphene.brain.roi_mae import subject_batches
from phosphene.recipes.latent_diffused import LAB, BrainTraining, LatentDiffused, LatentDiffusedConfig
from phosphene.types import Trials, digest_of


class AdaptTraining(BrainTraining):
    """How phase 2 is trained; the defaults are 15 epochs of GOD's 1,800 test responses."""

    steps: int = Field(1690, ge=1)
    batch_size: int = Field(16, ge=1)
    lr: float = Field(5.3e-5, gt=0)
    warmup: int = Field(225, ge=0, description="2 epochs")


class MindVisConfig(LatentDiffusedConfig):
    """Configuration of `MindVis`."""

    kind: Literal["mind_vis"] = "mind_vis"
    adapt_training: AdaptTraining | None = Field(
        AdaptTraining(), description="on the test responses, in setting relax; none lets phase 1 learn from them"
    )


class MindVis(LatentDiffused[MindVisConfig]):
    """See the top of this file."""

    config_class = MindVisConfig
    uses = LatentDiffused.uses | {"brain": (*LatentDiffused.uses["brain"], "adapt_training")}
    paper = "mind_vis"

    @classmethod
    def preset(cls, name: str) -> dict[str, Any]:
        """``paper``: the published sizes. ``lab``: the same classes at tiny size, with the zoo's networks."""
        if name == "paper":
            return {"brain": {"sparsify": 0.2}}
        return {**LAB, "adapt_training": {"steps": 60, "batch_size": 16, "lr": 5e-4, "warmup": 6}}

    def unlabelled(self, trials: Trials) -> dict[str, Any]:
        """What phase 1 learns from; test responses wait for phase 2."""
        everything = self.unpaired
        try:
            if self.config.adapt_training is not None:
                self.unpaired = tuple(t for t in everything if t.subject != trials.subject)
            return super().unlabelled(trials)
        finally:
            self.unpaired = everything

    def adapt(self, network: Any, trials: Trials) -> None:
        """Phase 2: masked modelling of the test responses that setting relax lets it see."""
        settings, own = self.config.adapt_training, str(trials.subject)
        for tested in (t for t in self.unpaired if t.subject == trials.subject):
            if settings is not None:
                betas = {own: self._rows(tested)}
                self.train(network, *subject_batches(betas), settings, data=digest_of(betas), part="adapt")
                network.cpu()
