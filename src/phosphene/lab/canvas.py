"""A small rasteriser: shapes as signed distances, antialiased by their coverage of a pixel, many pictures at once.

Only ``+ - * /``, square root, comparison, minimum, maximum, floor and table look-up are used, element by element in
float32. IEEE 754 rounds each of these exactly, so the pixels are the same on every machine, in every batch and with
every version of numpy; sines, powers, matrix products and sums over an axis are not, and stay out of here.

Coordinates run from 0 to 1, x to the right and y down. Parameters that differ by picture have shape (n, 1, 1), colours
(3, n, 1, 1), both made by :func:`per_picture` and :func:`colours`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from phosphene.lab.chance import lattice

_TILE = 256  # side of the noise texture; a power of two, so that wrapping round is a bitwise and


def per_picture(values: np.ndarray | Sequence[float]) -> np.ndarray:
    """(n,) to (n, 1, 1) float32, to be broadcast over the pixels of each picture."""
    return np.asarray(values, dtype=np.float32).reshape(-1, 1, 1)


def colours(palette: Sequence[tuple[int, int, int]] | np.ndarray, choice: np.ndarray) -> np.ndarray:
    """One colour per picture.

    Parameters
    ----------
    palette : sequence of tuple of (int, int, int) or ndarray of shape (k, 3)
        RGB, 0-255
    choice : ndarray of shape (n,), int
        row of the palette for each picture

    Returns
    -------
    ndarray of shape (3, n, 1, 1), float32
        0-1
    """
    table = np.asarray(palette, dtype=np.float32) / np.float32(255)
    return np.ascontiguousarray(table[choice].T)[:, :, None, None]


def colour(red: int, green: int, blue: int) -> np.ndarray:
    """One colour for all pictures.

    Parameters
    ----------
    red, green, blue : int
        0-255

    Returns
    -------
    ndarray of shape (3, 1, 1, 1), float32
        0-1
    """
    return (np.array([red, green, blue], dtype=np.float32) / np.float32(255))[:, None, None, None]


def clamp(values: np.ndarray) -> np.ndarray:
    """Values limited to 0-1."""
    return np.minimum(np.maximum(values, np.float32(0)), np.float32(1))


def ease(values: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between (3 t^2 - 2 t^3)."""
    t = clamp(values)
    return t * t * (np.float32(3) - np.float32(2) * t)


def length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Length of a vector. numpy's hypot is not exactly rounded everywhere; this is.

    Parameters
    ----------
    x, y : ndarray
        its components, which broadcast together
    """
    return np.sqrt(x * x + y * y)


@cache
def _texture() -> np.ndarray:
    """A tile of smooth noise, four octaves, (256 * 256,) float32 between 0 and 1."""
    total = np.zeros((_TILE, _TILE), dtype=np.float32)
    where = np.arange(_TILE, dtype=np.float32)

    for octave, period in enumerate((8, 16, 32, 64)):
        at = where * np.float32(period / _TILE)
        low = np.floor(at).astype(np.int64)
        part = ease(at - low)  # the weights' slope is 0 at grid points, so no grid shows

        # Random values at the grid's corners, interpolated along y and then along x; the tile joins itself at its edges.
        grid = lattice(np.arange(period)[:, None], np.arange(period)[None, :], salt=octave)
        rows = grid[low] + part[:, None] * (grid[(low + 1) % period] - grid[low])
        total += np.float32(2.0**-octave) * (rows[:, low] + part * (rows[:, (low + 1) % period] - rows[:, low]))

    low = total.min()
    high = total.max()

    return ((total - low) / (high - low)).ravel()


def noise(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth noise, 0-1, mostly 0.3-0.7. It repeats every 1 and its largest lumps are 1/8 wide.

    Parameters
    ----------
    x, y : ndarray, float32
        where to look it up; any range, and they broadcast together
    """
    x = x * np.float32(_TILE)
    y = y * np.float32(_TILE)
    column = np.floor(x)
    row = np.floor(y)
    along = x - column
    down = y - row

    # Four neighbours in the tile, and between them in proportion to the distance.
    column = column.astype(np.int32) & (_TILE - 1)
    row = row.astype(np.int32) & (_TILE - 1)
    right = (column + 1) & (_TILE - 1)
    below = ((row + 1) & (_TILE - 1)) * _TILE
    row = row * _TILE
    tile = _texture()
    upper = tile[row + column]
    upper = upper + along * (tile[row + right] - upper)
    lower = tile[below + column]
    lower = lower + along * (tile[below + right] - lower)

    return upper + down * (lower - upper)


