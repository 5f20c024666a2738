"""The flat map: every place of the flattened cortex in the colour of its nearest voxel.

A voxel table that can be drawn holds ``u`` and ``v`` (flat map, millimetres); regions, ceilings and receptive fields
(``prf_x``, ``prf_y``, degrees, x to the right and y up) are drawn where they are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from phosphene.types import ROI, Trials

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["map_kinds", "region_colours", "regions", "surface"]

# The colours of reporting.drawing, which takes `short` from here.
INK = "#22262e"
MUTED = "#626a76"
GRID = "#dde1e7"
SEQUENTIAL = "cividis"
MOST_ROIS = 16
"""Regions that get a colour; the largest of more, as more colours could not be told apart."""
_COLOURS = ("#3b6fb6", "#4fa3c7", "#5bbfae", "#8cc46b", "#d9c24a", "#d1495b", "#ee7f6d", "#f2a541", "#8f6bb3", "#7a8b52",
            "#b58a5a", "#c76f9b", "#48618f", "#3f8f7a", "#a14f2f", "#9aa0aa")  # fmt: skip
_MAP_WIDTH = 900  # pixels
_OUTSIDE = -2  # label of pixels that no voxel is near
TITLES = {
    "regions": "Regions",
    "ceiling": "Noise ceiling of one trial",
    "eccentricity": "Receptive field: eccentricity",
    "angle": "Receptive field: polar angle",
}


def regions(trials: Trials) -> tuple[np.ndarray, tuple[str, ...]]:
    """One region for each voxel: the smallest of those that hold it, so that V1 shows inside a mask of the whole cortex.

    Parameters
    ----------
    trials : Trials
        Of one subject.

    Returns
    -------
    tuple of (ndarray, tuple of str)
        (n_voxels,) int, number of the region or -1 for none; and the names, in the order of the voxel table. Of more
        than `MOST_ROIS` only the largest have a number.
    """
    if not trials.rois:
        return np.full(trials.n_voxels, -1), ()

    members = np.stack([trials.voxels[ROI + name].to_numpy(bool) for name in trials.rois])  # (n_rois, n_voxels)
    sizes = members.sum(axis=1)  # (n_rois,)
    region_of = np.full(trials.n_voxels, -1)

    # From large to small, so that a small region is written over those that hold it.
    for number in np.argsort(-sizes, kind="stable"):
        region_of[members[number]] = number

    visible = np.bincount(region_of[region_of >= 0], minlength=len(sizes))  # (n_rois,) voxels that are left of each
    largest = np.sort(np.argsort(-visible, kind="stable")[:MOST_ROIS])
    largest = largest[visible[largest] > 0]

    # The last entry stays -1, which is where a voxel of no region (-1) looks.
    new_number = np.full(len(sizes) + 1, -1)
    new_number[largest] = np.arange(len(largest))

    return new_number[region_of], tuple(trials.rois[number] for number in largest)


def region_colours(trials: Trials) -> dict[str, str]:
    """Colours of the regions, the same in all panels; everything else is grey.

    Parameters
    ----------
    trials : Trials
        Of one subject.

    Returns
    -------
    dict of str to str
        Name of each region to its colour, as ``#rrggbb``.
    """
    return dict(zip(regions(trials)[1], _COLOURS, strict=False))


def map_kinds(voxels: pd.DataFrame) -> tuple[str, ...]:
    """Maps that a voxel table can be drawn as, of ``regions``, ``ceiling``, ``eccentricity`` and ``angle``.

    Parameters
    ----------
    voxels : DataFrame
        One row per voxel.

    Returns
    -------
    tuple of str
        In the order drawn; empty where no voxel has a place (u, v).

    Examples
    --------
    >>> map_kinds(pd.DataFrame({"u": [0.0], "v": [1.0], "roi.V1": [True], "noise_ceiling": [0.5]}))
    ('regions', 'ceiling')
    """
    if not _has(voxels, "u", "v") or not np.isfinite(voxels[["u", "v"]].to_numpy(float)).all(axis=1).any():
        return ()

    kinds = []
    if any(str(column).startswith(ROI) for column in voxels.columns):
        kinds.append("regions")

    if _has(voxels, "noise_ceiling"):
        kinds.append("ceiling")

    if _has(voxels, "prf_x", "prf_y"):
        kinds.append("eccentricity")
        kinds.append("angle")

    return tuple(kinds)


def _has(voxels: pd.DataFrame, *names: str) -> bool:
    """Whether a voxel table has these columns, each with a number at least once."""
    return all(name in voxels and np.isfinite(voxels[name].to_numpy(float)).any() for name in names)


def surface(axes: Axes, trials: Trials, kind: str) -> None:
    """Draw one flat map: every place has the colour of the nearest voxel. Folds are shaded where nothing is to be shown.

    Parameters
    ----------
    axes : Axes
        To draw on.
    trials : Trials
        Of one subject, whose voxel table holds u and v.
    kind : str
        One of `map_kinds`.
    """
    voxels = trials.voxels
    place = voxels[["u", "v"]].to_numpy(float)  # (n_voxels, 2)
    nearest, extent = _raster(place)
    is_outside = nearest < 0
    region_of, names = regions(trials)

    # Grey by the fold (-1 to 1, light is a gyrus) where a voxel has no colour.
    fold = np.zeros(len(voxels))
    if _has(voxels, "fold"):
        fold = voxels["fold"].to_numpy(float)

    lightness = 0.86 + 0.06 * np.clip(np.nan_to_num(fold), -1, 1)
    grey = np.repeat(lightness[:, None], 3, axis=1)  # (n_voxels, 3)
    colours, scale = _voxel_colours(trials, kind)
    colours = np.where(np.isfinite(colours), colours, grey)

    picture = np.ones((*nearest.shape, 4))
    picture[..., :3] = colours[nearest]  # (height, width, 3)
    picture[is_outside] = (1, 1, 1, 0)
    axes.imshow(picture, extent=extent, interpolation="antialiased", origin="lower", zorder=1)

    # White borders, fainter over values so that they do not read as values.
    opacity = 0.75
    if kind == "regions":
        opacity = 0.95

    edges = _borders(np.where(is_outside, _OUTSIDE, region_of[nearest]))
    lines = np.zeros((*nearest.shape, 4))
    lines[edges] = (1, 1, 1, opacity)
    axes.imshow(lines, extent=extent, interpolation="antialiased", origin="lower", zorder=2)
    axes.set_axis_off()

    if kind == "regions":
        _name_regions(axes, np.where(is_outside, -1, region_of[nearest]), names, extent)

    _name_hemispheres(axes, voxels, extent)
    if kind == "angle":
        _wheel(axes)
    elif scale is not None:
        _bar(axes, *scale)


def _raster(place: np.ndarray) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Nearest voxel of every pixel of the map, -1 where none is near; and the map's extent (left, right, low, high)."""
    from scipy.spatial import KDTree

    placed = np.flatnonzero(np.isfinite(place).all(axis=1))
    tree = KDTree(place[placed])
    distances = tree.query(place[placed], k=min(5, len(placed)))[0]  # (n_placed, 5), the first to itself

    # A voxel colours what is as near as its fourth neighbour usually is: gaps close, and cuts of the sheet stay open.
    reach = 1.0
    if len(placed) > 1:
        reach = 1.1 * float(np.median(distances[:, -1]))

    reach = max(reach, 1e-6)
    low = place[placed].min(axis=0) - reach
    high = place[placed].max(axis=0) + reach
    step = (high[0] - low[0]) / _MAP_WIDTH
    u = np.arange(low[0] + step / 2, high[0], step)
    v = np.arange(low[1] + step / 2, high[1], step)
    pixels = np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2)  # (height * width, 2)
    distance, nearest = tree.query(pixels, distance_upper_bound=reach)

    # Where no voxel is in reach the tree answers with one past the last.
    voxel = np.append(placed, -1)[nearest]
    grid = np.where(np.isfinite(distance), voxel, -1).reshape(len(v), len(u))

    return grid, (low[0], high[0], low[1], high[1])


