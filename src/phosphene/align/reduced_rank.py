"""Ridge of limited rank: the best linear map through a bottleneck, in closed form.

Minimises |Y - 1 b - X W|^2 + a |W|^2 over all W of rank at most r (b unpenalised). It is what a decoder with a
bottleneck of r units can do at best if it is linear, and so the fair rival of one that is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy.linalg import eigh

from phosphene.align import gram as _gram
from phosphene.align.decoders import ALPHAS
from phosphene.align.penalty import check_scale, penalties, warn_at_edge
from phosphene.align.ridge import check_whole, paired_rows
from phosphene.align.rows import ALL, RowBlocks, spans
from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io.config import Config
from phosphene.io.stages import take

_NOTHING = 1e-13  # share of the largest eigenvalue below which one is rounding of double precision


class ReducedRankConfig(Config):
    """A ridge of limited rank, for recipes that let one choose it in place of a network."""

    kind: Literal["reduced_rank"] = "reduced_rank"
    rank: tuple[int, ...] = Field((200,), min_length=1, description="to choose among; 200 is the GRU's bottleneck")
    alphas: tuple[float, ...] = Field(ALPHAS[::2], min_length=1, description="penalties to choose among")
    folds: int = Field(5, ge=2, description="folds over training stimuli that choose both")

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults: none for ``paper``, smaller ranks to choose among for ``lab``."""
        if name == "paper":
            return {}

        return {"rank": (5, 10, 20, 40, 80)}

    def make(self) -> ReducedRankRidge:
        """The map of this configuration, not fitted yet."""
        return ReducedRankRidge(self.rank, self.alphas, folds=self.folds)