class Canvas:
    """Square colour pictures being painted, back to front.

    Parameters
    ----------
    count : int
        pictures
    size : int
        pixels along a side

    Attributes
    ----------
    rgb : ndarray of shape (3, count, size, size), float32
        0-1
    x : ndarray of shape (1, 1, size), float32
        pixel centres between 0 and 1
    y : ndarray of shape (1, size, 1), float32
        pixel centres between 0 and 1
    pixel : float32
        width of a pixel
    """

    def __init__(self, count: int, size: int):
        self.rgb = np.zeros((3, count, size, size), dtype=np.float32)
        centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
        self.x = centres[None, None, :]
        self.y = centres[None, :, None]
        self.pixel = np.float32(1) / np.float32(size)

    def blend(self, cover: np.ndarray | np.float32, paint: np.ndarray) -> None:
        """Mix a colour in.

        Parameters
        ----------
        cover : ndarray or float32
            share of the new colour, 0-1, broadcast to (n, size, size)
        paint : ndarray
            the colour, broadcast to (3, n, size, size), 0-1
        """
        self.rgb += cover * (paint - self.rgb)

    def shape(self, distance: np.ndarray, paint: np.ndarray, opacity: float | np.ndarray = 1.0) -> None:
        """Paint a shape given by its signed distance.

        Parameters
        ----------
        distance : ndarray
            negative inside, in units of the picture's width, broadcast to (n, size, size)
        paint : ndarray
            its colour, broadcast to (3, n, size, size), 0-1
        opacity : float or ndarray, default 1.0
            0-1
        """
        # A pixel whose centre lies on the edge is half covered: antialiasing without a second sample.
        self.blend(clamp(np.float32(0.5) - distance / self.pixel) * np.float32(opacity), paint)

    def pixels(self) -> np.ndarray:
        """(count, size, size, 3) uint8."""
        levels = np.floor(clamp(self.rgb) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
        return np.ascontiguousarray(levels.transpose(1, 2, 3, 0))


class Frame:
    """One thing's own coordinates on a canvas: upright, its height runs from -1 (top) to 1 (base).

    Parameters
    ----------
    canvas : Canvas
        where to paint
    rgb : array-like of shape (3, n, size, size)
        the pictures that hold such a thing
    centre_x, centre_y, half : array-like of shape (n,)
        of the thing's box, picture width = 1; `half` is half its height
    flip : array-like of shape (n,)
        +1 or -1, to face right or left
    tilt : array-like of shape (n,)
        tangent of half the angle by which it leans

    Attributes
    ----------
    x, y : array of shape (n, size, size), float32
        pixel centres in the thing's coordinates
    """

    def __init__(self, canvas: Canvas, rgb, centre_x, centre_y, half, flip, tilt):
        self.rgb = rgb
        half = per_picture(half)

        # Sine and cosine from the tangent of half the angle: only arithmetic that is rounded the same everywhere.
        lean = per_picture(tilt)
        norm = np.float32(1) + lean * lean
        cosine = (np.float32(1) - lean * lean) / norm
        sine = (lean + lean) / norm
        dx = (canvas.x - per_picture(centre_x)) / half
        dy = (canvas.y - per_picture(centre_y)) / half
        self.x = (dx * cosine + dy * sine) * per_picture(flip)
        self.y = dy * cosine - dx * sine
        self.pixel = canvas.pixel / half
        self._flip = per_picture(flip)

    def mirror_off(self) -> None:
        """Undo the mirroring: writing must not run backwards."""
        self.x = self.x * self._flip

    def lit(self, paint: np.ndarray, strength: float = 0.22) -> np.ndarray:
        """A colour brighter towards the top left and darker towards the base.

        Parameters
        ----------
        paint : ndarray
            the colour, broadcast to (3, n, size, size), 0-1
        strength : float, default 0.22
            how much darker, per unit of height

        Returns
        -------
        ndarray of shape (3, n, size, size), float32
        """
        return paint * (np.float32(1.04) - np.float32(strength) * (self.y * np.float32(0.8) + self.x * np.float32(0.4)))

    def cover(self, distance: np.ndarray) -> np.ndarray:
        """Share of each pixel inside the shape, 0-1."""
        return clamp(np.float32(0.5) - distance / self.pixel)

    def shape(
        self,
        distance: np.ndarray,
        paint: np.ndarray,
        opacity: float | np.ndarray = 1.0,
        edge: np.ndarray | None = None,
        width: float = 0.05,
    ) -> None:
        """Paint a shape, and an outline of it.

        Parameters
        ----------
        distance : ndarray of shape (n, size, size)
            signed distance to the shape, negative inside
        paint : ndarray
            its colour, broadcast to (3, n, size, size), 0-1
        opacity : float or ndarray, default 1.0
            0-1
        edge : ndarray, optional
            colour of the outline, which lies outside the shape; none by default
        width : float, default 0.05
            of the outline
        """
        # The outline is the shape grown by its width, painted before the shape covers the middle of it.
        if edge is not None:
            cover = self.cover(distance - np.float32(width))
            self.rgb += cover * (edge - self.rgb)
        cover = self.cover(distance) * np.float32(opacity)
        self.rgb += cover * (paint - self.rgb)

    def ellipse(self, cx, cy, rx, ry) -> np.ndarray:
        """Signed distance to an ellipse, exact for a disc and to first order otherwise.

        Parameters
        ----------
        cx, cy : float or ndarray
            centre
        rx, ry : float
            half axes
        """
        px = (self.x - cx) / np.float32(rx)
        py = (self.y - cy) / np.float32(ry)
        q = length(px, py)
        slope = length(px / np.float32(rx), py / np.float32(ry))
        return q * (q - np.float32(1)) / np.maximum(slope, np.float32(1e-6))

    def disc(self, cx, cy, radius) -> np.ndarray:
        """Signed distance to a disc.

        Parameters
        ----------
        cx, cy : float or ndarray
            centre
        radius : float
            more than 0, or 0 for the distance to the centre
        """
        return length(self.x - cx, self.y - cy) - np.float32(radius)

    def box(self, cx, cy, half_width, half_height, round_by=0.0) -> np.ndarray:
        """Signed distance to a box with rounded corners.

        Parameters
        ----------
        cx, cy : float or ndarray
            centre
        half_width, half_height : float
            of the box, its corners included
        round_by : float, default 0.0
            radius of the corners
        """
        dx = np.abs(self.x - cx) - np.float32(half_width - round_by)
        dy = np.abs(self.y - cy) - np.float32(half_height - round_by)
        zero = np.float32(0)
        outside = length(np.maximum(dx, zero), np.maximum(dy, zero))
        return outside + np.minimum(np.maximum(dx, dy), zero) - np.float32(round_by)

    def stroke(self, x0, y0, x1, y1, radius) -> np.ndarray:
        """Signed distance to a line with round ends.

        Parameters
        ----------
        x0, y0, x1, y1 : float or ndarray
            its ends
        radius : float
            half its thickness
        """
        ax = np.float32(1) * (x1 - x0)
        ay = np.float32(1) * (y1 - y0)
        px = self.x - x0
        py = self.y - y0
        along = clamp((px * ax + py * ay) / np.maximum(ax * ax + ay * ay, np.float32(1e-8)))

        return length(px - along * ax, py - along * ay) - np.float32(radius)

    def convex(self, *corners) -> np.ndarray:
        """Signed distance (sharp corners) to a convex polygon; corners in order round it, y down, clockwise on screen."""
        sides = []
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            ax = np.float32(1) * (x1 - x0)
            ay = np.float32(1) * (y1 - y0)
            sides.append(((self.x - x0) * ay - (self.y - y0) * ax) / np.sqrt(ax * ax + ay * ay))

        # Inside of all edges is inside of the polygon.
        distance = sides[0]
        for side in sides[1:]:
            distance = np.maximum(distance, side)
        return distance

    def arc(self, cx, cy, bend, half_width, radius) -> np.ndarray:
        """Signed distance to a piece of a parabola, ``y = cy + bend * (1 - (x - cx)^2 / half_width^2)``, true near the curve.

        Parameters
        ----------
        cx, cy : float or ndarray
            middle of its chord
        bend : ndarray
            how far the middle of the curve lies below the chord
        half_width : float
            half of the chord
        radius : float
            half the thickness of the line
        """
        px = self.x - cx
        share = px / np.float32(half_width)
        rise = self.y - (cy + bend * (np.float32(1) - share * share))
        slope = np.float32(-2) * bend * share / np.float32(half_width)
        curve = np.abs(rise) / np.sqrt(np.float32(1) + slope * slope) - np.float32(radius)

        return np.maximum(curve, np.abs(px) - np.float32(half_width))
