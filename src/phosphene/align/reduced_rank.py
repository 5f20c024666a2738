"""Ridge of limited rank: the best linear map through a bottleneck, in closed form.

Minimises |Y - 1 b - X W|^2 + a |W|^2 over all W of rank at most r (b unpenalised). It is what a decoder with a
bottleneck of r units can do at best if it is linear, and so the fair rival of one that is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field
from scipy.linalg import eigh

from phosphene.align import solvers
from phosphene.align.block_reader import ALL, BlockReader, spans
from phosphene.align.decoders import ALPHAS
from phosphene.align.estimator import Estimator, check_rows, check_whole, new_rows, paired_rows
from phosphene.align.penalties import check_penalties, check_scale, warn_at_edge
from phosphene.align.solvers import Features, Spectrum
from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io.config import Config
from phosphene.io.stages import take

_ROUNDING = 1e-13  # share of the largest eigenvalue below which one is rounding of double precision


class ReducedRankConfig(Config):
    """A ridge of limited rank, for recipes that let one choose it in place of a network."""

    kind: Literal["reduced_rank"] = "reduced_rank"
    rank: tuple[int, ...] = Field(
        default=(200,), min_length=1, description="to choose among; 200 is the GRU's bottleneck"
    )
    alphas: tuple[float, ...] = Field(default=ALPHAS[::2], min_length=1, description="penalties to choose among")
    folds: int = Field(default=5, ge=2, description="folds over training stimuli that choose both")

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults: none for ``paper``, smaller ranks to choose among for ``lab``.

        Parameters
        ----------
        name : {"paper", "lab"}
            which preset

        Returns
        -------
        dict of str to object
            fields and their values
        """
        if name == "paper":
            return {}

        return {"rank": (5, 10, 20, 40, 80)}

    def make(self) -> ReducedRankRidge:
        """The map of this configuration, not fitted yet."""
        return ReducedRankRidge(self.rank, self.alphas, folds=self.folds)


