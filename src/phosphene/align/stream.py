"""Ridge predictions from disk to disk, for more targets than memory holds.

Predictions are linear in the training targets: P = A Y with one matrix A (test rows x training rows) per penalty, which
needs a single factorisation and m right-hand sides, however many targets there are. The cost for t targets is then
2 m n t operations, against 2 n^2 t for dual coefficients and 2 n p t more for primal weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.linalg import blas

from phosphene.align import _gram
from phosphene.align._penalty import check_scale, factor, penalties, sketch, warn_at_edge
from phosphene.align._rows import Rows, destination, is_ordinary, spans
from phosphene.errors import ConfigError, DataError, ModelError

ROWS = 2048  # training rows of the targets read at a time


def ridge_predict(
    X,
    X_new,
    families: Mapping[str, tuple],
    *,
    rows: np.ndarray | None = None,
    fit_intercept: bool = True,
    sketch_size: int = 256,
    seed: int = 0,
    block_bytes: int = 384 << 20,
    out: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Fit ridge maps on (X, Y) and predict Y for new rows, one family of targets after another, keeping no weights.

    Equal to ``Ridge(alpha).fit(X, Y).predict(X_new)`` for each family (within 1e-4 of the predictions' spread of a
    double-precision solution). Best where new rows are fewer than training rows; where new rows keep coming, or the map
    is to be saved, use `Ridge`.

    Parameters
    ----------
    X : (n, p) training features; array, memory map or HDF5 data set
    X_new : (m, p)
    families : name -> (Y, alpha). Y is (n, t), read in column blocks; alpha is a penalty in the units of
        scikit-learn's ``Ridge``, or several, of which exact leave-one-row-out chooses one for the family
    rows : (n,) row of Y that belongs to each row of X, where Y is stored once per stimulus (repeats share a row) or in
        another order; by default Y has one row per row of X
    fit_intercept : centre X and Y on their training means
    sketch_size : how many Gaussian combinations of a family's targets judge its penalties (unbiased for the total
        squared error over all of them)
    seed : seed of those combinations
    block_bytes : size of the blocks that are read, in bytes
    out : name -> float32 array or memory map (m, t) to write to; by default memory

    Returns
    -------
    predictions : name -> (m, t) float32
    alphas : name -> the penalty used

    Raises
    ------
    DataError, ConfigError
        As `Ridge`, naming the family; and if a map in ``out`` has the wrong shape.

    Notes
    -----
    With centred kernel K and cross products K_new, A = K_new (K + a I)^-1 and P = mean + A (Y - mean). Both intercept
    terms fold into A: its rows are made to sum to 1, so any constant may be taken off a target and added again. Taking
    off the first row keeps single precision exact for targets far from zero. In memory at once: the kernel and one copy
    of it (penalties given) or three times the kernel (penalties chosen), A for every penalty, and one block.

    Rescaling predictions to the training targets' mean and spread, as some published scripts do, uses moments of the
    test predictions, which makes every prediction depend on the rest of the test set; it is not done here.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(6.0)[:, None]
    >>> predictions, alphas = ridge_predict(x, [[7.0]], {"double": (2 * x, 1e-6)})
    >>> predictions["double"].round(3), alphas
    (array([[14.]], dtype=float32), {'double': 1e-06})
    """
    x, new = Rows(X, "X"), Rows(X_new, "X_new")
    n, p = x.shape
    if new.shape[1] != p:
        raise ModelError(f"X_new has {new.shape[1]} columns but X has {p}; use the same features in the same order.")
    if fit_intercept and n < 2:
        raise DataError("X has a single row: nothing remains of it after centring. Fit on at least two trials.")
    if not families:
        raise ConfigError("families is empty: name at least one family of targets, such as {'clip': (Y, 1000.0)}.")
    used, place = _rows_used(rows, n)
    sources = {name: Rows(y, f"family {name!r}") for name, (y, _) in families.items()}
    grids = {name: penalties(alpha) for name, (_, alpha) in families.items()}
    for y in sources.values():
        if (rows is None and y.shape[0] != n) or used[-1] >= y.shape[0]:
            raise DataError(
                f"{y.name} has {y.shape[0]} rows but X has {n}"
                + ("; select the same trials for both." if rows is None else f" and rows goes up to {used[-1]}.")
            )
    shapes = {name: (new.shape[0], y.shape[1]) for name, y in sources.items()}
    out = {name: destination((out or {}).get(name), shape) for name, shape in shapes.items()}

    mean = x.mean(block_bytes)
    if not fit_intercept:
        mean = np.zeros(p)
    new.mean(block_bytes)  # checks every value
    most = max(len(grid) for grid in grids.values())
    dtype = _gram.precision(n, p, max(len(grids) * new.shape[0], sketch_size * (most > 1)), most)
    arguments = (x, mean, new, sources, grids, used, place, fit_intercept, sketch_size, seed, block_bytes)
    smoothers = _smoothers(*arguments, dtype) or _smoothers(*arguments, np.float64)
    for name, y in sources.items():
        _stream(smoothers[name][1], y, used, fit_intercept, out[name], block_bytes)
    return out, {name: alpha for name, (alpha, _) in smoothers.items()}


