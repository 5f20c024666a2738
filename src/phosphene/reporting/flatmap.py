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
"""Regions shown; the largest of more."""
_COLOURS = ("#3b6fb6", "#4fa3c7", "#5bbfae", "#8cc46b", "#d9c24a", "#d1495b", "#ee7f6d", "#f2a541", "#8f6bb3", "#7a8b52",
            "#b58a5a", "#c76f9b", "#48618f", "#3f8f7a", "#a14f2f", "#9aa0aa")  # fmt: skip
_ACROSS = 900  # pixels of a map's width
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
        of one subject

    Returns
    -------
    tuple of (ndarray, tuple of str)
        (n_voxels,) int, number of the region or -1 for none; and the names, in the order of the voxel table. Of more
        than `MOST_ROIS` the largest count
    """
    if not trials.rois:
        return np.full(trials.n_voxels, -1), ()

    members = np.stack([trials.voxels[ROI + name].to_numpy(bool) for name in trials.rois])
    sizes = members.sum(axis=1)
    of = np.full(trials.n_voxels, -1)

    for number in np.argsort(-sizes, kind="stable"):
        of[members[number]] = number

    shown = np.bincount(of[of >= 0], minlength=len(sizes))
    kept = np.sort(np.argsort(-shown, kind="stable")[:MOST_ROIS])
    kept = kept[shown[kept] > 0]
    new = np.full(len(sizes) + 1, -1)
    new[kept] = np.arange(len(kept))

    return new[of], tuple(trials.rois[k] for k in kept)


def region_colours(trials: Trials) -> dict[str, str]:
    """Name of each region to its colour, the same in all panels; everything else is grey."""
    return dict(zip(regions(trials)[1], _COLOURS, strict=False))


def map_kinds(voxels: pd.DataFrame) -> tuple[str, ...]:
    """Maps that a voxel table can be drawn as, of ``regions``, ``ceiling``, ``eccentricity`` and ``angle``.

    Examples
    --------
    >>> map_kinds(pd.DataFrame({"u": [0.0], "v": [1.0], "roi.V1": [True], "noise_ceiling": [0.5]}))
    ('regions', 'ceiling')
    """
    if not _has(voxels, "u", "v") or not np.isfinite(voxels[["u", "v"]].to_numpy(float)).all(axis=1).any():
        return ()

    out = []
    if any(str(c).startswith(ROI) for c in voxels.columns):
        out.append("regions")

    if _has(voxels, "noise_ceiling"):
        out.append("ceiling")

    if _has(voxels, "prf_x", "prf_y"):
        out += ["eccentricity", "angle"]

    return tuple(out)


def _has(voxels: pd.DataFrame, *names: str) -> bool:
    return all(name in voxels and np.isfinite(voxels[name].to_numpy(float)).any() for name in names)


def surface(axes: Axes, trials: Trials, kind: str) -> None:
    """Draw one flat map: every place has the colour of the nearest voxel. Folds are shaded where nothing is to be shown.

    Parameters
    ----------
    axes : Axes
        to draw on
    trials : Trials
        of one subject, whose voxel table holds u and v
    kind : str
        one of `map_kinds`
    """
    voxels = trials.voxels
    place = voxels[["u", "v"]].to_numpy(float)
    grid, extent = _raster(place)
    of, names = regions(trials)
    colours, scale = _voxel_colours(trials, kind)

    if _has(voxels, "fold"):
        fold = voxels["fold"].to_numpy(float)
    else:
        fold = np.zeros(len(voxels))

    grey = np.repeat((0.86 + 0.06 * np.clip(np.nan_to_num(fold), -1, 1))[:, None], 3, axis=1)
    colours = np.where(np.isfinite(colours), colours, grey)
    picture = np.ones((*grid.shape, 4))
    picture[..., :3] = colours[grid]
    picture[grid < 0] = (1, 1, 1, 0)
    axes.imshow(picture, extent=extent, interpolation="antialiased", origin="lower", zorder=1)
    edges = _borders(np.where(grid < 0, -2, of[grid]))
    line = np.zeros((*grid.shape, 4))

    if kind == "regions":
        line[edges] = (1, 1, 1, 0.95)
    else:
        line[edges] = (1, 1, 1, 0.75)

    axes.imshow(line, extent=extent, interpolation="antialiased", origin="lower", zorder=2)
    axes.set_axis_off()
    if kind == "regions":
        _name_regions(axes, np.where(grid < 0, -1, of[grid]), names, extent)

    _name_hemispheres(axes, voxels, extent)
    if kind == "angle":
        _wheel(axes)
    elif scale is not None:
        _bar(axes, *scale)


def _raster(place: np.ndarray) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Nearest voxel of every pixel of the map, -1 where none is near; and the map's extent (left, right, low, high)."""
    from scipy.spatial import KDTree

    there = np.flatnonzero(np.isfinite(place).all(axis=1))
    tree = KDTree(place[there])
    near = tree.query(place[there], k=min(5, len(there)))[0]

    if len(there) > 1:
        reach = 1.1 * float(np.median(near[:, -1]))
    else:
        reach = 1.0

    reach = max(reach, 1e-6)
    low = place[there].min(axis=0) - reach
    high = place[there].max(axis=0) + reach
    step = (high[0] - low[0]) / _ACROSS
    u = np.arange(low[0] + step / 2, high[0], step)
    v = np.arange(low[1] + step / 2, high[1], step)
    distance, nearest = tree.query(np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2), distance_upper_bound=reach)
    grid = np.where(np.isfinite(distance), np.append(there, -1)[nearest], -1).reshape(len(v), len(u))

    return grid, (low[0], high[0], low[1], high[1])


