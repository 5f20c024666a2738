"""MinD-Vis: responses hidden in part and predicted make a brain encoder; latent diffusion is tuned to draw from it.

Paper: Chen et al. 2023, CVPR, "Seeing Beyond the Brain: Conditional Diffusion Model with Sparse Masked Modeling for Vision
Decoding": the ancestor of CAD, and the baseline its paper calls DC-LDM.

    phase 1  masked modelling of responses (SC-MBM), of other people and of scans at rest as well
    phase 2  only in setting relax: more of it on the test responses of the person to be decoded
    phase 3  encoder and latent diffusion tuned together, with two conditionings (DC-LDM)
    encode   picture -> CLIP latent -> decoder of phase 1, tuned -> betas

Encoding is not in the paper: it is the row "MinD-Vis" of LEA's table 2 (``brain/fed_decoder.py``). What is shared with CAD, and
where paper and code differ, is in ``latent_diffused.py`` and docs/cad.md.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.brain.fed_decoder import FedDecoderPart
from phosphene.brain.roi_mae import subject_batches
from phosphene.errors import ConfigError
from phosphene.features import cache_folder
from phosphene.features.clip import ClipFeatures
from phosphene.recipes import lea
from phosphene.recipes.base import RecipeConfig
from phosphene.recipes.clip_painted import ClipConfig
from phosphene.recipes.latent_diffused import LAB, BrainTraining, LatentDiffused, LatentDiffusedConfig
from phosphene.run.stages import Part
from phosphene.types import Stimuli, Trials, digest_of


class AdaptTraining(BrainTraining):
    """How phase 2 is trained; the defaults are 15 epochs of GOD's 1,800 test responses."""

    steps: int = Field(1690, ge=1)
    batch_size: int = Field(16, ge=1)
    lr: float = Field(5.3e-5, gt=0)
    warmup: int = Field(225, ge=0, description="2 epochs")


class EncodingTraining(lea.BrainTraining):
    """How the decoder learns to predict responses. LEA says nothing of it; the defaults are those of its own autoencoder."""


class MindVisConfig(LatentDiffusedConfig):
    """Configuration of `MindVis`."""

    kind: Literal["mind_vis"] = "mind_vis"
    adapt_training: AdaptTraining | None = Field(
        AdaptTraining(), description="on the test responses, in setting relax; none lets phase 1 learn from them"
    )
    clip: ClipConfig = Field(ClipConfig(), description="whose latents responses are predicted from")
    encoding: EncodingTraining | None = Field(
        EncodingTraining(), description="on pairs, to predict responses; none for decoding only, which needs no CLIP"
    )


class MindVis(LatentDiffused[MindVisConfig]):
    """See the top of this file."""

    config_class = MindVisConfig
    stages = LatentDiffused.stages | {"encoding": FedDecoderPart}
    needs = LatentDiffused.needs | {"encoding": ("standardise", "brain")}
    uses = LatentDiffused.uses | {
        "brain": (*LatentDiffused.uses["brain"], "adapt_training"),
        "encoding": ("rows", "encoding"),
    }
    paper = "mind_vis"
    encoding_: FedDecoderPart

    @classmethod
    def preset(cls, name: str) -> dict[str, Any]:
        """``paper``: the published sizes. ``lab``: the same classes at tiny size, with the zoo's networks."""
        if name == "paper":
            return {"brain": {"sparsify": 0.2}}
        return {
            **LAB,
            "adapt_training": {"steps": 60, "batch_size": 16, "lr": 5e-4, "warmup": 6},
            "clip": {"name": "lab"},
            "encoding": {"steps": 800, "batch_size": 64, "lr": 2e-3, "warmup": 80, "clip": 1.0},
        }  # fmt: skip

    @classmethod
    def stages_of(cls, config: RecipeConfig) -> dict[str, type[Part]]:
        """Encoding only where it is asked for."""
        return {k: v for k, v in cls.stages.items() if k != "encoding" or cls.can_encode(config)}

    @classmethod
    def can_encode(cls, config: RecipeConfig | None = None) -> bool:
        """Unless it is left out."""
        return getattr(config, "encoding", True) is not None

    def stage_config(self, name: str) -> dict[str, Any]:
        """Values a stage depends on, with the weights of the frozen networks it starts from."""
        values = super().stage_config(name)
        return values | {"clip": self._clip.spec()} if name == "encoding" else values

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

    def fit_encoding(self, trials: Trials, stimuli: Stimuli) -> FedDecoderPart:
        """The decoder of phase 1, fed with CLIP latents of the pictures shown."""
        import torch

        from phosphene.brain import FedDecoder

        given, settings = self.standardise_.transform(trials), self.config.encoding
        assert settings is not None  # `stages_of` has no such stage then
        if self.config.rows == "averaged":
            given = given.average_repeats()
        ids = given.stimulus_ids
        latents = self._clip.transform(stimuli.select(ids), cache_folder())[pd.Index(ids).get_indexer(given.stimuli)]
        network = FedDecoder.of(self.brain_.module, latents.shape[1], self.seed)

        def fetch(rows: np.ndarray) -> dict[str, Any]:
            return {"latents": torch.from_numpy(latents[rows]), "betas": torch.from_numpy(given.betas[rows])}

        data = digest_of(given.betas, latents)
        self.train(network, fetch, len(given), settings, data=data, part="encoding")
        return FedDecoderPart.of(network.cpu())

    def encode(self, stimuli: Stimuli) -> Trials:
        """Image to brain: one predicted response per stimulus, in the units of the training betas."""
        if not self.can_encode(self.config):
            raise ConfigError("this run only decodes: recipe.encoding is null. Fit again with a training there.")
        predicted = self.encoding_.from_latent(self._clip.transform(stimuli, cache_folder()))
        return self.predicted_trials(stimuli, self.standardise_.inverse(predicted))

    @property
    def _clip(self) -> ClipFeatures:
        return ClipFeatures(self.config.clip.name, revision=self.config.clip.revision)
