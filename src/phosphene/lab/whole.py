"""Whole numbers that a study is made from, within their bounds or refused with advice."""

from __future__ import annotations

from operator import index
from typing import Any

from phosphene.errors import ConfigError

MOST_PICTURES = 200_000
"""Training pictures, and test pictures, of one study at most: the numbers of the scenes of every person and side stay apart."""

MOST_VOXELS = 50_000
"""Voxels of one person at most, several times those of a visual cortex at 7 T."""

MOST_PEOPLE = 999
"""Numbers of the people of one world: 1 to so many."""


def whole(name: str, value: Any, low: int, high: int | None = None, advice: str = "") -> int:
    """A whole number as an int.

    Parameters
    ----------
    name : str
        how the user calls it
    value : Any
        what came; any integer, of numpy too
    low : int
        bounds, which belong to the range; None: no upper one
    high : int, optional
        see `low`
    advice : str, default ""
        what to do, a sentence

    Raises
    ------
    ConfigError
        when it is not whole or out of range

    Examples
    --------
    >>> whole("n_train", 600, 1)
    600
    """
    if high is None:
        bounds = f"at least {low}"
    else:
        bounds = f"from {low:,} to {high:,}"

    try:
        number = index(value)
    except TypeError:
        number = None

    if number is None or number < low or (high is not None and number > high):
        raise ConfigError(f"{name} must be a whole number {bounds}; got {value!r}. {advice}".rstrip())
    return number
