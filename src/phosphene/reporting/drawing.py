"""What all figures share: style and colours, rows of pictures, scores with intervals, and PNG, SVG and GIF as output.

One colour for the brain, one for controls, one for what is true, everything else in ink and grey. ``png`` and ``svg`` turn
a Figure into bytes or text, ``gif`` moving pictures into bytes; an SVG follows the light or dark scheme of the reader.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from phosphene.errors import DataError
from phosphene.reporting.flatmap import short
from phosphene.reporting.rows import rows_at

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PALETTE = {  # name: (light, dark)
    "ink": ("#22262e", "#e7e9ee"),
    "muted": ("#626a76", "#9ea7b5"),
    "grid": ("#dde1e7", "#363d49"),
    "brain": ("#2b6396", "#7fbdec"),
    "control": ("#8d8272", "#b5aa9a"),
    "ceiling": ("#b4612a", "#eba066"),
}
INK, MUTED, GRID, BRAIN, CONTROL, CEILING = (light for light, _ in PALETTE.values())
DASHED = (0, (2, 1.5))
"""Line style of chance and of other lines to compare with: lengths of dash and gap, in line widths."""
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


# -- style and output --------------------------------------------------------------------------------------------------


@contextmanager
def style() -> Iterator[None]:
    """The look of every figure, for the time of the block."""
    import matplotlib as mpl

    values: dict[Any, Any] = {
        "font.family": "DejaVu Sans",  # comes with matplotlib, so figures are the same everywhere
        "font.size": 8,
        "axes.titlesize": 8.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 8,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelsize": 7.5,
        "ytick.labelsize": 7.5,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "text.color": INK,
        "text.parse_math": False,  # a dollar sign in the name of a ROI is no formula
        "legend.frameon": False,
        "legend.fontsize": 7.5,
        "lines.linewidth": 1.6,
        "svg.fonttype": "none",
        "svg.hashsalt": "phosphene",
    }

    with mpl.rc_context(values), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has the script, the PNG a box
        yield


def empty(width: float, height: float) -> Figure:
    """An empty figure, in inches, drawn by Agg."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)

    return figure


def png(figure: Figure, dpi: float = 200, background: str = "white") -> bytes:
    """A figure as PNG, on a plain background.

    Parameters
    ----------
    figure : Figure
        Any of matplotlib's.
    dpi : float, default 200
        Dots per inch.
    background : str, default "white"
        Colour, as matplotlib names it.

    Returns
    -------
    bytes
        Content of the file, the same each time: it names neither a date nor a program.
    """
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=dpi, facecolor=background, metadata={"Software": None})

    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """A figure as SVG that follows the reader's light or dark scheme. It carries no script and loads nothing."""
    buffer = io.StringIO()
    with style():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})

    text = buffer.getvalue()
    text = text[text.index("<svg") :]

    for name, (light, _) in PALETTE.items():
        text = text.replace(f": {light}", f": var(--{name})")

    text = text.replace("'DejaVu Sans'", _FONTS)
    light, dark = (";".join(f"--{n}:{c[i]}" for n, c in PALETTE.items()) for i in (0, 1))
    rules = f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"

    return re.sub(r"(<svg[^>]*>)", lambda m: m[1] + rules, text, count=1)


def gif(frames: np.ndarray, milliseconds: int = 120, rounds: int = 3) -> bytes:
    """Moving pictures as GIF, one palette of 255 colours for all frames so that still parts do not flicker.

    Parameters
    ----------
    frames : ndarray of shape (n, h, w, 3), uint8
        pictures, in order
    milliseconds : int, default 120
        each is shown for
    rounds : int, default 3
        how often all are shown

    Returns
    -------
    bytes
        content of the file
    """
    from PIL import Image

    frames = as_uint8(frames)
    n, h, w, _ = frames.shape
    palette = Image.fromarray(np.ascontiguousarray(frames.reshape(n * h, w, 3))).quantize(255)
    plain = [
        Image.fromarray(np.ascontiguousarray(f)).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames
    ]

    buffer = io.BytesIO()
    options: dict[str, Any] = {"duration": milliseconds, "disposal": 1}
    if rounds > 1:
        options["loop"] = rounds - 1  # the number in the file counts repetitions after the first showing

    plain[0].save(buffer, "GIF", save_all=True, append_images=plain[1:], **options)
    return buffer.getvalue()


