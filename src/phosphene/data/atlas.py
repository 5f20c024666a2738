"""A data set at a glance, on one plate: its pictures, its voxels on the flat map, and how well they can be known.

What a data set lacks is left out: maps need the columns ``u`` and ``v`` (flat map, millimetres) in the voxel table, those
of receptive fields ``prf_x`` and ``prf_y`` (degrees, x to the right and y up), ceilings ``noise_ceiling``.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from phosphene.errors import DataError
from phosphene.run import atomic
from phosphene.types import ROI, Dataset, Stimuli, Trials

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["atlas", "map_kinds", "regions", "surface", "write_atlas"]

INK, MUTED, SEQUENTIAL = "#22262e", "#626a76", "cividis"  # as the figures of a report
MOST_ROIS = 16
"""Regions shown; the largest of more."""
_COLOURS = ("#3b6fb6", "#4fa3c7", "#5bbfae", "#8cc46b", "#d9c24a", "#d1495b", "#ee7f6d", "#f2a541", "#8f6bb3", "#7a8b52",
            "#b58a5a", "#c76f9b", "#48618f", "#3f8f7a", "#a14f2f", "#9aa0aa")  # fmt: skip
_WIDTH = 12.0  # inches
_HEAD = 0.72
_EDGE = 0.3
_MAP = (3.9, 2.7)  # width and height of a map
_STEP = 3.2  # from a map to the next below
_ACROSS = 900  # pixels of a map's width
_TITLES = {
    "regions": "Regions",
    "ceiling": "Noise ceiling of one trial",
    "eccentricity": "Receptive field: eccentricity",
    "angle": "Receptive field: polar angle",
}


def atlas(dataset: Dataset, subject: str | None = None) -> Figure:
    """One plate of a data set.

    Parameters
    ----------
    dataset : of any source
    subject : whose voxels; the first by default

    Returns
    -------
    Figure of pictures with categories and captions; flat maps of regions, ceilings and receptive fields; and histograms
    of the ceilings of each region

    Raises
    ------
    DataError
        When there is nothing to draw: no pictures, no flat map, no ceilings.
    """
    trials = dataset.trials(subject)
    maps, ceilings = map_kinds(trials.voxels), _ceilings(trials)
    pictures = dataset.stimuli if dataset.stimuli.images is not None else None
    if pictures is None and not maps and not ceilings:
        raise DataError(
            f"{dataset.name} has nothing to draw: no pictures, and the voxels of {trials.subject} have neither u and v (a "
            "flat map) nor a noise_ceiling. Add these columns to the voxel table, or pictures to the stimuli."
        )
    map_rows = -(-len(maps) // 2)
    rows = 2 if map_rows or ceilings else 3
    strip = 0.0 if pictures is None else _strip_height(pictures, rows)
    low = max(map_rows * _STEP, 0.9 + 0.36 * len(ceilings) if ceilings else 0.0)
    height = _HEAD + strip + (0.2 if strip and low else 0.05) + low
    with _style():
        figure = _figure(_WIDTH, height)
        figure.text(_EDGE / _WIDTH, 1 - 0.16 / height, dataset.name, fontsize=15, fontweight="bold", va="top")
        figure.text(_EDGE / _WIDTH, 1 - 0.45 / height, _facts(dataset, trials), fontsize=8.5, color=MUTED, va="top")
        if pictures is not None:
            _pictures(figure, pictures, height - _HEAD, rows)
        for i, kind in enumerate(maps):
            row, column = divmod(i, 2)
            box = (_EDGE + 4.1 * column, low - (row + 1) * _STEP + 0.15, _MAP[0], _MAP[1])
            axes = figure.add_axes(_inches(box, height))
            surface(axes, trials, kind)
            axes.set_title(_TITLES[kind], y=1.03)  # a fixed place: insets would push it up
        if ceilings:
            left = (8.45 if len(maps) > 1 else 4.4 if maps else _EDGE) + 0.85  # room for the names
            wide = min(_WIDTH - _EDGE - left, 6.0)
            axes = figure.add_axes(_inches((left, 0.48, wide, low - 0.95), height))
            _histograms(axes, ceilings, region_colours(trials), -0.85 / wide)
    return figure


def write_atlas(dataset: Dataset, file: str | Path, subject: str | None = None, dpi: float = 160) -> Path:
    """Write `atlas` as a PNG and return its path. Raises DataError when there is nothing to draw."""
    figure = atlas(dataset, subject)
    path = atomic.checked_path(file)
    atomic.write_bytes(path, as_png(figure, dpi))
    return path


def as_png(figure: Figure, dpi: float = 160) -> bytes:
    """A figure as PNG on white."""
    data = io.BytesIO()
    with _style():
        figure.savefig(data, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return data.getvalue()


# -- voxels ------------------------------------------------------------------------------------------------------------


def regions(trials: Trials) -> tuple[np.ndarray, tuple[str, ...]]:
    """One region for each voxel: the smallest of those that hold it, so that V1 shows inside a mask of the whole cortex.

    Parameters
    ----------
    trials : of one subject

    Returns
    -------
    (n_voxels,) int, number of the region or -1 for none; and the names, in the order of the voxel table. Of more than
    `MOST_ROIS` the largest count
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


