"""What recipes are put together from: brain models, maps and generators, each behind a small interface.

    responses -> brain model -> features -> map -> latents -> generator -> pictures

A component knows its settings and nothing of the recipe it serves: what it needs of one (the seed, a place for checkpoints,
responses without pictures) comes as the argument `recipe`. The recipes of the papers are made of these components, and
:mod:`phosphene.recipes.mixed` puts any of them together by name.

To add a component, derive from `BrainModel`, `LatentMap` or `Generator`, write the abstract methods, and name the class in
`BRAIN_MODELS`, `LATENT_MAPS` or `GENERATORS`. The registries hold strings, so that a component is imported only when a
configuration names it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from phosphene.errors import ConfigError, DataError, did_you_mean
from phosphene.io.stages import Part
from phosphene.types import Stimuli, Trials

if TYPE_CHECKING:
    from phosphene.recipes.base import Recipe, Weights

BRAIN_MODELS: dict[str, str] = {
    "roi_mae": "phosphene.recipes.lea:RoiMaeBrain",
    "contrast": "phosphene.recipes.mind_vis:PatchMaeBrain",
    "masked": "phosphene.recipes.mind_vis:PatchMaeBrain",
}
"""Models of responses alone, by name: the autoencoders of LEA, CAD and MinD-Vis."""

LATENT_MAPS: dict[str, str] = {
    "ridge": "phosphene.recipes.maps:RidgeMap",
    "reduced_rank": "phosphene.recipes.maps:ReducedRankMap",
    "gru": "phosphene.recipes.maps:NetworkMap",
    "group_gru": "phosphene.recipes.maps:NetworkMap",
    "mapper": "phosphene.recipes.mind_reader:ConvolutionalMap",
}
"""Maps from features to latents, by name."""

GENERATORS: dict[str, str] = {
    "maskgit": "phosphene.recipes.lea:MaskGitGenerator",
    "stylegan2": "phosphene.recipes.mind_reader:StyleGan2Generator",
    "vdvae": "phosphene.recipes.brain_diffuser:TwoStageGenerator",
    "dual_guided": "phosphene.recipes.brain_diffuser:TwoStageGenerator",
    "latent_diffusion": "phosphene.recipes.mind_vis:LatentDiffusionGenerator",
}
"""What draws pictures, by name: the generators of LEA, Mind Reader, Brain-Diffuser (one stage or two), and of CAD and
MinD-Vis."""


def component(registry: Mapping[str, str], name: str) -> Any:
    """The class of a component.

    Parameters
    ----------
    registry : mapping of {str: str}
        `BRAIN_MODELS`, `LATENT_MAPS` or `GENERATORS`
    name : str
        its name there

    Raises
    ------
    ConfigError
        For an unknown name, with the nearest known one.
    """
    if name not in registry:
        raise ConfigError(f"there is no component '{name}'. {did_you_mean(name, registry)}")

    module, _, attribute = registry[name].partition(":")
    return getattr(import_module(module), attribute)


class BrainModel(ABC):
    """A model of responses alone: fitted without pictures, it turns standardised responses into features."""

    uses: tuple[Any, ...] = ()
    """Solvers whose version numbers count."""
    is_invertible: bool = False
    """Whether `responses` leads back from features."""
    has_tokens: bool = False
    """Whether features are one vector per patch of the cortex, or one for all of it."""

    @abstractmethod
    def fit(self, recipe: Recipe[Any], trials: Trials) -> Part:
        """Fit to responses.

        Parameters
        ----------
        recipe : Recipe
            whose stage ``standardise`` is fitted; `Recipe.unpaired` are learned from as well
        trials : Trials
            training trials, as measured

        Returns
        -------
        Part
        """

    @abstractmethod
    def features(self, part: Any, betas: np.ndarray) -> np.ndarray:
        """Standardised responses to features.

        Parameters
        ----------
        part : Part
            as `fit` returned it
        betas : ndarray of shape (n, n_voxels)
            standardised

        Returns
        -------
        ndarray of shape (n, d), or (n, n_tokens, width) where `has_tokens`
        """

    def class_token(self, part: Any, betas: np.ndarray) -> np.ndarray:
        """Standardised responses to one vector for all tokens of each, where `has_tokens`.

        Parameters
        ----------
        part : Part
            as `fit` returned it
        betas : ndarray of shape (n, n_voxels)
            standardised

        Returns
        -------
        ndarray of shape (n, width)
        """
        raise NotImplementedError

    def responses(self, part: Any, features: np.ndarray) -> np.ndarray:
        """Features back to standardised responses, where `is_invertible`.

        Parameters
        ----------
        part : Part
            as `fit` returned it
        features : ndarray of shape (n, d)
            as `features` makes them

        Returns
        -------
        ndarray of shape (n, n_voxels)
        """
        raise NotImplementedError

    def weights(self) -> Iterable[Weights | None]:
        """Public weights it starts from; none by default."""
        return ()


class LatentMap(ABC):
    """From features to one kind of latents: a row per stimulus, fitted to pairs."""

    uses: tuple[Any, ...] = ()
    """Solvers whose version numbers count."""
    streams: bool = False
    """Whether targets may be rows of a store, where they are too many for memory."""

    @abstractmethod
    def fit(self, recipe: Recipe[Any], name: str, features: Trials, targets: Any, groups: Sequence[np.ndarray]) -> Any:
        """Fit to pairs.

        Parameters
        ----------
        recipe : Recipe
            gives the seed, a place for checkpoints and the training of networks
        name : str
            of the latents, so that several trainings of a stage keep apart
        features : Trials
            (n, d) of about unit variance, a row per stimulus
        targets : ndarray or StoredRows
            (n, k)
        groups : sequence of ndarray
            features that belong together, for maps that walk over them; empty where there are none

        Returns
        -------
        Part
            with a method ``predict``, (n, d) to (n, k)
        """


class Generator(ABC):
    """What draws pictures from latents that can be predicted from a brain.

    Attributes
    ----------
    inputs : tuple of str
        names of the latents it draws from; a map leads to each
    parts : dict of {str: type}
        networks it consists of, by name
    side : int
        pixels along a side of its pictures
    corpora : tuple of str
        what it was trained on, by names of :mod:`phosphene.recipes.corpora`
    """

    inputs: tuple[str, ...]
    parts: dict[str, type[Part]]
    tuned: bool = False
    """Whether it is tuned to features itself (`tune`) in place of being led to by maps."""

    @property
    @abstractmethod
    def side(self) -> int:
        """Pixels along a side of its pictures."""

    @property
    @abstractmethod
    def corpora(self) -> tuple[str, ...]:
        """What it was trained on."""

    @property
    def samples(self) -> int:
        """Pictures it draws for each row, as its settings say."""
        return 1

    @abstractmethod
    def load(self, recipe: Recipe[Any], stimuli: Stimuli | None = None) -> dict[str, Any]:
        """Its networks by name, as they come or trained on with pictures, which are passed only where they are read."""

    def weights(self) -> Iterable[Weights | None]:
        """Weights that `load` reads."""
        return ()

    def latent_weights(self) -> Iterable[Weights | None]:
        """Weights of the frozen networks that make the latents of pictures."""
        return ()

    def target(self, name: str, stimuli: Stimuli, recipe: Recipe[Any], streams: bool = False) -> Any:
        """What a map is to predict of each picture.

        Parameters
        ----------
        name : str
            one of `inputs`
        stimuli : Stimuli
            with pictures
        recipe : Recipe
            shows progress
        streams : bool, default False
            whether rows of a store will do

        Returns
        -------
        ndarray of shape (n, d) or StoredRows

        Raises
        ------
        DataError
            Where a picture lacks what the latents are made of, such as a caption.
        """
        inputs = self.true_inputs(stimuli)
        if inputs is None:
            raise DataError(
                f"this generator draws from {' and '.join(self.inputs)} latents, but some training pictures have no caption. "
                "Add captions, or choose another generator."
            )

        return inputs[name]

    @abstractmethod
    def true_inputs(self, stimuli: Stimuli) -> dict[str, np.ndarray] | None:
        """Latents of the pictures themselves; None where they cannot be made, as of a picture without caption."""

    @abstractmethod
    def draw(
        self, parts: Mapping[str, Any], inputs: Mapping[str, np.ndarray], ids: Sequence[str], samples: int, seed: int
    ) -> np.ndarray:
        """Pictures from latents.

        Parameters
        ----------
        parts : mapping of {str: Part}
            as `load` (and `tune`) made them
        inputs : mapping of {str: ndarray}
            (n, d) by name
        ids : sequence
            noise key of each row (`Trials.noise_keys`); the noise of a picture is a function of it
        samples : int
            pictures per row
        seed : int
            of the noise

        Returns
        -------
        ndarray of shape (n, samples, side, side, 3), float32, 0-1
        """

    def ceiling(self, parts: Mapping[str, Any], stimuli: Stimuli, seed: int) -> np.ndarray | None:
        """The best it could draw, (n, side, side, 3): from the latents of the pictures themselves; None without them."""
        inputs = self.true_inputs(stimuli)
        if inputs is None:
            return None

        return self.draw(parts, inputs, list(stimuli.ids), 1, seed)[:, 0]

    def steps(
        self, parts: Mapping[str, Any], inputs: Mapping[str, np.ndarray], ids: Sequence[str], seed: int
    ) -> dict[str, np.ndarray]:
        """Pictures on the way, by name: (n, side, side, 3); none by default."""
        return {}

    def blocks(self, n: int) -> Iterator[slice]:
        """Rows that are drawn together: all by default, fewer where latents are too large to be held at once."""
        yield slice(0, n)

    def spaces(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Latents under the names of their spaces, as they are scored."""
        return {}

    def true_spaces(self, stimuli: Stimuli) -> dict[str, np.ndarray]:
        """The same of the pictures themselves."""
        return {}

    @property
    def fixed_spaces(self) -> frozenset[str]:
        """Spaces that mean the same whatever the training trials."""
        return frozenset()

    def texts(self, texts: Sequence[str]) -> dict[str, np.ndarray] | None:
        """Texts in the spaces that have them; None where none has."""
        return None

    def image_latents(self, stimuli: Stimuli) -> np.ndarray | None:
        """Latents of pictures that responses are predicted from, (n, d); None where it has none."""
        return None

    def image_weights(self) -> Iterable[Weights | None]:
        """Weights of the network that makes `image_latents`; by default as for all its latents."""
        return self.latent_weights()

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """Latents of drawn pictures (n, side, side, 3) in the space of the first input, where samples are chosen by it."""
        raise NotImplementedError

    def tune(
        self, recipe: Recipe[Any], parts: Mapping[str, Any], features: Trials, stimuli: Stimuli, shape: Any
    ) -> Any:
        """The generator's networks tuned to features, where `tuned`."""
        raise NotImplementedError
