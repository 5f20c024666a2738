"""Decoders that are wrong in one way each, for benchmarks/known_answers.py. None of them is a recipe to use.

Each is a plug-in of a few lines over the public contract of a recipe, so that a run of it goes through fit, decode and
evaluate as any other. Those that need the test trials have the whole study in `STUDY`: they stand for a recipe that opens
the data itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np

from phosphene import recipes
from phosphene.data.standardise import Standardiser
from phosphene.io.stages import StageStore, take
from phosphene.recipes.base import STANDARDISE, Recipe, RecipeConfig, Stage
from phosphene.recipes.linear import Linear, LinearConfig
from phosphene.types import Dataset, Images, NoiseKey, Stimuli, Trials

STUDY: dict[str, Dataset] = {}
"""The whole study under "now", for decoders that look where they should not."""


@contextmanager
def registered(study: Dataset) -> Iterator[None]:
    """The decoders of this file are recipes meanwhile, and `study` is what they can see."""
    recipes.RECIPES.update({kind: f"{cls.__module__}:{cls.__name__}" for kind, cls in DISHONEST.items()})
    STUDY["now"] = study
    try:
        yield
    finally:
        STUDY.clear()
        for kind in DISHONEST:
            recipes.RECIPES.pop(kind)


# -- what reaches into the test set --------------------------------------------------------------------------------------


class BatchScoredConfig(LinearConfig):
    """Configuration of `BatchScored`."""

    kind: Literal["batch_scored"] = "batch_scored"


class BatchScored(Linear):
    """Standardises voxels over whatever rows it decodes, as older scripts do with the test set."""

    config_class = BatchScoredConfig

    def _components(self, trials: Trials) -> np.ndarray:
        betas = trials.betas
        spread = betas.std(axis=0)
        return self.to_pixels_.predict((betas - betas.mean(axis=0)) / np.where(spread > 0, spread, 1))


class PeekingConfig(LinearConfig):
    """Configuration of `Peeking`."""

    kind: Literal["peeking"] = "peeking"


class Peeking(Linear):
    """Chooses voxels and penalties by all trials, those of the test set included."""

    config_class = PeekingConfig

    def fit(
        self, trials: Trials, stimuli: Stimuli, store: StageStore | None = None, unpaired: Sequence[Trials] = ()
    ) -> Self:
        """Fit on the whole study whatever it is given."""
        study = STUDY["now"]
        return super().fit(study.trials(), study.stimuli, store, unpaired)


class AdaptingConfig(LinearConfig):
    """Configuration of `Adapting`."""

    kind: Literal["adapting"] = "adapting"


class Adapting(Linear):
    """Takes mean and spread of the voxels from the test responses, and says so: setting relax."""

    config_class = AdaptingConfig
    stages = (replace(STANDARDISE, learns_unpaired=True), *Linear.stages[1:])

    def fit_standardise(self, trials: Trials) -> Standardiser:
        """By test responses where setting relax gives them."""
        return super().fit_standardise(self.unpaired[0] if self.unpaired else trials)


class UngroupedConfig(LinearConfig):
    """Configuration of `Ungrouped`."""

    kind: Literal["ungrouped"] = "ungrouped"


class Ungrouped(Linear):
    """Inner folds deal single trials, so that repeats of a picture stand on both sides."""

    config_class = UngroupedConfig

    def inner_folds(self, trials: Trials) -> np.ndarray:
        """Folds of trials, not of stimuli."""
        return self.rng("trials").permutation(np.arange(len(trials)) % 5)


# -- what knows less than it seems ---------------------------------------------------------------------------------------


class CollapsedConfig(LinearConfig):
    """Configuration of `Collapsed`."""

    kind: Literal["collapsed"] = "collapsed"


class Collapsed(Linear):
    """Predicts along the first component alone."""

    config_class = CollapsedConfig

    def _components(self, trials: Trials) -> np.ndarray:
        components = super()._components(trials)
        components[:, 1:] = 0
        return components


class Gallery:
    """Mean responses and mean pictures of each category; all training pictures."""

    def __init__(self, weights: np.ndarray, mean: np.ndarray, means: np.ndarray, pictures: np.ndarray) -> None:
        self.weights, self.mean, self.means, self.pictures = weights, mean, means, pictures

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays, for saving."""
        return {name: getattr(self, name) for name in ("weights", "mean", "means", "pictures")}, {}

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """The same gallery again."""
        return cls(*take(tensors, ("weights", "mean", "means", "pictures"), "gallery"))


class NamingConfig(RecipeConfig):
    """Configuration of `Naming`."""

    kind: Literal["naming"] = "naming"