def _ceilings(trials: Trials) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Region to the ceilings of one trial and, where known, of the mean of three; ``all`` where there are no regions."""
    if trials.noise_ceiling is None or not np.isfinite(trials.noise_ceiling).any():
        return {}
    one = trials.noise_ceiling
    three = trials.voxels["noise_ceiling_3"].to_numpy(float) if "noise_ceiling_3" in trials.voxels else None
    of, names = regions(trials)
    parts = {name: of == i for i, name in enumerate(names)} or {"all": np.ones(len(one), bool)}
    return {name: (one[part], None if three is None else three[part]) for name, part in parts.items()}


# -- the flat map ------------------------------------------------------------------------------------------------------


def surface(axes: Axes, trials: Trials, kind: str) -> None:
    """Draw one flat map: every place has the colour of the nearest voxel. Folds are shaded where nothing is to be shown.

    Parameters
    ----------
    axes : to draw on
    trials : of one subject, whose voxel table holds u and v
    kind : one of `map_kinds`
    """
    voxels = trials.voxels
    place = voxels[["u", "v"]].to_numpy(float)
    grid, extent = _raster(place)
    of, names = regions(trials)
    colours, scale = _voxel_colours(trials, kind)
    fold = voxels["fold"].to_numpy(float) if _has(voxels, "fold") else np.zeros(len(voxels))
    grey = np.repeat((0.86 + 0.06 * np.clip(np.nan_to_num(fold), -1, 1))[:, None], 3, axis=1)
    colours = np.where(np.isfinite(colours), colours, grey)
    picture = np.ones((*grid.shape, 4))
    picture[..., :3] = colours[grid]
    picture[grid < 0] = (1, 1, 1, 0)
    axes.imshow(picture, extent=extent, interpolation="antialiased", origin="lower", zorder=1)
    edges = _borders(np.where(grid < 0, -2, of[grid]))
    line = np.zeros((*grid.shape, 4))
    line[edges] = (1, 1, 1, 0.95) if kind == "regions" else (1, 1, 1, 0.75)
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
    from scipy.spatial import cKDTree

    there = np.flatnonzero(np.isfinite(place).all(axis=1))
    tree = cKDTree(place[there])
    near = tree.query(place[there], k=min(5, len(there)))[0]
    reach = 1.1 * float(np.median(near[:, -1])) if len(there) > 1 else 1.0
    reach = max(reach, 1e-6)
    low, high = place[there].min(axis=0) - reach, place[there].max(axis=0) + reach
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
    shown = np.ones(n, bool) if ceiling is None else np.nan_to_num(ceiling) > 0
    if kind == "ceiling":
        values, label = ceiling, "share of variance"
    else:
        x, y = (voxels[name].to_numpy(float) for name in ("prf_x", "prf_y"))
        shown &= np.isfinite(x) & np.isfinite(y) & ((of >= 0) if trials.rois else True)
        if kind == "angle":
            out[shown] = _hue(np.arctan2(y[shown], x[shown]))
            return out, None
        values, label = np.hypot(x, y), "degrees"
    top = _round_up(float(np.quantile(values[shown], 0.98))) if shown.any() else 1.0
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
    lightness, chroma = 68.0, 46.0
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
        pieces, count = ndimage.label(label == number)
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
        for piece in np.flatnonzero(sizes > 0.12 * sizes.sum()) + 1:
            inside = ndimage.distance_transform_edt(pieces == piece)
            row, column = np.unravel_index(inside.argmax(), inside.shape)
            x = left + (right - left) * (column + 0.5) / label.shape[1]
            y = low + (high - low) * (row + 0.5) / label.shape[0]
            text = axes.text(
                x,
                y,
                _short(name, 10),
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
    for name in pd.unique(voxels["hemisphere"]):
        middle = float(voxels.loc[voxels["hemisphere"] == name, "u"].mean())
        axes.text(middle, extent[2], str(name), ha="center", va="top", fontsize=7.5, color=MUTED)


def _bar(axes: Axes, top: float, label: str) -> None:
    """A slim colour bar at the right end of the title's line."""
    import matplotlib as mpl
    from matplotlib.cm import ScalarMappable

    inset = axes.inset_axes((0.72, 1.055, 0.24, 0.03))
    bar = axes.figure.colorbar(
        ScalarMappable(mpl.colors.Normalize(0, top), SEQUENTIAL), cax=inset, orientation="horizontal"
    )
    bar.outline.set_visible(False)
    bar.set_ticks([0, top / 2, top], labels=["0", f"{top / 2:.3g}", f"{top:.3g}"])
    inset.tick_params(length=0, labelsize=6.5, pad=1.5)
    inset.text(-0.06, 0.5, label, transform=inset.transAxes, fontsize=6.8, color=MUTED, ha="right", va="center")


