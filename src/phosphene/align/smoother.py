"""Ridge predictions as a product with the training targets, P = A Y: A found once, Y read in blocks.

For new rows Z, centred like X, A = Z B with B = X^T (X X^T + a I)^-1. Either is what the same solver gives for other
right-hand sides: inner products of X with Z, or X itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from scipy.linalg import blas

from phosphene.align import gram as _gram
from phosphene.align.penalty import check_scale, factor, sketch, warn_at_edge
from phosphene.align.rows import ALL, RowBlocks, is_ordinary, spans
from phosphene.errors import DataError

ROWS = 2048  # training rows of the targets read at a time

RightHand = Callable[[bool, type], np.ndarray]
"""From (dual, dtype) to (n, k) inner products with training rows, or (p, k) features; Fortran order, overwritten."""


class Smoothers(NamedTuple):
    """What `SmootherDesign.smoothers` finds."""

    alphas: dict[str, float]  # penalty by family
    maps: dict[float, np.ndarray]  # by penalty, (k, rows used) without the intercept, in the arithmetic of the fit
    largest: float  # eigenvalue


@dataclass(frozen=True)
class SmootherDesign:
    """Training features, and the row of the targets that belongs to each.

    Parameters
    ----------
    x : RowBlocks
        (n, p)
    mean : ndarray of shape (p,)
        taken off, zeros without an intercept
    used : ndarray
        distinct rows of the targets, ascending
    place : ndarray of shape (n,)
        place among them of the row that belongs to each row of x
    intercept : bool
        whether there is one
    budget : int
        size of the blocks that are read, in bytes
    """

    x: RowBlocks
    mean: np.ndarray
    used: np.ndarray
    place: np.ndarray
    intercept: bool
    budget: int

    @classmethod
    def of(cls, x: RowBlocks, rows: np.ndarray | None, intercept: bool, budget: int) -> Self:
        """Raises DataError for a single row, values that are not ordinary, or `rows` that are no row numbers."""
        n = x.shape[0]
        if intercept and n < 2:
            raise DataError("X has a single row: nothing remains of it after centring. Fit on at least two trials.")

        used, place = _rows_used(rows, n)
        mean = x.mean(budget)

        return cls(x, mean if intercept else np.zeros(x.shape[1]), used, place, intercept, budget)

    @property
    def share(self) -> np.ndarray:
        """(rows used,) float64: weight of each in the training mean, zeros without an intercept."""
        return self.intercept * np.bincount(self.place, minlength=len(self.used)) / len(self.place)

    def between(self, new: RowBlocks) -> RightHand:
        """Right-hand sides whose smoother maps targets to predictions for the rows of `new`."""

        def right(dual: bool, dtype: type) -> np.ndarray:
            if dual:
                return _gram.cross(self.x, self.mean, new, self.mean, dtype, self.budget)

            return new.block(minus=self.mean, dtype=dtype).T

        return right

    def itself(self, dual: bool, dtype: type) -> np.ndarray:
        """Right-hand sides whose smoother is B, (p, rows used), good for any new rows."""
        n, p = self.x.shape
        if not dual:
            return np.eye(p, dtype=dtype, order="F")

        return self.x.block(minus=self.mean, dtype=dtype, out=np.empty((n, p), dtype, order="F"))

    def smoothers(
        self,
        right: RightHand,
        k: int,
        sources: Mapping[str, RowBlocks],
        grids: Mapping[str, np.ndarray],
        sketch_size: int,
        seed: int,
    ) -> Smoothers:
        """Penalty and smoother of every family of targets; in double precision where single is too coarse.

        Parameters
        ----------
        right : RightHand
            makes the right-hand sides
        k : int
            how many those are
        sources : mapping of {str: RowBlocks}
            targets by family
        grids : mapping of {str: ndarray}
            by family, one penalty, or several of which exact leave-one-row-out over sketched targets chooses one
        sketch_size, seed : int
            of the sketch
        """
        n, p = self.x.shape
        most = max(len(grid) for grid in grids.values())
        dtype = _gram.precision(n, p, max(len(grids) * k, sketch_size * (most > 1)), most)
        arguments = (right, sources, grids, sketch_size, seed)

        return self._smoothers(*arguments, dtype) or self._smoothers(*arguments, np.float64)

    def _smoothers(self, right, sources, grids, size, seed, dtype) -> Smoothers | None:
        n, p = self.x.shape
        budget = self.budget
        dual = n < p
        is_coarse = dtype is np.float32
        lower = _gram.gram(self.x, self.mean, dual, dtype, budget)
        largest = _gram.largest_eigenvalue(lower)
        lowest = [(grid[0], _gram.TOLERANCE if len(grid) == 1 else _gram.SCORE_TOLERANCE) for grid in grids.values()]

        if is_coarse and (not np.isfinite(largest) or any(_gram.too_coarse(largest, *low) for low in lowest)):
            return None

        for grid in grids.values():
            check_scale(largest, self.mean, grid, self.x)

        chosen = {name: float(grid[0]) for name, grid in grids.items()}
        spectrum = None
        if any(len(grid) > 1 for grid in grids.values()):
            spectrum = _gram.Spectrum.of(lower, dual, self.x, self.mean, self.intercept, budget)
            for name, grid in grids.items():
                if len(grid) > 1:
                    chosen[name] = self._choose(spectrum, name, sources[name], grid, size, seed, dtype)

            if is_coarse and any(_gram.too_coarse(largest, a, _gram.TOLERANCE) for a in chosen.values()):
                return None

        maps: dict[float, np.ndarray] = {}
        sides = right(dual, dtype)

        for alpha in sorted(set(chosen.values())):
            keep = alpha != max(chosen.values())
            if keep:
                part = sides.copy(order="F")
            else:
                part = sides

            if spectrum is not None:
                for columns in spans(part.shape[1], budget // (3 * part.itemsize * len(part))):
                    part[:, columns] = spectrum.coefficients(spectrum.u.T @ part[:, columns], alpha)
            else:
                factored = factor(lower, alpha, largest, keep=keep)
                if factored is None:
                    return None

                part = _gram.solve(factored, part)

            if dual:
                a = part.T
            else:
                a = _through(self.x, self.mean, part.T, budget)

            maps[alpha] = _gather(a, self.place, len(self.used))

        return Smoothers(chosen, maps, largest)

    def _choose(self, spectrum, name: str, y: RowBlocks, grid: np.ndarray, size: int, seed: int, dtype: type) -> float:
        blocks = target_blocks(y, self.used, self.budget, self.intercept)
        mixed = sketch(blocks, len(self.used), y.shape[1], size, seed)
        mixed = mixed[self.place].astype(dtype, copy=False)
        mixed -= self.intercept * mixed.mean(axis=0)
        best = spectrum.leave_one_out(mixed, grid).sum(axis=1).argmin()
        warn_at_edge(best, grid, f"family {name!r}", stacklevel=6)

        return float(grid[best])


def with_intercept(a: np.ndarray, share: np.ndarray) -> np.ndarray:
    """A in float32, each row made to sum to 1 by more of the training mean; as it is where `share` is all zeros."""
    if share.any():
        rest = 1.0 - a.sum(axis=1, dtype=np.float64, keepdims=True)
        a = a + rest.astype(a.dtype) * share.astype(a.dtype)

    return a.astype(np.float32, copy=False)


def products(
    a: np.ndarray, y: RowBlocks, used: np.ndarray, intercept: bool, budget: int, columns: slice = ALL
) -> Iterator[tuple[slice, np.ndarray]]:
    """A Y some columns at a time: where they are, and (m, columns) float32, each good until the next.

    Parameters
    ----------
    a : ndarray of shape (m, rows used), float32
        its rows summing to 1 where there is an intercept
    y : RowBlocks
        the targets
    used : ndarray
        their rows that belong to the columns of a, ascending
    intercept : bool
        takes the first row off and adds it again, which keeps single precision exact for targets far from zero
    budget : int
        size of the blocks, in bytes
    columns : slice, optional
        which of the targets
    """
    m = len(a)
    begin, end, _ = columns.indices(y.shape[1])
    rows_at_once = list(spans(a.shape[1], ROWS))
    pieces = [np.ascontiguousarray(a[:, rows]) for rows in rows_at_once]
    width = min(end - begin, max(1, budget // (4 * (m + rows_at_once[0].stop))))
    memory = np.empty(rows_at_once[0].stop * width, np.float32)
    results = np.empty(m * width, np.float32)

    for span in spans(end - begin, width):
        at = slice(begin + span.start, begin + span.stop)
        first = _first(y, used, at)
        part = _shaped(results, m, at)

        for rows, piece in zip(rows_at_once, pieces, strict=True):
            block = _shaped(memory, piece.shape[1], at)
            y.block(used[rows], at, minus=first if intercept else None, out=block)

            # part = piece @ block + part, in place: Fortran sees the transposes
            blas.sgemm(1.0, block.T, piece.T, beta=float(rows.start > 0), c=part.T, overwrite_c=1)

        if intercept:
            part += first

        if not is_ordinary(part):  # a target's NaN reaches its predictions
            _check(y, used, at)

        yield at, part
        y.forget()


def write(blocks: Iterator[tuple[slice, np.ndarray]], out: np.ndarray, begin: int = 0) -> None:
    """Put blocks into ``out``, whose first column is number `begin` of the targets."""
    written = RowBlocks(out, "out")
    for at, part in blocks:
        out[:, at.start - begin : at.stop - begin] = part
        written.forget()


def target_blocks(
    y: RowBlocks, used: np.ndarray, budget: int, shift: bool
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Blocks of targets as (columns, rows among those used, block), less the first row where an intercept restores it.

    Few rows and many columns at a time, because a map is read in whole pages and read ahead along its rows.
    """
    rows_at_once = list(spans(len(used), ROWS))
    width = min(y.shape[1], max(1, budget // (4 * rows_at_once[0].stop)))
    memory = np.empty(rows_at_once[0].stop * width, np.float32)

    for columns in spans(y.shape[1], width):
        if shift:
            first = _first(y, used, columns)
        else:
            first = None

        for rows in rows_at_once:
            block = y.block(used[rows], columns, minus=first, out=_shaped(memory, rows.stop - rows.start, columns))
            if not is_ordinary(block):
                _check(y, used, columns)

            yield columns, rows, block

        y.forget()


def _shaped(memory: np.ndarray, rows: int, columns: slice) -> np.ndarray:
    """The beginning of a flat buffer as a matrix: fresh memory for every block would cost as much as reading it."""
    count = columns.stop - columns.start
    return memory[: rows * count].reshape(rows, count)


def _check(y: RowBlocks, used: np.ndarray, columns: slice) -> None:
    """Raise DataError naming the first of the targets used that is not a number of ordinary size, if there is one."""
    for row in used:
        y.check(y.block([row], columns), int(row), columns.start)


def _through(x: RowBlocks, mean: np.ndarray, a: np.ndarray, budget: int) -> np.ndarray:
    """A X^T of the centred features: (k, n) from (k, p)."""
    out = np.empty((len(a), x.shape[0]), a.dtype)
    for rows in spans(x.shape[0], budget // (a.itemsize * x.shape[1])):
        out[:, rows] = a @ x.block(rows, minus=mean, dtype=a.dtype).T
        x.forget()

    return out


def _rows_used(rows: np.ndarray | None, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of Y in order, and the place of each row of X among them."""
    if rows is None:
        return np.arange(n), np.arange(n)

    rows = np.asarray(rows)
    if rows.shape != (n,) or rows.dtype.kind not in "iu" or rows.min() < 0:
        raise DataError(
            f"rows must hold one row number of Y, from 0, for each of the {n} rows of X, "
            f"but has shape {rows.shape} and dtype {rows.dtype}."
        )

    return np.unique(rows, return_inverse=True)


def _gather(a: np.ndarray, place: np.ndarray, count: int) -> np.ndarray:
    """Sum the columns of A that belong to the same row of Y."""
    if count == len(place):  # every row once, perhaps in another order
        if (place == np.arange(count)).all():
            return a

        return a[:, np.argsort(place)]

    out = np.zeros((count, len(a)), a.dtype)
    np.add.at(out, place, a.T)
    return out.T


def _first(y: RowBlocks, used: np.ndarray, columns: slice) -> np.ndarray:
    first = np.asarray(y.array[int(used[0]), columns])
    if first.dtype.kind == "f" and first.dtype.itemsize > 2:
        return first

    return first.astype(np.float32)
