"""The in-silico lab as a data set: ``--data insilico``, simulated when opened, nothing on the disk."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from phosphene.data.findings import Finding
from phosphene.data.oracle import BestLinear
from phosphene.data.reader import ReaderOptions, about
from phosphene.errors import DataError, did_you_mean
from phosphene.lab.scene_prompts import NOUNS
from phosphene.lab.whole import MOST_PICTURES, MOST_VOXELS
from phosphene.types import Dataset, Split, Stimuli, Trials

if TYPE_CHECKING:
    from phosphene.lab.lab import Simulation

SUBJECTS = tuple(f"sub-{i:02d}" for i in range(1, 9))
"""Names of the people of the lab; each is made when asked for."""

_ORACLE_PICTURES = 600
"""Training pictures at most that the best linear decoder is computed from: a second of work."""

_SIZES = {
    "small": {"n_train": 200, "n_test": 30, "n_voxels": 400},
    "full": {"n_train": 600, "n_test": 60, "n_voxels": 1000},
}


class InSilicoOptions(ReaderOptions):
    """What is simulated. Everything follows from these and nothing else."""

    design: Literal["nsd", "god", "bold5000", "clusters"] = Field(default="nsd", description="which study is imitated")
    size: Literal["small", "full"] = Field(
        default="full", description="small: a first look; the numbers below override it"
    )
    n_train: int | None = Field(
        default=None, ge=1, le=MOST_PICTURES, description="training pictures; 600, or 200 when small"
    )
    n_test: int | None = Field(default=None, ge=1, le=MOST_PICTURES, description="test pictures; 60, or 30 when small")
    n_voxels: int | None = Field(
        default=None, ge=50, le=MOST_VOXELS, description="voxels of each person; 1,000, or 400 when small"
    )
    n_subjects: int = Field(default=1, ge=1, le=len(SUBJECTS), description="people; insilico:sub-03 opens one alone")
    train_repeats: int | None = Field(
        default=None, ge=1, description="showings of a training picture; as in the study imitated"
    )
    test_repeats: int | None = Field(
        default=None, ge=1, description="showings of a test picture; as in the study imitated"
    )
    pixels: int = Field(default=32, ge=16, le=512, description="side of a picture")
    snr: Literal["nsd", "3t"] | None = Field(default=None, description="scanner; as in the study imitated")
    seed: int = Field(default=0, ge=0, lt=2**31, description="of the world: scenes, people, order of trials, noise")

    @field_validator("size", mode="before")
    @classmethod
    def _is_no_side(cls, value: Any) -> Any:
        if isinstance(value, int):
            raise ValueError(
                f"should be small or full, how much is simulated; for pictures of {value} x {value} say pixels={value}"
            )

        return value

    def values(self, subject: str) -> dict[str, Any]:
        """Arguments of `make` for one person; a number that was given goes before that of the size."""
        values: dict[str, Any] = {"name": self.design}
        for key, default in _SIZES[self.size].items():
            values[key] = getattr(self, key) or default
        values["train_repeats"] = self.train_repeats
        values["test_repeats"] = self.test_repeats
        values["subject"] = SUBJECTS.index(subject) + 1
        values["seed"] = self.seed
        values["size"] = self.pixels
        values["snr"] = self.snr
        return values


def simulation(options: InSilicoOptions | None = None, subject: str = SUBJECTS[0]) -> Simulation:
    """What the data set is made from, with everything that is true of it.

    Parameters
    ----------
    options : InSilicoOptions, optional
        as given to the reader
    subject : str, optional
        ``sub-01`` to ``sub-08``

    Returns
    -------
    Simulation
        the same object for the same arguments while it is remembered
    """
    if subject not in SUBJECTS:
        raise DataError(f"insilico has no subject '{subject}'. {did_you_mean(subject, SUBJECTS)}")
    return _made(tuple(sorted((options or InSilicoOptions()).values(subject).items())))


@lru_cache(maxsize=4)
def _made(arguments: tuple[tuple[str, Any], ...]) -> Simulation:
    """Simulate, and remember the last four: readers, oracles and checks ask for the same one in turn."""
    from phosphene.lab.lab import make

    return make(**dict(arguments))


class InSilico:
    """Reader of the in-silico lab."""

    title: ClassVar[str] = "Simulated visual cortex with known noise ceilings, and pictures with captions"
    citation: ClassVar[str] = ""
    licence: ClassVar[str] = "BSD-3-Clause, as phosphene"
    url: ClassVar[str] = ""
    files: ClassVar[str] = ""
    options: ClassVar[type[ReaderOptions]] = InSilicoOptions

    def find(self, root: Path) -> Path:
        """Nothing is needed on the disk."""
        return root

    def subjects(self, path: Path, options: InSilicoOptions) -> tuple[str, ...]:
        """The people that the options ask for.

        Parameters
        ----------
        path : Path
            not used
        options : InSilicoOptions
            how many
        """
        return SUBJECTS[: options.n_subjects]

    def load(self, path: Path, options: InSilicoOptions, subject: str | None = None) -> Dataset:
        """Simulate.

        Parameters
        ----------
        path : Path
            not used
        options : InSilicoOptions
            what is simulated
        subject : str, optional
            one person alone; otherwise the first `n_subjects`

        Returns
        -------
        Dataset
            Dataset with one split, named after the design. ``noise_ceiling`` of the voxels is exact, for one trial
            standardised within its session.

        Raises
        ------
        DataError
            For a person the lab does not have.
        """
        if subject is None:
            names = self.subjects(path, options)
        else:
            names = (subject,)

        made = []
        people = {}
        for name in names:
            simulated = simulation(options, name)
            made.append(simulated)
            people[name] = _trials(name, simulated)

        split = _joined([simulated.split for simulated in made])
        note = "simulated; nothing here was measured on a person"

        return Dataset(
            f"insilico-{options.design}",
            _stimuli(made),
            people,
            {split.name: split},
            about(self, note=note),
            NOUNS,
        )

    def oracle(
        self,
        path: Path,
        options: InSilicoOptions,
        subject: str,
        *,
        split: str | None = None,
        averaged: bool = True,
    ) -> BestLinear | None:
        """The best linear decoder of the pixels of the test pictures, in closed form.

        Parameters
        ----------
        path : Path
            not used
        options : InSilicoOptions
            what is simulated
        subject : str
            one person
        split : str, optional
            name of the split in use; the design's own by default
        averaged : bool, default True
            whether the mean over all showings of a test picture is decoded, or one response

        Returns
        -------
        BestLinear or None
            None for a split that is not the design's own

        Raises
        ------
        DataError
            For a person the lab does not have.
        """
        if split not in (None, options.design):
            return None

        # Learned from the training pictures' signal, as a decoder would be, and scored where no picture was learned.
        made = simulation(options, subject)
        is_test = made.design.is_test
        learned = np.flatnonzero(~is_test)[:_ORACLE_PICTURES]
        pixels = made.images.reshape(len(made.images), -1) / 255  # (n_stimuli, n_pixels)

        showings = 1
        if averaged:
            showings = int(made.design.shown[is_test].max())
        decoder = made.subject.bayes_linear(made.signal[learned], pixels[learned], showings)
        on_test = decoder.expected(made.signal[is_test], pixels[is_test])

        return BestLinear(
            subject,
            float(on_test.correlation.mean()),
            float(decoder.learned.correlation.mean()),
            showings,
            len(learned),
        )

    def check(self, path: Path, options: InSilicoOptions) -> list[Finding]:
        """Nothing on the disk can be wrong.

        Parameters
        ----------
        path : Path
            not used
        options : InSilicoOptions
            what is simulated

        Returns
        -------
        list of Finding
            one, with the sizes
        """
        made = options.values(SUBJECTS[0])
        detail = (
            f"simulated when opened: design {options.design}, {made['n_train']} training and {made['n_test']} test "
            f"pictures, {made['n_voxels']} voxels, seed {options.seed}."
        )

        return [Finding("ok", "simulation", detail)]


def _trials(name: str, made: Simulation) -> Trials:
    """Trials of one person, with notes on how they were made."""
    note = {"simulated": made.name, "unit": "percent signal change", "snr": made.subject.snr}
    return Trials(made.betas, made.trials, made.voxels, name, note)


def _joined(splits: list[Split]) -> Split:
    """One split for all: the people share the test pictures, and each trains on pictures of its own."""
    train: dict[str, None] = {}  # in order, each once
    test: dict[str, None] = {}
    for split in splits:
        train |= dict.fromkeys(split.train)
        test |= dict.fromkeys(split.test)
    first = splits[0]
    return Split(first.name, tuple(train), tuple(test), "stimulus", first.category_disjoint, first.note)


def _stimuli(made: list[Simulation]) -> Stimuli:
    """What all people saw, each picture once, in the order in which it first comes."""
    ids = np.concatenate([simulated.ids for simulated in made])
    images = np.concatenate([simulated.images for simulated in made])
    labels = pd.concat([simulated.labels for simulated in made], ignore_index=True)
    category = np.concatenate([simulated.category for simulated in made])
    captions = []
    for simulated in made:
        captions.extend(simulated.captions)

    # unique() sorts by name; sorting the rows brings the order of the pictures back.
    _, first = np.unique(ids.astype(str), return_index=True)
    first = np.sort(first)
    captions_of_first = tuple(tuple(captions[row]) for row in first)
    return Stimuli(ids[first], images[first], captions_of_first, labels.iloc[first], category[first])