class Naming(Recipe[NamingConfig]):
    """Names the category by a linear classifier of the responses, and draws the mean training picture of it."""

    config_class = NamingConfig
    stages = (Stage("gallery", Gallery),)

    def fit_gallery(self, trials: Trials, stimuli: Stimuli) -> Gallery:
        """Ridge to one column a category, and the mean pictures."""
        averaged = trials.average_repeats()
        shown = stimuli.select(averaged.stimuli)
        names, which = np.unique(shown.category.astype(str), return_inverse=True)
        pictures, x = shown.floats(), averaged.betas
        mean = x.mean(axis=0)
        wanted = np.eye(len(names))[which] - 1 / len(names)
        gram = (x - mean).T @ (x - mean)
        weights = np.linalg.solve(gram + np.trace(gram) / len(gram) * np.eye(len(gram)), (x - mean).T @ wanted)
        means = np.stack([pictures[which == g].mean(axis=0) for g in range(len(names))])
        return Gallery(weights.astype(np.float32), mean, means, pictures)

    def decode(self, trials: Trials) -> Images:
        """One of as many pictures as there are categories."""
        self.check_trials(trials)
        named = ((trials.betas - self.gallery_.mean) @ self.gallery_.weights).argmax(axis=1)
        return Images(trials.stimuli, self.gallery_.means[named])


class LabelledConfig(RecipeConfig):
    """Configuration of `Labelled`."""

    kind: Literal["labelled"] = "labelled"


class Labelled(Naming):
    """Knows the category of every picture, by whatever way, and nothing else: the mean training picture of it."""

    config_class = LabelledConfig

    def decode(self, trials: Trials) -> Images:
        """One of as many pictures as there are categories."""
        self.check_trials(trials)
        category = STUDY["now"].stimuli.category.astype(str)
        keys = [str(NoiseKey.of(stimulus)) for stimulus in STUDY["now"].stimuli.ids]
        of = dict(zip(keys, category, strict=True))
        trained = np.unique(category[np.isin(STUDY["now"].stimuli.ids, STUDY["now"].split().train)])
        which = np.clip(
            np.searchsorted(trained, [of[str(NoiseKey.of(key))] for key in trials.noise_keys]), 0, len(trained) - 1
        )
        return Images(trials.stimuli, self.gallery_.means[which])


class BrainlessConfig(RecipeConfig):
    """Configuration of `Brainless`."""

    kind: Literal["brainless"] = "brainless"


class Brainless(Naming):
    """A generator with a perfect image prior and no ear for the brain: any training picture."""

    config_class = BrainlessConfig

    def decode(self, trials: Trials) -> Images:
        """The first sample."""
        return self.decode_samples(trials)[0]

    def decode_samples(self, trials: Trials) -> list[Images]:
        """Three pictures a trial, drawn by its noise key as random generators here do, whatever its response."""
        self.check_trials(trials)
        drawn = [self.rng("any", str(key)).integers(len(self.gallery_.pictures), size=3) for key in trials.noise_keys]
        return [Images(trials.stimuli, self.gallery_.pictures[[d[s] for d in drawn]]) for s in range(3)]


class BestOfFiveConfig(LinearConfig):
    """Configuration of `BestOfFive`."""

    kind: Literal["best_of_five"] = "best_of_five"


class BestOfFive(Linear):
    """Draws five noisy pictures a trial and puts the one nearest the truth first."""

    config_class = BestOfFiveConfig

    def decode(self, trials: Trials) -> Images:
        """The first of all samples."""
        return self.decode_samples(trials)[0]

    def decode_samples(self, trials: Trials) -> list[Images]:
        """All five, ordered by a look at the whole study."""
        decoded = super().decode(trials).pixels  # (n, h, w, c)
        stimuli = STUDY["now"].stimuli
        row_of = {str(NoiseKey.of(stimulus)): row for row, stimulus in enumerate(stimuli.ids)}
        keys = [str(NoiseKey.of(key)) for key in trials.noise_keys]
        true = stimuli.floats(np.asarray([row_of[key] for key in keys]))  # (n, h, w, c)

        drawn = []
        for sample in range(5):
            noise = [self.rng(key, sample).normal(0, 0.1, decoded.shape[1:]) for key in keys]
            drawn.append(np.clip(decoded + np.stack(noise), 0, 1))

        pictures = np.stack(drawn)  # (5, n, h, w, c)
        order = np.square(pictures - true).mean(axis=(2, 3, 4)).argsort(axis=0)  # (5, n)
        rows = np.arange(len(trials))
        return [Images(trials.stimuli, pictures[chosen, rows]) for chosen in order]


DISHONEST: Mapping[str, type[Recipe]] = {
    cls.config_class.model_fields["kind"].default: cls
    for cls in (BatchScored, Peeking, Adapting, Ungrouped, Collapsed, Naming, Labelled, Brainless, BestOfFive)
}
__all__ = ["DISHONEST", "STUDY", "registered"]
