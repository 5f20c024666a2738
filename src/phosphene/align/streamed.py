"""Ridge towards more targets than memory holds: they stay on disk, and no weights are ever formed.

Predictions are P = mean + (Z - mean of X) B (Y - mean), where B (p, n) = X^T (X X^T + a I)^-1 of the centred training
features is the same for all targets (:mod:`phosphene.align.smoother`). Two ways to use it:

`ridge_predict`
    for new rows that are known: A = Z B (m, n) is formed at once, and predictions go from disk to disk. For t targets
    that costs 2 m n t operations, against 2 n^2 t for dual coefficients and 2 n p t more for primal weights.
`StreamedRidge`
    for new rows that are not: a fitted map keeps B and the place of Y in a feature store; Y itself is read when something
    is predicted. At the size of NSD (8,859 stimuli, 15,724 voxels) B takes 0.56 GB however many targets there are, where
    the dual coefficients of 257 x 768 CLIP tokens take 7.0 GB, and the features they need 0.56 GB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from phosphene.align import solvers
from phosphene.align.block_reader import ALL, BlockReader, destination, spans
from phosphene.align.estimator import Estimator, new_rows
from phosphene.align.penalties import check_penalties
from phosphene.align.smoother import SmootherProblem, smoothed, with_intercept, write_blocks
from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io.stages import take
from phosphene.io.store import INDEX, RowStore, StoredRows, cache_folder

_TENSORS = ("map", "x_mean", "share")
_SETTINGS = ("fit_intercept", "sketch_size", "seed", "block_bytes")


def ridge_predict(
    X: ArrayLike,
    X_new: ArrayLike,
    families: Mapping[str, tuple[ArrayLike, float | Sequence[float]]],
    *,
    rows: np.ndarray | None = None,
    fit_intercept: bool = True,
    sketch_size: int = 256,
    seed: int = 0,
    block_bytes: int = 384 << 20,
    out: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Fit ridge maps on (X, Y) and predict Y for new rows, one family of targets after another, keeping no weights.

    Equal to ``Ridge(alpha).fit(X, Y).predict(X_new)`` for each family (within 1e-4 of the predictions' standard deviation
    of a double-precision solution). Best where new rows are fewer than training rows; where new rows keep coming, or the map
    is to be saved, use `StreamedRidge`, or `Ridge` where memory holds its coefficients.

    Parameters
    ----------
    X : array-like of shape (n, p)
        training features; array, memory map or HDF5 data set
    X_new : array-like of shape (m, p)
        features to predict for, likewise
    families : mapping of str to tuple
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
    block_bytes : int, default 402_653_184
        size of the blocks that are read, in bytes
    out : mapping of str to ndarray, optional
        name -> float32 array or memory map (m, t) to write to; by default memory

    Returns
    -------
    predictions : dict of str to ndarray
        name -> (m, t) float32
    alphas : dict of str to float
        name -> the penalty used

    Raises
    ------
    DataError, ConfigError
        As `Ridge`, naming the family; and if a map in ``out`` has the wrong shape.

    Notes
    -----
    With centred kernel K and cross products K_new, A = K_new (K + a I)^-1 and P = mean + A (Y - mean). In memory at
    once: the kernel and one copy of it (penalties given) or three times the kernel (penalties chosen), A for every
    penalty, and one block.

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
    x = BlockReader(X, "X")
    new = BlockReader(X_new, "X_new")
    p = x.shape[1]
    if new.shape[1] != p:
        raise ModelError(f"X_new has {new.shape[1]} columns but X has {p}; use the same features in the same order.")

    if not families:
        raise ConfigError("families is empty: name at least one family of targets, such as {'clip': (Y, 1000.0)}.")

    problem = SmootherProblem.of(x, rows, fit_intercept, block_bytes)
    sources = {}
    grids = {}
    predictions = {}

    for name, (y, alpha) in families.items():
        sources[name] = BlockReader(y, f"family {name!r}")
        grids[name] = check_penalties(alpha)

    for name, y in sources.items():
        _check_rows_of_targets(y, x, rows, problem.used)
        predictions[name] = destination((out or {}).get(name), (new.shape[0], y.shape[1]))

    new.mean(block_bytes)  # the pass that checks every value
    right = problem.predicting(new)
    smoothers = problem.solve(right, new.shape[0], sources, grids, sketch_size, seed)
    maps = {alpha: with_intercept(a, problem.share) for alpha, a in smoothers.matrices.items()}

    for name, y in sources.items():
        a = maps[smoothers.alphas[name]]  # (m, n_used)
        write_blocks(smoothed(a, y, problem.used, fit_intercept, block_bytes), predictions[name])

    return predictions, smoothers.alphas


def _check_rows_of_targets(y: BlockReader, x: BlockReader, rows: np.ndarray | None, used: np.ndarray) -> None:
    """Refuse targets that lack a row of the features."""
    n = x.shape[0]
    if rows is None and y.shape[0] != n:
        raise DataError(f"{y.name} has {y.shape[0]} rows but X has {n}; select the same trials for both.")

    if used[-1] >= y.shape[0]:
        raise DataError(f"{y.name} has {y.shape[0]} rows but X has {n} and rows goes up to {used[-1]}.")


class StreamedRidge(Estimator):
    """Linear map with an L2 penalty from (n, p) to the rows of a feature store, which it reads whenever it predicts.

    Equal to `Ridge` with the same penalty, within 1e-4 of the predictions' standard deviation of a double-precision
    solution. Every call of `predict` reads all of the training targets once: predict many rows at a time.

    Parameters
    ----------
    alpha : float or sequence of float, default 1.0
        penalty in the units of scikit-learn's ``Ridge``, or several, of which exact leave-one-row-out chooses one
    fit_intercept : bool, default True
        centre X and the targets on their training means
    sketch_size : int, default 256
        how many Gaussian combinations of the targets judge the penalties (unbiased for the total squared error)
    seed : int, default 0
        seed of those combinations
    block_bytes : int, default 402_653_184
        size of the blocks that are read, in bytes

    Attributes
    ----------
    alpha_ : float
        the penalty
    n_features_, n_targets_, n_rows_ : int
        p, t and n
    precision_ : {"float32", "float64"}
        the arithmetic of the map; float64 where the penalty is small beside the largest eigenvalue
    targets_ : StoredRows
        the training targets, each distinct row once

    Raises
    ------
    ConfigError, PhospheneWarning
        As `Ridge`.

    Examples
    --------
    >>> import numpy as np
    >>> from tempfile import TemporaryDirectory
    >>> from phosphene.io.store import cached
    >>> x = np.arange(6.0)[:, None]
    >>> with TemporaryDirectory() as cache:
    ...     store = cached(cache, {"what": "double"}, "abcdef", lambda ids: [[2 * "abcdef".index(i)] for i in ids], shape=(1,))
    ...     StreamedRidge(1e-6).fit(x, store.select("abcdef")).predict([[7.0]]).round(3)
    array([[14.]], dtype=float32)
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        alpha: float | Sequence[float] = 1.0,
        *,
        fit_intercept: bool = True,
        sketch_size: int = 256,
        seed: int = 0,
        block_bytes: int = 384 << 20,
    ) -> None:
        self.alpha = alpha
        self.alphas_ = check_penalties(alpha)
        self.fit_intercept = bool(fit_intercept)
        self.sketch_size = sketch_size
        self.seed = seed
        self.block_bytes = block_bytes

    def __repr__(self) -> str:
        return f"StreamedRidge(alpha={self.alphas_.tolist()}, fit_intercept={self.fit_intercept})"

    def fit(self, X: ArrayLike, targets: StoredRows) -> Self:
        """Fit the map.

        Parameters
        ----------
        X : array-like of shape (n, p)
            features, as `Ridge` takes them
        targets : StoredRows
            n rows of a store, flattened to (n, t); stimuli may repeat

        Returns
        -------
        StreamedRidge
            the fitted map itself

        Raises
        ------
        DataError
            As `Ridge`, and when there is not one target for each row of X.
        ModelError
            When targets are not computed or damaged.
        """
        x = BlockReader(X, "X")
        n, p = x.shape
        self.targets_ = targets
        self.__dict__.pop("_y", None)  # of an earlier fit

        if len(targets) != n:
            raise DataError(f"X has {n} rows but came with {len(targets)} targets; select the same stimuli.")

        problem = SmootherProblem.of(x, targets.at, self.fit_intercept, self.block_bytes)
        self.targets_ = StoredRows(targets.store, problem.used)
        sources = {"targets": self._y}
        grids = {"targets": self.alphas_}
        smoothers = problem.solve(problem.any_rows, p, sources, grids, self.sketch_size, self.seed)
        self.alpha_ = smoothers.alphas["targets"]

        kept = np.float32
        if solvers.too_coarse(smoothers.largest, self.alpha_, solvers.TOLERANCE):
            kept = np.float64

        self._map = np.ascontiguousarray(smoothers.matrices[self.alpha_], dtype=kept)  # (p, n_used)
        self._mean = problem.features.mean
        self._share = problem.share
        self.n_rows_ = n

        return self

    def predict(self, X: ArrayLike, out: np.ndarray | None = None, columns: slice = ALL) -> np.ndarray:
        """Predict targets; each row as if it were alone, but for rounding.

        Parameters
        ----------
        X : array-like of shape (m, p)
            features, in the order of the fit
        out : ndarray of shape (m, t), optional
            float32 array or memory map to write to
        columns : slice, optional
            which of the targets, all by default; ``out`` then has only those

        Returns
        -------
        ndarray of shape (m, t), float32
            of the targets asked for

        Raises
        ------
        ModelError
            Before `fit`, for another number of columns, or when targets are damaged.
        """
        blocks = self.blocks(X, columns)
        begin, end, _ = columns.indices(self.n_targets_)
        out = destination(out, (np.shape(X)[0], end - begin))
        write_blocks(blocks, out, begin)

        return out

    def blocks(self, X: ArrayLike, columns: slice = ALL) -> Iterator[tuple[slice, np.ndarray]]:
        """Predict some targets after others.

        Parameters
        ----------
        X : array-like of shape (m, p)
            features, in the order of the fit
        columns : slice, optional
            which of the targets, all by default

        Returns
        -------
        iterator of (slice, ndarray)
            where they are among the targets, and (m, columns) float32, good until the next

        Raises
        ------
        ModelError
            As `predict`.
        """
        if not hasattr(self, "_map"):
            raise ModelError("This streamed ridge map is not fitted yet: call fit(X, targets) first.")

        new = new_rows(X, self.n_features_, self.block_bytes)
        centred = new.block(minus=self._mean, dtype=self._map.dtype)  # (m, p)
        a = with_intercept(centred @ self._map, self._share)  # (m, n_used)

        return smoothed(a, self._y, self.targets_.at, self.fit_intercept, self.block_bytes, columns)

    def left_out(self, X: ArrayLike, targets: StoredRows, fold: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Predict the rows of each fold by a map of the same penalty that was fitted on the others.

        Parameters
        ----------
        X : array-like of shape (n, p)
            features, as they were given to `fit`
        targets : StoredRows
            likewise
        fold : ndarray of shape (n,)
            number of each row's fold

        Yields
        ------
        tuple of (ndarray, ndarray)
            (predicted, true), both (n, columns) float32, some columns after others; good until the next
        """
        x = BlockReader(X, "X")
        y = BlockReader(targets.mapped(), "the stored targets")
        at = targets.at
        fold = np.asarray(fold)
        used = np.unique(at)
        a = np.zeros((len(at), len(used)), np.float32)

        for number in np.unique(fold):
            inside = np.flatnonzero(fold == number)
            outside = np.flatnonzero(fold != number)
            others = BlockReader(x.array[outside], "X")
            new = BlockReader(x.array[inside], "X")

            problem = SmootherProblem.of(others, at[outside], self.fit_intercept, self.block_bytes)
            grids = {"": np.array([self.alpha_])}
            smoothers = problem.solve(problem.predicting(new), len(inside), {"": y}, grids, 0, self.seed)
            part = with_intercept(smoothers.matrices[self.alpha_], problem.share)
            a[np.ix_(inside, np.searchsorted(used, problem.used))] = part

        # Moments and the like are taken in double precision, which is four times what a block is.
        place = np.searchsorted(used, at)
        for columns, predicted in smoothed(a, y, used, self.fit_intercept, self.block_bytes // 4):
            yield predicted, y.block(used, columns)[place]

    def true_blocks(self) -> Iterator[np.ndarray]:
        """The training targets, each distinct row once, some columns after others."""
        for columns in spans(self.n_targets_, self.block_bytes // (16 * len(self.targets_))):
            yield self._y.block(self.targets_.at, columns)
            self._y.forget()

    @property
    def n_features_(self) -> int:
        """Number of features, p."""
        return len(self._mean)

    @property
    def n_targets_(self) -> int:
        """Number of targets, t."""
        return int(np.prod(self.targets_.shape[1:], dtype=np.int64))

    @property
    def precision_(self) -> str:
        """Arithmetic of the map that is kept, "float32" or "float64"."""
        return self._map.dtype.name

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything `predict` needs but the targets: no folder of theirs either.

        Returns
        -------
        tensors : dict of str to ndarray
            the map (p, distinct stimuli), mean of the features, weights of the stimuli in the mean
        meta : dict of str to object
            settings, and under which key and ids the targets lie in their feature store
        """
        record = self.targets_.store.record
        settings = {name: getattr(self, name) for name in _SETTINGS}
        meta = {
            "kind": "streamed_ridge",
            "version": 1,
            "alphas": self.alphas_.tolist(),
            "alpha": self.alpha_,
            **settings,
            "n_rows": self.n_rows_,
            "store": {"key": record["key"], "spec": dict(record["spec"]), "shape": list(record["shape"])},
            "ids": [str(i) for i in self.targets_.ids],
        }

        return {"map": self._map, "x_mean": self._mean, "share": self._share}, meta

    @classmethod
    def from_state(
        cls, tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any], cache: str | Path | None = None
    ) -> Self:
        """Restore a map from what `state` gave.

        Parameters
        ----------
        tensors : mapping of str to ndarray
            its arrays
        meta : mapping of str to object
            its settings, and where its targets lie
        cache : str or Path, optional
            folder of feature stores; by default the one that PHOSPHENE_CACHE names

        Returns
        -------
        StreamedRidge
            fitted

        Raises
        ------
        ModelError
            When its targets are not in the cache any more, no cache is named, or a part is missing or does not fit.
        """
        if meta.get("kind") != "streamed_ridge" or meta.get("version") != 1:
            raise ModelError(
                f"This is not a streamed ridge map of version 1 but kind {meta.get('kind')!r}, version "
                f"{meta.get('version')!r}; load it with the version of phosphene that wrote it."
            )

        weights, mean, share = take(dict(tensors), _TENSORS, "StreamedRidge")
        ids = meta["ids"]
        if weights.shape != (len(mean), len(ids)) or share.shape != (len(ids),):
            raise ModelError(
                f"The saved streamed ridge map has shape {weights.shape} and shares of shape {share.shape}, but should "
                f"have ({len(mean)}, {len(ids)}) and ({len(ids)},); fit it again."
            )

        store = _located(meta["store"], cache or cache_folder())
        alpha = meta["alphas"]
        if len(alpha) == 1:
            alpha = alpha[0]

        streamed = cls(alpha, **{name: meta[name] for name in _SETTINGS})
        streamed.alpha_ = float(meta["alpha"])
        streamed.n_rows_ = int(meta["n_rows"])

        targets = store.select(ids)
        order = np.argsort(targets.at)  # a store that was made anew may hold its rows in another order
        if (order == np.arange(len(order))).all():
            order = ALL  # no copies

        streamed.targets_ = StoredRows(store, targets.at[order])
        streamed._map = np.ascontiguousarray(weights[:, order])
        streamed._mean = np.asarray(mean)
        streamed._share = np.asarray(share)[order]

        return streamed

    @cached_property
    def _y(self) -> BlockReader:
        """The targets, checked against their hashes when first read by this process."""
        return BlockReader(self.targets_.mapped(), "the stored targets")


def _located(wanted: Mapping[str, Any], cache: Path | str | None) -> RowStore:
    """The store of a saved map's targets, by key, spec and shape of a row."""
    key = wanted["key"]
    words = [str(wanted["spec"][name]) for name in ("extractor", "what", "output") if name in wanted["spec"]]
    description = " ".join(words) or "features"
    remedy = (
        "Name the folder they are in with PHOSPHENE_CACHE; if they are gone, fit again, which computes them anew where "
        "PHOSPHENE_CACHE names a folder, or keeps coefficients in place of them where it does not."
    )

    if cache is None:
        raise ModelError(
            f"this map predicts from targets in a feature store ({description}, {key}), but no cache is named. {remedy}"
        )

    folder = Path(cache) / key
    if not (folder / INDEX).is_file():
        raise ModelError(
            f"this map predicts from targets ({description}) that are not in the cache: {folder} is no store. {remedy}"
        )

    store = RowStore.open(folder)
    if store.record["key"] != key or list(store.record["shape"]) != list(wanted["shape"]):
        raise ModelError(f"{folder} holds a store of other rows ({store.record['key']}) than this map needs. {remedy}")

    return store
