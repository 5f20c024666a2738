"""Pictures at another size, as published scores resize them: 8 bits, Pillow, both sides whatever the shape was.

Other ways to resize give other scores. Reconstructions of 512 pixels come to the 425 of the stimuli by ``bicubic`` for
PixCorr and SSIM, and every network is shown 224 pixels by ``bilinear``. Pillow smooths before it makes smaller.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from phosphene.errors import DataError
from phosphene.metrics.pixel import as_pictures

SIDE = 425
"""Side of NSD's stimuli as published scripts store them."""
RESIZED = f".{SIDE}"
"""End of the names of pixel scores taken at that size."""
CHAIN = f"512 to {SIDE}, Pillow bicubic"
"""How published rows name it."""


def eight_bits(pictures: np.ndarray) -> np.ndarray:
    """Pictures of 0-1 as three channels of 8 bits, rounded.

    Parameters
    ----------
    pictures : ndarray of shape (n, height, width, 1 or 3)
        0 to 1

    Returns
    -------
    ndarray of shape (n, height, width, 3), uint8
        0 to 255; one channel is repeated

    Raises
    ------
    DataError
        For values that are not finite, or outside 0-1.
    """
    pictures = as_pictures(pictures)
    if pictures.dtype.kind == "f" and not np.isfinite(pictures).all():
        bad = int((~np.isfinite(pictures).all(axis=(1, 2, 3))).sum())
        raise DataError(f"{bad} of {len(pictures)} pictures hold values that are not finite; leave these out.")

    pixels = np.round(np.clip(pictures, 0, 1) * 255).astype(np.uint8)
    if pixels.shape[3] == 1:
        return np.repeat(pixels, 3, axis=3)
    return pixels


def resized(pixels: np.ndarray, side: int, resample: Literal["bilinear", "bicubic"] = "bilinear") -> np.ndarray:
    """Pictures of ``side`` x ``side`` pixels.

    Parameters
    ----------
    pixels : ndarray of shape (n, height, width, 3), uint8
        0 to 255
    side : int
        rows and columns of the result
    resample : {"bilinear", "bicubic"}, default "bilinear"
        as Pillow names it

    Returns
    -------
    ndarray of shape (n, side, side, 3), uint8
        pictures of that size come back as they are
    """
    from PIL import Image

    if pixels.shape[1:3] == (side, side):
        return pixels

    out = np.empty((len(pixels), side, side, 3), dtype=np.uint8)
    for i, picture in enumerate(pixels):
        small = Image.fromarray(np.ascontiguousarray(picture)).resize((side, side), Image.Resampling[resample.upper()])
        out[i] = np.asarray(small)

    return out


def at_published_size(pictures: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Pictures of 0-1 at the size PixCorr and SSIM are published for: rounded to 8 bits, bicubic, and 0-1 again.

    Parameters
    ----------
    pictures : ndarray of shape (n, height, width, 1 or 3)
        0-1, finite
    side : int, optional
        425, the stimuli of NSD as published scripts store them

    Returns
    -------
    ndarray of shape (n, side, side, 3), float32
        0-1

    References
    ----------
    Ozcelik and VanRullen 2023, evaluation script: ``resize((425, 425))`` of Pillow, whose default is bicubic.
    """
    return resized(eight_bits(pictures), side, "bicubic").astype(np.float32) / np.float32(255)
