"""The small square side of a ridge problem: its matrix, its eigenvectors, and the error each penalty leaves.

With centred X (n, p) the small side has s = min(n, p) rows: the kernel X X^T where n < p ("dual"), else the
covariance X^T X ("primal"). One eigendecomposition U diag(w) U^T of it serves every target and every penalty a:

    dual    coefficients U (U^T Y / (w + a)),        fitted values U (w U^T Y / (w + a))
    primal  weights      U (U^T X^T Y / (w + a)),    fitted values X U (U^T X^T Y / (w + a))
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import blas, cho_factor, cho_solve, eigh, eigvalsh_tridiagonal

from phosphene.align._rows import ALL, Rows, spans
from phosphene.errors import DataError

# In single precision predictions move by about RESOLUTION * largest eigenvalue / penalty of their spread (measured
# for both forms, Cholesky and eigenvectors; at large penalties 5e-6 remain). It is kept up to TOLERANCE.
RESOLUTION = 1e-7
TOLERANCE = 5e-5
SCORE_TOLERANCE = 1e-2  # for penalties that are only judged
# Below this many operations double precision costs a tenth of a second at most and is used throughout.
SMALL = 3e9
LANCZOS_STEPS = 12


def precision(n: int, p: int, t: int, n_alphas: int) -> type:
    """The arithmetic to begin with: float64 where that is cheap, else float32."""
    s = min(n, p)
    work = 2.0 * n * p * s + 10.0 * s**3 * (n_alphas > 1) + 2.0 * s * s * t * (1 + n_alphas)
    return np.float64 if work < SMALL else np.float32


def too_coarse(largest: float, alpha: float, tolerance: float) -> bool:
    """Whether single precision cannot carry penalty ``alpha`` to ``tolerance`` of the predictions' spread."""
    return RESOLUTION * largest > tolerance * alpha


def gram(x: Rows, mean: np.ndarray, dual: bool, dtype: type, budget: int) -> np.ndarray:
    """X X^T or X^T X of the centred matrix: (s, s), Fortran order, only the lower triangle filled."""
    n, p = x.shape
    syrk = blas.dsyrk if dtype is np.float64 else blas.ssyrk
    size = n if dual else p
    out = np.zeros((size, size), dtype, order="F")
    width = budget // (np.dtype(dtype).itemsize * size)
    for span in spans(p if dual else n, width):
        if dual:
            block = x.block(ALL, span, minus=mean[span], dtype=dtype)
        else:
            block = x.block(span, ALL, minus=mean, dtype=dtype)
        # The transpose of a C-ordered block is what Fortran wants: no copy, and C accumulates in place.
        out = syrk(1.0, block.T, beta=1.0, c=out, trans=int(dual), lower=1, overwrite_c=1)
        x.forget()
    return out


