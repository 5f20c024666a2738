"""A data set in one figure: its pictures, its voxels on the flat map, and their noise ceilings.

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

# Sizes are in inches: pictures stand above in rows of ten, maps below in two columns, histograms at their right.
_WIDTH = 12.0
_HEAD = 0.72  # for the name and the facts
_EDGE = 0.3
_MAP = (3.9, 2.7)  # width and height
_MAP_STEP_X = 4.1  # from one map to the next
_MAP_STEP_Y = 3.2
_HISTOGRAM_LEFT = {0: _EDGE, 1: 4.4, 2: 8.45}  # right of so many columns of maps
_REGION_NAMES = 0.85  # left of the histograms
_COLUMNS = 10  # of pictures
_GAP = 0.12
_LINE = 0.125  # height of a line of text below a picture
_BELOW_TEXT = 0.14
_SIDE = (_WIDTH - 2 * _EDGE + _GAP) / _COLUMNS - _GAP  # width of a picture
_LINE_LENGTH = 21  # characters that fit below a picture


def atlas(dataset: Dataset, subject: str | None = None) -> Figure:
    """Draw a data set: pictures above, maps and noise ceilings of one subject below.

    Parameters
    ----------
    dataset : Dataset
        Of any source.
    subject : str, optional
        Whose voxels; the first by default.

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

    pictures = None
    if dataset.stimuli.images is not None:
        pictures = dataset.stimuli

    if pictures is None and not maps and not ceilings:
        raise DataError(
            f"{dataset.name} has nothing to draw: no pictures, and the voxels of {trials.subject} have neither u and v (a "
            "flat map) nor a noise_ceiling. Add these columns to the voxel table, or pictures to the stimuli."
        )

    n_map_rows = -(-len(maps) // 2)
    n_picture_rows = 3  # with nothing else to draw
    if maps or ceilings:
        n_picture_rows = 2

    # Height: name and facts, pictures, a gap, and the taller of maps and histograms.
    pictures_height = 0.0
    if pictures is not None:
        pictures_height = _pictures_height(pictures, n_picture_rows)

    histograms_height = 0.0
    if ceilings:
        histograms_height = 0.9 + 0.36 * len(ceilings)

    lower_height = max(n_map_rows * _MAP_STEP_Y, histograms_height)
    gap = 0.05
    if pictures_height and lower_height:
        gap = 0.2

    height = _HEAD + pictures_height + gap + lower_height

    with _style():
        figure = _figure(_WIDTH, height)
        figure.text(_EDGE / _WIDTH, 1 - 0.16 / height, dataset.name, fontsize=15, fontweight="bold", va="top")
        figure.text(_EDGE / _WIDTH, 1 - 0.45 / height, _facts(dataset, trials), fontsize=8.5, color=MUTED, va="top")

        if pictures is not None:
            _pictures(figure, pictures, height - _HEAD, n_picture_rows)

        for i, kind in enumerate(maps):
            row, column = divmod(i, 2)
            left = _EDGE + _MAP_STEP_X * column
            low = lower_height - (row + 1) * _MAP_STEP_Y + 0.15

            axes = figure.add_axes(_inches((left, low, *_MAP), height))
            surface(axes, trials, kind)
            axes.set_title(TITLES[kind], y=1.03)  # a fixed place: insets would push it up

        if ceilings:
            left = _HISTOGRAM_LEFT[min(len(maps), 2)] + _REGION_NAMES
            width = min(_WIDTH - _EDGE - left, 6.0)
            axes = figure.add_axes(_inches((left, 0.48, width, lower_height - 0.95), height))
            _histograms(axes, ceilings, region_colours(trials), -_REGION_NAMES / width)

    return figure


def write_atlas(dataset: Dataset, file: str | Path, subject: str | None = None, dpi: float = 160) -> Path:
    """Write `atlas` as a PNG.

    Parameters
    ----------
    dataset : Dataset
        Of any source.
    file : str or Path
        Where to write.
    subject : str, optional
        Whose voxels; the first by default.
    dpi : float, default 160
        Dots per inch.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    DataError
        When there is nothing to draw.
    """
    figure = atlas(dataset, subject)
    path = atomic.checked_path(file)
    atomic.write_bytes(path, as_png(figure, dpi))
    return path


def as_png(figure: Figure, dpi: float = 160) -> bytes:
    """Return a figure of `atlas` as PNG on white.

    Parameters
    ----------
    figure : Figure
        In the style of the atlas, which differs from that of a report's figures.
    dpi : float, default 160
        Dots per inch.

    Returns
    -------
    bytes
        Content of the file, the same each time: it names neither a date nor a program.
    """
    data = io.BytesIO()
    with _style():
        figure.savefig(data, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})

    return data.getvalue()