def _borders(label: np.ndarray) -> np.ndarray:
    """Pixels at which the label changes inside the sheet, two pixels wide. -2 is outside."""
    out = np.zeros(label.shape, bool)
    for a, b in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        change = (label[a] != label[b]) & (label[a] != -2) & (label[b] != -2)
        out[a] |= change
        out[b] |= change

    return out


def _voxel_colours(trials: Trials, kind: str) -> tuple[np.ndarray, tuple[float, str] | None]:
    """Colours of voxels (n_voxels, 3), NaN where there is nothing to show; and top and label of a colour bar."""
    import matplotlib as mpl
    from matplotlib.colors import to_rgb

    voxels = trials.voxels
    n = len(voxels)
    out = np.full((n, 3), np.nan)
    of, _ = regions(trials)

    if kind == "regions":
        palette = np.array([to_rgb(c) for c in region_colours(trials).values()]).reshape(-1, 3)
        out[of >= 0] = palette[of[of >= 0]]
        return out, None

    ceiling = trials.noise_ceiling
    shown = np.ones(n, bool)
    if ceiling is not None:
        shown = np.nan_to_num(ceiling) > 0

    if kind == "ceiling":
        assert ceiling is not None  # map_kinds names the map only where ceilings are
        values = ceiling
        label = "share of variance"
    else:
        x, y = (voxels[name].to_numpy(float) for name in ("prf_x", "prf_y"))
        shown &= np.isfinite(x) & np.isfinite(y) & ((of >= 0) if trials.rois else True)
        if kind == "angle":
            out[shown] = _hue(np.arctan2(y[shown], x[shown]))
            return out, None

        values = np.hypot(x, y)
        label = "degrees"

    if shown.any():
        top = _round_up(float(np.quantile(values[shown], 0.98)))
    else:
        top = 1.0

    out[shown] = mpl.colormaps[SEQUENTIAL](np.clip(values[shown] / top, 0, 1))[:, :3]
    return out, (top, label)


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
    chroma = 46.0
    turn = angle + np.deg2rad(35)
    fy = np.full_like(turn, (lightness + 16) / 116)
    f = np.stack([fy + chroma * np.cos(turn) / 500, fy, fy - chroma * np.sin(turn) / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * (0.95047, 1.0, 1.08883)
    to_rgb = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    linear = np.clip(xyz @ to_rgb.T, 0, 1)

    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _name_regions(axes: Axes, label: np.ndarray, names: Sequence[str], extent: Sequence[float]) -> None:
    """The name of every region in the middle of each of its larger pieces."""
    from matplotlib.patheffects import withStroke
    from scipy import ndimage

    left, right, low, high = extent
    for number, name in enumerate(names):
        pieces = np.empty(label.shape, dtype=np.int32)
        ndimage.label(label == number, output=pieces)
        sizes = np.bincount(pieces.ravel())[1:]  # piece 0 is everything else

        for piece in np.flatnonzero(sizes > 0.12 * sizes.sum()) + 1:
            inside = np.asarray(ndimage.distance_transform_edt(pieces == piece))
            row, column = np.unravel_index(inside.argmax(), inside.shape)
            x = left + (right - left) * (column + 0.5) / label.shape[1]
            y = low + (high - low) * (row + 0.5) / label.shape[0]
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
    disc[..., 3] = np.clip((1 - np.hypot(x, y)) * side / 2, 0, 1)
    inset.imshow(disc, extent=(-1, 1, -1, 1))
    inset.plot(0, 0, "+", color="white", markersize=4, markeredgewidth=0.8)
    inset.set_axis_off()
    inset.text(-1.25, 0, "place in the\nvisual field", ha="right", va="center", fontsize=6.8, color=MUTED)


def short(text: str, most: int) -> str:
    """A text on one line, cut to so many characters."""
    text = " ".join(str(text).split())
    if len(text) <= most:
        return text

    return text[: most - 1] + "…"
