"""Copies of pictures that were turned, mirrored, cut, recoloured or inverted: what check S2 compares beside hashes and features.

A hash knows a picture whose pixels stay in their places, and a network sees a flipped or cut picture as another. So each test
picture is compared in its eight turns and reflections, whole and cut, with training pictures whole and cut, by grey values and by
edges (which a change of colours or an inversion leaves).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from phosphene.validity.likeness import small_areas

SIDE = 32
"""Pixels of the side of the grey copies that are compared."""

LEAST = 0.95
"""Correlation below which no pair is a copy, however different training pictures are."""

_SPREADS = 4.5  # robust standard deviations above the middle of nearest neighbours in training, as artanh
_FEWEST = 10  # training pictures, of fewer of which no spread is taken
_BAR_OF_FEW = 0.97
_COMPARED = 12  # pixels of the side of a view
_MOST = 400  # training pictures whose nearest neighbours set the bar
_BLOCK = 256  # test pictures at a time
_CENTRED = (1.0, 0.95, 0.9, 0.85, 0.8)  # shares of the side that are cut out
_CORNER = 0.8  # the same of cuts that keep a corner


class AlteredCopy(NamedTuple):
    """A pair of pictures, one of which is an altered copy of the other.

    Attributes
    ----------
    row, other : int
        of the test picture, and of the training picture
    similarity : float
        correlation of the views that agree most
    how : str
        ``grey`` or ``edges``, by which they agree
    """

    row: int
    other: int
    similarity: float
    how: str


def grey_copies(pictures: np.ndarray) -> np.ndarray:
    """Small grey copies of pictures.

    Parameters
    ----------
    pictures : ndarray of shape (n, height, width, 1 or 3)
        uint8 or 0-1 floats

    Returns
    -------
    ndarray of shape (n, 32, 32), float32
        0 to 1
    """
    return small_areas(pictures, SIDE, SIDE).mean(axis=3)


def altered_copies(test: np.ndarray, train: np.ndarray, rng: np.random.Generator) -> list[AlteredCopy]:
    """Pairs of which one picture is an altered copy of the other.

    The bar lies 4.5 robust standard deviations above the middle of what training pictures have to their nearest neighbour in
    training by the same comparison, at least at `LEAST`. Copies inside training, up to a quarter of it, do not raise it.

    Parameters
    ----------
    test : ndarray of shape (n, 32, 32)
        of `grey_copies`
    train : ndarray of shape (m, 32, 32)
        of `grey_copies`
    rng : numpy.random.Generator
        draws the training pictures that set the bar, where there are many

    Returns
    -------
    list of AlteredCopy
        the most similar first
    """
    if not len(test) or not len(train):
        return []

    places = rng.permutation(len(train))[:_MOST]
    within = _nearest(train[places], train, exclude=places)
    bars = {how: _bar(values) for how, (values, _) in within.items()}
    found: dict[tuple[int, int], AlteredCopy] = {}

    for how, (values, which) in _nearest(test, train).items():
        for row in np.flatnonzero(values > bars[how]):
            one = AlteredCopy(int(row), int(which[row]), float(values[row]), how)
            earlier = found.get((one.row, one.other))
            if earlier is None or earlier.similarity < one.similarity:
                found[one.row, one.other] = one

    return sorted(found.values(), key=lambda one: (-one.similarity, one.row))


def _bar(values: np.ndarray) -> float:
    """Above it lies no nearest neighbour as training pictures have them; median and spread leave copies among them out."""
    known = values[np.isfinite(values)]
    if len(known) < _FEWEST:
        return _BAR_OF_FEW

    scale = np.arctanh(np.clip(known, -0.999, 0.9999))  # correlations near 1 lie as far apart as others
    middle = np.median(scale)
    spread = 1.4826 * np.median(np.abs(scale - middle))
    return min(0.995, max(LEAST, float(np.tanh(middle + _SPREADS * spread))))


def _nearest(
    pictures: np.ndarray, others: np.ndarray, exclude: np.ndarray | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By grey values and by edges: the largest correlation of each picture with the others (n,), and with which (n,)."""
    whole = _views(others, 1.0)
    cut = [_views(others, share, corner) for share, corner in _cuts()]
    best = {how: np.full(len(pictures), -np.inf, np.float32) for how in ("grey", "edges")}
    which = {how: np.full(len(pictures), -1) for how in best}

    for start in range(0, len(pictures), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(pictures)))
        largest = {how: np.full((len(rows), len(others)), -np.inf, np.float32) for how in best}
        for turned in _turns(pictures[rows]):
            ours = _views(turned, 1.0)
            for how, table in largest.items():
                np.maximum(table, ours[how] @ whole[how].T, out=table)
                for theirs in cut:
                    if how in theirs:
                        np.maximum(table, ours[how] @ theirs[how].T, out=table)

            for share, corner in _cuts():
                ours = _views(turned, share, corner)
                for how in ours:
                    np.maximum(largest[how], ours[how] @ whole[how].T, out=largest[how])

        for how, table in largest.items():
            if exclude is not None:
                table[np.arange(len(rows)), exclude[rows]] = -np.inf

            which[how][rows] = table.argmax(axis=1)
            best[how][rows] = table.max(axis=1)

    return {how: (best[how], which[how]) for how in best}


