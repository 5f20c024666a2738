"""What stimuli look like: a hash of each picture, and what a network sees in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from phosphene.errors import DataError

SAME = 4  # bits of 64 in which hashes of near copies may differ
_BLOCK = 512


@dataclass(frozen=True, eq=False)
class Likeness:
    """Hashes and features of stimuli, training and test together.

    Parameters
    ----------
    ids : ndarray of shape (n,)
        stimulus ids
    hashes : ndarray of shape (n,), uint64
        see `difference_hashes`
    features : ndarray of shape (n, d)
        what a network sees; rows of NaN for stimuli that were not shown to it
    space : str
        name of the network, or ``pixels``
    """

    ids: np.ndarray
    hashes: np.ndarray
    features: np.ndarray
    space: str

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.hashes) == len(self.features):
            raise DataError(
                f"{len(self.ids)} stimuli came with {len(self.hashes)} hashes and {len(self.features)} rows of features."
            )

    @cached_property
    def units(self) -> np.ndarray:
        """(n, d) float32: features without what all pictures share, each of length 1; NaN where unknown."""
        x = np.asarray(self.features, dtype=np.float32).reshape(len(self.features), -1)
        known = np.isfinite(x).all(axis=1)
        if known.any():
            x = x - x[known].mean(axis=0)

        length = np.linalg.norm(x, axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            return np.where(length > 0, x / np.maximum(length, 1e-12), 0).astype(np.float32)

    def rows(self, ids: Iterable, *, seen: bool = False) -> np.ndarray:
        """Rows of these stimuli, those without an entry (or, with `seen`, without features) left out."""
        at = self._where
        found = np.asarray([at[i] for i in map(str, ids) if i in at], dtype=np.intp)
        if seen:
            return found[np.isfinite(self.units[found]).all(axis=1)]

        return found

    @cached_property
    def _where(self) -> dict[str, int]:
        return {str(i): n for n, i in enumerate(self.ids)}


def difference_hashes(pictures: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each picture that small changes of size, brightness and compression leave nearly as it is.

    A grey picture of 8 x 9 areas; a bit says whether an area is brighter than the one to its left.

    Parameters
    ----------
    pictures : ndarray of shape (n, height, width, 1 or 3)
        uint8 or 0-1 floats

    Returns
    -------
    ndarray of shape (n,), uint64
        pictures whose hashes differ in four bits or fewer are likely copies, unless they are nearly empty

    Examples
    --------
    >>> ramp = np.tile(np.linspace(0, 1, 18), (16, 1))[None, :, :, None]
    >>> int(np.bitwise_count(difference_hashes(ramp))[0])
    64
    """
    small = _areas(pictures, 8, 9).mean(axis=3)
    # A hair's breadth, so that rounding in a flat area is no edge.
    bits = (np.diff(small, axis=2) > 1e-4).reshape(len(small), 64)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def thumbnails(pictures: np.ndarray, side: int = 16) -> np.ndarray:
    """Pictures as (n, side * side * channels) features, where no network knows such pictures."""
    small = _areas(pictures, side, side)
    return small.reshape(len(small), -1)


def _areas(pictures: np.ndarray, height: int, width: int) -> np.ndarray:
    from PIL import Image

    pictures = np.asarray(pictures)
    if pictures.dtype == np.uint8:
        scale = np.float32(255)
    else:
        scale = np.float32(1)

    out = np.empty((len(pictures), height, width, pictures.shape[3]), dtype=np.float32)
    for picture, small in zip(pictures, out, strict=True):
        for c in range(pictures.shape[3]):
            plane = Image.fromarray(np.ascontiguousarray(picture[:, :, c], dtype=np.float32) / scale)
            small[:, :, c] = np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR))

    return out


def nearest(units: np.ndarray, others: np.ndarray, allowed=None) -> tuple[np.ndarray, np.ndarray]:
    """Largest cosine of each row to the others, and which it is; -1 where none is allowed.

    Parameters
    ----------
    units, others : ndarray
        (n, d), (m, d) unit vectors
    allowed : (rows) -> (len(rows), m) bool, which pairs count; all by default
    """
    best = np.full(len(units), -np.inf, dtype=np.float32)
    which = np.full(len(units), -1)

    for start in range(0, len(units), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(units)))
        cosine = units[rows] @ others.T
        if allowed is not None:
            cosine[~allowed(rows)] = -np.inf

        if cosine.shape[1]:
            which[rows] = cosine.argmax(axis=1)
            best[rows] = cosine[np.arange(len(rows)), which[rows]]

    which[~np.isfinite(best)] = -1
    return best, which


def copies(hashes: np.ndarray, others: np.ndarray) -> list[tuple[int, int, int]]:
    """(row, row of the others, bits that differ) of every pair whose hashes differ in four bits or fewer."""
    found = []
    for start in range(0, len(hashes), _BLOCK):
        bits = np.bitwise_count(hashes[start : start + _BLOCK, None] ^ others[None, :])
        found += [(start + int(a), int(b), int(bits[a, b])) for a, b in np.argwhere(bits <= SAME)]

    return found
