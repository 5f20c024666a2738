"""Pictures as networks take them, and back: 0 to 1 becomes -1 to 1, channels go first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phosphene.errors import DataError

if TYPE_CHECKING:
    import torch


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
        if x.size and not (x.min() >= 0 and x.max() <= 1):
            raise DataError(
                f"pictures as floats must lie in 0-1, but span {x.min():.3g} to {x.max():.3g}; clip them first."
            )

    return torch.from_numpy(np.ascontiguousarray((x * 2 - 1).transpose(0, 3, 1, 2)))


def from_network(x: torch.Tensor) -> np.ndarray:
    """(n, 3, height, width), -1 to 1, back to pictures: (n, height, width, 3) float32, clipped to 0-1."""
    return ((x.detach().float().cpu().numpy().transpose(0, 2, 3, 1) + 1) / 2).clip(0, 1)
