"""The figures of a report: arrays and tables in, a matplotlib Figure out. No pyplot, no global state left behind.

They share the style of ``phosphene.reporting.drawing``, whose public names can be imported from here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from phosphene.reporting.drawing import (
    BRAIN,
    CEILING,
    CONTROL,
    INK,
    MUTED,
    PALETTE,
    as_uint8,
    mosaic,
    picture_rows,
    png,
    style,
    svg,
)
from phosphene.reporting.drawing import empty as _figure
from phosphene.reporting.flatmap import short
from phosphene.reporting.rows import rows_at

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = [
    "PALETTE",
    "against_ceiling",
    "as_uint8",
    "flat_map",
    "identification",
    "mosaic",
    "picture_rows",
    "png",
    "retrieval",
    "roi_bars",
    "similarity_figure",
    "style",
    "svg",
    "voxel_histogram",
]

SEQUENTIAL = "cividis"
MOST_CELLS = 400
"""Largest side of a matrix that is drawn; a larger one is thinned evenly."""
MOST_ROIS = 30
"""Most ROIs that are drawn as bars; the first of more."""
_DASHES = (0, (3, 2))  # gaps of a dashed line, in line widths

# -- which is which ----------------------------------------------------------------------------------------------------


def similarity_figure(matrix: np.ndarray, groups: Sequence[str] | None = None, space: str = "") -> Figure:
    """Similarity of every decoded picture (row) with every seen one (column).

    Parameters
    ----------
    matrix : ndarray of shape (n, m)
        A side over 400 is thinned evenly, and the axes say so.
    groups : sequence of str, optional
        (n,) Category of each picture; rows and columns are then sorted by it, with a line between groups.
    space : str, default ""
        Feature space, for the title.

    Returns
    -------
    Figure
        Right answers stand on the diagonal of a square matrix.
    """
    n, m = matrix.shape
    is_square = n == m
    order = np.arange(n)
    names = np.empty(0, dtype=object)
    if groups is not None and is_square and len(groups) == n:
        names = np.asarray([str(group) for group in groups], dtype=object)
        order = np.argsort(names, kind="stable")

    rows = order[np.linspace(0, n - 1, min(n, MOST_CELLS)).round().astype(int)]
    columns = rows
    aspect = "equal"
    if not is_square:
        columns = np.linspace(0, m - 1, min(m, MOST_CELLS)).round().astype(int)
        aspect = "auto"

    thinned = ""
    if len(rows) < n:
        thinned = f" (every {n / len(rows):.3g}th of {n})"

    cells = np.asarray(matrix[rows][:, columns], dtype=np.float64)  # (n_rows, n_columns), each at most MOST_CELLS
    with style():
        figure = _figure(4.3, 3.7)
        axes = figure.add_subplot()
        axes.spines[:].set_visible(False)
        image = axes.imshow(cells, cmap=SEQUENTIAL, interpolation="nearest", aspect=aspect)

        if 1 < len(set(names)) <= 10:  # lines between more groups would hide the cells
            sorted_names = names[rows]
            edges = np.flatnonzero(sorted_names[1:] != sorted_names[:-1]) + 0.5
            for edge in edges:
                axes.axhline(edge, color="white", linewidth=0.8)
                axes.axvline(edge, color="white", linewidth=0.8)

        axes.set_xlabel("picture seen" + thinned)
        axes.set_ylabel("picture decoded")
        axes.set_title(short(space, 40))
        axes.set_xticks([])
        axes.set_yticks([])
        bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
        bar.outline.set_visible(False)
        bar.set_label("similarity")

    return figure


def retrieval(table: pd.DataFrame) -> Figure:
    """Retrieval accuracy against gallery size, with chance.

    Parameters
    ----------
    table : DataFrame
        Columns space, direction, gallery, top, value. Of several values of ``top`` the smallest is drawn.

    Returns
    -------
    Figure
        A colour per feature space, of the first four; forward as full lines and backward as dashes.
    """
    words = {"forward": "brain → picture", "backward": "picture → brain"}
    lines = {"forward": "-", "backward": _DASHES}

    with style():
        figure = _figure(4.3, 3.3)
        axes = figure.add_subplot()
        top = int(np.nanmin(table["top"].to_numpy(float)))
        table = rows_at(table, table["top"] == top)
        shades = [BRAIN, CEILING, CONTROL, INK]
        names = list(dict.fromkeys(table["space"]))[: len(shades)]

        for space, colour in zip(names, shades, strict=False):
            for direction, line in lines.items():
                is_line = (table["space"] == space) & (table["direction"] == direction)
                part = rows_at(table, is_line).sort_values("gallery")
                if part.empty:
                    continue

                axes.plot(
                    part["gallery"], part["value"], color=colour, linestyle=line, marker="o", markersize=3,
                    label=f"{short(space, 24)}, {words[direction]}", clip_on=False,
                )  # fmt: skip

        # Chance falls as one over the gallery, so it needs more points than the lines to look like a curve.
        sizes = np.unique(table["gallery"].to_numpy(float))
        dense = np.geomspace(sizes[0], sizes[-1], 60)
        axes.plot(dense, np.minimum(1, top / dense), color=MUTED, linewidth=1, linestyle=":", label="chance")
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{int(size)}" for size in sizes])
        axes.set_xticks([], minor=True)  # a logarithmic axis would number its own between them
        axes.set_ylim(0, 1)
        axes.grid(axis="y")
        axes.set_xlabel("pictures to choose from")
        if top == 1:
            axes.set_ylabel("share found")
        else:
            axes.set_ylabel(f"share found among the best {top}")

        figure.legend(loc="outside upper left", ncols=2)

    return figure


def identification(scores: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Identification scores as dots with intervals; chance as a tick, controls as open marks.

    Parameters
    ----------
    scores : DataFrame
        Rows of ``scores.csv``, all inputs.
    titles : Mapping[str, str]
        Metric to what it is called; only these are drawn, in this order.

    Returns
    -------
    Figure
        One line per metric, the first on top.
    """
    marks = {"brain": "o", "shuffled": "x", "noise": "^", "mean": "s", "category": "D", "truth": "*"}
    colours = {"brain": BRAIN, "truth": CEILING}
    labels = {"brain": "decoded", "truth": "ceiling"}

    with style():
        figure = _figure(4.7, 0.95 + 0.3 * len(titles))
        axes = figure.add_subplot()
        place = {metric: y for y, metric in enumerate(titles)}
        scores = rows_at(scores, scores["metric"].isin(list(place)))
        brain = rows_at(scores, scores["input"] == "brain")
        y = np.array([place[metric] for metric in brain["metric"]], dtype=float)
        axes.hlines(y, brain["ci_low"], brain["ci_high"], color=BRAIN, linewidth=2)
        axes.vlines(brain["chance"], y - 0.35, y + 0.35, color=MUTED, linewidth=1, linestyle=(0, (2, 1.5)))

        for name, mark in marks.items():
            part = rows_at(scores, scores["input"] == name)
            if part.empty:
                continue

            y = [place[metric] for metric in part["metric"]]
            (dots,) = axes.plot(
                part["value"], y, mark, color=colours.get(name, CONTROL), markersize=4.7, markeredgewidth=1, zorder=2,
                clip_on=False, label=labels.get(name, name),
            )  # fmt: skip

            # The brain stands above all controls, which are open so that marks on one place can be told apart.
            if name not in colours:
                dots.set_markerfacecolor("none")

            if name == "brain":
                dots.set_markersize(5.5)
                dots.set_zorder(3)

        axes.set_yticks(range(len(titles)), [short(title, 40) for title in titles.values()])
        axes.tick_params(axis="y", length=0, pad=8, labelcolor=INK)
        axes.set_ylim(len(titles) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.set_xlabel("share right (dashed tick: chance)")
        figure.legend(loc="outside upper left", ncols=3, handletextpad=0.1)

    return figure


# -- encoding ----------------------------------------------------------------------------------------------------------


def voxel_histogram(r: np.ndarray, ceiling_r: np.ndarray | None = None) -> Figure:
    """Distribution of encoding accuracy over voxels, against what a perfect model could reach.

    Parameters
    ----------
    r : ndarray of shape (n_voxels,)
        Pearson r of predicted and measured responses; NaN is left out and counted
    ceiling_r : ndarray of shape (n_voxels,), optional
        Largest expected r of a perfect model, 0 where there is no signal, NaN where unknown.

    Returns
    -------
    Figure
        Bars of r, an outline of the ceilings, and the median.
    """
    defined = r[np.isfinite(r)]
    low = -0.2
    if defined.size:
        low = min(-0.2, float(defined.min()))

    bins = np.linspace(np.floor(low * 10) / 10, 1.0, 45)  # the same for r and ceilings
    n_undefined = len(r) - len(defined)
    title = f"{len(r):,} voxels"
    if n_undefined:
        title += f", {n_undefined:,} undefined"

    with style():
        figure = _figure(4.3, 3.1)
        axes = figure.add_subplot()

        if ceiling_r is not None and np.isfinite(ceiling_r).any():
            n_without = int((ceiling_r == 0).sum())  # one bar of them would flatten all others
            label = "ceiling"
            if n_without:
                label = f"ceiling ({n_without:,} voxels with none)"

            axes.hist(ceiling_r[ceiling_r > 0], bins, histtype="step", color=CEILING, linewidth=1.4, label=label)

        axes.hist(defined, bins, color=BRAIN, alpha=0.85, label="predicted")
        if defined.size:
            median = float(np.median(defined))
            axes.axvline(median, color=INK, linewidth=1, linestyle=_DASHES, label=f"median {median:.2f}")

        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.set_xlabel("r of predicted and measured response")
        axes.set_ylabel("voxels")
        axes.set_title(title)
        figure.legend(loc="outside upper left", ncols=3)

    return figure


def against_ceiling(r: np.ndarray, ceiling_r: np.ndarray) -> Figure:
    """Encoding accuracy of each voxel against the r a perfect model could reach; the diagonal is the ceiling.

    Parameters
    ----------
    r : ndarray of shape (n_voxels,)
        Pearson r of predicted and measured responses; NaN is left out.
    ceiling_r : ndarray of shape (n_voxels,)
        Largest expected r of a perfect model; NaN is left out.

    Returns
    -------
    Figure
        One dot per voxel, smaller where there are many.
    """
    is_known = np.isfinite(r) & np.isfinite(ceiling_r)
    n_known = is_known.sum()

    with style():
        figure = _figure(4.3, 3.1)
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=CEILING, linewidth=1.2, label="ceiling")
        axes.axhline(0, color=MUTED, linewidth=0.8)
        size = float(np.clip(3e4 / max(1, n_known), 1, 14))
        axes.scatter(
            ceiling_r[is_known], r[is_known], s=size, color=BRAIN, alpha=0.35, linewidth=0, label="one voxel",
            rasterized=n_known > 1500,  # as vectors so many dots would make the page slow
        )  # fmt: skip

        axes.set_xlabel("r of a perfect model (noise ceiling)")
        axes.set_ylabel("r reached")
        axes.legend(loc="upper left")

    return figure


