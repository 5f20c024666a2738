"""Two-stage GRU decoder: a GRU to a Very Deep VAE's latents, ridge to CLIP's tokens; dual-guided diffusion refines.

Paper: Veronese et al. 2024, arXiv 2412.13237, "Optimized two-stage AI-based neural decoding for enhanced visual stimulus
reconstruction from fMRI data".

    stage 1  betas -> GRU -> first groups of VDVAE latents -> blurry picture
    stage 2  as in :mod:`phosphene.recipes.brain_diffuser`, from which only the first arrow differs

The paper's GRU gets a sequence of one step, so nothing recurs (:mod:`phosphene.models.gru` has its closed form). The networks to
compare it with are there as well, among them a GRU over a real sequence of brain regions
(``recipe.brain.kind=group_gru``). Decoding only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from phosphene.align.reduced_rank import ReducedRankConfig
from phosphene.data.splits import inner_folds
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
from phosphene.recipes.maps import NetworkMap, Predictor, ReducedRankMap, RestoringMap
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
    group_size: int | None = Field(
        default=50, ge=1, description="voxels of a step of the sequence, for brain.kind=group_gru"
    )

    @property
    def first_settings(self) -> tuple[str, ...]:
        """Fields that the map to VDVAE latents depends on."""
        return ("brain", "training", "group_size")

    @property
    def first_solvers(self) -> tuple[Any, ...]:
        """Solvers of the map to VDVAE latents."""
        return (*_map(self).uses, inner_folds, voxel_runs)


class GruTwoStage(TwoStage[GruTwoStageConfig]):
    """A GRU to VDVAE latents, ridge to CLIP tokens; a blurry picture first, then dual-guided diffusion."""

    presets = {  # noqa: RUF012  a constant
        "lab": {
            **LAB,
            "brain": {"kind": "gru", **GruConfig.preset("lab")},
            "training": LatentTraining.preset("lab"),
            "n_folds": 2,
        },
        "paper": {  # the published penalties, 15 groups; predictions as they come
            "first": {"groups": 15},
            "tokens": {"alpha_vision": 50_000, "alpha_text": 50_000},
            "restandardise": "none",
        },
    }

    def fit_first(self, trials: Trials, stimuli: Stimuli) -> Predictor:
        """Betas to VDVAE latents, by the network (or ridge of limited rank) that is configured."""
        c = self.config
        groups: Sequence[np.ndarray] = ()
        if c.brain.kind == "group_gru":
            groups = voxel_runs(trials, c.group_size)

        return self.fitted("first", _map(c), trials, stimuli, groups)


def _map(config: GruTwoStageConfig) -> RestoringMap:
    """The map to VDVAE latents that is configured."""
    if isinstance(config.brain, ReducedRankConfig):
        return ReducedRankMap(config.brain, config.restandardise, config.n_folds)

    return NetworkMap(config.brain, config.training, config.restandardise, config.n_folds)