class ReducedRankRidge:
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
    block_bytes : int, optional
        size of the blocks in which X and Y are read, in bytes

    Attributes
    ----------
    rank_ : rank of the map: the one given or chosen, or less where the data span less
    alpha_ : the penalty
    errors_ : array of shape (alphas, ranks)
        mean squared left-out errors, both ascending, if there was something to choose
    left_, right_ : (p, rank) and (rank, t) float32, the map as a product; rows of `right_` are orthonormal, the first
        explaining most
    x_mean_, y_mean_ : (p,) and (t,) float64

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
        for one in np.atleast_1d(np.asarray(rank, dtype=object)):
            check_whole("rank", one, 1)

        check_whole("folds", folds, 2)
        check_whole("block_bytes", block_bytes, 1 << 16)
        self.ranks_ = np.unique(np.atleast_1d(np.asarray(rank, dtype=np.int64)))
        if not self.ranks_.size:
            raise ConfigError("rank must be a whole number or a list of them, but the list is empty.")

        self.alphas_ = penalties(alpha)
        self.folds = folds
        self.block_bytes = block_bytes

    def __repr__(self) -> str:
        return f"ReducedRankRidge(rank={self.ranks_.tolist()}, alpha={self.alphas_.tolist()})"

    def fit(self, X, Y, groups=None) -> ReducedRankRidge:
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
        self : ReducedRankRidge

        Raises
        ------
        ConfigError
            Something to choose and no groups, or a penalty beside which X vanishes.
        DataError
            Values that are not finite or not real numbers, lengths that differ, one row, X or Y constant.
        """
        x, y, _ = paired_rows(X, Y)
        n = x.shape[0]
        is_dual = x.shape[0] < x.shape[1]

        if n < 2:
            raise DataError("X has a single row: nothing remains of it after centring. Fit on at least two trials.")

        x_mean = x.mean(self.block_bytes)
        y_mean = y.mean(self.block_bytes)
        rank = int(self.ranks_[-1])
        alpha = float(self.alphas_[0])

        if len(self.ranks_) * len(self.alphas_) > 1:
            rank, alpha = self._choose(x, y, groups, is_dual)

        lower = _gram.gram(x, x_mean, is_dual, np.float64, self.block_bytes)
        check_scale(_gram.largest_eigenvalue(lower), x_mean, np.array([alpha]), x)
        spectrum = _gram.Spectrum.of(lower, is_dual, x, x_mean, True, self.block_bytes)
        zz = np.zeros((len(spectrum.w), len(spectrum.w)))

        for _, block in self._columns(y, y_mean):
            z = spectrum.project(block)
            zz += z @ z.T

        scale, length, left = _directions(spectrum, zz, alpha, rank)
        if not len(length):
            raise DataError("Y does not vary with X: no direction of the targets can be predicted at all.")

        right = np.empty((len(length), y.shape[1]), np.float32)
        for columns, block in self._columns(y, y_mean):
            right[:, columns] = (left * scale[:, None] / length).T @ spectrum.project(block)

        inner = spectrum.u @ _loadings(spectrum, scale, length, left, alpha)
        if is_dual:
            inner = _gram.times_targets(x, x_mean, inner, self.block_bytes)

        self.left_ = inner.astype(np.float32)
        self.right_ = right
        self.x_mean_ = x_mean
        self.y_mean_ = y_mean
        self.rank_ = len(length)
        self.alpha_ = alpha

        return self

    def predict(self, X) -> np.ndarray:
        """Predict (m, t) float32 targets for (m, p) features; each row as if it were alone, but for rounding.

        Raises
        ------
        ModelError
            Before `fit`, or if X has another number of columns than the map was fitted on.
        """
        self._fitted()
        new = RowBlocks(X, "X")
        if new.shape[1] != len(self.x_mean_):
            raise ModelError(
                f"X has {new.shape[1]} columns but this map was fitted on {len(self.x_mean_)}; "
                f"use the same voxels or features in the same order, or fit again."
            )

        new.mean(self.block_bytes)  # checks every value
        out = np.empty((new.shape[0], len(self.y_mean_)), np.float32)
        y_mean = self.y_mean_.astype(np.float32)

        for rows in spans(len(out), self.block_bytes // (8 * max(new.shape[1], out.shape[1]))):
            out[rows] = new.block(rows, ALL, minus=self.x_mean_) @ self.left_ @ self.right_ + y_mean

        return out

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain values, for saving."""
        self._fitted()
        tensors = {"left": self.left_, "right": self.right_, "x_mean": self.x_mean_, "y_mean": self.y_mean_}
        meta = {"kind": "reduced_rank", "ranks": self.ranks_.tolist(), "alphas": self.alphas_.tolist()}
        return tensors, meta | {"folds": self.folds, "block_bytes": self.block_bytes, "alpha": self.alpha_}

    @classmethod
    def from_state(cls, tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> ReducedRankRidge:
        """Restore a map from what `state` gave.

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

        self = cls(meta["ranks"], meta["alphas"], folds=meta["folds"], block_bytes=meta["block_bytes"])
        self.left_ = left
        self.right_ = right
        self.x_mean_ = x_mean
        self.y_mean_ = y_mean
        self.rank_ = left.shape[1]
        self.alpha_ = meta["alpha"]

        return self

    def _choose(self, x: RowBlocks, y: RowBlocks, groups, is_dual: bool) -> tuple[int, float]:
        """Rank and penalty of the smallest squared error over left-out stimuli."""
        if groups is None:
            raise ConfigError(
                "choosing a rank or a penalty keeps the trials of one stimulus together, so fit needs groups=stimulus "
                "ids, one per row; if no stimulus repeats, groups=np.arange(len(X)) does."
            )

        errors = np.zeros((len(self.alphas_), len(self.ranks_)))
        parts = _gram.folds(x, groups, self.folds, is_dual, True, np.float64, self.block_bytes)

        for train, test, spectrum, design in parts:
            s = len(spectrum.w)
            zz = np.zeros((s, s))
            yz = np.zeros((len(test), s))
            power = 0.0

            for _, block in self._columns(y, np.zeros(y.shape[1])):
                mean = block[train].mean(axis=0)
                z = spectrum.project(block[train] - mean)
                left_out = block[test] - mean
                zz += z @ z.T
                yz += left_out @ z.T
                power += np.square(left_out).sum()

            for i, alpha in enumerate(self.alphas_):
                scale, length, left = _directions(spectrum, zz, alpha, int(self.ranks_[-1]))
                along = design @ _loadings(spectrum, scale, length, left, alpha)  # predictions, (left out, rank)
                truth = yz @ (scale[:, None] * left) / length  # and targets, along the same orthonormal directions
                change = np.concatenate([[0.0], np.cumsum((along * (along - 2 * truth)).sum(axis=0))])
                errors[i] += power + change[np.minimum(self.ranks_, len(length))]

        self.errors_ = errors / (x.shape[0] * y.shape[1])
        i, j = np.unravel_index(int(errors.argmin()), errors.shape)
        if len(self.alphas_) > 1:
            warn_at_edge(i, self.alphas_, stacklevel=4)

        return int(self.ranks_[j]), float(self.alphas_[i])

    def _columns(self, y: RowBlocks, mean: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Targets less their mean, in double precision, some columns at a time."""
        for columns in spans(y.shape[1], self.block_bytes // (8 * y.shape[0])):
            yield columns, y.block(ALL, columns, minus=mean[columns], dtype=np.float64)
            y.forget()

    def _fitted(self) -> None:
        if not hasattr(self, "left_"):
            raise ModelError("This map is not fitted yet: call fit(X, Y) first.")


# With the ridge solution's projected targets Z (s, t) and eigenvalues w (see `_gram`), the matrix whose eigenvectors V
# are sought is S^T S, S = D Z with D^2 = w / (w + a) (dual) or 1 / (w + a) (primal). Only S S^T (s, s) is formed:
# S = L sigma V^T, so V = S^T L / sigma and Z V = D^-1 L sigma.


def _directions(
    spectrum: _gram.Spectrum, zz: np.ndarray, alpha: float, rank: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """D (s,), and the largest singular values sigma (r,) with left vectors L (s, r) of S, largest first."""
    w = np.where(spectrum.w > _NOTHING * spectrum.w[-1], spectrum.w, 0.0)
    scale = np.sqrt((w if spectrum.dual else (w > 0)) / (w + alpha))
    s = len(w)
    rank = min(rank, len(w))
    square, left = eigh(scale[:, None] * zz * scale, subset_by_index=(s - rank, s - 1), check_finite=False)
    keep = square > _NOTHING * max(square[-1], 0.0)

    return scale, np.sqrt(square[keep])[::-1], left[:, keep][:, ::-1]


def _loadings(
    spectrum: _gram.Spectrum, scale: np.ndarray, length: np.ndarray, left: np.ndarray, alpha: float
) -> np.ndarray:
    """Z V / (w + a), (s, r): coefficients along the eigenvectors of the small side, for targets V."""
    divisor = (spectrum.w + alpha) * scale
    return left * length * np.where(scale > 0, 1 / np.where(scale > 0, divisor, 1.0), 0.0)[:, None]