def _wheel(axes: Axes) -> None:
    """The visual field in the colours of its angles, at the right end of the title's line."""
    inset = axes.inset_axes((0.86, 0.96, 0.1, 0.1 * _MAP[0] / _MAP[1]))
    side = 120
    y, x = np.mgrid[1 : -1 : side * 1j, -1 : 1 : side * 1j]
    disc = np.ones((side, side, 4))
    disc[..., :3] = _hue(np.arctan2(y, x))
    disc[..., 3] = np.clip((1 - np.hypot(x, y)) * side / 2, 0, 1)
    inset.imshow(disc, extent=(-1, 1, -1, 1))
    inset.plot(0, 0, "+", color="white", markersize=4, markeredgewidth=0.8)
    inset.set_axis_off()
    inset.text(-1.25, 0, "place in the\nvisual field", ha="right", va="center", fontsize=6.8, color=MUTED)


# -- ceilings ----------------------------------------------------------------------------------------------------------


def _histograms(
    axes: Axes, ceilings: Mapping[str, tuple[np.ndarray, np.ndarray | None]], colours: Mapping[str, str], start: float
) -> None:
    """One row for each region: how its voxels' ceilings are spread, dark for one trial, pale for the mean of three."""
    bins = np.linspace(0, 1, 31)
    middle = np.repeat(bins, 2)[1:-1]
    for row, (name, (one, three)) in enumerate(ceilings.items()):
        base, colour = -float(row), colours.get(name, INK)
        counts = [np.histogram(v[np.nan_to_num(v) > 0], bins)[0] for v in (one, three) if v is not None]
        most = max(1, *(int(c.max()) for c in counts))
        for count, strength in zip(counts, (0.9, 0.3), strict=False):
            outline = base + 0.85 * np.repeat(count, 2) / most
            axes.fill_between(middle, base, outline, color=colour, alpha=strength, linewidth=0, zorder=3 - strength)
        axes.axhline(base, color="#dde1e7", linewidth=0.6, zorder=1)
        known = one[np.isfinite(one)]
        if known.size:
            axes.plot([np.median(known)] * 2, [base - 0.1, base], color=INK, linewidth=1.4, zorder=4)
    names = [f"{_short(name, 12)}  ({len(one):,})" for name, (one, _) in ceilings.items()]
    axes.set_yticks([-float(r) for r in range(len(names))], names)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_xlim(0, 1)
    axes.set_ylim(-len(names) + 0.7, 1.0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("noise ceiling, share of variance")
    known_three = any(three is not None for _, three in ceilings.values())
    note = "dark: one trial (tick: median)" + (", pale: mean of three" if known_three else "")
    axes.set_title("Noise ceilings (voxels)", pad=16, x=start)
    axes.text(start, 1, note, transform=axes.transAxes, ha="left", va="bottom", fontsize=7, color=MUTED)


# -- pictures ----------------------------------------------------------------------------------------------------------

_COLUMNS = 10
_GAP = 0.12  # inches
_LINE = 0.125
_SIDE = (_WIDTH - 2 * _EDGE + _GAP) / _COLUMNS - _GAP


def _cell(stimuli: Stimuli) -> tuple[float, int]:
    """Height of a picture in inches, and lines of text below it."""
    height, width, _ = stimuli.image_shape
    texts = (stimuli.category is not None) + 3 * (stimuli.captions is not None)
    return min(_SIDE * height / width, 2 * _SIDE), max(1, texts)


def _strip_height(stimuli: Stimuli, rows: int) -> float:
    tall, texts = _cell(stimuli)
    rows = min(rows, -(-len(stimuli) // _COLUMNS))
    return rows * (tall + texts * _LINE + 0.14)


def _pictures(figure: Figure, stimuli: Stimuli, top: float, rows: int) -> None:
    """Pictures evenly spaced through the data set, with their category and first caption (or their id)."""
    n = min(len(stimuli), rows * _COLUMNS)
    chosen = stimuli.select(stimuli.ids[np.linspace(0, len(stimuli) - 1, n).astype(int)])
    tall, texts = _cell(stimuli)
    height = figure.get_figheight()
    step = tall + texts * _LINE + 0.14
    for i in range(n):
        row, column = divmod(i, _COLUMNS)
        left, high = _EDGE + column * (_SIDE + _GAP), top - row * step
        axes = figure.add_axes(_inches((left, high - tall, _SIDE, tall), height))
        axes.set_axis_off()
        if chosen.present is not None and not chosen.present[i]:
            axes.text(0.5, 0.5, "missing", ha="center", va="center", color=MUTED)
        else:
            pixels = chosen.pixels(slice(i, i + 1))[0]
            small = max(pixels.shape[:2]) < 120
            grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if pixels.shape[2] == 1 else {}
            axes.imshow(
                pixels[..., 0] if grey else pixels,
                interpolation="nearest" if small else "antialiased",
                aspect="auto",
                **grey,
            )
        for line, (words, strong) in enumerate(_words(chosen, i, texts)):
            y = (high - tall - 0.035 - line * _LINE) / height
            colour = INK if strong else MUTED
            figure.text(
                left / _WIDTH, y, words, va="top", fontsize=6.8, color=colour, fontweight="bold" if strong else None
            )


def _words(stimuli: Stimuli, i: int, lines: int) -> list[tuple[str, bool]]:
    wide = 21
    out = [] if stimuli.category is None else [(_short(str(stimuli.category[i]), wide), True)]
    if stimuli.captions is not None and stimuli.captions[i]:
        wrapped = textwrap.wrap(stimuli.captions[i][0], wide)
        room = lines - len(out)
        if len(wrapped) > room:
            wrapped = [*wrapped[: room - 1], _short(" ".join(wrapped[room - 1 :]), wide)]
        out += [(line, False) for line in wrapped]
    return out or [(_short(str(stimuli.ids[i]), wide), False)]


# -- figure ------------------------------------------------------------------------------------------------------------


def _facts(dataset: Dataset, trials: Trials) -> str:
    person = f"{trials.subject} of {len(dataset.subjects)}" if len(dataset.subjects) > 1 else trials.subject
    parts = [person, f"{trials.n_voxels:,} voxels", f"{len(trials):,} trials of {len(trials.stimulus_ids):,} stimuli"]
    note = str(dataset.about.get("note", ""))
    return "  ·  ".join([*parts, *([_short(note, 90)] if note else [])])


def _short(text: str, most: int) -> str:
    text = " ".join(str(text).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _inches(box: Sequence[float], height: float) -> tuple[float, float, float, float]:
    """(left, low, width, height) in inches as shares of the figure."""
    return box[0] / _WIDTH, box[1] / height, box[2] / _WIDTH, box[3] / height


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _style() -> Any:
    import matplotlib as mpl

    values = {
        "font.family": "DejaVu Sans", "font.size": 8, "text.color": INK, "text.parse_math": False,
        "axes.titlesize": 9, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlecolor": INK,
        "axes.labelsize": 7.5, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "axes.linewidth": 0.7,
        "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none", "figure.facecolor": "white",
        "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelsize": 7, "ytick.labelsize": 7.5,
        "xtick.major.width": 0.7, "xtick.major.size": 3,
    }  # fmt: skip
    return mpl.rc_context(values)
