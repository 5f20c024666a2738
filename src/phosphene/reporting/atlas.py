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

from phosphene.errors import DataError
from phosphene.io import atomic
from phosphene.reporting.flatmap import GRID, INK, MUTED, TITLES, map_kinds, region_colours, regions, short, surface
from phosphene.types import Dataset, Stimuli, Trials

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["atlas", "write_atlas"]

_WIDTH = 12.0  # inches
_HEAD = 0.72
_EDGE = 0.3
_MAP = (3.9, 2.7)  # width and height of a map
_STEP = 3.2  # from a map to the next below


def atlas(dataset: Dataset, subject: str | None = None) -> Figure:
    """One plate of a data set.

    Parameters
    ----------
    dataset : Dataset
        of any source
    subject : str, optional
        whose voxels; the first by default

    Returns
    -------
    Figure
        Figure of pictures with categories and captions; flat maps of regions, ceilings and receptive fields; and
        histograms of the ceilings of each region

    Raises
    ------
    DataError
        When there is nothing to draw: no pictures, no flat map, no ceilings.
    """
    trials = dataset.trials(subject)
    maps = map_kinds(trials.voxels)
    ceilings = _ceilings(trials)

    if dataset.stimuli.images is not None:
        pictures = dataset.stimuli
    else:
        pictures = None

    if pictures is None and not maps and not ceilings:
        raise DataError(
            f"{dataset.name} has nothing to draw: no pictures, and the voxels of {trials.subject} have neither u and v (a "
            "flat map) nor a noise_ceiling. Add these columns to the voxel table, or pictures to the stimuli."
        )

    map_rows = -(-len(maps) // 2)
    if map_rows or ceilings:
        rows = 2
    else:
        rows = 3

    if pictures is None:
        strip = 0.0
    else:
        strip = _strip_height(pictures, rows)

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
            axes.set_title(TITLES[kind], y=1.03)  # a fixed place: insets would push it up

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


# -- ceilings ----------------------------------------------------------------------------------------------------------


def _ceilings(trials: Trials) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Region to the ceilings of one trial and, where known, of the mean of three; ``all`` where there are no regions."""
    if trials.noise_ceiling is None or not np.isfinite(trials.noise_ceiling).any():
        return {}

    one = trials.noise_ceiling
    if "noise_ceiling_3" in trials.voxels:
        three = trials.voxels["noise_ceiling_3"].to_numpy(float)
    else:
        three = None

    of, names = regions(trials)
    parts = {name: of == i for i, name in enumerate(names)} or {"all": np.ones(len(one), bool)}

    return {name: (one[part], None if three is None else three[part]) for name, part in parts.items()}


def _histograms(
    axes: Axes, ceilings: Mapping[str, tuple[np.ndarray, np.ndarray | None]], colours: Mapping[str, str], start: float
) -> None:
    """One row for each region: how its voxels' ceilings are spread, dark for one trial, pale for the mean of three."""
    bins = np.linspace(0, 1, 31)
    middle = np.repeat(bins, 2)[1:-1]

    for row, (name, (one, three)) in enumerate(ceilings.items()):
        base = -float(row)
        colour = colours.get(name, INK)
        counts = [np.histogram(v[np.nan_to_num(v) > 0], bins)[0] for v in (one, three) if v is not None]
        most = max(1, *(int(c.max()) for c in counts))

        for count, strength in zip(counts, (0.9, 0.3), strict=False):
            outline = base + 0.85 * np.repeat(count, 2) / most
            axes.fill_between(middle, base, outline, color=colour, alpha=strength, linewidth=0, zorder=3 - strength)

        axes.axhline(base, color=GRID, linewidth=0.6, zorder=1)
        known = one[np.isfinite(one)]
        if known.size:
            axes.plot([np.median(known)] * 2, [base - 0.1, base], color=INK, linewidth=1.4, zorder=4)

    names = [f"{short(name, 12)}  ({len(one):,})" for name, (one, _) in ceilings.items()]
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
        left = _EDGE + column * (_SIDE + _GAP)
        high = top - row * step
        axes = figure.add_axes(_inches((left, high - tall, _SIDE, tall), height))
        axes.set_axis_off()
        axes.set_anchor("NW")

        if chosen.present is not None and not chosen.present[i]:
            axes.text(0.5, 0.5, "missing", ha="center", va="center", color=MUTED)
        else:
            pixels = chosen.pixels(slice(i, i + 1))[0]
            small = max(pixels.shape[:2]) < 120

            if pixels.shape[2] == 1:
                grey = {"cmap": "gray", "vmin": 0, "vmax": 255}
            else:
                grey = {}

            axes.imshow(
                pixels[..., 0] if grey else pixels,
                interpolation="nearest" if small else "antialiased",
                **grey,
            )

        for line, (words, strong) in enumerate(_words(chosen, i, texts)):
            y = (high - tall - 0.035 - line * _LINE) / height
            if strong:
                colour = INK
            else:
                colour = MUTED

            figure.text(
                left / _WIDTH, y, words, va="top", fontsize=6.8, color=colour, fontweight="bold" if strong else None
            )


def _words(stimuli: Stimuli, i: int, lines: int) -> list[tuple[str, bool]]:
    wide = 21
    if stimuli.category is None:
        out = []
    else:
        out = [(short(str(stimuli.category[i]), wide), True)]

    if stimuli.captions is not None and stimuli.captions[i]:
        wrapped = textwrap.wrap(stimuli.captions[i][0], wide)
        room = lines - len(out)
        if len(wrapped) > room:
            wrapped = [*wrapped[: room - 1], short(" ".join(wrapped[room - 1 :]), wide)]

        out += [(line, False) for line in wrapped]

    return out or [(short(str(stimuli.ids[i]), wide), False)]


# -- figure ------------------------------------------------------------------------------------------------------------


def _facts(dataset: Dataset, trials: Trials) -> str:
    if len(dataset.subjects) > 1:
        person = f"{trials.subject} of {len(dataset.subjects)}"
    else:
        person = trials.subject

    parts = [person, f"{trials.n_voxels:,} voxels", f"{len(trials):,} trials of {len(trials.stimulus_ids):,} stimuli"]
    note = str(dataset.about.get("note", ""))
    return "  ·  ".join([*parts, *([short(note, 90)] if note else [])])


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

    values: dict[Any, Any] = {
        "font.family": "DejaVu Sans", "font.size": 8, "text.color": INK, "text.parse_math": False,
        "axes.titlesize": 9, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlecolor": INK,
        "axes.labelsize": 7.5, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "axes.linewidth": 0.7,
        "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none", "figure.facecolor": "white",
        "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelsize": 7, "ytick.labelsize": 7.5,
        "xtick.major.width": 0.7, "xtick.major.size": 3,
    }  # fmt: skip

    return mpl.rc_context(values)