class ReducedRankRidge(Estimator):
    """Linear map of rank at most r with an L2 penalty, from (n, p) to (n, t); rank and penalty given or chosen.

    With W' the ridge solution of penalty a,

        W = W' V V^T,    V the first r eigenvectors of W'^T (X^T X + a I) W'

    so that W is kept as two thin matrices, (p, r) and (r, t). Where several ranks or penalties are on offer, all pairs
    are tried in folds over the stimuli, and the squared error over all left-out rows decides: one decomposition per
    fold and penalty serves every rank.

    Parameters
    ----------
    rank : int or sequence of int, default 200
        largest rank, or several to choose from
    alpha : float or sequence of float, default 1.0
        penalty above 0 in the units of scikit-learn's ``Ridge(alpha)``, or several to choose from
    folds : int, default 5
        how many folds
    block_bytes : int, default 134_217_728
        size of the blocks in which X and Y are read, in bytes

    Attributes
    ----------
    rank_ : int
        rank of the map: the one given or chosen, or less where the data span less
    alpha_ : float
        the penalty
    errors_ : ndarray of shape (n_alphas, n_ranks)
        mean squared left-out errors, both ascending, if there was something to choose
    left_ : ndarray of shape (p, rank)
        first factor of the map; float32
    right_ : ndarray of shape (rank, t)
        second factor of the map; its rows are orthonormal, the first explaining most; float32
    x_mean_ : ndarray of shape (p,)
        mean of X; float64
    y_mean_ : ndarray of shape (t,)
        mean of Y; float64

    Raises
    ------
    ConfigError
        For a rank below 1, or a penalty that is not a positive number.

    Notes
    -----
    Double precision throughout. With s = min(n, p): 3 s^2 numbers of memory, and an s x s eigendecomposition for X and
    one for each penalty and fold that are tried.

    References
    ----------
    Mukherjee and Zhu 2011, Statistical Analysis and Data Mining 4, "Reduced rank ridge regression"; without a penalty,
    Izenman 1975, Journal of Multivariate Analysis 5.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [4.0, 0.0], [6.0, 1.0]])
    >>> y = x @ np.array([[1.0, 2.0], [-2.0, -4.0]]) + 5  # two targets, of rank one together
    >>> ReducedRankRidge(rank=1, alpha=1e-9).fit(x, y).predict(x)[:2].round(2)
    array([[3., 1.],
           [6., 7.]], dtype=float32)
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        rank: int | Sequence[int] = 200,
        alpha: float | Sequence[float] = 1.0,
        *,
        folds: int = 5,
        block_bytes: int = 128 << 20,
    ):
        for value in np.atleast_1d(np.asarray(rank, dtype=object)):
            check_whole("rank", value, 1)

        check_whole("folds", folds, 2)
        check_whole("block_bytes", block_bytes, 1 << 16)
        self.ranks_ = np.unique(np.atleast_1d(np.asarray(rank, dtype=np.int64)))
        if not self.ranks_.size:
            raise ConfigError("rank must be a whole number or a list of them, but the list is empty.")

        self.rank = rank
        self.alpha = alpha
        self.alphas_ = check_penalties(alpha)
        self.folds = folds
        self.block_bytes = block_bytes

    def __repr__(self) -> str:
        return f"ReducedRankRidge(rank={self.ranks_.tolist()}, alpha={self.alphas_.tolist()})"

    def fit(self, X: ArrayLike, Y: ArrayLike, groups: ArrayLike | None = None) -> ReducedRankRidge:
        """Fit the map.

        Parameters
        ----------
        X : array-like of shape (n, p)
            features, real numbers; array, memory map or HDF5 data set
        Y : array-like of shape (n, t)
            targets, likewise
        groups : array-like of shape (n,), optional
            stimulus of each row, whose rows stay in one fold; wanted where there is something to choose

        Returns
        -------
        ReducedRankRidge
            the fitted map itself

        Raises
        ------
        ConfigError
            Something to choose and no groups, or a penalty beside which X vanishes.
        DataError
            Values that are not finite or not real numbers, lengths that differ, one row, X or Y constant.
        """
        x, y, _ = paired_rows(X, Y)
        check_rows(x.shape[0])
        x_mean = x.mean(self.block_bytes)
        y_mean = y.mean(self.block_bytes)

        rank = int(self.ranks_[-1])
        alpha = float(self.alphas_[0])
        if len(self.ranks_) * len(self.alphas_) > 1:
            rank, alpha = self._choose(x, y, groups)

        # The ridge problem of all targets: Gram matrix, eigenvectors, projected targets Z and their Z Z^T.
        features = Features(x, x_mean, self.block_bytes)
        lower = features.gram(np.float64)  # (s, s)
        check_scale(solvers.largest_eigenvalue(lower), x_mean, np.array([alpha]), x)
        spectrum = Spectrum.of(lower, features.is_dual, features, True, self.block_bytes)
        zz = np.zeros(spectrum.u.shape)

        for _, block in self._centred_targets(y, y_mean):
            z = spectrum.project(block)  # (s, columns)
            zz += z @ z.T

        # Its best directions of the targets, V, and the map as (W V) V^T.
        directions = Directions.of(spectrum, zz, alpha, rank)
        if not directions.rank:
            raise DataError("Y does not vary with X: no direction of the targets can be predicted at all.")

        right = np.empty((directions.rank, y.shape[1]), np.float32)
        for columns, block in self._centred_targets(y, y_mean):
            weights = directions.left * directions.scale[:, None] / directions.length  # (s, rank)
            right[:, columns] = weights.T @ spectrum.project(block)

        left = spectrum.u @ directions.loadings(spectrum, alpha)  # (s, rank)
        if features.is_dual:
            left = features.transposed_times(left)  # (p, rank)

        self.left_ = left.astype(np.float32)
        self.right_ = right
        self.x_mean_ = x_mean
        self.y_mean_ = y_mean
        self.rank_ = directions.rank
        self.alpha_ = alpha

        return self

    def _choose(self, x: BlockReader, y: BlockReader, groups: ArrayLike | None) -> tuple[int, float]:
        """Rank and penalty of the smallest squared error over left-out stimuli."""
        if groups is None:
            raise ConfigError(
                "choosing a rank or a penalty keeps the trials of one stimulus together, so fit needs groups=stimulus "
                "ids, one per row; if no stimulus repeats, groups=np.arange(len(X)) does."
            )

        errors = np.zeros((len(self.alphas_), len(self.ranks_)))
        for fold in solvers.folds(x, np.asarray(groups), self.folds, True, np.float64, self.block_bytes):
            errors += self._fold_errors(fold, y)

        self.errors_ = errors / (x.shape[0] * y.shape[1])
        i, j = np.unravel_index(int(errors.argmin()), errors.shape)
        if len(self.alphas_) > 1:
            warn_at_edge(i, self.alphas_, stacklevel=4)

        return int(self.ranks_[j]), float(self.alphas_[i])

    def _fold_errors(self, fold: solvers.Fold, y: BlockReader) -> np.ndarray:
        """Sum of squared errors (n_alphas, n_ranks) on the rows of a fold."""
        s = len(fold.spectrum.w)
        zz = np.zeros((s, s))
        yz = np.zeros((len(fold.test), s))
        power = 0.0

        for _, block in self._centred_targets(y, np.zeros(y.shape[1])):
            mean = block[fold.train].mean(axis=0)
            z = fold.spectrum.project(block[fold.train] - mean)  # (s, columns)
            left_out = block[fold.test] - mean  # (n_test, columns)
            zz += z @ z.T
            yz += left_out @ z.T
            power += np.square(left_out).sum()

        errors = np.zeros((len(self.alphas_), len(self.ranks_)))
        for i, alpha in enumerate(self.alphas_):
            directions = Directions.of(fold.spectrum, zz, alpha, int(self.ranks_[-1]))

            # Predictions and targets along the same orthonormal directions, (n_test, rank).
            predicted = fold.scores @ directions.loadings(fold.spectrum, alpha)
            true = yz @ (directions.scale[:, None] * directions.left) / directions.length

            # |predicted - true|^2 - |true|^2 of the first 0, 1, 2 ... directions.
            change = np.cumsum((predicted * (predicted - 2 * true)).sum(axis=0))
            change = np.concatenate([[0.0], change])
            errors[i] = power + change[np.minimum(self.ranks_, directions.rank)]

        return errors

    def _centred_targets(self, y: BlockReader, mean: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Targets less their mean, in double precision, some columns at a time."""
        for columns in spans(y.shape[1], self.block_bytes // (8 * y.shape[0])):
            yield columns, y.block(ALL, columns, minus=mean[columns], dtype=np.float64)
            y.forget()

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict targets; each row as if it were alone, but for rounding.

        Parameters
        ----------
        X : array-like of shape (m, p)
            features, in the order of the fit

        Returns
        -------
        ndarray of shape (m, t), float32
            predictions

        Raises
        ------
        ModelError
            Before `fit`, or if X has another number of columns than the map was fitted on.
        """
        self._refuse_unfitted()
        new = new_rows(X, len(self.x_mean_), self.block_bytes)
        m, p = new.shape
        out = np.empty((m, len(self.y_mean_)), np.float32)
        y_mean = self.y_mean_.astype(np.float32)

        for rows in spans(m, self.block_bytes // (8 * max(p, out.shape[1]))):
            centred = new.block(rows, ALL, minus=self.x_mean_)  # (rows, p)
            out[rows] = centred @ self.left_ @ self.right_ + y_mean

        return out

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain values, for saving."""
        self._refuse_unfitted()
        tensors = {"left": self.left_, "right": self.right_, "x_mean": self.x_mean_, "y_mean": self.y_mean_}
        meta = {"kind": "reduced_rank", "ranks": self.ranks_.tolist(), "alphas": self.alphas_.tolist()}
        return tensors, meta | {"folds": self.folds, "block_bytes": self.block_bytes, "alpha": self.alpha_}

    @classmethod
    def from_state(cls, tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> ReducedRankRidge:
        """Restore a map from what `state` gave.

        Parameters
        ----------
        tensors : mapping of str to ndarray
            its arrays
        meta : mapping of str to object
            its settings

        Returns
        -------
        ReducedRankRidge
            fitted

        Raises
        ------
        ModelError
            If a part is missing or does not fit the others, or something else was saved.
        """
        if meta.get("kind") != "reduced_rank":
            raise ModelError(f"a ridge of limited rank was expected here, but kind {meta.get('kind')!r} was saved.")

        left, right, x_mean, y_mean = take(dict(tensors), ("left", "right", "x_mean", "y_mean"), cls.__name__)
        if left.shape[:1] != x_mean.shape or right.shape[1:] != y_mean.shape or left.shape[1:] != right.shape[:1]:
            raise ModelError(
                f"The saved map's parts do not fit: left {left.shape}, right {right.shape}, x_mean {x_mean.shape}, y_mean "
                f"{y_mean.shape}; fit it again."
            )

        ridge = cls(meta["ranks"], meta["alphas"], folds=meta["folds"], block_bytes=meta["block_bytes"])
        ridge.left_ = left
        ridge.right_ = right
        ridge.x_mean_ = x_mean
        ridge.y_mean_ = y_mean
        ridge.rank_ = left.shape[1]
        ridge.alpha_ = meta["alpha"]

        return ridge

    def _refuse_unfitted(self) -> None:
        if not hasattr(self, "left_"):
            raise ModelError("This map is not fitted yet: call fit(X, Y) first.")


class Directions(NamedTuple):
    """Orthonormal directions V of the targets that a ridge predicts best, without ever forming V.

    With the ridge solution's projected targets Z (s, t) and eigenvalues w (see :mod:`phosphene.align.solvers`), the matrix
    whose eigenvectors V are sought is S^T S, S = D Z with D^2 = w / (w + a) (dual) or 1 / (w + a) (primal). Only
    S S^T (s, s) is formed: S = L sigma V^T, so V = S^T L / sigma and Z V = D^-1 L sigma.
    """

    scale: np.ndarray  # (s,), the diagonal of D
    length: np.ndarray  # (rank,), singular values sigma, largest first
    left: np.ndarray  # (s, rank), left singular vectors L

    @classmethod
    def of(cls, spectrum: Spectrum, zz: np.ndarray, alpha: float, rank: int) -> Directions:
        """The first `rank` directions, or fewer where the data span fewer.

        Parameters
        ----------
        spectrum : Spectrum
            of the features
        zz : ndarray of shape (s, s)
            Z Z^T
        alpha : float
            the penalty
        rank : int
            how many at most
        """
        w = np.where(spectrum.w > _ROUNDING * spectrum.w[-1], spectrum.w, 0.0)
        if spectrum.is_dual:
            scale = np.sqrt(w / (w + alpha))
        else:
            scale = np.sqrt((w > 0) / (w + alpha))

        s = len(w)
        last = (s - min(rank, s), s - 1)
        square, left = eigh(scale[:, None] * zz * scale, subset_by_index=last, check_finite=False)  # ascending
        keep = square > _ROUNDING * max(square[-1], 0.0)

        return cls(scale, np.sqrt(square[keep])[::-1], left[:, keep][:, ::-1])

    @property
    def rank(self) -> int:
        """How many directions there are."""
        return len(self.length)

    def loadings(self, spectrum: Spectrum, alpha: float) -> np.ndarray:
        """Z V / (w + a), (s, rank): coefficients along the eigenvectors of the Gram matrix, for targets V."""
        is_used = self.scale > 0
        divisor = np.where(is_used, (spectrum.w + alpha) * self.scale, 1.0)
        inverse = np.where(is_used, 1 / divisor, 0.0)

        return self.left * self.length * inverse[:, None]
