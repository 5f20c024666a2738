"""Pictures as networks take them, and back: 8 bits or 0 to 1 becomes -1 to 1, channels go first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phosphene.errors import DataError

if TYPE_CHECKING:
    import torch


def as_eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Pictures as 8 bits, as public preprocessing that works on files sees them.

    Parameters
    ----------
    pixels : ndarray of shape (n, height, width, 1 or 3)
        uint8 of 0-255, which stay as they are, or floats of 0-1, which are rounded

    Returns
    -------
    ndarray of the same shape, uint8
        0-255

    Raises
    ------
    DataError
        For another shape, another type, or floats outside 0-1.

    Examples
    --------
    >>> as_eight_bits(np.full((1, 1, 1, 1), 0.5)).item()
    128
    """
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or not all(pixels.shape[1:]):
        raise DataError(f"pictures must be (n, height, width, 1 or 3), but have shape {pixels.shape}.")

    if pixels.dtype == np.uint8:
        return pixels

    if pixels.dtype.kind != "f":
        raise DataError(f"pictures must be uint8 of 0-255 or floats of 0-1, but are {pixels.dtype}.")

    _check_range(pixels)
    return np.round(pixels * 255).astype(np.uint8)


def to_network(pixels: np.ndarray) -> torch.Tensor:
    """Pictures as every network of the zoo takes them.

    Parameters
    ----------
    pixels : ndarray of shape (n, height, width, 3)
        uint8 of 0-255 or floats of 0-1

    Returns
    -------
    Tensor of shape (n, 3, height, width), float32
        -1 to 1 (``2 x - 1``)

    Raises
    ------
    DataError
        For another shape, or floats outside 0-1.
    """
    import torch

    pixels = np.asarray(pixels)
    if pixels.ndim != 4 or pixels.shape[3] != 3:
        raise DataError(f"pictures must be (n, height, width, 3), but have shape {pixels.shape}.")

    if pixels.dtype == np.uint8:
        x = pixels.astype(np.float32) / np.float32(255)
    else:
        x = np.asarray(pixels, dtype=np.float32)
        _check_range(x)

    channels_first = (x * 2 - 1).transpose(0, 3, 1, 2)  # (n, 3, height, width)
    return torch.from_numpy(np.ascontiguousarray(channels_first))


def from_network(x: torch.Tensor) -> np.ndarray:
    """Pictures back from a network.

    Parameters
    ----------
    x : Tensor of shape (n, 3, height, width)
        nominally -1 to 1

    Returns
    -------
    ndarray of shape (n, height, width, 3), float32
        clipped to 0-1
    """
    channels_last = x.detach().float().cpu().numpy().transpose(0, 2, 3, 1)  # (n, height, width, 3)
    return ((channels_last + 1) / 2).clip(0, 1)


def _check_range(pixels: np.ndarray) -> None:
    if pixels.size and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise DataError(
            f"pictures as floats must lie in 0-1, but span {pixels.min():.3g} to {pixels.max():.3g}; clip them first."
        )
