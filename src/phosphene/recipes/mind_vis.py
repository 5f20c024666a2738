"""What recipes share that tune a label-to-image latent diffusion to a brain: MinD-Vis, and CAD with a phase more.

    phase 1  responses, most of each hidden -> autoencoder -> what was hidden      (without pictures; other people too)
    phase 3  betas -> its encoder -> tokens -> latent diffusion, its labels replaced by them -> picture

The last phase trains the encoder, the two conditionings and the cross-attention of the U-Net by the error of the noise.
A subclass has a stage ``brain`` of class PatchMaePart, stages ``generator`` and ``tuned`` as here, and may put others
between (`encoder` says which one is tuned).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from phosphene.data.standardise import Standardiser
from phosphene.errors import ConfigError
from phosphene.features import cache_folder
from phosphene.features.clip import ClipFeatures
from phosphene.io.config import Config
from phosphene.io.stages import Part
from phosphene.models import bundled
from phosphene.models.brain_ldm import BrainLdm, BrainToPicture, HeldOutChoice, Pictures, paired
from phosphene.models.fed_decoder import FedDecoderPart
from phosphene.models.gru import validation_rows
from phosphene.models.ldm import Ldm, LdmSampling
from phosphene.models.patch_mae import PatchMaeConfig, PatchMaePart
from phosphene.models.roi_mae import subject_batches
from phosphene.recipes import lea
from phosphene.recipes.base import Recipe, RecipeConfig
from phosphene.recipes.lea import ClipConfig
from phosphene.training.settings import TrainConfig
from phosphene.types import Images, Stimuli, Trials, digest_of


class MaskedTraining(TrainConfig):
    """How the autoencoder is trained in phase 1; the defaults are those of MinD-Vis: 500 epochs of some 136,000 responses."""

    steps: int = Field(680_000, ge=1)
    batch_size: int = Field(100, ge=1)
    lr: float = Field(2.5e-4, gt=0)
    warmup: int = Field(54_400, ge=0, description="40 epochs")
    adam_betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.05, ge=0)
    clip_norm: float | None = Field(0.8, gt=0)


class TuningConfig(TrainConfig):
    """How brain and generator are tuned together in phase 3; the defaults are 500 epochs of GOD's 1,200 responses."""

    steps: int = Field(120_000, ge=1)
    batch_size: int = Field(5, ge=1)
    lr: float = Field(5.3e-5, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "constant"
    clip_norm: float | None = Field(0.5, gt=0)
    tune: Literal["cross_attention", "frozen", "all"] = Field(
        "cross_attention",
        description="of the U-Net: section 4.2.2 and the authors' code, nothing (section 3.3), or all",
    )
    sparsify: float = Field(
        0.2, ge=0, lt=1, description="share of voxels zeroed (paper); the authors' code zeroes none"
    )
    crops: float = Field(
        0.5, ge=0, le=1, description="share of pictures that are cut by a fifth and stretched back; code"
    )


class LdmSource(Config):
    """Where the label-to-image network comes from, and how tokens take the place of labels."""

    source: Literal["zoo", "public"] = Field("public", description="the lab's, or the file of the public one")
    file: str | None = Field(None, description="model.ckpt of CompVis' cin256-v2")
    inert: tuple[str, ...] = Field((), description="further classes of settings that file may name; never imported")
    folder: str | None = Field(None, description="of ldm.json and ldm.safetensors, for another of the lab's networks")
    mapped: int | None = Field(77, ge=1, description="tokens of the context; as many as the brain has, when null")
    time: Literal["convolutions", "mean", "none"] = Field(
        "convolutions", description="the second conditioning, beside the time: all tokens mixed, their mean, or none"
    )
    zero_time: bool = Field(False, description="start it at zero, which leaves the network as it was; code: false")


class LatentDiffusionConfig(RecipeConfig):
    """What these recipes can be told."""

    per_session: bool = Field(False, description="standardise voxels by the training trials of each session")
    rows: Literal["trials", "averaged"] = Field(
        "trials", description="what is trained on: single trials, or repeats averaged"
    )
    pretrain: tuple[str, ...] = Field((), description="other subjects whose responses phase 1 learns from as well")
    resting: str | None = Field(None, description="folder of scans at rest that phase 1 learns from as well: HCP's")
    own: bool = Field(True, description="whether phase 1 learns from the own training responses")
    init: str | None = Field(None, description="file of the public SC-MBM checkpoint that the autoencoder starts from")
    init_is_clean: bool = Field(False, description="whether it is known that no test response of this subject is in it")
    brain: PatchMaeConfig = PatchMaeConfig()
    brain_training: MaskedTraining | None = Field(MaskedTraining(), description="none takes `init`, or noise, as it is")
    recompute: bool = Field(False, description="compute each block twice in training, to save memory")
    generator: LdmSource = LdmSource()
    tuning: TuningConfig = TuningConfig()
    validation: float = Field(
        0.0, ge=0, lt=1, description="share of the training stimuli by whose loss the step is chosen; 0 takes the last"
    )
    check_every: int = Field(100, ge=1, description="steps between looks at the loss of those stimuli")
    sampling: LdmSampling = LdmSampling()

    @model_validator(mode="after")
    def _strict_is_strict(self) -> Self:
        if self.setting == "strict" and self.init is not None and not self.init_is_clean:
            raise ValueError(
                "the public SC-MBM checkpoint has seen responses of the GOD subjects and may have seen test responses; use "
                "setting=relax, or init_is_clean=true for one that is known not to"
            )

        return self


LAB: dict[str, Any] = {
    "rows": "averaged",
    "brain": {
        "patch_size": 40, "width": 96, "depth": 2, "heads": 4, "decoder_width": 48, "decoder_depth": 2, "decoder_heads": 4,
        "filter_std": 0.2,
    },
    "brain_training": {"steps": 250, "batch_size": 64, "lr": 2e-3, "warmup": 25},
    "generator": {"source": "zoo", "mapped": 16, "zero_time": True},
    "tuning": {
        "steps": 1300, "batch_size": 32, "lr": 3e-3, "schedule": "cosine", "warmup": 25, "clip_norm": 1.0, "crops": 0.0,
        "sparsify": 0.0,
    },
    "sampling": LdmSampling.lab().model_dump(),
}  # fmt: skip


"""Values of the preset ``lab``."""


L = TypeVar("L", bound=LatentDiffusionConfig)


class LatentDiffusion(Recipe[L]):
    """See the top of this file.

    Attributes
    ----------
    standardise_ : Standardiser
        of the voxels
    generator_ : Ldm
        Ldm, labels to pictures, as it comes
    brain_ : PatchMaePart
        PatchMaePart, the autoencoder after phase 1
    tuned_ : BrainLdm
        BrainLdm, betas to tokens to latents
    """

    stages: ClassVar = {"standardise": Standardiser, "generator": Ldm, "brain": PatchMaePart, "tuned": BrainLdm}
    needs: ClassVar = {"generator": (), "brain": ("standardise",), "tuned": ("standardise", "generator", "brain")}
    self_supervised: ClassVar = frozenset({"brain"})
    demo: ClassVar = {"data.options.n_subjects": 4, "recipe.pretrain": ["sub-02", "sub-03", "sub-04"]}
    uses: ClassVar[dict[str, tuple[str, ...]]] = {
        "standardise": ("per_session",),
        "generator": ("generator",),
        "brain": ("setting", "rows", "pretrain", "resting", "own", "init", "brain", "brain_training"),
        "tuned": ("rows", "generator", "tuning", "validation", "check_every"),
    }
    """By stage, the parts of the configuration it depends on."""

    brain_: PatchMaePart
    generator_: Ldm
    tuned_: BrainLdm

    @property
    def encoder(self) -> PatchMaePart:
        """The autoencoder whose encoder the last phase tunes."""
        return self.brain_

    @classmethod
    def other_subjects(cls, config: L) -> tuple[str, ...]:
        """Subjects whose responses phase 1 learns from as well."""
        return config.pretrain

    def stage_config(self, name: str) -> dict[str, Any]:
        """Values a stage depends on, with the weights of the frozen networks it starts from."""
        c = self.config.model_dump(mode="json")
        values = {k: c[k] for k in self.uses[name]}
        if name == "generator":
            source = {k: c["generator"][k] for k in ("source", "file")}
            if source["source"] == "zoo":
                source |= {"ldm": bundled.record("ldm", self._folder)["sha256"], "vq": bundled.fingerprint("vq")}

            return source

        if name == "tuned":
            values["generator"] = {k: c["generator"][k] for k in ("mapped", "time", "zero_time")}

        return values

    def inner_folds(self, trials: Trials) -> np.ndarray | None:
        """0 for trials of the stimuli by which the step is chosen, 1 for the others; None where the last step is taken."""
        if not self.config.validation:
            return None

        folds = np.ones(len(trials), dtype=np.int64)
        folds[self._sides(trials)[1]] = 0
        return folds

    def generators(self) -> tuple[str, ...]:
        """The latent diffusion, the lab's or the public one."""
        return ("lab" if self.config.generator.source == "zoo" else "ldm-cin256",)

    # -- stages ----------------------------------------------------------------------------------------------------

    def fit_standardise(self, trials: Trials, stimuli: Stimuli) -> Standardiser:
        """Mean and spread of every voxel over the training trials."""
        return Standardiser(per_session=self.config.per_session).fit(trials)

    def fit_generator(self, trials: Trials, stimuli: Stimuli) -> Ldm:
        """Labels to pictures, as it comes."""
        c = self.config.generator
        if c.source == "zoo":
            return Ldm.of(bundled.load("ldm", folder=self._folder), bundled.load("vq"))

        if c.file is None:
            raise ConfigError(
                "the public label-to-image network is not part of phosphene; fetch cin256-v2 and give its place, "
                "recipe.generator.file=FILE (docs/cad.md says from where), or use the lab's with --preset lab."
            )

        return Ldm.from_public(c.file, inert=c.inert)

    def fit_brain(self, trials: Trials, stimuli: Stimuli) -> PatchMaePart:
        """Phase 1: the autoencoder, on responses alone, of everyone who is asked for; then made ready for this subject."""
        from phosphene.models import PatchMae, for_subjects

        betas = self.unlabelled(trials)
        own = {str(trials.subject): trials.n_voxels}
        network = self.autoencoder({name: rows.shape[1] for name, rows in betas.items()} or own)

        if (settings := self.config.brain_training) is not None:
            if not betas:
                raise ConfigError(
                    "phase 1 has no responses to learn from: recipe.own is false, and neither recipe.pretrain nor "
                    "recipe.resting names any. Give one, or set recipe.brain_training=null."
                )

            self.train(network, *subject_batches(betas), settings, data=_digest(betas), part="brain")

        tuned: PatchMae = for_subjects(network.cpu(), own)
        self.adapt(tuned, trials)

        return PatchMaePart.of(tuned)

    def adapt(self, network: Any, trials: Trials) -> None:
        """What a subclass does to the autoencoder once it is this subject's own, in place; nothing here."""

    def autoencoder(self, n_voxels: dict[str, int]) -> Any:
        """The network of phase 1, untrained or from a public checkpoint."""
        from phosphene.models import DcMae, PatchMae, load_sc_mbm, read_sc_mbm

        c = self.config
        config = self.config.brain

        if config.kind == "dc_mae":
            kind = DcMae
        else:
            kind = PatchMae

        if c.init is None:
            weights = None
        else:
            weights = read_sc_mbm(c.init)

        if weights is not None and "pos_embed" in weights and config.positions_of is None:
            config = config.model_copy(update={"positions_of": weights["pos_embed"].shape[1] - 1})

        network = kind.create(config, n_voxels, self.seed, recompute=c.recompute)
        if weights is not None:
            load_sc_mbm(network, weights)

        return network

    def unlabelled(self, trials: Trials) -> dict[str, Any]:
        """What phase 1 learns from: standardised responses by subject, (n, n_voxels) each."""
        c = self.config
        own = str(trials.subject)

        if c.own:
            mine = [self._rows(trials)]
        else:
            mine = []

        others = {}
        for more in self.unpaired:
            if more.subject == own:
                mine += [self._rows(more)]
            else:
                others[str(more.subject)] = Standardiser().fit(more).transform(more).betas

        betas: dict[str, Any] = ({own: np.concatenate(mine)} if mine else {}) | others
        if c.resting is not None:
            from phosphene.data.resting import resting_windows

            if (cache := cache_folder()) is None:
                raise ConfigError(
                    "windows of scans at rest are stored on disk once; name a folder for them in the environment variable "
                    "PHOSPHENE_CACHE."
                )

            betas["resting"] = resting_windows(
                c.resting, cache, padded_length=c.brain.wrapped_length, progress=self.progress
            )

        return betas

    def fit_tuned(self, trials: Trials, stimuli: Stimuli) -> BrainLdm:
        """Phase 3: brain encoder, conditionings and cross-attention, by the error of the noise in latents of the pictures."""
        from phosphene.models import for_subjects

        c = self.config.generator
        settings = self.config.tuning
        before = self.encoder.module
        before.recompute = self.config.recompute
        brain = for_subjects(before, before.n_voxels, sparsify=settings.sparsify)
        network = self.generator_.network.with_tokens(
            brain.n_patches, brain.config.width, seed=self.seed, mapped=c.mapped, time=c.time, zero_time=c.zero_time
        )

        network.tune(settings.tune)
        both = BrainToPicture(brain, network, self.generator_, settings.crops)
        chosen = self.learn(both, trials, Pictures.of(stimuli, self.generator_.size), settings, "tuned")

        return BrainLdm.of(both.brain, both.network, chosen)

    def learn(
        self, network: Any, trials: Trials, pictures: Pictures, settings: TrainConfig, part: str
    ) -> dict[str, float]:
        """Train a network on responses with the pictures they belong to; of the last step, or of the best.

        Parameters
        ----------
        network : Any
            changed in place; left on the CPU
        trials : Trials
            training trials of the own subject
        pictures : Pictures
            what the network takes, with the ids of the stimuli
        settings : TrainConfig
            how
        part : str
            name of this training

        Returns
        -------
        dict of {str: float}
            step and loss of the best step, where ``config.validation`` asks for one
        """
        rows, held_out = self._sides(trials)
        given = self.standardise_.transform(trials)

        if self.config.rows == "averaged":
            sides = [given.take(r).average_repeats() if len(r) else given.take(r) for r in (rows, held_out)]
        else:
            sides = [given.take(rows), given.take(held_out)]

        fetches = [paired(str(trials.subject), side, pictures) for side in sides]
        data = digest_of([digest_of(side.betas, side.stimuli) for side in sides], pictures.digest)
        if not len(held_out):
            self.train(network, *fetches[0], settings, data=data, part=part)
            network.cpu()
            return {}

        choice = HeldOutChoice(network, *fetches[1], settings.batch_size, self.seed, self._training_folder(part))
        more = {"log_every": self.config.check_every, "watch": choice.look}
        self.train(network, *fetches[0], settings, data=data, part=part, **more)

        return choice.take()

    # -- the arrow -------------------------------------------------------------------------------------------------

    def decode(self, trials: Trials) -> Images:
        """Brain to image: the first sample for each row of `trials`, 0-1."""
        return self._draw(trials, samples=1)[0]

    def decode_samples(self, trials: Trials) -> list[Images]:
        """All samples, ``config.sampling.samples`` of them; the first is what `decode` gives."""
        return self._draw(trials, self.config.sampling.samples)

    def ceiling(self, stimuli: Stimuli) -> Images:
        """The pictures themselves through the tokenizer: what is lost before any brain or diffusion comes in.

        Tokens of a brain have no truth to draw from, and labels say less than a brain could; but every picture drawn is one
        that the tokenizer can make.
        """
        pixels = Pictures.of(stimuli, self.generator_.size)[np.arange(len(stimuli))]
        return self._images(stimuli.ids, self.generator_.decode(self.generator_.encode(_tensor(pixels))))

    def tokens(self, trials: Trials) -> np.ndarray:
        """Brain to the tokens that pictures are drawn from, (n, patches, width) float32."""
        self.check_trials(trials)
        return self.tuned_.to_tokens(self.standardise_.transform(trials).betas)

    # -- pieces ----------------------------------------------------------------------------------------------------

    @property
    def _folder(self) -> Path | None:
        folder = self.config.generator.folder
        if folder is None:
            return None

        return Path(folder)

    def _rows(self, trials: Trials) -> np.ndarray:
        trials = self.standardise_.transform(trials)
        return (trials.average_repeats() if self.config.rows == "averaged" else trials).betas

    def _sides(self, trials: Trials) -> tuple[np.ndarray, np.ndarray]:
        """Trials to train on and trials to choose the step by, no stimulus on both sides."""
        return validation_rows(trials.stimuli.astype(str), self.config.validation, self.rng("validation"))

    def _draw(self, trials: Trials, samples: int) -> list[Images]:
        sampling = self.config.sampling.model_copy(update={"samples": samples})
        ldm = Ldm.of(self.tuned_.network, self.generator_.tokenizer)
        pictures = ldm.sample(self.tokens(trials), list(trials.stimuli), sampling, self.seed)
        return [self._images(trials.stimuli, pictures[:, s]) for s in range(samples)]

    def _images(self, ids: Sequence[Any], pixels: np.ndarray) -> Images:
        grey = self.image_shape_[2] == 1
        return Images(np.asarray(ids, dtype=object), pixels.mean(axis=-1, keepdims=True) if grey else pixels)

    def _fitted_on(self, trials: Trials, stimuli: Stimuli) -> None:
        super()._fitted_on(trials, stimuli)
        side = {"zoo": 32, "public": 256}[self.config.generator.source]
        self.image_shape_ = (side, side, self.image_shape_[2])


def _tensor(pixels: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(pixels)


def _digest(betas: dict[str, Any]) -> str:
    """Of arrays, and of stores by what their rows are."""
    return digest_of({k: v if isinstance(v, np.ndarray) else v.store.record["key"] for k, v in betas.items()})


class AdaptTraining(MaskedTraining):
    """How phase 2 is trained; the defaults are 15 epochs of GOD's 1,800 test responses."""

    steps: int = Field(1690, ge=1)
    batch_size: int = Field(16, ge=1)
    lr: float = Field(5.3e-5, gt=0)
    warmup: int = Field(225, ge=0, description="2 epochs")


class EncodingTraining(lea.RoiMaeTraining):
    """How the decoder learns to predict responses. LEA says nothing of it; the defaults are those of its own autoencoder."""


class MindVisConfig(LatentDiffusionConfig):
    """Configuration of `MindVis`."""

    kind: Literal["mind_vis"] = "mind_vis"
    adapt_training: AdaptTraining | None = Field(
        AdaptTraining(), description="on the test responses, in setting relax; none lets phase 1 learn from them"
    )
    clip: ClipConfig = Field(ClipConfig(), description="whose latents responses are predicted from")
    encoding: EncodingTraining | None = Field(
        EncodingTraining(), description="on pairs, to predict responses; none for decoding only, which needs no CLIP"
    )


class MindVis(LatentDiffusion[MindVisConfig]):
    """See the top of this file."""

    config_class = MindVisConfig
    stages = LatentDiffusion.stages | {"encoding": FedDecoderPart}
    needs = LatentDiffusion.needs | {"encoding": ("standardise", "brain")}
    uses = LatentDiffusion.uses | {
        "brain": (*LatentDiffusion.uses["brain"], "adapt_training"),
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
            "encoding": {"steps": 800, "batch_size": 64, "lr": 2e-3, "warmup": 80, "clip_norm": 1.0},
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
        if name == "encoding":
            return values | {"clip": self._clip.spec()}

        return values

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
        settings = self.config.adapt_training
        own = str(trials.subject)

        for tested in (t for t in self.unpaired if t.subject == trials.subject):
            if settings is not None:
                betas = {own: self._rows(tested)}
                self.train(network, *subject_batches(betas), settings, data=digest_of(betas), part="adapt")
                network.cpu()

    def fit_encoding(self, trials: Trials, stimuli: Stimuli) -> FedDecoderPart:
        """The decoder of phase 1, fed with CLIP latents of the pictures shown."""
        import torch

        from phosphene.models import FedDecoder

        given = self.standardise_.transform(trials)
        settings = self.config.encoding
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
