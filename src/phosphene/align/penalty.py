"""Penalties: what is accepted, how they are judged together, and what is said about the one chosen."""

from __future__ import annotations

import warnings

import numpy as np

from phosphene.align import gram as _gram
from phosphene.align.rows import RowBlocks
from phosphene.errors import ConfigError, DataError, PhospheneWarning


def penalties(alpha) -> np.ndarray:
    """One penalty or several as an ascending float64 array without repeats.

    Raises
    ------
    ConfigError
        If there is none, or one is not a number above 0 and at most 1e30.
    """
    values = np.atleast_1d(np.asarray(alpha, dtype=object))
    if values.ndim != 1 or not values.size:
        raise ConfigError(f"alpha must be a positive number or a list of them but is {alpha!r}.")

    for value in values:
        is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        if not is_number or not 0 < value <= 1e30:
            if value == 0:
                hint = " For an almost unpenalised fit take a small number such as 1e-6."
            else:
                hint = ""

            raise ConfigError(f"alpha must be above 0 and at most 1e30 but is {value!r}.{hint}")

    return np.unique(values.astype(np.float64))


def sketch(blocks, n: int, t: int, size: int, seed: int) -> np.ndarray:
    """Random Gaussian combinations (n, size) of targets, E |row|^2 that of the row; the targets if t <= size.

    ``blocks`` yields (columns, rows, array), all rows of some columns before the next columns. The result is the same
    however the targets are cut.
    """
    rng = np.random.default_rng(seed)
    at = None
    mixed = None

    for columns, rows, block in blocks:
        if mixed is None:
            mixed = np.zeros((n, min(t, size)), block.dtype)

        if t <= size:
            mixed[rows, columns] = block
            continue

        if columns != at:
            draw = rng.standard_normal((block.shape[1], size), np.float32).astype(block.dtype, copy=False)
            at = columns

        mixed[rows] += block @ draw

    if t <= size:
        return mixed

    return mixed / mixed.dtype.type(np.sqrt(size))


def check_scale(largest: float, mean: np.ndarray, alphas: np.ndarray, x: RowBlocks) -> None:
    """Refuse features that do not vary, and penalties beside which they vanish."""
    if largest <= 1e-24 * x.shape[0] * max(float(mean @ mean), 1e-24):
        raise DataError(f"{x.name} does not vary: all of its {x.shape[1]} columns are constant over {x.shape[0]} rows.")

    if alphas[0] > 1e7 * largest:
        raise ConfigError(
            f"alpha = {alphas[0]:g} is over 10 million times the largest eigenvalue of {x.name} ({largest:.3g}), "
            f"so every prediction would be the training mean; try penalties from {1e-4 * largest:.1g} to {largest:.1g}."
        )


def factor(lower: np.ndarray, alpha: float, largest: float, keep: bool = False) -> tuple | None:
    """Cholesky factor, or None where single precision does not carry it."""
    try:
        return _gram.factor(lower, alpha, keep)
    except np.linalg.LinAlgError:
        if lower.dtype == np.float32:
            return None

        raise ConfigError(
            f"alpha = {alpha:g} is too small for double precision beside the largest eigenvalue {largest:.3g} of X; "
            f"use at least {1e-12 * largest:.1g}."
        ) from None


def warn_at_edge(best: np.ndarray | np.integer, alphas: np.ndarray, about: str = "", stacklevel: int = 5) -> None:
    """Warn when the penalty chosen (index, or one per target) is the first or last on offer."""
    for index, side, word in ((0, "smallest", "smaller"), (len(alphas) - 1, "largest", "larger")):
        share = np.mean(best == index)
        if share > 0.05:
            if about:
                who = f"the penalty chosen for {about}"
            else:
                who = "the chosen penalty"

            if np.ndim(best):
                who = f"the penalty chosen for {share:.0%} of the targets"

            warnings.warn(
                f"{alphas[index]:g}, {who}, is the {side} on offer; the best may lie beyond it. Offer {word} ones.",
                PhospheneWarning,
                stacklevel=stacklevel,
            )
