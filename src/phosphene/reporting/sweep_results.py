"""What the page of a sweep is made of: plain data, gathered by ``phosphene.sweeps`` and handed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from phosphene.data.oracle import BestLinear
from phosphene.metrics.statistics import Interval


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes
    ----------
    folder : Path
        where it lies
    is_done : bool
        whether everything asked of it is there
    failure : str
        why it is missing; ``""`` where nothing failed
    best : BestLinear or None
        what can be reached on its data, where that is known
    correlation : Interval or None
        pixel correlation over its test pictures, where there is a best to compare it with and the pictures are there
    """

    folder: Path
    is_done: bool
    failure: str = ""
    best: BestLinear | None = None
    correlation: Interval | None = None


@dataclass(frozen=True)
class SweepPoint:
    """One place in the grid, as the page speaks of it.

    Attributes
    ----------
    axis : int
        number of the axis that is moved; -1 for the base, and where axes are crossed
    label : str
        what it sets
    block : str
        what it was tested on, where crossed axes vary that
    within : str
        what it sets beside that
    repetition : str
        which repetition it belongs to, such as ``seed 3``; ``""`` where nothing is repeated
    run : str
        name of its run
    """

    axis: int
    label: str
    block: str
    within: str
    repetition: str
    run: str


@dataclass(frozen=True)
class SweepScale:
    """What stands on one axis of a figure.

    Attributes
    ----------
    keys : tuple of str
        what is moved; none where axes are crossed
    values : mapping of {str: object}
        label of a point to its value; a number where the axis is one of numbers
    """

    keys: tuple[str, ...]
    values: Mapping[str, object]


@dataclass(frozen=True)
class SweptKey:
    """A key of the sweep file with its values.

    Attributes
    ----------
    key : str
        of a configuration
    values : str
        as people read them, each once
    is_repeated : bool
        whether it makes repetitions rather than points
    """

    key: str
    values: str
    is_repeated: bool


@dataclass(frozen=True, eq=False)
class SweepResults:
    """A sweep with its tables.

    Attributes
    ----------
    title : str
        of the page
    out : Path
        folder of the sweep
    command : str
        that makes it
    is_crossed : bool
        whether every combination of points was run
    keys : sequence of SweptKey
        what was varied
    base : mapping of {str: object}
        values that all runs share
    points : sequence of SweepPoint
        in the order of the file
    runs : mapping of {str: SweepRun}
        by name
    columns : sequence of tuple of (str, str)
        (input, metric) to show, the most important first
    scales : mapping of {int: SweepScale}
        axis to what stands on it
    scores : DataFrame
        points.csv: a row per point, input and metric
    summary : DataFrame
        summary.csv: the same over repetitions, with differences from the base
    """

    title: str
    out: Path
    command: str
    is_crossed: bool
    keys: Sequence[SweptKey]
    base: Mapping[str, object]
    points: Sequence[SweepPoint]
    runs: Mapping[str, SweepRun]
    columns: Sequence[tuple[str, str]]
    scales: Mapping[int, SweepScale]
    scores: pd.DataFrame
    summary: pd.DataFrame
