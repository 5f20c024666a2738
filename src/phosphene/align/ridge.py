"""Ridge regression for any number of targets: the linear map of every system here.

Minimises |Y - 1 b - X W|^2 + a |W|^2 (b unpenalised), the objective of scikit-learn's ``Ridge``. `Ridge.fit` goes through
the formulas of :mod:`phosphene.align.solvers` in order:

    G = X X^T or X^T X     the smaller Gram matrix of the centred features
    G = U diag(w) U^T      its eigenvectors, where there is a penalty to choose
    a                      the penalty of the smallest left-out error: leave-one-out, generalised, or folds
    B = (G + a I)^-1 Y     coefficients: dual, with G = X X^T; primal, with X^T Y in place of Y
    W = X^T B              primal weights of a dual problem, where they take less memory than B and X
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from phosphene.align import solvers
from phosphene.align.block_reader import ALL, BlockReader, Precision, destination, spans
from phosphene.align.estimator import Estimator, check_rows, check_whole, new_rows, paired_rows
from phosphene.align.penalties import check_penalties, check_scale, sketch_targets, warn_at_edge
from phosphene.align.solvers import Cholesky, Features, Spectrum
from phosphene.errors import ConfigError, ModelError, PhospheneWarning, did_you_mean

CHOICES = ("loo", "gcv", "folds")
SETTINGS = ("choose", "per_target", "folds", "fit_intercept", "sketch", "seed", "block_bytes")  # saved with the map


class Ridge(Estimator):
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
    block_bytes : int, default 134_217_728
        size of the blocks in which X and Y are read, in bytes

    Attributes
    ----------
    alpha_ : float or ndarray of shape (t,)
        the penalty; one for each target with ``per_target``
    alphas_ : ndarray of shape (k,)
        the penalties on offer, ascending
    errors_ : ndarray of shape (k,) or (k, t)
        mean squared left-out error of each ("gcv": the criterion), if there was something to choose
    n_features_, n_targets_, n_rows_ : int
        p, t and n
    precision_ : {"float32", "float64"}
        the arithmetic of the fit
    x_mean_ : ndarray of shape (p,)
        mean of X; zeros without an intercept; float64
    y_mean_ : ndarray of shape (t,)
        mean of Y; zeros without an intercept; float64

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
    than 1e-4 of their standard deviation from the double-precision solution; where the penalty is too small beside the
    largest eigenvalue for that, the fit is repeated in double precision. Predictions are float32.

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
        if choose not in CHOICES:
            raise ConfigError(f"choose = {choose!r} is no way to choose the penalty. {did_you_mean(choose, CHOICES)}")

        check_whole("folds", folds, 2)
        check_whole("block_bytes", block_bytes, 1 << 16)
        if sketch is not None:
            check_whole("sketch", sketch, 1)
            if per_target:
                raise ConfigError("sketch mixes targets and so chooses one penalty for all: set per_target=False.")

        self.alpha = alpha
        self.alphas_ = check_penalties(alpha)
        self.choose = choose
        self.per_target = bool(per_target)
        self.folds = folds
        self.fit_intercept = bool(fit_intercept)
        self.sketch = sketch
        self.seed = seed
        self.block_bytes = block_bytes

    def __repr__(self) -> str:
        return f"Ridge(alpha={self.alpha!r}, choose={self.choose!r}, per_target={self.per_target})"

    # -- fit -----------------------------------------------------------------------------------------------------------

    def fit(self, X: ArrayLike, Y: ArrayLike, groups: ArrayLike | None = None, out: np.ndarray | None = None) -> Ridge:
        """Fit the map.

        Parameters
        ----------
        X : array-like of shape (n, p)
            features, real numbers; array, memory map or HDF5 data set. A memory map that is wider than long is kept by
            reference and must stay in place until `predict` or `state` has run.
        Y : array-like of shape (n, t) or (n,)
            targets, likewise
        groups : array-like of shape (n,), optional
            stimulus of each row, for ``choose="folds"``
        out : ndarray, optional
            float32 array or memory map to keep the coefficients in, of the shape `coefficients_shape` gives; by default
            they are kept in memory

        Returns
        -------
        Ridge
            the fitted map itself

        Raises
        ------
        DataError
            If X or Y holds values that are not finite, or not real numbers (the message names the first one), if their
            lengths differ, if X has one row or does not vary, or if the penalty is so large that nothing is left.
        """
        x, y, is_flat = paired_rows(X, Y)
        n, p = x.shape
        t = y.shape[1]
        self._check_groups(groups)
        if self.fit_intercept:
            check_rows(n)

        mean = x.mean(self.block_bytes)  # the pass that checks every value
        if not self.fit_intercept:
            mean = np.zeros(p)

        self.n_rows_ = n
        self.n_features_ = p
        self.n_targets_ = t
        self.x_mean_ = mean
        self.y_mean_ = np.zeros(t)
        self._flat = is_flat

        features = Features(x, mean, self.block_bytes)
        dtype = solvers.precision(n, p, t, len(self.alphas_))
        if not self._solve(features, y, groups, dtype, out):
            self._solve(features, y, groups, np.float64, out)

        x.forget()
        y.forget()

        return self

    def _solve(
        self, features: Features, y: BlockReader, groups: ArrayLike | None, dtype: Precision, out: np.ndarray | None
    ) -> bool:
        """Choose the penalty and form the coefficients; False if ``dtype`` is too coarse for that."""
        is_coarse = dtype is np.float32
        chooses = len(self.alphas_) > 1

        # The Gram matrix, and whether this precision carries the penalties on offer.
        lower = features.gram(dtype)  # (s, s)
        largest = solvers.largest_eigenvalue(lower)
        tolerance = solvers.TOLERANCE
        if chooses:
            tolerance = solvers.SCORE_TOLERANCE

        if is_coarse and not np.isfinite(largest):
            return False

        if is_coarse and solvers.too_coarse(largest, self.alphas_[0], tolerance):
            return False

        check_scale(largest, self.x_mean_, self.alphas_, features.x)

        # Eigenvectors, and the penalty. Folds decompose matrices of their own.
        spectrum = None
        if chooses and (self.choose != "folds" or self.per_target):
            spectrum = Spectrum.of(lower, features.is_dual, features, self.fit_intercept, self.block_bytes)

        self.alpha_ = float(self.alphas_[0])
        if chooses:
            self.alpha_ = self._choose(features.x, y, groups, spectrum, dtype)

        needs_double = solvers.too_coarse(largest, float(np.min(self.alpha_)), solvers.TOLERANCE)
        if is_coarse and needs_double:
            return False

        # The coefficients, which are kept in single precision where that carries them.
        if spectrum is not None:
            solver = spectrum
        else:
            solver = Cholesky.of(lower, float(self.alpha_), largest)
            if solver is None:
                return False

        kept = np.float32
        if needs_double:
            kept = np.float64

        self._keep_coefficients(features, y, solver, dtype, kept, out)
        self.precision_ = np.dtype(dtype).name

        return True

    def _choose(
        self,
        x: BlockReader,
        y: BlockReader,
        groups: ArrayLike | None,
        spectrum: Spectrum | None,
        dtype: Precision,
    ) -> float | np.ndarray:
        """Penalty of the smallest left-out error, one or (t,)."""
        n = x.shape[0]
        t = y.shape[1]
        if self.per_target:
            total = np.zeros((len(self.alphas_), t))
        else:
            total = np.zeros(len(self.alphas_))

        for columns, errors in self._left_out_errors(x, y, groups, spectrum, dtype):
            if self.per_target:
                total[:, columns] += errors
            else:
                total += errors.sum(axis=1)

        if self.per_target:
            self.errors_ = total / n
        else:
            self.errors_ = total / (n * t)

        best = total.argmin(axis=0)
        warn_at_edge(best, self.alphas_)
        if self.per_target:
            return self.alphas_[best]

        return float(self.alphas_[best])

    def _left_out_errors(
        self,
        x: BlockReader,
        y: BlockReader,
        groups: ArrayLike | None,
        spectrum: Spectrum | None,
        dtype: Precision,
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Sums of squared left-out errors (k, columns) of some targets, to be added up."""
        sketched = None
        if self.sketch is not None:
            blocks = ((columns, ALL, block) for columns, block in self._centred_targets(y, dtype))
            sketched = sketch_targets(blocks, x.shape[0], y.shape[1], self.sketch, self.seed)

        def judged() -> Iterator[tuple[slice, np.ndarray]]:
            if sketched is None:
                return self._centred_targets(y, dtype)

            return iter([(ALL, sketched)])

        if self.choose != "folds":
            assert spectrum is not None
            for columns, block in judged():
                if self.choose == "loo":
                    yield columns, spectrum.leave_one_out(block, self.alphas_)
                else:
                    yield columns, spectrum.generalised(block, self.alphas_)

            return

        for fold in solvers.folds(x, np.asarray(groups), self.folds, self.fit_intercept, dtype, self.block_bytes):
            for columns, block in judged():
                y_train = block[fold.train]
                y_test = block[fold.test]

                if self.fit_intercept:
                    mean = y_train.mean(axis=0)
                    y_train = y_train - mean
                    y_test = y_test - mean

                yield columns, fold.errors(y_train, y_test, self.alphas_)

    def _keep_coefficients(
        self,
        features: Features,
        y: BlockReader,
        solver: Spectrum | Cholesky,
        dtype: Precision,
        kept: Precision,
        out: np.ndarray | None,
    ) -> None:
        """Form dual coefficients or weights, whichever are smaller, and with the former keep the features."""
        n, p = features.shape
        shape = self.coefficients_shape(n, p, y.shape[1])
        keeps_dual = features.is_dual and shape[0] == n
        self._coefficients = destination(out, shape, kept)

        for columns, block in self._centred_targets(y, dtype):
            if isinstance(solver, Spectrum):
                alpha = self.alpha_
                if isinstance(alpha, np.ndarray):
                    alpha = alpha[columns]

                part = solver.coefficients(solver.project(block), alpha)  # (s, columns)
            else:
                if not features.is_dual:
                    block = features.transposed_times(block)  # (p, columns)

                part = solver.solve(np.asfortranarray(block))  # (s, columns)

            if features.is_dual and not keeps_dual:
                part = features.transposed_times(np.ascontiguousarray(part))  # (p, columns)

            self._coefficients[:, columns] = part

        self._training = None
        if keeps_dual and features.x.is_mapped:
            self._training = features
        elif keeps_dual:
            centred = features.x.block(minus=self.x_mean_, dtype=self._coefficients.dtype)
            self._training = Features(BlockReader(centred, "X"), np.zeros(p), self.block_bytes)

    @staticmethod
    def coefficients_shape(n: int, p: int, t: int) -> tuple[int, int]:
        """Shape of the coefficients that a fit keeps.

        Parameters
        ----------
        n, p, t : int
            rows, features and targets

        Returns
        -------
        tuple of (int, int)
            (p, t) weights, or (n, t) with the (n, p) features if that is less
        """
        if p * t <= n * (p + t):
            return (p, t)

        return (n, t)

    def _centred_targets(self, y: BlockReader, dtype: Precision) -> Iterator[tuple[slice, np.ndarray]]:
        """Targets less their means, some columns at a time; the means are kept on the way."""
        wide = dtype
        if y.array.dtype.itemsize > 4:
            wide = np.float64

        for columns in spans(y.shape[1], self._width(y.shape[0])):
            block = y.block(ALL, columns, dtype=wide)  # (n, columns)
            y.check(block, 0, columns.start)

            if self.fit_intercept:
                self.y_mean_[columns] = block.mean(axis=0, dtype=np.float64)
                np.subtract(block, self.y_mean_[columns], out=block, casting="unsafe")

            y.forget()
            yield columns, block.astype(dtype, copy=False)

    def _width(self, rows: int) -> int:
        """How many columns of so many rows make a block."""
        return self.block_bytes // (8 * rows)

    def _check_groups(self, groups: ArrayLike | None) -> None:
        if len(self.alphas_) == 1:
            return

        if self.choose == "folds":
            if groups is None:
                raise ConfigError(
                    "choose='folds' keeps the trials of one stimulus together, so fit needs groups=stimulus ids, one "
                    "per row; if no stimulus repeats, groups=np.arange(len(X)) leaves out single trials."
                )

            return

        if groups is None:
            return

        n_rows = np.shape(groups)[0]
        n_groups = len(np.unique(np.asarray(groups)))
        if n_groups < n_rows:
            warnings.warn(
                f"choose={self.choose!r} leaves out single rows, but {n_rows} rows share "
                f"{n_groups} groups: other trials of the left-out stimulus stay in and make the penalty "
                f"too small. Use choose='folds'.",
                PhospheneWarning,
                stacklevel=3,
            )

    # -- predict -------------------------------------------------------------------------------------------------------

    def predict(self, X: ArrayLike, out: np.ndarray | None = None) -> np.ndarray:
        """Predict targets; each row as if it were alone, but for rounding.

        Parameters
        ----------
        X : array-like of shape (m, p)
            features, in the order of the fit
        out : ndarray of shape (m, t), optional
            float32 array or memory map to write to

        Returns
        -------
        ndarray of shape (m, t) or (m,), float32
            without the second axis where Y had none

        Raises
        ------
        ModelError
            Before `fit`, or if X has another number of columns than the model was fitted on.
        """
        self._refuse_unfitted()
        new = new_rows(X, self.n_features_, self.block_bytes)
        m = new.shape[0]
        out = destination(out, (m, self.n_targets_))
        dtype = self._coefficients.dtype.type

        if self._training is not None:
            kernel = self._training.cross(new, self.x_mean_, dtype).T  # (m, n)
            self._multiply(kernel, out)
        else:
            for rows in spans(m, self._width(self.n_features_)):
                centred = new.block(rows, ALL, minus=self.x_mean_, dtype=dtype)  # (rows, p)
                self._multiply(centred, out[rows])

        if self._flat:
            return out[:, 0]

        return out

    def _multiply(self, design: np.ndarray, out: np.ndarray) -> None:
        """Write design times coefficients plus the targets' means, some columns at a time."""
        for columns in spans(self.n_targets_, self._width(sum(design.shape))):
            out[:, columns] = design @ self._coefficients[:, columns] + self.y_mean_[columns]

    # -- weights -------------------------------------------------------------------------------------------------------

    @property
    def coef_(self) -> np.ndarray:
        """Primal weights (p, t) float32, formed when asked for; for many targets use `weights`."""
        return self.weights(ALL)

    @property
    def intercept_(self) -> np.ndarray:
        """Intercepts (t,) float64: predictions for X = 0."""
        self._refuse_unfitted()
        parts = []
        for columns in spans(self.n_targets_, self._width(self.n_features_)):
            parts.append(self.y_mean_[columns] - self.x_mean_ @ self.weights(columns))

        return np.concatenate(parts)

    def weights(self, targets: slice) -> np.ndarray:
        """Primal weights (p, number of targets) float32 of a slice of the targets."""
        self._refuse_unfitted()
        part = np.ascontiguousarray(self._coefficients[:, targets])
        if self._training is not None:
            part = self._training.transposed_times(part)  # (p, targets)

        return part.astype(np.float32, copy=False)

    # -- saving --------------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything `predict` needs, in the smaller of the two forms.

        `from_state` restores a map whose predictions are equal to the last bit.

        Returns
        -------
        tensors : dict of str to ndarray
            weights (p, t), or dual coefficients (n, t) with the centred training features (n, p)
        meta : dict of str to object
            settings, ready for JSON
        """
        self._refuse_unfitted()
        tensors = {
            "x_mean": self.x_mean_,
            "y_mean": self.y_mean_,
            "coefficients": self._coefficients,
            "alpha": np.atleast_1d(np.asarray(self.alpha_, dtype=np.float64)),
        }

        form = "primal"
        if self._training is not None:
            form = "dual"
            features = self._training
            tensors["x_centred"] = features.x.block(minus=features.mean, dtype=self._coefficients.dtype)

        meta = {
            "kind": "ridge",
            "version": 1,
            "form": form,
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

        Parameters
        ----------
        tensors : mapping of str to ndarray
            its arrays
        meta : mapping of str to object
            its settings

        Returns
        -------
        Ridge
            fitted

        Raises
        ------
        ModelError
            If a part is missing, is not finite, or does not fit the others.
        """
        _check_state(tensors, meta)
        alpha = meta["alphas"]
        if len(alpha) == 1:
            alpha = alpha[0]

        ridge = cls(alpha, **{name: meta[name] for name in SETTINGS})
        ridge.n_rows_ = meta["n_rows"]
        ridge.n_features_ = len(tensors["x_mean"])
        ridge.n_targets_ = len(tensors["y_mean"])
        ridge.precision_ = meta["precision"]
        ridge.x_mean_ = np.asarray(tensors["x_mean"])
        ridge.y_mean_ = np.asarray(tensors["y_mean"])
        ridge._flat = meta["flat"]
        ridge._coefficients = np.ascontiguousarray(tensors["coefficients"])

        ridge.alpha_ = np.asarray(tensors["alpha"])
        if not ridge.per_target or len(ridge.alphas_) == 1:
            ridge.alpha_ = float(ridge.alpha_[0])

        ridge._training = None
        if meta["form"] == "dual":
            centred = BlockReader(np.ascontiguousarray(tensors["x_centred"]), "x_centred")
            ridge._training = Features(centred, np.zeros(ridge.n_features_), ridge.block_bytes)

        return ridge

    def _refuse_unfitted(self) -> None:
        if not hasattr(self, "_coefficients"):
            raise ModelError("This ridge map is not fitted yet: call fit(X, Y) first.")


