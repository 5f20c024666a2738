"""Scores of decoded pictures on their pixels: PixCorr and MSE. SSIM has its own file.

Pictures are float32, 0 to 1, (n, height, width, channels) with one or three channels; tensors of torch, 8-bit integers of 0-255
and channels in front are taken as well. Every function returns one value
per picture; a value that is not defined (a constant picture has no correlation) is NaN here, and is counted as chance
and listed by ``phosphene.metrics.metric``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from phosphene.errors import DataError
from phosphene.metrics.correlation import paired_correlation
from phosphene.types.tensors import tensor_values

LUMINANCE = np.array([0.2125, 0.7154, 0.0721])  # red, green, blue; ITU-R BT.709, as scikit-image's rgb2gray


def as_pictures(pictures: Any, name: str = "pictures") -> np.ndarray:
    """The array as (n, height, width, channels), 0 to 1, after checking shape and range.

    Parameters
    ----------
    pictures : ndarray or Tensor of shape (n, height, width), (n, height, width, 1 or 3) or (n, 1 or 3, height, width)
        0 to 1, or uint8 of 0 to 255; NaN is let through
    name : str, default "pictures"
        what to call the array in an error

    Returns
    -------
    ndarray of shape (n, height, width, channels)
        a view; a float32 copy of uint8

    Raises
    ------
    DataError
        For another shape, or values outside 0 to 1 (by more than 0.001).
    """
    if not isinstance(pictures, np.ndarray):
        pictures = tensor_values(pictures)

    if pictures.ndim == 3:
        pictures = pictures[..., None]

    # Channels in front, as torch has them; where both could be meant they stand last, as everywhere here.
    if pictures.ndim == 4 and pictures.shape[-1] not in (1, 3) and pictures.shape[1] in (1, 3):
        pictures = np.moveaxis(pictures, 1, -1)

    if pictures.ndim != 4 or pictures.shape[-1] not in (1, 3) or pictures.dtype.kind not in "fiub":
        raise DataError(
            f"{name} should be real numbers of shape (n, height, width, 1 or 3) or (n, 1 or 3, height, width), but came as "
            f"{pictures.dtype} of shape {pictures.shape}; give 1 or 3 channels, without transparency."
        )

    if pictures.dtype == np.uint8:  # the one type whose range is certain
        return pictures.astype(np.float32) / np.float32(255)

    if not pictures.size:
        return pictures

    low = pictures.min()
    high = pictures.max()
    if low != low:  # a NaN somewhere: look past it
        low = np.fmin.reduce(pictures, axis=None)
        high = np.fmax.reduce(pictures, axis=None)

    # Within a thousandth, a quarter of a step of 8 bits, is rounding.
    if low < -1e-3 or high > 1 + 1e-3:
        if high > 2:
            advice = "divide by 255"
        else:
            advice = "clip them"

        raise DataError(f"{name} should lie between 0 and 1, but run from {low:.4g} to {high:.4g}; {advice} first.")

    return pictures


def as_pairs(decoded: Any, true: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays as pictures of one shape.

    Parameters
    ----------
    decoded, true : ndarray
        as ``as_pictures`` takes them, row i of both being one stimulus

    Returns
    -------
    decoded : ndarray of shape (n, height, width, channels)
        a view
    true : ndarray of shape (n, height, width, channels)
        a view

    Raises
    ------
    DataError
        As ``as_pictures``; also when the shapes differ.
    """
    decoded = as_pictures(decoded, "decoded pictures")
    true = as_pictures(true, "true pictures")
    if decoded.shape != true.shape:
        raise DataError(
            f"decoded pictures have shape {decoded.shape} but the true ones {true.shape}; "
            "resize and pair them before scoring."
        )

    return decoded, true


