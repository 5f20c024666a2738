"""Mind Reader: convolutions from betas to CLIP's image and text embeddings; a StyleGAN2 with both conditions draws.

Paper: Lin, Sprague and Singh 2022, NeurIPS, "Mind Reader: Reconstructing complex images from brain activities".

    decode   betas -> mapper -> image embedding ┐
             betas -> mapper -> text embedding  ┴-> conditional StyleGAN2 -> picture
    encode   picture -> image embedding -> residual and transposed convolutions -> betas

Where the paper's text lost its numbers, those of the authors' code are taken. Four things differ. Validation is inside the
training stimuli (authors: the 1,477 pictures that are reported), and its targets are pictures as they are (authors:
altered ones). Altered copies of a picture are made once, eight of each (authors: anew in every epoch). Voxels are
standardised from training trials alone (authors: from all trials of a session). And the generator is taken as it comes
(authors: trained on with the mappers' own embeddings).

In the preset ``lab`` the networks stand beside a ridge and learn what it leaves over: alone they need many thousands of
steps before they say more than the mean embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from phosphene.align.decoders import ALPHAS
from phosphene.align.ridge import Ridge
from phosphene.data.standardise import Standardiser
from phosphene.errors import ConfigError
from phosphene.features import cache_folder
from phosphene.features.augment import AugmentConfig
from phosphene.features.captions import LIMIT, SHARE, Screening, Targets, caption_targets, clamped, image_targets
from phosphene.features.clip import ClipFeatures
from phosphene.io.config import Config
from phosphene.metrics.identification import similarity
from phosphene.metrics.retrieval import ensemble_weights
from phosphene.models import bundled
from phosphene.models.mapper import (
    EncoderTraining,
    MapperConfig,
    MapperPart,
    MapperTraining,
    VoxelEncoderConfig,
    VoxelEncoderPart,
)
from phosphene.models.stylegan2 import StyleGan2, StyleGan2Sampling
from phosphene.recipes.base import Recipe, RecipeConfig
from phosphene.recipes.lea import ClipConfig
from phosphene.types import Images, Latents, Stimuli, Trials, positions

PAPER_CLIP = "openai/clip-vit-base-patch32"


class StyleGan2Source(Config):
    """Where the generator comes from."""

    source: Literal["zoo", "public"] = Field("public", description="the lab's, or public weights of 256 pixels")
    file: str | None = Field(None, description="of the public generator, or the folder it was converted into")


class MindReaderConfig(RecipeConfig):
    """Configuration of `MindReader`."""

    kind: Literal["mind_reader"] = "mind_reader"
    per_session: bool = Field(True, description="standardise voxels by the training trials of each session")
    clip: ClipConfig = ClipConfig(name=PAPER_CLIP)
    screening: float = Field(
        SHARE, ge=0, lt=1, description="share of the best caption's probability that others must exceed; 0 keeps all"
    )
    captions: Literal["random", "average", "fixed"] = Field(
        "random",
        description="targets of the text mapper: one kept caption at a time, their mean, or the best (table 3a)",
    )
    clamp: float | None = Field(
        LIMIT, gt=0, description="largest value of a raw embedding; none: as they are. Values of other CLIPs are larger"
    )
    augment: AugmentConfig | None = Field(AugmentConfig(), description="of pictures; none: as they are")
    mapper: MapperConfig = MapperConfig()
    training: MapperTraining = MapperTraining()
    ensemble: int = Field(
        1, ge=1, le=5, description="mappers per embedding, of different seeds, weighted on validation"
    )
    encoder: VoxelEncoderConfig = VoxelEncoderConfig()
    encoder_training: EncoderTraining = EncoderTraining()
    images: StyleGan2Source = StyleGan2Source()
    sampling: StyleGan2Sampling = StyleGan2Sampling()

    @model_validator(mode="after")
    def _ensembles_are_weighted(self) -> Self:
        if self.ensemble > 1 and not self.training.validation:
            raise ValueError("weighs the mappers of an ensemble on validation stimuli: set training.validation above 0")

        return self


class MindReader(Recipe[MindReaderConfig]):
    """See the top of this file.

    Attributes
    ----------
    standardise_ : Standardiser
        of the voxels
    screen_ : Screening
        of the captions
    image_mapper_, text_mapper_ : MapperPart
        standardised betas to embeddings
    encoder_ : VoxelEncoderPart
        image embeddings to standardised betas
    images_ : StyleGan2
        both embeddings to pictures
    """

    config_class = MindReaderConfig
    stages: ClassVar = {
        "standardise": Standardiser,
        "screen": Screening,
        "image_mapper": MapperPart,
        "text_mapper": MapperPart,
        "encoder": VoxelEncoderPart,
        "images": StyleGan2,
    }
    needs: ClassVar = {
        "screen": (), "image_mapper": ("standardise",), "text_mapper": ("standardise", "screen"),
        "encoder": ("standardise",), "images": (),
    }  # fmt: skip
    paper = "mind_reader"

    @classmethod
    def preset(cls, name: str) -> dict[str, Any]:
        """``paper``: the published sizes. ``lab``: the same classes at tiny size, with the zoo's networks."""
        if name == "paper":
            return {}

        return {
            "per_session": False,
            "clip": {"name": "lab"},
            "clamp": 6.0,  # as many standard deviations of the lab's CLIP as 1.5 is of OpenAI's
            "augment": {"copies": 4},
            "mapper": MapperConfig.preset("lab"),
            "training": MapperTraining.preset("lab"),
            "encoder": VoxelEncoderConfig.preset("lab"),
            "encoder_training": EncoderTraining.preset("lab"),
            "images": {"source": "zoo"},
            "sampling": {"samples": 3},  # as few as tell luck from skill
        }

    uses: ClassVar[dict[str, tuple[str, ...]]] = {
        "standardise": ("per_session",),
        "screen": ("screening",),
        "image_mapper": ("clamp", "augment", "mapper", "training", "ensemble"),
        "text_mapper": ("clamp", "captions", "mapper", "training", "ensemble"),
        "encoder": ("clamp", "encoder", "encoder_training"),
        "images": ("images",),
    }
    """By stage, the parts of the configuration it depends on."""

    def stage_config(self, name: str) -> dict[str, Any]:
        """Values a stage depends on, with the weights of the frozen networks it learns from."""
        c = self.config.model_dump(mode="json")
        values = {key: c[key] for key in self.uses[name]}
        if name in ("screen", "image_mapper", "text_mapper", "encoder"):
            values["clip"] = self._clip.spec()

        if name in ("screen", "text_mapper"):
            values["clip_texts"] = self._clip.spec("captions")

        if name == "images" and c["images"]["source"] == "zoo":
            values["networks"] = [bundled.fingerprint("stylegan2")]

        return values

    # -- stages, in order ------------------------------------------------------------------------------------------

    def fit_standardise(self, trials: Trials, stimuli: Stimuli) -> Standardiser:
        """Mean and spread of every voxel over the training trials."""
        return Standardiser(per_session=self.config.per_session).fit(trials)

    def fit_screen(self, trials: Trials, stimuli: Stimuli) -> Screening:
        """Which captions describe their picture well enough to be learnt from."""
        return Screening.fit(self._clip, stimuli, self.config.screening, cache_folder())

    def fit_image_mapper(self, trials: Trials, stimuli: Stimuli) -> MapperPart:
        """Betas to the picture's embedding."""
        c = self.config
        targets = image_targets(self._clip, stimuli, c.augment, self.seed, c.clamp, cache_folder())
        return self._mapper("image", trials, stimuli, targets)

    def fit_text_mapper(self, trials: Trials, stimuli: Stimuli) -> MapperPart:
        """Betas to the embedding of the captions that are kept."""
        c = self.config
        targets = caption_targets(self._clip, stimuli, self.screen_, c.clamp, c.captions, cache_folder())
        return self._mapper("text", trials, stimuli, targets)

    def _mapper(self, what: str, trials: Trials, stimuli: Stimuli, targets: Targets) -> MapperPart:
        """As many mappers as the ensemble has, summed with the weights that retrieve best on validation trials."""
        from phosphene.models.mapper import fit_mapper

        c = self.config
        betas, items, held_out = self._rows(trials, stimuli)

        if c.mapper.linear == "ridge":
            ridge = self._ridge(betas, targets.clean[items], held_out)
        else:
            ridge = None

        parts = [
            fit_mapper(
                c.mapper,
                betas,
                items,
                targets,
                c.training,
                seed=int(self.rng(what, number).integers(2**31)),
                held_out=held_out,
                ridge=ridge,
                folder=self._folder(f"mapper-{number}"),
                progress=self.progress,
                trainer=self.trainer,
            )
            for number in range(c.ensemble)
        ]

        if len(parts) == 1:
            return parts[0]

        shown, truth = np.unique(items[held_out], return_inverse=True)
        found = [similarity(part.predict(betas[held_out]), targets.clean[shown], "cosine") for part in parts]

        return MapperPart.together(parts, ensemble_weights(found, truth=truth).weights)

    def fit_encoder(self, trials: Trials, stimuli: Stimuli) -> VoxelEncoderPart:
        """The picture's embedding to betas."""
        from phosphene.models.mapper import fit_voxel_encoder

        c = self.config
        betas, items, held_out = self._rows(trials, stimuli)
        seen = self._see(stimuli)[items]

        return fit_voxel_encoder(
            c.encoder,
            seen,
            betas,
            c.encoder_training,
            seed=int(self.rng("encoder").integers(2**31)),
            held_out=held_out,
            ridge=self._ridge(seen, betas, held_out) if c.encoder.linear == "ridge" else None,
            folder=self._folder("encoder"),
            progress=self.progress,
            trainer=self.trainer,
        )

    def generators(self) -> tuple[str, ...]:
        """The StyleGAN2, the lab's or a file given."""
        return ("lab" if self.config.images.source == "zoo" else "stylegan2-text",)

    def fit_images(self, trials: Trials, stimuli: Stimuli) -> StyleGan2:
        """The generator, as it comes."""
        c = self.config.images
        if c.source == "zoo":
            return StyleGan2.from_zoo()

        if c.file is None:
            raise ConfigError(
                "the public generator of 256 pixels is not part of phosphene; fetch it and give its place, "
                "recipe.images.file=FILE, or use the lab's with --preset lab."
            )

        return StyleGan2.from_public(c.file)

    # -- the arrows ------------------------------------------------------------------------------------------------

    def decode(self, trials: Trials) -> Images:
        """Brain to image: the first sample for each row of `trials`, 0-1."""
        return self._paint(trials.stimuli, *self._embedded(trials), samples=1)[0]

    def decode_samples(self, trials: Trials) -> list[Images]:
        """All samples, ``config.sampling.samples`` of them; the first is what `decode` gives."""
        return self._paint(trials.stimuli, *self._embedded(trials), samples=self.config.sampling.samples)

    def encode(self, stimuli: Stimuli) -> Trials:
        """Image to brain: one predicted response per stimulus, in the units of the training betas."""
        standardised = self.encoder_.encode(self._see(stimuli))
        return self.predicted_trials(stimuli, self.standardise_.inverse(standardised))

    def latents(self, trials: Trials) -> Latents:
        """Decoded image and text embeddings, one row per trial."""
        image, text = self._embedded(trials)
        return Latents(trials.stimuli, {self._space("image"): image, self._space("text"): text})

    def true_latents(self, stimuli: Stimuli) -> Latents:
        """Embeddings of the pictures themselves and, where all have captions, of the mean of those that pass screening."""
        arrays = {self._space("image"): self._see(stimuli)}
        if _all_described(stimuli):
            arrays[self._space("text")] = self._read(stimuli)

        return Latents(stimuli.ids, arrays)

    def text_latents(self, texts: Sequence[str]) -> Latents:
        """Embeddings of texts, the same for both spaces: CLIP has one for pictures and texts."""
        read = clamped(self._clip.texts(list(texts)), self.config.clamp)
        spaces = {self._space(what): read for what in ("image", "text")}
        return Latents(np.asarray(list(texts), dtype=object), spaces)

    def ceiling(self, stimuli: Stimuli) -> Images | None:
        """Pictures drawn from the true embeddings; None where a picture has no caption."""
        if not _all_described(stimuli):
            return None

        return self._paint(stimuli.ids, self._see(stimuli), self._read(stimuli), samples=1)[0]

    @property
    def fixed_spaces(self) -> frozenset[str]:
        """CLIP embeddings mean the same whatever the training trials."""
        return frozenset({self._space("image"), self._space("text")})

    # -- pieces ----------------------------------------------------------------------------------------------------

    @cached_property
    def _clip(self) -> ClipFeatures:
        c = self.config.clip
        return ClipFeatures(c.name, revision=c.revision, normalise="none")

    def _space(self, what: str) -> str:
        if what == "image":
            return self._clip.space

        return f"{self._clip.space}_text"

    def _see(self, stimuli: Stimuli) -> np.ndarray:
        return clamped(self._clip.transform(stimuli, cache_folder()), self.config.clamp)

    def _read(self, stimuli: Stimuli) -> np.ndarray:
        screening = Screening.fit(self._clip, stimuli, self.config.screening, cache_folder())
        return caption_targets(self._clip, stimuli, screening, self.config.clamp, "average", cache_folder()).clean

    def _rows(self, trials: Trials, stimuli: Stimuli) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Standardised betas, the number of each row's stimulus, and the rows of the validation stimuli."""
        from phosphene.models.gru import validation_rows

        share = self.config.training.validation
        items = positions(stimuli.ids, trials.stimuli, "stimulus")
        held_out = validation_rows(trials.stimuli.astype(str), share, self.rng("validation"))[1]

        return self.standardise_.transform(trials).betas, items, held_out

    def _ridge(self, x: np.ndarray, y: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights and intercept of a ridge on all rows but the validation ones, its penalty chosen."""
        inside = np.setdiff1d(np.arange(len(x)), held_out)
        # The grid is for inputs of unit variance, which coordinates of unit vectors are far from.
        scale = float(x[inside].var(axis=0).mean())
        line = Ridge([a * scale for a in ALPHAS], choose="gcv").fit(x[inside], y[inside])
        return line.coef_, line.intercept_

    def _folder(self, part: str) -> Path | None:
        if self._training is None:
            return None

        return self._training / part

    def _embedded(self, trials: Trials) -> tuple[np.ndarray, np.ndarray]:
        self.check_trials(trials)
        betas = self.standardise_.transform(trials).betas
        return self.image_mapper_.predict(betas), self.text_mapper_.predict(betas)

    def _paint(self, ids: np.ndarray, image: np.ndarray, text: np.ndarray, samples: int) -> list[Images]:
        sampling = self.config.sampling.model_copy(update={"samples": samples})
        pictures = self.images_.paint(image, text, list(ids), sampling, self.seed)
        if self.image_shape_[2] == 1:
            pictures = pictures.mean(axis=-1, keepdims=True)

        return [Images(ids, pictures[:, s]) for s in range(samples)]

    def _fitted_on(self, trials: Trials, stimuli: Stimuli) -> None:
        super()._fitted_on(trials, stimuli)
        side = {"zoo": 32, "public": 256}[self.config.images.source]
        self.image_shape_ = (side, side, self.image_shape_[2])


def _all_described(stimuli: Stimuli) -> bool:
    """Whether every stimulus has a caption."""
    return stimuli.captions is not None and all(any(t.strip() for t in texts) for texts in stimuli.captions)