def _cuts() -> Iterator[tuple[float, tuple[int, int] | None]]:
    """Share of the side, and the corner that is kept (None: the centre)."""
    for share in _CENTRED[1:]:
        yield share, None

    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        yield _CORNER, corner


def _turns(pictures: np.ndarray) -> Iterator[np.ndarray]:
    """The eight turns and reflections of (n, side, side) pictures."""
    for quarter in range(4):
        turned = np.rot90(pictures, quarter, axes=(1, 2))
        yield np.ascontiguousarray(turned)
        yield np.ascontiguousarray(turned[:, :, ::-1])


def _views(pictures: np.ndarray, share: float, corner: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
    """Unit vectors (n, d) of a part of each picture by what is compared; of corners grey values alone."""
    part = _resampled(pictures, share, corner)  # (n, 24, 24)
    views = {"grey": _unit(_halved(part))}
    if corner is None:
        down, across = np.gradient(part, axis=(1, 2))
        views["edges"] = _unit(_halved(np.hypot(down, across)))

    return views


def _resampled(pictures: np.ndarray, share: float, corner: tuple[int, int] | None) -> np.ndarray:
    """(n, 24, 24) float32 values of a square part, each the mean of an area."""
    side = pictures.shape[1]
    length = share * side
    if corner is None:
        start = ((side - length) / 2, (side - length) / 2)
    else:
        start = (corner[0] * (side - length), corner[1] * (side - length))

    rows = _area_weights(side, start[0], length)  # (24, side)
    columns = _area_weights(side, start[1], length)
    along = np.tensordot(pictures, columns, axes=(2, 1))  # (n, side, 24)
    return np.tensordot(along, rows, axes=(1, 1)).transpose(0, 2, 1).astype(np.float32)  # (n, 24, 24)


def _area_weights(side: int, start: float, length: float) -> np.ndarray:
    """(24, side) weights of pixels in the means of 24 equal parts of a stretch."""
    n = 2 * _COMPARED
    edges = start + length * np.arange(n + 1) / n
    low = np.maximum(edges[:-1, None], np.arange(side))
    high = np.minimum(edges[1:, None], np.arange(1, side + 1))
    weights = np.maximum(high - low, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _halved(values: np.ndarray) -> np.ndarray:
    """(n, 24, 24) as means of 2 x 2 values, (n, 144)."""
    n = len(values)
    return values.reshape(n, _COMPARED, 2, _COMPARED, 2).mean(axis=(2, 4)).reshape(n, -1)


def _unit(values: np.ndarray) -> np.ndarray:
    """Rows without their mean, of length 1; zero where a picture is nearly even."""
    values = values - values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.where(length > 0.1, values / np.maximum(length, 1e-12), 0).astype(np.float32)