def grey(pictures: Any) -> np.ndarray:
    """Luminance, 0.2125 R + 0.7154 G + 0.0721 B; one channel is taken as it is.

    Parameters
    ----------
    pictures : ndarray of shape (n, height, width, channels)
        0 to 1, one or three channels

    Returns
    -------
    ndarray of shape (n, height, width)
        0 to 1, in the type of `pictures` where that is floating

    Examples
    --------
    >>> grey(np.array([1.0, 0.0, 0.0]).reshape(1, 1, 1, 3)).item()
    0.2125
    """
    pictures = as_pictures(pictures)
    if pictures.shape[-1] == 1:
        return pictures[..., 0]

    if pictures.dtype.kind == "f":
        dtype = pictures.dtype
    else:
        dtype = np.dtype(np.float64)

    return pictures @ LUMINANCE.astype(dtype)  # (n, height, width)


def pixcorr(decoded: Any, true: Any) -> np.ndarray:
    """Pearson r between a decoded picture and the true one, over all pixels and channels, per picture.

        r = sum_p (x_p - mean x) (y_p - mean y) / (|x - mean x| |y - mean y|)

    The headline is the plain mean of these over pictures. ``pixcorr_variants`` has the other ways of averaging.

    Parameters
    ----------
    decoded, true : ndarray or Tensor of shape (n, height, width, channels)
        0 to 1, see ``as_pictures``

    Returns
    -------
    ndarray of shape (n,)
        -1 to 1; NaN where a picture is constant

    References
    ----------
    Ozcelik and VanRullen 2023, "PixCorr".

    Examples
    --------
    >>> ramp = np.linspace(0, 1, 16).reshape(1, 4, 4, 1)
    >>> pixcorr(ramp, 1 - ramp)
    array([-1.])
    """
    decoded, true = as_pairs(decoded, true)
    return paired_correlation(decoded.reshape(len(decoded), -1), true.reshape(len(true), -1))


def pixcorr_variants(decoded: Any, true: Any) -> dict[str, float]:
    """The averages in use under the name of pixel correlation, side by side.

    Parameters
    ----------
    decoded, true : ndarray or Tensor of shape (n, height, width, channels)
        0 to 1, see ``as_pictures``

    Returns
    -------
    dict
        ``mean``: mean over pictures of r over pixels (the one phosphene reports as ``pixcorr``);
        ``fisher``: the same mean taken on atanh(r) and carried back;
        ``pooled``: one r over the pixels of all pictures together, which rewards knowing the mean picture;
        ``per_pixel``: mean over pixels of r over pictures, which does not.
        NaN where nothing is defined; undefined pictures or pixels count as r = 0.
    """
    decoded, true = as_pairs(decoded, true)
    x = decoded.reshape(len(decoded), -1)  # (n, n_values)
    y = true.reshape(len(true), -1)
    if not len(x):
        return dict.fromkeys(("mean", "fisher", "pooled", "per_pixel"), float("nan"))

    r = np.nan_to_num(paired_correlation(x, y))  # (n,)
    by_pixel = np.nan_to_num(paired_correlation(x.T, y.T))  # (n_values,)
    pooled = paired_correlation(x.reshape(1, -1), y.reshape(1, -1))  # (1,)
    inside = np.clip(r, -1 + 1e-12, 1 - 1e-12)  # atanh of a perfect picture is infinite
    return {
        "mean": float(r.mean()),
        "fisher": float(np.tanh(np.arctanh(inside).mean())),
        "pooled": float(pooled[0]),
        "per_pixel": float(by_pixel.mean()),
    }


def mse(decoded: Any, true: Any) -> np.ndarray:
    """Mean squared difference over all pixels and channels, per picture.

        mse = mean_p (x_p - y_p)^2

    Parameters
    ----------
    decoded, true : ndarray or Tensor of shape (n, height, width, channels)
        0 to 1, see ``as_pictures``

    Returns
    -------
    ndarray of shape (n,)
        0 to 1; lower is better

    Examples
    --------
    >>> mse(np.zeros((1, 2, 2, 1)), np.full((1, 2, 2, 1), 0.5))
    array([0.25])
    """
    decoded, true = as_pairs(decoded, true)
    error = np.empty(len(decoded))

    # One picture at a time, so that the set is never held in float64.
    for i in range(len(decoded)):
        difference = np.subtract(decoded[i], true[i], dtype=np.float64)  # (height, width, channels)
        error[i] = np.square(difference).mean()

    return error
