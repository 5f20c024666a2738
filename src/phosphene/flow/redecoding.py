"""The function that was scored, for the checks that try it: decode once more what is filed, by fresh copies of the recipe."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pandas as pd

from phosphene.data import registry
from phosphene.errors import ModelError, PhospheneError
from phosphene.flow.blind import BlindRecipe, Handing, fresh_recipe
from phosphene.flow.decoding import SECONDS
from phosphene.io.opened_files import OpenedFiles
from phosphene.io.run_folder import LOCK, SEEN, read_json
from phosphene.recipes.base import Recipe
from phosphene.run import TEST, Run
from phosphene.types import Images, Trials, at_size
from phosphene.validity import Redecoding

BUDGET = 20.0  # seconds for all of the checks that decode again
_PASSES = 4.0  # over the test set that these checks take
_FEWEST = 16  # items
_STREAM = 22  # of random numbers
_HALF_LEVEL = 0.5 / 255 + 1e-6  # samples but the first are kept as 8 bits


def redecoding_of(opened: Run, fitted: Sequence[Recipe], index: pd.DataFrame) -> Redecoding | None:
    """What was scored of the brain, and the function that gave it.

    All test items are decoded again where that takes less than `BUDGET` seconds, as `decode` has measured it; otherwise as
    many, drawn at random, as can be in that time. What is compared with are always the pictures that were scored, decoded
    among all others.

    Parameters
    ----------
    opened : Run
        of which the test set was decoded
    fitted : sequence of Recipe
        the recipe of each fold
    index : DataFrame
        of the decoded pictures

    Returns
    -------
    Redecoding or None
        None where the filed pictures are not those of the test trials
    """
    tests = [opened.sides(fold)[1].average_repeats() for fold in range(len(opened.folds))]
    stimuli = np.concatenate([test.stimuli for test in tests]).astype(str)
    if list(stimuli) != [str(stimulus) for stimulus in index["stimulus"]]:
        return None

    folds = np.repeat(np.arange(len(tests)), [len(test) for test in tests])  # (n_test,)
    place = np.concatenate([np.arange(len(test)) for test in tests])  # (n_test,) row of each within its fold
    record = _record(opened)
    seconds = _record(opened, SECONDS).get(
        "seconds", record.get("seconds", 0.0)
    )  # an earlier version kept it in one file
    rows = _rows_tried(len(stimuli), float(seconds), opened.config.seed)

    again = _Again(opened, tests, folds[rows], place[rows])
    again.files.read.update(record.get("read", ()))
    again.files.written.update(record.get("written", ()))
    scored = _scored(opened, rows)  # (n, n_samples, h, w, c)
    again.n_samples = scored.shape[1]

    slack = np.zeros((1, scored.shape[1], 1, 1, 1))
    slack[:, 1:] = _HALF_LEVEL
    seen = at_size(np.asarray(opened.folder.pixels(TEST, SEEN)[rows], dtype=np.float32), scored.shape[2:4])

    return Redecoding(
        np.concatenate([test.betas for test in tests])[rows],
        again.predict,
        scored,
        groups=folds[rows],
        n_items=len(stimuli),
        true=seen[:, None],
        slack=slack,
        columns=tuple(fitted[0].trial_columns),
        data_files=_data_files(opened),
        opened=again.opened_files,
    )


class _Again:
    """Decodes test items anew: each call by copies of the recipe that have decoded nothing before."""

    def __init__(self, opened: Run, tests: Sequence[Trials], folds: np.ndarray, place: np.ndarray) -> None:
        self.opened = opened
        self.tests = tests
        self.folds = folds
        self.place = place
        self.files = OpenedFiles()
        self.n_samples = 1

    def opened_files(self) -> tuple[set[str], set[str]]:
        """Files that were read and written, but for the lock by which this verb holds the run."""
        lock = {os.path.realpath(self.opened.folder.path / LOCK)}
        return self.files.read - lock, self.files.written - lock

    def predict(
        self,
        betas: np.ndarray,
        rows: np.ndarray,
        *,
        names: int = 0,
        order: int = 0,
        keys: np.ndarray | None = None,
        first: bool = False,
    ) -> np.ndarray:
        """(n, n_samples, h, w, c) pictures, 0-1; see `phosphene.validity.Predict`."""
        if keys is None:
            keys = rows

        pictures: dict[int, np.ndarray] = {}
        for fold in np.unique(self.folds[rows]):
            chosen = np.flatnonzero(self.folds[rows] == fold)  # places in `betas`
            test = self.tests[fold]
            trials = test.take(self.place[rows[chosen]]).with_betas(
                np.ascontiguousarray(betas[chosen], dtype=np.float32)
            )
            noise = test.stimuli[self.place[keys[chosen]]]

            samples = self._samples(int(fold), trials, list(noise), Handing(names, order), first)
            drawn = np.stack([images.clipped() for images in samples], axis=1)  # (n_chosen, n_samples, h, w, c)
            pictures.update(zip(chosen.tolist(), drawn, strict=True))

        return np.stack([pictures[i] for i in range(len(betas))])

    def _samples(self, fold: int, trials: Trials, keys: list[object], handing: Handing, first: bool) -> list[Images]:
        """Samples that a fresh copy draws. Raises ModelError where it cannot decode what it has decoded before."""
        recipe = fresh_recipe(self.opened, fold)
        blind = BlindRecipe(recipe, [self.opened.config.seed, fold], self.files, handing)
        try:
            if (first or self.n_samples == 1) and not recipe.chooses_sample:
                return [blind.decode(trials, keys)]

            samples = blind.decode_samples(trials, keys)
            if first:
                return samples[:1]

            return samples[: self.n_samples]
        except PhospheneError:
            raise
        except Exception as error:  # of a plug-in, which may raise anything
            raise ModelError(
                f"a fresh copy of the recipe {recipe.config.kind} stops with {type(error).__name__}: {error}. What it decodes "
                "must follow from its stages and the responses alone."
            ) from error


def _scored(opened: Run, rows: np.ndarray) -> np.ndarray:
    """(n, n_samples, h, w, c) float32: the first sample as it was scored, others as they are kept."""
    first = np.asarray(opened.folder.pixels(TEST, "brain")[rows], dtype=np.float32)
    file = opened.folder.decoded(TEST, "brain") / "samples.npy"
    if not file.is_file():
        return first[:, None]

    kept = np.load(file, mmap_mode="r", allow_pickle=False)
    samples = np.asarray(kept[rows], dtype=np.float32) / np.float32(255)
    samples[:, 0] = first

    return samples


def _record(opened: Run, name: str = "decoding.json") -> dict:
    """What `decode` noted of its own work; nothing where an earlier version decoded."""
    file = opened.folder.decoded(TEST, "brain") / name
    if not file.is_file():
        return {}

    try:
        return read_json(file)
    except PhospheneError:  # damaged: it is measured and noted anew
        return {}


def _rows_tried(n: int, seconds: float, seed: int) -> np.ndarray:
    """Rows that are decoded again: all, or a sample that keeps within the budget."""
    if seconds * _PASSES <= BUDGET:
        return np.arange(n)

    n_tried = int(n * BUDGET / (seconds * _PASSES))
    n_tried = min(n, max(_FEWEST, n_tried))
    rng = np.random.default_rng([seed, _STREAM])

    return np.sort(rng.permutation(n)[:n_tried])


def _data_files(opened: Run) -> tuple[str, ...]:
    """Where the data lie, and the true pictures that runs keep."""
    places = [opened.folder.path / "decoded", opened.folder.path / "encoded", opened.folder.path / "evaluation"]
    data = opened.config.data
    with suppress(PhospheneError):
        source = registry.locate(data.name, root=data.root)
        if not source.is_made:
            places.append(source.path)

    return tuple(os.path.realpath(place) for place in places)
