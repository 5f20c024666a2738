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

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from pydantic import Field, model_validator

from phosphene.align.aligner import AlignConfig, Aligner
from phosphene.data.standardise import Standardiser
from phosphene.errors import ConfigError
from phosphene.features import cache_folder
from phosphene.features.clip import ClipFeatures
from phosphene.io.config import Config
from phosphene.models import bundled
from phosphene.models.maskgit import MaskGitPipeline, MaskGitSampling
from phosphene.models.roi_mae import RoiMaeConfig, RoiMaePart, roi_partition, subject_batches
from phosphene.recipes.base import Recipe, RecipeConfig
from phosphene.training.settings import TrainConfig
from phosphene.types import Images, Latents, Stimuli, Trials, digest_of

PAPER_CLIP = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


class ClipConfig(Config):
    """Which CLIP."""

    name: str = Field(PAPER_CLIP, description="lab, a folder, or a name on the hub")
    revision: str | None = Field(None, description="commit on the hub")


class ImageTraining(TrainConfig):
    """How MaskGIT is trained on from what it starts with; section 4.1 of the paper and its configuration."""

    steps: int = Field(300_000, ge=1)
    batch_size: int = Field(8, ge=1)
    lr: float = Field(5e-5, gt=0)
    warmup: int = Field(20_000, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "linear"
    adam_betas: tuple[float, float] = (0.9, 0.95)


class MaskGitSource(Config):
    """Where MaskGIT and its tokenizer come from, and whether training goes on."""

    source: Literal["zoo", "public"] = Field("public", description="the lab's networks, or files of the public ones")
    transformer: str | None = Field(None, description="file of the public transformer")
    tokenizer: str | None = Field(None, description="file of the public tokenizer")
    training: ImageTraining | None = Field(
        ImageTraining(), description="on the training pictures; none leaves it as it is"
    )
    flip: bool = Field(True, description="train on mirrored pictures as well, each with the CLIP latent of its mirror")
    crops: int = Field(
        0, ge=0, description="random crops of each training picture to train on as well, each with its own CLIP latent"
    )
    ported: bool = Field(
        False, description="public networks with epsilons and GELU of LEA's PyTorch port, not of the original JAX code"
    )


class ClipToMaskGitConfig(RecipeConfig):
    """What these recipes share. The defaults are LEA's."""

    clip: ClipConfig = ClipConfig()
    images: MaskGitSource = MaskGitSource()
    sampling: MaskGitSampling = MaskGitSampling()


LAB_MASKGIT: dict[str, Any] = {
    "clip": {"name": "lab"},
    "images": {"source": "zoo", "training": None},
    "sampling": {"temperature": 1.5},  # the published 4.5 leaves 64 codes less sure of what they show
}


"""Values of the preset ``lab``: the zoo's networks as they are."""


PAPER_MASKGIT: dict[str, Any] = {"images": {"crops": 4}}


"""Values of the preset ``paper``: random crops, 20 % off each side as MinD-Vis, as the paper gives no size; four a
picture and its mirror, seen by CLIP once, where the paper may have cut anew at each step."""


P = TypeVar("P", bound=ClipToMaskGitConfig)


class ClipToMaskGit(Recipe[P]):
    """See the top of this file.

    Attributes
    ----------
    images_ : MaskGitPipeline
        Painter, CLIP latents to pictures
    """

    images_: MaskGitPipeline

    def clip_latents(self, trials: Trials) -> np.ndarray:
        """Brain to CLIP latents, (n, d) float32; `trials` are checked already."""
        raise NotImplementedError

    uses: ClassVar[dict[str, tuple[str, ...]]] = {}
    """By stage, the parts of the configuration it depends on; all of it where a stage is not named."""

    def stage_config(self, name: str) -> dict[str, Any]:
        """Values a stage depends on, with the weights of the frozen networks it learns from."""
        c = self.config.model_dump(mode="json")
        values = {k: c[k] for k in {"images": ("clip", "images"), **self.uses}.get(name, tuple(c))}
        if "clip" in values:
            values["clip"] = self._clip.spec()

        if "images" in values and c["images"]["source"] == "zoo":
            values["networks"] = [bundled.fingerprint(network) for network in ("maskgit", "vq")]

        return values

    @property
    def fixed_spaces(self) -> frozenset[str]:
        """CLIP latents mean the same whatever the training trials."""
        return frozenset({self._clip.space})

    def generators(self) -> tuple[str, ...]:
        """MaskGIT, the lab's or the public one."""
        return ("lab" if self.config.images.source == "zoo" else "maskgit-imagenet",)

    def fit_images(self, trials: Trials, stimuli: Stimuli) -> MaskGitPipeline:
        """MaskGIT, as it comes or trained on with the pictures of the training stimuli."""
        c = self.config.images
        if c.source == "zoo":
            pipeline = MaskGitPipeline.bundled()
        else:
            pipeline = MaskGitPipeline.from_public(
                _file(c.transformer, "transformer"), _file(c.tokenizer, "tokenizer"), self.seed, ported=c.ported
            )

        if c.training is not None:
            pixels = stimuli.resized((pipeline.size, pipeline.size))
            see = self._clip.images
            pipeline.learn(pixels, see, c.training, self.train, flip=c.flip, crops=c.crops, seed=self.seed)

        return pipeline

    # -- the arrows ------------------------------------------------------------------------------------------------

    def decode(self, trials: Trials) -> Images:
        """Brain to image: the first sample for each row of `trials`, 0-1."""
        return self._paint(trials.stimuli, self._to_clip(trials), samples=1)[0]

    def decode_samples(self, trials: Trials) -> list[Images]:
        """All samples, ``config.sampling.samples`` of them; the first is what `decode` gives."""
        return self._paint(trials.stimuli, self._to_clip(trials), self.config.sampling.samples)

    def latents(self, trials: Trials) -> Latents:
        """Decoded CLIP latents, one row per trial."""
        return Latents(trials.stimuli, {self._clip.space: self._to_clip(trials)})

    def true_latents(self, stimuli: Stimuli) -> Latents:
        """CLIP latents of the pictures themselves."""
        return Latents(stimuli.ids, {self._clip.space: self._see(stimuli)})

    def text_latents(self, texts: Sequence[str]) -> Latents:
        """CLIP latents of texts."""
        return Latents(np.asarray(list(texts), dtype=object), {self._clip.space: self._clip.texts(list(texts))})

    def ceiling(self, stimuli: Stimuli) -> Images:
        """Pictures drawn from the true CLIP latents: what is lost before any brain comes in."""
        return self._paint(stimuli.ids, self._see(stimuli), samples=1)[0]

    # -- pieces ----------------------------------------------------------------------------------------------------

    @cached_property
    def _clip(self) -> ClipFeatures:
        return ClipFeatures(self.config.clip.name, revision=self.config.clip.revision)

    def _see(self, stimuli: Stimuli) -> np.ndarray:
        return self._clip.transform(stimuli, cache_folder())

    def _to_clip(self, trials: Trials) -> np.ndarray:
        self.check_trials(trials)
        return self.clip_latents(trials)

    def _paint(self, ids: np.ndarray, latents: np.ndarray, samples: int) -> list[Images]:
        sampling = self.config.sampling.model_copy(update={"samples": samples})
        pictures = self.images_.sample(latents, list(ids), sampling, self.seed)
        if self.image_shape_[2] == 1:
            pictures = pictures.mean(axis=-1, keepdims=True)

        return [Images(ids, pictures[:, s]) for s in range(samples)]

    def _fitted_on(self, trials: Trials, stimuli: Stimuli) -> None:
        super()._fitted_on(trials, stimuli)
        side = {"zoo": 32, "public": 256}[self.config.images.source]
        self.image_shape_ = (side, side, self.image_shape_[2])


def _file(path: str | None, what: str) -> Path:
    if path is None:
        raise ConfigError(
            f"the public {what} of MaskGIT is not part of phosphene; fetch it and give its place, "
            f"recipe.images.{what}=FILE (docs/lea.md says from where), or use the lab's with --preset lab."
        )

    return Path(path)


class RoiMaeTraining(TrainConfig):
    """How the autoencoder is trained; the defaults are those of the GOD configuration."""

    steps: int = Field(
        100_000, ge=1, description="100k in the paper; the BOLD5000 configuration says 120k at a lr of 5e-6"
    )
    batch_size: int = Field(8, ge=1)
    lr: float = Field(5e-5, gt=0)
    warmup: int = Field(8000, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "linear"
    adam_betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float | None = Field(0.1, gt=0)


class LeaConfig(ClipToMaskGitConfig):
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
    brain_training: RoiMaeTraining = RoiMaeTraining()
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


class Lea(ClipToMaskGit[LeaConfig]):
    """See the top of this file.

    Attributes
    ----------
    standardise_ : Standardiser
        of the voxels
    brain_ : RoiMaePart
        standardised betas to latent and back
    align_ : Aligner
        of brain latents and CLIP latents
    images_ : MaskGitPipeline
        Painter, CLIP latents to pictures
    """

    config_class = LeaConfig
    stages = {"standardise": Standardiser, "brain": RoiMaePart, "align": Aligner, "images": MaskGitPipeline}  # noqa: RUF012
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
            return PAPER_MASKGIT
        if name == "bold":
            return {**PAPER_MASKGIT, "brain_training": {"steps": 120_000, "lr": 5e-6}}

        if name == "lea-code":
            images = {**PAPER_MASKGIT["images"], "ported": True}
            return {"setting": "relax", "norm": "legacy", "align": {"moments": "test"}, "images": images}

        return {
            **LAB_MASKGIT,
            "brain": {
                **RoiMaeConfig.preset("lab"), "roi_heads": 2, "augment": "noise", "latent": 128,
                "width": 128, "depth": 1, "heads": 8, "decoder_width": 128, "decoder_heads": 8,
            },
            "brain_rows": "averaged",
            "brain_training": {"steps": 1600, "batch_size": 64, "lr": 3e-3, "warmup": 160, "clip_norm": 1.0},
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
        from phosphene.models import RoiMae

        c = self.config
        own = str(trials.subject)
        mine = [self._rows(self.standardise_.transform(trials))]
        others = {}
        groups = {own: list(roi_partition(trials, c.rois).values())}

        for more in self.unpaired:
            if more.subject == own:
                mine.append(self._rows(self._unseen(more)))
            else:
                others[str(more.subject)] = self._rows(Standardiser(pooled=self._is_legacy).fit(more).transform(more))
                groups[str(more.subject)] = list(roi_partition(more, c.rois).values())

        network = RoiMae.create(c.brain, groups, self.seed, recompute=c.recompute)
        if c.init is not None:
            from phosphene.models.sc_mbm import load_sc_mbm, read_sc_mbm

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
        if is_raw:
            return trials

        return self.standardise_.transform(trials)

    def _rows(self, trials: Trials) -> np.ndarray:
        return (trials.average_repeats() if self.config.brain_rows == "averaged" else trials).betas

    def _train_brain(self, network: Any, betas: dict[str, np.ndarray]) -> None:
        fetch, n = subject_batches(betas)
        self.train(network, fetch, n, self.config.brain_training, data=digest_of(betas), part="-".join(betas))

    def fit_align(self, trials: Trials, stimuli: Stimuli) -> Aligner:
        """Ridge both ways between latents of responses (repeats averaged) and of the pictures shown."""
        averaged = self.standardise_.transform(trials).average_repeats()
        brain = self.brain_.to_latent(averaged.betas)
        image = self._see(stimuli.select(averaged.stimuli))
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
        c = self.config
        back = self.config.align.moments_if or self.config.align.moments
        return {"moments": _MOMENTS[c.align.moments], "moments_if": _MOMENTS[back], "norm": _NORM[c.norm]}


_MOMENTS: dict[str, str] = {
    "train_oof": "train_oof (of left-out training rows)", "test": "test (of the test batch)", "none": "none (as they come)",
}  # fmt: skip


_NORM: dict[str, str] = {
    "voxel": "voxel (by its training mean and spread)", "legacy": "legacy (two scalars in training, test betas left raw)",
}  # fmt: skip
