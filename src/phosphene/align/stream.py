"""Ridge predictions from disk to disk, for more targets than memory holds.

Predictions are linear in the training targets: P = A Y with one matrix A (test rows x training rows) per penalty, which
needs a single factorisation and m right-hand sides, however many targets there are. The cost for t targets is then
2 m n t operations, against 2 n^2 t for dual coefficients and 2 n p t more for primal weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from phosphene.align.penalty import penalties
from phosphene.align.rows import RowBlocks, destination
from phosphene.align.smoother import SmootherDesign, products, with_intercept, write
from phosphene.errors import ConfigError, DataError, ModelError


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
    is to be saved, use `StreamedRidge`, or `Ridge` where memory holds its coefficients.

    Parameters
    ----------
    X : array-like of shape (n, p)
        training features; array, memory map or HDF5 data set
    X_new : array-like of shape (m, p)
    families : mapping of {str: tuple}
        name -> (Y, alpha). Y is (n, t), read in column blocks; alpha is a penalty in the units of scikit-learn's
        ``Ridge``, or several, of which exact leave-one-row-out chooses one for the family
    rows : ndarray of shape (n,), optional
        row of Y that belongs to each row of X, where Y is stored once per stimulus (repeats share a row) or in another
        order; by default Y has one row per row of X
    fit_intercept : bool, default True
        centre X and Y on their training means
    sketch_size : int, default 256
        how many Gaussian combinations of a family's targets judge its penalties (unbiased for the total squared error
        over all of them)
    seed : int, default 0
        seed of those combinations
    block_bytes : int, optional
        size of the blocks that are read, in bytes
    out : mapping of {str: ndarray}, optional
        name -> float32 array or memory map (m, t) to write to; by default memory

    Returns
    -------
    predictions : dict of {str: ndarray}
        name -> (m, t) float32
    alphas : dict of {str: float}
        name -> the penalty used

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
    x = RowBlocks(X, "X")
    new = RowBlocks(X_new, "X_new")
    n, p = x.shape
    if new.shape[1] != p:
        raise ModelError(f"X_new has {new.shape[1]} columns but X has {p}; use the same features in the same order.")
    if not families:
        raise ConfigError("families is empty: name at least one family of targets, such as {'clip': (Y, 1000.0)}.")

    design = SmootherDesign.of(x, rows, fit_intercept, block_bytes)
    sources = {name: RowBlocks(y, f"family {name!r}") for name, (y, _) in families.items()}
    grids = {name: penalties(alpha) for name, (_, alpha) in families.items()}
    used = design.used

    for y in sources.values():
        if (rows is None and y.shape[0] != n) or used[-1] >= y.shape[0]:
            raise DataError(
                f"{y.name} has {y.shape[0]} rows but X has {n}"
                + ("; select the same trials for both." if rows is None else f" and rows goes up to {used[-1]}.")
            )

    shapes = {name: (new.shape[0], y.shape[1]) for name, y in sources.items()}
    out = {name: destination((out or {}).get(name), shape) for name, shape in shapes.items()}

    new.mean(block_bytes)  # checks every value
    found = design.smoothers(design.between(new), new.shape[0], sources, grids, sketch_size, seed)
    maps = {alpha: with_intercept(a, design.share) for alpha, a in found.maps.items()}

    for name, y in sources.items():
        write(products(maps[found.alphas[name]], y, used, fit_intercept, block_bytes), out[name])

    return out, found.alphas
