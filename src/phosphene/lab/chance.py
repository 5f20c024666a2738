"""Random numbers that never change: a hash of (seed, index, name), in integer arithmetic only.

numpy's generators may alter their streams between versions. A scene is promised to be the same picture for ever,
so its draws come from the splitmix64 finaliser (Steele, Lea and Flood 2014), whose output for a given input is
arithmetic and nothing else. Draws are named, not numbered: adding a draw to a scene leaves the others untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 0xFFFFFFFFFFFFFFFF


def mix(z: np.ndarray) -> np.ndarray:
    """The splitmix64 finaliser: uint64 in, well scrambled uint64 of the same shape out."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@lru_cache(maxsize=4096)
def _name_key(name: str) -> np.ndarray:
    key = 0xCBF29CE484222325  # FNV-1a, 64 bits
    for byte in name.encode():
        key = ((key ^ byte) * 0x100000001B3) & _MASK
    return np.array([key], dtype=np.uint64)  # an array, not a scalar: scalars warn when they wrap around


class Chance:
    """Named draws for many scenes at once.

    Parameters
    ----------
    seed : int
        integer; scenes of two seeds are unrelated
    indices : sequence of int or ndarray
        (n,) integers at least 0, the scenes' numbers

    Examples
    --------
    >>> Chance(1, [5, 6]).uniform("horizon").round(3)
    array([0.364, 0.859])
    >>> Chance(1, [6]).uniform("horizon").round(3)
    array([0.859])
    """

    def __init__(self, seed: int, indices: Sequence[int] | np.ndarray):
        start = np.array([(int(seed) * _GOLDEN + 0x632BE59BD9B4E019) & _MASK], dtype=np.uint64)
        steps = np.asarray(indices, dtype=np.int64).astype(np.uint64) * np.uint64(_GOLDEN)
        self._state = mix(mix(start) + steps)

    def __len__(self) -> int:
        return len(self._state)

    def take(self, rows: np.ndarray | slice) -> Chance:
        """The same draws for some of the scenes, given their positions or a mask."""
        part = object.__new__(Chance)
        part._state = self._state[rows]
        return part

    def bits(self, name: str) -> np.ndarray:
        """(n,) uint64, uniform."""
        return mix(self._state ^ mix(_name_key(name)))

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Uniform numbers.

        Parameters
        ----------
        name : str
            of the draw
        low, high : float
            uniform in [low, high)

        Returns
        -------
        ndarray of shape (n,), float64
        """
        # The upper 53 bits are what a float64 between 0 and 1 can hold.
        unit = (self.bits(name) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return low + (high - low) * unit

    def integer(self, name: str, count: int | np.ndarray) -> np.ndarray:
        """Uniform whole numbers.

        Parameters
        ----------
        name : str
            of the draw
        count : int or ndarray of shape (n,)
            0 .. count - 1; may differ by scene

        Returns
        -------
        ndarray of shape (n,), int64
        """
        return np.minimum((self.uniform(name) * count).astype(np.int64), np.asarray(count, dtype=np.int64) - 1)

    def weighted(self, name: str, weights: np.ndarray) -> np.ndarray:
        """One column per scene, in proportion to weights.

        Parameters
        ----------
        name : str
            of the draw
        weights : ndarray of shape (n_columns,) or (n, n_columns)
            at least 0, of any sum more than 0

        Returns
        -------
        ndarray of shape (n,), int64
        """
        weights = np.broadcast_to(weights, (len(self), np.shape(weights)[-1])).astype(np.float64)
        edges = np.cumsum(weights, axis=1)
        drawn = (self.uniform(name)[:, None] * edges[:, -1:] >= edges).sum(axis=1)
        return np.minimum(drawn, weights.shape[1] - 1)

    def happens(self, name: str, probability: float) -> np.ndarray:
        """Whether something is so.

        Parameters
        ----------
        name : str
            of the draw
        probability : float
            0-1

        Returns
        -------
        ndarray of shape (n,), bool
        """
        return self.uniform(name) < probability


def lattice(*whole: np.ndarray, salt: int = 0) -> np.ndarray:
    """A hash of integer coordinates, float32 uniform in [0, 1): what bricks, windows and waves differ by.

    Parameters
    ----------
    whole : ndarray
        integer arrays that broadcast together, one per coordinate
    salt : int, default 0
        draws of two salts are unrelated

    Returns
    -------
    ndarray
        the broadcast shape, float32
    """
    key = np.full((1,), (salt * 0x9E3779B1 + 0x85EBCA6B) & 0xFFFFFFFF, dtype=np.uint32)
    for axis in whole:
        key = key ^ (axis.astype(np.int64) & 0xFFFFFFFF).astype(np.uint32)
        key = (key ^ (key >> np.uint32(16))) * np.uint32(0x7FEB352D)
        key = (key ^ (key >> np.uint32(15))) * np.uint32(0x846CA68B)
        key = key ^ (key >> np.uint32(16))

    return (key >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
