"""What a ridge problem will cost, before it starts."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import numpy as np

from phosphene.align.block_reader import MAPPED
from phosphene.align.solvers import precision
from phosphene.errors import ConfigError

EIGEN = 7.5  # an eigendecomposition of size s takes as long as a product of EIGEN * s^3 operations (measured)
SLOWER = 0.8  # Cholesky and triangular solves reach this share of the rate of a product (measured)
DISK = 2e9  # bytes a second, read or written


@dataclass(frozen=True)
class RidgeEstimate:
    """Cost of a ridge problem.

    Attributes
    ----------
    flops : float
        operations, in those of a plain matrix product that takes as long
    seconds : float
        wall time on this machine when nothing else runs, including reading targets and writing results
    peak_bytes : int
        memory beyond what the program holds already (and beyond X and Y, where those are in memory)
    text : str
        the same as a sentence
    """

    flops: float
    seconds: float
    peak_bytes: int
    text: str


def estimate(
    n: int,
    p: int,
    t: int,
    m: int = 1,
    *,
    penalties: int = 1,
    alphas: int = 1,
    stream: bool = True,
    block_bytes: int | None = None,
    flops_per_second: float | None = None,
) -> RidgeEstimate:
    """Estimate time and memory of a ridge problem.

    Parameters
    ----------
    n, p, t : int
        training rows, features and targets
    m : int, default 1
        rows to predict
    penalties : int, default 1
        how many distinct penalties are used in the end (families of targets)
    alphas : int, default 1
        how many penalties are on offer; 1 if none is chosen
    stream : bool, default True
        whether for `ridge_predict`, which keeps no weights, rather than `Ridge`
    block_bytes : int, optional
        as given to either; default theirs
    flops_per_second : float, optional
        single-precision product rate; by default measured, in a tenth of a second

    Returns
    -------
    RidgeEstimate
        operations, time and memory

    Raises
    ------
    ConfigError
        For a count below 1.

    Examples
    --------
    >>> full = estimate(8859, 15_724, 347_680, 982, penalties=3, flops_per_second=2.2e11)
    >>> full.flops < 1e13, full.peak_bytes < 1.2e9
    (True, True)
    """
    for name, value in {"n": n, "p": p, "t": t, "m": m, "penalties": penalties, "alphas": alphas}.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1 but is {value}.")

    s = min(n, p)
    is_dual = n < p
    chooses = alphas > 1
    keeps_weights = p * t <= n * (p + t)
    judged = t
    if stream:
        judged = min(t, 256 * penalties)  # the sketch

    # Operations: Gram matrix; its factors; targets judged; then predictions, or coefficients first.
    work = float(n) * p * s
    if chooses:
        work += EIGEN * s**3
    else:
        work += penalties * s**3 / 3 / SLOWER

    if chooses:
        sketching = 0.0
        if stream and judged < t:
            sketching = 2.0 * n * judged * t / penalties

        work += 2.0 * s * s * judged * (1 + alphas) + sketching

    if stream:
        work += 2.0 * m * p * n + penalties * 2.0 * s * s * m / SLOWER + 2.0 * m * n * t
    else:
        kept = n
        if keeps_weights:
            kept = p

        work += 2.0 * s * s * t / SLOWER + 2.0 * n * p * t * (not is_dual or kept == p)
        work += 2.0 * m * kept * t + 2.0 * m * n * p * (kept == n and is_dual)

    # Memory: the most of three moments, when the Gram matrix is made, when it is decomposed, and when results are formed.
    whole = 4 * n * max(p, t)
    if stream:
        size = np.dtype(precision(n, p, m, alphas)).itemsize
        block = 1.3 * min(block_bytes or 384 << 20, whole) + min(MAPPED, whole)
        factors = 1 + (penalties > 1)
        result = penalties * size * m * n
    else:
        size = np.dtype(precision(n, p, t, alphas)).itemsize
        block = 2.5 * min(block_bytes or 128 << 20, whole) + min(MAPPED, whole)
        factors = 1
        result = size * min(p * t, n * (p + t)) + size * s * s

    if chooses:
        factors = 3
        factored = size * s * (s * factors + m)
    else:
        factored = size * s * (s * factors + m) + result

    peak = int(max(size * s * (s + m) + block, factored, result + block))

    rate = (flops_per_second or _product_rate()) * 4 / size
    n_read = n
    if chooses and stream:
        n_read = 2 * n  # once to choose, once to predict

    seconds = work / rate + 4.0 * t * (n_read + m) / DISK
    text = (
        f"Ridge of {t:,} targets on {p:,} features, {n:,} rows to fit and {m:,} to predict: about {_duration(seconds)} "
        f"and {peak / 1e9:.2f} GB of memory ({work:.2g} operations at {rate / 1e9:.0f} GFLOP/s)."
    )

    return RidgeEstimate(work, seconds, peak, text)


@functools.lru_cache(maxsize=1)
def _product_rate() -> float:
    """Operations a second of a single-precision product of two matrices on this machine."""
    a = np.ones((1024, 1024), np.float32)
    best = np.inf

    for _ in range(4):
        start = time.perf_counter()
        np.matmul(a, a)
        best = min(best, time.perf_counter() - start)

    return 2 * 1024**3 / best


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "under a second"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"

    return f"{seconds / 3600:.1f} h"
