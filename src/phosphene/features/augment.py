"""Pictures altered at random before CLIP sees them, so that a decoder learns what does not depend on such changes.

One picture at a time, square or not, floats of 0-1 in and out; each function is a function of its arguments alone.
Sizes in pixels are given for a side of 256 and go with the side, so that small pictures are altered as large ones are.

References
----------
Lin, Sprague and Singh 2022 (Mind Reader), section A.2 and its code, from which the values come; the operations are those
of SimCLR (Chen et al. 2020, appendix A) and a mask.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image
from pydantic import Field
from scipy.ndimage import correlate1d

from phosphene.errors import DataError
from phosphene.io.config import Config
from phosphene.types import digest_of

SIDE = 256
"""Side of the pictures that sizes in pixels are given for."""
_GREY = np.array([0.2989, 0.587, 0.114], dtype=np.float32)  # ITU-R 601-2, as torchvision rounds it


class AugmentConfig(Config):
    """What is done to a picture, in this order, each with its probability. Mind Reader's values."""

    copies: int = Field(
        default=8, ge=1, description="altered pictures per stimulus; the authors make a new one in every epoch"
    )
    crop: tuple[float, float] = Field(default=(0.8, 1.0), description="share of the area that is cut out and enlarged")
    aspect: float = Field(
        default=4 / 3, ge=1, description="the cut is at most this much wider than high, or higher than wide"
    )
    flip: float = Field(default=0.5, ge=0, le=1, description="probability of a mirrored picture")
    jitter: float = Field(default=0.4, ge=0, le=1, description="probability of other colours")
    brightness: float = Field(default=0.4, ge=0, le=1, description="largest change of the factor 1")
    contrast: float = Field(default=0.4, ge=0, le=1, description="likewise")
    saturation: float = Field(default=0.2, ge=0, le=1, description="likewise")
    hue: float = Field(default=0.1, ge=0, le=0.5, description="largest turn of the colour circle, in turns")
    grey: float = Field(default=0.2, ge=0, le=1, description="probability of no colours")
    blur: float = Field(default=0.5, ge=0, le=1, description="probability of blur")
    blur_kernel: int = Field(default=23, ge=1, description="taps of the blur at a side of 256 pixels")
    blur_sigma: tuple[float, float] = Field(default=(0.1, 2.0), description="pixels at a side of 256")
    mask: float = Field(
        default=0.3, ge=0, le=1, description="side of the black square, in sides of the picture; 0: none"
    )