def roi_bars(table: pd.DataFrame, label: str) -> Figure:
    """One bar per ROI with its interval.

    Parameters
    ----------
    table : DataFrame
        Columns roi, n, value, low, high, and optionally ceiling (drawn as a tick).
    label : str
        Of the value axis, saying what the interval is.

    Returns
    -------
    Figure
        The first on top; no more than `MOST_ROIS`.
    """
    table = table.iloc[:MOST_ROIS]
    with style():
        figure = _figure(4.3, max(1.6, 0.7 + 0.25 * len(table)))
        axes = figure.add_subplot()
        y = np.arange(len(table))
        axes.barh(y, table["value"], height=0.62, color=BRAIN, alpha=0.85)
        below = table["value"] - table["low"]
        above = table["high"] - table["value"]
        lengths = np.abs(np.stack([below, above]).astype(float))  # (2, n_rois)
        axes.errorbar(table["value"], y, xerr=lengths, fmt="none", ecolor=INK, elinewidth=1, capsize=0)

        if "ceiling" in table and len(table["ceiling"].dropna()):
            axes.plot(table["ceiling"], y, "|", color=CEILING, markersize=11, markeredgewidth=2, label="ceiling")
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1))

        names = []
        for roi, n in zip(table["roi"], table["n"], strict=True):
            names.append(f"{short(roi, 28)}  ({n:,})")

        axes.set_yticks(y, names)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(len(table) - 0.4, -0.6)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.set_xlabel(label)
        axes.set_title("ROI (voxels)")

    return figure


