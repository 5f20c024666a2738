"""Captions drawn: what responses read like, how the true caption ranks, which words describe an area."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from phosphene.analysis.base import Drawing
from phosphene.reporting import drawing
from phosphene.reporting.drawing import BRAIN, CEILING, CONTROL, INK, MUTED
from phosphene.types import Stimuli

_COLUMNS = 2


def read_figure(stimuli: Stimuli, nearest: np.ndarray, own: Sequence[tuple[str, ...]], most: int) -> Drawing:
    """Pictures seen, the caption nearest to what was decoded, and a caption of the picture.

    Parameters
    ----------
    stimuli : Stimuli
        n pictures
    nearest : ndarray of shape (n,)
        captions
    own : sequence of tuple of str
        captions of each picture, maybe none
    most : int
        how many to show
    """
    n = min(most, len(stimuli))
    pictures = drawing.as_uint8(stimuli.resized(None, slice(0, n)))
    rows = -(-n // _COLUMNS)
    side = 0.9
    width = 9.0
    cell = width / _COLUMNS
    height = rows * (side + 0.12)

    with drawing.style():
        figure = drawing.empty(width, height)
        figure.set_layout_engine("none")

        for i, picture in enumerate(pictures):
            left = (i % _COLUMNS) * cell
            bottom = height - (i // _COLUMNS + 1) * (side + 0.12) + 0.06
            axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
            axes.imshow(picture, interpolation="nearest" if picture.shape[0] < 96 else "antialiased")
            axes.set_axis_off()
            said = textwrap.wrap(drawing.short(nearest[i], 110), 46)

            if own[i]:
                true = textwrap.wrap(drawing.short(max(own[i], key=len), 110), 52)
            else:
                true = []

            x = (left + side + 0.12) / width
            figure.text(x, (bottom + side - 0.04) / height, "\n".join(said), va="top", color=BRAIN, fontsize=8.5,
                        fontweight="bold", linespacing=1.25)  # fmt: skip
            below = bottom + side - 0.1 - 0.155 * len(said)
            figure.text(x, below / height, "\n".join(true), va="top", color=MUTED, fontsize=8, linespacing=1.25)

    return Drawing(
        figure,
        "Pictures seen, each with the caption nearest to what was decoded and one of its own captions.",
        "What the first test responses read like: in bold the caption of the pool nearest to what was decoded, below it one that "
        "was written for the picture.",
    )


def ranks_figure(curves: Mapping[str, np.ndarray], words: Mapping[str, str], n_pool: int) -> Drawing:
    """Share of pictures whose true caption is among the nearest x % of the pool.

    Parameters
    ----------
    curves : mapping of {str: ndarray}
        input to (n,) share of the pool that the true caption beats
    words : mapping of {str: str}
        input to what it is called
    n_pool : int
        captions
    """
    colours = {"truth": CEILING, "brain": BRAIN, "shuffled": CONTROL}
    with drawing.style():
        figure = drawing.empty(4.6, 2.9)
        axes = figure.subplots()

        for name, beaten in curves.items():
            rank = np.sort(100 * (1 - beaten[np.isfinite(beaten)]))
            x = np.concatenate([[0], rank, [100]])
            y = np.concatenate([[0], np.arange(1, len(rank) + 1) / len(rank), [1]])
            axes.step(
                x, y, where="post", color=colours[name], label=words[name], linewidth=2 if name == "brain" else 1.4
            )

        axes.plot([0, 100], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 1.5)), label="chance")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 1.01)
        axes.set_xlabel(f"nearest captions, % of {n_pool}")
        axes.set_ylabel("share of pictures found")
        axes.grid()
        axes.set_axisbelow(True)
        axes.legend(loc="lower right")

    return Drawing(
        figure,
        "Curves of the share of pictures whose true caption is among the nearest captions.",
        "How far down the list of captions the true one stands: share of pictures found against the share of the pool read.",
    )


def described(areas: Sequence[tuple[str, str, float, np.ndarray, float]]) -> Drawing:
    """The caption that describes each area best, and how near the best caption of random voxels comes.

    Parameters
    ----------
    areas : sequence of tuple of (str, str, float, ndarray, float)
        words, caption, its cosine, (repeats,) best cosines of random voxel sets, p
    """
    with drawing.style():
        figure = drawing.empty(8.6, 0.8 + 0.36 * len(areas))
        axes, texts = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.45))

        for y, (_, caption, value, null, p) in enumerate(areas):
            low, high = np.quantile(null, [0.05, 0.95])
            clear = p < 0.05
            axes.hlines(y, low, high, color=CONTROL, linewidth=5, alpha=0.6,
                        label="best of random voxels, 90 %" if y == 0 else None)  # fmt: skip
            axes.plot(value, y, "o", color=BRAIN, markersize=6, markerfacecolor=BRAIN if clear else "none", clip_on=False,
                      label="the area" if y == 0 else None)  # fmt: skip
            texts.text(0, y, drawing.short(caption, 74), va="center", color=INK if clear else MUTED, fontsize=8)

        drawing.one_a_row(axes, [a[0] for a in areas], "cosine with the nearest caption")
        texts.set_axis_off()

    return Drawing(
        figure,
        "For every area the nearest caption and its cosine beside the best cosines of random voxel sets.",
        "The caption nearest to what each area drives beyond random voxels; filled where no more than 5 % of random voxel sets "
        "have one as near.",
    )