def _smoothers(x, mean, new, sources, grids, used, place, intercept, size, seed, budget, dtype):
    """Name -> (penalty, A (m, rows used) float32 with the intercept folded in), or None if ``dtype`` is too coarse."""
    n, p = x.shape
    dual, is_coarse = n < p, dtype is np.float32
    lower = _gram.gram(x, mean, dual, dtype, budget)
    # (n, m) inner products, or (p, m) features
    right = _gram.cross(x, mean, new, mean, dtype, budget) if dual else new.block(minus=mean, dtype=dtype).T
    largest = _gram.largest_eigenvalue(lower)
    lowest = [(grid[0], _gram.TOLERANCE if len(grid) == 1 else _gram.SCORE_TOLERANCE) for grid in grids.values()]
    if is_coarse and (not np.isfinite(largest) or any(_gram.too_coarse(largest, *low) for low in lowest)):
        return None
    for grid in grids.values():
        check_scale(largest, mean, grid, x)

    chosen = {name: float(grid[0]) for name, grid in grids.items()}
    spectrum = None
    if any(len(grid) > 1 for grid in grids.values()):
        spectrum = _gram.Spectrum.of(lower, dual, x, mean, intercept, budget)
        rotated = spectrum.u.T @ right
        for name, grid in grids.items():
            if len(grid) > 1:
                y = sources[name]
                mixed = sketch(_targets(y, used, budget, intercept), len(used), y.shape[1], size, seed)
                mixed = mixed[place].astype(dtype, copy=False)
                mixed -= intercept * mixed.mean(axis=0)
                best = spectrum.leave_one_out(mixed, grid).sum(axis=1).argmin()
                warn_at_edge(best, grid, f"family {name!r}", stacklevel=4)
                chosen[name] = float(grid[best])
        if is_coarse and any(_gram.too_coarse(largest, a, _gram.TOLERANCE) for a in chosen.values()):
            return None

    done: dict[float, np.ndarray] = {}
    for alpha in sorted(set(chosen.values())):
        if spectrum is not None:
            a = spectrum.coefficients(rotated, alpha).T
        else:
            keep = alpha != max(chosen.values())
            factored = factor(lower, alpha, largest, keep=keep)
            if factored is None:
                return None
            a = _gram.solve(factored, right.copy(order="F") if keep else right).T
        if not dual:
            a = _through(x, mean, a, budget)
        if intercept:
            a = a + (1.0 - a.sum(axis=1, dtype=np.float64, keepdims=True)).astype(dtype) / dtype(n)
        done[alpha] = _gather(a, place, len(used)).astype(np.float32, copy=False)
    return {name: (alpha, done[alpha]) for name, alpha in chosen.items()}


def _stream(a: np.ndarray, y: Rows, used: np.ndarray, intercept: bool, out: np.ndarray, budget: int) -> None:
    """Write A Y to ``out``, column block by column block."""
    written = Rows(out, "out")
    m = len(a)
    rows_at_once = list(spans(a.shape[1], ROWS))
    pieces = [np.ascontiguousarray(a[:, rows]) for rows in rows_at_once]
    width = min(y.shape[1], max(1, budget // (4 * (m + rows_at_once[0].stop))))
    memory, results = np.empty(rows_at_once[0].stop * width, np.float32), np.empty(m * width, np.float32)
    for columns in spans(y.shape[1], width):
        first = _first(y, used, columns)
        part = _shaped(results, m, columns)
        for rows, piece in zip(rows_at_once, pieces, strict=True):
            block = _shaped(memory, piece.shape[1], columns)
            y.block(used[rows], columns, minus=first if intercept else None, out=block)
            # part = piece @ block + part, in place: Fortran sees the transposes
            blas.sgemm(1.0, block.T, piece.T, beta=float(rows.start > 0), c=part.T, overwrite_c=1)
        if intercept:
            part += first
        if not is_ordinary(part):  # a target's NaN reaches its predictions
            _check(y, used, columns)
        out[:, columns] = part
        y.forget(), written.forget()


def _targets(y: Rows, used: np.ndarray, budget: int, shift: bool):
    """Blocks of targets as (columns, rows among those used, block), less the first row where an intercept restores it.

    Few rows and many columns at a time, because a map is read in whole pages and read ahead along its rows.
    """
    rows_at_once = list(spans(len(used), ROWS))
    width = min(y.shape[1], max(1, budget // (4 * rows_at_once[0].stop)))
    memory = np.empty(rows_at_once[0].stop * width, np.float32)
    for columns in spans(y.shape[1], width):
        first = _first(y, used, columns) if shift else None
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


def _check(y: Rows, used: np.ndarray, columns: slice) -> None:
    """Raise DataError naming the first of the targets used that is not a number of ordinary size, if there is one."""
    for row in used:
        y.check(y.block([row], columns), int(row), columns.start)


def _through(x: Rows, mean: np.ndarray, a: np.ndarray, budget: int) -> np.ndarray:
    """A X^T of the centred features: (m, n) from (m, p)."""
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
    if count == len(place) and (place == np.arange(count)).all():
        return a
    out = np.zeros((count, len(a)), a.dtype)
    np.add.at(out, place, a.T)
    return out.T


def _first(y: Rows, used: np.ndarray, columns: slice) -> np.ndarray:
    first = np.asarray(y.array[int(used[0]), columns])
    return first if first.dtype.kind == "f" and first.dtype.itemsize > 2 else first.astype(np.float32)
