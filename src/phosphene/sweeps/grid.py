"""A sweep file, and the runs it asks for. Reading it fits nothing; every run is resolved before the first one starts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from phosphene import flow
from phosphene.errors import ConfigError
from phosphene.io.atomic import checked_path
from phosphene.io.config import Config, flatten, read_yaml, validate
from phosphene.types import digest_of

Axis = dict[str, list[Any]]
_LONGEST_NAME = 90


class GridFile(Config):
    """Contents of a sweep file; `configs/README.md` explains it with examples."""

    title: str = Field("", description="what is asked")
    recipe: str | None = Field(None, description="name of the recipe, where no axis says it")
    base: dict[str, Any] = Field(default_factory=dict, description="values all runs share")
    grid: list[Axis] = Field(description="axes: keys to lists of equal length; keys of one axis move together")
    crossed: bool = Field(False, description="every combination of points, or the base and each point alone")
    repeat: list[Axis] = Field(default_factory=list, description="axes crossed with all of this: seeds, subjects")
    controls: list[str] | None = Field(
        None, description="control inputs that are decoded too; those of a run if not set"
    )
    analyses: list[str] = Field(default_factory=list, description="asked of every run that can answer")
    metrics: list[str] = Field(
        default_factory=list,
        description="shown, the most important first: METRIC, INPUT:METRIC, with a * at its end all that start so",
    )

    @model_validator(mode="after")
    def _axes_are_even(self) -> Self:
        for axis in [*self.grid, *self.repeat]:
            lengths = {key: len(values) for key, values in axis.items()}
            if not lengths or len(set(lengths.values())) != 1 or not min(lengths.values()):
                raise ValueError(f"the keys of one axis need lists of equal length, at least 1, but have {lengths}")

        crossed = [*(self.grid if self.crossed else []), *self.repeat]
        keys = [key for axis in crossed for key in axis]
        twice = sorted({k for k in keys if keys.count(k) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} stands in two axes that are crossed")
        if any("label" in axis for axis in self.repeat):
            raise ValueError("a label names a point of the grid, not a repetition")

        science = [axis for axis in self.grid if any(not is_data(k) for k in axis)]
        if self.crossed and len(science) > 1 and any("label" in axis for axis in science):
            raise ValueError("a label stands for all that a point sets but its data, so no second axis may set more")

        return self


@dataclass(frozen=True)
class Point:
    """One place in the grid. Several points may lie on the same run.

    Parameters
    ----------
    axis : int
        number of the axis that is moved; -1 for the base, and where axes are crossed
    sets : mapping of str to Any
        what is set over the base
    repeat : mapping of str to Any
        which repetition
    run : str
        name of the run's folder
    """

    axis: int
    sets: Mapping[str, Any]
    repeat: Mapping[str, Any]
    run: str

    @property
    def label(self) -> str:
        """What this point sets, as people read it; "base" where that is nothing."""
        parts = []
        for key, value in _named_by(self.sets):
            if key == "label":
                parts.append(value)
            else:
                parts.append(f"{_short(key)} {value_words(value)}")

        return ", ".join(parts) or "base"


@dataclass(frozen=True)
class Planned:
    """One run: its configuration, and where each value came from."""

    name: str
    config: flow.RunConfig
    origins: Mapping[str, str]


@dataclass(frozen=True)
class SweepGrid:
    """A sweep file with every run resolved.

    Attributes
    ----------
    file : GridFile
        its contents
    points : sequence of Point
        in the order of the file
    runs : mapping of str to Planned
        by name, each once
    """

    file: GridFile
    points: Sequence[Point]
    runs: Mapping[str, Planned]


def read_grid(path: str | Path, layers: Sequence[tuple[str, Mapping[str, Any]]] = ()) -> SweepGrid:
    """Read a sweep file.

    Parameters
    ----------
    path : str or Path
        YAML file
    layers : sequence of tuple of (str, mapping of str to Any), default ()
        (origin, values) laid over the base of the file, under what the axes set

    Returns
    -------
    SweepGrid
        every point and every run; points that ask for the same run share it

    Raises
    ------
    ConfigError
        For an unknown key, an uneven axis, or a point that is no valid run; the message names the point.
    """
    path = checked_path(path)
    content = read_yaml(path)
    file = validate(GridFile, content, str(path))

    places: list[tuple[int, dict[str, Any]]]
    if file.crossed:
        places = [(-1, _joined(chosen)) for chosen in product(*map(_places, file.grid))]
    else:
        # Where each axis names recipes and nothing else does, there is no base to run.
        every_axis_names_one = all("recipe" in axis or "config" in axis for axis in file.grid)
        if file.recipe is None and every_axis_names_one:
            base = []
        else:
            base = [(-1, {})]

        places = [*base, *((n, place) for n, axis in enumerate(file.grid) for place in _places(axis))]

    points: list[Point] = []
    runs: dict[str, Planned] = {}  # by digest: a point that leaves everything as another has it is that run

    for repeat in map(_joined, product(*map(_places, file.repeat))):
        for axis, sets in places:
            planned = _planned(file, path, sets, repeat, layers)
            planned = runs.setdefault(planned.name.rpartition("-")[2], planned)
            points.append(Point(axis, sets, repeat, planned.name))

    return SweepGrid(file, points, {planned.name: planned for planned in runs.values()})


def _places(axis: Axis) -> list[dict[str, Any]]:
    return [dict(zip(axis, values, strict=True)) for values in zip(*axis.values(), strict=True)]


def _joined(places: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: value for place in places for key, value in place.items()}


def _planned(
    file: GridFile,
    path: Path,
    sets: Mapping[str, Any],
    repeat: Mapping[str, Any],
    layers: Sequence[tuple[str, Mapping[str, Any]]],
) -> Planned:
    """The run of a point, with a name that says what it sets and a digest of all that decides its results."""
    values = {key: value for key, value in {**sets, **repeat}.items() if key != "label"}
    point = ", ".join(f"{key}={value_words(value)}" for key, value in values.items())
    where = f"{path}, point '{point or 'base'}'"
    recipe = values.pop("recipe", file.recipe)
    extra = values.pop("config", None)

    if _is_file(recipe):
        if extra is not None:
            raise ConfigError(f"{where}: both 'recipe' and 'config' name a file; name one.")

        extra = recipe
        recipe = None

    stack = [("sweep", file.base), *layers]
    if extra is not None:
        values_of_file = read_yaml(path.parent / str(extra))
        recipe = flatten(values_of_file).get("recipe.kind", recipe)
        stack.append((str(extra), values_of_file))

    if recipe is None:
        if extra:
            asked = f"write recipe.kind into {extra}, or set 'recipe'"
        else:
            asked = "set 'recipe'"

        raise ConfigError(f"{where}: no recipe is named; {asked} at the top of the sweep or in an axis.")

    try:
        config, origins = flow.configure(str(recipe), [*stack, ("point", values)])
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error

    # Controls and analyses belong to it as well: a run is done when all that was asked is there.
    digest = digest_of(config.recipe.kind, config.model_dump(mode="json"), [file.controls, file.analyses])[:8]
    return Planned(f"{_name(sets, repeat)}-{digest}", config, origins)


def is_data(key: str) -> bool:
    """Whether a key says what is decoded, not how: points that differ in it are not compared."""
    return key == "split" or key.startswith("data.")


def _named_by(sets: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What a point is called by: its label and its data, or all it sets where it has no label."""
    if "label" not in sets:
        return list(sets.items())

    return [(key, value) for key, value in sets.items() if key == "label" or is_data(key)]


def _name(sets: Mapping[str, Any], repeat: Mapping[str, Any]) -> str:
    """Name of a run's folder without its digest, of characters that every file system and shell takes."""
    parts = []
    for key, value in [*_named_by(sets), *repeat.items()]:
        if key == "label":
            parts.append(value)
        else:
            parts.append(f"{_short(key)}={value_words(value)}")

    name = ",".join(parts or ["base"])
    return re.sub(r"[^A-Za-z0-9=.,_-]+", "-", name)[:_LONGEST_NAME].strip("-,.")


def _short(key: str) -> str:
    if key in ("recipe", "config", "seed"):
        return key

    return key.removeprefix("recipe.")


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and value.endswith((".yaml", ".yml"))


def value_words(value: Any) -> str:
    """A value of a point as labels have it."""
    if isinstance(value, Mapping):
        return str(value.get("kind", "; ".join(f"{k} {v}" for k, v in value.items())))
    if _is_file(value):
        return Path(value).stem
    if value is None:
        return "none"

    return str(value)
