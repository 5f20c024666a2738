"""How far apart two sets of pictures are, as sets: FID and KID of their features.

    FID(a, b) = |mean_a - mean_b|^2 + tr(C_a) + tr(C_b) - 2 tr((C_a C_b)^(1/2))
    KID(a, b) = MMD^2 with the kernel (x . y / d + 1)^3

Neither compares a decoded picture with its own truth: shuffling the pairs leaves both as they are, so neither has a chance
level or a p, and a decoder of nice pictures of the wrong things scores well.

**FID is biased upwards, and for few pictures hardly anything but bias.** Two sets drawn from the same Gaussian with 64
independent features are 43.9 apart on average with 50 pictures each, 19.7 with 113, and 0.1 with 20,000, where the truth
is 0. So an FID stands beside another one only with the same number of pictures, the same features and the same data set;
beside its own floor (``fid_floor``) it says how much of it is bias. KID has no such bias and is the one to read for small
sets.

References
----------
Heusel et al. 2017 (FID); Binkowski et al. 2018 (KID, and why FID has no unbiased estimator); Chong and Forsyth 2020
(the bias depends on the generator, so that even the order of two methods may be wrong).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from phosphene.errors import DataError

_GROUPS = 60  # sets left out in turn; with more stimuli than that several are left out together


class Floor(NamedTuple):
    """Between what two numbers the FID of two perfect sets lies.

    Attributes
    ----------
    low : float
        half of `high`; NaN where there are too few pictures to halve
    high : float
        mean FID of random halves
    """

    low: float
    high: float


def frechet_distance(
    mean_a: np.ndarray, covariance_a: np.ndarray, mean_b: np.ndarray, covariance_b: np.ndarray
) -> float:
    """Squared Frechet distance of two Gaussians, from their moments.

        |mean_a - mean_b|^2 + tr(C_a) + tr(C_b) - 2 sum of singular values of A B,    C_a = A A, C_b = B B

    The trace of the root is the sum of singular values of ``A B`` with ``A, B`` the symmetric roots of the covariances:
    no complex numbers, no small constant on the diagonal, and right for covariances of any rank.

    Parameters
    ----------
    mean_a : ndarray of shape (d,)
        of the first set
    covariance_a : ndarray of shape (d, d)
        symmetric, no negative eigenvalues but for rounding
    mean_b : ndarray of shape (d,)
        of the second set
    covariance_b : ndarray of shape (d, d)
        as `covariance_a`

    Returns
    -------
    float
        0 or more

    Examples
    --------
    >>> frechet_distance(np.zeros(2), np.eye(2), np.array([3.0, 4.0]), 4 * np.eye(2))
    27.0
    """
    root_a = _symmetric_root(covariance_a)  # (d, d)
    root_b = _symmetric_root(covariance_b)
    return _distance(np.asarray(mean_a, float), root_a, np.asarray(mean_b, float), root_b)


def fid_of(a: np.ndarray, b: np.ndarray) -> float:
    """FID of two sets of features, covariances with n - 1. Biased upwards, the more so the fewer rows.

    Parameters
    ----------
    a : ndarray of shape (n, d)
        features of one set
    b : ndarray of shape (m, d)
        features of the other

    Returns
    -------
    float
        0 or more; lower is better

    Raises
    ------
    DataError
        With fewer than two rows on a side, features of different number, or values that are not finite.

    Examples
    --------
    >>> x = np.array([[0.0, 0], [2, 0], [0, 2], [2, 2]])
    >>> round(fid_of(x, x + 1), 6)
    2.0
    """
    a, b = _features(a, b)
    return _distance(a.mean(axis=0), _root(a), b.mean(axis=0), _root(b))


def fid_floor(features: np.ndarray, *, rng: np.random.Generator, n_halvings: int = 8) -> Floor:
    """Where the FID of two perfect sets of n pictures lies: what to hold an FID of n pictures against.

        high = mean FID of two halves,    low = high / 2

    Random disjoint halves of the true pictures are both samples of the true distribution, so their FID is all bias. It
    is that of n / 2 pictures, hence above the floor at n; and as the bias shrinks about like 1 / n or more slowly, half of
    it is below the floor. Decoded pictures that repeat the true ones, rather than others like them, may fall below both.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        of the true pictures
    rng : numpy.random.Generator
        numpy Generator
    n_halvings : int, default 8
        random halvings averaged

    Returns
    -------
    Floor
        bounds up to sampling error; NaN with fewer than four pictures

    Notes
    -----
    In simulations with 64 and 128 features, four spectra and n of 30 to 300, the floor was 0.46 to 0.81 of the FID of
    halves. Extrapolation by a power law missed it by up to a quarter, so the range is given instead.
    """
    features = np.asarray(features, dtype=np.float64)
    half = len(features) // 2
    if half < 2:
        return Floor(float("nan"), float("nan"))

    distances = []
    for _ in range(n_halvings):
        order = rng.permutation(len(features))
        first = features[order[:half]]  # (half, d)
        second = features[order[half : 2 * half]]
        distances.append(fid_of(first, second))

    high = float(np.mean(distances))
    return Floor(high / 2, high)


def kid_of(a: np.ndarray, b: np.ndarray, *, paired: bool = False) -> float:
    """KID of two sets of features: unbiased, exact over all pairs, kernel (x . y / d + 1)^3.

        KID = mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{i, j} k(a_i, b_j)

    with i != j in the last mean as well for paired sets.

    Parameters
    ----------
    a : ndarray of shape (n, d)
        features of one set
    b : ndarray of shape (m, d)
        features of the other
    paired : bool, default False
        row i of ``a`` was made from row i of ``b``, as decoded pictures are. They are not independent, so such pairs
        are left out of the comparison between the sets, as those of a picture with itself are inside each; otherwise
        the estimate would be too low

    Returns
    -------
    float
        0 is expected of two samples of the same distribution, so that small negative values occur; lower is better

    Raises
    ------
    DataError
        As ``fid_of``; also when paired sets differ in size.
    """
    a, b = _features(a, b)
    if paired:
        _same_size(a, b)
        return _mean_off_diagonal(_paired_kernel(a, b))

    within_a = _mean_off_diagonal(_kernel(a, a))
    within_b = _mean_off_diagonal(_kernel(b, b))
    between = float(_kernel(a, b).mean())
    return within_a + within_b - 2 * between


def fid_influence(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How much each pair of pictures contributes to the FID: jackknife pseudo-values, moved to have the FID as mean.

        pseudo_g = G FID - (G - 1) FID without group g,    influence_g = pseudo_g - mean(pseudo) + FID

    Their spread gives an interval for the FID *of this many pictures*. The bias is not removed: the interval says how far
    the number would move with other pictures, not where the FID of infinitely many lies.

    Parameters
    ----------
    a, b : ndarray of shape (n, d)
        row i of both belongs to stimulus i

    Returns
    -------
    ndarray
        (n,) or, when stimuli are left out in groups to save time, as many as there are groups
    """
    a, b = _features(a, b)
    _same_size(a, b)
    n = len(a)
    whole = fid_of(a, b)
    groups = np.array_split(np.arange(n), min(n, _GROUPS))

    # A covariance needs two rows, also when the largest group is left out.
    if n - max(map(len, groups)) < 2:
        return np.full(n, whole)

    without = np.empty(len(groups))
    for g, rows in enumerate(groups):
        without[g] = fid_of(np.delete(a, rows, axis=0), np.delete(b, rows, axis=0))

    return _pseudo_values(whole, without)


