"""Structural similarity, in the variants that published scores mix up, each under its own name.

    SSIM(x, y) = (2 m_x m_y + C1) (2 s_xy + C2) / ((m_x^2 + m_y^2 + C1) (s_x^2 + s_y^2 + C2))        (Wang et al., eq. 13)

with the local means m, variances s^2 and covariance s_xy of a window, C1 = (K1 L)^2, C2 = (K2 L)^2 and L the data range;
a picture's score is the mean over windows.

Common to both: grey pictures, Gaussian weights of sigma 1.5 cut at 3.5 sigma (11 taps), population covariance,
K1 = 0.01, K2 = 0.03, a stated data range, and only window centres whose window lies inside the picture
(a 28 x 28 picture has 18 x 18 of them). scikit-image calls this ``gaussian_weights=True, use_sample_covariance=False``.

- ``ssim_2d``: windows over rows and columns. The index of Wang et al. 2004, and the headline.
- ``ssim_columns``: windows along each image column alone, averaged over columns. Scripts that passed a grey picture
  with ``multichannel=True`` to scikit-image before 0.20 computed this, as the last axis was then taken for channels;
  later versions ignore the argument, so the same script gives ``ssim_2d``. Kept for parity with those publications.

``ssim_pairs`` scores every decoded picture against every true one, for permutation nulls and identification.

References
----------
Wang, Bovik, Sheikh, Simoncelli 2004, IEEE TIP 13(4), 600-612.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import Literal

import numpy as np

from phosphene.errors import ConfigError, DataError
from phosphene.metrics.pixel import as_pairs, as_pictures, grey

SIGMA = 1.5  # pixels; this and the constants K are those of Wang et al., section III-C
RADIUS = 5  # int(3.5 * 1.5 + 0.5): 11 taps
WINDOW = 2 * RADIUS + 1
"""Smallest side of a picture that can be scored, in pixels."""
K1 = 0.01
K2 = 0.03
Variant = Literal["2d", "columns"]
_TILE = 16  # outputs per small product in the blur; a band of 11 in 26 instead of a band of 11 in the whole side
_STRIP = 96  # rows of the map handled together; this and the next keep the arrays of the pair pass in the cache
_CHUNK_PIXELS = 262_144  # in such a strip of several pictures


def ssim_2d(decoded: np.ndarray, true: np.ndarray, data_range: float = 1.0) -> np.ndarray:
    """Two-dimensional SSIM of grey pictures, per picture.

    Parameters
    ----------
    decoded, true : ndarray of shape (n, height, width, channels)
        0 to 1, sides of at least 11
    data_range : float, default 1.0
        distance between the least and greatest possible value; 1 for pictures from 0 to 1. A range of 2, which old
        scikit-image assumes for any float picture, gives higher scores.

    Returns
    -------
    ndarray of shape (n,)
        at most 1; higher is better

    Raises
    ------
    DataError
        For a side shorter than the 11-tap window.

    Examples
    --------
    >>> picture = np.random.default_rng(0).random((1, 16, 16, 1))
    >>> ssim_2d(picture, picture)
    array([1.])
    """
    return _ssim(decoded, true, "2d", data_range)


def ssim_columns(decoded: np.ndarray, true: np.ndarray, data_range: float = 1.0) -> np.ndarray:
    """Mean over image columns of the one-dimensional SSIM along each: the legacy variant.

    Parameters
    ----------
    decoded, true : ndarray of shape (n, height, width, channels)
        0 to 1, height of at least 11
    data_range : float, default 1.0
        as in ``ssim_2d``

    Returns
    -------
    ndarray of shape (n,)
        at most 1; higher is better, and not comparable with ``ssim_2d``
    """
    return _ssim(decoded, true, "columns", data_range)


def ssim_pairs(decoded: np.ndarray, true: np.ndarray, variant: Variant = "2d", data_range: float = 1.0) -> np.ndarray:
    """SSIM of every decoded picture with every true one.

    Means and variances are taken once per picture; a pair costs one product, one blur and one fused pass,

        score = mean of (2 m_x m_y + C1) (2 blur(x y) - 2 m_x m_y + C2) / (power variance)

    where ``power`` and ``variance``, the factors of the denominator, are sums of what either picture brings to them.

    Parameters
    ----------
    decoded : ndarray of shape (n, height, width, channels)
        0 to 1
    true : ndarray of shape (m, height, width, channels)
        0 to 1
    variant : {"2d", "columns"}, default "2d"
        ``2d`` or ``columns``
    data_range : float, default 1.0
        as in ``ssim_2d``

    Returns
    -------
    ndarray of shape (n, m), float64
        computed in float32, within 1e-5 of ``ssim_2d``
    """
    x = _grey_inside(decoded, variant)
    y = _grey_inside(true, variant)
    if x.shape[1:] != y.shape[1:]:
        raise DataError(f"decoded pictures are {x.shape[1:]} but the true ones {y.shape[1:]}; resize before scoring.")

    c1 = np.float32((K1 * data_range) ** 2)
    c2 = np.float32((K2 * data_range) ** 2)
    x = _LocalMoments(x, variant, c1, c2)
    y = _LocalMoments(y, variant, c1, c2)
    n = len(x.pictures)
    m = len(y.pictures)
    scores = np.zeros((n, m))
    if not scores.size:
        return scores

    width = x.pictures.shape[2]
    n_rows, n_columns = x.mean.shape[1:]
    strip = min(_STRIP, n_rows)
    size = min(m, max(1, _CHUNK_PIXELS // ((strip + 2 * RADIUS) * width)))

    # Every array of the pass is made once: fresh ones of this size cost more in page faults than in arithmetic.
    products = np.empty(size * (strip + 2 * RADIUS) * width, np.float32)
    partial = np.empty(size * (strip + 2 * RADIUS) * n_columns, np.float32)
    blurred = np.empty(size * strip * n_columns, np.float32)
    work = np.empty(size * strip * n_columns, np.float32)
    average = np.full(n_columns, 1 / n_columns, np.float32)

    for first, start in itertools.product(range(0, n_rows, strip), range(0, m, size)):
        out = slice(first, min(first + strip, n_rows))  # rows of the map
        into = slice(first, min(first + strip, n_rows) + 2 * RADIUS)  # rows of the pictures under their windows
        j = slice(start, min(start + size, m))  # true pictures
        k = j.stop - j.start
        n_into = into.stop - into.start
        n_out = out.stop - out.start

        product = _head(products, k, n_into, width)
        rows = _head(partial, k, n_into, n_columns)
        score = _head(blurred, k, n_out, n_columns)
        factor = _head(work, k, n_out, n_columns)
        pictures = y.pictures[j, into]  # (k, n_into, width)
        mean = y.mean[j, out]  # (k, n_out, n_columns), as the next two
        power = y.power[j, out]
        variance = y.variance[j, out]

        for i in range(n):
            np.multiply(x.pictures[i, into], pictures, out=product)  # 2 x y
            _blur(product, variant, score, rows)
            np.multiply(x.mean[i, out], mean, out=factor)  # 2 m_x m_y
            score -= factor  # 2 s_xy
            score += c2
            factor += c1
            score *= factor  # the numerator
            np.add(x.power[i, out], power, out=factor)  # m_x^2 + m_y^2 + C1
            score /= factor
            np.add(x.variance[i, out], variance, out=factor)  # s_x^2 + s_y^2 + C2
            score /= factor
            scores[i, j] += (score @ average).sum(axis=1, dtype=np.float64)  # (k,): mean over columns, sum over rows

    scores /= n_rows
    return scores


def _head(buffer: np.ndarray, *shape: int) -> np.ndarray:
    """The first values of a flat buffer as a contiguous array, so that every reshape of it stays a view."""
    return buffer[: math.prod(shape)].reshape(shape)


class _LocalMoments:
    """What the pair pass needs of each picture: float32, scaled by sqrt(2) so that products come out doubled.

    Attributes
    ----------
    pictures : ndarray of shape (n, height, width)
        sqrt(2) x
    mean : ndarray of shape (n, n_rows, n_columns)
        local mean of `pictures`, sqrt(2) m_x
    power : ndarray of shape (n, n_rows, n_columns)
        m_x^2 + C1 / 2: its share of the first factor of the denominator
    variance : ndarray of shape (n, n_rows, n_columns)
        s_x^2 + C2 / 2: its share of the second factor
    """

    def __init__(self, pictures: np.ndarray, variant: Variant, c1: np.float32, c2: np.float32):
        _, height, width = pictures.shape
        n_columns = width - 2 * RADIUS * (variant == "2d")  # no window lies across columns in the other variant
        shape = (len(pictures), height - 2 * RADIUS, n_columns)
        self.pictures = (np.sqrt(2.0) * pictures).astype(np.float32)
        self.mean = np.empty(shape, np.float32)
        self.power = np.empty(shape, np.float32)
        self.variance = np.empty(shape, np.float32)
        step = max(1, _CHUNK_PIXELS // (height * width))

        # In float32 as the pair pass: s_xy of a picture with itself is then rounded as its variance is.
        for start in range(0, len(pictures), step):
            part = slice(start, start + step)
            mean = self.mean[part]
            power = self.power[part]
            variance = self.variance[part]
            _blur(self.pictures[part], variant, mean)
            _blur(np.square(self.pictures[part]), variant, variance)
            np.square(mean, out=power)
            variance -= power
            power += c1  # 2 m_x^2 + C1, as `pictures` is scaled by sqrt(2)
            power /= 2
            variance += c2
            variance /= 2


def _ssim(decoded: np.ndarray, true: np.ndarray, variant: Variant, data_range: float) -> np.ndarray:
    """(n,) float64: the formula at the top of this file, picture by picture."""
    decoded, true = as_pairs(decoded, true)
    c1 = (K1 * data_range) ** 2
    c2 = (K2 * data_range) ** 2
    scores = np.empty(len(decoded))

    # One picture at a time: the five maps of all of them together would not fit in the cache, or in memory.
    for i in range(len(decoded)):
        x = _grey_inside(decoded[i : i + 1], variant).astype(np.float64)
        y = _grey_inside(true[i : i + 1], variant).astype(np.float64)

        mean_x = _blur(x, variant)  # (1, n_rows, n_columns), as the next four
        mean_y = _blur(y, variant)
        xx = _blur(x * x, variant)
        yy = _blur(y * y, variant)
        xy = _blur(x * y, variant)

        top = (2 * mean_x * mean_y + c1) * (2 * (xy - mean_x * mean_y) + c2)
        bottom = (mean_x**2 + mean_y**2 + c1) * (xx - mean_x**2 + yy - mean_y**2 + c2)
        scores[i] = (top / bottom).mean()

    return scores


def _grey_inside(pictures: np.ndarray, variant: Variant) -> np.ndarray:
    """(n, height, width) luminance of pictures that hold at least one window; a DataError for smaller ones."""
    if variant not in ("2d", "columns"):
        raise ConfigError(f"the SSIM variant should be '2d' or 'columns', but is {variant!r}.")

    pictures = grey(as_pictures(pictures))
    _, height, width = pictures.shape
    if variant == "columns":
        side = height
    else:
        side = min(height, width)

    if side < WINDOW:
        raise DataError(
            f"SSIM looks through windows of {WINDOW} pixels, but the pictures are {height} x {width}; "
            "score larger pictures or leave SSIM out."
        )

    return pictures


def _blur(
    pictures: np.ndarray, variant: Variant, out: np.ndarray | None = None, rows: np.ndarray | None = None
) -> np.ndarray:
    """Gaussian means at every centre whose window fits: (n, h - 10, w - 10), or (n, h - 10, w) for columns.

    As products with narrow pieces of the banded weight matrix, which a BLAS does faster than eleven shifted sums.
    ``out`` and ``rows`` (n, h, w - 10) take the result and the intermediate when given.
    """
    n, height, width = pictures.shape
    edge = 2 * RADIUS

    # A two-dimensional Gaussian is the product of two: along each row first, then along each column.
    if variant == "2d":
        if rows is None:
            rows = np.empty((n, height, width - edge), pictures.dtype)

        flat = pictures.reshape(n * height, width)
        flat_rows = rows.reshape(n * height, width - edge)
        for start in range(0, width - edge, _TILE):
            stop = min(start + _TILE, width - edge)
            _, band = _band(stop - start, flat.dtype.char)  # (stop - start + 10, stop - start)
            np.matmul(flat[:, start : stop + edge], band, out=flat_rows[:, start:stop])

        pictures = rows

    if out is None:
        out = np.empty((n, height - edge, pictures.shape[2]), pictures.dtype)

    for start in range(0, height - edge, _TILE):
        stop = min(start + _TILE, height - edge)
        band, _ = _band(stop - start, out.dtype.char)  # (stop - start, stop - start + 10)
        np.matmul(band, pictures[:, start : stop + edge], out=out[:, start:stop])

    return out


@lru_cache(maxsize=256)
def _band(n_out: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """(n_out, n_out + 10): the 11 Gaussian weights, each row one step further right; and its transpose, contiguous."""
    taps = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    band = np.zeros((n_out, n_out + 2 * RADIUS))
    for i in range(n_out):
        band[i, i : i + WINDOW] = taps / taps.sum()

    return band.astype(dtype), np.ascontiguousarray(band.T, dtype=dtype)