def _borders(label: np.ndarray) -> np.ndarray:
    """Pixels at which the label changes inside the sheet, two pixels wide."""
    is_border = np.zeros(label.shape, bool)
    for a, b in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        is_change = (label[a] != label[b]) & (label[a] != _OUTSIDE) & (label[b] != _OUTSIDE)
        is_border[a] |= is_change
        is_border[b] |= is_change

    return is_border


def _voxel_colours(trials: Trials, kind: str) -> tuple[np.ndarray, tuple[float, str] | None]:
    """Colours of voxels (n_voxels, 3), NaN where there is nothing to show; and top and label of a colour bar."""
    import matplotlib as mpl
    from matplotlib.colors import to_rgb

    voxels = trials.voxels
    colours = np.full((len(voxels), 3), np.nan)
    region_of, _ = regions(trials)

    if kind == "regions":
        palette = np.array([to_rgb(colour) for colour in region_colours(trials).values()]).reshape(-1, 3)
        has_region = region_of >= 0
        colours[has_region] = palette[region_of[has_region]]
        return colours, None

    # Receptive fields of voxels without signal are fits to noise.
    ceiling = trials.noise_ceiling
    is_drawn = np.ones(len(voxels), bool)
    if ceiling is not None:
        is_drawn = np.nan_to_num(ceiling) > 0

    if kind == "ceiling":
        assert ceiling is not None  # map_kinds names the map only where ceilings are
        values = ceiling
        label = "share of variance"
    else:
        x = voxels["prf_x"].to_numpy(float)
        y = voxels["prf_y"].to_numpy(float)
        is_drawn &= np.isfinite(x) & np.isfinite(y)
        if trials.rois:
            is_drawn &= region_of >= 0

        if kind == "angle":
            colours[is_drawn] = _hue(np.arctan2(y[is_drawn], x[is_drawn]))
            return colours, None

        values = np.hypot(x, y)
        label = "degrees"

    top = 1.0
    if is_drawn.any():
        top = _round_up(float(np.quantile(values[is_drawn], 0.98)))  # a few outliers would leave the rest dark

    shares = np.clip(values[is_drawn] / top, 0, 1)
    colours[is_drawn] = mpl.colormaps[SEQUENTIAL](shares)[:, :3]
    return colours, (top, label)


