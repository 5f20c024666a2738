"""Ridge regression as formulas: the Gram matrix, its eigenvectors, and the error each penalty leaves.

With centred features X (n, p) the smaller of two square matrices, s = min(n, p), is all that is ever decomposed: the
kernel X X^T where n < p ("dual"), else the covariance X^T X ("primal"). One eigendecomposition U diag(w) U^T of it serves
every target Y and every penalty a:

    dual    coefficients U (U^T Y / (w + a)),        fitted values U (w U^T Y / (w + a))
    primal  weights      U (U^T X^T Y / (w + a)),    fitted values X U (U^T X^T Y / (w + a))

The error of a row that was left out follows without fitting again: it is the row's residual / (1 - H_ii), with H the
matrix that turns targets into fitted values (Allen 1974). Generalised cross-validation puts the mean of all H_ii in place
of each (Golub, Heath and Wahba 1979). Folds decompose their training rows alone.

References
----------
Allen 1974, Technometrics 16; Golub, Heath and Wahba 1979, Technometrics 21; Hoerl and Kennard 1970, Technometrics 12.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh, eigvalsh_tridiagonal
from scipy.linalg.blas import get_blas_funcs

from phosphene.align.block_reader import ALL, BlockReader, Precision, spans
from phosphene.errors import ConfigError, DataError

# In single precision predictions move by about RESOLUTION * largest eigenvalue / penalty of their standard deviation
# (measured for both forms, Cholesky and eigenvectors; at large penalties 5e-6 remain). It is kept up to TOLERANCE.
RESOLUTION = 1e-7
TOLERANCE = 5e-5
SCORE_TOLERANCE = 1e-2  # for penalties that are only judged

SMALL = 3e9  # operations: below, double precision costs a tenth of a second at most and is used throughout
LANCZOS_STEPS = 12
LEAST_FREEDOM = 1e-9  # a row that determines its own fit leaves nothing to judge by: it counts as an enormous error
DIVIDE_AND_CONQUER = 32_000  # rows: three times as fast as the default below; work space beyond overflows 32-bit counts


# -- precision ---------------------------------------------------------------------------------------------------------


def precision(n: int, p: int, t: int, n_alphas: int) -> Precision:
    """Float64 where that is cheap, else float32, to be repeated in float64 where `too_coarse` says so.

    Parameters
    ----------
    n, p, t : int
        rows, features and targets
    n_alphas : int
        how many penalties are on offer
    """
    s = min(n, p)
    work = 2.0 * n * p * s  # the Gram matrix
    work += 10.0 * s**3 * (n_alphas > 1)  # its eigenvectors
    work += 2.0 * s * s * t * (1 + n_alphas)  # targets projected, and judged with every penalty

    if work < SMALL:
        return np.float64

    return np.float32


def too_coarse(largest: float, alpha: float, tolerance: float) -> bool:
    """Whether single precision cannot carry a penalty.

    Parameters
    ----------
    largest : float
        largest eigenvalue of the Gram matrix
    alpha : float
        the penalty
    tolerance : float
        how far predictions may move, in their standard deviations
    """
    return RESOLUTION * largest > tolerance * alpha


def blas_function(name: str, dtype: object) -> Callable[..., np.ndarray]:
    """Routine of BLAS for a precision, such as ``ssyrk`` for "syrk" and float32."""
    return cast("Callable[..., np.ndarray]", get_blas_funcs(name, dtype=dtype))


# -- the Gram matrix ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Features:
    """A matrix X (n, p) less its column means, which is read in blocks and never held as a whole.

    Parameters
    ----------
    x : BlockReader
        (n, p), as it came
    mean : ndarray of shape (p,), float64
        taken off; zeros without an intercept
    block_bytes : int
        size of the blocks
    """

    x: BlockReader
    mean: np.ndarray
    block_bytes: int

    @property
    def shape(self) -> tuple[int, int]:
        """(n, p)."""
        return self.x.shape

    @property
    def is_dual(self) -> bool:
        """Whether the kernel X X^T is smaller than the covariance X^T X."""
        n, p = self.shape
        return n < p

    def gram(self, dtype: Precision, is_dual: bool | None = None) -> np.ndarray:
        """X X^T or X^T X: (s, s), Fortran order, only the lower triangle filled.

        Parameters
        ----------
        dtype : type
            float32 or float64
        is_dual : bool, optional
            X X^T; by default the smaller of the two
        """
        if is_dual is None:
            is_dual = self.is_dual

        n, p = self.shape
        if is_dual:
            size = n
            summed = p
        else:
            size = p
            summed = n

        syrk = blas_function("syrk", dtype)
        lower = np.zeros((size, size), dtype, order="F")
        width = self.block_bytes // (np.dtype(dtype).itemsize * size)

        for span in spans(summed, width):
            if is_dual:
                block = self.x.block(ALL, span, minus=self.mean[span], dtype=dtype)  # (n, columns)
            else:
                block = self.x.block(span, ALL, minus=self.mean, dtype=dtype)  # (rows, p)

            # The transpose of a C-ordered block is what Fortran wants: no copy, and the sum accumulates in place.
            lower = syrk(1.0, block.T, beta=1.0, c=lower, trans=int(is_dual), lower=1, overwrite_c=1)
            self.x.forget()

        return lower

    def cross(self, new: BlockReader, new_mean: np.ndarray, dtype: Precision) -> np.ndarray:
        """Inner products with new rows less ``new_mean``: (n, m), Fortran order."""
        n, p = self.shape
        m = new.shape[0]
        gemm = blas_function("gemm", dtype)
        products = np.zeros((n, m), dtype, order="F")

        for columns in spans(p, self.block_bytes // (np.dtype(dtype).itemsize * (n + m))):
            a = self.x.block(ALL, columns, minus=self.mean[columns], dtype=dtype)
            b = new.block(ALL, columns, minus=new_mean[columns], dtype=dtype)
            products = gemm(1.0, a.T, b.T, beta=1.0, c=products, trans_a=1, overwrite_c=1)  # (n, m) += a b^T
            self.x.forget()
            new.forget()

        return products

    def transposed_times(self, y: np.ndarray) -> np.ndarray:
        """X^T Y, (p, t) in the precision of Y."""
        n, p = self.shape
        product = np.zeros((p, y.shape[1]), y.dtype)

        for rows in spans(n, self.block_bytes // (y.itemsize * p)):
            product += self.x.block(rows, ALL, minus=self.mean, dtype=y.dtype).T @ y[rows]  # (p, t)

        return product

    def times_transposed(self, a: np.ndarray) -> np.ndarray:
        """A X^T, (k, n) from (k, p) in the precision of A."""
        n, p = self.shape
        product = np.empty((len(a), n), a.dtype)

        for rows in spans(n, self.block_bytes // (a.itemsize * p)):
            product[:, rows] = a @ self.x.block(rows, minus=self.mean, dtype=a.dtype).T  # (k, rows)
            self.x.forget()

        return product


def largest_eigenvalue(lower: np.ndarray) -> float:
    """Largest eigenvalue of a positive semidefinite matrix, to a few per cent.

    Twelve steps of Lanczos from a fixed random vector. A start made from the matrix, such as its diagonal, can be
    orthogonal to all that matters: centred rows of equal length have (1, ..., 1) there, which centring takes away.

    Parameters
    ----------
    lower : ndarray of shape (s, s)
        float32 or float64, Fortran order; only the lower triangle is read

    Returns
    -------
    float
        0 for a matrix of zeros; not finite where the precision of the matrix overflows
    """
    size = len(lower)
    symv = blas_function("symv", lower.dtype)
    vector = np.random.default_rng(0).standard_normal(size)
    vector /= np.linalg.norm(vector)

    basis = np.zeros((0, size))
    diagonal = []
    off_diagonal = []

    while True:
        basis = np.vstack([basis, vector])  # (k, s)
        image = symv(1.0, lower, vector.astype(lower.dtype), lower=1).astype(np.float64)
        diagonal.append(float(vector @ image))

        if not np.isfinite(image).all():
            return float("inf")

        length = float(np.linalg.norm(image))
        if len(basis) == min(LANCZOS_STEPS, size):
            break

        # Twice, because once leaves rounding that would count the largest eigenvalue again.
        rest = image - (basis @ image) @ basis
        rest -= (basis @ rest) @ basis
        remainder = float(np.linalg.norm(rest))
        if remainder <= RESOLUTION * length:  # the vectors so far hold all that the matrix does to the first
            break

        off_diagonal.append(remainder)
        vector = rest / remainder

    largest = float(eigvalsh_tridiagonal(np.array(diagonal), np.array(off_diagonal))[-1])
    return max(0.0, largest)


# -- one penalty: Cholesky ---------------------------------------------------------------------------------------------


class Cholesky(NamedTuple):
    """Factor of a Gram matrix plus a penalty, as scipy's ``cho_solve`` takes it."""

    factor: np.ndarray  # (s, s)
    is_lower: bool

    @classmethod
    def of(cls, lower: np.ndarray, alpha: float, largest: float, *, keep: bool = False) -> Cholesky | None:
        """Factorise; None where single precision does not carry it.

        Parameters
        ----------
        lower : ndarray of shape (s, s)
            Gram matrix, overwritten unless `keep`
        alpha : float
            the penalty, added to the diagonal
        largest : float
            eigenvalue, for the message
        keep : bool, default False
            work on a copy

        Raises
        ------
        ConfigError
            For a penalty that double precision does not carry either.
        """
        if keep:
            matrix = lower.copy(order="F")
        else:
            matrix = lower

        diagonal = matrix.reshape(-1, order="A")[:: len(matrix) + 1]
        diagonal += matrix.dtype.type(alpha)

        try:
            return cls(*cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False))
        except np.linalg.LinAlgError:
            if lower.dtype == np.float32:
                return None

            raise ConfigError(
                f"alpha = {alpha:g} is too small for double precision beside the largest eigenvalue {largest:.3g} of X; "
                f"use at least {1e-12 * largest:.1g}."
            ) from None

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Coefficients (s, k) for right-hand sides (s, k), which are overwritten where they are Fortran-ordered."""
        return cho_solve((self.factor, self.is_lower), right, overwrite_b=True, check_finite=False)


# -- many penalties: eigenvectors --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues and eigenvectors of the Gram matrix of some features.

    Parameters
    ----------
    w : ndarray of shape (s,)
        eigenvalues, ascending, not negative
    u : ndarray of shape (s, s)
        eigenvectors in columns
    is_dual : bool
        whether of X X^T
    features : Features or None
        X; None for a kernel alone
    fit_intercept : bool
        whether X is centred, which takes one degree of freedom
    block_bytes : int
        size of the blocks in which rows are judged
    """

    w: np.ndarray
    u: np.ndarray
    is_dual: bool
    features: Features | None
    fit_intercept: bool
    block_bytes: int

    @classmethod
    def of(
        cls, lower: np.ndarray, is_dual: bool, features: Features | None, fit_intercept: bool, block_bytes: int
    ) -> Spectrum:
        """Decompose; ``lower`` is overwritten, the rest is as of the class."""
        if len(lower) < DIVIDE_AND_CONQUER:
            driver = "evd"
        else:
            driver = "evr"

        w, u = eigh(lower, lower=True, overwrite_a=True, check_finite=False, driver=driver)
        return cls(np.maximum(w, 0), u, is_dual, features, fit_intercept, block_bytes)

    def project(self, y: np.ndarray) -> np.ndarray:
        """U^T Y (dual) or U^T X^T Y (primal): (s, t) for centred targets (n, t)."""
        if not self.is_dual:
            assert self.features is not None
            y = self.features.transposed_times(y)  # (p, t)

        return self.u.T @ y  # (s, t)

    def coefficients(self, z: np.ndarray, alpha: float | np.ndarray) -> np.ndarray:
        """Dual coefficients or primal weights.

        Parameters
        ----------
        z : ndarray of shape (s, t)
            projected targets
        alpha : float or ndarray of shape (t,)
            penalty, one for all or one for each target

        Returns
        -------
        ndarray of shape (s, t)
        """
        return self.u @ _shrink(z, self.w, alpha)  # (s, t)

    def _scores(self, rows: slice) -> np.ndarray:
        """Rows of U (dual) or X U (primal), which times shrunk targets are fitted values."""
        if self.is_dual:
            return self.u[rows]

        assert self.features is not None
        x = self.features.x.block(rows, ALL, minus=self.features.mean, dtype=self.u.dtype)
        return x @ self.u  # (rows, s)

    def leave_one_out(self, y: np.ndarray, alphas: np.ndarray) -> np.ndarray:
        """Sum of squared leave-one-out errors (n_alphas, t) of centred targets (n, t), exactly.

        The error of a row left out is its residual over 1 - h, h its leverage with the intercept's 1/n.
        """
        n, t = y.shape
        z = self.project(y)  # (s, t)
        total = np.zeros((len(alphas), t))

        for rows in spans(n, self.block_bytes // (self.u.itemsize * max(len(self.u), t))):
            scores = self._scores(rows)  # (rows, s)
            square = np.square(scores, dtype=np.float64)

            for i, alpha in enumerate(alphas):
                if self.is_dual:  # residual and 1 - h both as a G: no difference of nearly equal numbers
                    residual = scores @ (_shrink(z, self.w, alpha) * scores.dtype.type(alpha))  # (rows, t)
                    freedom = square @ (alpha / (self.w + alpha))  # (rows,)
                else:
                    residual = y[rows] - scores @ _shrink(z, self.w, alpha)  # (rows, t)
                    freedom = 1.0 - square @ (1.0 / (self.w + alpha))  # (rows,)

                freedom -= self.fit_intercept / n
                total[i] += _square_sum(residual, 1.0 / np.maximum(freedom, LEAST_FREEDOM))

        return total

    def generalised(self, y: np.ndarray, alphas: np.ndarray) -> np.ndarray:
        """Generalised cross-validation (n_alphas, t): leave-one-out with every leverage replaced by their mean."""
        n, t = y.shape
        z = np.square(self.project(y), dtype=np.float64)  # (s, t)
        w = self.w.astype(np.float64)
        power = np.square(y, dtype=np.float64).sum(axis=0)
        criterion = np.empty((len(alphas), t))

        for i, alpha in enumerate(alphas):
            if self.is_dual:
                residual = np.square(alpha / (w + alpha)) @ z  # (t,)
                freedom = (alpha / (w + alpha)).sum()
            else:
                residual = power + ((w / (w + alpha) - 2.0) / (w + alpha)) @ z  # (t,)
                freedom = n - (w / (w + alpha)).sum()

            criterion[i] = np.maximum(residual, 0) / np.square((freedom - self.fit_intercept) / n)

        return criterion


# -- folds -------------------------------------------------------------------------------------------------------------


class Fold(NamedTuple):
    """One fold of a ridge problem: held-out predictions are ``scores @ (projected / (w + a))`` plus the training mean."""

    train: np.ndarray  # row numbers
    test: np.ndarray
    spectrum: Spectrum  # of the training rows
    scores: np.ndarray  # (n_test, s)

    def errors(self, y_train: np.ndarray, y_test: np.ndarray, alphas: np.ndarray) -> np.ndarray:
        """Sum of squared errors (n_alphas, t) on held-out rows, targets centred on the training rows' mean."""
        z = self.spectrum.project(y_train)  # (s, t)
        totals = []

        for alpha in alphas:
            predicted = self.scores @ _shrink(z, self.spectrum.w, alpha)  # (n_test, t)
            totals.append(_square_sum(y_test - predicted))

        return np.stack(totals)


def folds(
    x: BlockReader, groups: np.ndarray, n_folds: int, fit_intercept: bool, dtype: Precision, block_bytes: int
) -> Iterator[Fold]:
    """Folds that keep the rows of one group together, as scikit-learn's ``GroupKFold``.

    Parameters
    ----------
    x : BlockReader
        features (n, p)
    groups : ndarray of shape (n,)
        stimulus of each row
    n_folds : int
        how many
    fit_intercept : bool
        centre the training rows of each fold
    dtype : type
        float32 or float64
    block_bytes : int
        size of the blocks that are read

    Raises
    ------
    DataError
        For fewer groups than folds, or another number of groups than rows.
    """
    from sklearn.model_selection import GroupKFold  # half a second, which the other choices need not wait for

    n, p = x.shape
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise DataError(f"groups must name one stimulus per row of X ({n}) but has shape {groups.shape}.")

    n_groups = len(np.unique(groups))
    if n_groups < n_folds:
        raise DataError(f"{n_folds} folds need as many groups but there are {n_groups}; ask for fewer folds.")

    splits = GroupKFold(n_folds).split(groups, groups=groups)
    if n < p:
        yield from _dual_folds(x, splits, fit_intercept, dtype, block_bytes)
    else:
        yield from _primal_folds(x, splits, fit_intercept, dtype, block_bytes)


def _dual_folds(
    x: BlockReader,
    splits: Iterator[tuple[np.ndarray, np.ndarray]],
    fit_intercept: bool,
    dtype: Precision,
    block_bytes: int,
) -> Iterator[Fold]:
    """Parts of one kernel of all rows, centred anew on the training rows of each fold."""
    mean = np.zeros(x.shape[1])
    if fit_intercept:
        mean = x.mean(block_bytes)

    kernel = Features(x, mean, block_bytes).gram(dtype, is_dual=True)
    kernel = kernel + np.tril(kernel, -1).T  # (n, n), both triangles

    for train, test in splits:
        inner = kernel[np.ix_(train, train)]  # (n_train, n_train)
        outer = kernel[np.ix_(test, train)]  # (n_test, n_train)

        if fit_intercept:
            means = inner.mean(axis=0, dtype=np.float64)
            outer = (outer - outer.mean(axis=1, keepdims=True) - means + means.mean()).astype(dtype)
            inner = (inner - means[:, None] - means + means.mean()).astype(dtype)

        spectrum = Spectrum.of(np.asfortranarray(inner), True, None, fit_intercept, block_bytes)
        yield Fold(train, test, spectrum, outer @ spectrum.u)


def _primal_folds(
    x: BlockReader,
    splits: Iterator[tuple[np.ndarray, np.ndarray]],
    fit_intercept: bool,
    dtype: Precision,
    block_bytes: int,
) -> Iterator[Fold]:
    for train, test in splits:
        part = BlockReader(x.block(train, dtype=dtype), x.name)
        mean = np.zeros(x.shape[1])
        if fit_intercept:
            mean = part.mean(block_bytes)

        features = Features(part, mean, block_bytes)
        lower = features.gram(dtype, is_dual=False)
        spectrum = Spectrum.of(lower, False, features, fit_intercept, block_bytes)
        held_out = x.block(test, minus=mean, dtype=dtype)
        yield Fold(train, test, spectrum, held_out @ spectrum.u)


def _shrink(z: np.ndarray, w: np.ndarray, alpha: float | np.ndarray) -> np.ndarray:
    """Z / (w + alpha) in Z's own precision; alpha a number or one per column."""
    return z / (w[:, None] + np.asarray(alpha)).astype(z.dtype)


def _square_sum(residual: np.ndarray, scale: np.ndarray | None = None) -> np.ndarray:
    """Sum over rows (n, t) of squares, each row times its scale first."""
    if scale is not None:
        residual = residual * scale[:, None]

    return np.square(residual, dtype=np.float64).sum(axis=0)
