"""Matrix products that come out the same, bit for bit, whatever the processor, the number of threads and the BLAS.

A sum of floating-point numbers depends on the order in which they are added, and BLAS chooses that order by processor and by the
number of its threads. Rounding the result afterwards only makes a difference rare: some value always lies on the edge. So the
operands are rounded first, to so few bits that every product and every partial sum is a whole number of the same step below 2^53.
Then float64 adds without any rounding, and the order does not matter.

With K terms each operand keeps (53 - log2 K) / 2 bits of its largest value: 20 for the 4,608 pixels of the contrast maps,
22 for the patterns of the noise, about those of a float32.

References
----------
Rump, Ogita and Oishi 2008, "Accurate floating-point summation part I" (extraction to a common step); Ozaki et al. 2012
(matrix products of operands so extracted).
"""

from __future__ import annotations

import numpy as np

_FLOAT64_BITS = 53


def rounded(values: np.ndarray, axis: int) -> np.ndarray:
    """Operand of a matrix product, rounded so that its products over this axis can be added in any order.

    Parameters
    ----------
    values : np.ndarray
        Finite numbers, with at least two axes.
    axis : int
        The axis that the product sums over: -1 of the left operand, -2 of the right one.

    Returns
    -------
    np.ndarray
        Of the same shape, float64: multiples of a power of two, one for each line along the axis. A float32 holds them exactly.

    Examples
    --------
    >>> rounded(np.array([[0.0, 1.0, 2.0**-40]]), axis=-1)
    array([[0., 1., 0.]])
    """
    values = np.asarray(values, dtype=np.float64)
    n_terms = max(values.shape[axis], 1)

    # A float32 has 24 bits, so that operands can be kept in half the memory.
    bits = min((_FLOAT64_BITS - (n_terms - 1).bit_length()) // 2, 24)

    largest = np.abs(values).max(axis=axis, keepdims=True, initial=0.0)
    _, exponent = np.frexp(largest)
    step = np.ldexp(1.0, exponent - bits)

    result = values / step
    np.rint(result, out=result)
    result *= step
    return result


def exact_product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Matrix product without rounding errors, of operands rounded to about 20 bits.

    Parameters
    ----------
    left : np.ndarray
        (..., n, k), finite.
    right : np.ndarray
        (..., k, m), finite.

    Returns
    -------
    np.ndarray
        (..., n, m) float64, the same on every machine.

    Examples
    --------
    >>> exact_product(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    array([[11.]])
    """
    return rounded(left, axis=-1) @ rounded(right, axis=-2)  # (..., n, m)