def kid_influence(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How much each pair of pictures contributes to the paired KID: jackknife pseudo-values with the KID as mean.

    The sum over a kernel without row and column i is its whole sum less these two, so nothing is computed again.

    Parameters
    ----------
    a, b : ndarray of shape (n, d)
        row i of both belongs to stimulus i

    Returns
    -------
    ndarray of shape (n,)
        the KID throughout with two stimuli, which cannot be left out in turn
    """
    a, b = _features(a, b)
    _same_size(a, b)
    kernel = _paired_kernel(a, b)  # (n, n)
    np.fill_diagonal(kernel, 0)
    n = len(a)
    total = kernel.sum()
    whole = total / (n * (n - 1))
    if n < 3:
        return np.full(n, whole)

    # (n,): the diagonal is 0, so no entry is taken off twice.
    without = (total - kernel.sum(axis=0) - kernel.sum(axis=1)) / ((n - 1) * (n - 2))
    return _pseudo_values(whole, without)


# -- parts -------------------------------------------------------------------------------------------------------------


def _distance(mean_a: np.ndarray, root_a: np.ndarray, mean_b: np.ndarray, root_b: np.ndarray) -> float:
    """From any roots with ``C = root' root``: eigenvalues of C_a C_b are squared singular values of root_a root_b'."""
    shared = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()  # tr((C_a C_b)^(1/2))
    distance = np.square(mean_a - mean_b).sum() + np.square(root_a).sum() + np.square(root_b).sum() - 2 * shared
    return max(float(distance), 0.0)  # of two equal sets what is left is rounding, of either sign


def _root(x: np.ndarray) -> np.ndarray:
    """(min(n, d), d) with the covariance of the rows as ``root' root``, which is never formed."""
    centred = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)  # (n, d)

    # The centred rows are a root already; with more rows than features R has the same product in d rows.
    if len(x) > x.shape[1]:
        return np.asarray(np.linalg.qr(centred, mode="r"))  # (d, d)
    return centred