def augment(picture: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """One altered picture.

    Parameters
    ----------
    picture : ndarray of shape (height, width, 3), float
        0-1
    config : AugmentConfig
        what is done
    rng : numpy.random.Generator
        decides

    Returns
    -------
    ndarray of shape (height, width, 3), float32
        0-1

    Raises
    ------
    DataError
        For anything but a colour picture.

    Examples
    --------
    >>> augment(np.ones((8, 8, 3)), AugmentConfig(jitter=0.0, mask=0.0), np.random.default_rng(0)).min().round(4)
    np.float32(1.0)
    """
    x = np.asarray(picture, dtype=np.float32)
    if x.ndim != 3 or x.shape[2] != 3:
        raise DataError(f"a picture must be (height, width, 3), but has shape {x.shape}; repeat a grey one's channel.")

    scale = min(x.shape[:2]) / SIDE  # of sizes in pixels
    x = resized_crop(x, crop_box(x.shape[:2], config.crop, config.aspect, rng))
    if rng.random() < config.flip:
        x = x[:, ::-1]

    if rng.random() < config.jitter:
        x = _jitter(x, config, rng)

    if rng.random() < config.grey:
        x = np.repeat((x @ _GREY)[:, :, None], 3, axis=2)

    if rng.random() < config.blur:
        taps = 2 * (round(config.blur_kernel * scale) // 2) + 1
        x = blurred(x, taps, float(rng.uniform(*config.blur_sigma)) * scale)

    if config.mask:
        x = masked(x, config.mask, *rng.random(2))

    return np.clip(x, 0, 1).astype(np.float32)


def augmented(pixels: np.ndarray, config: AugmentConfig, seed: int, ids: list[str], copy: int) -> np.ndarray:
    """One altered version of each picture, a function of (seed, id of the picture, number of the copy).

    Parameters
    ----------
    pixels : ndarray of shape (n, height, width, 1 or 3), uint8
        0-255; grey ones get three equal channels
    config : AugmentConfig
        what is done
    seed : int
        of all versions
    ids : list of str
        n ids; a picture is altered alike whatever others come with it
    copy : int
        number of the version

    Returns
    -------
    ndarray of shape (n, height, width, 3), float32
        0-1
    """
    out = np.empty((*np.shape(pixels)[:3], 3), dtype=np.float32)
    for i, name in enumerate(ids):
        key = int(digest_of("augment", name)[:12], 16)
        rng = np.random.default_rng([seed, copy, key])
        picture = np.asarray(pixels[i], dtype=np.float32) / 255
        out[i] = augment(np.broadcast_to(picture, out.shape[1:]), config, rng)

    return out


# -- the operations ----------------------------------------------------------------------------------------------------


def crop_box(
    shape: tuple[int, int], area: tuple[float, float], aspect: float, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Where to cut: (top, left, height, width), of a random share of the area and a log-uniform aspect.

    Ten tries that may not fit, as torchvision's RandomResizedCrop, and then the largest middle part of allowed aspect.

    Parameters
    ----------
    shape : tuple of (int, int)
        height and width of the picture
    area : tuple of (float, float)
        smallest and largest share of the area
    aspect : float
        largest ratio of the sides, 1 or more
    rng : numpy.random.Generator
        draws
    """
    height, width = shape
    for _ in range(10):
        size = rng.uniform(*area) * height * width
        ratio = math.exp(rng.uniform(-math.log(aspect), math.log(aspect)))
        w = round(math.sqrt(size * ratio))
        h = round(math.sqrt(size / ratio))

        if 0 < w <= width and 0 < h <= height:
            top = int(rng.integers(height - h + 1))
            left = int(rng.integers(width - w + 1))
            return top, left, h, w

    w = min(width, round(height * aspect))
    h = min(height, round(width * aspect))

    return (height - h) // 2, (width - w) // 2, h, w


def resized_crop(picture: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """A part of a picture, bilinearly resized to the size of the whole.

    Parameters
    ----------
    picture : ndarray of shape (height, width, channels)
        float32
    box : tuple of int
        top, left, height and width of the part
    """
    top, left, h, w = box
    height, width = picture.shape[:2]
    out = np.empty(picture.shape, dtype=np.float32)

    for c in range(picture.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(picture[top : top + h, left : left + w, c]))
        out[:, :, c] = np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR))

    return out


def _jitter(x: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and hue in random order."""

    def factor(largest: float) -> float:
        return float(rng.uniform(1 - largest, 1 + largest))

    brightness = factor(config.brightness)
    contrast = factor(config.contrast)
    saturation = factor(config.saturation)
    turn = float(rng.uniform(-config.hue, config.hue))

    for operation in rng.permutation(4):
        if operation == 0:
            x = np.clip(brightness * x, 0, 1)
        elif operation == 1:
            x = np.clip(contrast * x + (1 - contrast) * (x @ _GREY).mean(), 0, 1)
        elif operation == 2:
            grey = (x @ _GREY)[:, :, None]  # (height, width, 1)
            x = np.clip(saturation * x + (1 - saturation) * grey, 0, 1)
        else:
            x = turned(x, turn)

    return x


def turned(picture: np.ndarray, turn: float) -> np.ndarray:
    """Hue turned by a share of the colour circle; saturation and value (of HSV) stay.

    Parameters
    ----------
    picture : ndarray
        (..., 3), 0-1
    turn : float
        in turns; 1/3 makes red green

    Examples
    --------
    >>> turned(np.array([0.8, 0.2, 0.2]), 1 / 3).round(6)
    array([0.2, 0.8, 0.2])
    """
    top = picture.max(axis=-1, keepdims=True)
    low = picture.min(axis=-1, keepdims=True)
    range_ = np.where(top > low, top - low, 1)[..., 0]
    r, g, b = np.moveaxis(picture, -1, 0)

    # Which of six sectors the hue lies in, by the channel that is largest, the first of equals.
    is_red = r == top[..., 0]
    is_green = (g == top[..., 0]) & ~is_red
    is_blue = (b == top[..., 0]) & ~is_red & (g != top[..., 0])
    sector = np.where(is_red, (g - b) / range_ % 6, 0)
    sector = np.where(is_green, (b - r) / range_ + 2, sector)
    sector = np.where(is_blue, (r - g) / range_ + 4, sector)

    # A channel at place p of the circle (red 0, green 2, blue 4) falls with the distance of the hue from it.
    distance = np.abs((sector[..., None] + 6 * turn - np.array([0, 2, 4]) + 3) % 6 - 3)
    return (low + (top - low) * np.clip(2 - distance, 0, 1)).astype(picture.dtype)


def blurred(picture: np.ndarray, taps: int, sigma: float) -> np.ndarray:
    """Gaussian blur; edges are mirrored.

    Parameters
    ----------
    picture : ndarray of shape (height, width, channels)
        0-1
    taps : int
        length of the kernel, odd
    sigma : float
        its standard deviation, pixels
    """
    offset = np.arange(taps) - taps // 2
    kernel = np.exp(-0.5 * np.square(offset / max(sigma, 1e-6)))
    kernel /= kernel.sum()
    rows = correlate1d(picture, kernel, axis=0, mode="mirror")

    return correlate1d(rows, kernel, axis=1, mode="mirror")


def masked(picture: np.ndarray, side: float, y: float, x: float) -> np.ndarray:
    """A black square over the picture.

    Parameters
    ----------
    picture : ndarray of shape (height, width, channels)
        0-1
    side : float
        of the square, in sides of the picture
    y, x : float
        its middle, 0-1 of the height and width; what lies outside is lost
    """
    height, width = picture.shape[:2]
    top = max(0, round((y - side / 2) * height))
    bottom = max(0, round((y + side / 2) * height))
    left = max(0, round((x - side / 2) * width))
    right = max(0, round((x + side / 2) * width))

    out = picture.copy()
    out[top:bottom, left:right] = 0

    return out