# -- pictures ----------------------------------------------------------------------------------------------------------


def as_uint8(pictures: np.ndarray) -> np.ndarray:
    """(n, h, w, 3) uint8 from (n, h, w[, 1 or 3]) pictures of 0-1 floats or uint8. What is not a number is black."""
    pictures = np.asarray(pictures)
    if pictures.ndim == 3:
        pictures = pictures[..., None]

    if pictures.ndim != 4 or pictures.shape[-1] not in (1, 3):
        raise DataError(f"pictures must be (n, height, width, 1 or 3), but have shape {pictures.shape}.")

    if pictures.dtype != np.uint8:
        pictures = np.round(np.clip(np.nan_to_num(pictures, nan=0.0, posinf=1.0, neginf=0.0), 0, 1) * 255).astype(
            np.uint8
        )

    return np.broadcast_to(pictures, (*pictures.shape[:3], 3))


def enlarged(pictures: np.ndarray, zoom: int) -> np.ndarray:
    """Pictures as `as_uint8`, every pixel a square of `zoom` by `zoom`."""
    return as_uint8(pictures).repeat(zoom, axis=1).repeat(zoom, axis=2)


def mosaic(rows: Sequence[np.ndarray], gap: int = 1, row_gap: int | None = None) -> np.ndarray:
    """Rows of pictures as one RGBA picture with transparent gaps.

    Parameters
    ----------
    rows : sequence of ndarray
        arrays (n, h, w, 1 or 3) of one size, 0-1 or uint8; a shorter row is left open at its end
    gap : int, default 1
        pixels between columns
    row_gap : int, optional
        pixels between rows; `gap` by default

    Returns
    -------
    ndarray of shape (height, width, 4), uint8
        Red, green, blue and opacity, 0-255; opacity is 0 in the gaps.
    """
    if row_gap is None:
        row_gap = gap

    pictures = [as_uint8(r) for r in rows]
    sizes = {p.shape[1:3] for p in pictures}
    if len(sizes) != 1:
        raise DataError(f"rows need pictures of one size, but have {sorted(sizes)}; resize them first.")

    h, w = sizes.pop()
    n = max(len(p) for p in pictures)
    canvas = np.zeros((len(rows) * (h + row_gap) - row_gap, max(1, n * (w + gap) - gap), 4), np.uint8)

    for r, row in enumerate(pictures):
        for c, picture in enumerate(row):
            top = r * (h + row_gap)
            left = c * (w + gap)
            canvas[top : top + h, left : left + w, :3] = picture
            canvas[top : top + h, left : left + w, 3] = 255

    return canvas


