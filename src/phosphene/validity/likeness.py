"""What stimuli look like: a hash of each picture, and what a network sees in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from phosphene.errors import DataError

SAME = 4  # bits of 64 in which hashes of near copies may differ
_BLOCK = 512  # rows at a time, so that a product with 73,000 others takes 150 MB


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
    grey : ndarray of shape (n, 32, 32), optional
        small grey copies, by which altered copies are found (`phosphene.validity.altered_copies`)
    """

    ids: np.ndarray
    hashes: np.ndarray
    features: np.ndarray
    space: str
    grey: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.hashes) == len(self.features):
            raise DataError(
                f"{len(self.ids)} stimuli came with {len(self.hashes)} hashes and {len(self.features)} rows of features."
            )

    @cached_property
    def units(self) -> np.ndarray:
        """(n, d) float32: features without what all pictures share, each of length 1; NaN where unknown."""
        x = np.asarray(self.features, dtype=np.float32).reshape(len(self.features), -1)  # (n, d)
        known = np.isfinite(x).all(axis=1)

        # Features of a network point mostly the same way: without this the cosine of any two pictures is near 1.
        if known.any():
            x = x - x[known].mean(axis=0)

        length = np.linalg.norm(x, axis=1, keepdims=True)  # (n, 1)
        with np.errstate(invalid="ignore"):
            return np.where(length > 0, x / np.maximum(length, 1e-12), 0).astype(np.float32)

    def rows(self, ids: Iterable, *, seen: bool = False) -> np.ndarray:
        """Rows of these stimuli, those without an entry left out.

        Parameters
        ----------
        ids : iterable
            stimulus ids
        seen : bool, default False
            leave out those without features as well

        Returns
        -------
        ndarray of shape (n_known,)
            row numbers, in the order of `ids`
        """
        row_of = self._row_of
        known = [row_of[name] for name in map(str, ids) if name in row_of]
        rows = np.asarray(known, dtype=np.intp)  # an empty list would be floats
        if seen:
            return rows[np.isfinite(self.units[rows]).all(axis=1)]
        return rows

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {str(name): row for row, name in enumerate(self.ids)}


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
    small = small_areas(pictures, 8, 9).mean(axis=3)  # (n, 8, 9)

    # A hair's breadth, so that rounding in a flat area is no edge.
    bits = (np.diff(small, axis=2) > 1e-4).reshape(len(small), 64)

    # Big-endian, so that the same picture has the same number on every machine.
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def thumbnails(pictures: np.ndarray, side: int = 16) -> np.ndarray:
    """Small copies of pictures as features, where no network knows such pictures.

    Parameters
    ----------
    pictures : ndarray of shape (n, height, width, 1 or 3)
        uint8 or 0-1 floats
    side : int, default 16
        of a copy, in pixels

    Returns
    -------
    ndarray of shape (n, side * side * channels), float32
        0 to 1
    """
    small = small_areas(pictures, side, side)
    return small.reshape(len(small), -1)


def small_areas(pictures: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pictures at a small size, each value the weighted mean of an area.

    Parameters
    ----------
    pictures : ndarray of shape (n, rows, columns, channels)
        uint8 or 0-1 floats
    height, width : int
        of the result

    Returns
    -------
    ndarray of shape (n, height, width, channels), float32
        0 to 1
    """
    from PIL import Image

    pictures = np.asarray(pictures)
    if pictures.dtype == np.uint8:
        scale = np.float32(255)
    else:
        scale = np.float32(1)

    resized = np.empty((len(pictures), height, width, pictures.shape[3]), dtype=np.float32)

    # Channel by channel, as floats: pillow rounds colour pictures to whole numbers.
    for picture, small in zip(pictures, resized, strict=True):
        for c in range(pictures.shape[3]):
            plane = Image.fromarray(np.ascontiguousarray(picture[:, :, c], dtype=np.float32) / scale)
            small[:, :, c] = np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR))

    return resized


def nearest(units: np.ndarray, others: np.ndarray, allowed=None) -> tuple[np.ndarray, np.ndarray]:
    """Largest cosine of each row to the others, and which it is.

    Parameters
    ----------
    units : ndarray of shape (n, d)
        unit vectors
    others : ndarray of shape (m, d)
        unit vectors
    allowed : callable, optional
        of row numbers (k,) to a (k, m) bool array: which pairs count; all by default

    Returns
    -------
    cosine : ndarray of shape (n,), float32
        of the nearest; -inf where none is allowed
    which : ndarray of shape (n,)
        row of `others`; -1 where none is allowed
    """
    best = np.full(len(units), -np.inf, dtype=np.float32)
    which = np.full(len(units), -1)

    for start in range(0, len(units), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(units)))
        cosine = units[rows] @ others.T  # (len(rows), m)
        if allowed is not None:
            cosine[~allowed(rows)] = -np.inf

        if cosine.shape[1]:
            which[rows] = cosine.argmax(axis=1)
            best[rows] = cosine[np.arange(len(rows)), which[rows]]

    which[~np.isfinite(best)] = -1  # argmax of a row of -inf, or one with NaN, names a row all the same
    return best, which


def copies(hashes: np.ndarray, others: np.ndarray) -> list[tuple[int, int, int]]:
    """Every pair whose hashes differ in four bits or fewer.

    Parameters
    ----------
    hashes : ndarray of shape (n,), uint64
        from `difference_hashes`
    others : ndarray of shape (m,), uint64
        from `difference_hashes`

    Returns
    -------
    list of tuple
        row of `hashes`, row of `others`, bits that differ
    """
    pairs = []
    for start in range(0, len(hashes), _BLOCK):
        bits = np.bitwise_count(hashes[start : start + _BLOCK, None] ^ others[None, :])  # (up to 512, m)
        for row, other in np.argwhere(bits <= SAME):
            pairs.append((start + int(row), int(other), int(bits[row, other])))

    return pairs