# -- ceilings ----------------------------------------------------------------------------------------------------------


def _ceilings(trials: Trials) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Region to the ceilings of one trial and, where known, of the mean of three; ``all`` where there are no regions."""
    if trials.noise_ceiling is None or not np.isfinite(trials.noise_ceiling).any():
        return {}

    one_trial = trials.noise_ceiling
    mean_of_three = None
    if "noise_ceiling_3" in trials.voxels:
        mean_of_three = trials.voxels["noise_ceiling_3"].to_numpy(float)

    region_of, names = regions(trials)
    masks = {name: region_of == number for number, name in enumerate(names)}
    if not masks:
        masks = {"all": np.ones(len(one_trial), bool)}

    ceilings: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    for name, mask in masks.items():
        if mean_of_three is None:
            ceilings[name] = (one_trial[mask], None)
        else:
            ceilings[name] = (one_trial[mask], mean_of_three[mask])

    return ceilings


def _histograms(
    axes: Axes, ceilings: Mapping[str, tuple[np.ndarray, np.ndarray | None]], colours: Mapping[str, str], start: float
) -> None:
    """One row for each region: the histogram of its voxels' ceilings, dark for one trial, pale for the mean of three."""
    edges = np.linspace(0, 1, 31)
    steps = np.repeat(edges, 2)[1:-1]  # (60,), left and right edge of every bin
    bases = []
    names = []
    note = "dark: one trial (tick: median)"

    for row, (name, (one_trial, mean_of_three)) in enumerate(ceilings.items()):
        base = -float(row)
        bases.append(base)
        names.append(f"{short(name, 12)}  ({len(one_trial):,})")

        counts = [_counts(one_trial, edges)]
        if mean_of_three is not None:
            counts.append(_counts(mean_of_three, edges))
            note = "dark: one trial (tick: median), pale: mean of three"

        # Both histograms of a region share their scale; regions do not: a small one would be flat below a large one.
        largest = max(1, *(int(count.max()) for count in counts))
        colour = colours.get(name, INK)
        for count, opacity in zip(counts, (0.9, 0.3), strict=False):
            outline = base + 0.85 * np.repeat(count, 2) / largest  # (60,)
            axes.fill_between(steps, base, outline, color=colour, alpha=opacity, linewidth=0, zorder=3 - opacity)

        axes.axhline(base, color=GRID, linewidth=0.6, zorder=1)
        known = one_trial[np.isfinite(one_trial)]
        if known.size:
            axes.plot([np.median(known)] * 2, [base - 0.1, base], color=INK, linewidth=1.4, zorder=4)

    axes.set_yticks(bases, names)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_xlim(0, 1)
    axes.set_ylim(-len(names) + 0.7, 1.0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("noise ceiling, share of variance")
    axes.set_title("Noise ceilings (voxels)", pad=16, x=start)
    axes.text(start, 1, note, transform=axes.transAxes, ha="left", va="bottom", fontsize=7, color=MUTED)


def _counts(ceiling: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """How many voxels have a ceiling in each bin; those without signal are left out, as they would be the tallest bar."""
    return np.histogram(ceiling[np.nan_to_num(ceiling) > 0], edges)[0]


# -- pictures ----------------------------------------------------------------------------------------------------------


def _cell(stimuli: Stimuli) -> tuple[float, int]:
    """Height of a picture in inches, and lines of text below it."""
    height, width, _ = stimuli.image_shape
    n_lines = 0
    if stimuli.category is not None:
        n_lines += 1

    if stimuli.captions is not None:
        n_lines += 3

    # Without either the id stands there. No picture is higher than two are wide: one tall picture would fill the page.
    return min(_SIDE * height / width, 2 * _SIDE), max(1, n_lines)


def _pictures_height(stimuli: Stimuli, n_rows: int) -> float:
    picture_height, n_lines = _cell(stimuli)
    n_rows = min(n_rows, -(-len(stimuli) // _COLUMNS))
    return n_rows * (picture_height + n_lines * _LINE + _BELOW_TEXT)


def _pictures(figure: Figure, stimuli: Stimuli, top: float, n_rows: int) -> None:
    """Pictures evenly spaced through the data set, with their category and first caption (or their id)."""
    n = min(len(stimuli), n_rows * _COLUMNS)
    positions = np.linspace(0, len(stimuli) - 1, n).astype(int)
    chosen = stimuli.select(stimuli.ids[positions])

    picture_height, n_lines = _cell(stimuli)
    height = figure.get_figheight()
    step = picture_height + n_lines * _LINE + _BELOW_TEXT

    for i in range(n):
        row, column = divmod(i, _COLUMNS)
        left = _EDGE + column * (_SIDE + _GAP)
        high = top - row * step
        axes = figure.add_axes(_inches((left, high - picture_height, _SIDE, picture_height), height))
        axes.set_axis_off()
        axes.set_anchor("NW")

        if chosen.present is not None and not chosen.present[i]:
            axes.text(0.5, 0.5, "missing", ha="center", va="center", color=MUTED)
        else:
            _show(axes, chosen.pixels(slice(i, i + 1))[0])

        for line, (words, is_category) in enumerate(_lines_below(chosen, i, n_lines)):
            y = (high - picture_height - 0.035 - line * _LINE) / height
            text = figure.text(left / _WIDTH, y, words, va="top", fontsize=6.8, color=MUTED)
            if is_category:
                text.set_color(INK)
                text.set_fontweight("bold")


def _show(axes: Axes, pixels: np.ndarray) -> None:
    """Draw one picture (h, w, 1 or 3), 0-255; a small one keeps its pixels."""
    interpolation = "antialiased"
    if max(pixels.shape[:2]) < 120:
        interpolation = "nearest"

    if pixels.shape[2] == 1:
        axes.imshow(pixels[..., 0], cmap="gray", vmin=0, vmax=255, interpolation=interpolation)
    else:
        axes.imshow(pixels, interpolation=interpolation)


def _lines_below(stimuli: Stimuli, i: int, n_lines: int) -> list[tuple[str, bool]]:
    """Lines of text below a picture, and whether each is its category: category, first caption, or else the id."""
    lines: list[tuple[str, bool]] = []
    if stimuli.category is not None:
        category = short(str(stimuli.category[i]), _LINE_LENGTH)
        lines.append((category, True))

    if stimuli.captions is not None and stimuli.captions[i]:
        wrapped = textwrap.wrap(stimuli.captions[i][0], _LINE_LENGTH)
        n_free = n_lines - len(lines)
        if len(wrapped) > n_free:
            rest = " ".join(wrapped[n_free - 1 :])
            wrapped = [*wrapped[: n_free - 1], short(rest, _LINE_LENGTH)]

        for line in wrapped:
            lines.append((line, False))

    if not lines:
        lines.append((short(str(stimuli.ids[i]), _LINE_LENGTH), False))

    return lines


# -- figure ------------------------------------------------------------------------------------------------------------


def _facts(dataset: Dataset, trials: Trials) -> str:
    subject = trials.subject
    if len(dataset.subjects) > 1:
        subject = f"{trials.subject} of {len(dataset.subjects)}"

    facts = [subject, f"{trials.n_voxels:,} voxels", f"{len(trials):,} trials of {len(trials.stimulus_ids):,} stimuli"]
    note = str(dataset.about.get("note", ""))
    if note:
        facts.append(short(note, 90))

    return "  ·  ".join(facts)


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
