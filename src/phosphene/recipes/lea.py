"""LEA: an autoencoder of fMRI and CLIP, tied by ridge both ways; MaskGIT draws.

Paper: Qian et al. 2024, TMLR, "LEA: Learning Latent Embedding Alignment Model for fMRI Decoding and Encoding".

    decode   betas -> autoencoder -> latent -> ridge -> CLIP latent -> MaskGIT -> codes -> picture
    encode   picture -> CLIP latent -> ridge -> latent -> autoencoder -> betas

Where paper and public code differ, the code is followed, but for three things. Voxels are standardised one by one from
training trials (code: two scalars, and test betas left raw). Moments of predictions come from left-out training rows
(code: from the test set). And setting ``strict`` means that nothing fitted has seen a test response. The preset
``lea-code`` has all three as the code.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from phosphene.align.aligner import AlignConfig, Aligner
from phosphene.brain.roi_mae import RoiMaeConfig, RoiMaePart, roi_partition, subject_batches
from phosphene.data.standardise import Standardiser
from phosphene.generate.painter import Painter
from phosphene.recipes.clip_painted import LAB_PAINTER, PAPER_PAINTER, ClipPainted, ClipPaintedConfig
from phosphene.train.settings import TrainConfig
from phosphene.types import Stimuli, Trials, digest_of


class BrainTraining(TrainConfig):
    """How the autoencoder is trained; the defaults are those of the GOD configuration."""

    steps: int = Field(
        100_000, ge=1, description="100k in the paper; the BOLD5000 configuration says 120k at a lr of 5e-6"
    )
    batch_size: int = Field(8, ge=1)
    lr: float = Field(5e-5, gt=0)
    warmup: int = Field(8000, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "linear"
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float | None = Field(0.1, gt=0)


class LeaConfig(ClipPaintedConfig):
    """Configuration of `Lea`."""

    kind: Literal["lea"] = "lea"
    rois: tuple[str, ...] | None = Field(None, description="order in which ROIs take their voxels; as in the data")
    norm: Literal["voxel", "legacy"] = Field(
        "voxel",
        description="voxels standardised one by one; or, as LEA's code for GOD, training betas by one mean and spread of "
        "all entries and what is decoded left raw",
    )
    per_session: bool = Field(False, description="standardise voxels by the training trials of each session")
    brain: RoiMaeConfig = RoiMaeConfig()
    brain_rows: Literal["trials", "averaged"] = Field(
        "trials", description="what the autoencoder is trained on: single trials, or repeats averaged"
    )
    brain_training: BrainTraining = BrainTraining()
    recompute: bool = Field(False, description="compute each block twice in training, to save memory")
    init: str | None = Field(None, description="file of the public SC-MBM checkpoint that the autoencoder starts from")
    init_is_clean: bool = Field(False, description="whether it is known that no test response of this subject is in it")
    pretrain: tuple[str, ...] = Field(
        (), description="other subjects that share the trunk in a training before the own"
    )
    align: AlignConfig = AlignConfig()

    @model_validator(mode="after")
    def _strict_is_strict(self) -> Self:
        if self.setting == "strict" and "test" in (self.align.moments, self.align.moments_if):
            raise ValueError("moments 'test' looks at test responses; say so with setting=relax, or use 'train_oof'")
        if self.norm == "legacy" and self.per_session:
            raise ValueError("norm 'legacy' takes one mean and spread for all sessions; leave out per_session")
        if self.setting == "strict" and self.init is not None and not self.init_is_clean:
            raise ValueError(
                "the public SC-MBM checkpoint has seen responses of the GOD subjects and may have seen test responses; use "
                "setting=relax, or init_is_clean=true for one that is known not to"
            )
        return self


class Lea(ClipPainted[LeaConfig]):
    """See the top of this file.

    Attributes
    ----------
    standardise_ : Standardiser of the voxels
    brain_ : RoiMaePart, standardised betas to latent and back
    align_ : Aligner of brain latents and CLIP latents
    images_ : Painter, CLIP latents to pictures
    """

    config_class = LeaConfig
    stages = {"standardise": Standardiser, "brain": RoiMaePart, "align": Aligner, "images": Painter}  # noqa: RUF012
    needs = {"images": ()}  # noqa: RUF012
    uses = {  # noqa: RUF012
        "standardise": ("norm", "per_session"),
        "brain": ("setting", "rois", "brain", "brain_rows", "brain_training", "init", "pretrain"),
        "align": ("clip", "align"),
    }
    self_supervised = frozenset({"brain"})
    paper = "lea"
    presets = ("lab", "paper", "bold", "lea-code")

    @classmethod
    def preset(cls, name: str) -> dict[str, Any]:
        """``paper``: the published sizes, GOD. ``bold``: BOLD5000. ``lea-code``: as the authors' code, which looks at test
        responses. ``lab``: the same classes at tiny size, with the zoo's networks."""
        if name == "paper":
            return PAPER_PAINTER
        if name == "bold":
            return {**PAPER_PAINTER, "brain_training": {"steps": 120_000, "lr": 5e-6}}
        if name == "lea-code":
            images = {**PAPER_PAINTER["images"], "ported": True}
            return {"setting": "relax", "norm": "legacy", "align": {"moments": "test"}, "images": images}
        return {
            **LAB_PAINTER,
            "brain": {
                **RoiMaeConfig.preset("lab"), "roi_heads": 2, "augment": "noise", "latent": 128,
                "width": 128, "depth": 1, "heads": 8, "decoder_width": 128, "decoder_heads": 8,
            },
            "brain_rows": "averaged",
            "brain_training": {"steps": 1600, "batch_size": 64, "lr": 3e-3, "warmup": 160, "clip": 1.0},
            "align": {"alpha_fi": None, "alpha_if": None, "intercept_fi": True},
        }  # fmt: skip

    @classmethod
    def other_subjects(cls, config: LeaConfig) -> tuple[str, ...]:
        """Subjects whose responses the trunk is trained on first."""
        return config.pretrain

    # -- stages, in order ------------------------------------------------------------------------------------------

    def fit_standardise(self, trials: Trials, stimuli: Stimuli) -> Standardiser:
        """Mean and spread of every voxel over the training trials; in norm ``legacy`` of all voxels together."""
        return Standardiser(per_session=self.config.per_session, pooled=self._is_legacy).fit(trials)

    def fit_brain(self, trials: Trials, stimuli: Stimuli) -> RoiMaePart:
        """The autoencoder, on responses alone: first over all subjects that share its trunk, then on the own."""
        from phosphene.brain import RoiMae

        c, own = self.config, str(trials.subject)
        mine, others = [self._rows(self.standardise_.transform(trials))], {}
        groups = {own: list(roi_partition(trials, c.rois).values())}
        for more in self.unpaired:
            if more.subject == own:
                mine.append(self._rows(self._unseen(more)))
            else:
                others[str(more.subject)] = self._rows(Standardiser(pooled=self._is_legacy).fit(more).transform(more))
                groups[str(more.subject)] = list(roi_partition(more, c.rois).values())
        network = RoiMae.create(c.brain, groups, self.seed, recompute=c.recompute)
        if c.init is not None:
            from phosphene.brain.sc_mbm import load_sc_mbm, read_sc_mbm

            load_sc_mbm(network, read_sc_mbm(c.init))
        betas = {own: np.concatenate(mine)}
        if others:
            self._train_brain(network, betas | others)
            network = network.with_subjects({own: groups[own]}, self.seed)
        self._train_brain(network, betas)
        return RoiMaePart.of(network.cpu())

    @property
    def _is_legacy(self) -> bool:
        return self.config.norm == "legacy"

    def _unseen(self, trials: Trials) -> Trials:
        """Responses that are not for training, in the units the autoencoder is given them in."""
        # LEA's code takes mean and spread of training betas that are standardised already: 0 and 1.
        is_raw = self._is_legacy and "predicted_by" not in trials.provenance
        return trials if is_raw else self.standardise_.transform(trials)

    def _rows(self, trials: Trials) -> np.ndarray:
        return (trials.average_repeats() if self.config.brain_rows == "averaged" else trials).betas

    def _train_brain(self, network: Any, betas: dict[str, np.ndarray]) -> None:
        fetch, n = subject_batches(betas)
        self.train(network, fetch, n, self.config.brain_training, data=digest_of(betas), part="-".join(betas))

    def fit_align(self, trials: Trials, stimuli: Stimuli) -> Aligner:
        """Ridge both ways between latents of responses (repeats averaged) and of the pictures shown."""
        averaged = self.standardise_.transform(trials).average_repeats()
        brain, image = self.brain_.to_latent(averaged.betas), self._see(stimuli.select(averaged.stimuli))
        return Aligner(self.config.align).fit(brain, image, self.rng("moments"))

    # -- the arrows ------------------------------------------------------------------------------------------------

    def encode(self, stimuli: Stimuli) -> Trials:
        """Image to brain: one predicted response per stimulus, in the units of the training betas."""
        standardised = self.brain_.from_latent(self.align_.image_to_brain(self._see(stimuli)))
        return self.predicted_trials(stimuli, self.standardise_.inverse(standardised))

    def clip_latents(self, trials: Trials) -> np.ndarray:
        """Brain to CLIP latents, (n, d) float32."""
        return self.align_.brain_to_image(self.brain_.to_latent(self._unseen(trials).betas))

    def conditions(self) -> dict[str, str]:
        """Where the mean and spread of predictions come from, both ways, and how betas are standardised."""
        c, back = self.config, self.config.align.moments_if or self.config.align.moments
        return {"moments": _MOMENTS[c.align.moments], "moments_if": _MOMENTS[back], "norm": _NORM[c.norm]}


_MOMENTS: dict[str, str] = {
    "train_oof": "train_oof (of left-out training rows)", "test": "test (of the test batch)", "none": "none (as they come)",
}  # fmt: skip
_NORM: dict[str, str] = {
    "voxel": "voxel (by its training mean and spread)", "legacy": "legacy (two scalars in training, test betas left raw)",
}  # fmt: skip
