"""Two-stage GRU decoder: a GRU to a Very Deep VAE's latents, ridge to CLIP's tokens; dual-guided diffusion refines.

Paper: Veronese et al. 2024, arXiv 2412.13237, "Optimized two-stage AI-based neural decoding for enhanced visual stimulus
reconstruction from fMRI data". Its GRU sees a sequence of one step, so nothing recurs: see `phosphene.models.gru`, where
its rivals are, among them a GRU over a real sequence of brain regions (``recipe.brain.kind=group_gru``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from phosphene.align.reduced_rank import ReducedRankConfig
from phosphene.models.gru import (
    GroupGruConfig,
    GruCnnConfig,
    GruConfig,
    GruTransformerConfig,
    LatentTraining,
    MlpConfig,
    voxel_runs,
)
from phosphene.recipes.brain_diffuser import LAB, TwoStage, TwoStageConfig
from phosphene.recipes.predictor import Predictor, fit_map
from phosphene.types import Stimuli, Trials

BrainConfig = Annotated[
    GruConfig | GruCnnConfig | GruTransformerConfig | GroupGruConfig | MlpConfig | ReducedRankConfig,
    Field(discriminator="kind"),
]


class GruTwoStageConfig(TwoStageConfig):
    """Configuration of `GruTwoStage`."""

    kind: Literal["gru_two_stage"] = "gru_two_stage"
    brain: BrainConfig = GruConfig()
    training: LatentTraining = LatentTraining()
    group_size: int | None = Field(50, ge=1, description="voxels of a step of the sequence, for brain.kind=group_gru")


class GruTwoStage(TwoStage[GruTwoStageConfig]):
    """See the top of this file."""

    config_class = GruTwoStageConfig
    paper = "gru_two_stage"

    @classmethod
    def preset(cls, name: str) -> dict[str, Any]:
        """``paper``: the published sizes and penalties, 15 groups. ``lab``: the zoo's networks."""
        if name == "lab":
            training = LatentTraining.preset("lab")
            return {**LAB, "brain": {"kind": "gru", **GruConfig.preset("lab")}, "training": training, "n_folds": 2}

        tokens = {"alpha_vision": 50_000, "alpha_text": 50_000}
        return {"first": {"groups": 15}, "tokens": tokens, "restandardise": "none"}

    def fit_first(self, trials: Trials, stimuli: Stimuli) -> Predictor:
        """Betas to VDVAE latents, by the network (or ridge of limited rank) that is asked for."""
        c = self.config
        betas, shown = self._rows(trials, stimuli)
        return fit_map(
            c.brain,
            betas,
            self._vdvae.transform(shown),
            np.asarray(shown.ids).astype(str),
            c.training,
            self.restore(trials),
            seed=self.seed,
            trainer=self.trainer,
            groups=voxel_runs(trials, c.group_size) if c.brain.kind == "group_gru" else (),
            folder=self._training,
            progress=self.progress,
        )
