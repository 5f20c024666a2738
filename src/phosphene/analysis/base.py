"""What every analysis is, and the verb that runs one and files what it found.

::

    RUN/analysis/NAME/
      analysis.json      title, recipe, options, seed, version, words for inputs and measures, facts, captions of the figures
      summary.txt        plain sentences, one a line
      table.csv          input, measure, value, ci_low, ci_high, n
      OTHER.csv          whatever else the analysis tells
      FIGURE.png, .svg   each figure twice: for people, and for the report
      MOVING.gif         pictures that change, where there are any

To add one, write a file like this and name it in ``phosphene.analysis.ANALYSES``::

    class ToyOptions(Config):
        n: int = Field(10, ge=1, description="how many")

    class Toy(Analysis[ToyOptions]):
        name, title, options_class = "toy", "What a toy does", ToyOptions
        needs = ("decode",)

        def run(self, opened, progress):
            ...
            return Found(sentences, table, inputs={"brain": "brain"}, measures={"r": "Correlation"}, figures={...})
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from phosphene import recipes
from phosphene._version import __version__
from phosphene.analysis import analysis
from phosphene.errors import ConfigError
from phosphene.io import atomic
from phosphene.io.config import Config, flatten, resolve
from phosphene.io.folder import RunFolder
from phosphene.io.progress import Progress
from phosphene.reporting import drawing
from phosphene.run import Run
from phosphene.types import digest_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("input", "measure", "value", "ci_low", "ci_high", "n")


class Drawing(NamedTuple):
    """A figure, a text for who cannot see it, and its caption."""

    figure: Figure
    alt: str
    caption: str


class Animation(NamedTuple):
    """Pictures shown one after the other, a text for who cannot see them, and a caption.

    ``frames`` are (n, h, w, 3) uint8; each is shown for `milliseconds`, and the whole `rounds` times, so that it ends.
    """

    frames: np.ndarray
    alt: str
    caption: str
    milliseconds: int = 120
    rounds: int = 3


@dataclass(frozen=True)
class Findings:
    """What an analysis found.

    Parameters
    ----------
    sentences : sequence of str
        what the numbers allow to be said, the verdict first
    table : DataFrame
        columns ``input, measure, value, ci_low, ci_high, n``; NaN bounds where there is no interval
    inputs, measures : mapping of {str: str}
        names in the table to words, in the order shown
    figures : mapping of {str: Drawing}, optional
        name of the file to drawing
    animations : mapping of {str: Animation}, optional
        name of the file to moving pictures; they stand after the figures
    tables : mapping of {str: DataFrame}, optional
        name of the file to any other table
    notes : mapping of {str: str}, optional
        measure to what it is, for the reader of the report
    facts : mapping of {str: Any}, optional
        what the sentences tell, for programs; no program reads a sentence
    """

    sentences: Sequence[str]
    table: pd.DataFrame
    inputs: Mapping[str, str]
    measures: Mapping[str, str]
    figures: Mapping[str, Drawing] = field(default_factory=dict)
    animations: Mapping[str, Animation] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


O = TypeVar("O", bound=Config)  # noqa: E741  for options


class Analysis(ABC, Generic[O]):
    """A question to a fitted run, the same for every recipe that has the arrows it needs.

    Parameters
    ----------
    options : O, optional
        what it was told
    seed : int, default 0
        of everything it draws
    """

    name: ClassVar[str]
    title: ClassVar[str]
    options_class: ClassVar[type[Config]]
    needs: ClassVar[tuple[str, ...]] = ("decode",)
    """Arrows it asks of the recipe: ``decode``, ``encode``, ``refine`` (a second stage)."""

    def __init__(self, options: O | None = None, seed: int = 0) -> None:
        self.options: O = self.options_class() if options is None else options  # type: ignore[assignment]
        self.seed = seed

    @abstractmethod
    def run(self, opened: Run, progress: Progress) -> Findings:
        """Ask, and say what came out. Writes nothing."""

    def rng(self, *purpose: Any) -> np.random.Generator:
        """A generator of its own for each purpose, a function of the seed and nothing else."""
        return np.random.default_rng([self.seed, *(int(digest_of(p)[:8], 16) for p in (self.name, *purpose))])

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
    """All folds of a run, or the one asked for. Raises ConfigError when there is no such fold."""
    n = len(opened.folds)
    if fold is not None and fold >= n:
        raise ConfigError(f"there is no fold {fold}: this run has {n}, counted from 0.")

    if fold is None:
        return range(n)

    return [fold]


class Answer(NamedTuple):
    """Where an analysis was filed, and its sentences."""

    folder: str
    summary: str


def analyse(
    opened: Run,
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Answer:
    """Run an analysis and file what it found in ``RUN/analysis/NAME``, all of it or nothing.

    Parameters
    ----------
    opened : Run
        a fitted run
    name : str
        one of ``phosphene.analysis.ANALYSES``
    options : mapping of {str: Any}, optional
        values over the analysis's defaults
    seed : int, optional
        of everything drawn; that of the run by default
    progress : Progress, optional
        where progress is shown

    Returns
    -------
    Answer
        folder, and the sentences, one a line

    Raises
    ------
    ConfigError
        For an unknown analysis or option, or a recipe without the arrows needed.
    """
    cls = analysis(name)
    chosen, _ = resolve(cls.options_class, [("options", options or {})])
    seed = opened.config.seed if seed is None else seed
    kind = opened.config.recipe.kind

    if lacks := cls.missing(kind):
        able = [r for r in recipes.recipe_names() if cls.applies_to(r)]
        raise ConfigError(
            f"the analysis '{name}' needs a recipe that can {' and '.join(cls.needs)}, but '{kind}' cannot "
            f"{' or '.join(lacks)}. Recipes that can: {', '.join(able)}."
        )

    with opened.run.locked(f"analyse {name}"):
        found = cls(chosen, seed).run(opened, progress or Progress(quiet=True))
        folder = opened.run.path / "analysis" / name
        _write(folder, cls, chosen, seed, opened, found)
        opened.run.log("analysed", analysis=name, seed=seed)

    return Answer(str(folder), "\n".join(found.sentences))


def _write(place: Any, cls: type[Analysis], options: Config, seed: int, opened: Run, found: Findings) -> None:
    record = {
        "name": cls.name,
        "title": cls.title,
        "recipe": opened.config.recipe.kind,
        "setting": opened.config.recipe.setting,
        "options": flatten(options.model_dump(mode="json")),
        "seed": seed,
        "phosphene": __version__,
        "inputs": dict(found.inputs),
        "measures": dict(found.measures),
        "notes": dict(found.notes),
        "facts": dict(found.facts),
        "figures": [{"file": n, "alt": d.alt, "caption": d.caption} for n, d in found.figures.items()],
        "animations": [{"file": n, "alt": a.alt, "caption": a.caption} for n, a in found.animations.items()],
        "tables": ["table.csv", *(f"{n}.csv" for n in found.tables)],
    }

    with atomic.folder(place) as folder:
        files = RunFolder(folder)
        files.write_table(found.table[list(COLUMNS)], "table.csv")

        for name, table in found.tables.items():
            files.write_table(table, f"{name}.csv")

        for name, drawn in found.figures.items():
            atomic.write_bytes(folder / f"{name}.png", drawing.png(drawn.figure))
            atomic.write_text(folder / f"{name}.svg", drawing.svg(drawn.figure))

        for name, moving in found.animations.items():
            gif = drawing.gif(moving.frames, moving.milliseconds, moving.rounds)
            atomic.write_bytes(folder / f"{name}.gif", gif)

        atomic.write_text(folder / "summary.txt", "".join(f"{s}\n" for s in found.sentences))
        atomic.write_text(folder / "analysis.json", json.dumps(record, indent=2) + "\n")
