"""Mind Reader: convolutions from betas to CLIP's image and text embeddings; a StyleGAN2 with both conditions draws.

Paper: Lin, Sprague and Singh 2022, NeurIPS, "Mind Reader: Reconstructing complex images from brain activities".

    decode   betas -> mapper -> image embedding ┐
             betas -> mapper -> text embedding  ┴-> conditional StyleGAN2 -> picture
    encode   picture -> image embedding -> residual and transposed convolutions -> betas

In order:

1. ``screen``: captions that describe their picture well enough, by CLIP.
2. ``image_mapper``, ``text_mapper``: convolutions from betas to the image embedding and to that of the captions.
3. ``encoder``: from the image embedding back to betas.
4. ``generator``: a StyleGAN2 conditioned on both embeddings.

Where the paper's text lost its numbers, those of the authors' code are taken. Four things differ. Validation is inside the
training stimuli (authors: the 1,477 pictures that are reported), and its targets are pictures as they are (authors:
altered ones). Altered copies of a picture are made once, eight of each (authors: anew in every epoch). Voxels are
standardised from training trials alone (authors: from all trials of a session). And the generator is taken as it comes
(authors: trained on with the mappers' own embeddings).

In the preset ``lab`` each network is added to a ridge and learns what the ridge leaves over: alone it needs many thousands of
steps before it predicts more than the mean embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from phosphene.align.decoders import ALPHAS
from phosphene.align.ridge import Ridge
from phosphene.errors import ConfigError
from phosphene.features import cache_folder
from phosphene.features.augment import AugmentConfig
from phosphene.features.captions import LIMIT, SHARE, Screening, Targets, caption_targets, clamped, image_targets
from phosphene.features.clip import ClipFeatures
from phosphene.io.config import Config
from phosphene.metrics.identification import similarity
from phosphene.metrics.retrieval import ensemble_weights
from phosphene.models.gru import validation_rows
from phosphene.models.mapper import (
    EncoderTraining,
    MapperConfig,
    MapperPart,
    MapperTraining,
    VoxelEncoderConfig,
    VoxelEncoderPart,
    fit_mapper,
    fit_voxel_encoder,
)
from phosphene.models.stylegan2 import StyleGan2, StyleGan2Sampling
from phosphene.recipes.base import STANDARDISE, Recipe, RecipeConfig, Stage, Weights
from phosphene.recipes.components import Generator, LatentMap
from phosphene.recipes.lea import ClipConfig
from phosphene.recipes.maps import Predictor
from phosphene.types import Images, Latents, Stimuli, Trials, positions

PAPER_CLIP = "openai/clip-vit-base-patch32"


class StyleGan2Source(Config):
    """Where the generator comes from."""

    source: Literal["zoo", "public"] = Field(default="public", description="the lab's, or public weights of 256 pixels")
    file: str | None = Field(default=None, description="of the public generator, or the folder it was converted into")


class StyleGan2Settings(Config):
    """Settings of StyleGAN2, of the CLIP whose embeddings condition it, and of what is done to these."""

    clip: ClipConfig = ClipConfig(name=PAPER_CLIP)
    screening: float = Field(
        default=SHARE,
        ge=0,
        lt=1,
        description="share of the best caption's probability that others must exceed; 0 keeps all",
    )
    clamp: float | None = Field(
        default=LIMIT,
        gt=0,
        description="largest value of a raw embedding; none: as they are. Values of other CLIPs are larger",
    )
    generator: StyleGan2Source = StyleGan2Source()
    sampling: StyleGan2Sampling = StyleGan2Sampling()


class StyleGan2Generator(Generator):
    """Mind Reader's generator: a StyleGAN2 with two conditions, CLIP embeddings of the picture and of its captions.

    Parameters
    ----------
    settings : StyleGan2Settings
        or any configuration with its fields
    """

    inputs = ("image", "text")
    parts = {"generator": StyleGan2}  # noqa: RUF012  a constant

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.clip = ClipFeatures(settings.clip.name, revision=settings.clip.revision, normalise="none")

    @property
    def side(self) -> int:
        """Pixels along a side of its pictures."""
        return {"zoo": 32, "public": 256}[self.settings.generator.source]

    @property
    def corpora(self) -> tuple[str, ...]:
        """The lab's worlds, or whatever the file given was trained on."""
        if self.settings.generator.source == "zoo":
            return ("lab",)

        return ("stylegan2-text",)

    @property
    def samples(self) -> int:
        """Pictures it draws for each row."""
        return self.settings.sampling.samples

    def weights(self) -> Iterable[Weights | None]:
        """Of the generator."""
        c = self.settings.generator
        if c.source == "zoo":
            return ("stylegan2",)
        if c.file is None:
            return ()

        return (Path(c.file),)

    def latent_weights(self) -> Iterable[Weights | None]:
        """Of CLIP, for pictures and for captions, and how embeddings are cut."""
        c = self.settings
        return (self.clip.spec(), self.clip.spec("captions"), {"clamp": c.clamp, "screening": c.screening})

    def load(self, recipe: Recipe[Any], stimuli: Stimuli | None = None) -> dict[str, Any]:
        """The generator, as it comes."""
        c = self.settings.generator
        if c.source == "zoo":
            return {"generator": StyleGan2.bundled()}

        if c.file is None:
            raise ConfigError(
                "the public generator of 256 pixels is not part of phosphene; fetch it and give its place, "
                "recipe.generator.file=FILE, or use the lab's with --preset lab."
            )

        return {"generator": StyleGan2.from_public(c.file)}

    def true_inputs(self, stimuli: Stimuli) -> dict[str, np.ndarray] | None:
        """Embeddings of the pictures, and of the mean of the captions that pass screening; None where one has none."""
        if not _all_described(stimuli):
            return None

        return {"image": self.image_latents(stimuli), "text": self.described(stimuli)}

    def draw(
        self, parts: Mapping[str, Any], inputs: Mapping[str, np.ndarray], ids: Sequence[str], samples: int, seed: int
    ) -> np.ndarray:
        """Pictures from both embeddings."""
        sampling = self.settings.sampling.model_copy(update={"samples": samples})
        return parts["generator"].sample(inputs["image"], inputs["text"], list(ids), sampling, seed)

    def space(self, name: str) -> str:
        """Name of the space of ``image`` or ``text``."""
        if name == "image":
            return self.clip.space

        return f"{self.clip.space}_text"

    def spaces(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Both embeddings."""
        return {self.space(name): inputs[name] for name in self.inputs}

    def true_spaces(self, stimuli: Stimuli) -> dict[str, np.ndarray]:
        """Embeddings of the pictures themselves and, where all have captions, of the captions."""
        arrays = {self.space("image"): self.image_latents(stimuli)}
        if _all_described(stimuli):
            arrays[self.space("text")] = self.described(stimuli)

        return arrays

    @property
    def fixed_spaces(self) -> frozenset[str]:
        """CLIP embeddings mean the same whatever the training trials."""
        return frozenset({self.space("image"), self.space("text")})

    def texts(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Embeddings of texts, the same for both spaces: CLIP has one for pictures and texts."""
        embeddings = clamped(self.clip.texts(list(texts)), self.settings.clamp)  # (n, d)
        return {self.space(name): embeddings for name in self.inputs}

    def image_latents(self, stimuli: Stimuli) -> np.ndarray:
        """Embeddings of pictures, (n, d)."""
        return clamped(self.clip.transform(stimuli, cache_folder()), self.settings.clamp)

    def described(self, stimuli: Stimuli) -> np.ndarray:
        """Embeddings of the mean of the captions that pass screening, (n, d)."""
        cache = cache_folder()
        screening = Screening.fit(self.clip, stimuli, self.settings.screening, cache)
        return caption_targets(self.clip, stimuli, screening, self.settings.clamp, "average", cache).clean

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """Embeddings of drawn pictures, as CLIP gives them."""
        return self.clip.images(pixels)


class ConvolutionalMap(LatentMap):
    """Mind Reader's mapper as a map for any generator that draws from CLIP: one target for each stimulus, as it is.

    Parameters
    ----------
    config : MapperConfig
        sizes
    training : MapperTraining
        how it is trained
    """

    uses = (MapperPart, fit_mapper, Ridge, validation_rows)

    def __init__(self, config: MapperConfig, training: MapperTraining) -> None:
        self.config = config
        self.training = training

    def fit(
        self, recipe: Recipe[Any], name: str, features: Trials, targets: Any, groups: Sequence[np.ndarray] = ()
    ) -> Predictor:
        """A mapper whose best step is chosen by validation stimuli.

        Parameters
        ----------
        recipe : Recipe
            gives the seed, a place for checkpoints and the training of networks
        name : str
            of the latents
        features : Trials
            (n, d), a row per stimulus
        targets : ndarray of shape (n, k)
            latents of the same rows
        groups : sequence of ndarray, default ()
            not used: the convolutions walk over all features

        Returns
        -------
        Predictor
        """
        items = np.arange(len(features))
        ids = features.stimuli.astype(str)
        held_out = validation_rows(ids, self.training.validation, recipe.rng("validation"))[1]
        one_each = Targets(targets, items, targets)
        part = _fitted_mapper(recipe, self.config, self.training, name, 0, features.betas, items, one_each, held_out)

        return Predictor(part, None)


class MindReaderConfig(RecipeConfig, StyleGan2Settings):
    """Configuration of `MindReader`."""

    kind: Literal["mind_reader"] = "mind_reader"
    per_session: bool = Field(default=True, description="standardise voxels by the training trials of each session")
    captions: Literal["random", "average", "fixed"] = Field(
        default="random",
        description="targets of the text mapper: one kept caption at a time, their mean, or the best (table 3a)",
    )
    augment: AugmentConfig | None = Field(default=AugmentConfig(), description="of pictures; none: as they are")
    mapper: MapperConfig = MapperConfig()
    training: MapperTraining = MapperTraining()
    ensemble: int = Field(
        default=1, ge=1, le=5, description="mappers per embedding, of different seeds, weighted on validation"
    )
    encoder: VoxelEncoderConfig = VoxelEncoderConfig()
    encoder_training: EncoderTraining = EncoderTraining()

    @model_validator(mode="after")
    def _ensembles_are_weighted(self) -> Self:
        if self.ensemble > 1 and not self.training.validation:
            raise ValueError("weighs the mappers of an ensemble on validation stimuli: set training.validation above 0")

        return self


_MAPPER = ("clamp", "mapper", "training", "ensemble")
_SOLVERS = (fit_mapper, Ridge, validation_rows, ensemble_weights)


class MindReader(Recipe[MindReaderConfig]):
    """Convolutions from betas to CLIP's image and text embeddings, from which a conditional StyleGAN2 draws.

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
    generator_ : StyleGan2
        both embeddings to pictures
    """

    stages = (
        STANDARDISE,
        # Reads trials for the order of their stimuli, in which captions are kept.
        Stage(
            "screen", Screening, needs=(), settings=("screening",),
            weights=lambda recipe: (recipe.clip.spec(), recipe.clip.spec("captions")),
        ),
        Stage(
            "image_mapper", MapperPart, needs=("standardise",), settings=(*_MAPPER, "augment"), uses=_SOLVERS,
            weights=lambda recipe: (recipe.clip.spec(),),
        ),
        Stage(
            "text_mapper", MapperPart, needs=("standardise", "screen"), settings=(*_MAPPER, "captions"), uses=_SOLVERS,
            weights=lambda recipe: (recipe.clip.spec(), recipe.clip.spec("captions")),
        ),
        Stage(
            "encoder", VoxelEncoderPart, needs=("standardise",),
            settings=("clamp", "encoder", "encoder_training", "training.validation"),
            uses=(fit_voxel_encoder, Ridge, validation_rows), weights=lambda recipe: (recipe.clip.spec(),),
        ),
        Stage(
            "generator", StyleGan2, needs=(), settings=("generator.source",), reads=(),
            weights=lambda recipe: recipe.stylegan2.weights(),
        ),
    )  # fmt: skip
    presets = {  # noqa: RUF012  a constant
        "lab": {
            "per_session": False,
            "clip": {"name": "lab"},
            "clamp": 6.0,  # as many standard deviations of the lab's CLIP as 1.5 is of OpenAI's
            "augment": {"copies": 4},
            "mapper": MapperConfig.preset("lab"),
            "training": MapperTraining.preset("lab"),
            "encoder": VoxelEncoderConfig.preset("lab"),
            "encoder_training": EncoderTraining.preset("lab"),
            "generator": {"source": "zoo"},
            "sampling": {"samples": 3},  # as few as tell luck from skill
        },
        "paper": {},
    }

    @cached_property
    def stylegan2(self) -> StyleGan2Generator:
        """The generator, and the CLIP whose embeddings it draws from."""
        return StyleGan2Generator(self.config)

    @property
    def clip(self) -> ClipFeatures:
        """The CLIP whose embeddings are predicted, as they come, without normalisation."""
        return self.stylegan2.clip

    # -- stages, in order ------------------------------------------------------------------------------------------

    def fit_screen(self, trials: Trials, stimuli: Stimuli) -> Screening:
        """Which captions describe their picture well enough to be learnt from."""
        return Screening.fit(self.clip, stimuli, self.config.screening, cache_folder())

    def fit_image_mapper(self, trials: Trials, stimuli: Stimuli) -> MapperPart:
        """Betas to the picture's embedding."""
        c = self.config
        targets = image_targets(self.clip, stimuli, c.augment, self.seed, c.clamp, cache_folder())
        return self._mapper("image", trials, stimuli, targets)

    def fit_text_mapper(self, trials: Trials, stimuli: Stimuli) -> MapperPart:
        """Betas to the embedding of the captions that are kept."""
        c = self.config
        targets = caption_targets(self.clip, stimuli, self.screen_, c.clamp, c.captions, cache_folder())
        return self._mapper("text", trials, stimuli, targets)

    def _mapper(self, what: str, trials: Trials, stimuli: Stimuli, targets: Targets) -> MapperPart:
        """As many mappers as the ensemble has, summed with the weights that retrieve best on validation trials."""
        c = self.config
        betas, items, held_out = self._rows(trials, stimuli)
        parts = []

        for number in range(c.ensemble):
            part = _fitted_mapper(self, c.mapper, c.training, what, number, betas, items, targets, held_out)
            parts.append(part)

        if len(parts) == 1:
            return parts[0]

        pictures, truth = np.unique(items[held_out], return_inverse=True)
        similarities = []
        for part in parts:
            predicted = part.predict(betas[held_out])  # (n_held_out, d)
            similarities.append(similarity(predicted, targets.clean[pictures], "cosine"))  # (n_held_out, n_pictures)

        weights = ensemble_weights(similarities, truth=truth).weights
        return MapperPart.together(parts, weights)

    def fit_encoder(self, trials: Trials, stimuli: Stimuli) -> VoxelEncoderPart:
        """The picture's embedding to betas."""
        c = self.config
        betas, items, held_out = self._rows(trials, stimuli)
        embeddings = self.stylegan2.image_latents(stimuli)[items]  # (n_trials, d)
        ridge = None
        if c.encoder.linear == "ridge":
            ridge = _linear(embeddings, betas, held_out)

        return fit_voxel_encoder(
            c.encoder,
            embeddings,
            betas,
            c.encoder_training,
            seed=int(self.rng("encoder").integers(2**31)),
            held_out=held_out,
            ridge=ridge,
            folder=self.training_folder("encoder"),
            progress=self.progress,
            trainer=self.trainer,
        )

    def fit_generator(self) -> StyleGan2:
        """The generator, as it comes."""
        return self.stylegan2.load(self)["generator"]

    # -- the arrows ------------------------------------------------------------------------------------------------

    def decode(self, trials: Trials) -> Images:
        """Brain to image: the first sample for each row of `trials`, 0-1."""
        return self._drawn(trials.noise_keys, self._embedded(trials), samples=1, ids=trials.stimuli)[0]

    def decode_samples(self, trials: Trials) -> list[Images]:
        """All samples, ``config.sampling.samples`` of them; the first is what `decode` gives."""
        return self._drawn(trials.noise_keys, self._embedded(trials), self.stylegan2.samples, ids=trials.stimuli)

    def encode(self, stimuli: Stimuli) -> Trials:
        """Image to brain: one predicted response per stimulus, in the units of the training betas."""
        standardised = self.encoder_.encode(self.stylegan2.image_latents(stimuli))
        return self.predicted_trials(stimuli, self.standardise_.inverse(standardised))

    def latents(self, trials: Trials) -> Latents:
        """Decoded image and text embeddings, one row per trial."""
        return Latents(trials.stimuli, self.stylegan2.spaces(self._embedded(trials)))

    def true_latents(self, stimuli: Stimuli) -> Latents:
        """Embeddings of the pictures themselves and, where all have captions, of the mean of those that pass screening."""
        return Latents(stimuli.ids, self.stylegan2.true_spaces(stimuli))

    def text_latents(self, texts: Sequence[str]) -> Latents:
        """Embeddings of texts, the same for both spaces: CLIP has one for pictures and texts."""
        return Latents(np.asarray(list(texts), dtype=object), self.stylegan2.texts(texts))

    def ceiling(self, stimuli: Stimuli) -> Images | None:
        """Pictures drawn from the true embeddings; None where a picture has no caption."""
        inputs = self.stylegan2.true_inputs(stimuli)
        if inputs is None:
            return None

        return self._drawn(stimuli.ids, inputs, samples=1, ids=stimuli.ids)[0]

    @property
    def fixed_spaces(self) -> frozenset[str]:
        """CLIP embeddings mean the same whatever the training trials."""
        return self.stylegan2.fixed_spaces

    def generators(self) -> tuple[str, ...]:
        """The StyleGAN2, the lab's or a file given."""
        return self.stylegan2.corpora

    def picture_shape(self, stimuli: Stimuli) -> tuple[int, int, int]:
        """(height, width, channels) of a decoded picture: the generator's size."""
        return self.stylegan2.side, self.stylegan2.side, stimuli.image_shape[2]

    # -- pieces ----------------------------------------------------------------------------------------------------

    def _rows(self, trials: Trials, stimuli: Stimuli) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Standardised betas, the number of each row's stimulus, and the rows of the validation stimuli."""
        share = self.config.training.validation
        items = positions(stimuli.ids, trials.stimuli, "stimulus")
        held_out = validation_rows(trials.stimuli.astype(str), share, self.rng("validation"))[1]

        return self.standardised(trials).betas, items, held_out

    def _embedded(self, trials: Trials) -> dict[str, np.ndarray]:
        self.check_trials(trials)
        betas = self.standardised(trials).betas
        return {"image": self.image_mapper_.predict(betas), "text": self.text_mapper_.predict(betas)}

    def _drawn(
        self, keys: np.ndarray, inputs: Mapping[str, np.ndarray], samples: int, *, ids: np.ndarray
    ) -> list[Images]:
        pictures = self.stylegan2.draw({"generator": self.generator_}, inputs, list(keys), samples, self.seed)
        return [self.as_images(ids, pictures[:, s]) for s in range(samples)]


def _fitted_mapper(
    recipe: Recipe[Any],
    config: MapperConfig,
    training: MapperTraining,
    name: str,
    number: int,
    betas: np.ndarray,
    items: np.ndarray,
    targets: Targets,
    held_out: np.ndarray,
) -> MapperPart:
    """One mapper of an ensemble, added to a ridge where the configuration asks for one.

    Parameters
    ----------
    recipe : Recipe
        gives the seed, a place for checkpoints and the training of networks
    config : MapperConfig
        sizes
    training : MapperTraining
        how it is trained
    name : str
        of the embeddings
    number : int
        of the mapper in its ensemble
    betas : ndarray of shape (n_trials, n_voxels)
        standardised
    items : ndarray of shape (n_trials,)
        row of `targets` that belongs to each trial
    targets : Targets
        embeddings
    held_out : ndarray
        rows of the validation trials, by which the best step is chosen

    Returns
    -------
    MapperPart
    """
    ridge = None
    if config.linear == "ridge":
        ridge = _linear(betas, targets.clean[items], held_out)

    return fit_mapper(
        config,
        betas,
        items,
        targets,
        training,
        seed=int(recipe.rng(name, number).integers(2**31)),
        held_out=held_out,
        ridge=ridge,
        folder=recipe.training_folder(f"mapper-{name}-{number}"),
        progress=recipe.progress,
        trainer=recipe.trainer,
    )


def _linear(x: np.ndarray, y: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights and intercept of a ridge on all rows but the validation ones, its penalty chosen inside them."""
    inside = np.setdiff1d(np.arange(len(x)), held_out)

    # The grid is for inputs of unit variance, which coordinates of unit vectors are far from.
    variance = float(x[inside].var(axis=0).mean())
    alphas = [alpha * variance for alpha in ALPHAS]
    ridge = Ridge(alphas, choose="gcv").fit(x[inside], y[inside])

    return ridge.coef_, ridge.intercept_


def _all_described(stimuli: Stimuli) -> bool:
    """Whether every stimulus has a caption that is not blank."""
    if stimuli.captions is None:
        return False

    return all("".join(captions).strip() for captions in stimuli.captions)