def _check_state(tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Refuse a saved map of another kind, or one whose parts are missing, not finite, or of other shapes."""
    if meta.get("kind") != "ridge" or meta.get("version") != 1:
        raise ModelError(
            f"This is not a ridge map of version 1 but kind {meta.get('kind')!r}, version {meta.get('version')!r}; "
            f"load it with the version of phosphene that wrote it."
        )

    expected = {"x_mean", "y_mean", "coefficients", "alpha"}
    if meta["form"] == "dual":
        expected.add("x_centred")

    if set(tensors) != expected:
        raise ModelError(
            f"A saved {meta['form']} ridge map holds the arrays {sorted(expected)} but this one holds "
            f"{sorted(tensors)}; fit and save it again."
        )

    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ModelError(f"The saved ridge map's {name} holds values that are not finite; fit it again.")

    n = meta["n_rows"]
    p = len(tensors["x_mean"])
    t = len(tensors["y_mean"])
    shapes = {"coefficients": (p, t)}
    if meta["form"] == "dual":
        shapes = {"coefficients": (n, t), "x_centred": (n, p)}

    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ModelError(f"The saved ridge map's {name} has shape {tensors[name].shape} but should have {shape}.")

    n_penalties = len(tensors["alpha"])
    if n_penalties not in (1, t):
        raise ModelError(f"The saved ridge map has {n_penalties} penalties for {t} targets.")
