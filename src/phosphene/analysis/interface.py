"""What every analysis is: a question to a fitted run, answered by numbers.

An analysis writes nothing, draws nothing and says nothing in sentences. It returns its findings: tables, arrays and the
facts a verdict rests on. ``phosphene.reporting.presentation`` knows which file of that room turns the findings into
sentences and figures, and ``phosphene.analyse`` files all of it in the run.

To add one, write a file like this and name it in ``phosphene.analysis.ANALYSES``::

    class ToyOptions(Config):
        n: int = Field(default=10, ge=1, description="how many")

    @dataclass(frozen=True, kw_only=True)
    class ToyFindings(Findings):
        largest: float

    class Toy(Analysis[ToyOptions]):
        name = "toy"
        title = "What a toy does"
        options_class = ToyOptions
        needs = ("decode",)

        def run(self, opened, progress):
            ...
            return ToyFindings(table=table, largest=largest)

and a function in ``reporting`` that presents it, named in ``phosphene.reporting.presentation.PRESENTERS``::

    def present(found: ToyFindings) -> Presentation:
        ...
        return Presentation(sentences, inputs={"brain": "brain"}, measures={"r": "Correlation"}, figures={...})
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import pandas as pd

from phosphene import recipes
from phosphene.errors import ConfigError
from phosphene.io.config import Config
from phosphene.io.progress import Progress
from phosphene.run import Run
from phosphene.types import digest_of

COLUMNS = ("input", "measure", "value", "ci_low", "ci_high", "n")


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """What an analysis found. Every analysis adds the facts of its own that its verdict and its figures need.

    Parameters
    ----------
    table : DataFrame
        columns ``input, measure, value, ci_low, ci_high, n``; NaN bounds where there is no interval
    tables : mapping of str to DataFrame, optional
        name of the file to any other table
    """

    table: pd.DataFrame
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What checks of validity may ask, as plain values for ``analysis.json``: no program reads a sentence."""
        return {}


OptionsT = TypeVar("OptionsT", bound=Config)


class Analysis(ABC, Generic[OptionsT]):
    """A question to a fitted run, the same for every recipe that has the arrows it needs.

    Parameters
    ----------
    options : Config, optional
        an instance of `options_class`; its defaults otherwise
    seed : int, default 0
        of everything it draws

    Attributes
    ----------
    name : str
        as in ``phosphene analyse RUN NAME``
    title : str
        what it is about, as a heading
    options_class : type of Config
        its options
    needs : tuple of str
        arrows it asks of the recipe: ``decode``, ``encode``, ``refine`` (a second stage)
    """

    name: ClassVar[str]
    title: ClassVar[str]
    options_class: ClassVar[type[Config]]
    needs: ClassVar[tuple[str, ...]] = ("decode",)

    def __init__(self, options: OptionsT | None = None, seed: int = 0) -> None:
        if options is None:
            self.options: OptionsT = self.options_class()  # type: ignore[assignment]
        else:
            self.options = options

        self.seed = seed

    @abstractmethod
    def run(self, opened: Run, progress: Progress) -> Findings:
        """Answer the question for a run. Writes nothing.

        Parameters
        ----------
        opened : Run
            a fitted run
        progress : Progress
            where progress is shown

        Returns
        -------
        Findings
            tables, and the facts that sentences and figures are made of
        """

    def rng(self, *purpose: Any) -> np.random.Generator:
        """Generator of one purpose, a function of the seed, the analysis and the purpose alone.

        Parameters
        ----------
        *purpose : Any
            words or numbers that tell this use from every other

        Returns
        -------
        numpy.random.Generator
            so that leaving out one draw moves no other
        """
        # NumPy takes a list of integers as a seed; eight hexadecimal digits of a digest are 32 bits, what it takes at once.
        entropy = [self.seed]
        for word in (self.name, *purpose):
            entropy.append(int(digest_of(word)[:8], 16))

        return np.random.default_rng(entropy)

    @classmethod
    def applies_to(cls, recipe: str) -> bool:
        """Whether a recipe, by name, has the arrows this analysis needs."""
        return not cls.missing(recipe)

    @classmethod
    def missing(cls, recipe: str) -> tuple[str, ...]:
        """Arrows this analysis needs and a recipe, by name, has not."""
        kind = recipes.recipe(recipe)
        has = {"encode": kind.can_encode(), "refine": hasattr(kind, "refine")}
        return tuple(arrow for arrow in cls.needs if not has.get(arrow, True))


def chosen_folds(opened: Run, fold: int | None) -> Sequence[int]:
    """All folds of a run, or the one asked for.

    Parameters
    ----------
    opened : Run
        a fitted run
    fold : int or None
        counted from 0; None for all

    Returns
    -------
    sequence of int
        folds, counted from 0

    Raises
    ------
    ConfigError
        When the run has no such fold.
    """
    n = len(opened.folds)
    if fold is None:
        return range(n)

    if fold >= n:
        raise ConfigError(f"there is no fold {fold}: this run has {n}, counted from 0.")

    return [fold]
