"""Ridge towards targets that stay in their feature store: a fitted map without weights, for any new rows.

Predictions are P = mean + (Z - mean of X) B (Y - mean), where B (p, n) = X^T (X X^T + a I)^-1 of the centred training
features is the same for all targets. A fitted map keeps B and the place of Y; Y itself is read when something is
predicted. At the size of NSD (8,859 stimuli, 15,724 voxels) B takes 0.56 GB however many targets there are, where the
dual coefficients of 257 x 768 CLIP tokens take 7.0 GB beside features of 0.56 GB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from phosphene.align import gram as _gram
from phosphene.align.penalty import penalties
from phosphene.align.rows import ALL, RowBlocks, destination, spans
from phosphene.align.smoother import SmootherDesign, products, with_intercept, write
from phosphene.errors import DataError, ModelError
from phosphene.features import cache_folder
from phosphene.io.stages import take
from phosphene.io.store import INDEX, RowStore, StoredRows

_TENSORS = ("map", "x_mean", "share")
_SETTINGS = ("fit_intercept", "sketch_size", "seed", "block_bytes")


class StreamedRidge:
    """Linear map with an L2 penalty from (n, p) to the rows of a feature store, which it reads whenever it predicts.

    Equal to `Ridge` with the same penalty, within 1e-4 of the predictions' spread of a double-precision solution. Every
    call of `predict` reads all of the training targets once: predict many rows at a time.

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
    block_bytes : int, optional
        size of the blocks that are read, in bytes

    Attributes
    ----------
    alpha_ : the penalty
    n_features_, n_targets_, n_rows_ : p, t, n
    precision_ : str
        "float32" or "float64", the arithmetic of the map; float64 where the penalty is small beside the largest
        eigenvalue

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
        self.alphas_ = penalties(alpha)
        self.fit_intercept = bool(fit_intercept)
        self.sketch_size = sketch_size
        self.seed = seed
        self.block_bytes = block_bytes

    def __repr__(self) -> str:
        return f"StreamedRidge(alpha={self.alphas_.tolist()}, fit_intercept={self.fit_intercept})"

    def fit(self, X, targets: StoredRows) -> Self:
        """Fit the map.

        Parameters
        ----------
        X : array-like of shape (n, p)
            features, as `Ridge` takes them
        targets : StoredRows
            n rows of a store, flattened to (n, t); stimuli may repeat

        Raises
        ------
        DataError
            As `Ridge`, and when there is not one target for each row of X.
        ModelError
            When targets are not computed or damaged.
        """
        x = RowBlocks(X, "X")
        self.targets_ = targets
        self.__dict__.pop("_y", None)  # of an earlier fit

        if len(targets) != x.shape[0]:
            raise DataError(f"X has {x.shape[0]} rows but came with {len(targets)} targets; select the same stimuli.")

        design = SmootherDesign.of(x, targets.at, self.fit_intercept, self.block_bytes)
        self.targets_ = StoredRows(targets.store, design.used)
        sources = {"targets": self._y}
        grids = {"targets": self.alphas_}
        found = design.smoothers(design.itself, x.shape[1], sources, grids, self.sketch_size, self.seed)
        self.alpha_ = found.alphas["targets"]
        is_fine = _gram.too_coarse(found.largest, self.alpha_, _gram.TOLERANCE)
        self._map = np.ascontiguousarray(found.maps[self.alpha_], dtype=np.float64 if is_fine else np.float32)
        self._mean = design.mean
        self._share = design.share
        self.n_rows_ = x.shape[0]

        return self

    def predict(self, X, out: np.ndarray | None = None, columns: slice = ALL) -> np.ndarray:
        """Predict (m, t) float32 targets for (m, p) features; each row as if it were alone, but for rounding.

        Parameters
        ----------
        X : array-like of shape (m, p)
        out : ndarray, optional
            float32 array or memory map (m, t) to write to
        columns : slice, optional
            which of the targets, all by default; ``out`` then has only those

        Raises
        ------
        ModelError
            Before `fit`, for another number of columns, or when targets are damaged.
        """
        blocks = self.blocks(X, columns)
        begin, end, _ = columns.indices(self.n_targets_)
        out = destination(out, (np.shape(X)[0], end - begin))
        write(blocks, out, begin)

        return out

    def blocks(self, X, columns: slice = ALL) -> Iterator[tuple[slice, np.ndarray]]:
        """The same some columns at a time: where they are among the targets, and (m, columns), good until the next."""
        if not hasattr(self, "_map"):
            raise ModelError("This streamed ridge map is not fitted yet: call fit(X, targets) first.")

        new = RowBlocks(X, "X")
        if new.shape[1] != self.n_features_:
            raise ModelError(
                f"X has {new.shape[1]} columns but this map was fitted on {self.n_features_}; "
                f"use the same voxels or features in the same order, or fit again."
            )

        new.mean(self.block_bytes)  # checks every value
        a = with_intercept(new.block(minus=self._mean, dtype=self._map.dtype.type) @ self._map, self._share)

        return products(a, self._y, self.targets_.at, self.fit_intercept, self.block_bytes, columns)

    def left_out(self, X, targets: StoredRows, fold: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What maps of the same penalty, fitted without the rows of a fold, predict for them; beside the truth.

        Parameters
        ----------
        X, targets : as they were given to `fit`
        fold : ndarray of shape (n,)
            number of each row's fold

        Yields
        ------
        tuple of (ndarray, ndarray)
            (predicted, true), both (n, columns) float32, some columns after others; good until the next
        """
        x = RowBlocks(X, "X")
        y = RowBlocks(targets.mapped(), "the stored targets")
        at = targets.at
        fold = np.asarray(fold)
        used = np.unique(at)
        a = np.zeros((len(at), len(used)), np.float32)

        for f in np.unique(fold):
            inside = np.flatnonzero(fold == f)
            outside = np.flatnonzero(fold != f)
            rest = SmootherDesign.of(
                RowBlocks(x.array[outside], "X"), at[outside], self.fit_intercept, self.block_bytes
            )

            new = RowBlocks(x.array[inside], "X")
            grid = np.array([self.alpha_])
            found = rest.smoothers(rest.between(new), len(inside), {"": y}, {"": grid}, 0, self.seed)
            a[np.ix_(inside, np.searchsorted(used, rest.used))] = with_intercept(found.maps[self.alpha_], rest.share)

        # Moments and the like are taken in double precision, which is four times what a block is.
        for columns, predicted in products(a, y, used, self.fit_intercept, self.block_bytes // 4):
            yield predicted, y.block(used, columns)[np.searchsorted(used, at)]

    def true_blocks(self) -> Iterator[np.ndarray]:
        """The training targets, each distinct row once, some columns after others."""
        for columns in spans(self.n_targets_, self.block_bytes // (16 * len(self.targets_))):
            yield self._y.block(self.targets_.at, columns)
            self._y.forget()

    @property
    def n_features_(self) -> int:
        """p."""
        return len(self._mean)

    @property
    def n_targets_(self) -> int:
        """t."""
        return int(np.prod(self.targets_.shape[1:], dtype=np.int64))

    @property
    def precision_(self) -> str:
        """Of the map that is kept."""
        return self._map.dtype.name

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The map (p, distinct stimuli), and under which key and ids its targets lie in the feature store; no folder."""
        record = self.targets_.store.record
        meta = {
            "kind": "streamed_ridge",
            "version": 1,
            "alphas": self.alphas_.tolist(),
            "alpha": self.alpha_,
            **{name: getattr(self, name) for name in _SETTINGS},
            "n_rows": self.n_rows_,
            "store": {"key": record["key"], "spec": dict(record["spec"]), "shape": list(record["shape"])},
            "ids": [str(i) for i in self.targets_.ids],
        }

        return dict(zip(_TENSORS, (self._map, self._mean, self._share), strict=True)), meta

    @classmethod
    def from_state(
        cls, tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any], cache: str | Path | None = None
    ) -> Self:
        """Restore a map from what `state` gave.

        Parameters
        ----------
        cache : str or Path, optional
            folder of feature stores; by default the one that PHOSPHENE_CACHE names

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
        alphas = meta["alphas"]
        self = cls(alphas[0] if len(alphas) == 1 else alphas, **{k: meta[k] for k in _SETTINGS})
        self.alpha_ = float(meta["alpha"])
        self.n_rows_ = int(meta["n_rows"])
        targets = store.select(ids)
        order = np.argsort(targets.at)  # a store that was made again may hold its rows in another order

        if (order == np.arange(len(order))).all():
            order = ALL

        self.targets_ = StoredRows(store, targets.at[order])
        self._map = np.ascontiguousarray(weights[:, order])
        self._mean = np.asarray(mean)
        self._share = np.asarray(share)[order]

        return self

    @cached_property
    def _y(self) -> RowBlocks:
        """The targets, checked against their hashes when first read by this process."""
        return RowBlocks(self.targets_.mapped(), "the stored targets")


def _located(store: Mapping[str, Any], cache: Path | str | None) -> RowStore:
    key = store["key"]
    spec = store["spec"]
    what = " ".join(str(spec[k]) for k in ("extractor", "what", "output") if k in spec) or "features"
    again = (
        "Name the folder they are in with PHOSPHENE_CACHE; if they are gone, fit again, which computes them anew where "
        "PHOSPHENE_CACHE names a folder, or keeps coefficients in place of them where it does not."
    )

    if cache is None:
        raise ModelError(
            f"this map predicts from targets in a feature store ({what}, {key}), but no cache is named. {again}"
        )

    folder = Path(cache) / key
    if not (folder / INDEX).is_file():
        raise ModelError(
            f"this map predicts from targets ({what}) that are not in the cache: {folder} is no store. {again}"
        )

    found = RowStore.open(folder)
    if found.record["key"] != key or list(found.record["shape"]) != list(store["shape"]):
        raise ModelError(f"{folder} holds a store of other rows ({found.record['key']}) than this map needs. {again}")

    return found