def _round_up(value: float) -> float:
    """The next larger number with one digit, or half a digit more: 0.47 to 0.5, 3.2 to 3.5.

    Examples
    --------
    >>> _round_up(0.47), _round_up(3.2), _round_up(6.0)
    (0.5, 3.5, 6.0)
    """
    unit = 10.0 ** np.floor(np.log10(max(value, 1e-6)))
    return float(np.ceil(round(2 * value / unit, 6)) * unit / 2)


def _hue(angle: np.ndarray) -> np.ndarray:
    """Colours of equal lightness round the circle, (n, 3) sRGB 0-1, from angles (n,) in radians (CIE Lab)."""
    lightness = 68.0
    chroma = 46.0  # the largest at which every hue of this lightness is nearly within sRGB
    turn = angle + np.deg2rad(35)

    # CIE Lab to XYZ (white D65), to linear sRGB, to sRGB with its gamma.
    fy = np.full_like(turn, (lightness + 16) / 116)
    f = np.stack([fy + chroma * np.cos(turn) / 500, fy, fy - chroma * np.sin(turn) / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * (0.95047, 1.0, 1.08883)
    to_rgb = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    linear = np.clip(xyz @ to_rgb.T, 0, 1)  # (n, 3)

    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _name_regions(axes: Axes, label: np.ndarray, names: Sequence[str], extent: Sequence[float]) -> None:
    """The name of every region in the middle of each of its larger pieces."""
    from matplotlib.patheffects import withStroke
    from scipy import ndimage

    left, right, low, high = extent
    height, width = label.shape

    for number, name in enumerate(names):
        pieces = np.empty(label.shape, dtype=np.int32)
        ndimage.label(label == number, output=pieces)
        sizes = np.bincount(pieces.ravel())[1:]  # piece 0 is everything else

        for piece in np.flatnonzero(sizes > 0.12 * sizes.sum()) + 1:
            # The pixel farthest from the edge: the mean of a bent piece may lie outside it.
            depth = np.asarray(ndimage.distance_transform_edt(pieces == piece))
            row, column = np.unravel_index(depth.argmax(), depth.shape)
            x = left + (right - left) * (column + 0.5) / width
            y = low + (high - low) * (row + 0.5) / height

            text = axes.text(
                x,
                y,
                short(name, 10),
                ha="center",
                va="center",
                fontsize=6.5,
                fontweight="bold",
                color="white",
                zorder=4,
            )
            text.set_path_effects([withStroke(linewidth=1.6, foreground="#22262ecc")])


def _name_hemispheres(axes: Axes, voxels: pd.DataFrame, extent: Sequence[float]) -> None:
    if "hemisphere" not in voxels:
        return

    for name in pd.Series(voxels["hemisphere"]).unique():
        middle = float(voxels.loc[voxels["hemisphere"] == name, "u"].mean())
        axes.text(middle, extent[2], str(name), ha="center", va="top", fontsize=7.5, color=MUTED)


def _bar(axes: Axes, top: float, label: str) -> None:
    """A slim colour bar at the right end of the title's line."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    inset = axes.inset_axes((0.72, 1.055, 0.24, 0.03))
    colours = ScalarMappable(Normalize(0, top), SEQUENTIAL)
    bar = axes.figure.colorbar(colours, cax=inset, orientation="horizontal")

    bar.outline.set_visible(False)
    bar.set_ticks([0, top / 2, top], labels=["0", f"{top / 2:.3g}", f"{top:.3g}"])
    inset.tick_params(length=0, labelsize=6.5, pad=1.5)
    inset.text(-0.06, 0.5, label, transform=inset.transAxes, fontsize=6.8, color=MUTED, ha="right", va="center")


def _wheel(axes: Axes) -> None:
    """The visual field in the colours of its angles, at the right end of the title's line."""
    figure = axes.figure.canvas.figure
    wide, tall = axes.get_position().size * figure.get_size_inches()
    inset = axes.inset_axes((0.86, 0.96, 0.1, 0.1 * wide / tall))
    side = 120
    y, x = np.mgrid[1 : -1 : side * 1j, -1 : 1 : side * 1j]

    disc = np.ones((side, side, 4))
    disc[..., :3] = _hue(np.arctan2(y, x))
    disc[..., 3] = np.clip((1 - np.hypot(x, y)) * side / 2, 0, 1)  # an edge one pixel soft
    inset.imshow(disc, extent=(-1, 1, -1, 1))
    inset.plot(0, 0, "+", color="white", markersize=4, markeredgewidth=0.8)
    inset.set_axis_off()
    inset.text(-1.25, 0, "place in the\nvisual field", ha="right", va="center", fontsize=6.8, color=MUTED)


def short(text: str, most: int) -> str:
    """Cut a text to one line of so many characters.

    Parameters
    ----------
    text : str
        Spaces and line ends in a row become one space.
    most : int
        Largest length; a longer text ends with an ellipsis.

    Returns
    -------
    str
        No longer than `most`.

    Examples
    --------
    >>> short("superior temporal  sulcus", 12)
    'superior te…'
    """
    text = " ".join(str(text).split())
    if len(text) <= most:
        return text

    return text[: most - 1] + "…"