def picture_rows(
    seen: np.ndarray | None,
    decoded: np.ndarray,
    controls: Mapping[str, np.ndarray] | None = None,
    captions: Sequence[str] | None = None,
    labels: tuple[str, str] = ("seen", "decoded"),
    width: float = 10.0,
) -> Figure:
    """Rows of pictures: seen above decoded, controls below.

    Parameters
    ----------
    seen : ndarray of shape (n, h, w, 1 or 3) or None
        0-1, or None when the pictures shown are not there
    decoded : ndarray
        the same shape
    controls : Mapping[str, ndarray], optional
        label to pictures decoded from a control input
    captions : sequence of str, optional
        (n,) short texts above the columns
    labels : tuple of (str, str), default ('seen', 'decoded')
        of the first two rows
    width : float, default 10.0
        of the figure, inches

    Returns
    -------
    Figure
        its height follows from the pictures

    Examples
    --------
    >>> pictures = np.linspace(0, 1, 4 * 28 * 28).reshape(4, 28, 28, 1)
    >>> picture_rows(pictures, pictures[::-1]).get_size_inches()[0]
    np.float64(10.0)
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if seen is not None:
        rows = {labels[0]: seen}
    else:
        rows = {}

    rows |= {labels[1]: decoded, **(controls or {})}
    h, w = np.shape(decoded)[1:3]
    zoom = max(1, round(96 / max(h, w)))
    gap = max(1, round(0.07 * max(h, w) * zoom))
    picture = mosaic([enlarged(pictures, zoom) for pictures in rows.values()], gap)
    left = 0.16 + 0.08 * max(len(name) for name in rows)

    if captions is not None:
        top = 0.2
    else:
        top = 0.02

    inches = width - left - 0.02
    tall = inches * picture.shape[0] / picture.shape[1]
    height = tall + top + 0.02

    with style():
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((left / width, 0.02 / height, inches / width, tall / height))
        axes.imshow(picture, interpolation="none" if zoom == 1 else "nearest", aspect="auto")
        axes.set_axis_off()
        step = h * zoom + gap

        for r, name in enumerate(rows):
            strong = r < (2 if seen is not None else 1)
            y = 1 - (r * step + h * zoom / 2) / picture.shape[0]
            axes.text(
                -0.1 / inches, y, name, transform=axes.transAxes, ha="right", va="center",
                color=INK if strong else MUTED, fontsize=9, fontweight="bold" if name == labels[1] else "normal",
            )  # fmt: skip

        for c, caption in enumerate(captions or ()):
            x = (c * (w * zoom + gap) + w * zoom / 2) / picture.shape[1]
            axes.text(x, 1 + 0.05 / tall, caption, transform=axes.transAxes, ha="center", va="bottom", color=MUTED)

    return figure


# -- scores ------------------------------------------------------------------------------------------------------------


def scores(
    table: pd.DataFrame,
    inputs: Mapping[str, str],
    measures: Mapping[str, str],
    chance: Mapping[str, float] | None = None,
) -> Figure:
    """One panel per measure, one line per input: value as a dot, interval as a line, chance dashed.

    Parameters
    ----------
    table : DataFrame
        columns input, measure, value, ci_low, ci_high
    inputs, measures : Mapping[str, str]
        name to what it is called, in the order drawn; ``brain`` and ``true`` have colours of their own
    chance : Mapping[str, float], optional
        measure to chance level, where there is one

    Returns
    -------
    Figure
        drawn in the style of all others
    """
    places = {name: y for y, name in enumerate(inputs)}
    chance = chance or {}
    rows = -(-len(measures) // 4)
    columns = -(-len(measures) // rows)

    with style():
        figure = empty(1.5 + 2.05 * columns, rows * (0.75 + 0.23 * len(inputs)))
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()

        for axes in panels[len(measures) :]:
            axes.set_visible(False)

        for axes, (measure, title) in zip(panels, measures.items(), strict=False):
            part = rows_at(table, (table["measure"] == measure) & table["input"].isin(list(places)))
            for row in part.to_dict("records"):
                colour = {"brain": BRAIN, "true": CEILING}.get(row["input"], CONTROL)
                y = places[row["input"]]
                if np.isfinite(row["ci_low"]):
                    axes.hlines(y, row["ci_low"], row["ci_high"], color=colour, linewidth=2)

                axes.plot(row["value"], y, "o", color=colour, markersize=5, clip_on=False)

            if measure in chance:
                axes.axvline(chance[measure], color=MUTED, linewidth=1, linestyle=DASHED, zorder=0)

            axes.set_title(short(title, 34))
            axes.set_yticks(range(len(places)), [short(n, 26) for n in inputs.values()])
            axes.set_ylim(len(places) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0, labelcolor=INK)
            axes.spines["left"].set_visible(False)
            axes.locator_params(axis="x", nbins=4)
            axes.grid(axis="x")
            axes.set_axisbelow(True)

    return figure


def one_a_row(axes: Any, names: Sequence[str], words: str) -> None:
    """Axes of one item a row, the first on top: names on the left, what is measured (`words`) below, legend above."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(words)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, handletextpad=0.3, borderpad=0)
