"""From a picture to the maps that simulated visual areas look at: contrast energy, brightness, colour, curvature.

Pictures are seen at 32 x 32 on a grey screen; every map comes on a 16 x 16 grid over the picture.

References
----------
Adelson and Bergen 1985 (energy of quadrature pairs); Kay et al. 2008 (Gabor pyramid model of early visual areas);
Gallant et al. 1996 and Pasupathy and Connor 2002 (curvature in V4).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import fft

from phosphene.lab.exact import exact_product

GRID = 16
ORIENTATIONS = 6
CYCLES = (2.0, 4.0, 8.0)  # per picture
HUES = 6
N_ENERGY = ORIENTATIONS * len(CYCLES)
N_SURFACE = 4  # brighter, darker, red-green, blue-yellow

_SEEN = 32
_PADDED = 48
_GREY = np.float32(0.5)


@cache
def _area_weights(size: int) -> np.ndarray:
    """(32, size): how much of each pixel falls into each of 32 equal bins."""
    edges = np.linspace(0.0, size, _SEEN + 1)
    low = edges[:-1, None]
    high = edges[1:, None]
    pixel = np.arange(size)[None, :]
    overlap = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0.0, None)

    return (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)


@cache
def _filters() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """One-sided band-pass filters: rows and columns of the frequency plane where each lives, and its values there.

    An amplitude does not change when its band is moved to frequency 0, and there a grid of half the density holds it. A
    phase ramp puts the coarse grid's points between the pixels they stand for.
    """
    half = _PADDED // 2
    around = np.arange(-half // 2, half // 2)
    filters = []
    for cycles in CYCLES:
        for number in range(ORIENTATIONS):
            turn = np.pi * number / ORIENTATIONS
            if cycles > 4.0:
                carrier = cycles * _PADDED / _SEEN
            else:
                carrier = 0.0

            rows = around + round(carrier * np.sin(turn))
            columns = around + round(carrier * np.cos(turn))

            # cycles per picture
            fy = rows[:, None] * (_SEEN / _PADDED)
            fx = columns[None, :] * (_SEEN / _PADDED)
            octaves = np.log2(np.maximum(np.hypot(fx, fy), 1e-9) / cycles)
            bearing = np.angle(np.exp(1j * (np.arctan2(fy, fx) - turn)))
            band = np.exp(-0.5 * (octaves / 0.45) ** 2 - 0.5 * (bearing / np.deg2rad(20.0)) ** 2)
            ramp = np.exp(1j * np.pi * (rows[:, None] + columns[None, :]) / _PADDED)  # half a pixel on
            values = fft.ifftshift(0.25 * band * ramp).astype(np.complex64)
            filters.append((fft.ifftshift(rows % _PADDED), fft.ifftshift(columns % _PADDED), values))

    return filters


def _shrink(rgb: np.ndarray) -> np.ndarray:
    """(n, 3, size, size) to (n, 3, 32, 32) float32, averaging areas."""
    weights = _area_weights(rgb.shape[2])
    seen = np.empty((len(rgb), 3, _SEEN, _SEEN), dtype=np.float32)
    for channel in range(3):  # one after the other: large pictures in float64 fill the memory
        rows = exact_product(weights, rgb[:, channel])  # (n, 32, size)
        seen[:, channel] = exact_product(rows, weights.T)  # (n, 32, 32)
    return seen


def _halve(maps: np.ndarray) -> np.ndarray:
    """(..., 32, 32) to (..., 16, 16), averaging."""
    return 0.25 * (maps[..., ::2, ::2] + maps[..., 1::2, ::2] + maps[..., ::2, 1::2] + maps[..., 1::2, 1::2])


def _energy(light: np.ndarray) -> np.ndarray:
    """Amplitude of the oriented contrast around each point, (n, 18, 16, 16)."""
    edge = (_PADDED - _SEEN) // 2
    padded = np.pad(light - _GREY, ((0, 0), (edge, edge), (edge, edge)))
    spectrum = np.asarray(fft.fft2(padded))  # (n, 48, 48)
    inside = slice(edge // 2, edge // 2 + GRID)
    out = np.empty((len(light), N_ENERGY, GRID, GRID), dtype=np.float32)
    for number, (rows, columns, values) in enumerate(_filters()):
        band = spectrum[:, rows[:, None], columns[None, :]] * values  # (n, 24, 24)
        amplitude = np.asarray(fft.ifft2(band, overwrite_x=True))
        out[:, number] = np.abs(amplitude[:, inside, inside])

    return out


def _curvature(light: np.ndarray) -> np.ndarray:
    """Bending of contours, bright inside (convex) and dark inside (concave): (n, 2, 16, 16)."""
    padded = np.pad(light, ((0, 0), (2, 2), (2, 2)), mode="edge")
    soft = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    soft = (soft[:, :, :-2] + 2 * soft[:, :, 1:-1] + soft[:, :, 2:]) / 4  # (n, 34, 34)

    # Derivatives by central differences, and the curvature of the lines of equal brightness.
    gx = (soft[:, 1:-1, 2:] - soft[:, 1:-1, :-2]) / 2
    gy = (soft[:, 2:, 1:-1] - soft[:, :-2, 1:-1]) / 2
    gxx = soft[:, 1:-1, 2:] - 2 * soft[:, 1:-1, 1:-1] + soft[:, 1:-1, :-2]
    gyy = soft[:, 2:, 1:-1] - 2 * soft[:, 1:-1, 1:-1] + soft[:, :-2, 1:-1]
    gxy = (soft[:, 2:, 2:] - soft[:, 2:, :-2] - soft[:, :-2, 2:] + soft[:, :-2, :-2]) / 4
    bend = -(gxx * gy**2 - 2 * gxy * gx * gy + gyy * gx**2) / (gx**2 + gy**2 + np.float32(1e-3))

    return np.stack([_halve(np.maximum(bend, 0)), _halve(np.maximum(-bend, 0))], axis=1)


def maps(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the visual areas look at.

    Parameters
    ----------
    images : ndarray of shape (n, size, size, 3), uint8
        RGB

    Returns
    -------
    energy : ndarray of shape (n, 18, 16, 16), float32
        at least 0, frequencies by orientations
    surface : ndarray of shape (n, 4, 16, 16), float32
        brighter and darker than grey (at least 0), red minus green, blue minus yellow
    shape : ndarray of shape (n, 10, 16, 16), float32
        at least 0: six hues, brighter, darker, convex, concave
    """
    rgb = images.astype(np.float32).transpose(0, 3, 1, 2) * np.float32(1 / 255)
    if images.shape[1] == _SEEN:
        seen = rgb
    else:
        seen = _shrink(rgb)

    red = seen[:, 0]
    green = seen[:, 1]
    blue = seen[:, 2]
    light = 0.30 * red + 0.59 * green + 0.11 * blue
    coarse = _halve(light)
    bright = np.maximum(coarse - _GREY, 0)
    dark = np.maximum(_GREY - coarse, 0)
    red_green = _halve(red - green)
    blue_yellow = _halve(blue - 0.5 * (red + green))

    hues = []
    for turn in 2 * np.pi * np.arange(HUES) / HUES:
        along = np.float32(np.cos(turn)) * red_green + np.float32(np.sin(turn)) * blue_yellow
        hues.append(np.maximum(along, 0))
    surface = np.stack([bright, dark, red_green, blue_yellow], axis=1)
    shape = np.concatenate([np.stack([*hues, bright, dark], axis=1), _curvature(light)], axis=1)  # (n, 10, 16, 16)

    return _energy(light), surface, shape
