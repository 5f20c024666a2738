"""What a ridge problem will cost, before it starts."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import numpy as np

from phosphene.align.gram import precision
from phosphene.align.rows import MAPPED
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
        training rows, features, targets, rows to predict
    m : int, default 1
        see `n`
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
    dual = n < p
    choosing = alphas > 1

    if stream:
        judged = min(t, 256 * penalties)
    else:
        judged = t

    work = float(n) * p * s
    if choosing:
        work += EIGEN * s**3
    else:
        work += penalties * s**3 / 3 / SLOWER

    if choosing:
        work += 2.0 * s * s * judged * (1 + alphas) + (2.0 * n * judged * t / penalties if stream and judged < t else 0)

    if stream:
        work += 2.0 * m * p * n + penalties * 2.0 * s * s * m / SLOWER + 2.0 * m * n * t
    else:
        if p * t <= n * (p + t):
            kept = p
        else:
            kept = n

        work += 2.0 * s * s * t / SLOWER + 2.0 * n * p * t * (not dual or kept == p)
        work += 2.0 * m * kept * t + 2.0 * m * n * p * (kept == n and dual)

    size = np.dtype(precision(n, p, m if stream else t, alphas)).itemsize
    block_bytes = block_bytes or (384 << 20 if stream else 128 << 20)
    whole = 4 * n * max(p, t)
    block = (1.3 if stream else 2.5) * min(block_bytes, whole) + min(MAPPED, whole)
    factored = size * s * (s * (3 if choosing else 1 + (penalties > 1 and stream)) + m)

    if stream:
        result = penalties * size * m * n
    else:
        result = size * min(p * t, n * (p + t)) + size * s * s

    peak = int(max(size * s * (s + m) + block, factored + (0 if choosing else result), result + block))
    rate = (flops_per_second or _product_rate()) * 4 / size
    seconds = work / rate + 4.0 * t * (n * (1 + (choosing and stream)) + m) / DISK
    text = (
        f"Ridge of {t:,} targets on {p:,} features, {n:,} rows to fit and {m:,} to predict: about {_duration(seconds)} "
        f"and {peak / 1e9:.2f} GB of memory ({work:.2g} operations at {rate / 1e9:.0f} GFLOP/s)."
    )

    return RidgeEstimate(work, seconds, peak, text)


@functools.lru_cache(maxsize=1)
def _product_rate() -> float:
    a = np.ones((1024, 1024), np.float32)
    best = np.inf

    for _ in range(4):
        start = time.perf_counter()
        a @ a
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
