"""What a recipe is handed when it decodes or encodes the test set: values without their story.

Responses come in random order, under names that are made up for the call, in a table that is bare but for columns the
recipe has declared. Noise is drawn by keys that give the noise of the stimulus and do not tell its name. What comes back is
put into the order of the flow again. So a decoder cannot look up what it should see, and that it does not is tried out by
checks L2, L3 and L9 to L11.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd

from phosphene import recipes
from phosphene.errors import DataError, ModelError
from phosphene.io.opened_files import OpenedFiles, recorded
from phosphene.recipes.base import Recipe
from phosphene.run import Run
from phosphene.types import Images, Latents, NoiseKey, Stimuli, Trials, positions
from phosphene.types.trials import NOISE

_STREAM = 21  # of random numbers

R = TypeVar("R", bound=type[Recipe])


class Handing(NamedTuple):
    """How rows are handed over: which names are made up, and in which order they come.

    Attributes
    ----------
    names : int
        another number gives other names
    order : int
        another number gives another order
    """

    names: int = 0
    order: int = 0


SCORED = Handing()
"""How the rows were handed over whose decoded pictures are scored."""


class BlindRecipe:
    """A fitted recipe, asked about a test set that it cannot recognise.

    Parameters
    ----------
    recipe : Recipe
        fitted
    seed : sequence of int
        of names and orders
    files : OpenedFiles, optional
        takes note of what the recipe opens meanwhile
    handing : Handing, optional
        names and order
    """

    def __init__(
        self, recipe: Recipe, seed: Sequence[int], files: OpenedFiles | None = None, handing: Handing = SCORED
    ) -> None:
        self.recipe = recipe
        self.seed = tuple(seed)
        self.files = files or OpenedFiles()
        self.handing = handing

    def decode(self, trials: Trials, keys: Sequence[object] | None = None) -> Images:
        """One picture per row of `trials`, under its stimulus.

        Parameters
        ----------
        trials : Trials
            with their true names
        keys : sequence, optional
            what noise is drawn by; the stimuli by default

        Returns
        -------
        Images
            in the order of `trials`
        """
        handed, names = self._trials(trials, keys)
        with self._watched(names):
            images = self.recipe.decode(handed)

        return self._restored(images, names, trials)

    def decode_samples(self, trials: Trials, keys: Sequence[object] | None = None) -> list[Images]:
        """Every sample the recipe draws, each one picture per row of `trials`; parameters as for `decode`."""
        handed, names = self._trials(trials, keys)
        with self._watched(names):
            samples = self.recipe.decode_samples(handed)

        return [self._restored(images, names, trials) for images in samples]

    def decode_steps(self, trials: Trials) -> dict[str, Images]:
        """Pictures on the way, by name."""
        handed, names = self._trials(trials)
        with self._watched(names):
            steps = self.recipe.decode_steps(handed)

        return {step: self._restored(images, names, trials) for step, images in steps.items()}

    def latents(self, trials: Trials) -> Latents:
        """Decoded latents, one row per row of `trials`."""
        handed, names = self._trials(trials)
        with self._watched(names):
            latents = self.recipe.latents(handed)

        rows = positions(latents.ids, names, "handed row")
        return Latents(trials.stimuli, {space: np.asarray(array)[rows] for space, array in latents.arrays.items()})

    def encode(self, stimuli: Stimuli) -> np.ndarray:
        """Predicted responses to pictures without names, (n_stimuli, n_voxels) in the order of `stimuli`."""
        order, names = self._names(len(stimuli))
        captions = None
        if stimuli.captions is not None:
            captions = tuple(stimuli.captions[row] for row in order)

        # Categories and labels are no part of what is seen.
        handed = Stimuli(names[order], stimuli.pixels()[order], captions)
        with self._watched(names):
            predicted = self.recipe.encode(handed)

        rows = positions(predicted.stimuli, names, "handed picture")
        return predicted.betas[rows]

    def _names(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Order of handing over, and the made-up name of each row in its own order."""
        named = np.random.default_rng([*self.seed, _STREAM, 0, self.handing.names])
        ordered = np.random.default_rng([*self.seed, _STREAM, 1, self.handing.order])
        token = f"{named.integers(2**32):08x}"
        order = ordered.permutation(n)  # (n,)

        # Numbered at random as well, so that the number does not tell the place where the order is kept.
        numbers = named.permutation(n)
        names = np.asarray([f"item-{token}-{number:04d}" for number in numbers], dtype=object)
        return order, names

    def _trials(self, trials: Trials, keys: Sequence[object] | None = None) -> tuple[Trials, np.ndarray]:
        """Trials as they are handed over, and the made-up name of each row of `trials`."""
        order, names = self._names(len(trials))
        if keys is None:
            keys = list(trials.stimuli)

        noise = np.empty(len(trials), dtype=object)
        for row, key in enumerate(keys):
            noise[row] = NoiseKey.of(key)

        table = pd.DataFrame({"stimulus": names[order], NOISE: noise[order]})
        for column in self.recipe.trial_columns:
            table[column] = trials.table[column].to_numpy()[order]

        betas = np.array(trials.betas[order])
        return Trials(betas, table, trials.voxels.copy(), trials.subject), names

    @contextmanager
    def _watched(self, names: np.ndarray) -> Iterator[None]:
        """Take note of opened files, and say in plain words what it means when a made-up name was looked up."""
        token = str(names[0]).rsplit("-", 1)[0]
        try:
            with recorded(self.files):
                yield
        except (KeyError, IndexError, ValueError, DataError) as error:
            if token not in str(error):
                raise

            raise ModelError(
                f"the recipe {self.recipe.config.kind} looked up the name of a test item ({error}). Test items come under "
                "names made up for the call, so that a decoder knows nothing but the response: decode from "
                "trials.betas, and draw noise by trials.noise_keys."
            ) from error

    def _restored(self, images: Images, names: np.ndarray, trials: Trials) -> Images:
        if len(images) != len(trials):
            raise ModelError(
                f"the recipe {self.recipe.config.kind} gave {len(images)} pictures for {len(trials)} test items; "
                "it must give one for each row of trials."
            )

        rows = positions(images.ids, names, "handed row")
        return Images(trials.stimuli, images.pixels[rows])


def fresh_recipe(opened: Run, fold: int) -> Recipe:
    """The fitted recipe of a fold, with nothing that earlier calls may have left in its class or module.

    Parameters
    ----------
    opened : Run
        a fitted run
    fold : int
        number of the fold, from 0

    Returns
    -------
    Recipe
        read from the stages of the run; where it comes from a plug-in, the module of the plug-in is run anew
    """
    cls = recipes.recipe(opened.config.recipe.kind)
    anew = _defined_anew(cls)
    if anew is cls:
        return opened.recipe(fold)

    return anew.load(opened.place(fold))


def _defined_anew(cls: R) -> R:
    """The class as its module defines it, without what was kept in either; the same one where that cannot be had."""
    name = cls.__module__
    before = sys.modules.get(name)
    is_ours = name.partition(".")[0] == "phosphene"
    if is_ours or before is None or name == "__main__" or "<" in cls.__qualname__:
        return cls

    spec = find_spec(name)
    if spec is None or spec.loader is None:
        return cls

    module = module_from_spec(spec)
    sys.modules[name] = module  # names in annotations are looked up there
    try:
        spec.loader.exec_module(module)
    except Exception:  # a module that can be run once only
        return cls
    finally:
        sys.modules[name] = before

    return getattr(module, cls.__qualname__, cls)