def flat_map(u: np.ndarray, v: np.ndarray, values: np.ndarray, label: str = "r") -> Figure:
    """Values on the flattened cortex: one dot per voxel at its place (u, v).

    Parameters
    ----------
    u, v : ndarray of shape (n_voxels,)
        Place on the flat map, millimetres; NaN is left out.
    values : ndarray of shape (n_voxels,)
        What the colours say; NaN is left out.
    label : str, default "r"
        Of the colour bar.

    Returns
    -------
    Figure
        The colours end at the 99th percentile, so that single voxels do not flatten all others.
    """
    is_known = np.isfinite(u) & np.isfinite(v) & np.isfinite(values)
    high = 1.0
    if is_known.any():
        high = float(np.quantile(values[is_known], 0.99))

    # Large dots touch each other and get an edge; small ones would be nothing but edge.
    size = float(np.clip(4e4 / max(1, is_known.sum()), 0.5, 90))
    linewidth = 0.0
    if size > 10:
        linewidth = 0.4

    with style():
        figure = _figure(6.5, 3.6)
        axes = figure.add_subplot()
        dots = axes.scatter(
            u[is_known], v[is_known], c=values[is_known], s=size, cmap=SEQUENTIAL,
            vmin=min(0.0, high), vmax=max(high, 1e-3), linewidth=linewidth, edgecolor=MUTED, rasterized=True,
        )  # fmt: skip

        axes.set_aspect("equal")
        axes.set_axis_off()
        bar = figure.colorbar(dots, ax=axes, fraction=0.03, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label(label)

    return figure