def cross(x: Rows, x_mean: np.ndarray, new: Rows, mean: np.ndarray, dtype: type, budget: int) -> np.ndarray:
    """Inner products of training rows less ``x_mean`` with new rows less ``mean``: (n, m), Fortran order."""
    gemm = blas.dgemm if dtype is np.float64 else blas.sgemm
    out = np.zeros((x.shape[0], new.shape[0]), dtype, order="F")
    for span in spans(x.shape[1], budget // (np.dtype(dtype).itemsize * (x.shape[0] + new.shape[0]))):
        a = x.block(ALL, span, minus=x_mean[span], dtype=dtype)
        b = new.block(ALL, span, minus=mean[span], dtype=dtype)
        out = gemm(1.0, a.T, b.T, beta=1.0, c=out, trans_a=1, overwrite_c=1)
        x.forget(), new.forget()
    return out


def times_targets(x: Rows, mean: np.ndarray, y: np.ndarray, budget: int) -> np.ndarray:
    """X^T Y (p, t) of the centred matrix, rows in blocks."""
    out = np.zeros((x.shape[1], y.shape[1]), y.dtype)
    for span in spans(x.shape[0], budget // (y.itemsize * x.shape[1])):
        out += x.block(span, ALL, minus=mean, dtype=y.dtype).T @ y[span]
    return out


def largest_eigenvalue(lower: np.ndarray) -> float:
    """Largest eigenvalue of a positive semidefinite matrix, to a few per cent.

    Twelve steps of Lanczos from a fixed random vector. A start made from the matrix, such as its diagonal, can be
    orthogonal to all that matters: centred rows of equal length have (1, ..., 1) there, which centring takes away.

    Parameters
    ----------
    lower : (s, s) array
        Float32 or float64, Fortran order; only the lower triangle is read.

    Returns
    -------
    float
        0 for a matrix of zeros; not finite where the precision of the matrix overflows.
    """
    size = len(lower)
    symv = blas.dsymv if lower.dtype == np.float64 else blas.ssymv
    vector = np.random.default_rng(0).standard_normal(size)
    vector /= np.linalg.norm(vector)

    basis = np.zeros((0, size))
    diagonal, beside = [], []
    while True:
        basis = np.vstack([basis, vector])  # (k, size)
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
        beside.append(remainder)
        vector = rest / remainder
    return max(0.0, float(eigvalsh_tridiagonal(np.array(diagonal), np.array(beside))[-1]))


def factor(lower: np.ndarray, alpha: float, keep: bool) -> tuple:
    """Cholesky factor of the matrix plus ``alpha`` on its diagonal; overwrites the matrix unless ``keep``."""
    matrix = lower.copy(order="F") if keep else lower
    matrix.reshape(-1, order="A")[:: len(matrix) + 1] += matrix.dtype.type(alpha)
    return cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)


def solve(factored: tuple, right: np.ndarray) -> np.ndarray:
    """Solve for ``right`` (s, k), which is overwritten where it is Fortran-ordered."""
    return cho_solve(factored, right, overwrite_b=True, check_finite=False)


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues ``w`` (s,) and eigenvectors ``u`` (s, s) of the small side of ``x`` (or of some of its rows)."""

    w: np.ndarray
    u: np.ndarray
    dual: bool
    x: Rows | None
    mean: np.ndarray | None
    intercept: bool
    budget: int

    @classmethod
    def of(cls, lower: np.ndarray, dual: bool, x: Rows | None, mean, intercept: bool, budget: int) -> Spectrum:
        """Decompose; ``lower`` is overwritten."""
        # Divide and conquer is 3 times as fast as the default, for 2 s^2 numbers of work space (32-bit counts).
        driver = "evd" if len(lower) < 32_000 else "evr"
        w, u = eigh(lower, lower=True, overwrite_a=True, check_finite=False, driver=driver)
        return cls(np.maximum(w, 0), u, dual, x, mean, intercept, budget)

    def project(self, y: np.ndarray) -> np.ndarray:
        """U^T Y, or U^T X^T Y: (s, t) for centred targets (n, t)."""
        return self.u.T @ (y if self.dual else times_targets(self.x, self.mean, y, self.budget))

    def coefficients(self, z: np.ndarray, alpha) -> np.ndarray:
        """Dual coefficients or primal weights (s, t) for projected targets and a penalty, or one per target."""
        return self.u @ _shrink(z, self.w, alpha)

    def design(self, rows: slice) -> np.ndarray:
        """Rows of X U (primal only)."""
        return self.x.block(rows, ALL, minus=self.mean, dtype=self.u.dtype) @ self.u

    def leave_one_out(self, y: np.ndarray, alphas: np.ndarray) -> np.ndarray:
        """Sum of squared leave-one-out errors (n_alphas, t) of centred targets (n, t), exactly.

        The error of a row left out is its residual over 1 - h, h its leverage with the intercept's 1/n.
        """
        n, z = len(y), self.project(y)
        total = np.zeros((len(alphas), y.shape[1]))
        for rows in spans(n, self.budget // (self.u.itemsize * max(len(self.u), y.shape[1]))):
            basis = self.u[rows] if self.dual else self.design(rows)
            square = np.square(basis, dtype=np.float64)
            for i, alpha in enumerate(alphas):
                if self.dual:  # residual and 1 - h both as a G: no difference of nearly equal numbers
                    residual = basis @ (_shrink(z, self.w, alpha) * basis.dtype.type(alpha))
                    free = square @ (alpha / (self.w + alpha))
                else:
                    residual = y[rows] - basis @ _shrink(z, self.w, alpha)
                    free = 1.0 - square @ (1.0 / (self.w + alpha))
                free -= self.intercept / n
                # Rows that determine their own fit leave nothing to judge by: they count as enormous errors.
                total[i] += _square_sum(residual, 1.0 / np.maximum(free, 1e-9))
        return total

    def generalised(self, y: np.ndarray, alphas: np.ndarray) -> np.ndarray:
        """Generalised cross-validation (n_alphas, t): leave-one-out with every leverage replaced by their mean."""
        n, z = len(y), np.square(self.project(y), dtype=np.float64)
        w = self.w.astype(np.float64)
        total = np.empty((len(alphas), y.shape[1]))
        power = np.square(y, dtype=np.float64).sum(axis=0)
        for i, alpha in enumerate(alphas):
            if self.dual:
                left = np.square(alpha / (w + alpha)) @ z
                freedom = (alpha / (w + alpha)).sum()
            else:
                left = power + ((w / (w + alpha) - 2.0) / (w + alpha)) @ z
                freedom = n - (w / (w + alpha)).sum()
            total[i] = np.maximum(left, 0) / np.square((freedom - self.intercept) / n)
        return total


def folds(x: Rows, groups, n_folds: int, dual: bool, intercept: bool, dtype: type, budget: int):
    """Yield (train, test, spectrum of the training rows, held-out design) per grouped fold.

    Held-out predictions are design @ (projected targets / (w + a)) plus the training mean.
    """
    from sklearn.model_selection import GroupKFold

    groups = np.asarray(groups)
    if groups.shape != (x.shape[0],):
        raise DataError(f"groups must name one stimulus per row of X ({x.shape[0]}) but has shape {groups.shape}.")
    if len(np.unique(groups)) < n_folds:
        raise DataError(
            f"{n_folds} folds need as many groups but there are {len(np.unique(groups))}; ask for fewer folds."
        )
    if dual:
        whole = gram(x, x.mean(budget) if intercept else np.zeros(x.shape[1]), True, dtype, budget)
        whole = whole + np.tril(whole, -1).T
    for train, test in GroupKFold(n_folds).split(groups, groups=groups):
        if dual:
            inner, outer = whole[np.ix_(train, train)], whole[np.ix_(test, train)]
            if intercept:
                means = inner.mean(axis=0, dtype=np.float64)
                outer = (outer - outer.mean(axis=1, keepdims=True) - means + means.mean()).astype(dtype)
                inner = (inner - means[:, None] - means + means.mean()).astype(dtype)
            spectrum = Spectrum.of(np.asfortranarray(inner), True, None, None, intercept, budget)
            yield train, test, spectrum, outer @ spectrum.u
        else:
            part = Rows(x.block(train, dtype=dtype), x.name)
            mean = part.mean(budget) if intercept else np.zeros(x.shape[1])
            spectrum = Spectrum.of(gram(part, mean, False, dtype, budget), False, part, mean, intercept, budget)
            yield train, test, spectrum, x.block(test, minus=mean, dtype=dtype) @ spectrum.u


def held_out(spectrum: Spectrum, design: np.ndarray, y_train, y_test, alphas: np.ndarray) -> np.ndarray:
    """Sum of squared errors (n_alphas, t) on held-out rows, targets centred on the training rows' mean."""
    z = spectrum.project(y_train)
    return np.stack([_square_sum(y_test - design @ _shrink(z, spectrum.w, alpha)) for alpha in alphas])


def _shrink(z: np.ndarray, w: np.ndarray, alpha) -> np.ndarray:
    """Z / (w + alpha) in Z's own precision; alpha a number or one per column."""
    return z / (w[:, None] + np.asarray(alpha)).astype(z.dtype)


def _square_sum(residual: np.ndarray, scale: np.ndarray | None = None) -> np.ndarray:
    residual = residual if scale is None else residual * scale[:, None]
    return np.square(residual, dtype=np.float64).sum(axis=0)
