"""Ridge regression for any number of targets: the linear map of every system here.

Minimises |Y - 1 b - X W|^2 + a |W|^2 (b unpenalised), the objective of scikit-learn's ``Ridge``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from phosphene.align import gram as _gram
from phosphene.align.penalty import check_scale, factor, penalties, sketch, warn_at_edge
from phosphene.align.rows import ALL, RowBlocks, destination, spans
from phosphene.errors import ConfigError, DataError, ModelError, PhospheneWarning, did_you_mean

CHOICES = ("loo", "gcv", "folds")


class Ridge:
    """Linear map with an L2 penalty from (n, p) to (n, t), with the penalty given or chosen.

    One Cholesky factorisation (penalty given) or one eigendecomposition (penalty chosen) of the smaller of the n x n
    and p x p matrices serves every target and every penalty. Neither X nor Y needs to fit in memory: both are read in
    blocks, and only the fitted coefficients, t times min(n, p), are kept. To predict very many targets once, from
    disk to disk, without even those, see `ridge_predict`.

    Parameters
    ----------
    alpha : float or sequence of float, default 1.0
        penalty above 0 in the units of scikit-learn's ``Ridge(alpha)``, or a sequence of penalties to choose from
    choose : {"loo", "gcv", "folds"}, default "loo"
        how to choose: "loo" (exact leave-one-row-out), "gcv" (generalised cross-validation, leave-one-out with every
        leverage replaced by their mean) or "folds" (folds that keep the rows of one group together, as scikit-learn's
        ``GroupKFold``; pass ``groups`` to `fit`). The squared error over all left-out rows decides.
    per_target : bool, default False
        choose one penalty for each target instead of one for all
    folds : int, default 5
        how many folds
    fit_intercept : bool, default True
        centre X and Y on their training means
    sketch : int, optional
        when one penalty is chosen for all targets, judge it on this many random combinations of them (Gaussian,
        unbiased for the total squared error) instead of on every target; None: every target
    seed : int, default 0
        seed of the sketch
    block_bytes : int, optional
        size of the blocks in which X and Y are read, in bytes

    Attributes
    ----------
    alpha_ : the penalty, a float, or (t,) with ``per_target``
    alphas_, errors_ : the penalties tried, ascending, and their mean squared left-out errors ("gcv": the criterion):
        (k,), or (k, t) with ``per_target``
    n_features_, n_targets_, n_rows_ : p, t, n
    precision_ : "float32" or "float64", the arithmetic of the fit
    x_mean_, y_mean_ : (p,) and (t,) float64; zeros without an intercept

    Raises
    ------
    ConfigError
        For a penalty that is not a positive number, or another parameter out of range.

    Warns
    -----
    PhospheneWarning
        If the chosen penalty is the smallest or largest on offer (per target: if that holds for 5 % of them), or if
        groups repeat while single rows are left out.

    Notes
    -----
    Small problems are solved in double precision. Large ones run in single precision, which moves predictions by less
    than 1e-4 of their spread from the double-precision solution; where the penalty is too small beside the largest
    eigenvalue for that, the fit is repeated in double precision. Predictions are float32.

    Exact leave-one-out follows from the fitted values' hat matrix H: the error of row i when left out is its
    residual / (1 - H_ii) (Allen 1974; Golub, Heath and Wahba 1979, Technometrics 21, for "gcv").

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [4.0, 0.0], [6.0, 1.0]])
    >>> y = x @ np.array([[1.0], [-2.0]]) + 5
    >>> Ridge(alpha=1e-9).fit(x, y).predict(x).ravel().round(2)
    array([3., 6., 5., 9., 9.], dtype=float32)
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        alpha: float | Sequence[float] = 1.0,
        *,
        choose: Literal["loo", "gcv", "folds"] = "loo",
        per_target: bool = False,
        folds: int = 5,
        fit_intercept: bool = True,
        sketch: int | None = None,
        seed: int = 0,
        block_bytes: int = 128 << 20,
    ):
        self.alpha = alpha
        self.alphas_ = penalties(alpha)
        if choose not in CHOICES:
            raise ConfigError(f"choose = {choose!r} is no way to choose the penalty. {did_you_mean(choose, CHOICES)}")

        check_whole("folds", folds, 2)
        check_whole("block_bytes", block_bytes, 1 << 16)
        if sketch is not None:
            check_whole("sketch", sketch, 1)
            if per_target:
                raise ConfigError("sketch mixes targets and so chooses one penalty for all: set per_target=False.")

        self.choose = choose
        self.per_target = bool(per_target)
        self.folds = folds
        self.fit_intercept = bool(fit_intercept)
        self.sketch = sketch
        self.seed = seed
        self.block_bytes = block_bytes

    def __repr__(self) -> str:
        return f"Ridge(alpha={self.alpha!r}, choose={self.choose!r}, per_target={self.per_target})"

    def fit(self, X, Y, groups=None, out: np.ndarray | None = None) -> Ridge:
        """Fit the map.

        Parameters
        ----------
        X : array-like of shape (n, p)
            features, real numbers; array, memory map or HDF5 data set. A memory map that is wider than long is kept by
            reference and must stay in place until `predict` or `state` has run.
        Y : array-like of shape (n, t)
            targets, likewise, or (n,)
        groups : array-like of shape (n,), optional
            stimulus of each row, for ``choose="folds"``
        out : ndarray, optional
            float32 array or memory map to keep the coefficients in, of the shape `coefficients_shape` gives; by default
            they are kept in memory

        Returns
        -------
        self : Ridge

        Raises
        ------
        DataError
            If X or Y holds values that are not finite, or not real numbers (the message names the first one), if their
            lengths differ, if X has one row or does not vary, or if the penalty is so large that nothing is left.
        """
        x, y, flat = paired_rows(X, Y)
        n, p = x.shape
        t = y.shape[1]
        choosing = len(self.alphas_) > 1
        self._check_groups(groups, choosing)

        if self.fit_intercept and n < 2:
            raise DataError("X has a single row: nothing remains of it after centring. Fit on at least two trials.")

        x_mean = x.mean(self.block_bytes)
        if not self.fit_intercept:
            x_mean = np.zeros(p)

        self.n_rows_ = n
        self.n_features_ = p
        self.n_targets_ = t
        self._flat = flat
        self.x_mean_ = x_mean
        self.y_mean_ = np.zeros(t)
        dtype = _gram.precision(n, p, t, len(self.alphas_))

        if not self._solve(x, y, groups, dtype, out):
            self._solve(x, y, groups, np.float64, out)

        x.forget(), y.forget()
        return self

    def predict(self, X, out: np.ndarray | None = None) -> np.ndarray:
        """Predict (m, t) float32 targets for (m, p) features; each row as if it were alone, but for rounding.

        Parameters
        ----------
        X : array-like of shape (m, p)
        out : ndarray, optional
            float32 array or memory map (m, t) to write to

        Raises
        ------
        ModelError
            Before `fit`, or if X has another number of columns than the model was fitted on.
        """
        self._fitted()
        new = RowBlocks(X, "X")
        m = new.shape[0]
        dtype = self._coefficients.dtype.type

        if new.shape[1] != self.n_features_:
            raise ModelError(
                f"X has {new.shape[1]} columns but this map was fitted on {self.n_features_}; "
                f"use the same voxels or features in the same order, or fit again."
            )

        new.mean(self.block_bytes)  # checks every value
        out = destination(out, (m, self.n_targets_))

        if self._x is not None:
            design = _gram.cross(self._x, self._x_minus, new, self.x_mean_, dtype, self.block_bytes).T
            self._apply(design, out)
        else:
            for rows in spans(m, self.block_bytes // (8 * self.n_features_)):
                self._apply(new.block(rows, ALL, minus=self.x_mean_, dtype=dtype), out[rows])

        if self._flat:
            return out[:, 0]

        return out

    @property
    def coef_(self) -> np.ndarray:
        """Primal weights (p, t) float32, formed when asked for; for many targets use `weights`."""
        return self.weights(ALL)

    @property
    def intercept_(self) -> np.ndarray:
        """Intercepts (t,) float64: predictions for X = 0."""
        self._fitted()
        blocks = spans(self.n_targets_, self._columns(self.n_features_))
        return np.concatenate([self.y_mean_[b] - self.x_mean_ @ self.weights(b) for b in blocks])

    def weights(self, targets: slice) -> np.ndarray:
        """Primal weights (p, number of targets) float32 of a slice of the targets."""
        self._fitted()
        part = np.ascontiguousarray(self._coefficients[:, targets])
        if self._x is not None:
            part = _gram.times_targets(self._x, self._x_minus, part, self.block_bytes)

        return part.astype(np.float32, copy=False)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything `predict` needs, as (named arrays, JSON-ready settings), in the smaller of the two forms.

        Weights (p, t), or dual coefficients (n, t) with the centred training features (n, p).
        `from_state` restores a map whose predictions are equal to the last bit.
        """
        self._fitted()
        tensors = {
            "x_mean": self.x_mean_,
            "y_mean": self.y_mean_,
            "coefficients": self._coefficients,
            "alpha": np.atleast_1d(np.asarray(self.alpha_, dtype=np.float64)),
        }

        if self._x is not None:
            tensors["x_centred"] = self._x.block(minus=self._x_minus, dtype=self._coefficients.dtype.type)

        meta = {
            "kind": "ridge",
            "version": 1,
            "form": "primal" if self._x is None else "dual",
            "alphas": self.alphas_.tolist(),
            "choose": self.choose,
            "per_target": self.per_target,
            "folds": self.folds,
            "fit_intercept": self.fit_intercept,
            "sketch": self.sketch,
            "seed": self.seed,
            "block_bytes": self.block_bytes,
            "flat": self._flat,
            "n_rows": self.n_rows_,
            "precision": self.precision_,
        }

        return tensors, meta

    @classmethod
    def from_state(cls, tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> Ridge:
        """Restore a map from what `state` gave.

        Raises
        ------
        ModelError
            If a part is missing, is not finite, or does not fit the others.
        """
        if meta.get("kind") != "ridge" or meta.get("version") != 1:
            raise ModelError(
                f"This is not a ridge map of version 1 but kind {meta.get('kind')!r}, version {meta.get('version')!r}; "
                f"load it with the version of phosphene that wrote it."
            )

        expected = {"x_mean", "y_mean", "coefficients", "alpha"} | ({"x_centred"} if meta["form"] == "dual" else set())
        if set(tensors) != expected:
            raise ModelError(
                f"A saved {meta['form']} ridge map holds the arrays {sorted(expected)} but this one holds "
                f"{sorted(tensors)}; fit and save it again."
            )

        for name, tensor in tensors.items():
            if not np.isfinite(tensor).all():
                raise ModelError(f"The saved ridge map's {name} holds values that are not finite; fit it again.")

        p = len(tensors["x_mean"])
        t = len(tensors["y_mean"])

        if meta["form"] == "primal":
            s = p
        else:
            s = meta["n_rows"]

        shapes = {"coefficients": (s, t), "x_centred": (meta["n_rows"], p)}
        for name in expected & set(shapes):
            if tensors[name].shape != shapes[name]:
                found = tensors[name].shape
                raise ModelError(f"The saved ridge map's {name} has shape {found} but should have {shapes[name]}.")

        if len(tensors["alpha"]) not in (1, t):
            raise ModelError(f"The saved ridge map has {len(tensors['alpha'])} penalties for {t} targets.")

        settings = ("choose", "per_target", "folds", "fit_intercept", "sketch", "seed", "block_bytes")
        alphas = meta["alphas"]
        self = cls(alphas[0] if len(alphas) == 1 else alphas, **{k: meta[k] for k in settings})
        self.n_rows_ = meta["n_rows"]
        self.n_features_ = p
        self.n_targets_ = t
        self._flat = meta["flat"]
        self.precision_ = meta["precision"]
        self.x_mean_ = np.asarray(tensors["x_mean"])
        self.y_mean_ = np.asarray(tensors["y_mean"])
        self._coefficients = np.ascontiguousarray(tensors["coefficients"])
        alpha = np.asarray(tensors["alpha"])

        if self.per_target and len(self.alphas_) > 1:
            self.alpha_ = alpha
        else:
            self.alpha_ = float(alpha[0])

        self._x = None
        self._x_minus = np.zeros(p)
        if meta["form"] == "dual":
            self._x = RowBlocks(np.ascontiguousarray(tensors["x_centred"]), "x_centred")

        return self

    @staticmethod
    def coefficients_shape(n: int, p: int, t: int) -> tuple[int, int]:
        """Shape of the coefficients kept: (p, t) weights, or (n, t) beside the (n, p) features if that is less."""
        if p * t <= n * (p + t):
            return (p, t)

        return (n, t)

    def _solve(self, x: RowBlocks, y: RowBlocks, groups, dtype: type, out: np.ndarray | None) -> bool:
        """Choose the penalty and form the coefficients; False if ``dtype`` is too coarse for that."""
        n, p = x.shape
        t = y.shape[1]
        dual = n < p
        lower = _gram.gram(x, self.x_mean_, dual, dtype, self.block_bytes)
        largest = _gram.largest_eigenvalue(lower)
        is_coarse = dtype is np.float32

        if len(self.alphas_) > 1:
            tolerance = _gram.SCORE_TOLERANCE
        else:
            tolerance = _gram.TOLERANCE

        if is_coarse and (not np.isfinite(largest) or _gram.too_coarse(largest, self.alphas_[0], tolerance)):
            return False

        check_scale(largest, self.x_mean_, self.alphas_, x)
        spectrum = None
        choosing = len(self.alphas_) > 1
        if choosing and (self.choose != "folds" or self.per_target):
            spectrum = _gram.Spectrum.of(lower, dual, x, self.x_mean_, self.fit_intercept, self.block_bytes)

        if choosing:
            self.alpha_ = self._choose(x, y, groups, spectrum, dtype)
        else:
            self.alpha_ = float(self.alphas_[0])

        fine = _gram.too_coarse(largest, float(np.min(self.alpha_)), _gram.TOLERANCE)
        if is_coarse and fine:
            return False

        if spectrum:
            factored = None
        else:
            factored = factor(lower, self.alpha_, largest)

        if factored is None and spectrum is None:
            return False

        if fine:
            keep = np.float64
        else:
            keep = np.float32

        shape = self.coefficients_shape(n, p, t)
        is_dual = dual and shape[0] == n
        self._coefficients = destination(out, shape, keep)

        for columns, block in self._blocks(y, dtype):
            if spectrum:
                if np.isscalar(self.alpha_):
                    alpha = self.alpha_
                else:
                    alpha = self.alpha_[columns]

                part = spectrum.coefficients(spectrum.project(block), alpha)
            else:
                if dual:
                    right = block
                else:
                    right = _gram.times_targets(x, self.x_mean_, block, self.block_bytes)

                part = _gram.solve(factored, np.asfortranarray(right))

            if dual and not is_dual:
                part = _gram.times_targets(x, self.x_mean_, np.ascontiguousarray(part), self.block_bytes)

            self._coefficients[:, columns] = part

        self._x = None
        self._x_minus = np.zeros(p)

        if is_dual and x.is_mapped:
            self._x = x
            self._x_minus = self.x_mean_
        elif is_dual:
            self._x = RowBlocks(x.block(minus=self.x_mean_, dtype=self._coefficients.dtype.type), "X")

        self.precision_ = np.dtype(dtype).name
        return True

    def _choose(self, x: RowBlocks, y: RowBlocks, groups, spectrum, dtype: type) -> float | np.ndarray:
        n = x.shape[0]
        t = y.shape[1]
        total = np.zeros((len(self.alphas_), t) if self.per_target else len(self.alphas_))

        def add(columns: slice, errors: np.ndarray) -> None:
            if self.per_target:
                total[:, columns] += errors
            else:
                total[:] += errors.sum(axis=1)

        mixed = None
        if self.sketch is not None:
            blocks = ((columns, ALL, block) for columns, block in self._blocks(y, dtype))
            mixed = sketch(blocks, n, t, self.sketch, self.seed)

        def judged() -> Iterator[tuple[slice, np.ndarray]]:
            if mixed is None:
                return self._blocks(y, dtype)

            return iter([(ALL, mixed)])

        if self.choose == "folds":
            parts = _gram.folds(x, groups, self.folds, n < x.shape[1], self.fit_intercept, dtype, self.block_bytes)
            for train, test, part, design in parts:
                for columns, block in judged():
                    y_train = block[train]
                    y_test = block[test]
                    if self.fit_intercept:
                        mean = y_train.mean(axis=0)
                        y_train = y_train - mean
                        y_test = y_test - mean

                    add(columns, _gram.held_out(part, design, y_train, y_test, self.alphas_))
        else:
            if self.choose == "loo":
                judge = spectrum.leave_one_out
            else:
                judge = spectrum.generalised

            for columns, block in judged():
                add(columns, judge(block, self.alphas_))

        self.errors_ = total / (n if self.per_target else n * t)
        best = total.argmin(axis=0)
        warn_at_edge(best, self.alphas_)

        if self.per_target:
            return self.alphas_[best]

        return float(self.alphas_[best])

    def _blocks(self, y: RowBlocks, dtype: type) -> Iterator[tuple[slice, np.ndarray]]:
        """Centred targets in column blocks; keeps their means."""
        if y.array.dtype.itemsize > 4:
            wide = np.float64
        else:
            wide = dtype

        for columns in spans(y.shape[1], self._columns(y.shape[0])):
            block = y.block(ALL, columns, dtype=wide)
            y.check(block, 0, columns.start)
            if self.fit_intercept:
                self.y_mean_[columns] = block.mean(axis=0, dtype=np.float64)
                np.subtract(block, self.y_mean_[columns], out=block, casting="unsafe")

            y.forget()
            yield columns, block.astype(dtype, copy=False)

    def _apply(self, design: np.ndarray, out: np.ndarray) -> None:
        for columns in spans(self.n_targets_, self._columns(sum(design.shape))):
            out[:, columns] = design @ self._coefficients[:, columns] + self.y_mean_[columns]

    def _columns(self, rows: int) -> int:
        return self.block_bytes // (8 * rows)

    def _check_groups(self, groups, choosing: bool) -> None:
        if self.choose == "folds" and choosing and groups is None:
            raise ConfigError(
                "choose='folds' keeps the trials of one stimulus together, so fit needs groups=stimulus ids, one per "
                "row; if no stimulus repeats, groups=np.arange(len(X)) leaves out single trials."
            )

        if self.choose != "folds" and choosing and groups is not None and len(np.unique(groups)) < len(groups):
            warnings.warn(
                f"choose={self.choose!r} leaves out single rows, but {len(groups)} rows share "
                f"{len(np.unique(groups))} groups: other trials of the left-out stimulus stay in and make the penalty "
                f"too small. Use choose='folds'.",
                PhospheneWarning,
                stacklevel=3,
            )

    def _fitted(self) -> None:
        if not hasattr(self, "_coefficients"):
            raise ModelError("This ridge map is not fitted yet: call fit(X, Y) first.")


def paired_rows(X, Y) -> tuple[RowBlocks, RowBlocks, bool]:
    """Both sides of a regression as rows, checked against each other; and whether Y came as one column without an axis."""
    x = RowBlocks(X, "X")
    flat = np.ndim(Y) == 1
    y = RowBlocks(np.asarray(Y)[:, None] if flat else Y, "Y")
    if x.shape[0] != y.shape[0]:
        raise DataError(
            f"X and Y must have one row per trial each, but X has {x.shape[0]} rows and Y has {y.shape[0]}; "
            f"select the same trials, in the same order, for both."
        )

    return x, y, flat


def check_whole(name: str, value, least: int) -> None:
    """Raise ConfigError for a setting that is no whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least} but is {value!r}.")