def _symmetric_root(covariance: np.ndarray) -> np.ndarray:
    """(d, d): V sqrt(lambda) V', with eigenvalues that rounding made negative taken for 0."""
    values, vectors = np.linalg.eigh(np.asarray(covariance, dtype=np.float64))  # (d,), (d, d)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T  # (d, d)


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """k(x, y) = (x . y / d + 1)^3, the kernel of Binkowski et al. 2018."""
    return (a @ b.T / a.shape[1] + 1) ** 3  # (n, m)


def _paired_kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """h(i, j) = k(a_i, a_j) + k(b_i, b_j) - k(a_i, b_j) - k(b_i, a_j), the U-statistic of the paired KID."""
    across = _kernel(a, b)
    return _kernel(a, a) + _kernel(b, b) - across - across.T


def _mean_off_diagonal(kernel: np.ndarray) -> float:
    """Mean over pairs of different rows: a picture compared with itself would bias the estimate."""
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def _pseudo_values(whole: float, without: np.ndarray) -> np.ndarray:
    """Jackknife pseudo-values, moved so that their mean is the score that is reported."""
    pseudo = len(without) * whole - (len(without) - 1) * without
    return pseudo - pseudo.mean() + whole


def _same_size(a: np.ndarray, b: np.ndarray) -> None:
    if len(a) != len(b):
        raise DataError(f"paired sets need a row of each for every stimulus, but have {len(a)} and {len(b)} rows.")


def _features(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets as float64 matrices of one width, checked: (n, d), (m, d)."""
    a = np.asarray(a, dtype=np.float64)
    b = np.asarray(b, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise DataError(
            f"two sets need (n, features) each, two rows or more and as many features, but have shapes {a.shape} and "
            f"{b.shape}; flatten each picture's features to one row."
        )

    n_bad_a = int((~np.isfinite(a).all(axis=1)).sum())
    n_bad_b = int((~np.isfinite(b).all(axis=1)).sum())
    if n_bad_a or n_bad_b:
        raise DataError(
            f"{n_bad_a} and {n_bad_b} rows of the two sets have features that are not finite; a set cannot be compared with "
            "holes in it. Decode these pictures again, or leave the stimuli out on both sides."
        )

    return a, b
