"""What makes a drawn picture independent of its batch: noise of its own, and batches that are always full.

A picture is a function of the weights, the seed and its stimulus id, not of which other stimuli are asked for or of their
order. Two things would break this promise: one stream of noise for all pictures, and batches of different sizes, since
matrix products of another size are summed in another order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from phosphene.types.identity import NoiseKey

__all__ = ["full_batches", "group_noise", "picture_rng"]


def picture_rng(seed: int, stimulus: Any, part: int) -> np.random.Generator:
    """Where the noise of one part of one picture comes from: a function of its arguments and nothing else.

    Parameters
    ----------
    seed : int
        of all noise
    stimulus : Any
        id of the picture, or its `NoiseKey`
    part : int
        what the noise is for, counted from 0: a sample, a group of latents, a step of a pipeline

    Returns
    -------
    numpy.random.Generator
        at its beginning

    Examples
    --------
    >>> picture_rng(0, "dog", 0).random() == picture_rng(0, "dog", 0).random()
    True
    >>> picture_rng(0, "dog", 0).random() == picture_rng(0, "cat", 0).random()
    False
    """
    # Python's own hash of a text differs from process to process; a SHA-256 does not.
    words = np.frombuffer(NoiseKey.of(stimulus).digest, dtype="<u4")  # (8,)
    sequence = np.random.SeedSequence([seed, part, *words.tolist()])

    return np.random.Generator(np.random.Philox(sequence))


def group_noise(seed: int, ids: Sequence[Any], group: int, shape: Sequence[int]) -> np.ndarray:
    """Standard normal noise of one part of several pictures, each row by :func:`picture_rng`.

    Parameters
    ----------
    seed : int
        of all noise
    ids : sequence
        n stimulus ids; equal ids get equal noise
    group : int
        what the noise is for
    shape : sequence of int
        of the noise of one picture

    Returns
    -------
    ndarray of shape (n, *shape), float32
        mean 0, variance 1
    """
    rows = []
    for stimulus in ids:
        rng = picture_rng(seed, stimulus, group)
        rows.append(rng.standard_normal(tuple(shape), dtype=np.float32))

    return np.stack(rows)


def full_batches(n: int, size: int) -> Iterator[tuple[slice, list[int]]]:
    """Batches of `n` rows, all of one size: the last is filled up with its last row.

    Parameters
    ----------
    n : int
        rows
    size : int
        of a batch

    Yields
    ------
    tuple[slice, list of int]
        the rows that are asked for, and `size` rows to compute, which begin with them

    Examples
    --------
    >>> list(full_batches(3, 2))
    [(slice(0, 2, None), [0, 1]), (slice(2, 3, None), [2, 2])]
    """
    for start in range(0, n, size):
        stop = min(start + size, n)
        rows = list(range(start, stop))
        filler = [stop - 1] * (size - len(rows))
        yield slice(start, stop), rows + filler
