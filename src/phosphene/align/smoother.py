"""Ridge predictions as a product with the training targets, P = A Y: A formed once, Y read in blocks.

For new rows Z, centred like X, A = Z B with B = X^T (X X^T + a I)^-1: the matrix that statistics calls a linear smoother.
It takes one factorisation and as many right-hand sides as A has rows, however many targets there are. Either of A and B
is what the same solver gives for other right-hand sides: inner products of X with Z, or X itself.

Both intercept terms fold into A: its rows are made to sum to 1, so any constant may be taken off a target and added
afterwards. Taking off the first row keeps single precision exact for targets far from zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from phosphene.align import solvers
from phosphene.align.block_reader import ALL, BlockReader, Precision, is_ordinary, spans
from phosphene.align.estimator import check_rows
from phosphene.align.penalties import check_scale, sketch_targets, warn_at_edge
from phosphene.align.solvers import Cholesky, Features, Spectrum
from phosphene.errors import DataError

ROWS = 2048  # training rows of the targets read at a time

RightHandSides = Callable[[bool, Precision], np.ndarray]
"""From (dual, dtype) to (n, k) inner products with training rows, or (p, k) features; Fortran order, overwritten."""


class Smoothers(NamedTuple):
    """What `SmootherProblem.solve` finds."""

    alphas: dict[str, float]  # penalty by family
    matrices: dict[float, np.ndarray]  # by penalty, (k, rows used) without the intercept, in the arithmetic of the fit
    largest: float  # eigenvalue of the Gram matrix


@dataclass(frozen=True)
class SmootherProblem:
    """Training features, and the row of the targets that belongs to each.

    Parameters
    ----------
    features : Features
        (n, p), centred
    used : ndarray of shape (n_used,)
        distinct rows of the targets, ascending
    place : ndarray of shape (n,)
        place among them of the row that belongs to each row of the features
    fit_intercept : bool
        whether features and targets are centred
    """

    features: Features
    used: np.ndarray
    place: np.ndarray
    fit_intercept: bool

    @classmethod
    def of(cls, x: BlockReader, rows: np.ndarray | None, fit_intercept: bool, block_bytes: int) -> Self:
        """From features as they came.

        Parameters
        ----------
        x : BlockReader
            (n, p)
        rows : ndarray of shape (n,), optional
            row of the targets that belongs to each row of x; by default the same
        fit_intercept : bool
            centre both sides
        block_bytes : int
            size of the blocks that are read

        Raises
        ------
        DataError
            For a single row, values that are not ordinary, or `rows` that are no row numbers.
        """
        n, p = x.shape
        if fit_intercept:
            check_rows(n)

        used, place = _rows_used(rows, n)
        mean = x.mean(block_bytes)  # the pass that checks every value
        if not fit_intercept:
            mean = np.zeros(p)

        return cls(Features(x, mean, block_bytes), used, place, fit_intercept)

    @property
    def share(self) -> np.ndarray:
        """(n_used,) float64: weight of each row in the training mean, zeros without an intercept."""
        return self.fit_intercept * np.bincount(self.place, minlength=len(self.used)) / len(self.place)

    def predicting(self, new: BlockReader) -> RightHandSides:
        """Right-hand sides whose smoother A maps targets to predictions for the rows of `new`."""

        def right_hand_sides(is_dual: bool, dtype: Precision) -> np.ndarray:
            if is_dual:
                return self.features.cross(new, self.features.mean, dtype)  # (n, m)

            return new.block(minus=self.features.mean, dtype=dtype).T  # (p, m)

        return right_hand_sides

    def any_rows(self, is_dual: bool, dtype: Precision) -> np.ndarray:
        """Right-hand sides whose smoother is B, (p, rows used), which serves any new rows."""
        n, p = self.features.shape
        if not is_dual:
            return np.eye(p, dtype=dtype, order="F")

        out = np.empty((n, p), dtype, order="F")
        return self.features.x.block(minus=self.features.mean, dtype=dtype, out=out)

    def solve(
        self,
        right: RightHandSides,
        k: int,
        sources: Mapping[str, BlockReader],
        grids: Mapping[str, np.ndarray],
        sketch_size: int,
        seed: int,
    ) -> Smoothers:
        """Penalty and smoother of every family of targets; in double precision where single is too coarse.

        Parameters
        ----------
        right : RightHandSides
            makes the right-hand sides
        k : int
            how many those are
        sources : mapping of {str: BlockReader}
            targets by family
        grids : mapping of {str: ndarray}
            by family, one penalty, or several of which exact leave-one-row-out over sketched targets chooses one
        sketch_size, seed : int
            of the sketch
        """
        n, p = self.features.shape
        n_alphas = max(len(grid) for grid in grids.values())
        n_judged = sketch_size * (n_alphas > 1)
        dtype = solvers.precision(n, p, max(len(grids) * k, n_judged), n_alphas)

        smoothers = self._solve(right, sources, grids, sketch_size, seed, dtype)
        if smoothers is None:
            smoothers = self._solve(right, sources, grids, sketch_size, seed, np.float64)

        assert smoothers is not None, "double precision is never too coarse"
        return smoothers

    def _solve(
        self,
        right: RightHandSides,
        sources: Mapping[str, BlockReader],
        grids: Mapping[str, np.ndarray],
        sketch_size: int,
        seed: int,
        dtype: Precision,
    ) -> Smoothers | None:
        """As `solve`; None where ``dtype`` is too coarse."""
        is_coarse = dtype is np.float32

        # The Gram matrix, and whether this precision carries the penalties on offer.
        lower = self.features.gram(dtype)  # (s, s)
        largest = solvers.largest_eigenvalue(lower)
        if is_coarse and not _carries(largest, grids):
            return None

        for grid in grids.values():
            check_scale(largest, self.features.mean, grid, self.features.x)

        # A penalty for each family.
        chosen = {name: float(grid[0]) for name, grid in grids.items()}
        spectrum = None
        if any(len(grid) > 1 for grid in grids.values()):
            spectrum = Spectrum.of(
                lower, self.features.is_dual, self.features, self.fit_intercept, self.features.block_bytes
            )

            for name, grid in grids.items():
                if len(grid) > 1:
                    chosen[name] = self._choose(spectrum, name, sources[name], grid, sketch_size, seed, dtype)

            if is_coarse and any(solvers.too_coarse(largest, a, solvers.TOLERANCE) for a in chosen.values()):
                return None

        # A smoother for each penalty, the last in place of what it is made from.
        matrices: dict[float, np.ndarray] = {}
        sides = right(self.features.is_dual, dtype)  # (s, k)
        alphas = sorted(set(chosen.values()))

        for alpha in alphas:
            keep = alpha != alphas[-1]
            solved = sides
            if keep:
                solved = sides.copy(order="F")

            if spectrum is not None:
                self._solve_in_place(spectrum, solved, alpha)
            else:
                cholesky = Cholesky.of(lower, alpha, largest, keep=keep)
                if cholesky is None:
                    return None

                solved = cholesky.solve(solved)  # (s, k)

            matrix = solved.T  # (k, n) where dual
            if not self.features.is_dual:
                matrix = self.features.times_transposed(matrix)  # (k, n)

            matrices[alpha] = _sum_repeats(matrix, self.place, len(self.used))

        return Smoothers(chosen, matrices, largest)

    def _solve_in_place(self, spectrum: Spectrum, sides: np.ndarray, alpha: float) -> None:
        """(G + a I)^-1 of the right-hand sides (s, k), some at a time."""
        for columns in spans(sides.shape[1], self.features.block_bytes // (3 * sides.itemsize * len(sides))):
            sides[:, columns] = spectrum.coefficients(spectrum.u.T @ sides[:, columns], alpha)

    def _choose(
        self,
        spectrum: Spectrum,
        name: str,
        y: BlockReader,
        grid: np.ndarray,
        sketch_size: int,
        seed: int,
        dtype: Precision,
    ) -> float:
        """Penalty of the smallest leave-one-row-out error over sketched targets."""
        blocks = target_blocks(y, self.used, self.features.block_bytes, self.fit_intercept)
        sketched = sketch_targets(blocks, len(self.used), y.shape[1], sketch_size, seed)
        sketched = sketched[self.place].astype(dtype, copy=False)  # (n, sketch_size)
        sketched -= self.fit_intercept * sketched.mean(axis=0)

        best = spectrum.leave_one_out(sketched, grid).sum(axis=1).argmin()
        warn_at_edge(best, grid, f"family {name!r}", stacklevel=6)

        return float(grid[best])


def _carries(largest: float, grids: Mapping[str, np.ndarray]) -> bool:
    """Whether single precision carries the smallest penalty of every family."""
    if not np.isfinite(largest):
        return False

    for grid in grids.values():
        tolerance = solvers.TOLERANCE
        if len(grid) > 1:
            tolerance = solvers.SCORE_TOLERANCE

        if solvers.too_coarse(largest, grid[0], tolerance):
            return False

    return True


def with_intercept(a: np.ndarray, share: np.ndarray) -> np.ndarray:
    """A in float32, each row made to sum to 1 by more of the training mean; as it is where `share` is all zeros.

    Parameters
    ----------
    a : ndarray of shape (m, n_used)
        a smoother
    share : ndarray of shape (n_used,)
        weight of each row of the targets in their mean
    """
    if share.any():
        rest = 1.0 - a.sum(axis=1, dtype=np.float64, keepdims=True)  # (m, 1)
        a = a + rest.astype(a.dtype) * share.astype(a.dtype)

    return a.astype(np.float32, copy=False)


# -- A Y, some columns at a time ---------------------------------------------------------------------------------------


def smoothed(
    a: np.ndarray, y: BlockReader, used: np.ndarray, fit_intercept: bool, block_bytes: int, columns: slice = ALL
) -> Iterator[tuple[slice, np.ndarray]]:
    """A Y some columns at a time: where they are, and (m, columns) float32, each good until the next.

    Parameters
    ----------
    a : ndarray of shape (m, n_used), float32
        its rows summing to 1 where there is an intercept
    y : BlockReader
        the targets
    used : ndarray of shape (n_used,)
        their rows that belong to the columns of a, ascending
    fit_intercept : bool
        takes the first row off and adds it afterwards
    block_bytes : int
        size of the blocks
    columns : slice, optional
        which of the targets
    """
    m = len(a)
    begin, end, _ = columns.indices(y.shape[1])
    row_spans = list(spans(a.shape[1], ROWS))
    pieces = [np.ascontiguousarray(a[:, rows]) for rows in row_spans]

    # Fresh memory for every block would cost as much as reading it.
    longest = row_spans[0].stop
    width = min(end - begin, max(1, block_bytes // (4 * (m + longest))))
    target_memory = np.empty(longest * width, np.float32)
    result_memory = np.empty(m * width, np.float32)
    sgemm = solvers.blas_function("gemm", np.float32)

    for span in spans(end - begin, width):
        at = slice(begin + span.start, begin + span.stop)
        first = _first_row(y, used, at)
        result = _shaped(result_memory, m, at)  # (m, columns)

        for rows, piece in zip(row_spans, pieces, strict=True):
            block = _shaped(target_memory, piece.shape[1], at)  # (rows, columns)
            minus = None
            if fit_intercept:
                minus = first

            y.block(used[rows], at, minus=minus, out=block)

            # result = piece @ block + result, in place: Fortran sees the transposes
            sgemm(1.0, block.T, piece.T, beta=float(rows.start > 0), c=result.T, overwrite_c=1)

        if fit_intercept:
            result += first

        if not is_ordinary(result):  # a target's NaN reaches its predictions
            _check(y, used, at)

        yield at, result
        y.forget()


def write_blocks(blocks: Iterator[tuple[slice, np.ndarray]], out: np.ndarray, begin: int = 0) -> None:
    """Put blocks into an array.

    Parameters
    ----------
    blocks : iterator of tuple
        (columns, array)
    out : ndarray
        to fill
    begin : int, default 0
        number of its first column among the targets
    """
    written = BlockReader(out, "out")
    for at, part in blocks:
        out[:, at.start - begin : at.stop - begin] = part
        written.forget()


def target_blocks(
    y: BlockReader, used: np.ndarray, block_bytes: int, fit_intercept: bool
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Blocks of targets as (columns, rows among those used, block), less the first row where an intercept restores it.

    Few rows and many columns at a time, because a map is read in whole pages and read ahead along its rows.

    Parameters
    ----------
    y : BlockReader
        the targets
    used : ndarray of shape (n_used,)
        their rows that are read
    block_bytes : int
        size of the blocks
    fit_intercept : bool
        takes the first row off
    """
    row_spans = list(spans(len(used), ROWS))
    longest = row_spans[0].stop
    width = min(y.shape[1], max(1, block_bytes // (4 * longest)))
    memory = np.empty(longest * width, np.float32)

    for columns in spans(y.shape[1], width):
        first = None
        if fit_intercept:
            first = _first_row(y, used, columns)

        for rows in row_spans:
            block = _shaped(memory, rows.stop - rows.start, columns)  # (rows, columns)
            y.block(used[rows], columns, minus=first, out=block)
            if not is_ordinary(block):
                _check(y, used, columns)

            yield columns, rows, block

        y.forget()


def _shaped(memory: np.ndarray, rows: int, columns: slice) -> np.ndarray:
    """The beginning of a flat buffer as a matrix."""
    width = columns.stop - columns.start
    return memory[: rows * width].reshape(rows, width)


def _check(y: BlockReader, used: np.ndarray, columns: slice) -> None:
    """Raise DataError naming the first of the targets used that is not a number of ordinary size, if there is one."""
    for row in used:
        y.check(y.block([row], columns), int(row), columns.start)


def _first_row(y: BlockReader, used: np.ndarray, columns: slice) -> np.ndarray:
    first = np.asarray(y.array[int(used[0]), columns])
    if first.dtype.kind == "f" and first.dtype.itemsize > 2:
        return first

    return first.astype(np.float32)


# -- rows of the targets -----------------------------------------------------------------------------------------------


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

    used, place = np.unique(rows, return_inverse=True)
    return used, place


def _sum_repeats(a: np.ndarray, place: np.ndarray, n_used: int) -> np.ndarray:
    """Sum the columns of A that belong to the same row of Y: (k, n_used) from (k, n)."""
    if n_used == len(place):  # every row once, perhaps in another order
        if (place == np.arange(n_used)).all():
            return a

        return a[:, np.argsort(place)]

    summed = np.zeros((n_used, len(a)), a.dtype)
    np.add.at(summed, place, a.T)

    return summed.T
