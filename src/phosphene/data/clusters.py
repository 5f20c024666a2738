"""Clusters of pictures: spherical k-means, and how many clusters there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from phosphene.errors import DataError

CANDIDATES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40)
"""Numbers of clusters tried by the gap statistic."""
_DIMENSIONS = 20  # of the principal components that are clustered
_MOST_ROWS = 2000  # that the number of clusters is chosen by
_SMALLEST = 10  # rows a cluster has on average, so that pairs of copies are no clusters
_ITERATIONS = 50


class Clusters(NamedTuple):
    """Which cluster each row is in, the directions of the clusters, and 1 - cosine summed over rows."""

    members: np.ndarray  # (n,)
    centres: np.ndarray  # (k, d)
    spread: float


def directions(features: np.ndarray) -> np.ndarray:
    """Features as what is clustered: (n, k) float64 unit vectors in their first 20 principal components.

    The mean is taken away first: what all pictures share says nothing of how they differ.

    Parameters
    ----------
    features : ndarray of shape (n, ...)
        of any scale; axes after the first are joined
    """
    x = np.asarray(features, dtype=np.float64)
    x = x.reshape(len(x), -1)
    x = x - x.mean(axis=0)
    if x.shape[1] > _DIMENSIONS or len(x) < x.shape[1]:
        from scipy.linalg import svd

        # By the smaller side, so that 10,000 pictures of 512 numbers are a small problem.
        if x.shape[1] <= len(x):
            gram = x.T @ x
        else:
            gram = x @ x.T

        vectors, values, _ = svd(gram, lapack_driver="gesdd")
        k = min(_DIMENSIONS, len(values))
        if x.shape[1] <= len(x):
            x = x @ vectors[:, :k]  # (n, k)
        else:
            x = vectors[:, :k] * np.sqrt(values[:k])  # (n, k): eigenvalues of x x' are squared singular values

    return _unit(x)


def spherical_kmeans(points: np.ndarray, k: int, rng: np.random.Generator, starts: int = 4) -> Clusters:
    """K-means on the sphere: the cosine to the centre of the own cluster is made as large as possible.

    Parameters
    ----------
    points : ndarray of shape (n, d)
        unit vectors, see `directions`
    k : int
        number of clusters, at most n
    rng : numpy.random.Generator
        draws the first centres (as k-means++)
    starts : int, default 4
        how often it starts; the best is kept

    Returns
    -------
    Clusters
        none of them empty unless points coincide

    Raises
    ------
    DataError
        For k below 1 or above n.

    References
    ----------
    Dhillon and Modha 2001; Arthur and Vassilvitskii 2007 (first centres).
    """
    if not 1 <= k <= len(points):
        raise DataError(f"{len(points)} pictures cannot be put into {k} clusters; 1 to {len(points)} are possible.")

    if k == 1:  # every start ends at the mean direction
        starts = 1

    solutions = [_once(points, k, rng) for _ in range(starts)]
    return min(solutions, key=lambda solution: solution.spread)


def _once(points: np.ndarray, k: int, rng: np.random.Generator) -> Clusters:
    """One start: points to the nearest centre, centres to the mean direction of their points, until nothing moves."""
    centres = _first_centres(points, k, rng)
    members = np.full(len(points), -1)
    for _ in range(_ITERATIONS):
        cosine = points @ centres.T  # (n, k)
        nearest = cosine.argmax(axis=1)
        if np.array_equal(nearest, members):
            break

        members = nearest
        sums = np.zeros_like(centres)
        np.add.at(sums, members, points)
        empty = np.bincount(members, minlength=k) == 0

        if empty.any():  # a centre without points moves to those that are worst off
            worst = np.argsort(cosine.max(axis=1))[: empty.sum()]
            sums[empty] = points[worst]

        centres = _unit(sums)

    cosine = points @ centres.T  # (n, k)
    return Clusters(cosine.argmax(axis=1), centres, float((1 - cosine.max(axis=1)).sum()))


def _first_centres(points: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """(k, d) points, each drawn with a chance that grows with its distance from those drawn before (k-means++)."""
    chosen = [int(rng.integers(len(points)))]
    distance = 1 - points @ points[chosen[0]]  # (n,)
    for _ in range(k - 1):
        weight = np.maximum(distance, 0)
        total = weight.sum()
        if total > 1e-12:
            point = int(rng.choice(len(points), p=weight / total))
        else:  # all points coincide with those drawn: any will do
            point = int(rng.integers(len(points)))

        chosen.append(point)
        distance = np.minimum(distance, 1 - points @ points[point])

    return points[chosen]


def number_of_clusters(
    points: np.ndarray, rng: np.random.Generator, candidates: Sequence[int] = CANDIDATES, draws: int = 5
) -> int:
    """How many clusters there are, by the gap statistic; 1 when pictures are spread without gaps.

    Parameters
    ----------
    points : ndarray of shape (n, d)
        unit vectors; at most 2,000 of them, at random, are looked at
    rng : numpy.random.Generator
        draws rows, starts, and clouds without clusters: Gaussian with the covariance of the points, on the sphere
    candidates : sequence of int, optional
        numbers tried, ascending
    draws : int, default 5
        clouds per number

    Returns
    -------
    int
        1 unless the widest gap is two standard errors above that of one cluster, else the smallest candidate whose gap
        is within one of the widest

    References
    ----------
    Tibshirani, Walther and Hastie 2001, "Estimating the number of clusters in a data set via the gap statistic".
    """
    if len(points) > _MOST_ROWS:
        points = points[rng.choice(len(points), _MOST_ROWS, replace=False)]

    candidates = [k for k in candidates if k <= len(points) // _SMALLEST] or [1]
    root = _root(np.cov(points, rowvar=False))
    clouds = [rng.standard_normal(points.shape) @ root for _ in range(draws)]
    clouds = [_unit(cloud - cloud.mean(axis=0)) for cloud in clouds]  # as the points were made
    gaps = []
    errors = []

    for k in candidates:
        # As many starts for the clouds as for the points: the better of two would pass for a cluster.
        log_spreads = []
        for x in (points, *clouds):
            clusters = spherical_kmeans(x, k, rng, starts=2)
            log_spreads.append(np.log(max(clusters.spread, 1e-12)))

        gaps.append(np.mean(log_spreads[1:]) - log_spreads[0])
        errors.append(np.std(log_spreads[1:]) * np.sqrt(1 + 1 / draws))  # the paper's s_k

    # The paper takes the smallest k whose gap reaches that of k + 1 less an error; with gaps that hardly differ this stops
    # by chance. The widest gap must stand out from that of one cluster first.
    best = int(np.argmax(gaps))
    if gaps[best] < gaps[0] + 2 * errors[best]:
        return 1
    return next(k for k, gap in zip(candidates, gaps, strict=True) if gap >= gaps[best] - errors[best])


def _root(covariance: np.ndarray) -> np.ndarray:
    """(d, d) symmetric square root; rounding can make the smallest eigenvalues negative."""
    values, vectors = np.linalg.eigh(np.atleast_2d(covariance))
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _unit(x: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays so."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
